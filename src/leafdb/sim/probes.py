"""Rare things that ought to happen in some run: what a campaign that found nothing has at least been through.

A probe is a fact about a run with a name and a sentence, established outside the product: from what nodes count, from
what they log, from the history of the clients and from what the nemesis saw. A campaign adds them up; one that stays at
zero says that the simulation has become blind there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from leafdb.node.metrics import Metrics
from leafdb.node.node import Node
from leafdb.sim.log_capture import Captured
from leafdb.sim.trace import Trace


class Probe(NamedTuple):
    """One of them."""

    name: str
    sentence: str


class Counted(NamedTuple):
    """A probe that is a counter of nodes."""

    probe: Probe
    attribute: str


COUNTED: Final = (
    Counted(Probe("forwarded", "a node passed a request on to one that may coordinate it"), "forwards_total"),
    Counted(Probe("fallback_coordinated", "a fallback coordinated a write"), "fallback_writes_total"),
    Counted(Probe("read_hedged", "a read asked one more replica because one was slow"), "hedges_total"),
    Counted(Probe("written_back", "a read wrote its merge back before it answered"), "write_backs_total"),
    Counted(
        Probe("session_waited", "what r replicas had was less than the session had seen, and more were asked"),
        "session_waits_total",
    ),
    Counted(Probe("read_repaired", "a replica was sent a newer record after a read"), "read_repairs_total"),
    Counted(Probe("hint_stored", "a hint was stored"), "hints_stored_total"),
    Counted(Probe("hint_delivered", "a hint was delivered"), "hints_delivered_total"),
    Counted(Probe("hint_expired", "a hint grew too old and its range was marked"), "hints_expired_total"),
    Counted(
        Probe("hint_overflowed", "there was no room for a hint and its range was marked"), "hints_overflowed_total"
    ),
    Counted(Probe("exchanged", "a partition was compared with a peer to the end"), "exchanges_total"),
    Counted(Probe("exchange_found", "an exchange found keys that differ"), "exchange_keys_differing_total"),
    Counted(Probe("exchange_sent", "an exchange gave a record to a peer"), "exchange_keys_sent_total"),
    Counted(Probe("exchange_received", "an exchange took a record from a peer"), "exchange_keys_received_total"),
    Counted(Probe("handshake_failed", "a session ended before a welcome"), "handshakes_failed_total"),
    Counted(Probe("deadline_exceeded", "a request's deadline passed"), "deadlines_exceeded_total"),
    Counted(Probe("outcome_unknown", "a write was answered with an unknown outcome"), "outcomes_unknown_total"),
    Counted(Probe("blind_write", "a client wrote without a context"), "blind_writes_total"),
    Counted(Probe("write_recognised", "a write that came again was recognised"), "writes_recognised_total"),
    Counted(Probe("scanned", "a scan was answered"), "scans_total"),
    Counted(Probe("copied", "bytes were copied for a change of the ring"), "transfer_bytes_received_total"),
    Counted(
        Probe("leftovers_dropped", "a range that was others' by then was given up"), "leftover_ranges_dropped_total"
    ),
    Counted(Probe("hint_handed_on", "a hint for who is no owner any more went to the owners"), "hints_handed_on_total"),
)
PURGED: Final = (
    Counted(Probe("forgotten", "a record was forgotten"), "records_forgotten_total"),
    Counted(Probe("dropped_whole", "a table of which nothing was left was dropped whole"), "tables_dropped_total"),
    Counted(Probe("left_out", "what had been forgotten came late and was left out"), "siblings_left_out_total"),
    Counted(Probe("proof_begun", "a proof of horizons was begun"), "purge_proofs_begun_total"),
    Counted(Probe("proof_made", "a proof of horizons was made"), "purge_proofs_made_total"),
    Counted(Probe("proof_refused", "a proof of horizons came to nothing"), "purge_proofs_refused_total"),
    Counted(Probe("horizon_raised", "the horizon of a partition was raised"), "purge_horizons_raised_total"),
    Counted(Probe("loss_proved", "an exchange proved that a store had lost something"), "losses_proved_total"),
)
REFUSED: Final = {
    "not_enough_replicas": Probe("refused_too_few", "a request was refused since too few replicas were there"),
    "conflict_limit": Probe("refused_siblings", "a write was refused since its record has too many siblings"),
    "overloaded": Probe("refused_overloaded", "a request was refused for want of room"),
    "disk_full": Probe("refused_disk_full", "a write was refused since the disk was full"),
    "failed": Probe("refused_failed", "a request met a failed store"),
    "expired": Probe("refused_expired", "a request came too late to be worth its work"),
}
LOGGED: Final = {
    "the store has failed": Probe("store_failed", "a node gave up since its store had failed"),
    "this store is complete again": Probe("complete_again", "a store that had forgotten became complete again"),
    "the machine lost its power: periodic buckets may have lost their newest writes here": Probe(
        "fresh_incarnation", "a store became a new incarnation after a power cut"
    ),
    "a peer is refused": Probe("peer_refused", "a peer with an old or a second copy of its disk was refused"),
    "writes may be lost: no owner remembered everything": Probe("all_incomplete", "no owner of a range was complete"),
    "this node's promises are gone: it has no vote in the control set any more": Probe(
        "vote_lost", "a control node came back without its promises and without a vote"
    ),
    "anti-entropy cannot use the store": Probe("exchange_met_damage", "an exchange met a store that cannot be read"),
    "hints cannot be read": Probe("hints_met_damage", "hints could not be read"),
    "the join was given up: this store is emptied, and can be staged again": Probe(
        "joiner_emptied", "a node whose join was given up emptied its store"
    ),
    "all hints delivered": Probe("hints_all_delivered", "a peer was given all hints kept for it"),
}
COVERED: Final = Probe("twin_covered", "a late copy of a replaced write was covered as it came")
STORES: Final = (
    COVERED,
    Probe("flushed", "a memtable became a table"),
    Probe("rebuilt_beside_writes", "a hash tree was built anew while its range was written to"),
    Probe("trees_compared", "hash trees were kept and compared with what the store has"),
    Probe("compacted", "tables were merged"),
    Probe("job_failed", "a flush or a compaction failed"),
    Probe("disk_was_full", "an engine stopped taking writes since its disk was full"),
    Probe("unclean_start", "a store was opened that had not been closed"),
    Probe("torn_tail", "recovery cut off the end of a log"),
    Probe("replayed", "recovery replayed a log"),
)
TOLD: Final = {
    "a write that a stand-in acknowledged": Probe("fallback_acknowledged", "a stand-in's acknowledgement was counted"),
    "a write that was refused": Probe("write_refused", "a client was told that a write did not happen"),
    "a write of unknown outcome": Probe("write_unknown", "a client was not told whether a write happened"),
    "an outcome that was told": Probe("outcome_told", "a client asked what became of a write and was told"),
    "an outcome that nobody knew": Probe("outcome_not_known", "a client asked what became of a write, in vain"),
    "a write of unknown outcome that was seen": Probe("unknown_seen", "a write of unknown outcome was read later"),
    "a record that was forgotten": Probe("forgotten_by_right", "a store dropped a record that was dead by right"),
    "a key that was written again after it was forgotten": Probe("recreated", "a key was forgotten and written again"),
    "a write that came after it was forgotten": Probe(
        "late_and_gone", "a write came after it was forgotten by right, and was left out"
    ),
    "a write that came after it was forgotten, to a key that was written again": Probe(
        "late_to_recreated", "the same, where the key had been written again meanwhile"
    ),
    "a read of what was forgotten": Probe("forgotten_read", "a read had to know what had been forgotten by right"),
    "a write over what was forgotten": Probe("forgotten_seen", "a context was used from before a key was forgotten"),
    "a read of what had been deleted": Probe("deletion_seen", "a read found only deletions, or expired values"),
}
"""Facts of the history of the clients."""
READ: Final = (
    Probe("many_siblings", "a read found ten siblings or more"),
    Probe("session_given_up", "a session could not go on, and another began"),
    Probe("conflict_seen", "a client was shown siblings"),
    Probe("expiry_seen", "a value was gone since its time was over"),
    Probe("unknown_applied", "a write of unknown outcome turned out to have happened"),
    Probe("unknown_not_applied", "a write of unknown outcome left nothing behind"),
)
NEMESIS: Final = (
    Probe("settled_amid_load", "the cluster owed nothing for a moment while clients worked"),
    Probe("node_ended_by_itself", "a node stopped because its disk had failed"),
    Probe("start_failed", "a node could not start on a failing disk"),
    Probe("damage_found_at_start", "a store refused to open since it was damaged"),
    Probe("healed_in_place", "damaged tables were salvaged, and what they had lost came back, without anybody's help"),
    Probe("cut_when_noted", "the power went at the moment at which a store had noted what it lost"),
    Probe("disk_fault_struck", "a planted fault was met"),
    Probe("rollback_given_up", "a rolled-back disk was not tried since not everybody had met the newer one"),
)
RINGS: Final = (
    Probe("plan_committed", "a plan was committed"),
    Probe("plan_finished", "a plan came to its end"),
    Probe("aborted_copying", "a plan was given up while copies were made"),
    Probe("aborted_reading_new", "a plan was given up after reads had moved"),
    Probe("aborted_twice", "a plan was given up once more on its way back"),
    Probe("node_joined", "a node joined"),
    Probe("node_left", "a member left"),
    Probe("node_replaced", "a lost member was replaced"),
    Probe("node_removed", "a lost member was removed"),
    Probe("node_sent_away", "a node ended since it was no member any more"),
    Probe("removed_node_refused", "a node that had been removed came back, and nobody had it"),
    Probe("driver_killed", "the node that drove a plan was killed"),
    Probe("receiver_killed", "a node was killed while it copied"),
    Probe("source_killed", "a node was killed while others copied from it"),
    Probe("source_cut_off", "a node that copied could not reach one to copy from, which was up"),
    Probe("abort_forced", "a plan on its way back was not to wait for a member that was lost for good"),
    Probe("control_set_changed", "members of the control set were exchanged"),
    Probe("stale_commit_refused", "an operator was told that a plan is stale"),
    Probe("unsafe_commit_refused", "an operator was told that a plan is unsafe"),
    Probe("commit_retried", "a commit was asked for once more, since nobody had said what came of it"),
    Probe("two_commits", "two plans were committed at once"),
    Probe("staged_too_late", "an operator was told that a plan is in progress"),
    Probe("staged_cleared", "what was staged was forgotten"),
    Probe("read_after_a_step", "a key that moves was read right after a step of a plan"),
    Probe("written_alone_unheard", "an old owner that had not heard of a step acknowledged a write alone"),
    Probe("newcomer_missed_a_write", "a write was acknowledged while its new owner was cut off"),
    Probe("plan_ended_unheard", "a plan came to its end while one was cut off that had to hear of it"),
)
"""Only of runs in which the ring changes."""
PROBES: Final = (
    *(counted.probe for counted in (*COUNTED, *PURGED)), *REFUSED.values(), *LOGGED.values(), *STORES,
    *TOLD.values(), *READ, *NEMESIS, *RINGS,
)  # fmt: skip
"""All of tier CLUSTER."""


def collect(trace: Trace, ran: Iterable[Node], logs: Captured, facts: Mapping[str, int]) -> Mapping[str, int]:
    """Every probe with how often it was hit, from all runs of all nodes; `facts` are those of the history."""
    for node in ran:
        _of_metrics(trace, node.metrics)
        _of_store(trace, node)
    for event, probe in LOGGED.items():
        trace.probe(probe.name, logs.events[event])
    for fact, probe in TOLD.items():
        trace.probe(probe.name, facts.get(fact, 0))
    assert not set(trace.probes) - {probe.name for probe in PROBES}, "a probe that is not declared"
    return {probe.name: trace.probes[probe.name] for probe in PROBES}


def _of_metrics(trace: Trace, metrics: Metrics) -> None:
    for probe, attribute in (*COUNTED, *PURGED):
        trace.probe(probe.name, metrics.counter(attribute))
    for reason, probe in REFUSED.items():
        trace.probe(probe.name, metrics.rejected[reason])
    siblings = metrics.siblings
    many = sum(count for bound, count in zip(siblings.bounds, siblings.counts, strict=False) if bound > 10.0)
    trace.probe("many_siblings", many + siblings.counts[-1])


def _of_store(trace: Trace, node: Node) -> None:
    engine = getattr(node, "engine", None)
    if engine is None:  # the run ended while it was starting
        return
    replica = getattr(node, "replica", None)
    trace.probe(COVERED.name, 0 if replica is None else replica.operations.covered_total)
    stats, report = engine.stats(), engine.recovery
    trace.probe("flushed", stats.flushes)
    trace.probe("compacted", stats.compactions)
    trace.probe("job_failed", stats.failed_jobs)
    trace.probe("disk_was_full", int(stats.disk_full))
    trace.probe("unclean_start", int(not report.clean))
    trace.probe("torn_tail", int(report.torn_bytes > 0))
    trace.probe("replayed", int(report.replayed_records > 0))
