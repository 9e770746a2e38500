"""Fixtures: a server alone for the whole run, a Berth with real containers for a module, and others on demand."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import seen  # noqa: E402
from berth import (  # noqa: E402
    ROOT,
    Berth,
    clear_up_after_killed_runs,
    load_images,
    remove_run_folder,
    run_folder,
    unique,
    with_images,
)


def pytest_configure(config):
    # With xdist the workers would each clear up what the others use; only the first process does.
    if not hasattr(config, "workerinput"):
        clear_up_after_killed_runs()
        seen.begin(run_folder())
        config.pluginmanager.register(Witness(config), "witness")


class Witness:
    """Holds seen.json against what this run saw."""

    def __init__(self, config):
        self.run, self.told = seen.Run(config), []

    def pytest_runtest_logreport(self, report):
        self.run.report(report)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session, exitstatus):
        # A run that was interrupted ended in the middle of a file.
        if exitstatus not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
            return
        self.told, failed = self.run.finish()
        if failed and exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter):
        if self.told:
            terminalreporter.section("what the suite saw")
            for line in self.told:
                terminalreporter.line(line)


def pytest_unconfigure():
    # xdist's workers end without their atexit functions.
    remove_run_folder()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    if report.when == "call" and report.failed:
        for value in item.funcargs.values():
            if isinstance(value, Berth):
                report.sections.append((f"log of berth {value.role}", value.tail(15)))


@pytest.fixture(scope="session")
def server():
    """`berth server` on a free port. Shared: tests use clusters and families of their own names."""
    berth = Berth("server")
    try:
        yield berth.start()
    finally:
        berth.end()


@pytest.fixture
def ecs(server):
    return server.ecs


@pytest.fixture
def cluster(server):
    """A cluster of the test's own."""
    name = unique("c")
    server.ecs.create_cluster(clusterName=name)
    return name


@pytest.fixture
def new_berth():
    """Makes Berths that are not started yet: `new_berth("server")`."""
    made = []

    def make(role="server", **settings):
        berth = Berth(role, **settings)
        made.append(berth)
        return berth

    yield make
    for berth in made:
        berth.end()


@pytest.fixture(scope="session")
def hello_archive():
    """target/hello.tar, packed by `cargo xtask image` if it is not there."""
    path = ROOT / "target/hello.tar"
    if not path.exists():
        subprocess.run(["cargo", "xtask", "image"], cwd=ROOT, check=True, timeout=1800)
    return path


@pytest.fixture(scope="session")
def shell_archive(tmp_path_factory):
    """A plain root file system tar with a shell, taken from this machine."""
    from images import pack_shell

    return pack_shell(tmp_path_factory.mktemp("image") / "shell.tar")


@pytest.fixture(scope="session")
def both_images(hello_archive, shell_archive):
    return {"hello:latest": hello_archive, "shell:1": shell_archive}


@pytest.fixture(scope="module")
def up(both_images):
    """`berth up` with the images hello:latest and shell:1, ended and checked for leftovers at the module's end."""
    with with_images(Berth("up"), both_images) as berth:
        yield berth


@pytest.fixture
def new_up(both_images):
    """A `berth up` of the test's own, started and with both images."""
    made = []

    def make(**settings):
        berth = Berth("up", **settings)
        made.append(berth)
        return load_images(berth.start(), both_images)

    yield make
    for berth in made:
        berth.end()


@pytest.fixture(scope="module")
def docker_folder(request):
    """A folder for a Docker of the tests' own (docker_namespaces.py), or a skip that says why there is none."""
    from docker_namespaces import make_folder

    place = make_folder(request.path)
    yield place
    shutil.rmtree(place, ignore_errors=True)


@pytest.fixture
def agents(server):
    """Joins fake agents to clusters: `agents(cluster, cpu=1024)`; they leave at the test's end."""
    from fake_agent import FakeAgent

    joined = []

    def join(cluster, berth=server, **settings):
        agent = FakeAgent(berth, cluster, **settings)
        joined.append(agent)
        return agent.join()

    yield join
    for agent in joined:
        agent.leave()


