"""Security groups through EC2's API: groups and their rules, and every way in which one is refused."""

import pytest

from berth import unique
from ec2_calls import a_vpc, default_vpc, refused

ANYWHERE = [{"CidrIp": "0.0.0.0/0"}]


@pytest.fixture
def ec2(server):
    return server.client("ec2")


@pytest.fixture(scope="module")
def vpc(server):
    """One VPC for all: an account has five."""
    with a_vpc(server.client("ec2")) as vpc:
        yield vpc


@pytest.fixture
def group(ec2, vpc):
    return ec2.create_security_group(GroupName=unique("web"), Description="web", VpcId=vpc)["GroupId"]


def tcp(first, last=None, **sources):
    return {"IpProtocol": "tcp", "FromPort": first, "ToPort": last or first, **(sources or {"IpRanges": ANYWHERE})}


def ingress(ec2, group):
    [shown] = ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"]
    return shown["IpPermissions"]


def rules(ec2, group, egress=False):
    shown = ec2.describe_security_group_rules(Filters=[{"Name": "group-id", "Values": [group]}])["SecurityGroupRules"]
    return [rule for rule in shown if rule["IsEgress"] is egress]


# -- groups --------------------------------------------------------------------------------------------------------------------


def test_a_group_is_made_described_and_deleted(ec2, vpc):
    name = unique("web")
    tags = [{"ResourceType": "security-group", "Tags": [{"Key": "k", "Value": "v"}]}]
    made = ec2.create_security_group(GroupName=name, Description="for the web", VpcId=vpc, TagSpecifications=tags)
    assert made["Tags"] == [{"Key": "k", "Value": "v"}]
    assert made["SecurityGroupArn"] == f"arn:aws:ec2:us-east-1:000000000000:security-group/{made['GroupId']}"
    [shown] = ec2.describe_security_groups(GroupIds=[made["GroupId"]])["SecurityGroups"]
    assert (shown["GroupName"], shown["Description"], shown["VpcId"], shown["IpPermissions"]) == (name, "for the web", vpc, [])
    [egress] = shown["IpPermissionsEgress"]
    assert (egress["IpProtocol"], egress["IpRanges"]) == ("-1", ANYWHERE)
    ec2.get_waiter("security_group_exists").wait(GroupIds=[made["GroupId"]])
    by_name = ec2.describe_security_groups(Filters=[{"Name": "group-name", "Values": [name]}])["SecurityGroups"]
    assert by_name == [shown]
    assert ec2.delete_security_group(GroupId=made["GroupId"])["GroupId"] == made["GroupId"]
    with refused(ec2, "InvalidGroup.NotFound", made["GroupId"]):
        ec2.describe_security_groups(GroupIds=[made["GroupId"]])


def test_groups_of_the_default_vpc_have_names(ec2):
    name = unique("named")
    group = ec2.create_security_group(GroupName=name, Description="named")["GroupId"]
    assert ec2.describe_security_groups(GroupNames=[name])["SecurityGroups"][0]["VpcId"] == default_vpc(ec2)["VpcId"]
    ec2.authorize_security_group_ingress(GroupName=name, SourceSecurityGroupName=name)
    [permission] = ingress(ec2, group)
    assert (permission["IpProtocol"], permission["UserIdGroupPairs"][0]["GroupId"]) == ("-1", group)
    ec2.delete_security_group(GroupName=name)
    with refused(ec2, "InvalidGroup.NotFound", name):
        ec2.describe_security_groups(GroupNames=[name])


def test_groups_that_cannot_be_are_refused(ec2, server, vpc, group):
    def make(**members):
        ec2.create_security_group(**{"GroupName": "n", "Description": "d", "VpcId": vpc, **members})

    [shown] = ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"]
    with refused(ec2, "InvalidGroup.Duplicate", shown["GroupName"], vpc):
        make(GroupName=shown["GroupName"])
    for name in ("default", "sg-web", "ü", "x" * 256, ""):
        with refused(ec2, "InvalidParameterValue"):
            make(GroupName=name)
    for description in ("ü", "x" * 256, ""):
        with refused(ec2, "InvalidParameterValue", "GroupDescription"):
            make(Description=description)
    with refused(ec2, "InvalidVpcID.NotFound"):
        make(VpcId="vpc-00000000000000000")
    with refused(ec2, "InvalidParameterValue"):
        make(TagSpecifications=[{"ResourceType": "vpc", "Tags": [{"Key": "k", "Value": "v"}]}])
    loose = server.client("ec2", parameter_validation=False)
    with refused(ec2, "MissingParameter", "GroupName"):
        loose.create_security_group(Description="d")
    with refused(ec2, "MissingParameter", "groupName or groupId"):
        ec2.delete_security_group()
    with refused(ec2, "InvalidGroupId.Malformed", "lamp"):
        ec2.delete_security_group(GroupId="lamp")
    with refused(ec2, "InvalidGroup.NotFound"):
        ec2.delete_security_group(GroupId="sg-00000000000000000")


def test_the_default_group_is_not_deleted(ec2, vpc):
    [group] = ec2.describe_security_groups(Filters=[{"Name": "vpc-id", "Values": [vpc]}, {"Name": "group-name", "Values": ["default"]}])["SecurityGroups"]
    with refused(ec2, "CannotDelete", group["GroupId"]):
        ec2.delete_security_group(GroupId=group["GroupId"])


def test_a_group_that_another_refers_to_is_not_deleted(ec2, vpc, group):
    other = ec2.create_security_group(GroupName=unique("db"), Description="db", VpcId=vpc)["GroupId"]
    ec2.authorize_security_group_ingress(GroupId=other, IpPermissions=[tcp(5432, UserIdGroupPairs=[{"GroupId": group}])])
    with refused(ec2, "DependencyViolation", group):
        ec2.delete_security_group(GroupId=group)
    ec2.revoke_security_group_ingress(GroupId=other, IpPermissions=ingress(ec2, other))
    # A group may refer to itself and still go.
    ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[tcp(1, UserIdGroupPairs=[{"GroupId": group}])])
    ec2.delete_security_group(GroupId=group)


# -- rules ---------------------------------------------------------------------------------------------------------------------


def test_rules_are_added_with_ids_of_their_own(ec2, group):
    permission = tcp(
        80, 81, IpRanges=[{"CidrIp": "10.1.2.3/16", "Description": "office"}], Ipv6Ranges=[{"CidrIpv6": "2001:db8::1/32"}], UserIdGroupPairs=[{"GroupId": group}]
    )
    tags = [{"ResourceType": "security-group-rule", "Tags": [{"Key": "k", "Value": "v"}]}]
    answer = ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[permission], TagSpecifications=tags)
    assert answer["Return"] is True
    made = answer["SecurityGroupRules"]
    assert len({rule["SecurityGroupRuleId"] for rule in made}) == 3
    assert sorted(made, key=lambda rule: rule["SecurityGroupRuleId"]) == rules(ec2, group)
    v4, v6, pair = made
    assert (v4["CidrIpv4"], v4["Description"], v4["FromPort"], v4["ToPort"], v4["IpProtocol"]) == ("10.1.0.0/16", "office", 80, 81, "tcp")
    assert (v6["CidrIpv6"], pair["ReferencedGroupInfo"]["GroupId"], pair["Tags"]) == ("2001:db8::/32", group, [{"Key": "k", "Value": "v"}])
    [shown] = ingress(ec2, group)
    assert (shown["FromPort"], shown["ToPort"], len(shown["IpRanges"]), len(shown["Ipv6Ranges"]), len(shown["UserIdGroupPairs"])) == (80, 81, 1, 1, 1)
    found = ec2.describe_security_groups(Filters=[{"Name": "ip-permission.cidr", "Values": ["10.1.0.0/16"]}, {"Name": "ip-permission.to-port", "Values": ["81"]}])
    assert [one["GroupId"] for one in found["SecurityGroups"]] == [group]


def test_the_old_way_of_saying_a_rule(ec2, group):
    ec2.authorize_security_group_ingress(GroupId=group, IpProtocol="6", FromPort=443, ToPort=443, CidrIp="0.0.0.0/0")
    ec2.authorize_security_group_ingress(GroupId=group, IpProtocol="icmp", FromPort=-1, ToPort=-1, CidrIp="0.0.0.0/0")
    assert [(p["IpProtocol"], p["FromPort"]) for p in ingress(ec2, group)] == [("tcp", 443), ("icmp", -1)]
    with refused(ec2, "InvalidParameterCombination"):
        ec2.authorize_security_group_ingress(GroupId=group, IpProtocol="tcp", FromPort=1, ToPort=1, CidrIp="0.0.0.0/0", IpPermissions=[tcp(2)])
    ec2.revoke_security_group_ingress(GroupId=group, IpProtocol="tcp", FromPort=443, ToPort=443, CidrIp="0.0.0.0/0")
    assert [p["IpProtocol"] for p in ingress(ec2, group)] == ["icmp"]


@pytest.mark.parametrize(
    "permission, code, word",
    [
        ({"IpProtocol": "lamp", "IpRanges": ANYWHERE}, "InvalidParameterValue", "lamp"),
        ({"IpProtocol": "tcp", "IpRanges": ANYWHERE}, "InvalidParameterValue", "from and to ports"),
        (tcp(65536), "InvalidParameterValue", "65536"),
        (tcp(90, 80), "InvalidParameterValue", "90:80"),
        ({"IpProtocol": "icmp", "FromPort": 300, "ToPort": 0, "IpRanges": ANYWHERE}, "InvalidParameterValue", "300"),
        (tcp(80, IpRanges=[{"CidrIp": "lamp"}]), "InvalidParameterValue", "lamp"),
        (tcp(80, Ipv6Ranges=[{"CidrIpv6": "10.0.0.0/8"}]), "InvalidParameterValue", "10.0.0.0/8"),
        (tcp(80, IpRanges=[{"CidrIp": "10.0.0.0/8", "Description": "ü"}]), "InvalidParameterValue", "description"),
        (tcp(80, IpRanges=[]), "MissingParameter", "ipRanges"),
        ({"FromPort": 80, "ToPort": 80, "IpRanges": ANYWHERE}, "MissingParameter", "ipProtocol"),
        (tcp(80, UserIdGroupPairs=[{"GroupId": "sg-00000000000000000"}]), "InvalidGroup.NotFound", "sg-00000000000000000"),
        (tcp(80, UserIdGroupPairs=[{"GroupName": "nobody"}]), "InvalidGroup.NotFound", "nobody"),
        (tcp(80, UserIdGroupPairs=[{"GroupId": "lamp"}]), "InvalidGroupId.Malformed", "lamp"),
        (tcp(80, UserIdGroupPairs=[{"UserId": "000000000001", "GroupId": "sg-1"}]), "UnsupportedOperation", "userId"),
        (tcp(80, PrefixListIds=[{"PrefixListId": "pl-1"}]), "UnsupportedOperation", "prefixListIds"),
        (tcp(80, IpRanges=[{"CidrIp": "10.0.0.1/8"}, {"CidrIp": "10.0.0.2/8"}]), "InvalidParameterValue", "multiple times"),
    ],
)
@pytest.mark.parametrize("action", ["authorize_security_group_ingress", "authorize_security_group_egress"])
def test_rules_that_cannot_be_are_refused(ec2, group, action, permission, code, word):
    with refused(ec2, code, word):
        # All or none: the first one is good.
        getattr(ec2, action)(GroupId=group, IpPermissions=[tcp(7), permission])


def test_a_rule_that_is_there_is_refused(ec2, group):
    ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[tcp(80, IpRanges=[{"CidrIp": "100.68.0.18/18"}])])
    with refused(ec2, "InvalidPermission.Duplicate", "100.68.0.0/18", "TCP", "80"):
        ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[tcp(79), tcp(80, IpRanges=[{"CidrIp": "100.68.0.0/18"}])])
    with refused(ec2, "InvalidPermission.Duplicate", "ALL"):
        ec2.authorize_security_group_egress(GroupId=group, IpPermissions=[{"IpProtocol": "-1", "IpRanges": ANYWHERE}])


def test_a_group_of_another_vpc_is_refused(ec2, group):
    [other] = ec2.describe_security_groups(GroupNames=["default"])["SecurityGroups"]
    with refused(ec2, "InvalidGroup.NotFound", "different networks"):
        ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[tcp(80, UserIdGroupPairs=[{"GroupId": other["GroupId"]}])])


def test_there_is_room_for_sixty_rules_each_way(ec2, group):
    ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[tcp(port) for port in range(1, 61)])
    with refused(ec2, "RulesPerSecurityGroupLimitExceeded"):
        ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[tcp(61)])
    ec2.authorize_security_group_egress(GroupId=group, IpPermissions=[tcp(port) for port in range(1, 60)])
    with refused(ec2, "RulesPerSecurityGroupLimitExceeded"):
        ec2.authorize_security_group_egress(GroupId=group, IpPermissions=[tcp(61)])
    assert (len(rules(ec2, group)), len(rules(ec2, group, egress=True))) == (60, 60)


def test_rules_are_revoked_by_what_they_allow_and_by_id(ec2, group):
    made = ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[tcp(80), tcp(81)])["SecurityGroupRules"]
    answer = ec2.revoke_security_group_ingress(GroupId=group, IpPermissions=[tcp(80)])
    assert [one["SecurityGroupRuleId"] for one in answer["RevokedSecurityGroupRules"]] == [made[0]["SecurityGroupRuleId"]]
    with refused(ec2, "InvalidPermission.NotFound"):
        ec2.revoke_security_group_ingress(GroupId=group, IpPermissions=[tcp(81), tcp(80)])
    egress = rules(ec2, group, egress=True)[0]["SecurityGroupRuleId"]
    with refused(ec2, "InvalidSecurityGroupRuleId.NotFound", egress):
        ec2.revoke_security_group_ingress(GroupId=group, SecurityGroupRuleIds=[made[1]["SecurityGroupRuleId"], egress])
    with refused(ec2, "InvalidParameterCombination"):
        ec2.revoke_security_group_ingress(GroupId=group, SecurityGroupRuleIds=[egress], IpPermissions=[tcp(81)])
    with refused(ec2, "MissingParameter"):
        ec2.revoke_security_group_ingress(GroupId=group)
    ec2.revoke_security_group_ingress(GroupId=group, SecurityGroupRuleIds=[made[1]["SecurityGroupRuleId"]])
    ec2.revoke_security_group_egress(GroupId=group, SecurityGroupRuleIds=[egress])
    assert rules(ec2, group) == rules(ec2, group, egress=True) == []


def test_in_the_default_vpc_rules_that_are_not_there_are_told(ec2):
    group = ec2.create_security_group(GroupName=unique("web"), Description="web")["GroupId"]
    ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[tcp(80)])
    answer = ec2.revoke_security_group_ingress(GroupId=group, IpPermissions=[tcp(80), tcp(99)])
    assert len(answer["RevokedSecurityGroupRules"]) == 1
    assert [one["FromPort"] for one in answer["UnknownIpPermissions"]] == [99]
    assert ingress(ec2, group) == []
    ec2.delete_security_group(GroupId=group)


def test_rules_are_changed_under_their_ids(ec2, group):
    made = ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[tcp(80), tcp(81)])["SecurityGroupRules"]
    first, second = (rule["SecurityGroupRuleId"] for rule in made)

    def change(*updates):
        ec2.modify_security_group_rules(GroupId=group, SecurityGroupRules=[{"SecurityGroupRuleId": id, "SecurityGroupRule": rule} for id, rule in updates])

    port = {"IpProtocol": "tcp", "FromPort": 90, "ToPort": 90}
    change((first, {**port, "CidrIpv4": "10.0.0.0/8", "Description": "new"}))
    [shown] = ec2.describe_security_group_rules(SecurityGroupRuleIds=[first])["SecurityGroupRules"]
    assert (shown["FromPort"], shown["CidrIpv4"], shown["Description"]) == (90, "10.0.0.0/8", "new")
    with refused(ec2, "InvalidPermission.Duplicate"):
        change((second, {**port, "CidrIpv4": "10.0.0.0/8"}))
    with refused(ec2, "InvalidSecurityGroupRuleId.NotFound", "sgr-00000000000000000"):
        change((first, {**port, "CidrIpv4": "11.0.0.0/8"}), ("sgr-00000000000000000", {**port, "CidrIpv4": "10.0.0.0/8"}))
    with refused(ec2, "InvalidParameterCombination"):
        change((first, {**port, "CidrIpv4": "10.0.0.0/8", "CidrIpv6": "::/0"}))
    with refused(ec2, "MissingParameter"):
        change((first, port))
    with refused(ec2, "UnsupportedOperation", "prefixListId"):
        change((first, {**port, "PrefixListId": "pl-1"}))
    with refused(ec2, "InvalidParameterValue", "twice"):
        change((first, {**port, "CidrIpv4": "1.0.0.0/8"}), (first, {**port, "CidrIpv4": "2.0.0.0/8"}))
    # What two rules allow may be swapped.
    change((first, {"IpProtocol": "tcp", "FromPort": 81, "ToPort": 81, "CidrIpv4": "0.0.0.0/0"}), (second, {**port, "CidrIpv4": "10.0.0.0/8"}))
    assert {rule["SecurityGroupRuleId"]: rule["FromPort"] for rule in rules(ec2, group)} == {first: 81, second: 90}
