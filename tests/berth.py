"""Starting and stopping a Berth for tests, talking to it, and leaving nothing behind.

Never signals a process that is not shown to be a Berth started here, and never talks to anything but loopback.
"""

import atexit
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from pathlib import Path

import boto3
from botocore.config import Config

import seen
from ports import free_port

ROOT = Path(__file__).resolve().parent.parent
# Every run keeps its data directories below its own folder here, so that a later run can clear up after a killed one.
RUNS = Path("/tmp/berth-tests")
# Generous: a loaded machine may take long, and no test judges speed.
PATIENCE = 120.0


class Gone(AssertionError):
    """Something that was waited for did not come in time."""


def binary():
    """The program under test: $BERTH_BIN, else the release build, else the debug build."""
    given = os.environ.get("BERTH_BIN")
    candidates = [Path(given)] if given else [ROOT / "target/release/berth", ROOT / "target/debug/berth"]
    for path in candidates:
        if path.is_file():
            return path
    raise FileNotFoundError(f"no berth to test: build it with `cargo build`, or set BERTH_BIN ({candidates})")


def until(what, check, patience=PATIENCE, pause=0.05):
    """Polls `check` until it gives something true, and returns that; `what` says in the error what was waited for."""
    end = time.monotonic() + patience
    while True:
        found = check()
        if found:
            return found
        if time.monotonic() > end:
            raise Gone(f"waited {patience:.0f} s for {what}; last: {found!r}")
        time.sleep(pause)


# -- folders of runs ---------------------------------------------------------------------------------------------------


def start_time(pid):
    """When a process started, in clock ticks; None if it has ended. A pid alone may come to mean another process."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]


def command_line(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return []


_run = None


def run_folder():
    """This run's folder, made at the first call and removed at the end."""
    global _run
    if _run is None:
        RUNS.mkdir(mode=0o1777, exist_ok=True)
        with contextlib.suppress(PermissionError):
            RUNS.chmod(0o1777)
        _run = Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=RUNS))
        (_run / "pid").write_text(f"{os.getpid()} {start_time(os.getpid())}")
        atexit.register(remove_run_folder)
    return _run


def remove_run_folder():
    if _run is not None:
        shutil.rmtree(_run, ignore_errors=True)


def fresh_folder(name):
    return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=run_folder()))


# -- a running Berth ---------------------------------------------------------------------------------------------------


def clean_environment(**extra):
    """What a child gets: nothing of the caller's AWS or Berth settings."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "ECS_", "BERTH_"))}
    kept["AWS_EC2_METADATA_DISABLED"] = "true"
    if os.environ.get("BERTH_LIBEXEC"):
        kept["BERTH_LIBEXEC"] = os.environ["BERTH_LIBEXEC"]
    kept.update(extra)
    return kept


class Berth:
    """One Berth process with its data directory. `role` is "server" or "up"."""

    def __init__(self, role, *, data_dir=None, arguments=(), healthy_after=1, listen="127.0.0.1:0", environment=None):
        self.role = role
        self.data_dir = Path(data_dir) if data_dir else fresh_folder(role) / "data"
        # Its parent is removed at the end: that must be nobody else's.
        if not self.data_dir.resolve().parent.is_relative_to(run_folder().resolve()):
            raise ValueError(f"{self.data_dir} is not in this run's folder {run_folder()}")
        self.arguments = ["--healthy-after", str(healthy_after), *arguments]
        # Not one that the system gives out: while Berth is away, an agent that knocks again and again could be given it, and talk to itself.
        self.listen = listen[:-1] + str(free_port()) if listen.endswith(":0") else listen
        self.variables = environment or {}
        self.log = self.data_dir.parent / "berth.log"
        self.process = None
        self._clients = {}

    def start(self, wait=True):
        """Starts it, and waits until it is ready."""
        command = [str(binary()), self.role, "--data-dir", str(self.data_dir), "--listen", self.listen, *self.arguments]
        with contextlib.suppress(FileNotFoundError):
            (self.data_dir / "endpoint.json").unlink()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=clean_environment(BERTH_LOG="info", **self.variables), start_new_session=True
            )
        self._clients.clear()
        (self.data_dir.parent / "berth.pid").write_text(str(self.process.pid))
        if wait:
            until("Berth to be ready", self._ready)
            # A restart takes the same port, as an operator's fixed --listen would.
            self.listen = self.endpoint.removeprefix("http://")
        return self

    def _ready(self):
        if self.process.poll() is not None:
            raise AssertionError(f"berth {self.role} ended with {self.process.returncode}:\n{self.tail()}")
        try:
            file = json.loads((self.data_dir / "endpoint.json").read_text())
        except (OSError, ValueError):
            return False
        return file["pid"] == self.process.pid and http_status(file["endpoint"] + "/healthz") == 200

    @property
    def endpoint(self):
        return json.loads((self.data_dir / "endpoint.json").read_text())["endpoint"]

    @property
    def credentials(self):
        """Access key id and secret."""
        values = dict(
            line.split(" = ", 1) for line in (self.data_dir / "credentials").read_text().splitlines() if " = " in line
        )
        return values["aws_access_key_id"], values["aws_secret_access_key"]

    def client(self, service="ecs", **settings):
        """A boto3 client. It does not repeat refused calls, so that a test sees each answer."""
        name = (service, repr(sorted(settings.items())))
        if name not in self._clients:
            key, secret = self.credentials
            config = {"retries": {"max_attempts": 1, "mode": "standard"}, "max_pool_connections": 50, "read_timeout": 120, **settings}
            self._clients[name] = boto3.session.Session().client(
                service,
                endpoint_url=self.endpoint,
                region_name="us-east-1",
                aws_access_key_id=key,
                aws_secret_access_key=secret,
                config=Config(**config),
            )
            self._clients[name].meta.events.register("after-call", seen.note_parsed)
        return self._clients[name]

    @property
    def ecs(self):
        return self.client()

    @property
    def loose(self):
        """A client that sends whatever it is given: the server's own checks answer."""
        return self.client(parameter_validation=False)

    def environment(self):
        """What `berth env` would export, for tools."""
        key, secret = self.credentials
        return clean_environment(
            AWS_ENDPOINT_URL=self.endpoint,
            AWS_ACCESS_KEY_ID=key,
            AWS_SECRET_ACCESS_KEY=secret,
            AWS_REGION="us-east-1",
            AWS_DEFAULT_REGION="us-east-1",
            AWS_PAGER="",
            AWS_CONFIG_FILE=os.devnull,
            AWS_SHARED_CREDENTIALS_FILE=os.devnull,
        )

    def aws(self, *arguments, check=True):
        """Runs the AWS CLI; gives its JSON, or the finished process with check=False."""
        done = subprocess.run(
            [aws_binary(), *arguments], env=self.environment(), capture_output=True, text=True, timeout=PATIENCE, check=False
        )
        error = re.search(r"An error occurred \(([\w.]+)\) when calling", done.stderr)
        if error or done.returncode == 0:
            seen.note("".join(word.capitalize() for word in arguments[1].split("-")), error and error[1], arguments[0])
        if not check:
            return done
        assert done.returncode == 0, f"aws {' '.join(arguments)}: {done.returncode}\n{done.stdout}{done.stderr}"
        return json.loads(done.stdout) if done.stdout.strip() else {}

    def run(self, *arguments, check=True):
        """Runs one of Berth's own commands against this data directory."""
        done = subprocess.run(
            [str(binary()), *arguments, "--data-dir", str(self.data_dir)],
            env=clean_environment(NO_COLOR="1"),
            capture_output=True,
            text=True,
            timeout=PATIENCE * 2,
            check=False,
        )
        if check:
            assert done.returncode == 0, f"berth {' '.join(arguments)}: {done.returncode}\n{done.stdout}{done.stderr}\n{self.tail()}"
        return done

    def tail(self, lines=60):
        try:
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])
        except OSError:
            return "(no log)"

    @property
    def alive(self):
        return self.process is not None and self.process.poll() is None

    def signal(self, number):
        assert self.alive, f"berth {self.role} is not running:\n{self.tail()}"
        self.process.send_signal(number)

    def wait(self, patience=PATIENCE * 2):
        try:
            return self.process.wait(patience)
        except subprocess.TimeoutExpired:
            raise Gone(f"berth {self.role} has not ended in {patience} s:\n{self.tail()}") from None

    def kill(self):
        """kill -9, as power loss would end it."""
        self.signal(signal.SIGKILL)
        self.wait()

    def terminate(self):
        """SIGTERM; gives the exit code."""
        self.signal(signal.SIGTERM)
        return self.wait()

    def _has_left_something(self):
        import leftovers

        return any(leftovers.of(self.data_dir).values())

    def end(self):
        """Whatever state it is in: stops tasks and server, and removes the data directory. Only failures are an error."""
        try:
            if self.role == "up" and not self.alive and self._has_left_something():
                # Only a Berth knows how to end containers properly.
                self.listen = "127.0.0.1:0"
                self.start(wait=False)
                until("Berth to be ready for its end", lambda: self.process.poll() is not None or self._ready(), 30)
            if self.alive:
                # A server alone has only tasks of fake agents, which nobody could stop any more.
                self.signal(signal.SIGUSR1 if self.role == "up" else signal.SIGTERM)
                self.wait()
        finally:
            if self.alive:
                self.kill()
            if self.role == "up":
                sweep(self.data_dir)
            shutil.rmtree(self.data_dir.parent, ignore_errors=True)


def load_images(berth, images):
    """Gives it images, archives by name; gives the Berth."""
    for name, archive in images.items():
        berth.run("image", "load", str(archive), name)
    return berth


@contextlib.contextmanager
def with_images(berth, images):
    """A Berth that runs and has these images; ended, and looked at for what it left, at the end."""
    try:
        yield load_images(berth.start(), images)
    finally:
        berth.end()


def http_status(url):
    import urllib.error
    import urllib.request

    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=5) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return None


def http_text(url, timeout=5):
    """The body of a page, or None if nobody answers."""
    import urllib.request

    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=timeout) as answer:
            return answer.read().decode()
    except OSError:
        return None


def aws_binary():
    for path in (ROOT / ".venv/bin/aws", Path(shutil.which("aws") or "/nonexistent")):
        if path.is_file():
            return str(path)
    raise FileNotFoundError("the AWS CLI is not installed: pip install -r tests/requirements.txt")


def unique(prefix="t"):
    return f"{prefix}-{uuid.uuid4().hex[:8]}"


# -- what killed runs left ---------------------------------------------------------------------------------------------


def clear_up_after_killed_runs():
    """Ends what a run left that was killed: its processes, mounts, namespaces, cgroups and folders."""
    if not RUNS.is_dir():
        return
    for folder in RUNS.iterdir():
        try:
            pid, since = (folder / "pid").read_text().split()
            if folder.stat().st_uid != os.getuid() or start_time(int(pid)) == since:
                continue
        except (OSError, ValueError):
            continue
        print(f"berth-tests: clearing up after the killed run {folder}")
        for file in folder.glob("*/berth.pid"):
            end_leftover(int(file.read_text() or 0), file.parent)
        for data_dir in folder.glob("*/data"):
            sweep(data_dir)
        shutil.rmtree(folder, ignore_errors=True)


def end_leftover(pid, folder):
    """Asks a forgotten Berth to stop its tasks and end, then insists. Its command line must name the folder."""
    words = command_line(pid)
    if not words or "berth" not in words[0] or not any(str(folder) in word for word in words):
        return
    for number, patience in ((signal.SIGUSR1, 90), (signal.SIGKILL, 10)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        end = time.monotonic() + patience
        while command_line(pid) == words and time.monotonic() < end:
            time.sleep(0.1)
        if command_line(pid) != words:
            return


def sweep(data_dir):
    """Removes by their names whatever kernel objects a data directory's Berth still has. A no-op after a clean end."""
    from leftovers import remove_all_of

    remove_all_of(data_dir)
