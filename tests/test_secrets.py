"""Secrets, environment files, registry logins and the awslogs driver: real containers, with moto as the AWS that keeps the values."""

import json
import logging

import boto3
import pytest
from moto.server import ThreadedMotoServer

from berth import Berth, until, with_images
from containers import IDLE, finished, output, running, shell, skip_unless_root
from ecs_calls import refused, register

skip_unless_root(__file__)
ROLE = "arn:aws:iam::000000000000:role/execution"


class Aws:
    """SSM, Secrets Manager and S3 on loopback."""

    def __init__(self):
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self.server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        self.server.start()
        host, port = self.server.get_host_and_port()
        self.endpoint = f"http://{host}:{port}"

    def client(self, service):
        return boto3.client(
            service, endpoint_url=self.endpoint, region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="b"
        )

    def secret(self, name, text):
        return self.client("secretsmanager").create_secret(Name=name, SecretString=text)["ARN"]

    def parameter(self, name, value):
        self.client("ssm").put_parameter(Name=name, Value=value, Type="SecureString")
        return name

    def file(self, key, text):
        s3 = self.client("s3")
        if not s3.list_buckets()["Buckets"]:
            s3.create_bucket(Bucket="settings")
        s3.put_object(Bucket="settings", Key=key, Body=text.encode())
        return {"type": "s3", "value": f"arn:aws:s3:::settings/{key}"}


@pytest.fixture(scope="module")
def aws():
    aws = Aws()
    yield aws
    aws.server.stop()


@pytest.fixture(scope="module")
def up(aws, shell_archive):
    """`berth up` that is told where the three services are."""
    names = ("SSM", "SECRETS_MANAGER", "S3")
    environment = {f"AWS_ENDPOINT_URL_{name}": aws.endpoint for name in names}
    with with_images(Berth("up", environment=environment), {"shell:1": shell_archive}) as berth:
        yield berth


def shown(up, container):
    """The container's environment."""
    task = finished(up, container, executionRoleArn=ROLE)
    assert task["containers"][0].get("exitCode") == 0, task
    return dict(line.split("=", 1) for line in output(up, task["taskArn"]).splitlines())


def test_secrets_and_files_are_in_the_environment_in_their_order_of_strength(up, aws):
    arn = aws.secret("db", json.dumps({"user": "u", "password": "p w", "port": 5432}))
    whole = aws.secret("plain", "all of it")
    environment = shown(
        up,
        shell(
            "env",
            environment=[{"name": "OWN", "value": "own"}, {"name": "HIDDEN", "value": "weaker than a secret"}],
            environmentFiles=[
                aws.file("one.env", "# a comment\nOWN=weaker\nFIRST=1\nBOTH=first\nAWS_REGION=mars-1\n"),
                aws.file("dir/two.env", "BOTH=second\nSECOND=2=two\n"),
            ],
            secrets=[
                {"name": "PASSWORD", "valueFrom": f"{arn}:password::"},
                {"name": "PORT", "valueFrom": f"{arn}:port:AWSCURRENT:"},
                {"name": "WHOLE", "valueFrom": whole},
                {"name": "TOKEN", "valueFrom": aws.parameter("/app/token", "t0ken")},
                {"name": "HIDDEN", "valueFrom": "arn:aws:ssm:us-east-1:000000000000:parameter/app/token"},
            ],
        ),
    )
    wanted = {
        "OWN": "own", "FIRST": "1", "BOTH": "first", "SECOND": "2=two", "AWS_REGION": "mars-1",
        "PASSWORD": "p w", "PORT": "5432", "WHOLE": "all of it", "TOKEN": "t0ken", "HIDDEN": "t0ken",
    }
    assert {name: environment.get(name) for name in wanted} == wanted
    assert "AWS_DEFAULT_REGION" not in environment, "a file has an opinion on the region"


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"secrets": [{"name": "A", "valueFrom": "/none"}]}, "invalid parameters: /none"),
        ({"secrets": [{"name": "A", "valueFrom": "arn:aws:secretsmanager:us-east-1:000000000000:secret:none-AbCdEf"}]}, "ResourceNotFoundException"),
        ({"environmentFiles": [{"type": "s3", "value": "arn:aws:s3:::nowhere/none.env"}]}, "bucket nowhere, error: s3"),
    ],
)
def test_what_cannot_be_fetched_stops_the_task_and_is_named(up, aws, members, words):
    task = finished(up, shell("env", **members), executionRoleArn=ROLE)
    assert task["stopCode"] == "TaskFailedToStart"
    assert task["stoppedReason"].startswith("ResourceInitializationError: unable to pull secrets or registry auth: "), task
    assert words in task["stoppedReason"]
    assert "exitCode" not in task["containers"][0]


def test_secret_options_are_options_of_the_log_driver(up, aws):
    """With at most 4096 bytes kept, the beginning of much output is gone; without the secret it would be here."""
    script = "echo the beginning; i=0; while [ $i -lt 2000 ]; do i=$((i+1)); echo line $i of many; done; echo the end"
    few = aws.secret("few", json.dumps({"size": "4096"}))
    options = [{"name": "max-size", "valueFrom": f"{few}:size::"}, {"name": "max-file", "valueFrom": aws.parameter("/log/files", "1")}]

    def kept(**more):
        task = finished(up, shell(script, logConfiguration={"logDriver": "json-file", **more}), executionRoleArn=ROLE)
        assert task["containers"][0].get("exitCode") == 0, task
        return output(up, task["taskArn"]).splitlines()

    whole, cut = kept(options={"max-size": "10m"}), kept(options={"max-size": "10m"}, secretOptions=options)
    assert (whole[0], whole[-1], len(whole)) == ("the beginning", "the end", 2002)
    assert cut[-1] == "the end" and "the beginning" not in cut and len(cut) < 1000, len(cut)
    (arn,) = up.ecs.list_container_instances(cluster="default")["containerInstanceArns"]
    (instance,) = up.ecs.describe_container_instances(cluster="default", containerInstances=[arn])["containerInstances"]
    announced = {attribute["name"] for attribute in instance["attributes"]}
    assert {f"ecs.capability.secrets.{kind}.bootstrap.log-driver" for kind in ("ssm", "asm")} <= announced
    assert not [name for name in announced if "firelens" in name or "gmsa" in name]


def test_a_secret_option_that_the_driver_does_not_take_is_named_without_its_value(up, aws):
    size = [{"name": "max-size", "valueFrom": aws.parameter("/log/size", "hunter-two")}]
    task = finished(up, shell("env", logConfiguration={"logDriver": "json-file", "secretOptions": size}), executionRoleArn=ROLE)
    assert task["stopCode"] == "TaskFailedToStart"
    assert task["stoppedReason"].startswith("CannotCreateContainerError: logConfiguration: log driver json-file"), task
    assert "max-size" in task["stoppedReason"] and "hunter-two" not in task["stoppedReason"]
    assert b"hunter-two" not in up.log.read_bytes()
    gone = [{"name": "max-size", "valueFrom": "/log/gone"}]
    task = finished(up, shell("env", logConfiguration={"logDriver": "json-file", "secretOptions": gone}), executionRoleArn=ROLE)
    assert task["stoppedReason"].startswith("ResourceInitializationError: ") and "/log/gone" in task["stoppedReason"], task


def test_a_json_key_that_is_not_there(up, aws):
    arn = aws.secret("keys", "{}")
    task = finished(up, shell("env", secrets=[{"name": "A", "valueFrom": f"{arn}:gone::"}]), executionRoleArn=ROLE)
    assert "did not contain json key gone" in task["stoppedReason"]


def test_secrets_need_an_execution_role(up):
    with refused("ClientException", "executionRoleArn"):
        register(up.ecs, containers=[shell("env", secrets=[{"name": "A", "valueFrom": "/none"}])])


def test_no_value_is_in_the_ledger_or_in_the_log(up, aws):
    aws.parameter("/app/loud", "s3cr3t-value-of-this-test")
    shown(up, shell("env", secrets=[{"name": "LOUD", "valueFrom": "/app/loud"}]))
    assert b"s3cr3t-value-of-this-test" not in up.log.read_bytes()
    kept = [path for path in (up.data_dir / "agent").rglob("*") if path.is_file() and "containers" not in path.parts]
    assert kept and all(b"s3cr3t-value-of-this-test" not in path.read_bytes() for path in kept)


def test_a_private_registry_with_its_password_in_a_secret(up, aws, new_berth, shell_archive):
    registry = new_berth("server").start()
    registry.run("image", "load", str(shell_archive), "private:1")
    image = f"{registry.endpoint.removeprefix('http://')}/private:1"
    key, secret = registry.credentials
    right = aws.secret("registry", json.dumps({"username": key, "password": secret}))
    wrong = aws.secret("no-registry", json.dumps({"username": key, "password": "wrong"}))
    done = finished(
        up, shell("echo it runs", image=image, repositoryCredentials={"credentialsParameter": right}), executionRoleArn=ROLE
    )
    assert output(up, done["taskArn"]) == "it runs\n"
    done = finished(
        up,
        shell("echo it runs", image=image.replace("private:1", "other:1"), repositoryCredentials={"credentialsParameter": wrong}),
        executionRoleArn=ROLE,
    )
    assert done["stoppedReason"].startswith("CannotPullContainerError: "), done


def test_without_an_endpoint_the_reason_says_which_is_missing(new_up):
    up = new_up()
    secrets = [{"name": "A", "valueFrom": "/none"}, {"name": "B", "valueFrom": "arn:aws:secretsmanager:us-east-1:000000000000:secret:x-AbCdEf"}]
    task = finished(up, shell("env", secrets=secrets), executionRoleArn=ROLE)
    assert "AWS_ENDPOINT_URL_SSM" in task["stoppedReason"] and "AWS_ENDPOINT_URL_SECRETS_MANAGER" in task["stoppedReason"], task


# -- awslogs --------------------------------------------------------------------------------------------------------------------


def awslogs(group, **options):
    options = {f"awslogs-{name.replace('_', '-')}": value for name, value in options.items()}
    return {"logDriver": "awslogs", "options": {"awslogs-group": group, "awslogs-region": "us-east-1", **options}}


def test_berth_logs_reads_a_group_and_a_stream_of_it(up):
    prefixed = awslogs("/ecs/group", stream_prefix="web")
    task = running(up, shell(f"echo of a; {IDLE}", name="a", logConfiguration=prefixed), shell("echo of b; " + IDLE, name="b", logConfiguration=prefixed))
    other = running(up, shell(f"echo elsewhere; {IDLE}", logConfiguration=awslogs("/ecs/other")))
    task_id, runtime_id = task["taskArn"].rsplit("/", 1)[1], other["containers"][0]["runtimeId"]

    def messages(*arguments):
        printed = up.run("logs", *arguments, "--output", "json").stdout
        return sorted(json.loads(line)["message"] for line in printed.splitlines())

    until("both to have written", lambda: messages("--group", "/ecs/group") == ["of a", "of b"])
    assert messages("--group", "/ecs/group", "--stream", f"web/a/{task_id}") == ["of a"]
    until("the other to have written", lambda: messages("--group", "/ecs/other", "--stream", runtime_id) == ["elsewhere"])
    failed = up.run("logs", "--group", "/ecs/none", check=False)
    assert failed.returncode == 1 and "'/ecs/none'" in failed.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"awslogs-region": "us-east-1"}, "awslogs-group"),
        ({"awslogs-group": "g", "awslogs-region": "us-east-1", "mode": "sometimes"}, "sometimes"),
    ],
)
def test_options_that_docker_refuses_are_refused(up, options, words):
    task = finished(up, shell("true", logConfiguration={"logDriver": "awslogs", "options": options}))
    assert task["stoppedReason"].startswith("CannotCreateContainerError: ") and words in task["stoppedReason"], task
