"""EC2's query protocol as it is on the wire, without an SDK between."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlencode, urlsplit
from xml.etree import ElementTree

import pytest
from botocore.exceptions import ClientError

from berth import Berth, until
from ec2_calls import a_vpc, everything
from etcd_servers import EtcdCluster
from http_call import exchange, signature, stamp_of

NAMESPACE = "{http://ec2.amazonaws.com/doc/2016-11-15/}"


def post(berth, fields, key=None, offset=0, service="ec2", sign_body=None):
    """A signed form; `fields` is a mapping or the body itself."""
    body = fields if isinstance(fields, bytes) else urlencode({"Version": "2016-11-15", **fields}).encode()
    access, secret = key or berth.credentials
    stamp = stamp_of(offset)
    headers = {
        "content-type": "application/x-www-form-urlencoded; charset=utf-8",
        "host": urlsplit(berth.endpoint).netloc,
        "x-amz-date": stamp,
    }
    signed = ";".join(sorted(headers))
    covered = hashlib.sha256(body if sign_body is None else sign_body).hexdigest()
    canonical = "\n".join(["POST", "/", "", *(f"{name}:{headers[name]}" for name in sorted(headers)), "", signed, covered])
    scope, made = signature(secret, stamp, "us-east-1", service, canonical)
    headers["authorization"] = f"AWS4-HMAC-SHA256 Credential={access}/{scope}, SignedHeaders={signed}, Signature={made}"
    return exchange(berth.endpoint, headers=headers, body=body)


def error(answer):
    """Status, code and message; the request's id must be there."""
    root = ElementTree.fromstring(answer.body)
    assert root.tag == "Response" and root.find("RequestID").text == answer.headers["x-amzn-requestid"], answer
    return answer.status, root.find("Errors/Error/Code").text, root.find("Errors/Error/Message").text


def test_an_answer_is_as_ec2_writes_it(server):
    answer = post(server, {"Action": "DescribeVpcs", "Filter.1.Name": "isDefault", "Filter.1.Value.1": "true"})
    assert answer.status == 200 and answer.headers["content-type"].startswith("text/xml")
    root = ElementTree.fromstring(answer.body)
    assert root.tag == f"{NAMESPACE}DescribeVpcsResponse"
    assert root.find(f"{NAMESPACE}requestId").text == answer.headers["x-amzn-requestid"]
    [item] = root.findall(f"{NAMESPACE}vpcSet/{NAMESPACE}item")
    assert item.find(f"{NAMESPACE}cidrBlock").text == "172.31.0.0/16"
    vpc = item.find(f"{NAMESPACE}vpcId").text
    done = ElementTree.fromstring(post(server, {"Action": "DeleteTags", "ResourceId.1": vpc, "Tag.1.Key": "none"}).body)
    assert done.find(f"{NAMESPACE}return").text == "true"


@pytest.mark.parametrize(
    "fields, status, code, word",
    [
        ({}, 400, "MissingAction", "Action"),
        ({"Action": "RunInstances"}, 400, "InvalidAction", "RunInstances is not valid"),
        ({"Action": "DescribeVpcs", "Fliter.1.Name": "x"}, 400, "UnknownParameter", "Fliter"),
        ({"Action": "DescribeVpcs", "MaxResults": "many"}, 400, "InvalidParameterValue", "MaxResults"),
        ({"Action": "DescribeVpcs", "DryRun": "perhaps"}, 400, "InvalidParameterValue", "DryRun"),
        ({"Action": "DeleteVpc"}, 400, "MissingParameter", "The request must contain the parameter VpcId"),
        ({"Action": "DescribeVpcAttribute", "VpcId": "x", "Attribute": "colour"}, 400, "InvalidParameterValue", "colour"),
        ({"Action": "DescribeInstances", "IncludeManagedResources": "true"}, 400, "UnsupportedOperation", "IncludeManagedResources"),
        ({"Action": "DescribeVpcs", "DryRun": "true"}, 412, "DryRunOperation", "would have succeeded"),
        (b"Action=%", 400, "MalformedQueryString", "escape"),
        (b"Action=DescribeVpcs&VpcId.1=%ff", 400, "MalformedQueryString", "UTF-8"),
        (b"Action=DescribeVpcs&" + b"&".join(b"VpcId.%d=x" % n for n in range(50_001)), 400, "MalformedQueryString", "fields"),
        (b"Action=DescribeVpcs&Filter" + b".1" * 100 + b"=x", 400, "MalformedQueryString", "parts"),
    ],
)
def test_forms_that_say_nothing_good_are_refused(server, fields, status, code, word):
    got = error(post(server, fields))
    assert got[:2] == (status, code) and word in got[2], got


def test_markup_in_a_value_stays_text(server):
    status, code, message = error(post(server, {"Action": "DeleteVpc", "VpcId": "</Message><x>&\"'"}))
    assert (status, code) == (400, "InvalidVpcID.NotFound") and "</Message><x>&\"'" in message


def test_who_may_not_is_told_as_ec2_tells(server):
    fields = {"Action": "DescribeVpcs"}
    access, secret = server.credentials
    assert error(post(server, fields, key=(access, secret + "x")))[:2] == (401, "AuthFailure")
    assert error(post(server, fields, key=("AKIAXXXXXXXXXXXXXXXX", secret)))[:2] == (401, "AuthFailure")
    assert error(post(server, fields, sign_body=b"Action=DescribeSubnets"))[:2] == (401, "AuthFailure")
    assert error(post(server, fields, offset=-3600))[:2] == (400, "RequestExpired")


def test_forms_of_other_services_are_not_ec2s(server):
    answer = post(server, {"Action": "DescribeVpcs"}, service="elasticloadbalancing")
    assert answer.status == 400 and answer.code == "UnknownOperationException"


def test_of_many_at_once_no_two_get_the_same(server):
    """A name, a CIDR block and the last place: exactly as many get through as may."""
    ec2 = server.client("ec2")

    def outcome(call, **members):
        try:
            call(**members)
        except ClientError as failure:
            return failure.response["Error"]["Code"]
        return "ok"

    with a_vpc(ec2) as vpc, ThreadPoolExecutor(12) as pool:
        subnets = list(pool.map(lambda _: outcome(ec2.create_subnet, VpcId=vpc, CidrBlock="10.0.0.0/24"), range(12)))
        assert sorted(subnets) == ["InvalidSubnet.Conflict"] * 11 + ["ok"]
        groups = list(pool.map(lambda _: outcome(ec2.create_security_group, VpcId=vpc, GroupName="web", Description="web"), range(12)))
        assert sorted(groups) == ["InvalidGroup.Duplicate"] * 11 + ["ok"]
        [group] = ec2.describe_security_groups(Filters=[{"Name": "vpc-id", "Values": [vpc]}, {"Name": "group-name", "Values": ["web"]}])["SecurityGroups"]
        rules = list(
            pool.map(
                lambda _: outcome(ec2.authorize_security_group_ingress, GroupId=group["GroupId"], IpProtocol="tcp", FromPort=80, ToPort=80, CidrIp="0.0.0.0/0"),
                range(12),
            )
        )
        assert sorted(rules) == ["InvalidPermission.Duplicate"] * 11 + ["ok"]


def test_servers_that_start_at_once_make_one_default_vpc():
    etcd = EtcdCluster()
    peers = []
    try:
        etcd.start()
        peers = [Berth("server", arguments=["--store", etcd.url]) for _ in range(2)]
        for peer in peers:
            peer.start(wait=False)
        for peer in peers:
            until("a server to be ready", peer._ready)
        first, second = (everything(peer.client("ec2")) for peer in peers)
        assert first == second
        assert len(peers[0].client("ec2").describe_vpcs()["Vpcs"]) == 1
    finally:
        for peer in peers:
            peer.end()
        etcd.end()
