"""examples/bootcamp as its README says it, with stand-ins made of this machine's busybox; and `berth register` of files as people have them."""

import json
import os
import re
import shutil
import subprocess

import pytest

from awsvpc import fetched, inside, interfaces, network, running, subnet_of
from berth import ROOT, Berth, binary, until, with_images
from cloud_map_calls import cloud_map
from containers import IDLE, shell, skip_unless_root, stop
from ecs_calls import tasks_of
from images import pack_shell

skip_unless_root(__file__)
DEFAULT = "default"
EXAMPLE = ROOT / "examples/bootcamp"
TOOLS = ("httpd", "wget", "mkdir", "chmod")


@pytest.fixture(scope="module")
def up(tmp_path_factory, shell_archive):
    busybox = shutil.which("busybox")
    if not busybox or "httpd" not in subprocess.run([busybox, "--list"], capture_output=True, text=True, check=False).stdout:
        pytest.skip("SKIPPED (needs busybox with httpd): the stand-ins of examples/bootcamp; `make test` as root fetches Debian's busybox-static")
    folder = tmp_path_factory.mktemp("busybox")
    for tool in TOOLS:
        (folder / tool).symlink_to(busybox)
    path = os.environ["PATH"]
    os.environ["PATH"] = f"{folder}:{path}"
    try:
        archive = pack_shell(folder / "busybox.tar", {tool: f"bin/{tool}" for tool in TOOLS})
    finally:
        os.environ["PATH"] = path
    with with_images(Berth("up"), {"busybox:1.36": archive, "shell:1": shell_archive}) as berth:
        yield berth


@pytest.fixture
def folder(tmp_path):
    """The example's files, with the place of the database's script in a folder of the test's own."""
    copy = tmp_path / "bootcamp"
    shutil.copytree(EXAMPLE, copy)
    home = tmp_path / "home"
    for name in ("README.md", "dks-db.json"):
        text = (copy / name).read_text()
        assert "/home/ec2-user" in text
        (copy / name).write_text(text.replace("/home/ec2-user", str(home)))
    return copy


def sections(folder):
    """The commands of the README by headings."""
    found = {}
    for section in (folder / "README.md").read_text().split("\n## ")[1:]:
        found[section.splitlines()[0]] = "\n".join(re.findall(r"```bash\n(.*?)```", section, re.DOTALL))
    return found


def shown(up, folder, script):
    path = f"{binary().parent}:{ROOT / '.venv/bin'}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script], cwd=folder, env={**up.environment(), "PATH": path}, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{up.tail()}"
    return done.stdout


def test_the_readme_from_its_first_line_to_its_last(up, folder):
    commands = sections(folder)
    names = ["Names", "Who may ask whom", "Task definitions", "Services", "Look", "Away with it"]
    assert list(commands) == names and all(commands.values())
    *before, after = names
    # The last part needs the names that the first ones gave their things: they are said at the end, and again at its beginning.
    said = "\n".join(commands[name] for name in before) + "\necho; declare -p VPC NAMESPACE DB_REGISTRY API_REGISTRY UI_GROUP API_GROUP DB_GROUP UI"
    out = shown(up, folder, said)
    assert "registered dks-db:1" in out and "left out what only the service says: " in out
    assert "the page shows:\nhello from the database dks, to dks_role\n" in out
    assert re.search(r"dks-db\s+1\s+1\n", out) and re.search(r"dks-api\s+2\s+2\n", out) and re.search(r"dks-ui\s+1\s+1\n", out)
    variables = "\n".join(line for line in out.splitlines() if line.startswith("declare -"))
    values = dict(re.findall(r'(\w+)="([^"]*)"', variables))

    # What the groups do not let through does not pass: neither a stranger nor the user interface's neighbour reaches the database.
    ec2 = up.client("ec2")
    stranger = running(up, shell(IDLE), on=network(subnet_of(ec2)))
    [database] = interfaces(ec2, group=values["DB_GROUP"])
    [api, _] = interfaces(ec2, group=values["API_GROUP"])
    assert fetched(stranger, database, 5432) is None and fetched(stranger, api, 8080) is None
    assert "hello from the database" in inside(stranger, "curl", "--silent", "--max-time", "10", f"http://{values['UI']}/cgi-bin/page").stdout
    stop(up, stranger["taskArn"])
    instances = cloud_map(up).list_instances(ServiceId=values["DB_REGISTRY"].rsplit("/", 1)[1])["Instances"]
    assert [one["Attributes"]["AWS_INSTANCE_IPV4"] for one in instances] == [database]

    shown(up, folder, f"{variables}\n{commands[after]}")
    assert tasks_of(up.ecs, DEFAULT) == []
    until("all addresses to be free", lambda: not interfaces(ec2))
    assert cloud_map(up).list_namespaces()["Namespaces"] == []
    assert {one["GroupName"] for one in ec2.describe_security_groups()["SecurityGroups"]} == {"default"}


def registered(up, text, *arguments, check=True):
    done = subprocess.run(
        [str(binary()), "register", "-", *arguments], input=text, env={**up.environment(), "NO_COLOR": "1"}, capture_output=True, text=True, timeout=60, check=False
    )
    assert not check or done.returncode == 0, done.stderr
    return done


def test_what_describe_task_definition_says_registers_again(up):
    definition = json.loads((EXAMPLE / "dks-db.json").read_text())
    definition["family"] = "again"
    first = json.loads(registered(up, json.dumps(definition), "--output", "json").stdout)
    assert (first["family"], first["revision"]) == ("again", 1)
    expected = ["compatibilities", "registeredAt", "registeredBy", "requiresAttributes", "revision", "status", "taskDefinitionArn"]
    assert sorted(first["leftOut"]) == expected
    answer = up.aws("ecs", "describe-task-definition", "--task-definition", "again", "--include", "TAGS")
    second = json.loads(registered(up, json.dumps(answer), "--output", "json").stdout)
    assert second["revision"] == 2
    one, other = (up.ecs.describe_task_definition(taskDefinition=f"again:{revision}")["taskDefinition"] for revision in (1, 2))
    differing = {name for name in one | other if one.get(name) != other.get(name)}
    assert differing <= {"taskDefinitionArn", "revision", "registeredAt"}, differing


def test_a_definition_of_another_processor_says_why_it_finds_no_place(up):
    definition = json.loads((EXAMPLE / "dks-db.json").read_text())
    other = "ARM64" if os.uname().machine == "x86_64" else "X86_64"
    definition.update(family="other", networkMode="bridge", runtimePlatform={"cpuArchitecture": other, "operatingSystemFamily": "LINUX"})
    registered(up, json.dumps(definition))
    answer = up.ecs.run_task(cluster=DEFAULT, taskDefinition="other")
    assert answer["tasks"] == [] and [one["reason"] for one in answer["failures"]] == ["MemberOf placement constraint unsatisfied."]
    up.ecs.create_service(cluster=DEFAULT, serviceName="other", taskDefinition="other", desiredCount=1)
    expected = f"ecs.cpu-architecture == {other.lower()}"
    until("`berth why` to name the processor", lambda: expected in up.run("why", "other").stdout)
    up.ecs.delete_service(cluster=DEFAULT, service="other", force=True)


def test_what_cannot_be_registered_is_refused_and_named(up):
    for text, code, words in (
        ("{", 2, ["no JSON"]),
        ('{"family": "a", "containerDefinitons": []}', 2, ["containerDefinitons"]),
        ('{"family": "not a family", "containerDefinitions": [{"name": "a", "image": "b", "memory": 8}]}', 1, ["RegisterTaskDefinition"]),
    ):
        done = registered(up, text, check=False)
        assert done.returncode == code and all(word in done.stderr for word in words), done.stderr
    missing = subprocess.run([str(binary()), "register", "/none/such.json"], env=up.environment(), capture_output=True, text=True, timeout=60, check=False)
    assert missing.returncode == 2 and "/none/such.json" in missing.stderr
