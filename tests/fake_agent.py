"""An ECS agent without containers: it registers, takes payloads over the ACS websocket and reports what it is told to.

By default every task runs as soon as it is wanted and stops as soon as its stop is wanted; tests switch that off to see
the server wait, or report by hand.
"""

import json
import queue
import threading
import time
from urllib.parse import quote

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from berth import until
from websocket import Closed, WebSocket

ATTRIBUTES = [
    "com.amazonaws.ecs.capability.docker-remote-api.1.17",
    "com.amazonaws.ecs.capability.docker-remote-api.1.18",
    "com.amazonaws.ecs.capability.docker-remote-api.1.19",
    "com.amazonaws.ecs.capability.docker-remote-api.1.21",
    "com.amazonaws.ecs.capability.docker-remote-api.1.24",
    "com.amazonaws.ecs.capability.docker-remote-api.1.25",
    "com.amazonaws.ecs.capability.docker-remote-api.1.29",
    "com.amazonaws.ecs.capability.logging-driver.json-file",
    "ecs.capability.container-health-check",
    "ecs.capability.container-ordering",
    "ecs.capability.external",
    "ecs.capability.full-sync",
]


def signed_headers(berth, method, url, body=b"", key=None):
    """SigV4 headers of a request to this Berth."""
    request = AWSRequest(method=method, url=url, data=body)
    SigV4Auth(Credentials(*(key or berth.credentials)), "ecs", "us-east-1").add_auth(request)
    host = url.split("/")[2]
    return {"Host": host, **dict(request.headers.items())}


class FakeAgent:
    def __init__(self, berth, cluster, cpu=8192, memory=16384, ports=("22", "51678"), attributes=(), runs=True, stops=True, acks=True, gpus=()):
        self.berth, self.cluster = berth, cluster
        self.resources = [
            {"name": "CPU", "type": "INTEGER", "integerValue": cpu},
            {"name": "MEMORY", "type": "INTEGER", "integerValue": memory},
            {"name": "PORTS", "type": "STRINGSET", "stringSetValue": list(ports)},
            {"name": "PORTS_UDP", "type": "STRINGSET", "stringSetValue": []},
        ]
        if gpus:
            self.resources.append({"name": "GPU", "type": "STRINGSET", "stringSetValue": list(gpus)})
        self.attributes = [{"name": name} for name in ATTRIBUTES]
        self.attributes += [{"name": "ecs.os-type", "value": "linux"}, {"name": "ecs.cpu-architecture", "value": "x86_64"}, *attributes]
        self.runs, self.stops, self.acks = runs, stops, acks
        # What it refuses to run: given a task as the payload has it, the reason, or None.
        self.refuses = lambda task: None
        self.arn = None
        self.registered = None
        self.socket = None
        self.frames = []
        self.closed = threading.Event()
        self.known = {}
        self._seen = threading.Condition()
        self._work = queue.Queue()
        self._port = 20000

    # -- the JSON API ---------------------------------------------------------------------------------------------------

    def register(self, **extra):
        answer = self.berth.ecs.register_container_instance(
            cluster=self.cluster, totalResources=self.resources, attributes=self.attributes, **extra
        )
        self.registered = answer["containerInstance"]
        self.arn = self.registered["containerInstanceArn"]
        return self

    def report(self, task, status, exit_code=None, reason="", containers=None):
        """SubmitTaskStateChange; containers follow the task unless given."""
        if containers is None:
            containers = []
            for name, ports in self.known.get(task, {}).items():
                change = {"containerName": name, "status": status, "runtimeId": f"fake-{task[-8:]}-{name}"}
                if status == "STOPPED" and exit_code is not None:
                    change["exitCode"] = exit_code
                if ports and status == "RUNNING":
                    change["networkBindings"] = ports
                containers.append(change)
        return self.berth.ecs.submit_task_state_change(
            cluster=self.cluster, task=task, status=status, reason=reason, containers=containers
        )

    # -- the ACS websocket ----------------------------------------------------------------------------------------------

    def url(self, **changes):
        query = {
            "agentHash": "fake",
            "agentVersion": "1.105.1",
            "clusterArn": self.cluster,
            "containerInstanceArn": self.arn,
            "dockerVersion": "DockerVersion: fake",
            "protocolVersion": "2",
            "sendCredentials": "true",
            "seqNum": "1",
            **changes,
        }
        text = "&".join(f"{name}={quote(value, safe='')}" for name, value in query.items() if value is not None)
        return f"{self.berth.endpoint}/ws?{text}"

    def connect(self, **changes):
        url = self.url(**changes)
        self.socket = WebSocket(url, signed_headers(self.berth, "GET", url))
        self.closed.clear()
        self.frames = []
        threading.Thread(target=self._read, args=(self.socket,), daemon=True).start()
        return self

    def join(self):
        """Registers, connects, and waits until the server counts it as connected."""
        self.register().connect()
        threading.Thread(target=self._report_all, daemon=True).start()
        until("the agent to be connected", self.is_connected)
        return self

    def is_connected(self):
        answer = self.berth.ecs.describe_container_instances(cluster=self.cluster, containerInstances=[self.arn])
        return answer["containerInstances"][0]["agentConnected"]

    def drop(self):
        """The connection breaks."""
        if self.socket:
            self.socket.drop()
            self.closed.wait(30)

    def leave(self):
        self._work.put(None)
        if self.socket:
            self.socket.drop()

    def _read(self, socket):
        try:
            while True:
                frame = json.loads(socket.receive())
                self._on_frame(socket, frame)
                with self._seen:
                    self.frames.append((frame["type"], frame["message"]))
                    self._seen.notify_all()
        except Closed:
            pass
        finally:
            if socket is self.socket:
                self.closed.set()

    def send(self, kind, **message):
        self.socket.send(json.dumps({"type": kind, "message": message}))

    def ack(self, message):
        self.send("AckRequest", cluster=self.cluster, containerInstance=self.arn, messageId=message["messageId"])

    def _on_frame(self, socket, frame):
        kind, message = frame["type"], frame["message"]
        if kind == "HeartbeatMessage":
            socket.send(json.dumps({"type": "HeartbeatAckRequest", "message": {"messageId": message["messageId"]}}))
        elif kind in ("PayloadMessage", "TaskManifestMessage") and self.acks:
            self.ack(message)
        if kind == "PayloadMessage":
            for task in message["tasks"]:
                self.known.setdefault(task["arn"], {c["name"]: self._bindings(c) for c in task.get("containers", [])})
                wanted = task["desiredStatus"]
                if wanted == "RUNNING" and (reason := self.refuses(task)):
                    self._work.put((task["arn"], reason))
                elif (wanted == "RUNNING" and self.runs) or (wanted == "STOPPED" and self.stops):
                    self._work.put((task["arn"], wanted))

    def _bindings(self, container):
        found = []
        for mapping in container.get("portMappings") or []:
            self._port += 1
            port = mapping.get("hostPort") or self._port
            protocol = mapping.get("protocol", "tcp")
            found.append({"bindIP": "0.0.0.0", "containerPort": mapping["containerPort"], "hostPort": port, "protocol": protocol})
        return found

    def _report_all(self):
        # Not in the reading thread: a report that waits must not keep heartbeats unanswered.
        while (work := self._work.get()) is not None:
            task, wanted = work
            try:
                if wanted not in ("RUNNING", "STOPPED"):
                    names = self.known[task]
                    stopped = [{"containerName": name, "status": "STOPPED", "reason": wanted} for name in names]
                    self.report(task, "STOPPED", reason=wanted, containers=stopped)
                    continue
                self.report(task, wanted, exit_code=137 if wanted == "STOPPED" else None)
            except Exception as error:  # noqa: BLE001 - the server may be restarting; a real agent tries again, too
                if not self.berth.alive:
                    continue
                print(f"fake agent: cannot report {task} {wanted}: {error}")
                status = getattr(error, "response", {}).get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
                if status >= 500:
                    # The server can't write now, say. A real agent keeps at it, or the task stays where it was for good.
                    time.sleep(0.2)
                    self._work.put(work)

    def wait_for(self, kind, check=lambda message: True, patience=60):
        """The first frame of that kind, since the connection began, for which the check holds."""
        with self._seen:
            found = []

            def look():
                found[:] = [message for name, message in self.frames if name == kind and check(message)]
                return bool(found)

            assert self._seen.wait_for(look, patience), f"no {kind} came; seen: {[name for name, _ in self.frames]}"
            return found[0]

    def wait_for_task(self, arn, desired, patience=60):
        """The task as a payload brought it."""
        message = self.wait_for(
            "PayloadMessage", lambda m: any(t["arn"] == arn and t["desiredStatus"] == desired for t in m["tasks"]), patience
        )
        return next(t for t in message["tasks"] if t["arn"] == arn and t["desiredStatus"] == desired)
