"""A task beside the one that something happens to, and what shows that it did not notice."""

import contextlib

import leftovers
from berth import http_text, until
from containers import hello, host_ports, output, page, pids_of, running, said, shell, stop
from ecs_calls import describe

# A line each tenth of a second, numbered: a gap or a repetition shows.
COUNTS = "trap 'exit 0' TERM; i=0; while :; do i=$((i+1)); echo tick $i; sleep 0.1; done"


class Bystander:
    """A task with a container that counts aloud and one that answers on a port."""

    def __init__(self, up, cluster="default"):
        self.up, self.cluster = up, cluster
        self.task = running(up, shell(COUNTS, name="counts"), hello(name="web"), cluster=cluster)
        self.arn = self.task["taskArn"]
        (self.port,) = host_ports(self.task)
        self.pids = self._first_processes()
        assert page(self.port)

    def _first_processes(self):
        return [pids_of(container)[0] for container in self.task["containers"]]

    def numbers(self):
        lines = [line.rsplit(" ", 2) for line in output(self.up, self.arn, "--container", "counts").splitlines()]
        return [int(words[-1]) for words in lines if words[-2] == "tick"]

    def answers(self):
        return "Hello from Berth" in (http_text(f"http://127.0.0.1:{self.port}/") or "")

    def lives(self):
        """Its processes are those that they were, and its page answers. Asks nothing of Berth."""
        assert self._first_processes() == self.pids, "a container of the task beside it is not the one that it was"
        assert self.answers()

    def is_undisturbed(self):
        """All of it, and it goes on being told."""
        self.lives()
        task = describe(self.up.ecs, self.cluster, self.arn)
        assert task["lastStatus"] == "RUNNING" and task["startedAt"] == self.task["startedAt"], task
        before = self.numbers()[-1]
        said(self.up, self.arn, f"tick {before + 5}\n")
        numbers = self.numbers()
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers))), "lines are lost or doubled"


@contextlib.contextmanager
def beside(up, data_dir=None, agent_dir=None, cluster="default"):
    """Runs the block beside such a task; afterwards that is undisturbed, and nothing is left of what the block ran."""
    data_dir = data_dir or up.data_dir
    agent_dir = agent_dir or data_dir / "agent"
    bystander = Bystander(up, cluster)
    before = settled(data_dir, agent_dir)
    yield bystander
    bystander.is_undisturbed()
    until("nothing more than before", lambda: kernel(data_dir, agent_dir) == before or print(before, kernel(data_dir, agent_dir)), 60, 0.5)
    stop(up, bystander.arn, cluster)


def settled(data_dir, agent_dir):
    """What there is once nothing more of an earlier test goes away: the kernel takes down in its own time what nobody has any more."""
    looks = [kernel(data_dir, agent_dir)]

    def is_still():
        looks.append(kernel(data_dir, agent_dir))
        return len(looks) > 3 and looks[-1] == looks[-2] == looks[-3]

    until("what was there before to stay as it is", is_still, 60, 0.5)
    return looks[-1]


def kernel(data_dir, agent_dir):
    """What the kernel has for tasks; the folders of ended ones are kept for a while, for their logs."""
    counted = leftovers.tally(data_dir, agent_dir)
    del counted["files"]
    return counted
