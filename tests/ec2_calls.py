"""Calls of EC2's actions that several test files make."""

import contextlib
import json

import pytest
from botocore.exceptions import ClientError

LISTS = {
    "describe_vpcs": "Vpcs",
    "describe_subnets": "Subnets",
    "describe_security_groups": "SecurityGroups",
    "describe_security_group_rules": "SecurityGroupRules",
    "describe_network_interfaces": "NetworkInterfaces",
    "describe_route_tables": "RouteTables",
    "describe_internet_gateways": "InternetGateways",
    "describe_tags": "Tags",
}


def everything(ec2):
    """All that the account has, as one text."""
    lists = {member: getattr(ec2, action)()[member] for action, member in LISTS.items()}
    vpcs = [vpc["VpcId"] for vpc in lists["Vpcs"]]
    names = ("enableDnsSupport", "enableDnsHostnames")
    attributes = [{k: v for k, v in ec2.describe_vpc_attribute(VpcId=vpc, Attribute=name).items() if k != "ResponseMetadata"} for vpc in vpcs for name in names]
    return json.dumps([lists, attributes], sort_keys=True, default=str)


@contextlib.contextmanager
def refused(ec2, code, *words, status=400):
    """The block must be refused with this code and a message that has each word, and must change nothing."""
    before = everything(ec2)
    with pytest.raises(ClientError) as caught:
        yield caught
    response = caught.value.response
    assert response["Error"]["Code"] == code, response
    assert response["ResponseMetadata"]["HTTPStatusCode"] == status, response
    for word in words:
        assert word in response["Error"]["Message"], response
    assert everything(ec2) == before


def default_vpc(ec2):
    [vpc] = ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"]
    return vpc


@contextlib.contextmanager
def a_vpc(ec2, cidr="10.0.0.0/16", **members):
    """A VPC of the test's own, which goes with all that is in it."""
    vpc = ec2.create_vpc(CidrBlock=cidr, **members)["Vpc"]["VpcId"]
    own = [{"Name": "vpc-id", "Values": [vpc]}]
    try:
        yield vpc
    finally:
        for subnet in ec2.describe_subnets(Filters=own)["Subnets"]:
            ec2.delete_subnet(SubnetId=subnet["SubnetId"])
        groups = ec2.describe_security_groups(Filters=own)["SecurityGroups"]
        for group in groups:
            # Groups may refer to each other.
            if group["IpPermissions"] and group["GroupName"] != "default":
                ec2.revoke_security_group_ingress(GroupId=group["GroupId"], IpPermissions=group["IpPermissions"])
        for group in groups:
            if group["GroupName"] != "default":
                ec2.delete_security_group(GroupId=group["GroupId"])
        ec2.delete_vpc(VpcId=vpc)
