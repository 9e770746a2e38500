"""Gateways: records with validation, statuses, associations with clusters. There is no load balancer behind them yet."""

import datetime
from concurrent.futures import ThreadPoolExecutor

import pytest

from berth import unique, until
from ecs_calls import refused

ROLE = "arn:aws:iam::000000000000:role/ecs-infrastructure"
ACL = "arn:aws:wafv2:us-east-1:000000000000:regional/webacl/edge/0123"
PREFIX = "arn:aws:ecs:us-east-1:000000000000:"
DEFAULTS = {
    "networkConfiguration": {"subnets": [], "ipAddressType": "dualstack"},
    "scheme": "internet-facing",
    "port": 443,
    "protocol": "HTTPS",
    "maxAlbCount": 10,
    "currentAlbCount": 0,
    "httpDesync": "defensive",
}


def create(ecs, name=None, alb=None, **members):
    name = name or unique("g")
    members = {"infrastructureRoleArn": ROLE, "deletionProtection": False, **members}
    ecs.create_gateway(name=name, configuration={"hostSharedAlb": alb or {}}, **members)
    return name


def described(ecs, gateway):
    return ecs.describe_gateway(gateway=gateway)["gateway"]


def associations(ecs, **filters):
    pages = ecs.get_paginator("list_gateway_cluster_associations").paginate(**filters)
    return [found for page in pages for found in page["gatewayClusterAssociations"]]


def dissolve(ecs, gateway, cluster):
    ecs.disassociate_gateway_from_cluster(gateway=gateway, cluster=cluster)
    until("the association's end", lambda: not associations(ecs, gateway=gateway, cluster=cluster))


@pytest.fixture
def gateway(ecs):
    return create(ecs)


# -- making and showing ------------------------------------------------------------------------------------------------


def test_a_gateway_is_active_at_once_with_ecs_defaults(ecs):
    name = unique("g")
    answer = ecs.create_gateway(name=name, infrastructureRoleArn=ROLE, configuration={"hostSharedAlb": {}}, tags=[{"key": "a", "value": "b"}])
    arn = f"{PREFIX}gateway/{name}"
    assert (answer["gatewayArn"], answer["name"], answer["status"]) == (arn, name, "ACTIVE")
    for reference in (name, arn):
        found = described(ecs, reference)
        assert found["gatewayArn"] == arn and found["name"] == name and found["status"] == "ACTIVE"
        assert found["infrastructureRoleArn"] == ROLE
        assert found["deletionProtection"] is True
        assert found["propagateTags"] == "GATEWAY"
        assert found["accessType"] == "PUBLIC"
        assert found["tags"] == [{"key": "a", "value": "b"}]
        assert found["configuration"] == {"hostSharedAlb": DEFAULTS}
        assert found["failures"] == [] and "statusReason" not in found
        assert isinstance(found["createdAt"], datetime.datetime) and found["createdAt"] == found["updatedAt"]


def test_everything_that_is_asked_for_is_shown(ecs):
    alb = {
        "networkConfiguration": {"inboundSecurityGroup": "sg-01", "subnets": ["subnet-01", "subnet-02"], "ipAddressType": "ipv4"},
        "scheme": "internal",
        "webACLArn": ACL,
        "accessLogs": {"destination": {"s3": {"bucket": "my-logs", "prefix": "edge"}}},
        "port": 443,
        "protocol": "HTTPS",
        "maxAlbCount": 3,
        "httpDesync": "strictest",
        "testTrafficRules": {"header": {"name": "x-test", "values": ["1", "yes"]}},
    }
    found = described(ecs, create(ecs, alb=alb, propagateTags="NONE"))
    assert found["configuration"] == {"hostSharedAlb": {**alb, "currentAlbCount": 0}}
    assert (found["accessType"], found["propagateTags"], found["deletionProtection"]) == ("PRIVATE", "NONE", False)


def test_a_token_makes_a_retry_harmless(ecs):
    token = unique("token")
    name = create(ecs, clientToken=token)
    made = described(ecs, name)
    again = ecs.create_gateway(name=name, infrastructureRoleArn=ROLE, configuration={"hostSharedAlb": {}}, clientToken=token)
    assert (again["gatewayArn"], again["status"]) == (made["gatewayArn"], "ACTIVE")
    # AWS: a request with a token of before is ignored, whatever it says.
    other = ecs.create_gateway(name=unique("g"), infrastructureRoleArn=ROLE, configuration={"hostSharedAlb": {"maxAlbCount": 2}}, clientToken=token)
    assert other["name"] == name
    assert described(ecs, name) == made


def test_a_name_is_taken_once(ecs, gateway):
    with refused("ClientException", "already exists"):
        create(ecs, gateway)
    with refused("ClientException", "already exists"):
        create(ecs, gateway, clientToken=unique("another"))


@pytest.mark.parametrize(
    ("member", "alb"),
    [
        ("port", {"port": 80}),
        ("protocol", {"protocol": "HTTP"}),
        ("maxAlbCount", {"maxAlbCount": 0}),
        ("maxAlbCount", {"maxAlbCount": 101}),
        ("webACLArn", {"webACLArn": "arn:aws:wafv2:us-east-1:000000000000:global/webacl/a/b"}),
        ("inboundSecurityGroup", {"networkConfiguration": {"inboundSecurityGroup": "default"}}),
        ("subnets", {"networkConfiguration": {"subnets": ["vpc-1"]}}),
        ("subnets", {"networkConfiguration": {"subnets": ["subnet-1", "subnet-1"]}}),
        ("subnets", {"networkConfiguration": {"subnets": [f"subnet-{n}" for n in range(17)]}}),
        ("ipAddressType", {"scheme": "internal", "networkConfiguration": {"ipAddressType": "dualstack-without-public-ipv4"}}),
        ("ipAddressType", {"networkConfiguration": {"ipAddressType": "ipv6"}}),
        ("scheme", {"scheme": "outside"}),
        ("httpDesync", {"httpDesync": "lax"}),
        ("bucket", {"accessLogs": {"destination": {"s3": {"bucket": "My Logs"}}}}),
        ("bucket", {"accessLogs": {"destination": {"s3": {}}}}),
        ("prefix", {"accessLogs": {"destination": {"s3": {"bucket": "logs", "prefix": "p" * 1025}}}}),
        ("name", {"testTrafficRules": {"header": {"name": "x test", "values": ["1"]}}}),
        ("name", {"testTrafficRules": {"header": {"name": "x" * 41, "values": ["1"]}}}),
        ("values", {"testTrafficRules": {"header": {"name": "x-test", "values": []}}}),
        ("values", {"testTrafficRules": {"header": {"name": "x-test", "values": ["v" * 129]}}}),
        ("values", {"testTrafficRules": {"header": {"name": "x-test", "values": list("abcdef")}}}),
    ],
)
def test_a_wrong_configuration_is_refused_by_member_and_makes_nothing(server, member, alb):
    name = unique("g")
    with refused("InvalidParameterException", member):
        create(server.loose, name, alb)
    with refused("GatewayNotFoundException"):
        described(server.ecs, name)


@pytest.mark.parametrize(
    ("word", "members"),
    [
        ("name", {"name": "a b"}),
        ("name", {"name": "n" * 256}),
        ("name", {"name": None}),
        ("infrastructureRoleArn", {"infrastructureRoleArn": "ecs"}),
        ("infrastructureRoleArn", {"infrastructureRoleArn": "arn:aws:iam::000000000000:user/ecs"}),
        ("infrastructureRoleArn", {"infrastructureRoleArn": None}),
        ("configuration", {"configuration": {}}),
        ("configuration", {"configuration": None}),
        ("clientToken", {"clientToken": "t" * 65}),
        ("propagateTags", {"propagateTags": "ALB"}),
        ("Duplicate", {"tags": [{"key": "a", "value": "1"}, {"key": "a", "value": "2"}]}),
        ("tags", {"tags": [{"key": f"k{n}", "value": ""} for n in range(51)]}),
    ],
)
def test_a_wrong_creation_is_refused_by_member(server, word, members):
    request = {"name": unique("g"), "infrastructureRoleArn": ROLE, "configuration": {"hostSharedAlb": {}}, **members}
    with refused("InvalidParameterException", word):
        server.loose.create_gateway(**{name: value for name, value in request.items() if value is not None})


def test_lists_are_paged_and_filtered(ecs):
    prefix = unique("g")
    names = [create(ecs, f"{prefix}-{n}") for n in range(3)] + [create(ecs, prefix)]
    pages = list(ecs.get_paginator("list_gateways").paginate(names=names, PaginationConfig={"PageSize": 2}))
    assert [[found["name"] for found in page["gateways"]] for page in pages] == [[prefix, names[0]], [names[1], names[2]]]
    (found,) = ecs.list_gateways(names=[prefix, "none-such"])["gateways"]
    assert found == {key: described(ecs, prefix)[key] for key in ("gatewayArn", "name", "status", "createdAt")}
    ecs.update_gateway(gateway=names[0], propagateTags="NONE")
    until_updated(ecs, names[0])
    listed = lambda *status: [found["name"] for found in ecs.list_gateways(names=names, status=list(status))["gateways"]]  # noqa: E731
    assert listed("UPDATE_COMPLETE") == [names[0]]
    assert listed("ACTIVE") == [prefix, names[1], names[2]]
    assert listed("DELETED", "UPDATE_FAILED") == []
    # Without a filter they are among all.
    everything = [found["name"] for page in ecs.get_paginator("list_gateways").paginate() for found in page["gateways"]]
    assert set(names) <= set(everything) and everything == sorted(everything)


def test_bad_lists_are_refused(server, gateway):
    ecs = server.loose
    calls = {
        "list_gateways": {},
        "list_gateway_routes": {},
        "list_gateway_cluster_associations": {},
        "describe_gateway_resources": {"gateway": gateway},
    }
    for call, members in calls.items():
        for bad in ({"maxResults": 0}, {"maxResults": 101}, {"nextToken": "garbled"}):
            with refused("InvalidParameterException", *bad):
                getattr(ecs, call)(**members, **bad)
    with refused("InvalidParameterException", "maxResults"):
        ecs.describe_gateway_resources(gateway=gateway, maxResults=21)
    with refused("InvalidParameterException", "names"):
        ecs.list_gateways(names=[str(n) for n in range(11)])
    for call in ("list_gateways", "list_gateway_routes", "list_gateway_cluster_associations"):
        with refused("InvalidParameterException", "status"):
            getattr(ecs, call)(status=["GONE"])


# -- updates -----------------------------------------------------------------------------------------------------------


def until_updated(ecs, gateway):
    def look():
        found = described(ecs, gateway)
        assert found["status"] in ("UPDATE_IN_PROGRESS", "UPDATE_COMPLETE")
        return found if found["status"] == "UPDATE_COMPLETE" else None

    return until("the update's end", look)


def test_an_update_goes_on_until_it_is_complete(ecs):
    name = create(ecs, alb={"webACLArn": ACL, "maxAlbCount": 3}, tags=[{"key": "a", "value": "b"}])
    made = described(ecs, name)
    role = ROLE + "-2"
    alb = {
        "networkConfiguration": {"inboundSecurityGroup": "sg-02"},
        "accessLogs": {"destination": {"s3": {"bucket": "logs"}}},
        "httpDesync": "monitor",
        "testTrafficRules": {"header": {"name": "x-test", "values": ["1"]}},
    }
    answer = ecs.update_gateway(
        gateway=name, infrastructureRoleArn=role, deletionProtection=True, propagateTags="NONE", configuration={"hostSharedAlb": alb}
    )
    assert answer["status"] == "UPDATE_IN_PROGRESS" and (answer["gatewayArn"], answer["name"]) == (made["gatewayArn"], name)
    found = until_updated(ecs, name)
    network = {"inboundSecurityGroup": "sg-02", "subnets": [], "ipAddressType": "dualstack"}
    assert found["configuration"] == {"hostSharedAlb": {**DEFAULTS, **alb, "networkConfiguration": network, "webACLArn": ACL, "maxAlbCount": 3}}
    assert (found["infrastructureRoleArn"], found["deletionProtection"], found["propagateTags"]) == (role, True, "NONE")
    assert found["createdAt"] == made["createdAt"] and found["updatedAt"] >= made["updatedAt"] and found["tags"] == made["tags"]
    # Absent members stay, empty ones go.
    alb = {"webACLArn": "", "accessLogs": {}, "testTrafficRules": {}, "networkConfiguration": {"inboundSecurityGroup": ""}}
    ecs.update_gateway(gateway=made["gatewayArn"], configuration={"hostSharedAlb": alb})
    found = until_updated(ecs, name)
    assert found["configuration"] == {"hostSharedAlb": {**DEFAULTS, "maxAlbCount": 3, "httpDesync": "monitor"}}
    assert found["infrastructureRoleArn"] == role


@pytest.mark.parametrize(
    ("word", "members"),
    [
        ("configuration.hostSharedAlb", {"configuration": {}}),
        ("maxAlbCount", {"configuration": {"hostSharedAlb": {"maxAlbCount": 0}}}),
        ("inboundSecurityGroup", {"configuration": {"hostSharedAlb": {"networkConfiguration": {"inboundSecurityGroup": "x"}}}}),
        ("webACLArn", {"configuration": {"hostSharedAlb": {"webACLArn": "x"}}}),
        ("httpDesync", {"configuration": {"hostSharedAlb": {"httpDesync": "lax"}}}),
        ("infrastructureRoleArn", {"infrastructureRoleArn": "x"}),
        ("propagateTags", {"propagateTags": "x"}),
    ],
)
def test_a_wrong_update_is_refused_and_changes_nothing(server, gateway, word, members):
    before = described(server.ecs, gateway)
    with refused("InvalidParameterException", word):
        server.loose.update_gateway(gateway=gateway, deletionProtection=True, **members)
    assert described(server.ecs, gateway) == before


# -- associations ------------------------------------------------------------------------------------------------------


def test_an_association_begins_and_ends(ecs, cluster, gateway):
    arns = {"gatewayArn": f"{PREFIX}gateway/{gateway}", "clusterArn": f"{PREFIX}cluster/{cluster}"}
    for gateway_reference, cluster_reference in ((gateway, cluster), (arns["gatewayArn"], arns["clusterArn"])):
        answer = ecs.associate_gateway_with_cluster(gateway=gateway_reference, cluster=cluster_reference)
        assert {**arns, "status": "ACTIVE"}.items() <= answer.items()
    assert associations(ecs, cluster=cluster) == [{**arns, "status": "ACTIVE"}]
    answer = ecs.disassociate_gateway_from_cluster(gateway=gateway, cluster=arns["clusterArn"])
    assert {**arns, "status": "DISASSOCIATING"}.items() <= answer.items()
    until("the association's end", lambda: not associations(ecs, gateway=gateway))
    with refused("ResourceNotFoundException", "not associated"):
        ecs.disassociate_gateway_from_cluster(gateway=gateway, cluster=cluster)


def test_a_cluster_has_five_gateways_at_most(ecs, cluster):
    gateways = [create(ecs) for _ in range(6)]
    for gateway in gateways[:5]:
        ecs.associate_gateway_with_cluster(gateway=gateway, cluster=cluster)
    with refused("ClientException", "5"):
        ecs.associate_gateway_with_cluster(gateway=gateways[5], cluster=cluster)
    # Those that are there do not count twice, and one that ends makes place.
    ecs.associate_gateway_with_cluster(gateway=gateways[0], cluster=cluster)
    dissolve(ecs, gateways[0], cluster)
    ecs.associate_gateway_with_cluster(gateway=gateways[5], cluster=cluster)
    assert [found["gatewayArn"].rsplit("/", 1)[1] for found in associations(ecs, cluster=cluster)] == sorted(gateways[1:])


def test_associations_are_paged_and_filtered(ecs, gateway):
    # Names of which one begins with the other: pages must go on in the order that the list has.
    first = unique("c")
    clusters = [first, first + "-b", first + "b"]
    for cluster in clusters:
        ecs.create_cluster(clusterName=cluster)
        ecs.associate_gateway_with_cluster(gateway=gateway, cluster=cluster)
    pages = list(ecs.get_paginator("list_gateway_cluster_associations").paginate(gateway=gateway, PaginationConfig={"PageSize": 1}))
    assert [len(page["gatewayClusterAssociations"]) for page in pages] == [1, 1, 1]
    found = [page["gatewayClusterAssociations"][0]["clusterArn"].rsplit("/", 1)[1] for page in pages]
    assert found == clusters
    assert associations(ecs, gateway=gateway, status=["DISASSOCIATING", "INACTIVE"]) == []
    assert len(associations(ecs, gateway=gateway, cluster=clusters[1], status=["ACTIVE"])) == 1
    assert associations(ecs, gateway="none-such") == associations(ecs, cluster="none-such") == []


def test_a_deleted_cluster_takes_its_associations_along(ecs, gateway):
    cluster = unique("c")
    ecs.create_cluster(clusterName=cluster)
    ecs.associate_gateway_with_cluster(gateway=gateway, cluster=cluster)
    ecs.delete_cluster(cluster=cluster)
    assert associations(ecs, gateway=gateway) == []
    with refused("ClusterNotFoundException"):
        ecs.associate_gateway_with_cluster(gateway=gateway, cluster=cluster)
    with refused("ClusterNotFoundException"):
        ecs.disassociate_gateway_from_cluster(gateway=gateway, cluster=cluster)
    ecs.create_cluster(clusterName=cluster)
    assert associations(ecs, cluster=cluster) == []
    ecs.delete_gateway(gateway=gateway)


# -- resources and routes ----------------------------------------------------------------------------------------------


def test_a_gateway_that_nothing_uses_has_no_resources_and_no_routes(ecs, cluster, gateway):
    ecs.associate_gateway_with_cluster(gateway=gateway, cluster=cluster)
    answer = ecs.describe_gateway_resources(gateway=gateway, maxResults=20)
    assert answer["gatewayResources"] == {"gatewayArn": f"{PREFIX}gateway/{gateway}", "resources": {"hostSharedAlb": []}}
    assert "nextToken" not in answer
    filters = {
        "gateway": gateway,
        "cluster": cluster,
        "service": f"{PREFIX}service/{cluster}/web",
        "serviceContainerPortName": "http",
        "status": ["ACTIVE", "DELETE_FAILED"],
    }
    for members in ({}, filters, *({name: value} for name, value in filters.items()), {"service": "web"}):
        assert ecs.list_gateway_routes(**members)["gatewayRoutes"] == []
    with refused("ResourceNotFoundException", "gatewayRouteArn"):
        ecs.describe_gateway_route(gatewayRouteArn=f"{PREFIX}gateway-route/{gateway}/0123")
    for arn in ("", "web", f"{PREFIX}gateway/{gateway}", f"{PREFIX}gateway-route/", f"{PREFIX}gateway-route/a".replace("000", "111")):
        with refused("InvalidParameterException", "gatewayRouteArn"):
            ecs.describe_gateway_route(gatewayRouteArn=arn)
    for members in ({"service": "a b"}, {"service": f"{PREFIX}task/a/b"}, {"serviceContainerPortName": ""}):
        with refused("InvalidParameterException"):
            ecs.list_gateway_routes(**members)


# -- what is not there, tags, deletion, restart ------------------------------------------------------------------------


def test_what_is_not_there_is_not_found(ecs, cluster, gateway):
    for name in ("none-such", f"{PREFIX}gateway/none-such"):
        for call in (
            lambda: ecs.describe_gateway(gateway=name),
            lambda: ecs.update_gateway(gateway=name),
            lambda: ecs.delete_gateway(gateway=name),
            lambda: ecs.describe_gateway_resources(gateway=name),
            lambda: ecs.list_gateway_routes(gateway=name),
            lambda: ecs.associate_gateway_with_cluster(gateway=name, cluster=cluster),
            lambda: ecs.disassociate_gateway_from_cluster(gateway=name, cluster=cluster),
        ):
            with refused("GatewayNotFoundException"):
                call()
    for call in (ecs.associate_gateway_with_cluster, ecs.disassociate_gateway_from_cluster):
        with refused("ClusterNotFoundException"):
            call(gateway=gateway, cluster="none-such")
        for members in ({"gateway": "", "cluster": cluster}, {"gateway": gateway, "cluster": ""}):
            with refused("InvalidParameterException", "gateway" if not members["gateway"] else "cluster"):
                call(**members)
    for wrong in ("a b", f"{PREFIX}cluster/{cluster}", f"{PREFIX}gateway/{gateway}".replace("us-east-1", "eu-west-1")):
        with refused("InvalidParameterException"):
            ecs.describe_gateway(gateway=wrong)


def test_required_members_are_named(server):
    for call, member in (
        ("describe_gateway", "gateway"),
        ("update_gateway", "gateway"),
        ("delete_gateway", "gateway"),
        ("describe_gateway_resources", "gateway"),
        ("describe_gateway_route", "gatewayRouteArn"),
        ("associate_gateway_with_cluster", "cluster"),
        ("disassociate_gateway_from_cluster", "cluster"),
    ):
        with refused("InvalidParameterException", member):
            getattr(server.loose, call)()


def test_tags(ecs, gateway):
    arn = described(ecs, gateway)["gatewayArn"]
    ecs.tag_resource(resourceArn=arn, tags=[{"key": "a", "value": "1"}, {"key": "b", "value": "2"}])
    ecs.untag_resource(resourceArn=arn, tagKeys=["a"])
    assert ecs.list_tags_for_resource(resourceArn=arn)["tags"] == described(ecs, gateway)["tags"] == [{"key": "b", "value": "2"}]
    with refused("ResourceNotFoundException"):
        ecs.tag_resource(resourceArn=f"{PREFIX}gateway/none-such", tags=[{"key": "a", "value": "1"}])
    with refused("InvalidParameterException"):
        ecs.list_tags_for_resource(resourceArn=f"{PREFIX}gateway/none-such")


def test_a_gateway_is_deleted_when_nothing_holds_it(ecs, cluster):
    name = create(ecs, deletionProtection=True)
    ecs.associate_gateway_with_cluster(gateway=name, cluster=cluster)
    with refused("ClientException", "deletionProtection"):
        ecs.delete_gateway(gateway=name)
    ecs.update_gateway(gateway=name, deletionProtection=False)
    with refused("ClientException", f"cluster/{cluster}"):
        ecs.delete_gateway(gateway=name)
    assert associations(ecs, gateway=name)[0]["status"] == "ACTIVE"
    dissolve(ecs, name, cluster)
    arn = f"{PREFIX}gateway/{name}"
    answer = ecs.delete_gateway(gateway=arn)
    assert (answer["gatewayArn"], answer["name"], answer["status"]) == (arn, name, "DELETED")
    for call in (ecs.describe_gateway, ecs.delete_gateway):
        with refused("GatewayNotFoundException"):
            call(gateway=name)
    assert ecs.list_gateways(names=[name])["gateways"] == []
    # The name is free again.
    create(ecs, name)


def test_a_deletion_and_an_association_at_once_leave_no_association_with_nothing(ecs, cluster):
    with ThreadPoolExecutor(2) as pool:
        for _ in range(10):
            name = create(ecs)
            outcomes = [
                pool.submit(ecs.delete_gateway, gateway=name),
                pool.submit(ecs.associate_gateway_with_cluster, gateway=name, cluster=cluster),
            ]
            deletion, association = (outcome.exception() for outcome in outcomes)
            assert (deletion is None) != (association is None), (deletion, association)
            left = associations(ecs, cluster=cluster)
            if deletion is None:
                assert association.response["Error"]["Code"] == "GatewayNotFoundException" and left == []
            else:
                assert deletion.response["Error"]["Code"] == "ClientException" and len(left) == 1
                dissolve(ecs, name, cluster)
                ecs.delete_gateway(gateway=name)


def test_a_restart_keeps_gateways_and_associations(new_berth):
    berth = new_berth("server").start()
    names = [create(berth.ecs, f"g{n}", tags=[{"key": "n", "value": str(n)}]) for n in range(2)]
    berth.ecs.create_cluster(clusterName="c")
    for name in names:
        berth.ecs.associate_gateway_with_cluster(gateway=name, cluster="c")
    berth.ecs.update_gateway(gateway="g1", configuration={"hostSharedAlb": {"maxAlbCount": 7}})
    until_updated(berth.ecs, "g1")
    before = [described(berth.ecs, name) for name in names], associations(berth.ecs)
    berth.ecs.update_gateway(gateway="g0", propagateTags="NONE")
    berth.kill()
    berth.start()
    # An update that was acknowledged is ended by the next life, if the last one did not.
    assert until_updated(berth.ecs, "g0")["propagateTags"] == "NONE"
    after = [described(berth.ecs, name) for name in names], associations(berth.ecs)
    assert after[0][1] == before[0][1] and after[0][0]["createdAt"] == before[0][0]["createdAt"]
    assert after[1] == before[1] and len(after[1]) == 2
