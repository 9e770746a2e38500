"""What the suite saw: which actions each test file called and which of the model's errors came back, as kept in seen.json. ECS's actions
stand there by name, those of other services with the service's name and a colon before it. EC2's model documents no errors: there all count.

Every call of a run is noted in the run's own folder, by whatever process made it. At the end of a run what seen.json says of each
file that ran whole and passed must have been seen again; what is new is told, and BERTH_SEEN=write writes it.
"""

import json
import os
from pathlib import Path

from botocore.session import get_session

FILE = Path(__file__).parent / "seen.json"
# The folder of a run's notes; in the environment, so that pytest-xdist's workers have it too.
FOLDER = "BERTH_TESTS_SEEN"
# An answer that is no error.
GOOD = "ok"
# Here the answers depend on when something was killed, full or overloaded: nothing that a next run would have to show again.
BY_CHANCE = {
    "test_backup.py", "test_crash.py", "test_crash_rounds.py", "test_disk_full.py", "test_host_loss.py", "test_overload.py", "test_peers.py",
    "test_etcd_secured.py",
}

# The services whose actions are noted, with whether their models document errors.
SERVICES = {"ecs": True, "ec2": False, "servicediscovery": True}

_models = {}
_noted = set()


def model(service="ecs"):
    """The errors that a service's model documents, by action."""
    if service not in _models:
        known = get_session().get_service_model(service)
        _models[service] = {
            name: {code for shape in known.operation_model(name).error_shapes for code in (shape.name, shape.metadata.get("error", {}).get("code")) if code}
            for name in known.operation_names
        }
    return _models[service]


def note(action, error=None, service="ecs"):
    """A call was answered: with this error's code, or well."""
    folder, test = os.environ.get(FOLDER), os.environ.get("PYTEST_CURRENT_TEST")
    if not folder or not test:
        return
    file = test.split("::")[0].rsplit("/", 1)[-1]
    name = action if service == "ecs" else f"{service}:{action}"
    one = (file, name, error or GOOD)
    if one in _noted or file in BY_CHANCE or service not in SERVICES or action not in model(service):
        return
    _noted.add(one)
    # What every action of every AWS service may answer is tested once, not for each.
    if error is None or not SERVICES[service] or error in model(service)[action]:
        with (Path(folder) / f"{os.getpid()}.calls").open("a") as notes:
            notes.write(json.dumps(one) + "\n")


def note_parsed(parsed, model, **_):
    """botocore's event `after-call`."""
    note(model.name, parsed.get("Error", {}).get("Code"), model.service_model.service_name)


def begin(folder):
    """Before the first test, in the process that runs the others."""
    path = folder / "seen"
    path.mkdir(exist_ok=True)
    os.environ[FOLDER] = str(path)


class Run:
    """Which files of the suite ran whole, and what they saw."""

    def __init__(self, config):
        option = config.getoption
        chosen = any("::" in str(argument) for argument in config.args)
        self.is_part = chosen or any(option(name, None) for name in ("keyword", "markexpr", "deselect", "lf", "collectonly"))
        self.outcomes = {}

    def report(self, report):
        """One test's phase ended."""
        file = report.nodeid.split("::")[0].rsplit("/", 1)[-1]
        self.outcomes[file] = self.outcomes.get(file, True) and report.outcome == "passed"

    def finish(self):
        """Compares with seen.json, or writes it: what to tell, and whether that is a failure."""
        if self.is_part or FOLDER not in os.environ:
            return [], False
        whole = {file for file, passed in self.outcomes.items() if passed} - BY_CHANCE
        now = {
            tuple(json.loads(line))
            for notes in Path(os.environ[FOLDER]).glob("*.calls")
            for line in notes.read_text().splitlines()
        }
        claimed = read()
        here = {path.name for path in FILE.parent.glob("test_*.py")} - BY_CHANCE
        lost = {one for one in claimed - now if one[0] in whole or one[0] not in here}
        new = now - claimed
        if os.environ.get("BERTH_SEEN") == "write":
            write((claimed - lost) | new)
            return [f"seen.json is written: {len(new)} more, {len(lost)} fewer"], False
        wrong = sorted(one for one in now if one[1:] in impossible())
        told = [f"cannot_happen.json says that {action} has no {error}; {file} saw it" for file, action, error in wrong]
        told += [f"seen.json says that {file} sees {error} of {action}; it did not" for file, action, error in sorted(lost)]
        if lost or new:
            told.append(f"{len(new)} things are new. To write what was seen: BERTH_SEEN=write pytest tests; then cargo xtask conformance")
        return told, bool(lost or wrong)


def impossible():
    """The pairs of action and error that cannot_happen.json explains."""
    rows = json.loads((FILE.parent / "cannot_happen.json").read_text())
    return {
        (action, row["error"]) for row in rows for action in row.get("actions") or model() if row["error"] in model().get(action, ())
    }


def read():
    """The triples of file, action and error in seen.json."""
    text = json.loads(FILE.read_text()) if FILE.exists() else {}
    return {(file, action, error) for action, errors in text.items() for error, files in errors.items() for file in files}


def write(triples):
    """Writes seen.json: action, error, files, all in order, an error a line."""
    actions = {}
    for file, action, error in sorted(triples, key=lambda one: (one[1], one[2], one[0])):
        actions.setdefault(action, {}).setdefault(error, []).append(file)
    blocks = []
    for action, errors in actions.items():
        lines = ",\n".join(f"    {json.dumps(error)}: {json.dumps(files)}" for error, files in errors.items())
        blocks.append(f"  {json.dumps(action)}: {{\n{lines}\n  }}")
    FILE.write_text("{\n" + ",\n".join(blocks) + "\n}\n")
