"""What containers are made of in the kernel, listed by names that tell one data directory's Berth from another's.

The listing is what tests compare before and after; the removal is only for what a killed run or a failed test left.
"""

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import ledger

CGROUPS = Path("/sys/fs/cgroup")


def short_name(data_dir):
    """Berth's own eight letters for a data directory: in names of bridge, table, cgroups and namespaces."""
    return hashlib.sha256(os.fsencode(os.path.realpath(data_dir))).hexdigest()[:8]


def mounts(*words):
    """Mount points that name any of the words."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    points = [line.split(" ")[4] for line in lines]
    return sorted(point for point in points if any(word in point for word in words))


def cgroups(*words):
    """Cgroup folders of all hierarchies whose path names any of the words."""
    found = []
    for folder, _, _ in os.walk(CGROUPS):
        if any(word in folder for word in words):
            found.append(folder)
    return sorted(found)


def links(*words):
    """Network links; without words all of them."""
    names = os.listdir("/sys/class/net")
    return sorted(name for name in names if not words or any(word in name for word in words))


def nft_tables(*words):
    """Tables of nftables; empty where there is no nft to ask."""
    nft = shutil.which("nft") or "/usr/sbin/nft"
    if not os.path.exists(nft):
        return []
    done = subprocess.run([nft, "list", "tables"], capture_output=True, text=True, timeout=30, check=False)
    return sorted(line for line in done.stdout.splitlines() if not words or any(word in line for word in words))


def namespaces(name):
    folder = Path("/run/berth") / name
    return sorted(str(path) for path in folder.rglob("*")) if folder.exists() else []


def processes(*words):
    """Processes whose command line, root folder or cgroup names any of the words."""
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        text = ""
        with contextlib.suppress(OSError):
            text = Path(f"/proc/{entry}/cgroup").read_text()
            text += Path(f"/proc/{entry}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        with contextlib.suppress(OSError):
            text += os.readlink(f"/proc/{entry}/root")
        if any(word in text for word in words):
            found.append(int(entry))
    return sorted(found)


def of(data_dir):
    """Everything that belongs to a data directory's Berth, by kind."""
    name, folder = short_name(data_dir), str(Path(data_dir).parent)
    return {
        "mounts": mounts(name, folder),
        "cgroups": cgroups(f"berth-{name}"),
        "links": links(f"br-{name}"),
        "namespaces": namespaces(name),
        "nft tables": nft_tables(f"berth_{name}"),
        "processes": processes(f"berth-{name}", folder),
    }


def veths(data_dir):
    """The machine's ends of the pairs that lead to its containers: those on its bridge."""
    bridge, found = f"br-{short_name(data_dir)}", []
    for link in links():
        with contextlib.suppress(OSError):
            if os.path.basename(os.readlink(f"/sys/class/net/{link}/master")) == bridge:
                found.append(link)
    return found


def nft_elements(data_dir):
    """Rules, and elements of sets and maps, of its tables."""
    nft, count = shutil.which("nft") or "/usr/sbin/nft", 0
    for line in nft_tables(f"berth_{short_name(data_dir)}"):
        listed = subprocess.run([nft, "-j", "list", *line.split()], capture_output=True, text=True, timeout=30, check=True)
        for entry in json.loads(listed.stdout)["nftables"]:
            count += "rule" in entry
            count += sum(len(entry[kind].get("elem", [])) for kind in ("set", "map") if kind in entry)
    return count


def paths(folder):
    """Files and folders below a folder."""
    return {os.path.join(place, name) for place, folders, names in os.walk(folder) for name in folders + names}


def files(folder):
    """How many of them. Images are counted too: they come with a pull, not with a task."""
    return len(paths(folder))


def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def private_memory(pid):
    """Bytes of a process's own, those apart that it shares with others or that are a file's."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith("Private_Dirty:"))


def tally(data_dir, agent_dir=None):
    """How much of each kind a data directory's agent has for its tasks. `agent_dir` is where its containers' folders are."""
    name, agent_dir = short_name(data_dir), Path(agent_dir or data_dir)
    own = f"berth-{name}"
    return {
        "mounts": len(mounts(name, str(Path(data_dir).parent))),
        "namespaces": len(namespaces(name)),
        "veths": len(veths(data_dir)),
        "cgroups": len([folder for folder in cgroups(own) if not folder.endswith(own)]),
        "nft elements": nft_elements(data_dir),
        "processes": len(processes(f"{own}/")),
        "files": sum(files(agent_dir / kind) for kind in ("containers", "network", "shared", "volumes")) + len(ledger.kept(agent_dir)),
    }


def remove_all_of(data_dir):
    """By force. Processes must be in a cgroup that bears our name, or they are left alone."""
    if os.geteuid() != 0:
        return
    name = short_name(data_dir)
    ours = f"berth-{name}"
    for _ in range(50):
        members = {int(pid) for folder in cgroups(ours) for pid in _members(folder)}
        for pid in members:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if not members:
            break
        time.sleep(0.1)
    for folder in sorted(cgroups(ours), key=len, reverse=True):
        with contextlib.suppress(OSError):
            os.rmdir(folder)
    for point in sorted(mounts(name, str(data_dir)), key=len, reverse=True):
        subprocess.run(["umount", "-l", point], capture_output=True, timeout=30, check=False)
    shutil.rmtree(f"/run/berth/{name}", ignore_errors=True)
    if links(f"br-{name}"):
        subprocess.run(["ip", "link", "del", f"br-{name}"], capture_output=True, timeout=30, check=False)
    for line in nft_tables(f"berth_{name}"):
        subprocess.run(["nft", "delete", *line.split()], capture_output=True, timeout=30, check=False)


def _members(folder):
    try:
        return Path(folder, "cgroup.procs").read_text().split()
    except OSError:
        return []
