"""What must hold once everything was mended and nobody owes anybody anything (I2, I6, I12, I15, I33, I35).

Replicas hold the same bytes, of every key what its history allows; reading everything makes nobody repair anything;
no hint is left, and the nodes' own checks pass. What clients were told all along is judged here too, where it takes the
whole of it: refused writes, sessions, the names of buckets.
"""

from __future__ import annotations

from collections.abc import Container
from typing import Final

from leafdb.model.purge import NEVER, record_death
from leafdb.model.record import describe
from leafdb.node.hint_keeper import HINTS_TREE
from leafdb.ring.plan import Phase
from leafdb.ring.ring import Ring
from leafdb.ring.token import split_storage_key
from leafdb.sim.clients import DirectClient
from leafdb.sim.disk_troubles import unsound
from leafdb.sim.recorder import ReadHow
from leafdb.sim.ring_rules import rest_problems
from leafdb.sim.ring_watch import RingWatch
from leafdb.sim.setting import Setting
from leafdb.testing import linearizability, session_guarantees
from leafdb.testing.final_record import check_final
from leafdb.testing.linearizability_models import NameRegistry
from leafdb.testing.stores import tree_of
from leafdb.testing.violation import Invariant, require, violated
from leafdb.types import FIRST_BUCKET_ID, NodeId, Token, TreeId

REREAD_S: Final = 30.0
"""The deadline of a read in a cluster where nothing is wrong."""


async def check_converged(setting: Setting, *, buried: bool = False) -> None:
    """Raise Violation unless all of it holds; the cluster has been mended and has settled. `buried`: and had the time
    to forget all that died."""
    history, trace = setting.history, setting.trace
    setting.copies.check_hints()
    records = await _same_everywhere(setting, buried=buried)
    for key in history.written_keys():
        check_final(history, key, records.pop(key, None))
    for key in records:
        violated(Invariant.NO_PHANTOMS, "the stores hold a key that nobody wrote", key)
    await _check_hints_and_memory(setting)
    await _check_quiet(setting)
    for number, node in sorted(setting.cluster.nodes.items()):
        problem = unsound(node, setting.cluster.disks[number])
        require(not problem, Invariant.CORRUPTION_DETECTED, f"n{number} is left with damage: {problem}")
    history.check_honest()
    session_guarantees.check(setting.sessions)
    _check_names(setting)
    unknown = [write for write in history.writes.values() if write.outcome == "unknown"]
    applied = sum(1 for write in unknown if write.dots)
    trace.probe("unknown_applied", applied)
    trace.probe("unknown_not_applied", len(unknown) - applied)
    trace.probe("conflict_seen", history.facts["siblings"])
    trace.probe("expiry_seen", history.facts["expired"])


async def _same_everywhere(setting: Setting, *, buried: bool) -> dict[str, bytes]:
    """The record of each key, by name; a stray key by its bytes."""
    cluster, bucket = setting.cluster, setting.bucket
    trees = {
        node.view.self_id: await tree_of(node, TreeId(bucket.id))
        for _, node in sorted(cluster.nodes.items())
        if node.view.metadata is not None
    }
    ring = cluster.ring
    names = {stored: key for key, stored in setting.stored_keys()}
    found: dict[str, bytes] = {}
    for key in sorted(set().union(*trees.values())):
        name = names.get(key, key.hex())
        owners = ring.primaries(ring.partition_of(Token(int.from_bytes(key[:8], "big"))), bucket.n)
        held = {number: tree.get(key) for number, tree in trees.items()}
        data = held[owners[0]]
        strays = [number for number, other in held.items() if other is not None and number not in owners]
        if data is None or strays or any(held[owner] != data for owner in owners):
            violated(Invariant.REPLICAS_EQUAL, f"its primaries are {_numbers(owners)}; held by\n{_story(held)}", name)
        least = NEVER if buried else horizon_of(key, ring)
        living = record_death(data) >= least
        require(living, Invariant.SPACE_RECLAIMED, f"a record that dies below {least} is still there", name)
        found[name] = data
    return found


def horizon_of(storage_key: bytes, ring: Ring) -> int:
    """The horizon of the partition that a key is in; 0: none."""
    horizons = ring.metadata.horizons
    return horizons[ring.partition_of(split_storage_key(storage_key)[0])].stamp if horizons else 0


async def check_ring(setting: Setting, lost: Container[NodeId]) -> None:
    """Raise Violation unless a ring that has changed is at rest: fair, and with nothing left of plans (I20, I22).
    `lost` are the machines that did not come back."""
    watch = setting.ring
    assert watch is not None
    metadata = watch.newest
    assert metadata is not None
    require(metadata.plan is None, Invariant.LIVENESS, "a plan is in progress")
    for problem in rest_problems(metadata, setting.bucket.n):
        violated(*problem)
    for machine, node in sorted(setting.cluster.nodes.items()):
        number = node.view.self_id
        if node.view.metadata is None:
            left = [tree for tree in node.engine.trees() if tree >= FIRST_BUCKET_ID]
            require(not left, Invariant.BANS_FINAL, f"n{machine} is blank, and holds {left}")
            continue
        require(number in metadata.members, Invariant.BANS_FINAL, f"n{machine} runs as {number}, who is no member")
        settled = node.transfers.settled() and not node.transfers.report().total
        require(settled, Invariant.BANS_FINAL, f"n{machine} has copies to make, though no plan is in progress")
    check_sent_away(watch, setting.cluster.nodes, lost)


def check_sent_away(watch: RingWatch, running: Container[NodeId], lost: Container[NodeId]) -> None:
    """Whose join was given up has emptied its store, and is blank; unless it had been told that it is read, or is on a
    machine that was lost while it joined."""
    for step in watch.steps:
        for member in step.plan.joining if step.given_up else ():
            machine = watch.machines[member]
            belief = watch.last_belief(machine)
            plan = None if belief is None else belief.plan
            knew_it_is_read = plan is not None and plan.phase is Phase.WRITE_BOTH_READ_NEW
            latest = [number for number, place in watch.machines.items() if place == machine][-1] == member
            knows = latest and plan is not None and plan.id == step.plan.id and not knew_it_is_read
            if knows and machine not in lost:
                text = f"n{machine} was sent away while it joined, and is not blank again"
                require(machine in running, Invariant.BANS_FINAL, text)


def _numbers(nodes: tuple[NodeId, ...]) -> str:
    return " ".join(f"n{node}" for node in nodes)


def _story(held: dict[NodeId, bytes | None]) -> str:
    return "\n".join(f"n{number}: {describe(data) if data else 'nothing'}" for number, data in held.items())


async def _check_hints_and_memory(setting: Setting) -> None:
    for number, node in sorted(setting.cluster.nodes.items()):
        left = len(await tree_of(node, HINTS_TREE))
        require(left == 0, Invariant.HINTS_CONSERVED, f"n{number} keeps {left} hints that nobody waits for")
        node.memory.read()
        held, most = node.memory.held_bytes, node.memory.bytes_max
        require(held <= most, Invariant.MEMORY_BOUNDED, f"n{number} holds {held} bytes of {most}")


async def _check_quiet(setting: Setting) -> None:
    """Every key is read from all its replicas, and nobody has anything to repair."""
    cluster = setting.cluster
    reader = DirectClient(setting, "reader")
    before = _repairs(setting)
    nodes = sorted(machine for machine, node in cluster.nodes.items() if node.view.metadata is not None)
    for index, key in enumerate(setting.history.written_keys()):
        how = ReadHow(r=setting.bucket.n, timeout_s=REREAD_S)
        if await reader.get(nodes[index % len(nodes)], key, how) is None:
            violated(Invariant.LIVENESS, "a key cannot be read although nothing is wrong", key)
        if _repairs(setting) != before:
            violated(Invariant.REPLICAS_EQUAL, "reading a key in a quiet cluster makes it repair something", key)
    reader.close()


def _repairs(setting: Setting) -> int:
    metrics = [node.metrics for node in setting.cluster.nodes.values()]
    return sum(each.read_repairs_total + each.write_backs_total for each in metrics)


def _check_names(setting: Setting) -> None:
    """Creating and dropping buckets is linearizable, per name."""
    report = linearizability.check(setting.names.operations(), NameRegistry())
    broken = report.violation
    if broken is not None:
        violated(Invariant.LINEARIZABLE, f"the buckets called {broken.key} were not one at a time: {broken.overdue}")
