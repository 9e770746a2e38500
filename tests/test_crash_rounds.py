"""Load, and kill -9 of server, agent or both at random moments, a hundred times over. Then everything that was acknowledged is
compared with what Describe shows, and every container that runs with its task. And the same with two servers over three members of etcd,
where a member is killed as well.

BERTH_CRASH_ROUNDS sets the number of rounds, BERTH_CRASH_SEED the moments; the seed is printed.
"""

import os
import random
import time

import pytest

from berth import Berth, with_images
from containers import skip_unless_root
from crash_load import Load, settle_and_compare
from etcd_servers import EtcdCluster
from machine_agent import MachineAgent

skip_unless_root(__file__)
ROUNDS = int(os.environ.get("BERTH_CRASH_ROUNDS", "100"))
# The same moments every time, so that a red run is about the change; other seeds are for whoever looks for more.
SEED = int(os.environ.get("BERTH_CRASH_SEED", "1"))


@pytest.fixture
def berth(shell_archive):
    with with_images(Berth("server"), {"shell:1": shell_archive}) as berth:
        yield berth


@pytest.fixture
def agent(berth):
    agent = MachineAgent(berth)
    try:
        agent.start().until_connected()
        yield agent
    finally:
        agent.end()


def test_nothing_acknowledged_is_lost_and_nothing_runs_unknown(berth, agent):
    print(f"BERTH_CRASH_SEED={SEED} BERTH_CRASH_ROUNDS={ROUNDS}")
    dice = random.Random(SEED)
    load = Load([berth], SEED)
    try:
        for number in range(ROUNDS):
            time.sleep(dice.uniform(0.0, 0.6))
            who = dice.choice(["server", "agent", "both"])
            if who in ("server", "both"):
                berth.kill()
            if who in ("agent", "both"):
                agent.kill()
            time.sleep(dice.choice([0, 0, dice.uniform(0, 0.3)]))
            if who in ("agent", "both"):
                agent.start()
            if who in ("server", "both"):
                berth.start()
            assert not load.errors, (number, load.errors)
    finally:
        load.over.set()
    settle_and_compare(load, [berth], agent, ROUNDS)


@pytest.fixture
def etcd():
    cluster = EtcdCluster()
    try:
        yield cluster.start()
    finally:
        cluster.end()


@pytest.fixture
def peers(etcd, shell_archive):
    made = [Berth("server", arguments=["--store", etcd.url]) for _ in range(2)]
    try:
        for berth in made:
            berth.start()
            berth.run("image", "load", str(shell_archive), "shell:1")
        yield made
    finally:
        for berth in made:
            berth.end()


@pytest.fixture
def agent_of_both(peers):
    agent = MachineAgent(peers[0], backends=",".join(berth.endpoint for berth in peers))
    try:
        agent.start().until_connected()
        yield agent
    finally:
        agent.end()


def test_nor_with_several_servers_and_members_of_etcd(etcd, peers, agent_of_both):
    """A third of the rounds: each kills one of the servers, the agent, a member of etcd, or one of each."""
    rounds = max(1, ROUNDS // 3)
    print(f"BERTH_CRASH_SEED={SEED} BERTH_CRASH_ROUNDS={ROUNDS}")
    dice = random.Random(SEED)
    load = Load(peers, SEED)
    try:
        for number in range(rounds):
            time.sleep(dice.uniform(0.0, 1.0))
            server, member = dice.randrange(2), dice.randrange(3)
            doomed = dice.choice([{"server"}, {"member"}, {"agent"}, {"server", "member", "agent"}])
            if "member" in doomed:
                etcd.kill(member)
            if "server" in doomed:
                peers[server].kill()
            if "agent" in doomed:
                agent_of_both.kill()
            time.sleep(dice.choice([0, 0, dice.uniform(0, 1.0)]))
            if "agent" in doomed:
                agent_of_both.start()
            if "server" in doomed:
                peers[server].start()
            if "member" in doomed:
                etcd.revive(member)
                # The next to die may be another one, and two of three have to live.
                etcd.until_healthy(member)
            assert not load.errors, (number, load.errors)
    finally:
        load.over.set()
    settle_and_compare(load, peers, agent_of_both, rounds)
