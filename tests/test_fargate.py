"""Launch type FARGATE, from RunTask to a running container, and services on FARGATE and FARGATE_SPOT; what is refused, and what is never shown."""

import json

import pytest

from berth import unique, until
from containers import IDLE, ended, skip_unless_root, shell, stop
from ecs_calls import describe, refused, register, run, service, tasks_of, texts, until_status, until_steady
from machine_agent import MachineAgent

skip_unless_root(__file__)
NO_CAPACITY = "Capacity is unavailable at this time. Please try again later or in a different availability zone"


@pytest.fixture
def ec2(up):
    return up.client("ec2")


@pytest.fixture
def subnets(ec2):
    """The default VPC's three subnets, by zone."""
    found = ec2.describe_subnets(Filters=[{"Name": "default-for-az", "Values": ["true"]}])["Subnets"]
    return {one["SubnetId"]: one["AvailabilityZone"] for one in found}


@pytest.fixture
def network(subnets):
    return {"awsvpcConfiguration": {"subnets": list(subnets), "assignPublicIp": "ENABLED"}}


@pytest.fixture
def shop(up):
    """A cluster without a container instance."""
    name = unique("shop")
    up.ecs.create_cluster(clusterName=name, capacityProviders=["FARGATE", "FARGATE_SPOT"])
    return name


def fargate(up, *containers, cpu="256", memory="512", **members):
    return register(
        up.ecs, containers=list(containers), networkMode="awsvpc", requiresCompatibilities=["FARGATE"], cpu=cpu, memory=memory, **members
    )


def details(task):
    [attachment] = task["attachments"]
    return {pair["name"]: pair["value"] for pair in attachment["details"]}


def machines(up):
    return json.loads(up.run("fargate", "list", "--output", "json").stdout)["machines"]


def instance(up):
    """The machine as the container instance that it is too."""
    [arn] = up.ecs.list_container_instances(cluster="default")["containerInstanceArns"]
    [found] = up.ecs.describe_container_instances(cluster="default", containerInstances=[arn])["containerInstances"]
    return found


def free(found):
    return {one["name"]: one["integerValue"] for one in found["remainingResources"] if one["name"] in ("CPU", "MEMORY")}


def test_a_task_runs_as_in_any_tutorial(up, shop, subnets, network, ec2):
    definition = fargate(up, shell(IDLE))
    command = ["ecs", "run-task", "--cluster", shop, "--launch-type", "FARGATE", "--task-definition", definition.rsplit("/", 1)[1]]
    command += ["--network-configuration", f"awsvpcConfiguration={{subnets=[{','.join(subnets)}],assignPublicIp=ENABLED}}"]
    before = instance(up)
    answer = json.loads(up.aws(*command))
    assert answer["failures"] == []
    [started] = answer["tasks"]
    task = until_status(up.ecs, shop, started["taskArn"], "RUNNING")
    for shown in (started, task):
        assert "containerInstanceArn" not in shown and "capacityProviderName" not in shown
        assert (shown["launchType"], shown["platformVersion"], shown["platformFamily"]) == ("FARGATE", "1.4.0", "Linux")
        assert (shown["cpu"], shown["memory"]) == ("256", "512")
        assert shown["ephemeralStorage"] == shown["fargateEphemeralStorage"] == {"sizeInGiB": 20}
        assert shown["availabilityZone"] == subnets[details(shown)["subnetId"]]
    assert task["connectivity"] == "CONNECTED"
    [interface] = ec2.describe_network_interfaces(NetworkInterfaceIds=[details(task)["networkInterfaceId"]])["NetworkInterfaces"]
    assert "InstanceId" not in interface["Attachment"], "nobody's instance has it"

    # It counts in its cluster, takes from the machine, and is no task of the machine as a container instance.
    [cluster] = up.ecs.describe_clusters(clusters=[shop], include=["STATISTICS"])["clusters"]
    assert (cluster["runningTasksCount"], cluster["registeredContainerInstancesCount"]) == (1, 0)
    assert {"name": "runningFargateTasksCount", "value": "1"} in cluster["statistics"]
    now = instance(up)
    assert now["runningTasksCount"] == before["runningTasksCount"]
    assert {name: value - free(now)[name] for name, value in free(before).items()} == {"CPU": 256, "MEMORY": 512}
    assert up.ecs.list_tasks(cluster="default", containerInstance=now["containerInstanceArn"])["taskArns"] == []
    assert tasks_of(up.ecs, shop, launchType="FARGATE") == [task["taskArn"]] and tasks_of(up.ecs, shop, launchType="EC2") == []
    assert "berth.fargate" not in [one["name"] for one in now["attributes"]]
    assert up.ecs.list_attributes(cluster="default", targetType="container-instance", attributeName="berth.fargate")["attributes"] == []
    [machine] = machines(up)
    assert (machine["containerInstanceOf"], machine["fargateTasks"], machine["freeCpu"]) == ("default", 1, free(now)["CPU"])
    assert task["taskArn"].rsplit("/", 1)[1][:8] in up.run("why", task["taskArn"]).stdout or "it runs" in up.run("why", task["taskArn"]).stdout

    last = stop(up, task["taskArn"], shop)
    assert (last["stopCode"], last["containers"][0]["exitCode"]) == ("UserInitiated", 0)
    until("what it took to be free", lambda: free(instance(up)) == free(before))


def test_a_service_spreads_over_zones_and_providers_and_an_interruption_is_replaced(up, shop, subnets, network):
    definition = fargate(up, shell(IDLE))
    name = unique("web")
    strategy = [{"capacityProvider": "FARGATE", "weight": 1, "base": 1}, {"capacityProvider": "FARGATE_SPOT", "weight": 1}]
    made = up.ecs.create_service(
        cluster=shop, serviceName=name, taskDefinition=definition, desiredCount=2, capacityProviderStrategy=strategy, networkConfiguration=network
    )["service"]
    assert (made["platformVersion"], made["platformFamily"]) == ("LATEST", "Linux")
    assert made["networkConfiguration"]["awsvpcConfiguration"]["assignPublicIp"] == "ENABLED"
    found = until_steady(up.ecs, shop, name)
    [deployment] = found["deployments"]
    assert (deployment["platformVersion"], deployment["platformFamily"]) == ("1.4.0", "Linux")
    assert [one["capacityProvider"] for one in deployment["capacityProviderStrategy"]] == ["FARGATE", "FARGATE_SPOT"]
    assert up.ecs.list_services(cluster=shop, launchType="FARGATE")["serviceArns"] == [found["serviceArn"]]
    assert up.ecs.list_services(cluster=shop, launchType="EC2")["serviceArns"] == []
    tasks = [describe(up.ecs, shop, arn) for arn in tasks_of(up.ecs, shop, serviceName=name)]
    assert sorted(task["capacityProviderName"] for task in tasks) == ["FARGATE", "FARGATE_SPOT"]
    assert len({task["availabilityZone"] for task in tasks}) == 2, "two tasks are in two zones"
    assert all(task["launchType"] == "FARGATE" and "containerInstanceArn" not in task for task in tasks)

    [plain, spot] = sorted(tasks, key=lambda task: task["capacityProviderName"])
    refusal = up.run("fargate", "interrupt", plain["taskArn"], check=False)
    assert refusal.returncode == 1 and "FARGATE_SPOT" in refusal.stderr
    said = json.loads(up.run("fargate", "interrupt", spot["taskArn"], "--output", "json").stdout)
    assert said == {"task": spot["taskArn"], "stoppedReason": "Your Spot Task was interrupted."}
    last = ended(up, spot["taskArn"], shop)
    assert (last["stopCode"], last["stoppedReason"]) == ("SpotInterruption", "Your Spot Task was interrupted.")
    assert last["containers"][0]["exitCode"] == 0, "it had its warning"
    until("another one in its place", lambda: len(tasks_of(up.ecs, shop, serviceName=name)) == 2)
    until_steady(up.ecs, shop, name)
    tasks = [describe(up.ecs, shop, arn) for arn in tasks_of(up.ecs, shop, serviceName=name)]
    assert sorted(task["capacityProviderName"] for task in tasks) == ["FARGATE", "FARGATE_SPOT"]

    grown = up.ecs.update_service(cluster=shop, service=name, desiredCount=3)["service"]
    assert grown["desiredCount"] == 3
    until_steady(up.ecs, shop, name)
    tasks = [describe(up.ecs, shop, arn) for arn in tasks_of(up.ecs, shop, serviceName=name)]
    assert sorted(task["availabilityZone"] for task in tasks) == sorted(subnets.values()), "one in each zone"
    up.ecs.delete_service(cluster=shop, service=name, force=True)
    for task in tasks:
        ended(up, task["taskArn"], shop)


def test_without_room_it_says_what_ecs_says_and_names_no_machine(up, shop, network):
    definition = fargate(up, shell(IDLE), cpu="16384", memory="122880")
    answer = up.ecs.run_task(cluster=shop, launchType="FARGATE", taskDefinition=definition, networkConfiguration=network)
    assert answer["tasks"] == []
    [failure] = answer["failures"]
    assert failure["reason"] == NO_CAPACITY and "arn" not in failure
    name = unique("big")
    up.ecs.create_service(
        cluster=shop, serviceName=name, taskDefinition=definition, desiredCount=1, launchType="FARGATE", networkConfiguration=network
    )
    text = f"(service {name}) was unable to place a task. Reason: {NO_CAPACITY}."
    until("the event", lambda: any(one.startswith(text) for one in texts(service(up.ecs, shop, name))))
    assert NO_CAPACITY in up.run("why", name, "--cluster", shop).stdout
    plan = up.run("plan", "update-service", "--cluster", shop, "--service", name, "--desired-count", "2", check=False)
    assert NO_CAPACITY in plan.stdout
    up.ecs.delete_service(cluster=shop, service=name, force=True)


def test_a_drained_machine_takes_nothing(up, shop, network):
    [machine] = machines(up)
    definition = fargate(up, shell(IDLE))
    said = json.loads(up.run("fargate", "drain", machine["machine"], "--output", "json").stdout)
    assert said["status"] == "DRAINING"
    try:
        answer = up.ecs.run_task(cluster=shop, launchType="FARGATE", taskDefinition=definition, networkConfiguration=network)
        assert [one["reason"] for one in answer["failures"]] == [NO_CAPACITY]
    finally:
        up.run("fargate", "activate", machine["machine"])
    [arn] = run(up.ecs, shop, definition, launchType="FARGATE", networkConfiguration=network)
    until_status(up.ecs, shop, arn, "RUNNING")
    stop(up, arn, shop)


def test_a_machine_of_nobodys_serves_every_cluster_and_is_never_shown(new_berth, both_images):
    from berth import with_images

    with with_images(new_berth("server"), both_images) as berth:
        agent = MachineAgent(berth, BERTH_FARGATE="true").start()
        try:
            until("the machine to be there", lambda: [one for one in machines(berth) if one["agentConnected"]])
            [machine] = machines(berth)
            assert machine["containerInstanceOf"] is None
            ec2 = berth.client("ec2")
            subnets = [one["SubnetId"] for one in ec2.describe_subnets()["Subnets"]]
            network = {"awsvpcConfiguration": {"subnets": subnets}}
            definition = fargate(berth, shell(IDLE))
            arns = {}
            for name in ("one", "two"):
                berth.ecs.create_cluster(clusterName=name)
                [arns[name]] = run(berth.ecs, name, definition, launchType="FARGATE", networkConfiguration=network)
            for name, arn in arns.items():
                until_status(berth.ecs, name, arn, "RUNNING")
                assert berth.ecs.list_container_instances(cluster=name)["containerInstanceArns"] == []
            assert ec2.describe_instances()["Reservations"] == []
            with refused("InvalidParameterException"):
                berth.ecs.list_container_instances(cluster="berth:fargate")
            with refused("InvalidParameterException"):
                berth.ecs.run_task(cluster="berth:fargate", taskDefinition=definition, launchType="FARGATE", networkConfiguration=network)
            # Both servers and agents may come and go; a restart of the server loses nothing.
            berth.restart()
            until("the agent to be back", lambda: [one for one in machines(berth) if one["agentConnected"]])
            for name, arn in arns.items():
                assert describe(berth.ecs, name, arn)["lastStatus"] == "RUNNING"
                stop(berth, arn, name)
        finally:
            agent.end()


def test_what_does_not_go_with_fargate_is_refused(up, shop, network, subnets):
    good = fargate(up, shell(IDLE))
    plain = register(up.ecs, containers=[shell(IDLE)], networkMode="awsvpc")

    def start(definition=good, **members):
        return up.ecs.run_task(cluster=shop, taskDefinition=definition, **{"launchType": "FARGATE", "networkConfiguration": network, **members})

    with refused("InvalidParameterException", "Task definition does not support launch_type FARGATE."):
        start(plain)
    with refused("InvalidParameterException", "Network Configuration must be provided"):
        up.ecs.run_task(cluster=shop, taskDefinition=good, launchType="FARGATE")
    with refused("PlatformUnknownException", "platformVersion"):
        start(platformVersion="1.3.0")
    with refused("InvalidParameterException", "platform version must be null"):
        up.ecs.run_task(cluster=shop, taskDefinition=good, launchType="EC2", networkConfiguration=network, platformVersion="LATEST")
    with refused("InvalidParameterException", "Placement constraints"):
        start(placementConstraints=[{"type": "distinctInstance"}])
    with refused("InvalidParameterException", "Placement strategies"):
        start(placementStrategy=[{"type": "random"}])
    with refused("ClientException", "256 CPU, 8192 memory"):
        start(overrides={"memory": "8192"})
    with refused("InvalidParameterException", "not associated with the cluster"):
        up.ecs.run_task(
            cluster="default", taskDefinition=good, networkConfiguration=network, capacityProviderStrategy=[{"capacityProvider": "FARGATE"}]
        )
    with refused("InvalidParameterException", "daemon", "FARGATE"):
        up.ecs.create_service(
            cluster=shop, serviceName=unique("d"), taskDefinition=good, launchType="FARGATE", schedulingStrategy="DAEMON", networkConfiguration=network
        )
    with refused("InvalidParameterException", "berth.fargate"):
        target = instance(up)["containerInstanceArn"]
        up.ecs.put_attributes(cluster="default", attributes=[{"name": "berth.fargate", "value": "false", "targetId": target}])
    with refused("ClientException", "privileged"):
        fargate(up, shell(IDLE, privileged=True))


def test_a_service_moves_from_ec2_to_fargate(up, shop, network, subnets):
    definition = fargate(up, shell(IDLE))
    name = unique("mover")
    inner = {"awsvpcConfiguration": {"subnets": list(subnets)}}
    up.ecs.put_cluster_capacity_providers(cluster="default", capacityProviders=["FARGATE", "FARGATE_SPOT"], defaultCapacityProviderStrategy=[])
    up.ecs.create_service(
        cluster="default", serviceName=name, taskDefinition=definition, desiredCount=1, launchType="EC2", networkConfiguration=inner
    )
    found = until_steady(up.ecs, "default", name)
    assert (found["launchType"], found.get("platformVersion")) == ("EC2", None)
    strategy = [{"capacityProvider": "FARGATE_SPOT", "weight": 1}]
    up.ecs.update_service(cluster="default", service=name, capacityProviderStrategy=strategy, forceNewDeployment=True, platformVersion="1.4.0")
    found = until_steady(up.ecs, "default", name)
    assert (found["platformVersion"], found["deployments"][0]["platformVersion"]) == ("1.4.0", "1.4.0")
    [arn] = tasks_of(up.ecs, "default", serviceName=name)
    task = describe(up.ecs, "default", arn)
    assert (task["launchType"], task["capacityProviderName"]) == ("FARGATE", "FARGATE_SPOT")
    up.ecs.delete_service(cluster="default", service=name, force=True)
    ended(up, arn, "default")
