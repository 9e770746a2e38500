"""Tasks with network interfaces of their own, from RunTask to a running container: addresses, security groups, names, and what is left."""

import contextlib

import pytest
from botocore.exceptions import ClientError

import cloud_map_calls as calls
from awsvpc import ZONE, address, details, fetched, interfaces, network, running, subnet_of
from berth import unique, until
from cloud_map_calls import ARN, cloud_map, private_namespace
from containers import IDLE, ended, hello, output, shell, skip_unless_root, stop
from ec2_calls import a_vpc, default_vpc
from ecs_calls import describe, register, run, service, tasks_of, until_steady

skip_unless_root(__file__)
DEFAULT = "default"
MUST = "Network Configuration must be provided when networkMode 'awsvpc' is specified."
MUST_NOT = "Network Configuration is not valid for the given networkMode of this task definition."


@pytest.fixture
def ec2(up):
    return up.client("ec2")


@pytest.fixture
def subnet(ec2):
    """The default VPC's subnet in the zone of the machine."""
    return subnet_of(ec2)


@pytest.fixture
def group(up, ec2):
    """A group of the default VPC that lets nobody in."""
    made = ec2.create_security_group(GroupName=unique("g"), Description="none", VpcId=default_vpc(ec2)["VpcId"])["GroupId"]
    yield made
    for arn in up.ecs.list_tasks(cluster=DEFAULT)["taskArns"]:
        up.ecs.stop_task(cluster=DEFAULT, task=arn)
    until("the group to be nobody's", lambda: not interfaces(ec2, group=made))
    ec2.delete_security_group(GroupId=made)


def test_two_tasks_reach_each_other_as_far_as_their_group_lets_them(up, ec2, subnet, group):
    web = running(up, hello(), on=network(subnet, groups=[group]))
    asker = running(up, shell(IDLE), on=network(subnet))
    [attachment] = web["attachments"]
    assert (attachment["type"], attachment["status"]) == ("ElasticNetworkInterface", "ATTACHED")
    shown = details(web)
    assert list(shown) == ["subnetId", "networkInterfaceId", "macAddress", "privateDnsName", "privateIPv4Address"]
    assert shown["subnetId"] == subnet and shown["privateDnsName"] == f"ip-{address(web).replace('.', '-')}.ec2.internal"
    [container] = web["containers"]
    assert container["networkInterfaces"] == [{"attachmentId": attachment["id"], "privateIpv4Address": address(web)}]
    assert container["networkBindings"] == []
    assert address(web) != address(asker)

    known = interfaces(ec2, subnet)[address(web)]
    assert (known["NetworkInterfaceId"], known["MacAddress"], known["Status"]) == (shown["networkInterfaceId"], shown["macAddress"], "in-use")
    assert known["RequesterManaged"] is True and known["Description"].endswith(f":attachment/{attachment['id']}")
    assert [one["GroupId"] for one in known["Groups"]] == [group]

    assert fetched(asker, address(web)) is None, "nobody is let in"
    rule = {"IpProtocol": "tcp", "FromPort": 80, "ToPort": 80, "IpRanges": [{"CidrIp": f"{address(asker)}/32"}]}
    ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[rule])
    until("the rule to let it in", lambda: "Hello from Berth" in (fetched(asker, address(web)) or ""))
    ec2.revoke_security_group_ingress(GroupId=group, IpPermissions=[rule])
    until("the rule to be gone", lambda: fetched(asker, address(web)) is None)

    for task in (web, asker):
        stop(up, task["taskArn"])
        until("its address to be free", lambda task=task: address(task) not in interfaces(ec2, subnet))
        assert describe(up.ecs, DEFAULT, task["taskArn"])["attachments"][0]["status"] == "DELETED"


def test_containers_of_a_task_share_its_interface(up, ec2, subnet):
    task = running(up, hello(), shell(IDLE, name="side"), on=network(subnet))
    [side] = [one for one in task["containers"] if one["name"] == "side"]
    assert "Hello from Berth" in fetched({"containers": [side]}, "127.0.0.1")
    stop(up, task["taskArn"])


def test_a_service_is_found_by_its_name_from_inside_another_task(up, subnet, ec2):
    client, space = cloud_map(up), f"{unique('ns')}.local"
    namespace = private_namespace(client, space)
    registry = calls.service(client, namespace, "A", name="api", custom=True)
    definition = register(up.ecs, containers=[hello()], networkMode="awsvpc")
    on = network(subnet)
    made = up.ecs.create_service(
        cluster=DEFAULT, serviceName="api", taskDefinition=definition, desiredCount=2, networkConfiguration=on,
        serviceRegistries=[{"registryArn": f"{ARN}service/{registry}"}],
    )["service"]
    echoed = {"awsvpcConfiguration": {**on["awsvpcConfiguration"], "assignPublicIp": "DISABLED"}}
    assert made["networkConfiguration"] == echoed and made["deployments"][0]["networkConfiguration"] == echoed
    until_steady(up.ecs, DEFAULT, "api")
    addresses = {address(describe(up.ecs, DEFAULT, arn)) for arn in tasks_of(up.ecs, DEFAULT, serviceName="api")}
    assert len(addresses) == 2
    out = f"while :; do getent ahostsv4 api.{space}; sleep 0.2; done"
    asker = running(up, shell(out), on=on)
    until("both addresses to be answered", lambda: all(one in output(up, asker["taskArn"]) for one in addresses))
    up.ecs.delete_service(cluster=DEFAULT, service="api", force=True)
    stop(up, asker["taskArn"])
    until("INACTIVE", lambda: service(up.ecs, DEFAULT, "api")["status"] == "INACTIVE")
    until("all addresses to be free", lambda: not interfaces(ec2, subnet))


def test_a_full_subnet_is_a_failure_until_an_address_is_free(up, ec2):
    """AWS keeps five of the sixteen addresses of a /28."""
    with a_vpc(ec2, "10.77.0.0/16") as vpc:
        subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.77.0.0/28", AvailabilityZone=ZONE)["Subnet"]["SubnetId"]
        definition = register(up.ecs, containers=[{**shell(IDLE), "memory": 8}], networkMode="awsvpc")
        arns = run(up.ecs, DEFAULT, definition, count=10, networkConfiguration=network(subnet))
        answer = up.ecs.run_task(cluster=DEFAULT, taskDefinition=definition, count=2, networkConfiguration=network(subnet))
        arns += [task["taskArn"] for task in answer["tasks"]]
        assert [failure["reason"] for failure in answer["failures"]] == ["RESOURCE:ENI"]
        assert len(arns) == len(interfaces(ec2, subnet)) == 11
        assert sorted(int(one.rsplit(".", 1)[1]) for one in interfaces(ec2, subnet)) == list(range(4, 15))
        with pytest.raises(ClientError):
            ec2.delete_subnet(SubnetId=subnet)
        up.ecs.stop_task(cluster=DEFAULT, task=arns[0])
        freed = address(ended(up, arns.pop(0)))
        until("its address to be free", lambda: freed not in interfaces(ec2, subnet))
        [again] = run(up.ecs, DEFAULT, definition, networkConfiguration=network(subnet))
        assert address(describe(up.ecs, DEFAULT, again)) == freed
        for arn in [*arns, again]:
            up.ecs.stop_task(cluster=DEFAULT, task=arn)
        until("all addresses to be free", lambda: not interfaces(ec2, subnet))
        for arn in [*arns, again]:
            ended(up, arn)


def test_a_subnet_of_another_zone_is_no_place(up, ec2, subnet):
    [other] = ec2.describe_subnets(Filters=[{"Name": "default-for-az", "Values": ["true"]}, {"Name": "availability-zone", "Values": ["us-east-1b"]}])["Subnets"]
    definition = register(up.ecs, containers=[shell(IDLE)], networkMode="awsvpc")
    answer = up.ecs.run_task(cluster=DEFAULT, taskDefinition=definition, networkConfiguration=network(other["SubnetId"]))
    assert answer["tasks"] == [] and len(answer["failures"]) == 1
    assert interfaces(ec2, other["SubnetId"]) == {}


def test_names_of_a_task_are_its_interfaces_alone(up):
    for member in ({"hostname": "a"}, {"dnsServers": ["10.0.0.2"]}, {"dnsSearchDomains": ["a.b"]}, {"extraHosts": [{"hostname": "a", "ipAddress": "10.0.0.1"}]}):
        [name] = member
        with pytest.raises(ClientError) as caught:
            register(up.ecs, containers=[shell(IDLE, **member)], networkMode="awsvpc")
        error = caught.value.response["Error"]
        assert error["Code"] == "ClientException" and name in error["Message"], error


def test_what_is_no_network_configuration_is_refused(up, ec2, subnet):
    before = set(interfaces(ec2))
    with contextlib.ExitStack() as stack:
        vpc = stack.enter_context(a_vpc(ec2, "10.78.0.0/16"))
        foreign = ec2.create_subnet(VpcId=vpc, CidrBlock="10.78.0.0/24", AvailabilityZone=ZONE)["Subnet"]["SubnetId"]
        own = register(up.ecs, containers=[shell(IDLE)], networkMode="awsvpc")
        bridge = register(up.ecs, containers=[shell(IDLE)])
        [foreign_group] = [one["GroupId"] for one in ec2.describe_security_groups(Filters=[{"Name": "vpc-id", "Values": [vpc]}])["SecurityGroups"]]
        public = {"awsvpcConfiguration": {"subnets": [subnet], "assignPublicIp": "ENABLED"}}
        for definition, given, text in (
            (own, None, MUST),
            (bridge, network(subnet), MUST_NOT),
            (own, network("subnet-00000000000000000"), "The subnet ID 'subnet-00000000000000000' does not exist"),
            (own, network(subnet, groups=["sg-00000000000000000"]), "The security group 'sg-00000000000000000' does not exist"),
            (own, network(subnet, foreign), "same VPC"),
            (own, network(subnet, groups=[foreign_group]), "same VPC"),
            (own, public, "Assign public IP is not supported for this launch type."),
        ):
            members = {"networkConfiguration": given} if given else {}
            for call in (
                lambda: up.ecs.run_task(cluster=DEFAULT, taskDefinition=definition, **members),
                lambda: up.ecs.create_service(cluster=DEFAULT, serviceName="no", taskDefinition=definition, desiredCount=1, **members),
            ):
                with pytest.raises(ClientError) as caught:
                    call()
                error = caught.value.response["Error"]
                assert error["Code"] == "InvalidParameterException" and text in error["Message"], error
    assert set(interfaces(ec2)) == before, "what was refused took no address"
