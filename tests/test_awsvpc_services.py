"""Who else starts tasks with interfaces of their own than RunTask: StartTask, deployments, task sets, DAEMON services; how many a machine
holds; and what is in use is not deleted."""

import pytest

from awsvpc import ZONE, address, details, fetched, groups_of, interfaces, network, running, subnet_of
from berth import unique, until
from containers import IDLE, ended, hello, shell, skip_unless_root, stop
from ec2_calls import a_vpc, default_vpc
from ec2_calls import refused as refused_by_ec2
from ecs_calls import describe, refused, register, run, service, tasks_of, texts, until_status, until_steady

skip_unless_root(__file__)
DEFAULT = "default"


@pytest.fixture
def ec2(up):
    return up.client("ec2")


@pytest.fixture
def subnet(ec2):
    """The default VPC's subnet in the zone of the machine."""
    return subnet_of(ec2)


@pytest.fixture
def machine(up):
    """The container instance."""
    [arn] = up.ecs.list_container_instances(cluster=DEFAULT)["containerInstanceArns"]
    return arn


@pytest.fixture
def small(up, ec2):
    """A subnet of sixteen addresses in the machine's zone and a group, in a VPC of their own, with nobody in them at the end."""
    with a_vpc(ec2, "10.81.0.0/16") as vpc:
        made = ec2.create_subnet(VpcId=vpc, CidrBlock="10.81.0.0/28", AvailabilityZone=ZONE)["Subnet"]["SubnetId"]
        yield made, ec2.create_security_group(GroupName="g", Description="none", VpcId=vpc)["GroupId"]
        for arn in up.ecs.list_tasks(cluster=DEFAULT)["taskArns"]:
            up.ecs.stop_task(cluster=DEFAULT, task=arn)
        until("all addresses to be free", lambda: not interfaces(ec2, made))


def ended_service(up, ec2, name, *subnets):
    """Deletes a service, and waits until nothing of it is left."""
    up.ecs.delete_service(cluster=DEFAULT, service=name, force=True)
    until("INACTIVE", lambda: service(up.ecs, DEFAULT, name)["status"] == "INACTIVE")
    for subnet in subnets:
        until("all addresses to be free", lambda subnet=subnet: not interfaces(ec2, subnet))


def only_task(up, name):
    """The one task of a service."""
    [arn] = tasks_of(up.ecs, DEFAULT, serviceName=name)
    return describe(up.ecs, DEFAULT, arn)


def test_a_task_is_started_where_it_is_told_to(up, ec2, subnet, machine):
    definition = register(up.ecs, containers=[hello()], networkMode="awsvpc")
    with refused("InvalidParameterException", "Network Configuration must be provided"):
        up.ecs.start_task(cluster=DEFAULT, taskDefinition=definition, containerInstances=[machine])
    answer = up.ecs.start_task(cluster=DEFAULT, taskDefinition=definition, containerInstances=[machine], networkConfiguration=network(subnet))
    assert answer["failures"] == []
    task = until_status(up.ecs, DEFAULT, answer["tasks"][0]["taskArn"], "RUNNING")
    assert details(task)["subnetId"] == subnet and address(task) in interfaces(ec2, subnet)
    assert "Hello from Berth" in fetched(task, "127.0.0.1")
    stop(up, task["taskArn"])
    until("its address to be free", lambda: address(task) not in interfaces(ec2, subnet))


def test_a_subnet_of_another_zone_is_none_for_a_task_that_is_started_on_a_machine(up, ec2, machine):
    other = subnet_of(ec2, "us-east-1b")
    definition = register(up.ecs, containers=[shell(IDLE)], networkMode="awsvpc")
    answer = up.ecs.start_task(cluster=DEFAULT, taskDefinition=definition, containerInstances=[machine], networkConfiguration=network(other))
    assert answer["tasks"] == [] and [one["arn"] for one in answer["failures"]] == [machine], answer
    assert interfaces(ec2, other) == {}


def test_another_network_configuration_is_a_deployment(up, ec2, small):
    """<https://docs.aws.amazon.com/AmazonECS/latest/developerguide/update-service-parameters.html>"""
    subnet, group = small
    definition = register(up.ecs, containers=[hello()], networkMode="awsvpc")
    name = unique("web")
    [open_group] = [one["GroupId"] for one in ec2.describe_security_groups(Filters=[{"Name": "vpc-id", "Values": [vpc_of(ec2, subnet)]}])["SecurityGroups"] if one["GroupName"] == "default"]
    up.ecs.create_service(cluster=DEFAULT, serviceName=name, taskDefinition=definition, desiredCount=1, networkConfiguration=network(subnet))
    first = until_steady(up.ecs, DEFAULT, name)["deployments"][0]["id"]
    before = only_task(up, name)
    assert groups_of(ec2, before) == [open_group], "the VPC's default group"

    # The same again begins nothing.
    up.ecs.update_service(cluster=DEFAULT, service=name, desiredCount=1)
    assert service(up.ecs, DEFAULT, name)["deployments"][0]["id"] == first

    found = up.ecs.update_service(cluster=DEFAULT, service=name, networkConfiguration=network(subnet, groups=[group]))["service"]
    primary = found["deployments"][0]
    assert primary["id"] != first and primary["networkConfiguration"]["awsvpcConfiguration"]["securityGroups"] == [group]
    until("the first deployment to be gone", lambda: len(until_steady(up.ecs, DEFAULT, name)["deployments"]) == 1)
    after = only_task(up, name)
    assert after["taskArn"] != before["taskArn"] and groups_of(ec2, after) == [group]
    assert after["startedBy"] == primary["id"]

    vpc = vpc_of(ec2, subnet)
    other = ec2.create_subnet(VpcId=vpc, CidrBlock="10.81.1.0/28", AvailabilityZone=ZONE)["Subnet"]["SubnetId"]
    up.ecs.update_service(cluster=DEFAULT, service=name, networkConfiguration=network(other, groups=[group]))
    until_steady(up.ecs, DEFAULT, name)
    assert details(only_task(up, name))["subnetId"] == other
    until("the first subnet to be empty", lambda: not interfaces(ec2, subnet))
    with refused("InvalidParameterException", "does not exist"):
        up.ecs.update_service(cluster=DEFAULT, service=name, networkConfiguration=network("subnet-00000000000000000"))
    assert service(up.ecs, DEFAULT, name)["networkConfiguration"]["awsvpcConfiguration"]["subnets"] == [other]
    ended_service(up, ec2, name, subnet, other)


def vpc_of(ec2, subnet):
    return ec2.describe_subnets(SubnetIds=[subnet])["Subnets"][0]["VpcId"]


def test_task_sets_have_subnets_and_groups_of_their_own(up, ec2, subnet, small):
    other, group = small
    definition = register(up.ecs, containers=[hello()], networkMode="awsvpc")
    name = unique("sets")
    up.ecs.create_service(cluster=DEFAULT, serviceName=name, desiredCount=1, deploymentController={"type": "EXTERNAL"})
    full = {"cluster": DEFAULT, "service": name, "taskDefinition": definition, "scale": {"value": 100, "unit": "PERCENT"}}
    with refused("InvalidParameterException", "Network Configuration must be provided"):
        up.ecs.create_task_set(**full)
    blue = up.ecs.create_task_set(**full, networkConfiguration=network(subnet))["taskSet"]
    green = up.ecs.create_task_set(**full, networkConfiguration=network(other, groups=[group]))["taskSet"]
    assert green["networkConfiguration"]["awsvpcConfiguration"] == {"subnets": [other], "securityGroups": [group], "assignPublicIp": "DISABLED"}

    def running_of(task_set):
        arns = tasks_of(up.ecs, DEFAULT, startedBy=task_set["id"])
        return [task for arn in arns if (task := describe(up.ecs, DEFAULT, arn))["lastStatus"] == "RUNNING"]

    for task_set, expected in ((blue, subnet), (green, other)):
        [task] = until("its task to run", lambda task_set=task_set: running_of(task_set))
        assert details(task)["subnetId"] == expected
    [task] = running_of(green)
    assert groups_of(ec2, task) == [group]
    for task_set in (blue, green):
        up.ecs.delete_task_set(cluster=DEFAULT, service=name, taskSet=task_set["id"], force=True)
    until("all addresses to be free", lambda: not interfaces(ec2, other) and not interfaces(ec2, subnet))
    ended_service(up, ec2, name)


def test_a_daemon_service_gives_each_machine_a_task_with_an_interface(up, ec2, subnet, machine):
    definition = register(up.ecs, containers=[shell(IDLE)], networkMode="awsvpc")
    name = unique("log")
    up.ecs.create_service(cluster=DEFAULT, serviceName=name, taskDefinition=definition, schedulingStrategy="DAEMON", networkConfiguration=network(subnet))
    until_steady(up.ecs, DEFAULT, name)
    task = only_task(up, name)
    assert task["containerInstanceArn"] == machine and details(task)["subnetId"] == subnet
    up.ecs.stop_task(cluster=DEFAULT, task=task["taskArn"])
    until("another in its place", lambda: [arn for arn in tasks_of(up.ecs, DEFAULT, serviceName=name) if arn != task["taskArn"]])
    until_steady(up.ecs, DEFAULT, name)
    assert address(only_task(up, name)) != address(task), "an address that became free is given again last"
    ended_service(up, ec2, name, subnet)


def test_a_machine_holds_as_many_interfaces_as_it_says(up, ec2, subnet, machine):
    said = {"name": "berth.interfaces", "targetId": machine}
    with refused("InvalidParameterException", "whole number", "berth.interfaces"):
        up.ecs.put_attributes(cluster=DEFAULT, attributes=[{**said, "value": "many"}])
    up.ecs.put_attributes(cluster=DEFAULT, attributes=[{**said, "value": "2"}])
    try:
        definition = register(up.ecs, containers=[shell(IDLE)], networkMode="awsvpc")
        bridge = register(up.ecs, containers=[shell(IDLE)])
        answer = up.ecs.run_task(cluster=DEFAULT, taskDefinition=definition, count=3, networkConfiguration=network(subnet))
        assert len(answer["tasks"]) == 2
        assert [(one["arn"], one["reason"]) for one in answer["failures"]] == [(machine, "RESOURCE:ENI")]
        assert len(interfaces(ec2, subnet)) == 2
        answer = up.ecs.start_task(cluster=DEFAULT, taskDefinition=definition, containerInstances=[machine], networkConfiguration=network(subnet))
        assert [one["reason"] for one in answer["failures"]] == ["RESOURCE:ENI"]
        [other] = run(up.ecs, DEFAULT, bridge)
        # A service says it in an event, `berth why` in words; it starts its task as soon as there is room.
        name = unique("web")
        up.ecs.create_service(cluster=DEFAULT, serviceName=name, taskDefinition=definition, desiredCount=1, networkConfiguration=network(subnet))
        until("an event", lambda: any("RESOURCE:ENI" in text for text in texts(service(up.ecs, DEFAULT, name))))
        why = up.run("why", name).stdout
        assert "as many network interfaces of tasks as it holds" in why, why
        [first, *_] = tasks_of(up.ecs, DEFAULT, family=definition.rsplit("/", 1)[1].split(":")[0])
        until("two to run", lambda: len([a for a in tasks_of(up.ecs, DEFAULT) if describe(up.ecs, DEFAULT, a)["lastStatus"] == "RUNNING"]) == 3)
        stop(up, first)
        until_steady(up.ecs, DEFAULT, name)
        ended_service(up, ec2, name)
        for arn in [*tasks_of(up.ecs, DEFAULT)]:
            stop(up, arn)
        assert ended(up, other)
        until("all addresses to be free", lambda: not interfaces(ec2, subnet))
    finally:
        up.ecs.delete_attributes(cluster=DEFAULT, attributes=[{"name": "berth.interfaces", "targetId": machine}])


def test_what_a_task_has_is_not_deleted(up, ec2, small):
    subnet, group = small
    vpc = vpc_of(ec2, subnet)
    task = running(up, shell(IDLE), on=network(subnet, groups=[group]))
    interface = details(task)["networkInterfaceId"]
    with refused_by_ec2(ec2, "DependencyViolation", group):
        ec2.delete_security_group(GroupId=group)
    with refused_by_ec2(ec2, "DependencyViolation", subnet):
        ec2.delete_subnet(SubnetId=subnet)
    with refused_by_ec2(ec2, "DependencyViolation", vpc):
        ec2.delete_vpc(VpcId=vpc)
    stop(up, task["taskArn"])
    until("its interface to be gone", lambda: not interfaces(ec2, subnet))
    assert interface not in {one["NetworkInterfaceId"] for one in interfaces(ec2).values()}


def test_a_group_that_was_deleted_is_a_failure_of_the_service_that_names_it(up, ec2, small):
    subnet, group = small
    definition = register(up.ecs, containers=[shell(IDLE)], networkMode="awsvpc")
    name = unique("web")
    up.ecs.create_service(cluster=DEFAULT, serviceName=name, taskDefinition=definition, desiredCount=0, networkConfiguration=network(subnet, groups=[group]))
    ec2.delete_security_group(GroupId=group)
    up.ecs.update_service(cluster=DEFAULT, service=name, desiredCount=1)
    until("an event", lambda: any("RESOURCE:ENI" in text for text in texts(service(up.ecs, DEFAULT, name))))
    assert interfaces(ec2, subnet) == {} and tasks_of(up.ecs, DEFAULT, serviceName=name) == []
    assert "one of the security groups is not there any more" in up.run("why", name).stdout
    ended_service(up, ec2, name)


def test_a_subnet_without_an_address_left_is_what_a_service_waits_for(up, ec2, small):
    subnet, group = small
    definition = register(up.ecs, containers=[shell(IDLE)], networkMode="awsvpc")
    first, *_ = [arn for count in (10, 1) for arn in run(up.ecs, DEFAULT, definition, count=count, networkConfiguration=network(subnet, groups=[group]))]
    name = unique("web")
    up.ecs.create_service(cluster=DEFAULT, serviceName=name, taskDefinition=definition, desiredCount=1, networkConfiguration=network(subnet, groups=[group]))
    until("an event", lambda: any("RESOURCE:ENI" in text for text in texts(service(up.ecs, DEFAULT, name))))
    assert f"no subnet has an address left ({subnet})" in up.run("why", name).stdout
    stop(up, first)
    until_steady(up.ecs, DEFAULT, name)
    ended_service(up, ec2, name)


def test_ranges_that_overlap(up, ec2, small):
    """In one VPC no two subnets overlap. Two VPCs may, as on AWS; a machine routes an address to one task alone."""
    subnet, _ = small
    vpc = vpc_of(ec2, subnet)
    with refused_by_ec2(ec2, "InvalidSubnet.Conflict"):
        ec2.create_subnet(VpcId=vpc, CidrBlock="10.81.0.0/24", AvailabilityZone=ZONE)
    with a_vpc(ec2, "10.81.0.0/16") as twin:
        other = ec2.create_subnet(VpcId=twin, CidrBlock="10.81.0.0/28", AvailabilityZone=ZONE)["Subnet"]["SubnetId"]
        first = running(up, hello(), on=network(subnet))
        definition = register(up.ecs, containers=[hello()], networkMode="awsvpc")
        [arn] = run(up.ecs, DEFAULT, definition, networkConfiguration=network(other))
        second = ended(up, arn)
        assert address(second) == address(first)
        assert second["stopCode"] == "TaskFailedToStart" and address(first) in second["stoppedReason"], second["stoppedReason"]
        assert "Hello from Berth" in fetched(first, address(first)), "the first goes on"
        until("its address to be free", lambda: not interfaces(ec2, other))
        stop(up, first["taskArn"])
        until("the first one's to be free", lambda: not interfaces(ec2, subnet))
        third = running(up, hello(), on=network(other))
        assert "Hello from Berth" in fetched(third, "127.0.0.1")
        stop(up, third["taskArn"])
        until("all addresses to be free", lambda: not interfaces(ec2, other))


def test_the_default_group_joins_its_members_alone(up, ec2, subnet):
    """<https://docs.aws.amazon.com/vpc/latest/userguide/default-security-group.html>"""
    own = ec2.create_security_group(GroupName=unique("g"), Description="none", VpcId=default_vpc(ec2)["VpcId"])["GroupId"]
    web = running(up, hello(), on=network(subnet))
    member, stranger = running(up, shell(IDLE), on=network(subnet)), running(up, shell(IDLE), on=network(subnet, groups=[own]))
    until("the member to be let in", lambda: "Hello from Berth" in (fetched(member, address(web)) or ""))
    assert fetched(stranger, address(web)) is None
    for task in (web, member, stranger):
        stop(up, task["taskArn"])
    until("all addresses to be free", lambda: not interfaces(ec2, subnet))
    ec2.delete_security_group(GroupId=own)
