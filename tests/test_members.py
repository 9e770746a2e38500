"""Which members of requests Berth refuses: each is sent in an otherwise good request, and members.json must say just that."""

import json
import os
from pathlib import Path

import pytest

from http_call import call
from member_requests import good, paths, with_member
from model_requests import OPERATIONS
from test_errors import world  # noqa: F401 - the fixture

TABLE = Path(__file__).parent / "members.json"


def is_refusal(answer, path):
    """Berth's own word for what it does not serve, which names the member or what it is in."""
    if answer.status != 400 or not ("Berth does not" in answer.message or "Berth serves" in answer.message):
        return False
    assert any(name.removesuffix("[]") in answer.message for name in path), f"{'.'.join(path)} is not named: {answer}"
    return True


def ends(answer):
    return answer.status, None if answer.status == 200 else answer.code


def measured(world, action):  # noqa: F811
    """Refused members and values with their errors, and what the probe itself got wrong."""
    refused, wrong = {}, []
    usual = ends(call(world.berth, action, good(action, world, ("",))))
    for path, shape in paths(action):
        name = ".".join(path)
        answer = call(world.berth, action, request := with_member(action, good(action, world, path), path))
        if ends(answer) == usual:
            pass
        elif is_refusal(answer, path):
            refused[name] = answer.code
        else:
            wrong.append(f"{name}: {answer} to {json.dumps(request)}")
        is_list = shape.type_name == "list"
        values = getattr(shape.member if is_list else shape, "enum", None) or []
        for value in values if name not in refused else []:
            answer = call(world.berth, action, with_member(action, good(action, world, path), path, [value] if is_list else value))
            if ends(answer) != usual and is_refusal(answer, path):
                refused[f"{name}={value}"] = answer.code
    return refused, wrong


def without_insides(refused):
    """What is in a refused structure is refused with it: that is said once."""
    def is_inside(name):
        names = name.split("=")[0].split(".")
        return any(".".join(names[:end]).removesuffix("[]") in refused for end in range(1, len(names)))

    return {name: code for name, code in refused.items() if not is_inside(name)}


@pytest.mark.parametrize("action", OPERATIONS)
def test_what_is_refused_is_what_the_table_says(world, action):  # noqa: F811
    refused, wrong = measured(world, action)
    assert not wrong, "\n".join(wrong)
    refused = without_insides(refused)
    table = json.loads(TABLE.read_text())
    if os.environ.get("BERTH_MEMBERS") == "write":
        table["refused"] = {**table["refused"], action: refused}
        write(table)
    assert refused == table["refused"].get(action, {}), "if this is meant: BERTH_MEMBERS=write pytest tests/test_members.py"


def test_what_is_only_stored_is_there_and_is_taken():
    table = json.loads(TABLE.read_text())
    seen = set()
    for group in table["stored"]:
        assert group["why"]
        for action, names in group["members"].items():
            known = {".".join(path).replace("[]", "") for path, _ in paths(action)}
            refused = {name.replace("[]", "") for name in table["refused"].get(action, {})}
            for name in names:
                assert name in known, f"{action} has no {name}"
                assert name not in refused, f"{action} refuses {name}"
                assert (action, name) not in seen, f"{action} {name} is there twice"
                seen.add((action, name))


def write(table):
    """A line for each action's refusals and for each group's actions."""
    refused = {action: names for action, names in sorted(table["refused"].items()) if names}
    lines = ",\n".join(f"    {json.dumps(action)}: {json.dumps(dict(sorted(names.items())))}" for action, names in refused.items())
    groups = []
    for group in table["stored"]:
        rows = ",\n".join(f"      {json.dumps(action)}: {json.dumps(sorted(names))}" for action, names in sorted(group["members"].items()))
        groups.append(f'    {{"why": {json.dumps(group["why"])}, "members": {{\n{rows}\n    }}}}')
    whole = ",\n".join(groups)
    TABLE.write_text(f'{{\n  "refused": {{\n{lines}\n  }},\n  "stored": [\n{whole}\n  ]\n}}\n')
