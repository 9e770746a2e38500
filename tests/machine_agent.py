"""`berth agent` as a process of its own, joined to a server: what a second machine would run."""

import contextlib
import signal
import subprocess

import leftovers
from berth import Gone, binary, clean_environment, fresh_folder, until


class MachineAgent:
    def __init__(self, berth, cluster="default", backends=None, **environment):
        self.berth, self.cluster = berth, cluster
        self.folder = fresh_folder("agent")
        self.data_dir = self.folder / "data"
        key, secret = berth.credentials
        self.environment = clean_environment(
            ECS_CLUSTER=cluster,
            ECS_BACKEND_HOST=backends or berth.endpoint,
            ECS_DATADIR=str(self.data_dir),
            ECS_EXTERNAL="true",
            ECS_LOGFILE=str(self.folder / "ecs-agent.log"),
            AWS_DEFAULT_REGION="us-east-1",
            AWS_ACCESS_KEY_ID=key,
            AWS_SECRET_ACCESS_KEY=secret,
            **environment,
        )
        self.process = None

    def start(self):
        with (self.folder / "agent.log").open("ab") as log:
            self.process = subprocess.Popen(
                [str(binary()), "agent"], env=self.environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
            )
        return self

    def tail(self, lines=60):
        return "\n".join((self.folder / "agent.log").read_text(errors="replace").splitlines()[-lines:])

    def until_connected(self):
        """Waits until the server counts it as connected; gives its container instance's ARN."""

        def look():
            assert self.process.poll() is None, self.tail()
            arns = self.berth.ecs.list_container_instances(cluster=self.cluster)["containerInstanceArns"]
            if not arns:
                return None
            found = self.berth.ecs.describe_container_instances(cluster=self.cluster, containerInstances=arns)["containerInstances"]
            return next((one["containerInstanceArn"] for one in found if one["agentConnected"]), None)

        return until("the agent to be connected", look)

    def kill(self):
        """kill -9."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(60)

    def end(self):
        """Ends it in whatever state it is, and removes what its containers were made of."""
        try:
            if self.process is not None and self.process.poll() is None:
                self.process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.process.wait(60)
                if self.process.poll() is None:
                    self.kill()
                    raise Gone(f"the agent did not end:\n{self.tail()}")
        finally:
            leftovers.remove_all_of(self.data_dir)
