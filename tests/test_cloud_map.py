"""AWS Cloud Map: namespaces, services, instances, operations, discovery."""

import datetime
import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from botocore.exceptions import ClientError

import cloud_map_calls as calls
from berth import unique
from cloud_map_calls import ARN, VPC, cloud_map, done, http_namespace, private_namespace, refused, registered, service
from http_call import exchange


@pytest.fixture
def sd(server):
    """A client whose new namespaces are deleted at the end."""
    client = cloud_map(server)
    before = {one["Id"] for one in client.list_namespaces()["Namespaces"]}
    yield client
    calls.clear(client, *({one["Id"] for one in client.list_namespaces()["Namespaces"]} - before))


@pytest.fixture
def loose(server):
    """The server's own checks answer."""
    return cloud_map(server, parameter_validation=False)


def filters(*rest):
    name, *values = rest
    condition = values.pop() if values[-1] in ("EQ", "IN", "BETWEEN", "BEGINS_WITH") else "EQ"
    return [{"Name": name, "Values": values, "Condition": condition}]


def walked(client, action, key, field, **arguments):
    """What a list gives in pages of two, which must be what it gives at once."""
    pages = list(client.get_paginator(action).paginate(**arguments, PaginationConfig={"PageSize": 2}))
    assert all(len(page[key]) <= 2 for page in pages) and all("NextToken" in page for page in pages[:-1])
    found = [one[field] for page in pages for one in page[key]]
    assert found == [one[field] for one in getattr(client, action)(**arguments)[key]] and len(found) == len(set(found))
    return found


# -- namespaces --------------------------------------------------------------------------------------------------------


def test_namespaces_of_each_type_show_what_they_are(sd):
    name = unique("ns")
    made = {
        "HTTP": done(sd, sd.create_http_namespace(Name=f"{name}-Http", Description="found by calls", Tags=[{"Key": "a", "Value": "b"}])),
        "DNS_PRIVATE": done(
            sd,
            sd.create_private_dns_namespace(
                Name=f"{name}.local", Vpc=VPC, CreatorRequestId="me", Properties={"DnsProperties": {"SOA": {"TTL": 60}}}
            ),
        ),
        "DNS_PUBLIC": done(sd, sd.create_public_dns_namespace(Name=f"{name}.example.com")),
    }
    names = {"HTTP": f"{name}-Http", "DNS_PRIVATE": f"{name}.local", "DNS_PUBLIC": f"{name}.example.com"}
    for kind, operation in made.items():
        assert operation["Type"] == "CREATE_NAMESPACE" and operation["OwnerAccount"] == "000000000000"
        namespace_id = operation["Targets"]["NAMESPACE"]
        assert namespace_id.startswith("ns-") and len(namespace_id) == 19
        arn = f"{ARN}namespace/{namespace_id}"
        for reference in (namespace_id, arn):
            found = sd.get_namespace(Id=reference)["Namespace"]
            assert (found["Id"], found["Arn"], found["Name"], found["Type"]) == (namespace_id, arn, names[kind], kind)
            assert found["ServiceCount"] == 0 and isinstance(found["CreateDate"], datetime.datetime)
            assert found["Properties"]["HttpProperties"] == {"HttpName": names[kind]}
            dns = found["Properties"]["DnsProperties"]
            if kind == "HTTP":
                assert dns == {} and found["Description"] == "found by calls"
            else:
                assert dns["HostedZoneId"].startswith("Z") and dns["SOA"]["TTL"] == (60 if kind == "DNS_PRIVATE" else 15)
    assert sd.get_namespace(Id=made["DNS_PRIVATE"]["Targets"]["NAMESPACE"])["Namespace"]["CreatorRequestId"] == "me"


def test_a_creation_that_is_repeated_is_the_first_one(sd):
    name, other = f"{unique('ns')}.local", f"{unique('ns')}.local"
    asked = {"Name": name, "Vpc": VPC, "CreatorRequestId": unique("creator")}
    first = sd.create_private_dns_namespace(**asked)
    assert sd.create_private_dns_namespace(**asked)["OperationId"] == first["OperationId"]
    with refused("NamespaceAlreadyExists", name) as caught:
        sd.create_private_dns_namespace(**{**asked, "CreatorRequestId": "another"})
    assert caught.value.response["NamespaceId"] == done(sd, first)["Targets"]["NAMESPACE"]
    assert caught.value.response["CreatorRequestId"] == asked["CreatorRequestId"]
    with refused("NamespaceAlreadyExists"):
        sd.create_http_namespace(Name=name)
    with refused("NamespaceAlreadyExists"):
        sd.create_public_dns_namespace(Name=name.upper())
    with refused("DuplicateRequest") as caught:
        sd.create_private_dns_namespace(**{**asked, "Name": other})
    assert caught.value.response["DuplicateOperationId"] == first["OperationId"]
    assert [one["Name"] for one in sd.list_namespaces(Filters=filters("NAME", other))["Namespaces"]] == []


def test_of_many_creations_at_once_one_succeeds(sd):
    name = unique("ns")

    def make(_):
        try:
            return sd.create_http_namespace(Name=name)["OperationId"]
        except sd.exceptions.NamespaceAlreadyExists:
            return None

    with ThreadPoolExecutor(8) as pool:
        assert len([made for made in pool.map(make, range(8)) if made]) == 1
    assert len(sd.list_namespaces(Filters=filters("NAME", name))["Namespaces"]) == 1


def test_namespaces_are_changed_by_the_action_of_their_type(sd):
    http, private = http_namespace(sd), private_namespace(sd)
    public = done(sd, sd.create_public_dns_namespace(Name=f"{unique('ns')}.example.com"))["Targets"]["NAMESPACE"]
    soa = {"DnsProperties": {"SOA": {"TTL": 30}}}
    operation = done(sd, sd.update_http_namespace(Id=http, Namespace={"Description": "new"}))
    assert operation["Type"] == "UPDATE_NAMESPACE" and operation["Targets"] == {"NAMESPACE": http}
    done(sd, sd.update_private_dns_namespace(Id=private, Namespace={"Description": "mine", "Properties": soa}))
    done(sd, sd.update_public_dns_namespace(Id=public, Namespace={"Properties": soa}))
    assert sd.get_namespace(Id=http)["Namespace"]["Description"] == "new"
    shown = sd.get_namespace(Id=private)["Namespace"]
    assert shown["Description"] == "mine" and shown["Properties"]["DnsProperties"]["SOA"]["TTL"] == 30
    assert sd.get_namespace(Id=public)["Namespace"]["Properties"]["DnsProperties"]["SOA"]["TTL"] == 30
    for update, wrong in ((sd.update_http_namespace, private), (sd.update_private_dns_namespace, public), (sd.update_public_dns_namespace, http)):
        with refused("InvalidInput", wrong):
            update(Id=wrong, Namespace={"Description": "not this one"})
        with refused("NamespaceNotFound"):
            update(Id="ns-0123456789abcdef", Namespace={"Description": "nobody's"})
    assert sd.get_namespace(Id=private)["Namespace"]["Description"] == "mine"


def test_a_namespace_with_services_is_in_use(sd):
    namespace = http_namespace(sd)
    inside = service(sd, namespace)
    with refused("ResourceInUse", inside):
        sd.delete_namespace(Id=namespace)
    assert sd.get_namespace(Id=namespace)["Namespace"]["ServiceCount"] == 1
    sd.delete_service(Id=inside)
    operation = done(sd, sd.delete_namespace(Id=f"{ARN}namespace/{namespace}"))
    assert operation["Type"] == "DELETE_NAMESPACE" and operation["Targets"] == {"NAMESPACE": namespace}
    with refused("NamespaceNotFound", namespace):
        sd.get_namespace(Id=namespace)
    with refused("NamespaceNotFound", namespace):
        sd.delete_namespace(Id=namespace)


def test_lists_of_namespaces_are_filtered_and_paged(sd):
    mark = unique("mark")
    http = [http_namespace(sd, f"{mark}-{n}") for n in range(3)]
    private = [private_namespace(sd, f"{mark}-{n}.local") for n in range(2)]
    begins = filters("NAME", mark, "BEGINS_WITH")
    assert sorted(walked(sd, "list_namespaces", "Namespaces", "Id", Filters=begins)) == sorted(http + private)
    assert sorted(walked(sd, "list_namespaces", "Namespaces", "Id", Filters=begins + filters("TYPE", "HTTP"))) == sorted(http)
    found = sd.list_namespaces(Filters=filters("HTTP_NAME", f"{mark}-1.local") + filters("RESOURCE_OWNER", "SELF"))["Namespaces"]
    assert [one["Id"] for one in found] == [private[1]]
    assert sd.list_namespaces(Filters=begins + filters("RESOURCE_OWNER", "OTHER_ACCOUNTS"))["Namespaces"] == []
    for wrong in (filters("TYPE", "HTTP", "DNS_PUBLIC", "EQ"), filters("NAME", "1", "2", "BETWEEN")):
        with refused("InvalidInput"):
            sd.list_namespaces(Filters=wrong)
    with refused("InvalidInput"):
        sd.list_namespaces(NextToken="nobody's")
    with refused("InvalidInput", "MaxResults"):
        sd.list_namespaces(MaxResults=101)


@pytest.mark.parametrize(
    "action, members, words",
    [
        ("create_http_namespace", {"Name": "a b"}, ["Name"]),
        ("create_http_namespace", {"Name": "arn:aws:x"}, ["Name"]),
        ("create_http_namespace", {}, ["name"]),
        ("create_private_dns_namespace", {"Name": "a..b", "Vpc": VPC}, ["Name"]),
        ("create_private_dns_namespace", {"Name": "a.b", "Vpc": "subnet-1"}, ["Vpc"]),
        ("create_private_dns_namespace", {"Name": "a.b"}, ["vpc"]),
        ("create_public_dns_namespace", {"Name": "nodots"}, ["name"]),
        ("create_private_dns_namespace", {"Name": "a.b", "Vpc": VPC, "Properties": {"DnsProperties": {"SOA": {"TTL": -1}}}}, ["ttl"]),
        ("create_http_namespace", {"Name": "x", "Tags": [{"Key": "aws:a", "Value": ""}]}, ["aws:"]),
        ("get_namespace", {"Id": "arn:aws:servicediscovery:eu-west-1:000000000000:namespace/ns-1"}, ["namespace"]),
        ("get_namespace", {"Id": "arn:aws:servicediscovery:us-east-1:000000000000:service/srv-1"}, ["namespace"]),
    ],
)
def test_bad_namespaces_change_nothing(sd, loose, action, members, words):
    before = sd.list_namespaces()["Namespaces"], len(sd.list_operations()["Operations"])
    with pytest.raises(ClientError) as caught:
        getattr(loose, action)(**members)
    error = caught.value.response["Error"]
    assert error["Code"] == "InvalidInput"
    assert all(word.lower() in error["Message"].lower() for word in words), error
    assert (sd.list_namespaces()["Namespaces"], len(sd.list_operations()["Operations"])) == before


# -- services ----------------------------------------------------------------------------------------------------------


def test_a_service_shows_what_it_is(sd):
    namespace = private_namespace(sd)
    name = unique("Api")
    made = sd.create_service(
        Name=name,
        NamespaceId=namespace,
        CreatorRequestId="me",
        Description="an API",
        DnsConfig={"DnsRecords": [{"Type": "SRV", "TTL": 10}, {"Type": "A", "TTL": 20}]},
        HealthCheckCustomConfig={"FailureThreshold": 1},
        Tags=[{"Key": "a", "Value": "b"}],
    )["Service"]
    assert made["Id"].startswith("srv-") and made["Arn"] == f"{ARN}service/{made['Id']}"
    assert (made["Name"], made["NamespaceId"], made["Type"], made["InstanceCount"]) == (name, namespace, "DNS_HTTP", 0)
    assert made["DnsConfig"] == {
        "NamespaceId": namespace,
        "RoutingPolicy": "MULTIVALUE",
        "DnsRecords": [{"Type": "SRV", "TTL": 10}, {"Type": "A", "TTL": 20}],
    }
    assert made["HealthCheckCustomConfig"] == {"FailureThreshold": 1} and "HealthCheckConfig" not in made
    for reference in (made["Id"], made["Arn"]):
        assert sd.get_service(Id=reference)["Service"] == made
    api_only = sd.create_service(Name="calls", NamespaceId=namespace, Type="HTTP")["Service"]
    assert api_only["Type"] == "HTTP" and "DnsConfig" not in api_only
    older = sd.create_service(Name="older", DnsConfig={"NamespaceId": namespace, "DnsRecords": [{"Type": "CNAME", "TTL": 0}]})["Service"]
    assert older["DnsConfig"]["RoutingPolicy"] == "WEIGHTED" and older["NamespaceId"] == namespace
    assert sd.list_tags_for_resource(ResourceARN=made["Arn"])["Tags"] == [{"Key": "a", "Value": "b"}]


def test_services_names_are_unique_as_dns_sees_them(sd):
    private, http = private_namespace(sd), http_namespace(sd)
    asked = {"Name": "api", "NamespaceId": private, "CreatorRequestId": "me", "DnsConfig": {"DnsRecords": [{"Type": "A", "TTL": 10}]}}
    first = sd.create_service(**asked)["Service"]
    assert sd.create_service(**asked)["Service"] == first
    for other in ({"CreatorRequestId": "you"}, {"Name": "API"}, {"Description": "another"}):
        with refused("ServiceAlreadyExists", "api") as caught:
            sd.create_service(**{**asked, **other})
        response = caught.value.response
        assert (response["ServiceId"], response["ServiceArn"], response["CreatorRequestId"]) == (first["Id"], first["Arn"], "me")
    ids = [service(sd, http, name=name) for name in ("api", "API")]
    assert len(set(ids)) == 2
    with refused("ServiceAlreadyExists"):
        service(sd, http, name="api")


def test_a_services_description_and_ttls_can_change_and_its_types_cannot(sd):
    namespace = private_namespace(sd)
    one = service(sd, namespace, "SRV", "A")
    change = {"Description": "new", "DnsConfig": {"DnsRecords": [{"Type": "A", "TTL": 5}, {"Type": "SRV", "TTL": 6}]}}
    operation = done(sd, sd.update_service(Id=one, Service=change))
    assert operation["Type"] == "UPDATE_SERVICE" and operation["Targets"] == {"SERVICE": one}
    shown = sd.get_service(Id=one)["Service"]
    assert shown["Description"] == "new" and shown["DnsConfig"]["DnsRecords"] == change["DnsConfig"]["DnsRecords"]
    done(sd, sd.update_service(Id=one, Service={"Description": "newer"}))
    assert sd.get_service(Id=one)["Service"]["DnsConfig"] == shown["DnsConfig"]
    for wrong in (
        {"DnsConfig": {"DnsRecords": [{"Type": "A", "TTL": 5}]}},
        {"HealthCheckConfig": {"Type": "TCP"}},
    ):
        with refused("InvalidInput"):
            sd.update_service(Id=one, Service=wrong)
    with refused("ServiceNotFound"):
        sd.update_service(Id="srv-0123456789abcdef", Service={"Description": ""})
    assert sd.get_service(Id=one)["Service"]["Description"] == "newer"


@pytest.mark.parametrize(
    "members, word",
    [
        ({"Name": "a b"}, "Name"),
        ({"Name": "-a"}, "Name"),
        ({}, "DnsConfig"),
        ({"Type": "HTTP", "DnsConfig": {"DnsRecords": [{"Type": "A", "TTL": 1}]}}, "DnsConfig"),
        ({"DnsConfig": {"DnsRecords": []}}, "DnsRecords"),
        ({"DnsConfig": {"DnsRecords": [{"Type": "A", "TTL": 1}, {"Type": "A", "TTL": 2}]}}, "A"),
        ({"DnsConfig": {"DnsRecords": [{"Type": "A", "TTL": 1}, {"Type": "CNAME", "TTL": 2}]}}, "CNAME"),
        ({"DnsConfig": {"RoutingPolicy": "MULTIVALUE", "DnsRecords": [{"Type": "CNAME", "TTL": 2}]}}, "WEIGHTED"),
        ({"DnsConfig": {"DnsRecords": [{"Type": "MX", "TTL": 2}]}}, "enum"),
        ({"DnsConfig": {"DnsRecords": [{"Type": "A", "TTL": -1}]}}, "TTL"),
        ({"DnsConfig": {"DnsRecords": [{"Type": "A", "TTL": 1}]}, "HealthCheckConfig": {"Type": "TCP"}}, "HealthCheckConfig"),
        (
            {
                "DnsConfig": {"DnsRecords": [{"Type": "A", "TTL": 1}]},
                "HealthCheckConfig": {"Type": "TCP"},
                "HealthCheckCustomConfig": {"FailureThreshold": 1},
            },
            "both",
        ),
        ({"DnsConfig": {"NamespaceId": "ns-2", "DnsRecords": [{"Type": "A", "TTL": 1}]}}, "NamespaceId"),
    ],
)
def test_bad_services_change_nothing(sd, loose, members, word):
    namespace = private_namespace(sd)
    with refused("InvalidInput", word):
        loose.create_service(**{"Name": "x", "NamespaceId": namespace, **members})
    assert sd.get_namespace(Id=namespace)["Namespace"]["ServiceCount"] == 0


def test_services_need_a_namespace_that_is_there(sd):
    http = http_namespace(sd)
    with refused("InvalidInput", "NamespaceId"):
        sd.create_service(Name="x")
    with refused("NamespaceNotFound", "ns-0123456789abcdef"):
        sd.create_service(Name="x", NamespaceId="ns-0123456789abcdef")
    with refused("InvalidInput", "Route 53"):
        sd.create_service(Name="x", NamespaceId=http, HealthCheckConfig={"Type": "HTTP", "ResourcePath": "/"})
    with refused("InvalidInput", "DnsConfig"):
        service(sd, http, "A")
    for action in (sd.get_service, sd.delete_service):
        with refused("ServiceNotFound", "srv-0123456789abcdef"):
            action(Id="srv-0123456789abcdef")


def test_lists_of_services_are_filtered_and_paged(sd):
    one, other = http_namespace(sd), http_namespace(sd)
    ids = [service(sd, one) for _ in range(5)]
    more = [service(sd, other)]
    of = filters("NAMESPACE_ID", one)
    assert sorted(walked(sd, "list_services", "Services", "Id", Filters=of)) == sorted(ids)
    both = sd.list_services(Filters=filters("NAMESPACE_ID", one, other, "IN"))["Services"]
    assert sorted(found["Id"] for found in both) == sorted(ids + more)
    assert sd.list_services(Filters=of + filters("RESOURCE_OWNER", "OTHER_ACCOUNTS"))["Services"] == []
    with refused("InvalidInput", "BEGINS_WITH"):
        sd.list_services(Filters=filters("NAMESPACE_ID", "ns-", "BEGINS_WITH"))


def test_attributes_of_a_service(sd):
    one = service(sd, http_namespace(sd))
    sd.update_service_attributes(ServiceId=one, Attributes={"port": "80", "team": "red"})
    sd.update_service_attributes(ServiceId=f"{ARN}service/{one}", Attributes={"team": "blue"})
    shown = sd.get_service_attributes(ServiceId=one)["ServiceAttributes"]
    assert shown == {"ServiceArn": f"{ARN}service/{one}", "ResourceOwner": "000000000000", "Attributes": {"port": "80", "team": "blue"}}
    with refused("ServiceAttributesLimitExceededException", "30"):
        sd.update_service_attributes(ServiceId=one, Attributes={f"k{n}": "v" for n in range(29)})
    sd.delete_service_attributes(ServiceId=one, Attributes=["port", "none"])
    assert sd.get_service_attributes(ServiceId=one)["ServiceAttributes"]["Attributes"] == {"team": "blue"}
    for action, more in (("get", {}), ("update", {"Attributes": {"a": "b"}}), ("delete", {"Attributes": ["a"]})):
        with refused("ServiceNotFound"):
            getattr(sd, f"{action}_service_attributes")(ServiceId="srv-0123456789abcdef", **more)


# -- instances ---------------------------------------------------------------------------------------------------------


def test_an_instance_is_registered_changed_and_deregistered(sd):
    one = service(sd, private_namespace(sd), "SRV", "A", custom=True)
    operation = registered(sd, one, "i-1", AWS_INSTANCE_IPV4="10.0.0.1", AWS_INSTANCE_PORT=80, version=1)
    assert operation["Type"] == "REGISTER_INSTANCE" and operation["Targets"] == {"INSTANCE": "i-1", "SERVICE": one}
    assert sd.get_instance(ServiceId=one, InstanceId="i-1")["Instance"]["Attributes"] == {
        "AWS_INSTANCE_IPV4": "10.0.0.1", "AWS_INSTANCE_PORT": "80", "version": "1"
    }
    assert sd.get_service(Id=one)["Service"]["InstanceCount"] == 1
    registered(sd, one, "i-1", AWS_INSTANCE_IPV4="10.0.0.2", AWS_INSTANCE_PORT=81)
    assert calls.instances(sd, one) == {"i-1": {"AWS_INSTANCE_IPV4": "10.0.0.2", "AWS_INSTANCE_PORT": "81"}}
    with refused("ResourceInUse", "instances"):
        sd.delete_service(Id=one)
    operation = done(sd, sd.deregister_instance(ServiceId=one, InstanceId="i-1"))
    assert operation["Type"] == "DEREGISTER_INSTANCE" and operation["Targets"] == {"INSTANCE": "i-1", "SERVICE": one}
    assert calls.instances(sd, one) == {}
    for action in (sd.get_instance, sd.deregister_instance):
        with refused("InstanceNotFound", "i-1"):
            action(ServiceId=one, InstanceId="i-1")
        with refused("ServiceNotFound"):
            action(ServiceId="srv-0123456789abcdef", InstanceId="i-1")
    with refused("ServiceNotFound"):
        sd.list_instances(ServiceId="srv-0123456789abcdef")
    with refused("ServiceNotFound"):
        sd.register_instance(ServiceId="srv-0123456789abcdef", InstanceId="i", Attributes={})


def test_a_registration_that_is_repeated_is_the_first_one(sd):
    one = service(sd, http_namespace(sd))
    asked = {"ServiceId": one, "InstanceId": "i-1", "Attributes": {"a": "1"}, "CreatorRequestId": "me"}
    first = sd.register_instance(**asked)["OperationId"]
    assert sd.register_instance(**asked)["OperationId"] == first
    with refused("DuplicateRequest") as caught:
        sd.register_instance(**{**asked, "InstanceId": "i-2"})
    assert caught.value.response["DuplicateOperationId"] == first
    assert sd.register_instance(**{**asked, "Attributes": {"a": "2"}})["OperationId"] != first
    assert calls.instances(sd, one) == {"i-1": {"a": "2"}}


@pytest.mark.parametrize(
    "records, custom, instance, attributes, word",
    [
        (["A"], False, "i", {}, "AWS_INSTANCE_IPV4"),
        (["A"], False, "i", {"AWS_INSTANCE_IPV4": "10.0.0.256"}, "AWS_INSTANCE_IPV4"),
        (["AAAA"], False, "i", {"AWS_INSTANCE_IPV4": "10.0.0.1"}, "AWS_INSTANCE_IPV6"),
        (["SRV"], False, "i", {"AWS_INSTANCE_IPV4": "10.0.0.1"}, "AWS_INSTANCE_PORT"),
        (["SRV"], False, "i", {"AWS_INSTANCE_IPV4": "10.0.0.1", "AWS_INSTANCE_PORT": "0"}, "AWS_INSTANCE_PORT"),
        (["SRV"], False, "i", {"AWS_INSTANCE_PORT": "80"}, "AWS_INSTANCE_IPV4"),
        (["SRV"], False, "i/1", {"AWS_INSTANCE_IPV4": "10.0.0.1", "AWS_INSTANCE_PORT": "80"}, "InstanceId"),
        (["CNAME"], False, "i", {"AWS_INSTANCE_CNAME": "a b"}, "AWS_INSTANCE_CNAME"),
        (["A"], False, "i", {"AWS_INSTANCE_IPV4": "10.0.0.1", "AWS_INIT_HEALTH_STATUS": "HEALTHY"}, "AWS_INIT_HEALTH_STATUS"),
        (["A"], True, "i", {"AWS_INSTANCE_IPV4": "10.0.0.1", "AWS_INIT_HEALTH_STATUS": "FINE"}, "AWS_INIT_HEALTH_STATUS"),
        (["A"], False, "i", {"AWS_ALIAS_DNS_NAME": "lb.example"}, "AWS_ALIAS_DNS_NAME"),
        (["A"], False, "i i", {"AWS_INSTANCE_IPV4": "10.0.0.1"}, "instanceId"),
        (["A"], False, "i", {"AWS_INSTANCE_IPV4": "10.0.0.1", **{f"k{n}": "v" for n in range(30)}}, "30"),
        (["A"], False, "i", {"AWS_INSTANCE_IPV4": "10.0.0.1", **{f"k{n}": "v" * 1000 for n in range(5)}}, "5000"),
    ],
)
def test_bad_instances_change_nothing(sd, records, custom, instance, attributes, word):
    one = service(sd, private_namespace(sd), *records, custom=custom)
    with pytest.raises(ClientError) as caught:
        sd.register_instance(ServiceId=one, InstanceId=instance, Attributes=attributes)
    error = caught.value.response["Error"]
    assert error["Code"] == "InvalidInput" and word.lower() in error["Message"].lower(), error
    assert calls.instances(sd, one) == {}


def test_custom_health_is_as_it_was_last_said(sd):
    namespace = private_namespace(sd)
    one, without = service(sd, namespace, "A", custom=True), service(sd, namespace, "A")
    for number in (1, 2, 3):
        registered(sd, one, f"i-{number}", AWS_INSTANCE_IPV4=f"10.0.0.{number}", AWS_INIT_HEALTH_STATUS="UNHEALTHY" if number == 3 else "HEALTHY")
    registered(sd, without, "i-1", AWS_INSTANCE_IPV4="10.0.0.1")
    assert sd.get_instances_health_status(ServiceId=one)["Status"] == {"i-1": "HEALTHY", "i-2": "HEALTHY", "i-3": "UNHEALTHY"}
    sd.update_instance_custom_health_status(ServiceId=one, InstanceId="i-2", Status="UNHEALTHY")
    assert sd.get_instances_health_status(ServiceId=one, Instances=["i-2"])["Status"] == {"i-2": "UNHEALTHY"}
    # botocore has no paginator for it.
    first = sd.get_instances_health_status(ServiceId=one, MaxResults=2)
    rest = sd.get_instances_health_status(ServiceId=one, MaxResults=2, NextToken=first["NextToken"])
    assert (sorted(first["Status"]), sorted(rest["Status"]), "NextToken" in rest) == (["i-1", "i-2"], ["i-3"], False)
    assert sd.get_instances_health_status(ServiceId=without)["Status"] == {"i-1": "UNKNOWN"}
    with refused("CustomHealthNotFound", without):
        sd.update_instance_custom_health_status(ServiceId=without, InstanceId="i-1", Status="UNHEALTHY")
    with refused("InstanceNotFound", "i-9"):
        sd.update_instance_custom_health_status(ServiceId=one, InstanceId="i-9", Status="HEALTHY")
    with refused("InstanceNotFound", "i-9"):
        sd.get_instances_health_status(ServiceId=one, Instances=["i-1", "i-9"])
    for action, more in (("get_instances_health_status", {}), ("update_instance_custom_health_status", {"InstanceId": "i", "Status": "HEALTHY"})):
        with refused("ServiceNotFound"):
            getattr(sd, action)(ServiceId="srv-0123456789abcdef", **more)


def test_instances_are_discovered_by_attributes_and_health(sd):
    name, namespace_name = unique("api"), f"{unique('ns')}.local"
    one = service(sd, private_namespace(sd, namespace_name), "A", name=name, custom=True)
    for number in (1, 2, 3):
        registered(sd, one, f"i-{number}", AWS_INSTANCE_IPV4=f"10.0.0.{number}", zone="a" if number < 3 else "b")
    sd.update_instance_custom_health_status(ServiceId=one, InstanceId="i-2", Status="UNHEALTHY")

    def found(**more):
        answer = sd.discover_instances(NamespaceName=namespace_name, ServiceName=name, **more)
        return [instance["InstanceId"] for instance in answer["Instances"]]

    assert found() == ["i-1", "i-3"] and found(HealthStatus="ALL") == ["i-1", "i-2", "i-3"]
    assert found(HealthStatus="UNHEALTHY") == ["i-2"]
    assert found(HealthStatus="ALL", MaxResults=2) == ["i-1", "i-2"]
    assert found(QueryParameters={"zone": "a"}) == ["i-1"] and found(QueryParameters={"zone": "c"}) == []
    assert found(OptionalParameters={"zone": "b"}) == ["i-3"] and found(OptionalParameters={"zone": "c"}) == ["i-1", "i-3"]
    for number in (1, 3):
        sd.update_instance_custom_health_status(ServiceId=one, InstanceId=f"i-{number}", Status="UNHEALTHY")
    assert found() == [] and found(HealthStatus="HEALTHY_OR_ELSE_ALL") == ["i-1", "i-2", "i-3"]
    [shown] = sd.discover_instances(NamespaceName=namespace_name, ServiceName=name, HealthStatus="ALL", MaxResults=1)["Instances"]
    assert shown == {
        "InstanceId": "i-1",
        "NamespaceName": namespace_name,
        "ServiceName": name,
        "HealthStatus": "UNHEALTHY",
        "Attributes": {"AWS_INSTANCE_IPV4": "10.0.0.1", "zone": "a"},
    }
    for action in (sd.discover_instances, sd.discover_instances_revision):
        with refused("NamespaceNotFound", "elsewhere"):
            action(NamespaceName="elsewhere", ServiceName=name)
        with refused("NamespaceNotFound"):
            action(NamespaceName=namespace_name, ServiceName=name, OwnerAccount="111111111111")
        with refused("ServiceNotFound", "nobody"):
            action(NamespaceName=namespace_name, ServiceName="nobody")


def test_the_instances_revision_grows_with_registrations_and_not_with_health(sd):
    name, namespace_name = unique("api"), f"{unique('ns')}.local"
    one = service(sd, private_namespace(sd, namespace_name), "A", name=name, custom=True)

    def revision():
        asked = {"NamespaceName": namespace_name, "ServiceName": name}
        number = sd.discover_instances_revision(**asked)["InstancesRevision"]
        assert sd.discover_instances(**asked)["InstancesRevision"] == number
        return number

    revisions = [revision()]
    registered(sd, one, "i-1", AWS_INSTANCE_IPV4="10.0.0.1")
    revisions.append(revision())
    sd.update_instance_custom_health_status(ServiceId=one, InstanceId="i-1", Status="UNHEALTHY")
    assert revision() == revisions[-1]
    sd.deregister_instance(ServiceId=one, InstanceId="i-1")
    revisions.append(revision())
    assert revisions == sorted(set(revisions))


def test_discovery_answers_at_the_host_that_botocore_makes(server, sd):
    name, namespace_name = unique("api"), unique("ns")
    one = service(sd, http_namespace(sd, namespace_name), name=name)
    registered(sd, one, "i-1", version=1)
    prefixed = server.client("servicediscovery")
    hosts = []
    prefixed.meta.events.register("before-send.servicediscovery", lambda request, **_: hosts.append(request.url.split("/")[2]))
    with calls.prefixed_hosts():
        answer = prefixed.discover_instances(NamespaceName=namespace_name, ServiceName=name)
        prefixed.discover_instances_revision(NamespaceName=namespace_name, ServiceName=name)
    assert [instance["InstanceId"] for instance in answer["Instances"]] == ["i-1"]
    assert len(hosts) == 2 and all(host.startswith("data-") for host in hosts)


def test_lists_of_instances_are_paged(sd):
    one = service(sd, http_namespace(sd))
    ids = [f"i-{n}/{n}:x" for n in range(5)]
    for instance in ids:
        registered(sd, one, instance)
    assert walked(sd, "list_instances", "Instances", "Id", ServiceId=one) == ids


def test_a_service_has_a_thousand_instances_at_most(sd):
    one = service(sd, http_namespace(sd))
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda n: sd.register_instance(ServiceId=one, InstanceId=f"i-{n}", Attributes={}), range(1000)))
    with refused("ResourceLimitExceeded", "1000"):
        sd.register_instance(ServiceId=one, InstanceId="one-more", Attributes={})
    sd.register_instance(ServiceId=one, InstanceId="i-7", Attributes={"again": "yes"})
    assert len(calls.instances(sd, one)) == 1000


def test_there_are_fifty_namespaces_at_most(new_berth):
    sd = cloud_map(new_berth("server").start())
    for number in range(50):
        sd.create_http_namespace(Name=f"n{number}")
    with refused("ResourceLimitExceeded", "50"):
        sd.create_http_namespace(Name="one-more")
    assert len(sd.list_namespaces()["Namespaces"]) == 50


# -- operations and tags -----------------------------------------------------------------------------------------------


def test_operations_are_listed_by_what_they_did(sd):
    started = datetime.datetime.now().timestamp()
    namespace = http_namespace(sd)
    one = service(sd, namespace)
    for number in range(3):
        registered(sd, one, f"i-{number}")
    sd.deregister_instance(ServiceId=one, InstanceId="i-0")
    of = filters("SERVICE_ID", one)
    assert len(walked(sd, "list_operations", "Operations", "Id", Filters=of)) == 4
    listed = sd.list_operations(Filters=of + filters("TYPE", "REGISTER_INSTANCE") + filters("STATUS", "SUCCESS", "PENDING", "IN"))["Operations"]
    assert len(listed) == 3 and {operation["Status"] for operation in listed} == {"SUCCESS"}
    between = filters("UPDATE_DATE", str(started - 5), str(started + 3600), "BETWEEN")
    assert len(sd.list_operations(Filters=of + between)["Operations"]) == 4
    long_ago = filters("UPDATE_DATE", "1", "2", "BETWEEN")
    assert sd.list_operations(Filters=of + long_ago)["Operations"] == []
    assert sd.list_operations(Filters=of + filters("STATUS", "FAIL"))["Operations"] == []
    assert len(sd.list_operations(Filters=filters("NAMESPACE_ID", namespace))["Operations"]) == 1
    for wrong in (filters("UPDATE_DATE", "1", "EQ"), filters("UPDATE_DATE", "a", "b", "BETWEEN")):
        with refused("InvalidInput", "UPDATE_DATE"):
            sd.list_operations(Filters=wrong)
    with refused("OperationNotFound", "nobody"):
        sd.get_operation(OperationId="nobody")
    with refused("OperationNotFound"):
        sd.get_operation(OperationId=listed[0]["Id"], OwnerAccount="111111111111")


def test_tags_of_namespaces_and_services(sd):
    namespace = http_namespace(sd)
    arns = [f"{ARN}namespace/{namespace}", f"{ARN}service/{service(sd, namespace)}"]
    for arn in arns:
        sd.tag_resource(ResourceARN=arn, Tags=[{"Key": "a", "Value": "1"}, {"Key": "b", "Value": "2"}])
        sd.tag_resource(ResourceARN=arn, Tags=[{"Key": "a", "Value": "3"}])
        sd.untag_resource(ResourceARN=arn, TagKeys=["b", "none"])
        assert sd.list_tags_for_resource(ResourceARN=arn)["Tags"] == [{"Key": "a", "Value": "3"}]
        with refused("TooManyTagsException"):
            sd.tag_resource(ResourceARN=arn, Tags=[{"Key": f"k{n}", "Value": ""} for n in range(50)])
        assert sd.list_tags_for_resource(ResourceARN=arn)["Tags"] == [{"Key": "a", "Value": "3"}]
    with refused("TooManyTagsException"):
        sd.create_http_namespace(Name=unique("ns"), Tags=[{"Key": f"k{n}", "Value": ""} for n in range(51)])
    gone = f"{ARN}service/srv-0123456789abcdef"
    for action, more in (("tag_resource", {"Tags": []}), ("untag_resource", {"TagKeys": []}), ("list_tags_for_resource", {})):
        with refused("ResourceNotFoundException", gone):
            getattr(sd, action)(ResourceARN=gone, **more)
        with refused("InvalidInput"):
            getattr(sd, action)(ResourceARN="arn:aws:ecs:us-east-1:000000000000:cluster/x", **more)


# -- the wire ----------------------------------------------------------------------------------------------------------


def test_the_aws_cli(server, sd):
    name = f"{unique('ns')}.local"
    made = server.aws("servicediscovery", "create-private-dns-namespace", "--name", name, "--vpc", VPC)
    operation = server.aws("servicediscovery", "get-operation", "--operation-id", made["OperationId"])["Operation"]
    namespace = operation["Targets"]["NAMESPACE"]
    config = f"NamespaceId={namespace},DnsRecords=[{{Type=A,TTL=60}}]"
    one = server.aws("servicediscovery", "create-service", "--name", "db", "--dns-config", config)["Service"]["Id"]
    server.aws("servicediscovery", "register-instance", "--service-id", one, "--instance-id", "i", "--attributes", "AWS_INSTANCE_IPV4=10.0.0.1")
    listed = server.aws("servicediscovery", "list-instances", "--service-id", one)["Instances"]
    assert [instance["Attributes"] for instance in listed] == [{"AWS_INSTANCE_IPV4": "10.0.0.1"}]
    refusal = server.aws("servicediscovery", "delete-service", "--id", one, check=False)
    assert refusal.returncode != 0 and "(ResourceInUse)" in refusal.stderr
    server.aws("servicediscovery", "deregister-instance", "--service-id", one, "--instance-id", "i")
    server.aws("servicediscovery", "delete-service", "--id", one)
    server.aws("servicediscovery", "delete-namespace", "--id", namespace)
    assert namespace not in {found["Id"] for found in server.aws("servicediscovery", "list-namespaces")["Namespaces"]}


def test_everything_survives_a_restart(new_berth):
    berth = new_berth("server").start()
    sd = cloud_map(berth)
    namespace_name = f"{unique('ns')}.local"
    namespace = private_namespace(sd, namespace_name, Tags=[{"Key": "a", "Value": "b"}])
    one = service(sd, namespace, "SRV", "A", name="api", custom=True)
    registered(sd, one, "i-1", AWS_INSTANCE_IPV4="10.0.0.1", AWS_INSTANCE_PORT=80)
    sd.update_instance_custom_health_status(ServiceId=one, InstanceId="i-1", Status="UNHEALTHY")

    def everything(sd):
        answers = [
            sd.list_namespaces(), sd.get_service(Id=one), sd.list_instances(ServiceId=one), sd.list_operations(),
            sd.get_instances_health_status(ServiceId=one), sd.list_tags_for_resource(ResourceARN=f"{ARN}namespace/{namespace}"),
            sd.discover_instances(NamespaceName=namespace_name, ServiceName="api", HealthStatus="ALL"),
        ]
        return [{key: value for key, value in answer.items() if key != "ResponseMetadata"} for answer in answers]

    before = everything(sd)
    berth.kill()
    berth.start()
    assert everything(cloud_map(berth)) == before


def test_cbor_is_refused_so_that_its_clients_can_read_it(server):
    path = "/service/Route53AutoNaming_v20170314/operation/ListNamespaces"
    answer = exchange(server.endpoint, path=path, headers={"Content-Type": "application/cbor", "smithy-protocol": "rpc-v2-cbor"}, body=b"\xa0")
    assert answer.status == 404 and answer.headers["content-type"] == "application/cbor"
    assert answer.headers["smithy-protocol"] == "rpc-v2-cbor"
    assert b"UnknownOperationException" in answer.body and b"AWS JSON 1.1" in answer.body


def test_actions_that_are_not_there_are_named(server):
    answer = exchange(server.endpoint, headers={"X-Amz-Target": "Route53AutoNaming_v20170314.FlyToTheMoon"}, body=b"{}")
    assert answer.status == 400 and answer.code == "UnknownOperationException" and "AWS Cloud Map" in answer.message
