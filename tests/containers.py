"""Tasks with real containers: running scripts, finding their processes, asking them over HTTP."""

import os
from pathlib import Path

import pytest

from berth import Gone, http_text, until
from ecs_calls import describe, register, run, until_status

# Runs until it is asked to stop; as pid 1 a plain sleep would not hear SIGTERM.
IDLE = "trap 'exit 0' TERM; while :; do sleep 0.2; done"


def skip_unless_root(module):
    """For the top of a module: without root all of it is skipped, in one line that names it."""
    if os.geteuid() != 0:
        name = Path(module).name
        pytest.skip(f"SKIPPED (needs root): {name}: real containers need namespaces, mounts and cgroups", allow_module_level=True)


def shell(script, name="app", **members):
    """A container of the shell image that runs a script."""
    return {"name": name, "image": "shell:1", "memory": 64, "entryPoint": ["/bin/sh", "-c"], "command": [script], **members}


def hello(name="web", ports=(80,), **members):
    """A container of the hello image."""
    mappings = [port if isinstance(port, dict) else {"containerPort": port} for port in ports]
    return {"name": name, "image": "hello:latest", "memory": 64, "portMappings": mappings, **members}


def start(up, *containers, cluster="default", overrides=None, **members):
    """Runs one task; gives its ARN."""
    definition = register(up.ecs, containers=list(containers), **members)
    return run(up.ecs, cluster, definition, **({"overrides": overrides} if overrides else {}))[0]


def running(up, *containers, cluster="default", **members):
    """Runs one task and waits for it; gives the task."""
    return until_status(up.ecs, cluster, start(up, *containers, cluster=cluster, **members), "RUNNING")


def finished(up, *containers, cluster="default", **members):
    """Runs one task to its end; gives the task."""
    return ended(up, start(up, *containers, cluster=cluster, **members), cluster)


def ended(up, arn, cluster="default"):
    try:
        return until_status(up.ecs, cluster, arn, "STOPPED")
    except Gone as error:
        raise Gone(f"{error}\n{describe(up.ecs, cluster, arn)}\n{up.tail()}") from None


def stop(up, arn, cluster="default"):
    """Stops a task and waits for its end."""
    up.ecs.stop_task(cluster=cluster, task=arn)
    return ended(up, arn, cluster)


def output(up, arn, *arguments):
    """What `berth logs` shows of a task."""
    return up.run("logs", arn.rsplit("/", 1)[1], *arguments).stdout


def said(up, arn, text):
    """Waits until a task has written a text."""
    return until(f"the task to say {text!r}", lambda: text in (shown := output(up, arn)) and shown)


def host_ports(task):
    return [binding["hostPort"] for container in task["containers"] for binding in container.get("networkBindings", [])]


def page(port, path="/"):
    """A page of a task on this machine, waited for."""
    return until(f"an answer on port {port}", lambda: http_text(f"http://127.0.0.1:{port}{path}"))


def pids_of(container):
    """The processes of a container as DescribeTasks shows it: those in its cgroup. The one that began it comes first, whatever its number: numbers
    begin anew when the last has been used."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                if container["runtimeId"] in (folder / "cgroup").read_text():
                    # proc_pid_stat(5): after the name, which may hold anything, the third field is the first.
                    fields = (folder / "stat").read_text().rpartition(")")[2].split()
                    found[int(folder.name)] = (int(fields[1]), int(fields[19]))
            except OSError:
                continue

    def age(pid):
        parent, began = found[pid]
        return parent in found, began, pid

    return sorted(found, key=age)
