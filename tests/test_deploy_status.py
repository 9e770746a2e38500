"""`berth deploy status` and `berth rollback`: a deployment that people can watch, and bring back."""

import json
import os
import pty
import queue
import re
import select
import signal
import subprocess
import threading

import pytest

from berth import PATIENCE, binary, clean_environment, unique, until
from containers import hello
from ecs_calls import container, describe, register, service, tasks_of, until_steady


class Watch:
    """A command that runs on: what it prints, line by line."""

    def __init__(self, berth, *arguments):
        command = [str(binary()), *arguments, "--data-dir", str(berth.data_dir)]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True, env=clean_environment(NO_COLOR="1")
        )
        self.out, self.err = queue.Queue(), queue.Queue()
        streams = ((self.process.stdout, self.out), (self.process.stderr, self.err))
        self._readers = [threading.Thread(target=self._read, args=stream, daemon=True) for stream in streams]
        for reader in self._readers:
            reader.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for reader in self._readers:
            reader.join(PATIENCE)

    @staticmethod
    def _read(stream, lines):
        with stream:
            for line in stream:
                lines.put(line)
        lines.put("")

    def line(self):
        """The next line."""
        return self.out.get(timeout=PATIENCE)

    def line_with(self, *words):
        """The next line that has all the words."""
        seen = []
        while text := self.line():
            if all(word in text for word in words):
                return text
            seen.append(text)
        raise AssertionError(f"ended without a line with {words}: {seen}")

    def finish(self):
        """Its remaining output, its errors and its exit code."""
        code = self.process.wait(PATIENCE)
        return "".join(iter(self.line, "")), "".join(iter(lambda: self.err.get(timeout=PATIENCE), "")), code


@pytest.fixture
def web(ecs, cluster, agents):
    """A service of two tasks that has come out, and the agent that runs them."""
    agent = agents(cluster)
    ecs.create_service(cluster=cluster, serviceName="web", taskDefinition=register(ecs, unique("web")), desiredCount=2)
    until_steady(ecs, cluster, "web")
    return agent


def next_revision(ecs, cluster, **members):
    """A new revision of what the service runs; gives its ARN."""
    family = service(ecs, cluster, "web")["taskDefinition"].rsplit("/", 1)[1].split(":")[0]
    return register(ecs, family, **members)


def deploy(ecs, cluster, **members):
    """Begins a deployment of a new revision; gives its definition and the deployment's ARN."""
    definition = next_revision(ecs, cluster)
    changed = ecs.update_service(cluster=cluster, service="web", taskDefinition=definition, **members)["service"]
    return definition, changed["currentServiceDeployment"]


def short(arn):
    return arn.rsplit("/", 1)[1]


def status(berth, cluster, *arguments, name="web"):
    return json.loads(berth.run("deploy", "status", name, "--cluster", cluster, "--output", "json", *arguments).stdout)


def fail_new_tasks(ecs, cluster, agent, old, failed):
    """Reports every new task as one whose image cannot be pulled."""
    for arn in set(tasks_of(ecs, cluster, serviceName="web")) - old - failed:
        agent.wait_for_task(arn, "RUNNING")
        agent.report(arn, "STOPPED", containers=[{"containerName": "app", "status": "STOPPED", "reason": "CannotPullContainerError: no such image"}])
        failed.add(arn)


def test_a_rollout_is_watched_line_by_line(server, ecs, cluster, web):
    before = service(ecs, cluster, "web")
    web.runs = False
    definition, arn = deploy(ecs, cluster)
    with Watch(server, "deploy", "status", "web", "--cluster", cluster, "--watch") as watch:
        first = watch.line()
        assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ deployment ", first), first
        assert short(arn) in first and short(definition) in first and ("IN_PROGRESS" in first or "PENDING" in first)
        watch.line_with("PRIMARY", short(definition), "0 of 2 running, 2 pending")
        web.runs = True
        for task in tasks_of(ecs, cluster, serviceName="web"):
            if describe(ecs, cluster, task)["taskDefinitionArn"] == definition:
                web.wait_for_task(task, "RUNNING")
                web.report(task, "RUNNING")
        out, err, code = watch.finish()
    assert code == 0 and err == ""
    assert f"{before['deployments'][0]['id']} {short(before['taskDefinition'])}: gone" in out
    assert f"{short(arn)} of {short(definition)}: SUCCESSFUL" in out
    assert re.search(r"2 of 2 running, 0 pending, 0 failed, COMPLETED\n", out), out
    assert re.search(r"Z completed after \S+\n$", out), out
    assert "has started 2 tasks" in first + out or "has reached a steady state" in out
    assert len(out.splitlines()) == len(set(out.splitlines())), "nothing is told twice"


def test_once_it_says_how_it_stands(server, ecs, cluster, web):
    done = status(server, cluster)
    assert done["outcome"] == "COMPLETED" and done["waitsFor"] == [] and done["elapsedSeconds"] >= 0
    web.runs = False
    definition, arn = deploy(ecs, cluster)
    until("the new tasks", lambda: service(ecs, cluster, "web")["deployments"][0]["pendingCount"] == 2)
    shown = server.run("deploy", "status", "web", "--cluster", cluster).stdout
    for words in (f"web in cluster {cluster}: 2 of 2 tasks running, 2 pending", f"deployment {short(arn)} of {short(definition)}: IN_PROGRESS, for "):
        assert words in shown, shown
    assert "(ROLLING, minimum 100 %, maximum 200 %" in shown and "[++++++++++++++++]" in shown and "[################]" in shown
    assert "waits for\n" in shown and "has started 2 tasks" in shown
    going = status(server, cluster)
    assert going["outcome"] == "IN_PROGRESS"
    assert going["serviceDeployment"]["serviceDeploymentArn"] == arn
    assert [one["status"] for one in going["deployments"]] == ["PRIMARY", "ACTIVE"]
    assert going["revisions"][0] == {"serviceRevisionArn": going["serviceDeployment"]["targetServiceRevision"]["arn"], "taskDefinition": definition}
    assert "DEPLOYMENT" in [reason["code"] for reason in going["waitsFor"]]
    found = service(ecs, cluster, "web")
    assert going["service"] == {
        **{name: found[name] for name in ("serviceArn", "serviceName", "clusterArn", "status", "desiredCount", "runningCount", "pendingCount", "taskDefinition")},
        "deploymentController": "ECS",
    }
    assert status(server, cluster, name=found["serviceArn"])["service"] == going["service"], "by its ARN"
    assert json.loads(server.run("deploy", "status", found["serviceArn"], "--output", "json").stdout)["service"] == going["service"]


def test_json_lines_are_alike_and_each_is_a_change(server, ecs, cluster, web):
    once = status(server, cluster)
    deploy(ecs, cluster)
    with Watch(server, "deploy", "status", "web", "--cluster", cluster, "--watch", "--output", "json") as watch:
        out, err, code = watch.finish()
    seen = [json.loads(line) for line in out.splitlines()]
    assert code == 0 and err == "" and seen[-1]["outcome"] == "COMPLETED"
    assert {one["outcome"] for one in seen[:-1]} <= {"IN_PROGRESS"}
    members = {"outcome", "reason", "service", "deployments", "serviceDeployment", "revisions", "waitsFor", "events", "elapsedSeconds"}
    for one in [once, *seen]:
        assert members - {"reason"} <= set(one) <= members, one

    def constant(one):
        one = json.loads(json.dumps({name: value for name, value in one.items() if name != "elapsedSeconds"}))
        for holder in [*one["deployments"], one["serviceDeployment"]]:
            holder.pop("updatedAt", None)
        return one

    assert all(constant(one) != constant(other) for one, other in zip(seen, seen[1:]))


def test_one_that_cannot_start_is_seen_failing_and_rolled_back_in_the_middle(server, ecs, cluster, web):
    good = service(ecs, cluster, "web")["taskDefinition"]
    old, failed = set(tasks_of(ecs, cluster, serviceName="web")), set()
    web.runs = False
    bad, arn = deploy(ecs, cluster)
    with Watch(server, "deploy", "status", "web", "--cluster", cluster, "--watch") as watch:
        until("two failures", lambda: fail_new_tasks(ecs, cluster, web, old, failed) or len(failed) >= 2)
        watch.line_with("waits: ", "CannotPullContainerError: no such image")
        dry = json.loads(server.run("rollback", "web", "--cluster", cluster, "--dry-run", "--output", "json").stdout)
        assert (dry["action"], dry["dryRun"], dry["serviceDeploymentArn"]) == ("StopServiceDeployment", True, arn)
        assert (dry["from"]["taskDefinition"], dry["to"]["taskDefinition"]) == (bad, good)
        assert status(server, cluster)["outcome"] == "IN_PROGRESS", "nothing was done"
        # Those that were asked for stay pending; those of the way back run.
        until("two more tasks", lambda: service(ecs, cluster, "web")["deployments"][0]["pendingCount"] == 2)
        for task in set(tasks_of(ecs, cluster, serviceName="web")) - old - failed:
            web.wait_for_task(task, "RUNNING")
        web.runs = True
        done = server.run("rollback", "web", "--cluster", cluster, "--wait")
        assert done.stdout.startswith(f"service web in cluster {cluster}: stop deployment {short(arn)} of {short(bad)} (revision "), done.stdout
        assert f"and go back to {short(good)} (revision " in done.stdout and "ROLLBACK_SUCCESSFUL" in done.stdout
        out, err, code = watch.finish()
    assert code == 1 and f"the deployment of service web was rolled back to {short(good)}: " in err and "berth why web" in err
    assert "ROLLBACK_SUCCESSFUL" in out and "rolled back after" in out.splitlines()[-1]
    assert until_steady(ecs, cluster, "web")["taskDefinition"] == good
    waited = server.run("deploy", "status", "web", "--cluster", cluster, "--wait", check=False)
    assert waited.returncode == 1 and "ROLLBACK_SUCCESSFUL" in waited.stdout and "was rolled back" in waited.stderr
    refused = server.run("rollback", "web", "--cluster", cluster, check=False)
    assert refused.returncode == 1 and "there is nothing to go back to" in refused.stderr and "--to FAMILY:N" in refused.stderr


def test_after_a_deployment_the_service_goes_back_and_forth(server, ecs, cluster, web):
    first = service(ecs, cluster, "web")["taskDefinition"]
    second, _ = deploy(ecs, cluster)
    until_steady(ecs, cluster, "web")
    said = server.run("rollback", "web", "--cluster", cluster, "--dry-run").stdout
    assert said.startswith(f"service web in cluster {cluster}: would go from {short(second)} (revision ") and short(first) in said
    assert service(ecs, cluster, "web")["taskDefinition"] == second
    done = server.run("rollback", "web", "--cluster", cluster, "--wait", "--output", "json")
    action, ended = map(json.loads, done.stdout.splitlines())
    assert (action["action"], action["dryRun"], action["to"]["taskDefinition"]) == ("UpdateService", False, first)
    assert ended["outcome"] == "COMPLETED" and ended["service"]["taskDefinition"] == first
    assert action["serviceDeploymentArn"] == ended["serviceDeployment"]["serviceDeploymentArn"]
    assert until_steady(ecs, cluster, "web")["taskDefinition"] == first
    server.run("rollback", "web", "--cluster", cluster, "--wait")
    assert until_steady(ecs, cluster, "web")["taskDefinition"] == second, "the one before is the one it came from"


def test_back_to_one_that_is_named(server, ecs, cluster, web):
    first = service(ecs, cluster, "web")
    revision = first["currentServiceRevisions"][0]["arn"]
    for _ in range(2):
        deploy(ecs, cluster)
        until_steady(ecs, cluster, "web")
    current = service(ecs, cluster, "web")["taskDefinition"]
    for to in (short(revision), revision, short(first["taskDefinition"])):
        dry = json.loads(server.run("rollback", "web", "--cluster", cluster, "--to", to, "--dry-run", "--output", "json").stdout)
        assert dry["to"]["taskDefinition"] == first["taskDefinition"], to
    server.run("rollback", "web", "--cluster", cluster, "--to", short(revision), "--wait")
    assert until_steady(ecs, cluster, "web")["taskDefinition"] == first["taskDefinition"]

    def fails(*arguments):
        ended = server.run("rollback", *arguments, check=False)
        assert ended.returncode == 1, ended
        return ended.stderr

    here = ("web", "--cluster", cluster)
    assert f"{short(first['taskDefinition'])} is what the service is set to already" in fails(*here, "--to", short(first["taskDefinition"]))
    assert "there is no service revision 1111111111111111111 of this service: --to" in fails(*here, "--to", "1111111111111111111")
    assert "there is no task definition none-such:1 any more" in fails(*here, "--to", "none-such:1")
    ecs.deregister_task_definition(taskDefinition=current)
    assert f"task definition {short(current)} is INACTIVE" in fails(*here, "--to", short(current))
    ecs.create_service(cluster=cluster, serviceName="x", deploymentController={"type": "EXTERNAL"})
    assert "the service has no deployment" in fails("x", "--cluster", cluster)
    assert "no deployment that could be waited for: its controller is EXTERNAL" in server.run("deploy", "status", "x", "--cluster", cluster, "--wait", check=False).stderr
    assert status(server, cluster, name="x")["outcome"] == "NONE"


def test_the_first_deployment_has_nothing_to_go_back_to(server, ecs, cluster, agents):
    agents(cluster, runs=False)
    ecs.create_service(cluster=cluster, serviceName="web", taskDefinition=register(ecs), desiredCount=1)
    until("its task", lambda: tasks_of(ecs, cluster, serviceName="web"))
    refused = server.run("rollback", "web", "--cluster", cluster, check=False)
    assert refused.returncode == 1 and "no revision of the service ever came out" in refused.stderr
    assert status(server, cluster)["outcome"] == "IN_PROGRESS", "and nothing was stopped"
    late = server.run("deploy", "status", "web", "--cluster", cluster, "--wait", "--timeout", "1", check=False)
    assert late.returncode == 1 and late.stdout == ""
    assert "has not ended within 1 seconds, and goes on\n  see what it waits for with `berth why web`" in late.stderr


def test_a_newer_deployment_ends_the_watch_of_the_one_before(server, ecs, cluster, web):
    web.runs = False
    deploy(ecs, cluster)
    with Watch(server, "deploy", "status", "web", "--cluster", cluster, "--watch") as watch:
        watch.line_with("PRIMARY", "2 pending")
        web.runs = True
        deploy(ecs, cluster)
        _, err, code = watch.finish()
    assert code == 1 and "the deployment of service web was stopped: " in err


def test_errors_say_what_to_do_next(server, ecs, cluster, web):
    unknown = server.run("deploy", "status", "none-such", "--cluster", cluster, check=False)
    assert unknown.returncode == 1
    assert unknown.stderr == f"error: there is no service 'none-such' in cluster {cluster}\n  see which there are with `aws ecs list-services --cluster CLUSTER`\n"
    assert "there is no service 'none-such'" in server.run("rollback", "none-such", "--cluster", cluster, check=False).stderr
    assert "Cluster not found." in server.run("deploy", "status", "web", "--cluster", "none-such", check=False).stderr
    other = unique("c")
    ecs.create_cluster(clusterName=other)
    name = unique("s")
    for home in (cluster, other):
        ecs.create_service(cluster=home, serviceName=name, taskDefinition=register(ecs), desiredCount=0)
    both = server.run("deploy", "status", name, check=False)
    assert both.returncode == 2 and f"'{name}' is a service in more than one cluster: " in both.stderr and "--cluster CLUSTER" in both.stderr
    assert cluster in both.stderr and other in both.stderr


def test_on_a_terminal_the_view_stays_in_place_and_ctrl_c_leaves_it_as_it_was(server, ecs, cluster, web):
    web.runs = False
    _, arn = deploy(ecs, cluster)
    primary, secondary = pty.openpty()
    seen = b""
    try:
        process = subprocess.Popen(
            [str(binary()), "deploy", "status", "web", "--cluster", cluster, "--watch", "--data-dir", str(server.data_dir)],
            stdin=secondary,
            stdout=secondary,
            stderr=subprocess.PIPE,
            env=clean_environment(TERM="xterm", NO_COLOR="1"),
            start_new_session=True,
        )

        def read():
            nonlocal seen
            while select.select([primary], [], [], 0)[0]:
                seen += os.read(primary, 65536)
            return seen

        until("the view to be drawn twice", lambda: read().count(b"\x1b[J") >= 2)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 130
        assert process.stderr.read() == b""
        read()
    finally:
        os.close(primary)
        os.close(secondary)
        process.stderr.close()
        if process.poll() is None:
            process.kill()
            process.wait()
    text = seen.decode()
    assert text.startswith("\x1b[?25l") and text.endswith("\x1b[?25h"), "the cursor is hidden, and seen again"
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1 and "\x1b[?1049h" not in text
    lines = re.split(r"\x1b\[\d+A", text)[0].count("\n")
    assert all(int(up) == lines for up in re.findall(r"\x1b\[(\d+)A", text)[:1]), "it begins where it began"
    assert short(arn) in text
    assert status(server, cluster)["outcome"] == "IN_PROGRESS", "the deployment goes on"


def test_a_watch_outlives_a_restart_of_the_server(new_berth):
    from fake_agent import FakeAgent

    berth = new_berth("server").start()
    ecs = berth.ecs
    ecs.create_cluster(clusterName="default")
    agent = FakeAgent(berth, "default", runs=False).join()
    try:
        ecs.create_service(serviceName="web", taskDefinition=register(ecs, containers=[container()]), desiredCount=1)
        with Watch(berth, "deploy", "status", "web", "--watch") as watch:
            watch.line_with("1 pending")
            berth.kill()
            assert "goes on without being seen" in watch.err.get(timeout=PATIENCE)
            berth.start()
            agent.runs = True
            agent.connect()
            (task,) = tasks_of(berth.ecs, "default", serviceName="web")
            agent.wait_for_task(task, "RUNNING")
            agent.report(task, "RUNNING")
            out, _, code = watch.finish()
        assert code == 0 and "completed after" in out
    finally:
        agent.leave()


@pytest.mark.skipif(os.geteuid() != 0, reason="SKIPPED (needs root): real containers need namespaces, mounts and cgroups")
def test_real_containers_come_out_and_an_image_that_is_not_there_is_taken_back(up):
    ecs, name = up.ecs, unique("web")
    good, bad = register(ecs, name, [hello(ports=())]), register(ecs, name, [{**hello(ports=()), "image": "none-such:1"}])
    ecs.create_service(cluster="default", serviceName=name, taskDefinition=good, desiredCount=1)
    try:
        up.run("deploy", "status", name, "--wait", "--timeout", "100")
        ecs.update_service(cluster="default", service=name, taskDefinition=bad)
        with Watch(up, "deploy", "status", name, "--watch") as watch:
            watch.line_with("waits: ", "CannotPullContainerError")
            up.run("rollback", name, "--wait", "--timeout", "100")
            out, err, code = watch.finish()
        assert code == 1 and "rolled back" in out and short(good) in err
        assert until_steady(ecs, "default", name)["taskDefinition"] == good
    finally:
        ecs.delete_service(cluster="default", service=name, force=True)
        until("the service to be gone", lambda: service(ecs, "default", name)["status"] == "INACTIVE")
