"""The AWS JSON 1.1 edge: envelopes, malformed input, signatures."""

import http.client
import re
from urllib.parse import urlsplit

import pytest

from berth import ROOT, http_status, http_text
from http_call import TARGET, call, exchange, presigned_path, stamp_of

UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
# One of each served action with a request that would need a cluster: none of them may answer anything but ECS's own errors.
SERVED_LISTS = ["ListClusters", "ListTaskDefinitions", "ListTaskDefinitionFamilies", "ListTasks", "ListServices", "ListContainerInstances"]


def assert_error(answer, code, *words, status=400):
    assert answer.status == status, answer
    assert answer.code == code, answer
    for word in words:
        assert word in answer.message, answer
    assert UUID.fullmatch(answer.headers["x-amzn-requestid"]), answer.headers
    assert answer.headers["content-type"] == "application/x-amz-json-1.1"


def test_an_answer_is_aws_json_with_a_request_id(server):
    answer = call(server, "ListClusters")
    assert answer.status == 200, answer
    assert isinstance(answer.json["clusterArns"], list)
    assert answer.headers["content-type"] == "application/x-amz-json-1.1"
    assert UUID.fullmatch(answer.headers["x-amzn-requestid"])


def test_request_ids_differ(server):
    ids = {call(server, "ListClusters").headers["x-amzn-requestid"] for _ in range(5)}
    assert len(ids) == 5


def test_an_error_has_type_and_message_and_a_request_id(server):
    answer = call(server, "DescribeServices", {"cluster": "none-such", "services": ["a"]})
    assert_error(answer, "ClusterNotFoundException", "Cluster not found.")
    assert set(answer.json) == {"__type", "message"}


def test_an_error_reaches_boto3_with_its_code_status_and_request_id(server):
    with pytest.raises(server.ecs.exceptions.ClusterNotFoundException) as caught:
        server.ecs.describe_services(cluster="none-such", services=["a"])
    metadata = caught.value.response["ResponseMetadata"]
    assert metadata["HTTPStatusCode"] == 400
    assert UUID.fullmatch(metadata["RequestId"])


def test_members_that_are_null_count_as_absent(server):
    assert call(server, "ListClusters", '{"maxResults": null, "nextToken": null}').status == 200


def test_members_that_the_model_does_not_have_are_ignored(server):
    assert call(server, "ListClusters", {"surprise": {"deep": [1]}}).status == 200


@pytest.mark.parametrize("body", ["{", "{]", "nonsense", '{"a":}', '{"a":1}}', "\x00", '{"cluster": "\\ud800"}'])
def test_malformed_json_is_a_serialization_exception(server, body):
    answer = call(server, "RunTask", body)
    assert_error(answer, "SerializationException")
    assert answer.message


@pytest.mark.parametrize("body", ["[]", '"text"', "1", "true"])
def test_a_body_that_is_no_object_is_a_serialization_exception(server, body):
    assert_error(call(server, "RunTask", body), "SerializationException")


def test_bytes_that_are_no_utf8_are_a_serialization_exception(server):
    assert_error(call(server, "RunTask", b'{"cluster":"\xff\xfe"}'), "SerializationException")


@pytest.mark.parametrize("member", ["surprise", "overrides"])
def test_deep_nesting_does_not_overflow_the_stack(server, member):
    answer = call(server, "RunTask", f'{{"{member}":' + '{"a":' * 100_000 + "1" + "}" * 100_001)
    assert answer.status == 400, answer
    assert http_status(server.endpoint + "/healthz") == 200


@pytest.mark.parametrize(
    ("action", "body", "words"),
    [
        ("RunTask", {"taskDefinition": "a", "count": "two"}, ["STRING_VALUE", "Integer"]),
        ("RunTask", {"taskDefinition": 7}, ["NUMBER_VALUE", "String"]),
        ("RunTask", {"taskDefinition": "a", "enableExecuteCommand": "yes"}, ["STRING_VALUE", "Boolean"]),
        ("DescribeTasks", {"tasks": "one"}, ["STRING_VALUE"]),
        ("RunTask", {"taskDefinition": "a", "overrides": []}, []),
        ("RunTask", {"taskDefinition": "a", "count": 1.5}, []),
        ("RunTask", {"taskDefinition": "a", "count": 3_000_000_000}, []),
    ],
)
def test_a_wrong_typed_member_is_a_serialization_exception(server, action, body, words):
    assert_error(call(server, action, body), "SerializationException", *words)


@pytest.mark.parametrize(
    ("body", "member"),
    [
        ({"taskDefinition": "a", "count": "two"}, "count"),
        ({"taskDefinition": 7}, "taskDefinition"),
        ({"taskDefinition": "a", "overrides": {"containerOverrides": [{"name": "a", "cpu": "x"}]}}, "cpu"),
    ],
)
def test_a_wrong_typed_member_is_named(server, body, member):
    assert member in call(server, "RunTask", body).message


@pytest.mark.parametrize(
    ("action", "body", "member"),
    [
        ("RunTask", {}, "taskDefinition"),
        ("StartTask", {"taskDefinition": "a"}, "containerInstances"),
        ("StopTask", {}, "task"),
        ("DescribeTasks", {}, "tasks"),
        ("DescribeServices", {}, "services"),
        ("CreateService", {"taskDefinition": "a", "desiredCount": 1}, "serviceName"),
        ("UpdateService", {}, "service"),
        ("DeleteService", {}, "service"),
        ("DeleteCluster", {}, "cluster"),
        ("RegisterTaskDefinition", {"containerDefinitions": []}, "family"),
        ("RegisterTaskDefinition", {"family": "a"}, "containerDefinitions"),
        ("DescribeTaskDefinition", {}, "taskDefinition"),
        ("DeregisterTaskDefinition", {}, "taskDefinition"),
        ("DescribeContainerInstances", {}, "containerInstances"),
        ("DeregisterContainerInstance", {}, "containerInstance"),
        ("TagResource", {"tags": []}, "resourceArn"),
        ("TagResource", {"resourceArn": "arn"}, "tags"),
        ("UntagResource", {"resourceArn": "arn"}, "tagKeys"),
        ("ListTagsForResource", {}, "resourceArn"),
    ],
)
def test_a_missing_required_member_is_named(server, action, body, member):
    answer = call(server, action, body)
    assert_error(answer, "InvalidParameterException", f"at '{member}'", "Member must not be null")


@pytest.mark.parametrize("action", ["RunTasks", "", "runTask", "../RunTask"])
def test_an_unknown_operation_is_refused(server, action):
    assert_error(call(server, action), "UnknownOperationException")


@pytest.mark.parametrize("target", ["RunTask", "AmazonSQS.ListQueues", f"{TARGET}", "AmazonEC2ContainerServiceV20991231.ListClusters"])
def test_a_target_of_another_service_is_refused(server, target):
    assert_error(call(server, None, target=target), "UnknownOperationException")


def test_a_request_without_a_target_is_refused(server):
    answer = call(server, "ListClusters", change=lambda headers: headers.pop("x-amz-target"))
    assert_error(answer, "UnknownOperationException", "X-Amz-Target")


def test_operations_not_served_yet_answer_a_typed_error_that_names_them(server):
    """Every action of the model is served or says by name that it is not."""
    unserved = []
    for action in server.ecs.meta.service_model.operation_names:
        answer = call(server, action, "{}")
        if answer.status == 400 and answer.code == "UnsupportedFeatureException":
            assert action in answer.message, answer
            unserved.append(action)
        else:
            assert answer.status in (200, 400), (action, answer)
            if answer.status == 400:
                assert answer.code not in ("UnknownOperationException", "ServerException"), (action, answer)
    assert not set(SERVED_LISTS) & set(unserved)


def test_conformance_lists_what_is_not_served(server):
    document = ROOT / "CONFORMANCE.md"
    if not document.exists():
        pytest.skip("there is no CONFORMANCE.md yet")
    text = document.read_text()
    for action in server.ecs.meta.service_model.operation_names:
        assert action in text, action


def test_a_body_over_one_mebibyte_is_refused(server):
    body = '{"cluster":"' + "a" * (1024 * 1024) + '"}'
    answer = call(server, "DescribeClusters", body)
    assert answer.status == 413
    assert answer.code == "RequestEntityTooLargeException"


def test_a_body_just_below_one_mebibyte_is_read(server):
    body = '{"surprise":"' + "a" * (1024 * 1024 - 100) + '"}'
    assert call(server, "ListClusters", body).status == 200


def test_other_paths_and_methods_answer_404_in_the_same_form(server):
    answer = exchange(server.endpoint, "GET", "/none/such")
    assert answer.status == 404
    assert answer.json["__type"] == "UnknownOperationException"
    assert exchange(server.endpoint, "GET", "/").status == 404


def test_health_needs_no_signature(server):
    assert http_text(server.endpoint + "/healthz").strip() == "ok"


# -- signatures ----------------------------------------------------------------------------------------------------------


def test_a_request_without_a_signature_is_refused(server):
    answer = call(server, "ListClusters", change=lambda headers: headers.pop("authorization"))
    assert_error(answer, "MissingAuthenticationTokenException", "Missing Authentication Token")


def test_an_unknown_access_key_is_refused(server):
    answer = call(server, "ListClusters", key=("AKIANOSUCHKEY0000000", server.credentials[1]))
    assert_error(answer, "UnrecognizedClientException", "security token")


def test_a_wrong_secret_is_refused(server):
    answer = call(server, "ListClusters", key=(server.credentials[0], "x" * 40))
    assert_error(answer, "InvalidSignatureException", "does not match")


def test_a_tampered_body_is_refused(server):
    answer = call(server, "CreateCluster", {"clusterName": "evil"}, sign_body=b'{"clusterName":"good"}')
    assert_error(answer, "InvalidSignatureException", "does not match")
    assert not any(arn.endswith("/evil") for arn in call(server, "ListClusters").json["clusterArns"])


def test_a_changed_target_is_refused(server):
    answer = call(server, "ListClusters", change=lambda headers: headers.update({"x-amz-target": f"{TARGET}.ListTasks"}))
    assert_error(answer, "InvalidSignatureException", "does not match")


@pytest.mark.parametrize(("offset", "word"), [(-3600, "expired"), (3600, "not yet current"), (-310, "expired"), (330, "not yet current")])
def test_a_clock_beyond_five_minutes_is_refused(server, offset, word):
    assert_error(call(server, "ListClusters", offset=offset), "InvalidSignatureException", f"Signature {word}", "5 min.")


@pytest.mark.parametrize("offset", [-240, 240])
def test_a_clock_within_five_minutes_is_accepted(server, offset):
    assert call(server, "ListClusters", offset=offset).status == 200


@pytest.mark.parametrize("header", ["nonsense", "AWS4-HMAC-SHA256 Credential=a", "Basic YTpi", "AWS4-HMAC-SHA256 "])
def test_a_garbled_authorization_header_is_incomplete(server, header):
    answer = call(server, "ListClusters", change=lambda headers: headers.update({"authorization": header}))
    assert_error(answer, "IncompleteSignatureException")


def test_a_date_of_another_day_than_the_scopes_is_refused(server):
    answer = call(server, "ListClusters", change=lambda headers: headers.update({"x-amz-date": "20200101" + stamp_of()[8:]}))
    assert_error(answer, "InvalidSignatureException", "Date in Credential scope")


def test_an_error_never_shows_the_secret(server):
    answer = call(server, "ListClusters", key=(server.credentials[0], "x" * 40))
    assert server.credentials[1] not in answer.body.decode()


def test_a_presigned_request_is_accepted(server):
    path, headers = presigned_path(server)
    answer = exchange(server.endpoint, path=path, headers=headers, body=b"{}")
    assert answer.status == 200, answer
    assert "clusterArns" in answer.json


def test_a_presigned_request_that_has_expired_is_refused(server):
    path, headers = presigned_path(server, expires=30, offset=-120)
    assert_error(exchange(server.endpoint, path=path, headers=headers, body=b"{}"), "InvalidSignatureException", "Signature expired")


def test_a_presigned_request_of_long_ago_is_good_until_it_expires(server):
    path, headers = presigned_path(server, expires=86400, offset=-7200)
    assert exchange(server.endpoint, path=path, headers=headers, body=b"{}").status == 200


def test_a_presigned_request_with_another_body_is_refused(server):
    path, headers = presigned_path(server)
    assert_error(exchange(server.endpoint, path=path, headers=headers, body=b'{"maxResults":1}'), "InvalidSignatureException")


def test_a_presigned_request_with_a_changed_query_is_refused(server):
    path, headers = presigned_path(server, expires=30)
    path = path.replace("X-Amz-Expires=30", "X-Amz-Expires=86400")
    assert_error(exchange(server.endpoint, path=path, headers=headers, body=b"{}"), "InvalidSignatureException", "does not match")


def test_a_presigned_request_beyond_a_week_is_refused(server):
    path, headers = presigned_path(server, expires=604801)
    answer = exchange(server.endpoint, path=path, headers=headers, body=b"{}")
    assert_error(answer, "IncompleteSignatureException", "X-Amz-Expires")


def test_sdk_signatures_of_all_signing_styles_are_accepted(server):
    """boto3 signs with other header sets than this suite's own signer."""
    assert "clusterArns" in server.client().list_clusters()
    assert "clusterArns" in server.client(user_agent_extra="a  b").list_clusters()


def test_keep_alive_connections_survive_errors(server):
    connection = http.client.HTTPConnection(urlsplit(server.endpoint).netloc, timeout=60)
    for _ in range(3):
        connection.request("POST", "/", body=b"{}", headers={"X-Amz-Target": f"{TARGET}.Nothing"})
        answer = connection.getresponse()
        assert answer.status == 400
        answer.read()
    connection.close()
