"""The parts of anti-entropy by themselves: debts and their claims, tasks, whose turn it is, what is said."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import pytest

from leafdb.errors import ProtocolError
from leafdb.merkle.effects import Counts
from leafdb.model.hlc import STAMP_MAX
from leafdb.node.debts import Debts, Entry, Masks
from leafdb.node.exchange_queue import BACKOFF_S_MAX, HINTS_WAIT_S, LOOK_S, ExchangeQueue, Wait, Work
from leafdb.node.record_messages import (
    PLACE_BYTES_MAX,
    Fetch,
    Mark,
    Offer,
    Page,
    Pull,
    Records,
    RecordsRequest,
    Results,
    decode_page,
    decode_records,
    decode_request,
    decode_results,
)
from leafdb.node.repair_tasks import FINISHED_KEPT_MAX, RepairTasks
from leafdb.node.shared_ranges import SharedRanges
from leafdb.node.view import ClusterView
from leafdb.types import BucketId, NodeId, PartitionId
from support.clusters import bucket, cluster

ONE, TWO, THREE = NodeId(1), NodeId(2), NodeId(3)
BUCKET = BucketId(256)
ALL = (1 << 64) - 1


class Kept:
    """What debts wrote, as a store would keep it."""

    def __init__(self) -> None:
        self.entries: dict[bytes, bytes] = {}
        self.writes = 0

    def write(self, entries: Sequence[Entry]) -> None:
        self.writes += 1
        for key, value in entries:
            if value is None:
                del self.entries[key]
            else:
                self.entries[key] = value

    def reopened(self) -> Debts:
        debts = Debts(self.write)
        for key, value in self.entries.items():
            debts.load(key, value)
        debts.check()
        return debts


def settle(debts: Debts, peer: NodeId, partition: int) -> bool:
    claim = debts.claim(peer, BUCKET, PartitionId(partition))
    done = debts.settle(claim)
    debts.release(claim)
    return done


def test_a_restart_never_forgets_a_debt() -> None:
    rng = Random(1)
    kept = Kept()
    debts = Debts(kept.write)
    for _ in range(2_000):
        peer = rng.choice((TWO, THREE))
        if rng.random() < 0.3:
            debts.add({(peer, BUCKET): rng.getrandbits(256) & rng.getrandbits(256)})
        else:
            settle(debts, peer, rng.randrange(256))
        debts.check()
        again = kept.reopened()
        assert all(not mask & ~again.mask(*slot) for slot, mask in debts.all().items())
    for peer in (TWO, THREE):
        for partition in range(256):
            settle(debts, peer, partition)
    assert (debts.pending, kept.entries) == (0, {})


def test_marking_again_what_is_marked_writes_nothing() -> None:
    kept = Kept()
    debts = Debts(kept.write)
    for _ in range(10):
        debts.add({(TWO, BUCKET): 0b1010})
    assert (kept.writes, debts.pending) == (1, 2)


def test_a_debt_made_during_an_exchange_is_not_settled_by_it() -> None:
    debts = Debts(Kept().write)
    debts.add({(TWO, BUCKET): 1 << 5})
    claim, other = (debts.claim(TWO, BUCKET, PartitionId(partition)) for partition in (5, 6))
    debts.add({(TWO, BUCKET): 1 << 5})
    assert claim.spoilt
    assert not other.spoilt
    assert not debts.settle(claim)
    assert debts.owes(claim)
    debts.release(claim)
    assert settle(debts, TWO, 5)
    assert debts.pending == 0


def test_a_lost_session_spoils_its_claims_only() -> None:
    debts = Debts(Kept().write)
    lost, kept = debts.claim(TWO, BUCKET, PartitionId(1)), debts.claim(THREE, BUCKET, PartitionId(1))
    debts.spoil(TWO)
    assert (lost.spoilt, kept.spoilt) == (True, False)


@pytest.mark.parametrize(("key", "value"), [(b"\1\0", b"\1"), (b"\1\0\2\0\0\1\0", b""), (b"\1\0\2\0\0\1\0", b"\0")])
def test_malformed_debts_are_refused(key: bytes, value: bytes) -> None:
    with pytest.raises(ValueError, match="malformed"):
        Debts(Kept().write).load(key, value)


def test_a_task_counts_each_range_once_and_ends() -> None:
    now_ms = 77
    debts, tasks = Debts(Kept().write), RepairTasks(lambda: now_ms)
    number = tasks.begin("why", {(TWO, BUCKET): 0b111})
    assert tasks.begin("why", {(TWO, BUCKET): 0b1111}) == number, "one reason, one task"
    for partition in (0, 1, 1):
        claim = debts.claim(TWO, BUCKET, PartitionId(partition))
        tasks.moved(claim, Counts(keys=3, sent=2, received=1, bytes=100, compared_bytes=10))
        tasks.settled(claim)
    tasks.failed(debts.claim(TWO, BUCKET, PartitionId(2)), "no luck")
    now_ms = 1_077
    (line,) = tasks.report(lambda _: "it is away", str)
    assert line == {
        "task": number, "kind": "repair", "reason": "why", "asked": False, "state": "waiting", "partitions_total": 4,
        "partitions_done": 2, "keys_differing": 6, "keys_sent": 4, "keys_received": 2, "bytes": 220,
        "bytes_per_s": 220, "eta_s": None, "started_at": 77, "waiting_for": {"2": "it is away"},
        "last_error": "no luck",
    }  # fmt: skip
    now_ms = 2_077
    (line,) = tasks.report(lambda _: "", str)
    assert (line["state"], line["bytes_per_s"], line["eta_s"]) == ("running", 110, 2.0)
    tasks.keep(lambda *_: 0)
    (line,) = tasks.report(lambda _: "", str)
    assert (line["state"], line["partitions_done"]) == ("done", 4)
    tasks.check()


def test_what_somebody_asked_for_can_be_taken_back_as_far_as_nobody_else_needs_it() -> None:
    tasks = RepairTasks(lambda: 0)
    needed = tasks.begin("n2 was away", {(TWO, BUCKET): 0b0011})
    asked = tasks.begin("repair of everything", {(TWO, BUCKET): 0b0110, (THREE, BUCKET): 0b1}, asked=True)
    with pytest.raises(ValueError, match="n2 was away"):
        tasks.cancel(needed)
    assert tasks.cancel(asked) == {(TWO, BUCKET): 0b0100, (THREE, BUCKET): 0b1}
    assert tasks.cancel(asked) is None
    first, second = tasks.report(lambda _: "", str)
    assert (first["state"], first["partitions_total"]) == ("running", 2)
    assert (second["state"], second["partitions_done"], second["partitions_total"]) == ("cancelled", 0, 3)
    tasks.check()


def test_finished_tasks_are_not_kept_for_ever() -> None:
    tasks = RepairTasks(lambda: 0)
    for number in range(100):
        tasks.begin(f"{number}", {})
    assert len(tasks.report(lambda _: "", str)) == FINISHED_KEPT_MAX


class Turn:
    """A queue on a ring of three, whose peers are as the test wants them."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.hints = 0
        self.shut = 0
        self.connected = {TWO, THREE}
        self.debts = Debts(Kept().write)
        view = ClusterView()
        view.install(ONE, cluster(3).create_bucket(bucket()))
        self.queue = ExchangeQueue(
            self.debts,
            SharedRanges(view),
            connected=lambda peer: peer in self.connected,
            hints_for=lambda _: self.hints,
            now=lambda: self.now,
            gate=self,
        )

    def closed(self, peer: NodeId, bucket: BucketId) -> int:
        return self.shut

    def rank(self, bucket: BucketId) -> int:
        return 0

    def owe(self, masks: Masks) -> None:
        self.debts.add(masks)

    def next(self) -> Work | Wait:
        return self.queue.next(ONE)


def test_a_range_is_taken_for_all_peers_that_are_owed_it() -> None:
    turn = Turn()
    turn.owe({(TWO, BUCKET): 0b110, (THREE, BUCKET): 0b100})
    assert turn.next() == Work(BUCKET, PartitionId(1), (TWO,))
    turn.debts.claim(TWO, BUCKET, PartitionId(1))
    assert turn.next() == Work(BUCKET, PartitionId(2), (TWO, THREE))
    turn.connected = {THREE}
    assert turn.next() == Work(BUCKET, PartitionId(2), (THREE,))
    turn.connected = set()
    assert turn.next() == Wait(float("inf"))


def test_every_range_gets_its_turn() -> None:
    turn = Turn()
    turn.owe({(TWO, BUCKET): ALL})
    seen = []
    while isinstance(work := turn.next(), Work):
        seen.append(work.partition)
        assert settle(turn.debts, TWO, work.partition)
    assert sorted(seen) == list(range(64))
    assert seen != sorted(seen), "nodes that owe each other the same do not walk in step"


def test_a_peer_that_fails_is_left_alone_longer_and_longer() -> None:
    turn = Turn()
    turn.owe({(TWO, BUCKET): 1})
    waits = []
    for _ in range(8):
        turn.queue.failed(TWO, "no")
        wait = turn.next()
        assert isinstance(wait, Wait)
        waits.append(round(wait.seconds, 3))
        turn.now += wait.seconds + 0.001
        assert isinstance(turn.next(), Work)
    assert waits == sorted(waits)
    assert waits[-1] == BACKOFF_S_MAX
    turn.queue.failed(TWO, "no")
    turn.queue.up(TWO)
    assert isinstance(turn.next(), Work), "a new session begins anew"


def test_hints_are_waited_for_but_not_for_ever() -> None:
    turn = Turn()
    turn.queue.up(TWO)
    turn.owe({(TWO, BUCKET): 1})
    turn.hints = 3
    assert isinstance(turn.next(), Wait)
    turn.now += HINTS_WAIT_S
    assert isinstance(turn.next(), Work)


def test_what_a_gate_keeps_closed_waits() -> None:
    turn = Turn()
    turn.owe({(TWO, BUCKET): 0b11})
    turn.shut = 0b01
    assert turn.next() == Work(BUCKET, PartitionId(1), (TWO,))
    turn.shut = 0b11
    assert turn.next() == Wait(LOOK_S)


def test_claims_in_ranges_that_change_their_owners_settle_nothing() -> None:
    debts = Debts(Kept().write)
    debts.add({(TWO, BUCKET): 0b11})
    claims = [debts.claim(TWO, BUCKET, PartitionId(partition)) for partition in (0, 1)]
    debts.spoil_partitions(0b10)
    assert [debts.settle(claim) for claim in claims] == [True, False]
    assert debts.mask(TWO, BUCKET) == 0b10


@pytest.mark.parametrize(
    "request_",
    [
        Fetch(300, (b"a", b"b"), 9),
        Offer(300, (b"a",), (b"record",), epoch=5),
        Offer(300, (b"a", b"b"), (b"record", b""), exchange=9),
        Mark(300, 7, 2),
        Pull(300, 7, b"", 1_000, 5, 0),
        Pull(300, 7, b"storage key", 1_000, 5, 1 << 60),
    ],
    ids=lambda request: type(request).__name__,
)
def test_requests_survive_the_wire(request_: RecordsRequest) -> None:
    assert decode_request(request_.encode()) == request_


def test_answers_fit_their_requests() -> None:
    page = Page(complete=True, keys=(b"a", b"b"), records=(b"r", b"s"), next=b"place")
    assert decode_page(page.encode()) == page
    with pytest.raises(ProtocolError):
        decode_page(page._replace(records=(b"r",)).encode())
    assert decode_records(Records((b"r", b"")).encode(), 2) == Records((b"r", b""))
    assert decode_results(Results((1, 6)).encode(), 2) == Results((1, 6))
    for body in (
        Fetch(300, (), 9).encode(),
        Fetch(300, (b"a",), 0).encode(),
        Offer(300, (b"a",), (b"r", b"s"), exchange=9).encode(),
        Offer(300, (b"a",), (b"",), epoch=5).encode(),
        Offer(300, (b"a",), (b"r",)).encode(),
        Mark(300, 1 << 20, 2).encode(),
        Pull(300, 1 << 20, b"", 1_000, 5, 0).encode(),
        Pull(300, 7, b"", 0, 5, 0).encode(),
        Pull(300, 7, b"", 1_000, 5, STAMP_MAX + 1).encode(),
        Pull(300, 7, bytes(PLACE_BYTES_MAX + 1), 1_000, 5, 0).encode(),
        b"\xff",
    ):
        with pytest.raises(ProtocolError):
            decode_request(body)
    with pytest.raises(ProtocolError):
        decode_records(Records((b"r", b"s")).encode(), 1)
    with pytest.raises(ProtocolError):
        decode_records(Records(()).encode(), 1)
    with pytest.raises(ProtocolError):
        decode_results(Results((1,)).encode(), 2)


def test_a_debt_is_passed_on_when_those_who_get_it_have_what_it_is_about() -> None:
    hints: dict[NodeId, int] = {}
    debts = Debts(Kept().write)
    view = ClusterView()
    view.install(NodeId(4), cluster(4).create_bucket(bucket()))
    shared = SharedRanges(view)
    queue = ExchangeQueue(
        debts, shared, connected=lambda _: True, hints_for=lambda node: hints.get(node, 0), now=lambda: 0.0,
        gate=Turn(), paused=lambda _: True,
    )  # fmt: skip
    assert view.ring is not None
    ours = shared.held(NodeId(4), BUCKET)
    partition = next(each for each in range(64) if not ours >> each & 1)
    target, other, third = view.ring.primaries(PartitionId(partition), 3)
    debts.add({(target, BUCKET): 1 << partition})
    hints[other] = 1
    assert queue.stray() is None, "the other holder has yet to get the record that the target missed"
    assert queue.next(NodeId(4)) == Wait(LOOK_S)
    hints = {target: 5}
    assert queue.stray() == Work(BUCKET, PartitionId(partition), (target,)), "the target's own hints say nothing"
    hints = {third: 1}
    assert queue.stray() is None
    hints = {}
    assert queue.stray() is not None
