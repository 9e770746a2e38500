"""EFS volumes with the local-directory backend, and storage with a size: what a definition may say, and real containers that look from inside."""

import json

import pytest
from botocore.exceptions import ClientError

from berth import Berth, unique, with_images
from containers import finished, output, shell, skip_unless_root
from ecs_calls import register

MEMORY = {"name": "app", "image": "shell:1", "memory": 16}


def efs(**configuration):
    return [{"name": "data", "efsVolumeConfiguration": {"fileSystemId": "fs-1", **configuration}}]


def refusal(ecs, **members):
    with pytest.raises(ClientError) as raised:
        ecs.register_task_definition(family=unique("v"), containerDefinitions=[MEMORY], **members)
    assert raised.value.response["Error"]["Code"] == "ClientException"
    return raised.value.response["Error"]["Message"]


def attributes(ecs, **members):
    definition = ecs.register_task_definition(family=unique("v"), containerDefinitions=[MEMORY], **members)["taskDefinition"]
    return {attribute["name"] for attribute in definition["requiresAttributes"]}


# -- what may be said ------------------------------------------------------------------------------------------------------------


def test_what_ecs_refuses(server):
    point = {"accessPointId": "fsap-1"}
    said = refusal(server.ecs, volumes=efs(rootDirectory="/a", transitEncryption="ENABLED", authorizationConfig=point))
    assert said == 'When using an EFS access point, the root directory must either be set to "/" or be omitted.'
    assert "accessPointId" in refusal(server.ecs, volumes=efs(authorizationConfig=point))
    assert "(iam)" in refusal(server.ecs, volumes=efs(authorizationConfig={"iam": "ENABLED"}))
    assert "transitEncryptionPort" in refusal(server.ecs, volumes=efs(transitEncryptionPort=2049))
    for size in (20, 201):
        assert f"between 21 and 200, not {size}" in refusal(server.ecs, ephemeralStorage={"sizeInGiB": size})


def test_what_it_takes_of_an_instance(server):
    assert "ecs.capability.efs" in attributes(server.ecs, volumes=efs(rootDirectory="/a"))
    assert "ecs.capability.efsAuth" not in attributes(server.ecs, volumes=efs(authorizationConfig={"iam": "DISABLED"}))
    through = efs(transitEncryption="ENABLED", rootDirectory="/", authorizationConfig={"accessPointId": "fsap-1"})
    assert {"ecs.capability.efs", "ecs.capability.efsAuth"} <= attributes(server.ecs, volumes=through)
    assert "ecs.capability.berth.ephemeral-storage" in attributes(server.ecs, ephemeralStorage={"sizeInGiB": 21})


# -- real containers -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("efs")
    folder.chmod(0o755)
    (folder / "shared").mkdir()
    return folder


@pytest.fixture(scope="module")
def machine(files, shell_archive):
    skip_unless_root(__file__)
    point = {
        "AccessPointId": "fsap-1",
        "FileSystemId": "fs-1",
        "PosixUser": {"Uid": 1234, "Gid": 100},
        "RootDirectory": {"Path": "/apps/shop", "CreationInfo": {"OwnerUid": 1234, "OwnerGid": 100, "Permissions": "0750"}},
    }
    environment = {"BERTH_EFS": f"fs-1={files}", "BERTH_EFS_ACCESS_POINTS": json.dumps([point])}
    with with_images(Berth("up", environment=environment), {"shell:1": shell_archive}) as berth:
        yield berth


def mounted(script, **members):
    return shell(script, mountPoints=[{"sourceVolume": "data", "containerPath": "/data"}], **members)


def test_tasks_share_a_directory_and_it_outlives_them(machine, files):
    volume = efs(rootDirectory="/shared")
    first = finished(machine, mounted("echo kept > /data/file && id -u"), volumes=volume)
    assert first["containers"][0]["exitCode"] == 0, first
    assert (files / "shared/file").read_text() == "kept\n"
    second = finished(machine, mounted("cat /data/file; cd /data; echo *"), volumes=volume)
    assert output(machine, second["taskArn"]).splitlines() == ["kept", "file"]


def test_an_access_points_user_owns_what_is_written_whoever_writes(machine, files):
    volume = efs(transitEncryption="ENABLED", authorizationConfig={"accessPointId": "fsap-1", "iam": "DISABLED"})
    for user in ("0", "33:34"):
        task = finished(machine, mounted(f"echo hi > /data/{user.split(':')[0]}", user=user), volumes=volume)
        assert task["containers"][0]["exitCode"] == 0, (task, output(machine, task["taskArn"]))
        written = (files / "apps/shop" / user.split(":")[0]).stat()
        assert (written.st_uid, written.st_gid) == (1234, 100)
    made = (files / "apps/shop").stat()
    assert (made.st_uid, made.st_gid, made.st_mode & 0o7777) == (1234, 100, 0o750)


@pytest.mark.parametrize(
    ("volume", "named"),
    [
        (efs(fileSystemId="fs-2"), ["fs-2", "fileSystemId", "BERTH_EFS"]),
        (efs(rootDirectory="/none"), ["fs-1", "rootDirectory /none"]),
        (efs(transitEncryption="ENABLED", authorizationConfig={"accessPointId": "fsap-9"}), ["accessPointId", "fsap-9", "BERTH_EFS_ACCESS_POINTS"]),
        (efs(transitEncryption="ENABLED", authorizationConfig={"iam": "ENABLED"}), ["authorizationConfig.iam"]),
    ],
)
def test_what_cannot_be_had_is_named(machine, volume, named):
    task = finished(machine, mounted("true"), volumes=volume)
    said = " ".join([task.get("stoppedReason", ""), task["containers"][0].get("reason", "")])
    assert "ResourceInitializationError" in said and all(name in said for name in named), said
    assert "exitCode" not in task["containers"][0]


def test_mounts_are_found_after_a_restart_and_go_with_the_machine(machine, files):
    def mounts():
        with open("/proc/self/mountinfo") as lines:
            return [line for line in lines if str(machine.data_dir) in line and "/volumes/" in line]

    finished(machine, mounted("true"), volumes=efs(rootDirectory="/shared"))
    before = mounts()
    assert before
    machine.kill()
    machine.start()
    assert mounts() == before, "the agent that comes back has them"
    again = finished(machine, mounted("cat /data/file || true"), volumes=efs(rootDirectory="/shared"))
    assert again["containers"][0]["exitCode"] == 0


def test_storage_with_a_size_is_placed_where_it_can_be_kept(machine):
    definition = register(machine.ecs, containers=[shell("true")], ephemeralStorage={"sizeInGiB": 21})
    answer = machine.ecs.run_task(cluster="default", taskDefinition=definition)
    (instance,) = machine.ecs.describe_container_instances(
        cluster="default", containerInstances=machine.ecs.list_container_instances(cluster="default")["containerInstanceArns"]
    )["containerInstances"]
    announced = any(attribute["name"] == "ecs.capability.berth.ephemeral-storage" for attribute in instance["attributes"])
    if announced:
        assert len(answer["tasks"]) == 1
    else:
        assert not answer["tasks"] and answer["failures"][0]["reason"].startswith("ATTRIBUTE"), answer
