"""Load for tests that kill servers and agents under it, and what must hold afterwards: everything that was acknowledged is what Describe
shows, and every container that runs is one of a task."""

import random
import threading
import time
from pathlib import Path

from botocore.exceptions import BotoCoreError, ClientError

import leftovers
from berth import Gone, unique, until
from containers import IDLE, pids_of, shell
from ecs_calls import describe, register, service, tasks_of, until_steady

CLUSTER = "default"
# Tasks at once: the load waits beyond it, since two processors also have to restart everything.
AT_ONCE = 12


class Load:
    """Runs tasks that end by themselves with known exit codes, tasks that stay, stops, and changes of a service's count; notes
    what was acknowledged. A call that gets no answer may have happened or not: it is made again under its own token."""

    def __init__(self, berths, seed):
        self.berths, self.dice = berths, random.Random(seed)
        self.exit_codes, self.stays, self.stopped, self.wished = {}, set(), set(), 2
        self.over, self.lock, self.errors = threading.Event(), threading.Lock(), []
        ecs = berths[0].ecs
        # Every attempt of a call in doubt carries the same token, so each of these can be one task at most.
        self.short = {code: register(ecs, "short", [shell(f"sleep 0.{code}; exit {code}")]) for code in range(4)}
        self.long = register(ecs, "long", [shell(IDLE)])
        ecs.create_service(cluster=CLUSTER, serviceName="web", taskDefinition=self.long, desiredCount=2)
        self.threads = [threading.Thread(target=self._forever, args=(act,), daemon=True) for act in (self._run, self._run, self._change)]
        for thread in self.threads:
            thread.start()

    def _call(self, name, **members):
        """Calls any server until there is an answer; what was refused is noted, and ends the test."""
        while True:
            try:
                return getattr(random.choice(self.berths).ecs, name)(**members)
            except (BotoCoreError, OSError):
                # The server is away. Its answer, if there was one, is lost.
                time.sleep(0.02)
            except ClientError as error:
                if error.response["Error"]["Code"] != "ServerException":
                    raise
                time.sleep(0.02)

    def _forever(self, act):
        try:
            while not self.over.is_set():
                act()
        except Exception as error:  # noqa: BLE001: whatever it is, the test has to show it
            self.errors.append(error)

    def _run(self):
        with self.lock:
            alive = len(self.stays - self.stopped)
            code = self.dice.randrange(4)
            stays = alive < AT_ONCE and self.dice.random() < 0.3
        answer = self._call("run_task", cluster=CLUSTER, taskDefinition=self.long if stays else self.short[code], clientToken=unique("token"))
        if not answer["tasks"]:
            # No room, or the machine is away for the moment.
            assert answer["failures"][0]["reason"] in ("AGENT", "RESOURCE:MEMORY", "RESOURCE:CPU"), answer["failures"]
            time.sleep(0.05)
            return
        (task,) = answer["tasks"]
        with self.lock:
            if stays:
                self.stays.add(task["taskArn"])
            else:
                self.exit_codes[task["taskArn"]] = code
        time.sleep(0.03)

    def _change(self):
        with self.lock:
            alive = sorted(self.stays - self.stopped)
            victim = self.dice.choice(alive) if len(alive) > AT_ONCE // 3 else None
            count = self.dice.randrange(1, 4)
        if victim:
            self._call("stop_task", cluster=CLUSTER, task=victim, reason="no longer needed")
            with self.lock:
                self.stopped.add(victim)
        else:
            self._call("update_service", cluster=CLUSTER, service="web", desiredCount=count)
            self.wished = count
        time.sleep(0.1)

    def end(self):
        self.over.set()
        for thread in self.threads:
            thread.join(120)
            assert not thread.is_alive()
        assert not self.errors, self.errors


def containers_running(agent):
    """Ids of the containers of this agent that have processes, by their cgroups."""
    name = f"berth-{leftovers.short_name(agent.data_dir)}"
    found = set()
    for folder in leftovers.cgroups(name):
        try:
            if Path(folder, "cgroup.procs").read_text().strip():
                found.add(Path(folder).name)
        except OSError:
            continue
    return found


def settle_and_compare(load, berths, agent, rounds):
    """Ends the load, waits until everything has come to rest, and compares."""
    agent.until_connected()
    load.end()
    ecs = berths[0].ecs

    def settled():
        alive = [describe(ecs, CLUSTER, arn) for arn in tasks_of(ecs, CLUSTER) + tasks_of(ecs, CLUSTER, desiredStatus="STOPPED")]
        moving = [task["taskArn"] for task in alive if task["lastStatus"] not in ("RUNNING", "STOPPED")]
        late = [task["taskArn"] for task in alive if task["taskArn"] in load.exit_codes and task["lastStatus"] != "STOPPED"]
        doomed = [task["taskArn"] for task in alive if task["desiredStatus"] == "STOPPED" and task["lastStatus"] != "STOPPED"]
        return None if moving or late or doomed else {task["taskArn"]: task for task in alive}

    try:
        tasks = until("every task to have come to rest", settled)
    except Gone as error:
        raise Gone(f"{error}\nserver:\n{berths[0].tail()}\nagent:\n{agent.tail()}") from None
    assert len(load.exit_codes) > rounds and len(load.stopped) > 0, "it was no load"
    for arn, code in load.exit_codes.items():
        assert arn in tasks, f"the acknowledged task {arn} is lost"
        (container,) = tasks[arn]["containers"]
        assert container.get("exitCode") == code, f"{arn} should have ended with {code}: {tasks[arn]}"
    for arn in load.stays:
        assert arn in tasks, f"the acknowledged task {arn} is lost"
        wanted = "STOPPED" if arn in load.stopped else "RUNNING"
        assert tasks[arn]["lastStatus"] == wanted, f"{arn} should be {wanted}: {tasks[arn]}"
    until_steady(ecs, CLUSTER, "web")
    assert service(ecs, CLUSTER, "web")["desiredCount"] == load.wished, "the last acknowledged count holds"
    running = {arn: task for arn, task in ((arn, describe(ecs, CLUSTER, arn)) for arn in tasks_of(ecs, CLUSTER)) if task["lastStatus"] == "RUNNING"}
    for arn, task in running.items():
        assert pids_of(task["containers"][0]), f"{arn} is RUNNING and has no process"
    known = {task["containers"][0]["runtimeId"] for task in running.values()}
    assert containers_running(agent) == known, "every container that runs is one of a RUNNING task"
    alone = [arn for arn in running if arn not in load.stays and running[arn].get("group") != "service:web"]
    assert not alone, f"tasks that nobody was told of: {alone}"
