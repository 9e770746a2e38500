"""Capacity providers: both kinds and the built-in ones, clusters' providers and default strategies, and tasks that follow a strategy."""

import json

import pytest

from berth import unique, until
from ecs_calls import container, describe, refused, register, service, tasks_of, texts, until_steady

MEMBER = "berth.capacity-provider"
ROLE = "arn:aws:iam::000000000000:role/infrastructure"
PROFILE = "arn:aws:iam::000000000000:instance-profile/instances"


def group(ecs, name=None, scaling=None, **members):
    """Makes a provider of an Auto Scaling group; gives its name."""
    name = name or unique("p")
    provider = {"autoScalingGroupArn": unique("asg"), **({"managedScaling": scaling} if scaling else {})}
    ecs.create_capacity_provider(name=name, autoScalingGroupProvider=provider, **members)
    return name


def instances(**template):
    return {
        "infrastructureRoleArn": ROLE,
        "instanceLaunchTemplate": {
            "ec2InstanceProfileArn": PROFILE,
            "networkConfiguration": {"subnets": ["subnet-1"], "securityGroups": ["sg-1"]},
            **template,
        },
    }


def managed(ecs, cluster, name=None, **members):
    name = name or unique("m")
    ecs.create_capacity_provider(name=name, cluster=cluster, managedInstancesProvider=instances(), **members)
    return name


def one(ecs, name, **members):
    answer = ecs.describe_capacity_providers(capacityProviders=[name], include=["TAGS"], **members)
    assert not answer["failures"], answer
    return answer["capacityProviders"][0]


def associate(ecs, cluster, *names, default=()):
    return ecs.put_cluster_capacity_providers(
        cluster=cluster, capacityProviders=list(names), defaultCapacityProviderStrategy=list(default)
    )["cluster"]


def item(name, weight=0, base=0):
    return {"capacityProvider": name, "weight": weight, "base": base}


def member(agents, cluster, provider, **settings):
    return agents(cluster, attributes=[{"name": MEMBER, "value": provider}], **settings)


# -- the five actions --------------------------------------------------------------------------------------------------------


def test_a_group_is_made_shown_changed_and_deleted(ecs):
    name = unique("p")
    arn = f"arn:aws:autoscaling:us-east-1:000000000000:autoScalingGroup:1:autoScalingGroupName/{name}"
    made = ecs.create_capacity_provider(
        name=name, autoScalingGroupProvider={"autoScalingGroupArn": arn}, tags=[{"key": "team", "value": "core"}]
    )["capacityProvider"]
    assert made["capacityProviderArn"] == f"arn:aws:ecs:us-east-1:000000000000:capacity-provider/{name}"
    assert (made["status"], made["updateStatus"], made["type"]) == ("ACTIVE", "CREATE_COMPLETE", "EC2_AUTOSCALING")
    scaling = {
        "status": "DISABLED", "targetCapacity": 100, "minimumScalingStepSize": 1, "maximumScalingStepSize": 10000, "instanceWarmupPeriod": 300,
    }
    assert made["autoScalingGroupProvider"] == {
        "autoScalingGroupArn": arn, "managedScaling": scaling, "managedTerminationProtection": "DISABLED", "managedDraining": "DISABLED",
    }
    assert one(ecs, name) == made and one(ecs, made["capacityProviderArn"]) == made
    assert ecs.describe_capacity_providers(capacityProviders=[name])["capacityProviders"][0]["tags"] == []
    change = {"managedScaling": {"status": "ENABLED", "targetCapacity": 80}, "managedTerminationProtection": "ENABLED"}
    changed = ecs.update_capacity_provider(name=name, autoScalingGroupProvider=change)["capacityProvider"]
    assert changed["updateStatus"] == "UPDATE_COMPLETE"
    assert changed["autoScalingGroupProvider"]["managedScaling"] == {**scaling, "status": "ENABLED", "targetCapacity": 80}
    assert one(ecs, name) == changed
    gone = ecs.delete_capacity_provider(capacityProvider=made["capacityProviderArn"])["capacityProvider"]
    assert (gone["status"], gone["updateStatus"]) == ("INACTIVE", "DELETE_COMPLETE")
    assert one(ecs, name)["status"] == "INACTIVE"
    listed = [found["name"] for found in ecs.describe_capacity_providers()["capacityProviders"]]
    assert name not in listed
    for call in (lambda: ecs.delete_capacity_provider(capacityProvider=name), lambda: ecs.update_capacity_provider(name=name, autoScalingGroupProvider={})):
        with refused("ClientException", "does not exist"):
            call()
    ecs.create_capacity_provider(name=name, autoScalingGroupProvider={"autoScalingGroupArn": arn})
    assert one(ecs, name)["status"] == "ACTIVE" and one(ecs, name)["tags"] == []


def test_managed_instances_belong_to_their_cluster(ecs, cluster):
    name = unique("m")
    made = ecs.create_capacity_provider(
        name=name,
        cluster=cluster,
        managedInstancesProvider={**instances(), "infrastructureOptimization": {"scaleInAfter": -1}},
    )["capacityProvider"]
    assert (made["type"], made["status"]) == ("MANAGED_INSTANCES", "ACTIVE")
    assert made["cluster"].endswith(f":cluster/{cluster}")
    provider = made["managedInstancesProvider"]
    assert provider["propagateTags"] == "NONE" and provider["infrastructureOptimization"] == {"scaleInAfter": -1}
    template = provider["instanceLaunchTemplate"]
    assert (template["monitoring"], template["capacityOptionType"]) == ("BASIC", "ON_DEMAND")
    shown = ecs.describe_clusters(clusters=[cluster])["clusters"][0]
    assert shown["capacityProviders"] == [name]
    assert [found["name"] for found in ecs.describe_capacity_providers(cluster=cluster)["capacityProviders"]] == [name]
    assert associate(ecs, cluster, "FARGATE")["capacityProviders"] == ["FARGATE", name], "it cannot leave its cluster"
    change = {"infrastructureRoleArn": ROLE + "2", "instanceLaunchTemplate": {"monitoring": "DETAILED"}}
    changed = ecs.update_capacity_provider(name=name, cluster=cluster, managedInstancesProvider=change)["capacityProvider"]
    template = changed["managedInstancesProvider"]["instanceLaunchTemplate"]
    assert (template["monitoring"], template["ec2InstanceProfileArn"]) == ("DETAILED", PROFILE)
    with refused("ClusterContainsCapacityProviderException"):
        ecs.delete_cluster(cluster=cluster)
    other = unique("c")
    ecs.create_cluster(clusterName=other)
    with refused("InvalidParameterException", "not found"):
        associate(ecs, other, name)
    for cluster_named, code, word in [(None, "InvalidParameterException", "cluster"), (other, "ClientException", "not exist"), ("nobody", "ClusterNotFoundException", "")]:
        where = {"cluster": cluster_named} if cluster_named else {}
        with refused(code, word):
            ecs.delete_capacity_provider(capacityProvider=name, **where)
        with refused(code, word):
            ecs.update_capacity_provider(name=name, managedInstancesProvider=change, **where)
    assert ecs.delete_capacity_provider(capacityProvider=name, cluster=cluster)["capacityProvider"]["status"] == "INACTIVE"
    assert ecs.describe_clusters(clusters=[cluster])["clusters"][0]["capacityProviders"] == ["FARGATE"]
    assert ecs.delete_cluster(cluster=cluster)["cluster"]["capacityProviders"] == []


def test_the_built_in_ones_are_there_and_stay(ecs):
    answer = ecs.describe_capacity_providers(capacityProviders=["FARGATE", "FARGATE_SPOT", "nobody"])
    assert [(found["name"], found["status"], found["type"]) for found in answer["capacityProviders"]] == [
        ("FARGATE", "ACTIVE", "FARGATE"), ("FARGATE_SPOT", "ACTIVE", "FARGATE_SPOT"),
    ]
    assert [(failure["arn"].rsplit("/")[-1], failure["reason"]) for failure in answer["failures"]] == [("nobody", "MISSING")]
    with refused("ClientException", "FARGATE"):
        ecs.delete_capacity_provider(capacityProvider="FARGATE")
    with refused("ClientException", "FARGATE_SPOT"):
        ecs.update_capacity_provider(name="FARGATE_SPOT", autoScalingGroupProvider={})


def test_pages_cover_all_once(ecs):
    made = {group(ecs) for _ in range(12)}
    seen, token, sizes = [], {}, []
    while True:
        answer = ecs.describe_capacity_providers(**token)
        sizes.append(len(answer["capacityProviders"]))
        seen += [found["name"] for found in answer["capacityProviders"]]
        if "nextToken" not in answer:
            break
        token = {"nextToken": answer["nextToken"]}
    assert made | {"FARGATE", "FARGATE_SPOT"} <= set(seen) and len(seen) == len(set(seen)) and max(sizes) == 10
    named = [*sorted(made, reverse=True)[:3], "nobody"]
    first = ecs.describe_capacity_providers(capacityProviders=named, maxResults=2)
    assert [found["name"] for found in first["capacityProviders"]] == named[:2] and not first["failures"]
    rest = ecs.describe_capacity_providers(capacityProviders=named, maxResults=2, nextToken=first["nextToken"])
    assert [found["name"] for found in rest["capacityProviders"]] == named[2:3] and len(rest["failures"]) == 1 and "nextToken" not in rest
    for max_results in (0, 11):
        with refused("InvalidParameterException", "maxResults"):
            ecs.describe_capacity_providers(maxResults=max_results)
    with refused("InvalidParameterException", "nextToken"):
        ecs.describe_capacity_providers(nextToken="x")
    with refused("InvalidParameterException", "capacityProviders"):
        ecs.describe_capacity_providers(capacityProviders=[f"p{number}" for number in range(101)])
    with refused("ClusterNotFoundException"):
        ecs.describe_capacity_providers(cluster="nobody")


def test_tags_of_a_provider(ecs):
    name = group(ecs, tags=[{"key": "a", "value": "1"}])
    arn = one(ecs, name)["capacityProviderArn"]
    ecs.tag_resource(resourceArn=arn, tags=[{"key": "b", "value": "2"}])
    ecs.untag_resource(resourceArn=arn, tagKeys=["a"])
    assert ecs.list_tags_for_resource(resourceArn=arn)["tags"] == [{"key": "b", "value": "2"}] == one(ecs, name)["tags"]
    ecs.delete_capacity_provider(capacityProvider=name)
    with refused("ResourceNotFoundException"):
        ecs.tag_resource(resourceArn=arn, tags=[{"key": "b", "value": "2"}])


@pytest.mark.parametrize(
    "request_, word",
    [
        ({"name": "aws-p"}, "name"),
        ({"name": "ECSp"}, "name"),
        ({"name": "fargate"}, "name"),
        ({"name": "a b"}, "name"),
        ({"name": "x" * 256}, "name"),
        ({"autoScalingGroupProvider": None}, "autoScalingGroupProvider"),
        ({"managedInstancesProvider": instances()}, "Exactly one"),
        ({"cluster": "default"}, "cluster"),
        ({"autoScalingGroupProvider": {"autoScalingGroupArn": ""}}, "autoScalingGroupArn"),
        ({"autoScalingGroupProvider": {"autoScalingGroupArn": "g", "managedTerminationProtection": "ENABLED"}}, "managedTerminationProtection"),
        ({"autoScalingGroupProvider": {"autoScalingGroupArn": "g", "managedScaling": {"minimumScalingStepSize": 2, "maximumScalingStepSize": 1}}}, "ScalingStepSize"),
        ({"autoScalingGroupProvider": {"autoScalingGroupArn": "g", "managedScaling": {"targetCapacity": 101}}}, "targetCapacity"),
        ({"autoScalingGroupProvider": {"autoScalingGroupArn": "g", "managedDraining": "MAYBE"}}, "managedDraining"),
        ({"tags": [{"key": "aws:x", "value": "1"}]}, "aws:"),
    ],
)
def test_a_bad_group_is_refused_by_name(ecs, request_, word):
    request = {"name": unique("p"), "autoScalingGroupProvider": {"autoScalingGroupArn": unique("g")}, **request_}
    with refused("InvalidParameterException", word):
        ecs.create_capacity_provider(**{name: value for name, value in request.items() if value is not None})


@pytest.mark.parametrize(
    "provider, word",
    [
        ({**instances(), "infrastructureRoleArn": "role"}, "infrastructureRoleArn"),
        ({**instances(), "infrastructureOptimization": {"scaleInAfter": 3601}}, "scaleInAfter"),
        ({**instances(), "propagateTags": "ALL"}, "propagateTags"),
        (instances(networkConfiguration={"subnets": []}), "subnets"),
        (instances(ec2InstanceProfileArn="p"), "ec2InstanceProfileArn"),
        (instances(nitroEnclavesEnabled=True, localStorageConfiguration={"useLocalStorage": True}), "nitroEnclavesEnabled"),
        (instances(capacityReservations={"reservationPreference": "RESERVATIONS_ONLY"}), "capacityReservations"),
        (instances(instanceRequirements={"vCpuCount": {"min": 4, "max": 2}, "memoryMiB": {"min": 1}}), "vCpuCount"),
        (instances(instanceRequirements={"vCpuCount": {"min": 1}, "memoryMiB": {"min": -1}}), "memoryMiB"),
        (
            instances(instanceRequirements={"vCpuCount": {"min": 1}, "memoryMiB": {"min": 1}, "allowedInstanceTypes": ["m5.*"], "excludedInstanceTypes": ["m6.*"]}),
            "allowedInstanceTypes",
        ),
    ],
)
def test_bad_managed_instances_are_refused_by_name(ecs, cluster, provider, word):
    with refused("InvalidParameterException", word):
        ecs.create_capacity_provider(name=unique("m"), cluster=cluster, managedInstancesProvider=provider)
    assert ecs.describe_clusters(clusters=[cluster])["clusters"][0]["capacityProviders"] == []


def test_names_and_groups_are_taken_once(ecs, cluster):
    name, asg = unique("p"), unique("asg")
    ecs.create_capacity_provider(name=name, autoScalingGroupProvider={"autoScalingGroupArn": asg})
    with refused("ClientException", "already exists"):
        group(ecs, name)
    with refused("ClientException", "already being used"):
        ecs.create_capacity_provider(name=unique("p"), autoScalingGroupProvider={"autoScalingGroupArn": asg})
    with refused("InvalidParameterException", "cluster"):
        ecs.create_capacity_provider(name=unique("m"), managedInstancesProvider=instances())
    with refused("ClusterNotFoundException"):
        ecs.create_capacity_provider(name=unique("m"), cluster="nobody", managedInstancesProvider=instances())
    with refused("InvalidParameterException", "autoScalingGroupProvider"):
        ecs.update_capacity_provider(name=name, managedInstancesProvider={"infrastructureRoleArn": ROLE, "instanceLaunchTemplate": {}})
    for _ in range(20):
        managed(ecs, cluster)
    with refused("LimitExceededException", "20"):
        managed(ecs, cluster)


# -- clusters ----------------------------------------------------------------------------------------------------------------


def test_a_clusters_providers_are_replaced_as_a_whole(ecs, cluster):
    first, second = group(ecs), group(ecs, scaling={"status": "ENABLED"})
    put = associate(ecs, cluster, first, "FARGATE", default=[item(first, 1)])
    assert (put["capacityProviders"], put["attachmentsStatus"]) == ([first, "FARGATE"], "UPDATE_COMPLETE")
    assert put["defaultCapacityProviderStrategy"] == [item(first, 1)]
    with refused("ClientException", cluster):
        ecs.delete_capacity_provider(capacityProvider=first)
    associate(ecs, cluster, second, default=[item(second, weight=3, base=2)])
    shown = ecs.describe_clusters(clusters=[cluster], include=["ATTACHMENTS"])["clusters"][0]
    assert shown["capacityProviders"] == [second] and shown["attachmentsStatus"] == "UPDATE_COMPLETE"
    (attachment,) = shown["attachments"]
    assert attachment["type"] == "as_policy" and {"name": "capacityProviderName", "value": second} in attachment["details"]
    plain = ecs.describe_clusters(clusters=[cluster])["clusters"][0]
    assert plain["attachments"] == [] and "attachmentsStatus" not in plain
    ecs.delete_capacity_provider(capacityProvider=first)
    empty = associate(ecs, cluster)
    assert (empty["capacityProviders"], empty["defaultCapacityProviderStrategy"]) == ([], [])
    with refused("InvalidParameterException", "not found"):
        associate(ecs, cluster, first)


def test_a_cluster_is_made_with_providers(ecs):
    first, second, name = group(ecs), group(ecs), unique("c")
    strategy = [item(first, 1, 1), item(second, 2)]
    for broken, word in [
        ({"capacityProviders": ["nobody"]}, "not found"),
        ({"capacityProviders": [first], "defaultCapacityProviderStrategy": strategy}, "not associated"),
    ]:
        with refused("InvalidParameterException", word):
            ecs.create_cluster(clusterName=name, **broken)
    made = ecs.create_cluster(clusterName=name, capacityProviders=[first, second], defaultCapacityProviderStrategy=strategy)["cluster"]
    assert (made["capacityProviders"], made["defaultCapacityProviderStrategy"]) == ([first, second], strategy)
    assert ecs.delete_cluster(cluster=name)["cluster"]["capacityProviders"] == [], "deleting the cluster lets them go"
    ecs.delete_capacity_provider(capacityProvider=first)


def test_one_with_managed_scaling_serves_one_cluster(ecs, cluster):
    scaled, free, other = group(ecs, scaling={"status": "ENABLED"}), group(ecs), unique("c")
    ecs.create_cluster(clusterName=other)
    associate(ecs, cluster, scaled, free)
    associate(ecs, other, free)
    with refused("InvalidParameterException", scaled, cluster):
        associate(ecs, other, scaled)
    with refused("InvalidParameterException", "managedScaling"):
        ecs.update_capacity_provider(name=free, autoScalingGroupProvider={"managedScaling": {"status": "ENABLED"}})


def test_a_bad_default_strategy_changes_nothing(ecs, cluster):
    first, second = group(ecs), group(ecs)
    associate(ecs, cluster, first, second, "FARGATE")
    cases = [
        ([item(first, 1), item("FARGATE", 1)], "mix"),
        ([item(first, 1, 1), item(second, 1, 1)], "base"),
        ([item(first, 1), item(first, 2)], "more than once"),
        ([item("nobody", 1)], "not associated"),
        ([item(first, 1001)], "weight"),
        ([item(first, 1, 100001)], "base"),
        ([item(f"p{number}", 1) for number in range(21)], "20"),
    ]
    for strategy, word in cases:
        with refused("InvalidParameterException", word):
            associate(ecs, cluster, first, second, "FARGATE", default=strategy)
    with refused("InvalidParameterException", "more than once"):
        associate(ecs, cluster, first, first)
    with refused("InvalidParameterException", "20"):
        associate(ecs, cluster, *[group(ecs) for _ in range(21)])
    with refused("ClusterNotFoundException"):
        associate(ecs, "nobody", first)
    shown = ecs.describe_clusters(clusters=[cluster])["clusters"][0]
    assert (shown["capacityProviders"], shown["defaultCapacityProviderStrategy"]) == ([first, second, "FARGATE"], [])


# -- tasks and services ------------------------------------------------------------------------------------------------------


def test_tasks_go_to_their_providers_instances_by_base_and_weight(ecs, cluster, agents):
    spare, main = group(ecs), group(ecs)
    associate(ecs, cluster, spare, main)
    agents(cluster)
    of_main, of_spare = member(agents, cluster, main), member(agents, cluster, spare)
    shown = ecs.describe_container_instances(cluster=cluster, containerInstances=[of_main.arn])["containerInstances"][0]
    assert shown["capacityProviderName"] == main
    strategy = [item(main, weight=1, base=4), item(spare, weight=1)]
    answer = ecs.run_task(cluster=cluster, taskDefinition=register(ecs), count=10, capacityProviderStrategy=strategy)
    assert not answer["failures"]
    where = [(task["capacityProviderName"], task["containerInstanceArn"]) for task in answer["tasks"]]
    assert where.count((main, of_main.arn)) == 7 and where.count((spare, of_spare.arn)) == 3
    found = describe(ecs, cluster, answer["tasks"][0]["taskArn"])
    assert (found["capacityProviderName"], found["launchType"]) == (answer["tasks"][0]["capacityProviderName"], "EC2")


def test_an_instance_joins_a_provider_later(ecs, cluster, agents):
    name = group(ecs)
    associate(ecs, cluster, name)
    agent, definition = agents(cluster), register(ecs)
    strategy = [item(name, 1)]
    answer = ecs.run_task(cluster=cluster, taskDefinition=definition, capacityProviderStrategy=strategy)
    assert answer["tasks"] == []
    (failure,) = answer["failures"]
    assert failure["arn"].endswith(f":capacity-provider/{name}") and failure["reason"] == "EMPTY CAPACITY PROVIDER"
    assert ecs.run_task(cluster=cluster, taskDefinition=definition, launchType="EC2")["tasks"], "a launch type knows no providers"
    ecs.put_attributes(cluster=cluster, attributes=[{"name": MEMBER, "value": name, "targetId": agent.arn}])

    def placed():
        return ecs.run_task(cluster=cluster, taskDefinition=definition, capacityProviderStrategy=strategy)["tasks"]

    (task,) = until("the instance to belong to the provider", placed)
    assert task["containerInstanceArn"] == agent.arn


def test_a_provider_without_room_gives_its_share_to_no_other(ecs, cluster, agents):
    full, free = group(ecs), group(ecs)
    associate(ecs, cluster, full, free)
    small, _ = member(agents, cluster, full, cpu=15), member(agents, cluster, free)
    strategy = [item(full, 1), item(free, 1)]
    answer = ecs.run_task(cluster=cluster, taskDefinition=register(ecs), count=6, capacityProviderStrategy=strategy)
    names = [task["capacityProviderName"] for task in answer["tasks"]]
    assert (names.count(full), names.count(free)) == (1, 3)
    assert [(failure["arn"], failure["reason"]) for failure in answer["failures"]] == [(small.arn, "RESOURCE:CPU")]


def test_the_clusters_default_counts_without_launch_type_and_strategy(ecs, cluster, agents):
    name = group(ecs)
    associate(ecs, cluster, name, "FARGATE", default=[item(name, 1)])
    plain, inside = agents(cluster), member(agents, cluster, name)
    definition = register(ecs)
    (task,) = ecs.run_task(cluster=cluster, taskDefinition=definition)["tasks"]
    assert (task["capacityProviderName"], task["containerInstanceArn"]) == (name, inside.arn)
    (task,) = ecs.run_task(cluster=cluster, taskDefinition=definition, launchType="EC2")["tasks"]
    assert "capacityProviderName" not in task
    (task,) = ecs.start_task(cluster=cluster, taskDefinition=definition, containerInstances=[plain.arn])["tasks"]
    assert "capacityProviderName" not in task
    made = ecs.create_service(cluster=cluster, serviceName="web", taskDefinition=definition, desiredCount=1)["service"]
    assert made["capacityProviderStrategy"] == [item(name, 1)] and "launchType" not in made
    assert made["deployments"][0]["capacityProviderStrategy"] == [item(name, 1)] and "launchType" not in made["deployments"][0]
    associate(ecs, cluster, name, "FARGATE", default=[item("FARGATE", 1)])
    with refused("InvalidParameterException", "FARGATE"):
        ecs.run_task(cluster=cluster, taskDefinition=definition)


def test_a_bad_strategy_is_refused_everywhere(ecs, cluster, agents):
    first, second = group(ecs), group(ecs)
    associate(ecs, cluster, first, second, "FARGATE", "FARGATE_SPOT")
    agents(cluster)
    definition = register(ecs)
    ecs.create_service(cluster=cluster, serviceName="web", taskDefinition=definition, desiredCount=0)
    cases = [
        ([item(first), item(second)], "weight"),
        ([item("nobody", 1)], "not associated"),
        ([item(first, 1), item("FARGATE", 1)], "mix"),
        ([item("FARGATE_SPOT", 1)], "does not support launch_type FARGATE"),
        ([item(first, 1, 1), item(second, 1, 1)], "base"),
        ([item(first, 1), item(first, 1)], "more than once"),
    ]
    for strategy, word in cases:
        with refused("InvalidParameterException", word):
            ecs.run_task(cluster=cluster, taskDefinition=definition, capacityProviderStrategy=strategy)
        with refused("InvalidParameterException", word):
            ecs.create_service(cluster=cluster, serviceName="no", taskDefinition=definition, desiredCount=1, capacityProviderStrategy=strategy)
        with refused("InvalidParameterException", word):
            ecs.update_service(cluster=cluster, service="web", capacityProviderStrategy=strategy, forceNewDeployment=True)
    both = {"launchType": "EC2", "capacityProviderStrategy": [item(first, 1)]}
    with refused("InvalidParameterException", "launch type"):
        ecs.run_task(cluster=cluster, taskDefinition=definition, **both)
    with refused("InvalidParameterException", "launch type"):
        ecs.create_service(cluster=cluster, serviceName="no", taskDefinition=definition, desiredCount=1, **both)
    assert tasks_of(ecs, cluster) == [] and len(ecs.list_services(cluster=cluster)["serviceArns"]) == 1


def test_a_service_keeps_its_strategy_and_holds_its_providers(ecs, cluster, agents):
    first, second = group(ecs), group(ecs)
    associate(ecs, cluster, first, second)
    member(agents, cluster, first)
    definition = register(ecs, containers=[container()])
    strategy = [item(first, weight=1, base=1), item(second, weight=1)]
    made = ecs.create_service(
        cluster=cluster, serviceName="web", taskDefinition=definition, desiredCount=3, capacityProviderStrategy=strategy
    )["service"]
    assert made["capacityProviderStrategy"] == strategy and "launchType" not in made
    until("what fits to run", lambda: service(ecs, cluster, "web")["runningCount"] == 2)
    event = until("the event", lambda: [text for text in texts(service(ecs, cluster, "web")) if "unable to place" in text])
    assert second in event[0]
    with refused("ResourceInUseException", "in use"):
        associate(ecs, cluster, first)
    with refused("ResourceInUseException", "in use"):
        associate(ecs, cluster)
    joined = member(agents, cluster, second)
    until_steady(ecs, cluster, "web")
    arns = tasks_of(ecs, cluster, serviceName="web")
    names = [describe(ecs, cluster, arn)["capacityProviderName"] for arn in arns]
    assert sorted(names) == sorted([first, first, second])
    with refused("InvalidParameterException", "forceNewDeployment"):
        ecs.update_service(cluster=cluster, service="web", capacityProviderStrategy=[item(second, 1)])
    ecs.update_service(cluster=cluster, service="web", capacityProviderStrategy=[item(second, 1)], forceNewDeployment=True)
    found = until_steady(ecs, cluster, "web")
    assert found["capacityProviderStrategy"] == [item(second, 1)]
    on = {describe(ecs, cluster, arn)["containerInstanceArn"] for arn in tasks_of(ecs, cluster, serviceName="web")}
    assert on == {joined.arn}
    back = ecs.update_service(cluster=cluster, service="web", capacityProviderStrategy=[], forceNewDeployment=True)["service"]
    assert back["launchType"] == "EC2" and "capacityProviderStrategy" not in back
    assert back["deployments"][1]["capacityProviderStrategy"] == [item(second, 1)], "an older deployment shows its own"
    until_steady(ecs, cluster, "web")
    until("no task to use a provider", lambda: not any("capacityProviderName" in describe(ecs, cluster, arn) for arn in tasks_of(ecs, cluster)))
    until("the providers to be free", lambda: free_of_providers(ecs, cluster))


def test_a_rollback_brings_the_strategy_back(ecs, cluster, agents):
    first, empty = group(ecs), group(ecs)
    associate(ecs, cluster, first, empty)
    member(agents, cluster, first)
    definition = register(ecs, containers=[container()])
    ecs.create_service(
        cluster=cluster, serviceName="web", taskDefinition=definition, desiredCount=1, capacityProviderStrategy=[item(first, 1)]
    )
    until_steady(ecs, cluster, "web")
    changed = ecs.update_service(cluster=cluster, service="web", capacityProviderStrategy=[item(empty, 1)], forceNewDeployment=True)["service"]
    arn = changed["currentServiceDeployment"]

    def shown():
        [one] = ecs.describe_service_deployments(serviceDeploymentArns=[arn])["serviceDeployments"]
        return one

    revision = shown()["targetServiceRevision"]["arn"]
    [described] = ecs.describe_service_revisions(serviceRevisionArns=[revision])["serviceRevisions"]
    assert described["capacityProviderStrategy"] == [item(empty, 1)] and "launchType" not in described
    until("it to begin", lambda: shown()["status"] == "IN_PROGRESS")
    ecs.stop_service_deployment(serviceDeploymentArn=arn)
    until("the way back", lambda: shown()["status"] == "ROLLBACK_SUCCESSFUL")
    assert service(ecs, cluster, "web")["capacityProviderStrategy"] == [item(first, 1)]


def test_why_names_the_empty_provider(server, ecs, cluster, agents):
    full, empty, name = group(ecs), group(ecs), unique("s")
    associate(ecs, cluster, full, empty)
    small, _ = member(agents, cluster, full, cpu=15), agents(cluster)
    ecs.create_service(
        cluster=cluster, serviceName=name, taskDefinition=register(ecs), desiredCount=4, capacityProviderStrategy=[item(full, 1), item(empty, 1)]
    )
    until("what fits to run", lambda: service(ecs, cluster, name)["runningCount"] == 1)
    reasons = json.loads(server.run("why", name, "--output", "json").stdout)["reasons"]
    found = {reason.get("rule"): reason for reason in reasons if reason["code"] == "PLACEMENT"}
    assert set(found) == {"EMPTY CAPACITY PROVIDER", "RESOURCE:CPU"}
    assert empty in found["EMPTY CAPACITY PROVIDER"]["text"] and found["RESOURCE:CPU"]["arns"] == [small.arn]


def free_of_providers(ecs, cluster):
    try:
        return associate(ecs, cluster)["capacityProviders"] == []
    except ecs.exceptions.ResourceInUseException:
        return False


def test_a_running_task_holds_its_provider(ecs, cluster, agents):
    name = group(ecs)
    associate(ecs, cluster, name)
    member(agents, cluster, name)
    (task,) = ecs.run_task(cluster=cluster, taskDefinition=register(ecs), capacityProviderStrategy=[item(name)])["tasks"]
    with refused("ResourceInUseException"):
        associate(ecs, cluster)
    ecs.stop_task(cluster=cluster, task=task["taskArn"])
    until("the provider to be free", lambda: free_of_providers(ecs, cluster))


def test_a_restart_keeps_everything(new_berth):
    berth = new_berth().start()
    ecs = berth.ecs
    ecs.create_cluster(clusterName="c")
    name, own = group(ecs, tags=[{"key": "k", "value": "v"}]), managed(ecs, "c")
    gone = group(ecs)
    ecs.delete_capacity_provider(capacityProvider=gone)
    associate(ecs, "c", name, default=[item(name, 1, 2)])
    ecs.create_service(cluster="c", serviceName="web", taskDefinition=register(ecs), desiredCount=1)
    before = [one(ecs, each) for each in (name, own, gone)], ecs.describe_clusters(clusters=["c"], include=["ATTACHMENTS"])["clusters"]
    strategy = service(ecs, "c", "web")["capacityProviderStrategy"]
    berth.kill()
    ecs = berth.start().ecs
    after = [one(ecs, each) for each in (name, own, gone)], ecs.describe_clusters(clusters=["c"], include=["ATTACHMENTS"])["clusters"]
    assert before == after and service(ecs, "c", "web")["capacityProviderStrategy"] == strategy == [item(name, 1, 2)]
    with refused("ResourceInUseException"):
        associate(ecs, "c")
