"""The VPC model through EC2's API: what is there from the start, what can be made, and what is refused."""

import json

import pytest
from botocore.exceptions import ClientError

from berth import unique
from ec2_calls import a_vpc, default_vpc, everything, refused
from fake_agent import FakeAgent

ACCOUNT = "000000000000"


@pytest.fixture
def ec2(server):
    return server.client("ec2")


@pytest.fixture
def loose(server):
    return server.client("ec2", parameter_validation=False)


@pytest.fixture
def vpc(ec2):
    with a_vpc(ec2) as vpc:
        yield vpc


def only(name, *values):
    return [{"Name": name, "Values": list(values)}]


# -- from the start ------------------------------------------------------------------------------------------------------------


def test_there_is_a_default_vpc_with_a_subnet_in_each_zone(ec2):
    vpc = default_vpc(ec2)
    assert (vpc["CidrBlock"], vpc["State"], vpc["InstanceTenancy"], vpc["OwnerId"]) == ("172.31.0.0/16", "available", "default", ACCOUNT)
    assert vpc["CidrBlockAssociationSet"][0]["CidrBlock"] == "172.31.0.0/16"
    subnets = ec2.describe_subnets(Filters=only("vpc-id", vpc["VpcId"]))["Subnets"]
    shown = sorted((s["AvailabilityZone"], s["AvailabilityZoneId"], s["CidrBlock"]) for s in subnets)
    assert shown == [
        ("us-east-1a", "use1-az1", "172.31.0.0/20"),
        ("us-east-1b", "use1-az2", "172.31.16.0/20"),
        ("us-east-1c", "use1-az3", "172.31.32.0/20"),
    ]
    for subnet in subnets:
        assert (subnet["State"], subnet["DefaultForAz"], subnet["MapPublicIpOnLaunch"], subnet["AvailableIpAddressCount"]) == ("available", True, True, 4091)
        assert subnet["SubnetArn"] == f"arn:aws:ec2:us-east-1:{ACCOUNT}:subnet/{subnet['SubnetId']}"


def test_its_group_lets_itself_in_and_everything_out(ec2):
    vpc = default_vpc(ec2)["VpcId"]
    [group] = ec2.describe_security_groups(Filters=only("vpc-id", vpc) + only("group-name", "default"))["SecurityGroups"]
    [ingress], [egress] = group["IpPermissions"], group["IpPermissionsEgress"]
    assert (ingress["IpProtocol"], [pair["GroupId"] for pair in ingress["UserIdGroupPairs"]]) == ("-1", [group["GroupId"]])
    assert (egress["IpProtocol"], egress["IpRanges"]) == ("-1", [{"CidrIp": "0.0.0.0/0"}])
    [table] = ec2.describe_route_tables(Filters=only("vpc-id", vpc))["RouteTables"]
    assert table["Associations"][0]["Main"] is True
    [gateway] = ec2.describe_internet_gateways(Filters=only("attachment.vpc-id", vpc))["InternetGateways"]
    routes = {route["DestinationCidrBlock"]: route["GatewayId"] for route in table["Routes"]}
    assert routes == {"172.31.0.0/16": "local", "0.0.0.0/0": gateway["InternetGatewayId"]}
    for attribute, member in (("enableDnsSupport", "EnableDnsSupport"), ("enableDnsHostnames", "EnableDnsHostnames")):
        assert ec2.describe_vpc_attribute(VpcId=vpc, Attribute=attribute)[member]["Value"] is True


def test_the_region_its_zones_and_the_account(ec2):
    zones = ec2.describe_availability_zones()["AvailabilityZones"]
    assert {"us-east-1a", "us-east-1b", "us-east-1c"} <= {z["ZoneName"] for z in zones}
    assert {z["State"] for z in zones} == {"available"}
    [one] = ec2.describe_availability_zones(ZoneNames=["us-east-1b"])["AvailabilityZones"]
    assert (one["ZoneId"], one["RegionName"], one["ZoneType"]) == ("use1-az2", "us-east-1", "availability-zone")
    assert ec2.describe_availability_zones(ZoneIds=["use1-az2"])["AvailabilityZones"] == [one]
    [region] = ec2.describe_regions()["Regions"]
    assert (region["RegionName"], region["OptInStatus"]) == ("us-east-1", "opt-in-not-required")
    attributes = {a["AttributeName"]: a["AttributeValues"][0]["AttributeValue"] for a in ec2.describe_account_attributes()["AccountAttributes"]}
    assert (attributes["default-vpc"], attributes["supported-platforms"]) == (default_vpc(ec2)["VpcId"], "VPC")
    with refused(ec2, "InvalidParameterValue", "mars-1"):
        ec2.describe_regions(RegionNames=["mars-1"])
    with refused(ec2, "InvalidParameterValue", "us-east-1z"):
        ec2.describe_availability_zones(ZoneNames=["us-east-1z"])
    with refused(ec2, "InvalidParameterValue", "max-lamps"):
        ec2.describe_account_attributes(AttributeNames=["max-lamps"])


def test_machines_are_instances_and_their_zones_are_zones(server, ec2, cluster, agents):
    zone = unique("rack")
    document = json.dumps({"instanceId": "i-0abc0000000000001", "privateIp": "10.1.2.3"})
    agent = FakeAgent(server, cluster, attributes=[{"name": "ecs.availability-zone", "value": zone}])
    agent.register(instanceIdentityDocument=document)
    try:
        [reservation] = ec2.describe_instances(InstanceIds=["i-0abc0000000000001"])["Reservations"]
        [instance] = reservation["Instances"]
        assert (instance["State"]["Name"], instance["PrivateIpAddress"], instance["Placement"]["AvailabilityZone"]) == ("running", "10.1.2.3", zone)
        found = ec2.describe_instances(Filters=only("private-ip-address", "10.1.2.*") + only("instance-state-name", "running"))
        assert [r["Instances"][0]["InstanceId"] for r in found["Reservations"]] == ["i-0abc0000000000001"]
        assert zone in {z["ZoneName"] for z in ec2.describe_availability_zones()["AvailabilityZones"]}
        ids = [agents(cluster).registered["ec2InstanceId"] for _ in range(2)]
        shown = ec2.describe_instances(InstanceIds=ids)["Reservations"]
        assert sorted(r["Instances"][0]["InstanceId"] for r in shown) == sorted(ids)
    finally:
        server.ecs.deregister_container_instance(cluster=cluster, containerInstance=agent.arn, force=True)
    with refused(ec2, "InvalidInstanceID.NotFound", "i-0abc0000000000001"):
        ec2.describe_instances(InstanceIds=["i-0abc0000000000001"])
    with refused(ec2, "InvalidInstanceID.Malformed"):
        ec2.describe_instances(InstanceIds=["lamp"])
    with refused(ec2, "InvalidParameterCombination"):
        ec2.describe_instances(InstanceIds=["i-0"], MaxResults=5)


# -- VPCs ----------------------------------------------------------------------------------------------------------------------


def test_a_vpc_is_made_waited_for_and_deleted(ec2):
    before = everything(ec2)
    tags = [{"ResourceType": "vpc", "Tags": [{"Key": "Name", "Value": "mine"}]}]
    made = ec2.create_vpc(CidrBlock="10.9.8.7/20", TagSpecifications=tags)["Vpc"]
    ec2.get_waiter("vpc_available").wait(VpcIds=[made["VpcId"]])
    ec2.get_waiter("vpc_exists").wait(VpcIds=[made["VpcId"]])
    [shown] = ec2.describe_vpcs(VpcIds=[made["VpcId"]])["Vpcs"]
    assert shown == made
    assert (shown["CidrBlock"], shown["IsDefault"], shown["Tags"]) == ("10.9.0.0/20", False, [{"Key": "Name", "Value": "mine"}])
    [table] = ec2.describe_route_tables(Filters=only("vpc-id", made["VpcId"]))["RouteTables"]
    assert [route["GatewayId"] for route in table["Routes"]] == ["local"]
    [group] = ec2.describe_security_groups(Filters=only("vpc-id", made["VpcId"]))["SecurityGroups"]
    assert group["GroupName"] == "default"
    ec2.delete_vpc(VpcId=made["VpcId"])
    assert everything(ec2) == before
    with refused(ec2, "InvalidVpcID.NotFound", made["VpcId"]):
        ec2.delete_vpc(VpcId=made["VpcId"])


def test_vpcs_that_cannot_be_are_refused(ec2, loose):
    for cidr in ("10.0.0.0/15", "10.0.0.0/29"):
        with refused(ec2, "InvalidVpc.Range", cidr):
            ec2.create_vpc(CidrBlock=cidr)
    for cidr in ("lamp", "10.0.0.0", "10.0.0.0/33", "::/16"):
        with refused(ec2, "InvalidParameterValue", "cidrBlock"):
            ec2.create_vpc(CidrBlock=cidr)
    with refused(ec2, "MissingParameter", "cidrBlock"):
        ec2.create_vpc()
    for member in ({"InstanceTenancy": "dedicated"}, {"AmazonProvidedIpv6CidrBlock": True}, {"Ipv4IpamPoolId": "ipam-pool-1"}):
        with refused(ec2, "UnsupportedOperation", next(iter(member))):
            ec2.create_vpc(CidrBlock="10.0.0.0/16", **member)
    with refused(ec2, "InvalidParameterValue", "subnet"):
        ec2.create_vpc(CidrBlock="10.0.0.0/16", TagSpecifications=[{"ResourceType": "subnet", "Tags": []}])
    with refused(ec2, "MissingParameter", "VpcId"):
        loose.delete_vpc()


def test_there_is_room_for_five_vpcs(ec2):
    made = []
    try:
        while len(ec2.describe_vpcs()["Vpcs"]) < 5:
            made.append(ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"])
        with refused(ec2, "VpcLimitExceeded"):
            ec2.create_vpc(CidrBlock="10.0.0.0/16")
    finally:
        for vpc in made:
            ec2.delete_vpc(VpcId=vpc)


def test_a_vpc_in_use_is_not_deleted(ec2, vpc):
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.0.0.0/24")["Subnet"]["SubnetId"]
    with refused(ec2, "DependencyViolation", vpc):
        ec2.delete_vpc(VpcId=vpc)
    ec2.delete_subnet(SubnetId=subnet)
    ec2.create_security_group(GroupName="web", Description="web", VpcId=vpc)
    with refused(ec2, "DependencyViolation", vpc):
        ec2.delete_vpc(VpcId=vpc)


def test_dns_attributes(ec2, vpc):
    def value(attribute, member):
        return ec2.describe_vpc_attribute(VpcId=vpc, Attribute=attribute)[member]["Value"]

    assert (value("enableDnsSupport", "EnableDnsSupport"), value("enableDnsHostnames", "EnableDnsHostnames")) == (True, False)
    ec2.modify_vpc_attribute(VpcId=vpc, EnableDnsHostnames={"Value": True})
    assert value("enableDnsHostnames", "EnableDnsHostnames") is True
    ec2.modify_vpc_attribute(VpcId=vpc, EnableDnsHostnames={"Value": False})
    ec2.modify_vpc_attribute(VpcId=vpc, EnableDnsSupport={"Value": False})
    assert value("enableDnsSupport", "EnableDnsSupport") is False
    with refused(ec2, "InvalidParameterCombination", "enableDnsSupport"):
        ec2.modify_vpc_attribute(VpcId=vpc, EnableDnsHostnames={"Value": True})
    with refused(ec2, "InvalidParameterCombination", "multiple"):
        ec2.modify_vpc_attribute(VpcId=vpc, EnableDnsHostnames={"Value": True}, EnableDnsSupport={"Value": True})
    with refused(ec2, "InvalidParameterCombination"):
        ec2.modify_vpc_attribute(VpcId=vpc)
    with refused(ec2, "InvalidVpcID.NotFound"):
        ec2.modify_vpc_attribute(VpcId="vpc-1", EnableDnsSupport={"Value": True})
    with refused(ec2, "InvalidVpcID.NotFound"):
        ec2.describe_vpc_attribute(VpcId="vpc-1", Attribute="enableDnsSupport")


# -- subnets -------------------------------------------------------------------------------------------------------------------


def test_subnets_are_made_in_zones_and_counted(ec2, vpc):
    made = ec2.create_subnet(VpcId=vpc, CidrBlock="10.0.1.7/24", AvailabilityZone="us-east-1c")["Subnet"]
    ec2.get_waiter("subnet_available").wait(SubnetIds=[made["SubnetId"]])
    assert (made["CidrBlock"], made["AvailableIpAddressCount"], made["AvailabilityZoneId"], made["DefaultForAz"]) == ("10.0.1.0/24", 251, "use1-az3", False)
    by_id = ec2.create_subnet(VpcId=vpc, CidrBlock="10.0.2.0/28", AvailabilityZoneId="use1-az2")["Subnet"]
    assert (by_id["AvailabilityZone"], by_id["AvailableIpAddressCount"]) == ("us-east-1b", 11)
    # Where nobody says which, zones without one come first.
    assert ec2.create_subnet(VpcId=vpc, CidrBlock="10.0.3.0/24")["Subnet"]["AvailabilityZone"] == "us-east-1a"
    ec2.modify_subnet_attribute(SubnetId=made["SubnetId"], MapPublicIpOnLaunch={"Value": True})
    [shown] = ec2.describe_subnets(SubnetIds=[made["SubnetId"]])["Subnets"]
    assert shown == {**made, "MapPublicIpOnLaunch": True}
    ec2.delete_subnet(SubnetId=made["SubnetId"])
    with refused(ec2, "InvalidSubnetID.NotFound", made["SubnetId"]):
        ec2.describe_subnets(SubnetIds=[made["SubnetId"]])


def test_subnets_that_cannot_be_are_refused(ec2, vpc):
    ec2.create_subnet(VpcId=vpc, CidrBlock="10.0.16.0/20")

    def make(**members):
        ec2.create_subnet(**{"VpcId": vpc, "CidrBlock": "10.0.64.0/24", **members})

    for cidr in ("10.0.16.0/20", "10.0.31.0/24", "10.0.0.0/16", "10.0.16.0/28"):
        with refused(ec2, "InvalidSubnet.Conflict", cidr):
            make(CidrBlock=cidr)
    for cidr in ("10.1.0.0/24", "10.0.0.0/15", "10.0.0.0/29", "172.31.0.0/20"):
        with refused(ec2, "InvalidSubnet.Range", cidr):
            make(CidrBlock=cidr)
    with refused(ec2, "InvalidParameterValue", "cidrBlock"):
        make(CidrBlock="lamp")
    with refused(ec2, "InvalidParameterValue", "us-east-1z", "us-east-1a"):
        make(AvailabilityZone="us-east-1z")
    with refused(ec2, "InvalidParameterValue", "use1-az9"):
        make(AvailabilityZoneId="use1-az9")
    with refused(ec2, "InvalidParameterCombination"):
        make(AvailabilityZone="us-east-1a", AvailabilityZoneId="use1-az1")
    with refused(ec2, "InvalidVpcID.NotFound", "vpc-00000000000000000"):
        make(VpcId="vpc-00000000000000000")
    with refused(ec2, "UnsupportedOperation", "Ipv6CidrBlock"):
        make(Ipv6CidrBlock="2001:db8::/64")
    with refused(ec2, "InvalidSubnetID.NotFound"):
        ec2.delete_subnet(SubnetId="lamp")
    with refused(ec2, "InvalidSubnetID.NotFound"):
        ec2.modify_subnet_attribute(SubnetId="subnet-1", MapPublicIpOnLaunch={"Value": True})
    with refused(ec2, "UnsupportedOperation", "EnableDns64"):
        subnet = ec2.describe_subnets(Filters=only("vpc-id", vpc))["Subnets"][0]["SubnetId"]
        ec2.modify_subnet_attribute(SubnetId=subnet, EnableDns64={"Value": True})


# -- lists ---------------------------------------------------------------------------------------------------------------------


def test_filters_choose_and_wrong_ones_are_refused(ec2, vpc):
    def found(*filters):
        return {v["VpcId"] for v in ec2.describe_vpcs(Filters=[f for one in filters for f in one])["Vpcs"]}

    ec2.create_tags(Resources=[vpc], Tags=[{"Key": "Name", "Value": "shop-7"}])
    assert found(only("tag:Name", "shop-*")) == {vpc}
    assert found(only("tag:Name", "shop-?")) == {vpc}
    assert found(only("tag:Name", "shop-??")) == set()
    assert found(only("tag-key", "Name")) == {vpc}
    assert found(only("isDefault", "true")) == {default_vpc(ec2)["VpcId"]}
    assert found(only("is-default", "false", "true"), only("cidr", "10.0.0.0/16"), only("vpc-id", vpc)) == {vpc}
    assert found(only("state", "pending")) == set()
    with refused(ec2, "InvalidParameterValue", "colour"):
        found(only("colour", "red"))
    with refused(ec2, "FilterLimitExceeded"):
        found(only("vpc-id", *(str(n) for n in range(201))))
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.0.5.0/24", AvailabilityZone="us-east-1b")["Subnet"]
    by_zone = ec2.describe_subnets(Filters=only("availability-zone", "us-east-1b") + only("vpc-id", vpc))["Subnets"]
    assert [s["SubnetId"] for s in by_zone] == [subnet["SubnetId"]]
    assert ec2.describe_subnets(Filters=only("available-ip-address-count", "251") + only("cidr-block", "10.0.5.0/24"))["Subnets"] == [subnet]


def test_lists_come_in_pages(ec2, vpc):
    made = {ec2.create_subnet(VpcId=vpc, CidrBlock=f"10.0.{n}.0/24")["Subnet"]["SubnetId"] for n in range(12)}
    pages = list(ec2.get_paginator("describe_subnets").paginate(Filters=only("vpc-id", vpc), PaginationConfig={"PageSize": 5}))
    assert [len(page["Subnets"]) for page in pages] == [5, 5, 2]
    assert {s["SubnetId"] for page in pages for s in page["Subnets"]} == made
    with refused(ec2, "InvalidNextToken"):
        ec2.describe_subnets(NextToken="lamp")
    with refused(ec2, "InvalidNextToken"):
        ec2.describe_vpcs(NextToken=pages[0]["NextToken"])
    ec2.create_tags(Resources=sorted(made), Tags=[{"Key": "k", "Value": "v"}])
    for action, member in (("describe_tags", "Tags"), ("describe_security_group_rules", "SecurityGroupRules")):
        alone = getattr(ec2, action)()[member]
        paged = [one for page in ec2.get_paginator(action).paginate(PaginationConfig={"PageSize": 5}) for one in page[member]]
        assert paged == alone and len(alone) > 0


@pytest.mark.parametrize("size", [-1, 0, 4, 1001])
def test_pages_of_another_size_are_refused(ec2, loose, size):
    with refused(ec2, "InvalidParameterValue"):
        loose.describe_vpcs(MaxResults=size)
    with refused(ec2, "InvalidParameterValue"):
        loose.describe_instances(MaxResults=size)


@pytest.mark.parametrize(
    "action, member, ids, code",
    [
        ("describe_vpcs", "VpcIds", ["vpc-1", "lamp"], "InvalidVpcID.NotFound"),
        ("describe_subnets", "SubnetIds", ["subnet-00000000000000000"], "InvalidSubnetID.NotFound"),
        ("describe_network_interfaces", "NetworkInterfaceIds", ["eni-00000000000000000"], "InvalidNetworkInterfaceID.NotFound"),
        ("describe_route_tables", "RouteTableIds", ["rtb-00000000000000000"], "InvalidRouteTableID.NotFound"),
        ("describe_internet_gateways", "InternetGatewayIds", ["igw-00000000000000000"], "InvalidInternetGatewayID.NotFound"),
    ],
)
def test_ids_that_name_nothing_are_refused(ec2, action, member, ids, code):
    with refused(ec2, code, *ids):
        getattr(ec2, action)(**{member: ids})


# -- tags ----------------------------------------------------------------------------------------------------------------------


def test_tags_of_every_kind(ec2, vpc):
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.0.1.0/24")["Subnet"]["SubnetId"]
    group = ec2.create_security_group(GroupName="web", Description="web", VpcId=vpc)["GroupId"]
    [rule] = ec2.describe_security_group_rules(Filters=only("group-id", group))["SecurityGroupRules"]
    [table] = ec2.describe_route_tables(Filters=only("vpc-id", vpc))["RouteTables"]
    every = {
        vpc: "vpc", subnet: "subnet", group: "security-group", rule["SecurityGroupRuleId"]: "security-group-rule", table["RouteTableId"]: "route-table"
    }
    ec2.create_tags(Resources=list(every), Tags=[{"Key": "team", "Value": "shop"}, {"Key": "empty", "Value": ""}])

    def shown():
        tags = ec2.describe_tags(Filters=only("resource-id", *every))["Tags"]
        return {(t["ResourceId"], t["ResourceType"], t["Key"], t["Value"]) for t in tags}

    assert shown() == {(id, kind, *tag) for id, kind in every.items() for tag in (("team", "shop"), ("empty", ""))}
    assert [t["ResourceId"] for t in ec2.describe_tags(Filters=only("resource-type", "subnet") + only("tag:team", "shop"))["Tags"]] == [subnet]
    ec2.create_tags(Resources=[vpc], Tags=[{"Key": "team", "Value": "other"}])
    assert ec2.describe_vpcs(VpcIds=[vpc])["Vpcs"][0]["Tags"] == [{"Key": "empty", "Value": ""}, {"Key": "team", "Value": "other"}]
    # With a value only where that is the value; without one always; without tags all.
    ec2.delete_tags(Resources=list(every), Tags=[{"Key": "team", "Value": "shop"}])
    assert {key for *_, key, _ in shown()} == {"empty", "team"} and (vpc, "vpc", "team", "other") in shown() and len(shown()) == 6
    ec2.delete_tags(Resources=list(every), Tags=[{"Key": "team"}])
    ec2.delete_tags(Resources=[vpc, subnet])
    assert {id for id, *_ in shown()} == set(every) - {vpc, subnet}


def test_tags_that_cannot_be_are_refused(ec2, vpc):
    def tag(resources, *tags):
        ec2.create_tags(Resources=resources, Tags=[{"Key": key, "Value": value} for key, value in tags])

    for code, id in (
        ("InvalidVpcID.NotFound", "vpc-00000000000000000"),
        ("InvalidSubnetID.NotFound", "subnet-1"),
        ("InvalidGroup.NotFound", "sg-1"),
        ("InvalidSecurityGroupRuleId.NotFound", "sgr-1"),
        ("InvalidNetworkInterfaceID.NotFound", "eni-1"),
        ("InvalidID", "lamp"),
        ("UnsupportedOperation", "i-1"),
    ):
        with refused(ec2, code):
            tag([vpc, id], ("k", "v"))
    for key, value in (("", "v"), ("aws:x", "v"), ("k" * 129, "v"), ("k", "v" * 257)):
        with refused(ec2, "InvalidParameterValue"):
            tag([vpc], (key, value))
    with refused(ec2, "InvalidParameterValue", "1000 resources"):
        tag([vpc] * 1001, ("k", "v"))
    with refused(ec2, "TagLimitExceeded"):
        tag([vpc], *((f"k{n}", "v") for n in range(51)))
    tag([vpc], *((f"k{n}", "v") for n in range(50)))
    tag([vpc], ("k0", "other"))
    with refused(ec2, "TagLimitExceeded"):
        tag([vpc], ("k50", "v"))


# -- everything ----------------------------------------------------------------------------------------------------------------


def test_a_dry_run_changes_nothing(ec2, vpc):
    group = ec2.create_security_group(GroupName="web", Description="web", VpcId=vpc)["GroupId"]
    before = everything(ec2)
    for call in (
        lambda: ec2.create_vpc(CidrBlock="10.0.0.0/16", DryRun=True),
        lambda: ec2.create_subnet(VpcId=vpc, CidrBlock="10.0.0.0/24", DryRun=True),
        lambda: ec2.delete_vpc(VpcId=vpc, DryRun=True),
        lambda: ec2.delete_security_group(GroupId=group, DryRun=True),
        lambda: ec2.create_tags(Resources=[vpc], Tags=[{"Key": "k", "Value": "v"}], DryRun=True),
        lambda: ec2.describe_vpcs(DryRun=True),
        lambda: ec2.describe_security_group_rules(DryRun=True),
    ):
        with pytest.raises(ClientError) as caught:
            call()
        response = caught.value.response
        assert (response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"]) == ("DryRunOperation", 412)
    assert everything(ec2) == before


def test_it_outlives_the_server(new_berth):
    berth = new_berth().start()
    ec2 = berth.client("ec2")
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    ec2.create_subnet(VpcId=vpc, CidrBlock="10.0.0.0/24")
    group = ec2.create_security_group(GroupName="web", Description="web", VpcId=vpc)["GroupId"]
    ec2.authorize_security_group_ingress(GroupId=group, IpProtocol="tcp", FromPort=80, ToPort=80, CidrIp="0.0.0.0/0")
    ec2.modify_vpc_attribute(VpcId=vpc, EnableDnsHostnames={"Value": True})
    before = everything(ec2)
    berth.kill()
    berth.start()
    assert everything(berth.client("ec2")) == before


def test_a_default_vpc_that_was_deleted_stays_deleted_until_it_is_wanted(new_berth):
    berth = new_berth().start()
    ec2 = berth.client("ec2")
    vpc = default_vpc(ec2)["VpcId"]
    with refused(ec2, "DependencyViolation", vpc):
        ec2.delete_vpc(VpcId=vpc)
    for subnet in ec2.describe_subnets()["Subnets"]:
        ec2.delete_subnet(SubnetId=subnet["SubnetId"])
    ec2.delete_vpc(VpcId=vpc)
    for _ in range(2):
        ec2 = berth.client("ec2")
        assert ec2.describe_vpcs()["Vpcs"] == ec2.describe_subnets()["Subnets"] == ec2.describe_internet_gateways()["InternetGateways"] == []
        with refused(ec2, "VPCIdNotSpecified"):
            ec2.create_security_group(GroupName="web", Description="web")
        with refused(ec2, "InvalidVpcID.NotFound"):
            ec2.create_subnet(VpcId=vpc, CidrBlock="172.31.0.0/20")
        with refused(ec2, "InvalidVpcID.NotFound"):
            ec2.create_tags(Resources=[vpc], Tags=[{"Key": "k", "Value": "v"}])
        berth.kill()
        berth.start()
    ec2 = berth.client("ec2")
    assert ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["IsDefault"] is False
    # Who wants it back has it as it was.
    assert ec2.create_default_vpc()["Vpc"]["VpcId"] == vpc
    own = [{"Name": "vpc-id", "Values": [vpc]}]
    assert len(ec2.describe_subnets(Filters=own)["Subnets"]) == 3 and len(ec2.describe_internet_gateways()["InternetGateways"]) == 1
    with refused(ec2, "DefaultVpcAlreadyExists", vpc):
        ec2.create_default_vpc()


def test_other_servers_make_the_same(new_berth):
    """Ids are derived from account and region: what a tool wrote down of one Berth is true of the next."""
    ids = [{s["SubnetId"] for s in new_berth().start().client("ec2").describe_subnets()["Subnets"]} for _ in range(2)]
    assert ids[0] == ids[1] and len(ids[0]) == 3


def test_the_aws_cli_as_tutorials_have_it(server, ec2):
    vpc = server.aws("ec2", "describe-vpcs", "--filters", "Name=isDefault,Values=true", "--query", "Vpcs[0].VpcId")
    assert vpc == default_vpc(ec2)["VpcId"]
    subnets = server.aws("ec2", "describe-subnets", "--filters", f"Name=vpc-id,Values={vpc}", "--query", "Subnets[].SubnetId")
    assert len(subnets) == 3
    group = server.aws("ec2", "create-security-group", "--group-name", unique("cli"), "--description", "made by hand", "--vpc-id", vpc)["GroupId"]
    server.aws("ec2", "authorize-security-group-ingress", "--group-id", group, "--protocol", "tcp", "--port", "80", "--cidr", "0.0.0.0/0")
    [shown] = server.aws("ec2", "describe-security-groups", "--group-ids", group)["SecurityGroups"]
    assert shown["IpPermissions"][0]["IpRanges"] == [{"CidrIp": "0.0.0.0/0"}]
    server.aws("ec2", "create-tags", "--resources", group, "--tags", "Key=Name,Value=web")
    server.aws("ec2", "delete-security-group", "--group-id", group)
    gone = server.aws("ec2", "describe-security-groups", "--group-ids", group, check=False)
    assert "(InvalidGroup.NotFound)" in gone.stderr
    assert server.aws("ec2", "describe-availability-zones")["AvailabilityZones"]
    assert server.aws("ec2", "describe-account-attributes")["AccountAttributes"]
    dry = server.aws("ec2", "create-vpc", "--cidr-block", "10.0.0.0/16", "--dry-run", check=False)
    assert "(DryRunOperation)" in dry.stderr
