"""A server and an agent apart from each other, as on two machines: what happens to one is not done to the other."""

import subprocess

from berth import PATIENCE, binary
from machine_agent import MachineAgent


class Apart:
    """What tests with containers need of a Berth, where the containers are a `berth agent`'s."""

    def __init__(self, server, cluster="default", **environment):
        self.server = server
        self.agent = MachineAgent(server, cluster=cluster, **environment)
        self.data_dir = self.agent.data_dir

    def start(self):
        self.agent.start()
        self.agent.until_connected()
        return self

    @property
    def ecs(self):
        return self.server.ecs

    @property
    def endpoint(self):
        return self.server.endpoint

    def run(self, *arguments, check=True):
        """One of Berth's commands that looks at the agent's machine."""
        done = subprocess.run(
            [str(binary()), *arguments, "--data-dir", str(self.data_dir)],
            env={**self.server.environment(), "NO_COLOR": "1"},
            capture_output=True,
            text=True,
            timeout=PATIENCE * 2,
            check=False,
        )
        assert not check or done.returncode == 0, f"berth {' '.join(arguments)}: {done.returncode}\n{done.stdout}{done.stderr}\n{self.tail()}"
        return done

    def tail(self):
        return self.agent.tail()

    def end(self):
        self.agent.end()
