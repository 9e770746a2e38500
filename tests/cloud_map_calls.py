"""Short forms of Cloud Map calls that several tests make."""

import contextlib
import socket

import botocore.session
import pytest
from botocore.exceptions import ClientError

from berth import unique, until

MODEL = botocore.session.Session().get_service_model("servicediscovery")
VPC = "vpc-0123456789abcdef0"
ARN = "arn:aws:servicediscovery:us-east-1:000000000000:"


def cloud_map(berth, **settings):
    """A client. It leaves `data-` away, which botocore would put before the endpoint's host for two of the actions."""
    return berth.client("servicediscovery", inject_host_prefix=False, **settings)


@contextlib.contextmanager
def prefixed_hosts():
    """Names that begin with `data-` resolve as they do without it, which a line in /etc/hosts or a wildcard in DNS would do elsewhere."""
    plain = socket.getaddrinfo

    def look_up(host, *rest, **more):
        return plain(host.removeprefix("data-") if isinstance(host, str) else host, *rest, **more)

    socket.getaddrinfo = look_up
    try:
        yield
    finally:
        socket.getaddrinfo = plain


@contextlib.contextmanager
def refused(code, *words):
    """The block must be refused with this error code, one that the operation has in AWS's model, with the model's status, and a message that
    names each word."""
    with pytest.raises(ClientError) as caught:
        yield caught
    response = caught.value.response
    assert response["Error"]["Code"] == code, response
    shapes = {shape.name: shape for shape in MODEL.operation_model(caught.value.operation_name).error_shapes}
    assert code in shapes, f"{caught.value.operation_name} has no {code} in AWS's model: {sorted(shapes)}"
    assert response["ResponseMetadata"]["HTTPStatusCode"] == shapes[code].metadata["error"]["httpStatusCode"], response
    for word in words:
        assert word in response["Error"]["Message"], response


def done(client, answer):
    """The operation that a call answered with; it must have succeeded."""
    operation = client.get_operation(OperationId=answer["OperationId"])["Operation"]
    assert operation["Status"] == "SUCCESS", operation
    return operation


def http_namespace(client, name=None, **members):
    """Makes one; gives its id."""
    return done(client, client.create_http_namespace(Name=name or unique("ns"), **members))["Targets"]["NAMESPACE"]


def private_namespace(client, name=None, **members):
    """Makes one; gives its id."""
    answer = client.create_private_dns_namespace(Name=name or f"{unique('ns')}.local", Vpc=VPC, **members)
    return done(client, answer)["Targets"]["NAMESPACE"]


def service(client, namespace, *records, name=None, ttl=10, custom=False, **members):
    """Makes a service with records of these types; gives its id."""
    if records:
        members["DnsConfig"] = {"DnsRecords": [{"Type": kind, "TTL": ttl} for kind in records], **members.pop("DnsConfig", {})}
    if custom:
        members["HealthCheckCustomConfig"] = {"FailureThreshold": 1}
    return client.create_service(Name=name or unique("srv"), NamespaceId=namespace, **members)["Service"]["Id"]


def registered(client, service, instance, **attributes):
    """Registers an instance; gives the operation."""
    attributes = {key: str(value) for key, value in attributes.items()}
    return done(client, client.register_instance(ServiceId=service, InstanceId=instance, Attributes=attributes))


def instances(client, service):
    """All instances of a service by id."""
    pages = client.get_paginator("list_instances").paginate(ServiceId=service)
    return {one["Id"]: one["Attributes"] for page in pages for one in page["Instances"]}


def clear(client, *namespaces):
    """Deletes namespaces with all that is in them: there can be fifty of them. What tasks registered goes when they end."""
    for namespace in namespaces:
        listed = client.list_services(Filters=[{"Name": "NAMESPACE_ID", "Values": [namespace], "Condition": "EQ"}])["Services"]
        for one in listed:
            for instance in instances(client, one["Id"]):
                with contextlib.suppress(client.exceptions.InstanceNotFound):
                    client.deregister_instance(ServiceId=one["Id"], InstanceId=instance)
            until("the service to have no instances", lambda id=one["Id"]: not instances(client, id))
            client.delete_service(Id=one["Id"])
        client.delete_namespace(Id=namespace)
