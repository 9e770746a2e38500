"""Clusters: made, described, listed, deleted."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from botocore.exceptions import ClientError

from berth import unique
from ecs_calls import container, refused, register, run, until_status

ARN = "arn:aws:ecs:us-east-1:000000000000"

NO_NAMESPACE = "arn:aws:servicediscovery:us-east-1:000000000000:namespace/ns-0000000000000000"


def test_the_cluster_default_is_there_from_the_start(ecs):
    answer = ecs.describe_clusters()
    assert answer["failures"] == []
    assert [c["clusterName"] for c in answer["clusters"]] == ["default"]
    assert answer["clusters"][0]["status"] == "ACTIVE"


def test_a_new_cluster_is_active_and_empty(ecs):
    name = unique("c")
    made = ecs.create_cluster(clusterName=name)["cluster"]
    assert made["clusterArn"] == f"{ARN}:cluster/{name}"
    assert (made["clusterName"], made["status"]) == (name, "ACTIVE")
    counts = ("registeredContainerInstancesCount", "runningTasksCount", "pendingTasksCount", "activeServicesCount")
    assert [made[count] for count in counts] == [0, 0, 0, 0]
    assert made["settings"] == [{"name": "containerInsights", "value": "disabled"}]
    assert (made["statistics"], made["tags"], made["capacityProviders"], made["defaultCapacityProviderStrategy"]) == ([], [], [], [])


def test_create_cluster_is_idempotent_by_name_and_keeps_the_first_tags(ecs):
    name = unique("c")
    first = ecs.create_cluster(clusterName=name, tags=[{"key": "a", "value": "1"}])["cluster"]
    again = ecs.create_cluster(clusterName=name, tags=[{"key": "b", "value": "2"}])["cluster"]
    assert again["clusterArn"] == first["clusterArn"]
    assert again["tags"] == first["tags"] == [{"key": "a", "value": "1"}]


def test_create_cluster_without_a_name_means_default(ecs):
    assert ecs.create_cluster()["cluster"]["clusterName"] == "default"


@pytest.mark.parametrize("name", ["a b", "a/b", "ü", "x" * 256, "a:b", "a.b"])
def test_a_cluster_name_with_illegal_characters_is_refused(ecs, name):
    with refused("InvalidParameterException", "clusterName"):
        ecs.create_cluster(clusterName=name)


def test_a_cluster_name_of_255_characters_is_accepted(ecs):
    name = (unique("c") + "x" * 255)[:255]
    assert ecs.create_cluster(clusterName=name)["cluster"]["clusterName"] == name
    ecs.delete_cluster(cluster=name)


def test_settings_and_configuration_are_echoed_only_where_included(ecs):
    name = unique("c")
    configuration = {"executeCommandConfiguration": {"logging": "NONE"}}
    ecs.create_cluster(clusterName=name, settings=[{"name": "containerInsights", "value": "enabled"}], configuration=configuration)
    plain = ecs.describe_clusters(clusters=[name])["clusters"][0]
    assert plain["settings"] == []
    assert "configuration" not in plain
    full = ecs.describe_clusters(clusters=[name], include=["SETTINGS", "CONFIGURATIONS", "STATISTICS", "TAGS"])["clusters"][0]
    assert full["settings"] == [{"name": "containerInsights", "value": "enabled"}]
    assert full["configuration"] == configuration
    assert {"name": "runningEC2TasksCount", "value": "0"} in full["statistics"]


def test_clusters_are_found_by_name_and_by_arn(ecs, cluster):
    found = ecs.describe_clusters(clusters=[cluster, f"{ARN}:cluster/{cluster}"])
    assert [c["clusterName"] for c in found["clusters"]] == [cluster, cluster]


def test_unknown_clusters_are_failures_with_reason_missing(ecs, cluster):
    answer = ecs.describe_clusters(clusters=["none-such", cluster])
    assert [c["clusterName"] for c in answer["clusters"]] == [cluster]
    assert answer["failures"] == [{"arn": f"{ARN}:cluster/none-such", "reason": "MISSING"}]


@pytest.mark.parametrize(
    "arn",
    [
        "arn:aws:ecs:eu-west-1:000000000000:cluster/default",
        "arn:aws:ecs:us-east-1:111111111111:cluster/default",
        "arn:aws:ecs:us-east-1:000000000000:task/default",
        "arn:aws:s3:::bucket",
        "arn:",
    ],
)
def test_foreign_cluster_arns_are_refused(ecs, arn):
    with refused("InvalidParameterException"):
        ecs.describe_clusters(clusters=[arn])


def test_describing_more_than_a_hundred_clusters_is_refused(ecs):
    with refused("InvalidParameterException", "100"):
        ecs.describe_clusters(clusters=["default"] * 101)


def test_a_deleted_cluster_is_inactive_and_not_listed_and_its_name_is_free(ecs):
    name = unique("c")
    ecs.create_cluster(clusterName=name)
    assert ecs.delete_cluster(cluster=name)["cluster"]["status"] == "INACTIVE"
    assert ecs.describe_clusters(clusters=[name])["clusters"][0]["status"] == "INACTIVE"
    assert not any(arn.endswith(f"/{name}") for arn in ecs.list_clusters()["clusterArns"])
    with refused("ClusterNotFoundException"):
        ecs.list_tasks(cluster=name)
    with refused("ClusterNotFoundException"):
        ecs.delete_cluster(cluster=name)
    assert ecs.create_cluster(clusterName=name)["cluster"]["status"] == "ACTIVE"


def test_deleting_an_unknown_cluster_is_cluster_not_found(ecs):
    with refused("ClusterNotFoundException", "Cluster not found."):
        ecs.delete_cluster(cluster="none-such")


def test_a_cluster_with_instances_services_or_tasks_cannot_be_deleted(ecs, cluster, agents):
    definition = register(ecs)
    ecs.create_service(cluster=cluster, serviceName="web", taskDefinition=definition, desiredCount=0)
    with refused("ClusterContainsServicesException"):
        ecs.delete_cluster(cluster=cluster)
    agent = agents(cluster)
    with refused("ClusterContainsContainerInstancesException"):
        ecs.delete_cluster(cluster=cluster)
    ecs.delete_service(cluster=cluster, service="web")
    (task,) = run(ecs, cluster, definition)
    until_status(ecs, cluster, task, "RUNNING")
    with refused("ClusterContainsContainerInstancesException"):
        ecs.delete_cluster(cluster=cluster)
    ecs.deregister_container_instance(cluster=cluster, containerInstance=agent.arn, force=True)
    assert ecs.delete_cluster(cluster=cluster)["cluster"]["status"] == "INACTIVE"


def test_counts_of_a_cluster_follow_its_tasks_services_and_instances(ecs, cluster, agents):
    agents(cluster)
    held = agents(cluster, runs=False)
    definition = register(ecs)
    ecs.create_service(cluster=cluster, serviceName="web", taskDefinition=definition, desiredCount=0)
    (first,) = run(ecs, cluster, definition)
    started = ecs.start_task(cluster=cluster, taskDefinition=definition, containerInstances=[held.arn])
    assert started["failures"] == []
    if ecs.describe_tasks(cluster=cluster, tasks=[first])["tasks"][0]["containerInstanceArn"] != held.arn:
        until_status(ecs, cluster, first, "RUNNING")
        expected = (1, 1)
    else:
        expected = (0, 2)
    found = ecs.describe_clusters(clusters=[cluster], include=["STATISTICS"])["clusters"][0]
    assert (found["runningTasksCount"], found["pendingTasksCount"]) == expected
    assert (found["registeredContainerInstancesCount"], found["activeServicesCount"]) == (2, 1)
    statistics = {entry["name"]: entry["value"] for entry in found["statistics"]}
    assert statistics["pendingEC2TasksCount"] == str(expected[1])
    assert statistics["activeEC2ServiceCount"] == "1"


@pytest.mark.parametrize(
    ("action", "members"),
    [
        ("run_task", {"taskDefinition": "a"}),
        ("start_task", {"taskDefinition": "a", "containerInstances": ["0" * 32]}),
        ("stop_task", {"task": "0" * 32}),
        ("describe_tasks", {"tasks": ["0" * 32]}),
        ("list_tasks", {}),
        ("create_service", {"serviceName": "a", "taskDefinition": "a", "desiredCount": 1}),
        ("update_service", {"service": "a"}),
        ("delete_service", {"service": "a"}),
        ("describe_services", {"services": ["a"]}),
        ("list_services", {}),
        ("list_container_instances", {}),
        ("describe_container_instances", {"containerInstances": ["0" * 32]}),
        ("deregister_container_instance", {"containerInstance": "0" * 32}),
        ("register_container_instance", {}),
        ("submit_task_state_change", {"task": "0" * 32, "status": "RUNNING"}),
    ],
)
def test_an_unknown_cluster_is_cluster_not_found_in_every_action(ecs, action, members):
    with refused("ClusterNotFoundException", "Cluster not found."):
        getattr(ecs, action)(cluster="none-such", **members)


def test_a_cluster_can_have_fargate_as_a_record(ecs):
    made = ecs.create_cluster(clusterName=unique("c"), capacityProviders=["FARGATE"])["cluster"]
    assert (made["capacityProviders"], made["attachmentsStatus"]) == (["FARGATE"], "UPDATE_COMPLETE")


def test_a_definition_is_not_bound_to_a_cluster(ecs, cluster, agents):
    agents(cluster)
    definition = register(ecs, containers=[container(essential=True)])
    assert run(ecs, cluster, definition)


def test_a_clusters_settings_and_configuration_can_be_changed(ecs, cluster):
    answer = ecs.update_cluster_settings(cluster=cluster, settings=[{"name": "containerInsights", "value": "enhanced"}])["cluster"]
    assert answer["settings"] == [{"name": "containerInsights", "value": "enhanced"}]
    configuration = {"executeCommandConfiguration": {"logging": "DEFAULT"}}
    answer = ecs.update_cluster(cluster=cluster, configuration=configuration)["cluster"]
    assert answer["configuration"] == configuration
    shown = ecs.describe_clusters(clusters=[cluster], include=["SETTINGS", "CONFIGURATIONS"])["clusters"][0]
    assert shown["settings"] == [{"name": "containerInsights", "value": "enhanced"}], "what was not named stays"
    assert shown["configuration"] == configuration
    assert ecs.update_cluster(cluster=cluster, settings=[{"name": "containerInsights", "value": "disabled"}])["cluster"]["configuration"] == configuration


def test_bad_changes_of_a_cluster_change_nothing(ecs, cluster):
    for call in (ecs.update_cluster, ecs.update_cluster_settings):
        with refused("InvalidParameterException", "containerInsights", "settings.value"):
            call(cluster=cluster, settings=[{"name": "containerInsights", "value": "sometimes"}])
        with refused("ClusterNotFoundException"):
            call(cluster="nobody", settings=[{"name": "containerInsights", "value": "enabled"}])
    with refused("InvalidParameterException", "settings"):
        ecs.update_cluster_settings(cluster=cluster, settings=[])
    with refused("NamespaceNotFoundException", "serviceConnectDefaults.namespace"):
        ecs.update_cluster(cluster=cluster, serviceConnectDefaults={"namespace": NO_NAMESPACE})
    for name in ("a b", "a/b", "<a>", "n" * 1025):
        with refused("InvalidParameterException", "serviceConnectDefaults.namespace"):
            ecs.update_cluster(cluster=cluster, serviceConnectDefaults={"namespace": name})
    assert ecs.describe_clusters(clusters=[cluster], include=["SETTINGS"])["clusters"][0]["settings"] == [
        {"name": "containerInsights", "value": "disabled"}
    ]


def test_a_default_namespace_is_found_or_made_and_taken_away(server, ecs):
    names = server.client("servicediscovery")
    name, cluster = unique("connected"), unique("cluster")
    shown = ecs.create_cluster(clusterName=cluster, serviceConnectDefaults={"namespace": name})["cluster"]
    [made] = [one for one in names.list_namespaces()["Namespaces"] if one["Name"] == name]
    assert made["Type"] == "HTTP" and shown["serviceConnectDefaults"] == {"namespace": made["Arn"]}
    assert names.list_tags_for_resource(ResourceARN=made["Arn"])["Tags"] == [{"Key": "AmazonECSManaged", "Value": "true"}]
    assert ecs.describe_clusters(clusters=[cluster])["clusters"][0]["serviceConnectDefaults"] == {"namespace": made["Arn"]}
    assert "serviceConnectDefaults" not in ecs.update_cluster(cluster=cluster, serviceConnectDefaults={"namespace": ""})["cluster"]
    assert names.get_namespace(Id=made["Id"])["Namespace"]["Name"] == name, "it stays in Cloud Map"
    for text in (name, made["Arn"]):
        again = ecs.update_cluster(cluster=cluster, serviceConnectDefaults={"namespace": text})["cluster"]
        assert again["serviceConnectDefaults"] == {"namespace": made["Arn"]}
    assert ecs.update_cluster(cluster=cluster, settings=[{"name": "containerInsights", "value": "enabled"}])["cluster"] == {
        **again, "settings": [{"name": "containerInsights", "value": "enabled"}]
    }, "what was not named stays"
    assert len([one for one in names.list_namespaces()["Namespaces"] if one["Name"] == name]) == 1


def test_services_are_listed_by_the_namespace_they_are_registered_in(server, ecs):
    for text in ("internal", NO_NAMESPACE, "arn:aws:servicediscovery:us-east-1:000000000000:service/x"):
        with refused("NamespaceNotFoundException"):
            ecs.list_services_by_namespace(namespace=text)
    names, name, family = server.client("servicediscovery"), unique("ns"), unique("family")
    names.create_http_namespace(Name=name)
    [space] = [one for one in names.list_namespaces()["Namespaces"] if one["Name"] == name]
    assert ecs.list_services_by_namespace(namespace=name)["serviceArns"] == []
    registry = names.create_service(Name="web", NamespaceId=space["Id"])["Service"]["Arn"]
    container = {"name": "web", "image": "none:1", "memory": 16, "portMappings": [{"containerPort": 80}]}
    ecs.register_task_definition(family=family, containerDefinitions=[container])
    registries = [{"registryArn": registry, "containerName": "web", "containerPort": 80}]
    arns = []
    for cluster in (unique("one"), unique("two")):
        ecs.create_cluster(clusterName=cluster)
        for service, given in (("in", registries), ("out", [])):
            made = ecs.create_service(cluster=cluster, serviceName=service, taskDefinition=family, desiredCount=0, serviceRegistries=given)
            if given:
                arns.append(made["service"]["serviceArn"])
    for text in (name, space["Arn"]):
        assert ecs.list_services_by_namespace(namespace=text)["serviceArns"] == sorted(arns)
        pages = ecs.get_paginator("list_services_by_namespace").paginate(namespace=text, PaginationConfig={"PageSize": 1})
        assert [page["serviceArns"] for page in pages] == [[arn] for arn in sorted(arns)]


def test_a_service_and_the_end_of_its_cluster_never_both_come_true(ecs):
    """Whoever commits first holds: a cluster that is deleted has no service, and one with a service is not deleted."""
    definition = register(ecs)
    with ThreadPoolExecutor(2) as pool:
        for _ in range(150):
            name = unique("c")
            ecs.create_cluster(clusterName=name)
            made = pool.submit(outcome, ecs.create_service, cluster=name, serviceName="web", taskDefinition=definition, desiredCount=0)
            ended = pool.submit(outcome, ecs.delete_cluster, cluster=name)
            made, ended = made.result(), ended.result()
            assert (made, ended) in (
                ("done", "ClusterContainsServicesException"),
                ("ClusterNotFoundException", "done"),
            ), f"the service: {made}, the cluster's end: {ended}"


def outcome(call, **arguments):
    try:
        call(**arguments)
        return "done"
    except ClientError as error:
        return error.response["Error"]["Code"]
