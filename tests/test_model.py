"""Every action against AWS's model: what it must take, and every way to get a request wrong."""

import re

import pytest
from botocore import xform_name
from botocore.session import get_session

from berth import Berth, http_text, unique
from ecs_calls import container, refused, register, run
from http_call import call
from model_requests import MODEL, OPERATIONS, broken, errors_of, fullest, smallest

ROLE = "arn:aws:iam::000000000000:role/ecs"


@pytest.fixture(scope="module")
def alone():
    """A server that nobody else writes to."""
    berth = Berth("server")
    try:
        yield berth.start()
    finally:
        berth.end()


def commits(berth):
    return int(re.search(r"^berth_store_commits_total (\d+)", http_text(f"{berth.endpoint}/metrics"), re.M)[1])


@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_member_alone_and_all_at_once_is_read(alone, operation):
    for request in (smallest(operation), fullest(operation)):
        answer = call(alone, operation, request)
        if answer.status != 200:
            assert answer.status == 400, (request, answer)
            assert answer.code in errors_of(operation) | {"UnsupportedFeatureException"}, (request, answer)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_fault_is_named_and_changes_nothing(alone, operation):
    before = commits(alone)
    for request, code, member in broken(operation):
        answer = call(alone, operation, request)
        assert (answer.status, answer.code) == (400, code), (member, request, answer)
        assert member in answer.message, (request, answer)
    assert commits(alone) == before


def test_the_ways_to_be_wrong_are_many():
    """A generator that yields nothing would let every test above pass."""
    faults = {operation: [code for _, code, _ in broken(operation)] for operation in OPERATIONS}
    assert all(codes for operation, codes in faults.items() if MODEL.operation_model(operation).input_shape.members)
    assert sum(map(len, faults.values())) > 2000
    assert faults["RegisterTaskDefinition"].count("InvalidParameterException") > 50


PAGED = sorted(operation for operation in OPERATIONS if "nextToken" in MODEL.operation_model(operation).input_shape.members)


@pytest.mark.parametrize("operation", PAGED)
def test_garbled_tokens_and_sizes_out_of_bounds_are_refused(alone, operation):
    alone.loose.create_cluster(clusterName="cluster")
    most = 10 if operation == "ListAccountSettings" else 100
    for member, value in [("nextToken", "garbled"), ("nextToken", "x" * 5000), ("maxResults", 0), ("maxResults", most + 1), ("maxResults", -1)]:
        answer = call(alone, operation, {**smallest(operation), "cluster": "cluster", member: value})
        # Some look for what they list from first.
        is_found = not answer.json.get("__type", "").endswith("NotFoundException")
        if is_found and member in MODEL.operation_model(operation).input_shape.members:
            assert (answer.status, answer.code) == (400, "InvalidParameterException"), (member, value, answer)
            assert member in answer.message, answer


def test_every_paginator_shows_everything_once_one_at_a_time(server, cluster, agents):
    """All lists that can have something in them, each walked item by item and compared with the whole."""
    ecs = server.ecs
    joined = [agents(cluster) for _ in range(3)]
    family = unique("paged")
    revisions = [register(ecs, f"{family}-{letter}", [container()]) for letter in "aab"]
    tasks = run(ecs, cluster, revisions[0], count=3)
    for name in ("one", "two", "three"):
        ecs.create_service(cluster=cluster, serviceName=name, taskDefinition=revisions[0], desiredCount=0)
    ecs.put_attributes(cluster=cluster, attributes=[{"name": "paged", "targetId": agent.arn} for agent in joined])
    ecs.put_account_setting(name="awsvpcTrunking", value="disabled", principalArn=account_user(ecs))
    ecs.put_account_setting(name="fargateFIPSMode", value="disabled", principalArn=account_user(ecs))
    gateways = [unique("paged") for _ in range(3)]
    for name in gateways:
        ecs.create_gateway(name=name, infrastructureRoleArn=ROLE, configuration={"hostSharedAlb": {}}, deletionProtection=False)
        ecs.associate_gateway_with_cluster(gateway=name, cluster=cluster)
    # Nothing is ever in these two.
    empty = {"list_gateway_routes": {}, "list_services_by_namespace": {"namespace": "none"}}
    try:
        lists = {
            "list_account_settings": ({"principalArn": account_user(ecs)}, 2),
            "list_attributes": ({"cluster": cluster, "targetType": "container-instance", "attributeName": "paged"}, 3),
            "list_clusters": ({}, 1),
            "list_container_instances": ({"cluster": cluster}, 3),
            "list_services": ({"cluster": cluster}, 3),
            "list_task_definition_families": ({"familyPrefix": family}, 2),
            "list_task_definitions": ({"familyPrefix": f"{family}-a"}, 2),
            "list_tasks": ({"cluster": cluster}, len(tasks)),
            "list_gateways": ({}, 3),
            "list_gateway_cluster_associations": ({"cluster": cluster}, 3),
        }
        every = get_session().get_paginator_model("ecs")._paginator_config  # noqa: SLF001 - it has no list of names
        assert set(lists) | set(empty) == {xform_name(name) for name in every}, "a paginator that nobody walks"
        assert [page["gatewayRoutes"] for page in ecs.get_paginator("list_gateway_routes").paginate()] == [[]]
        with refused("NamespaceNotFoundException"):
            list(ecs.get_paginator("list_services_by_namespace").paginate(**empty["list_services_by_namespace"]))
        for method, (arguments, least) in lists.items():
            paginator = ecs.get_paginator(method)
            key = paginator.result_keys[0].expression

            def walk(**paging):
                pages = list(paginator.paginate(PaginationConfig=paging, **arguments))
                assert all(len(page[key]) <= paging.get("PageSize", 100) for page in pages), method
                return [repr(item) for page in pages for item in page[key]]

            whole, one_by_one = walk(), walk(PageSize=1)
            assert len(whole) >= least, method
            assert len(set(one_by_one)) == len(one_by_one), f"{method} shows something twice"
            assert one_by_one == whole, method
    finally:
        for name in gateways:
            ecs.disassociate_gateway_from_cluster(gateway=name, cluster=cluster)
        for name in ("awsvpcTrunking", "fargateFIPSMode"):
            ecs.delete_account_setting(name=name, principalArn=account_user(ecs))


def account_user(ecs):
    root = ecs.list_account_settings(effectiveSettings=True)["settings"][0]["principalArn"]
    return root.removesuffix("root") + "user/paged"
