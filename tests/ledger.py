"""The agent's ledger of tasks as a test reads and changes it while no agent has it open: one change a line, `RS crc32 space json`."""

import json
import zlib

FILE = "tasks.log"


def kept(agent_dir):
    """Ids of the tasks that it keeps; none where there is no ledger."""
    tasks, path = {}, agent_dir / FILE
    for line in path.read_bytes().split(b"\x1e")[1:] if path.exists() else []:
        checksum, text = line.rstrip(b"\n").split(b" ", 1)
        if not line.endswith(b"\n") or int(checksum, 16) != zlib.crc32(text):
            continue  # Cut off: the write is under way.
        said = json.loads(text)
        if "entry" in said:
            tasks[said["id"]] = said["entry"]
        else:
            tasks.pop(said.get("id"), None)
    return set(tasks)


def forget(agent_dir, task_id):
    assert task_id in kept(agent_dir)
    text = json.dumps({"id": task_id}, separators=(",", ":")).encode()
    with open(agent_dir / FILE, "ab") as ledger:
        ledger.write(b"\x1e%08x %s\n" % (zlib.crc32(text), text))
