"""Promises to proofs: what speaks against each is kept for it alone, however two proofs interleave."""

from __future__ import annotations

from random import Random

from leafdb.limits import NODES_MAX
from leafdb.node.debts import Claim, Debts
from leafdb.node.promises import PROMISE_S, Promises
from leafdb.types import BucketId, NodeId, PartitionId

LEADERS = (NodeId(1), NodeId(2))
PEERS = (NodeId(3), NodeId(4))
BUCKET = BucketId(256)
PARTITIONS = 4
ALL = (1 << PARTITIONS) - 1


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_promise_is_forgotten_after_a_time_and_with_a_later_one_to_the_same_leader() -> None:
    clock = Clock()
    promises = Promises(clock)
    assert promises.make(LEADERS[0], b"a", 5, b"", ALL)
    assert promises.find(LEADERS[0], b"a") is not None
    assert promises.find(LEADERS[1], b"a") is None
    assert promises.make(LEADERS[0], b"b", 6, b"", ALL)
    assert promises.find(LEADERS[0], b"a") is None
    promises.make(LEADERS[1], b"c", 6, b"", ALL)
    promises.kept(LEADERS[1])
    assert promises.find(LEADERS[1], b"c") is None, "made good, and asked for no more"
    clock.now = PROMISE_S
    assert promises.find(LEADERS[0], b"b") is None
    promises.drop_old()
    assert not len(promises)


def test_there_are_never_more_than_a_bound_allows_and_old_ones_make_room() -> None:
    clock = Clock()
    promises = Promises(clock)
    for number in range(1, NODES_MAX + 1):
        assert promises.make(NodeId(number), b"a", 5, b"", ALL)
    assert not promises.make(NodeId(NODES_MAX + 1), b"a", 5, b"", ALL)
    assert promises.make(NodeId(1), b"b", 5, b"", ALL), "its own place"
    promises.check()
    clock.now = PROMISE_S
    assert promises.make(NodeId(NODES_MAX + 1), b"a", 5, b"", ALL)


def test_an_exchange_that_was_claimed_before_all_had_begun_proves_nothing() -> None:
    promises, debts = Promises(Clock()), Debts(lambda _: None)
    promises.make(LEADERS[0], b"a", 5, b"", ALL)
    early = debts.claim(PEERS[0], BUCKET, PartitionId(1))
    promise = promises.find(LEADERS[0], b"a")
    assert promise is not None
    promise.since, promise.owed = debts.claims, {(PEERS[0], BUCKET): 0b11}
    promises.proved(early)
    assert promise.unequal == 0b11
    promises.proved(debts.claim(PEERS[0], BUCKET, PartitionId(1)))
    assert promise.unequal == 0b01
    promises.proved(debts.claim(PEERS[1], BUCKET, PartitionId(0)))
    assert promise.unequal == 0b01, "that was somebody else"
    promises.proved(debts.claim(PEERS[0], BUCKET, PartitionId(0)))
    assert promise.owed == {}


class Told:
    """What ought to be known of one promise, by its definition."""

    def __init__(self, stamp: int) -> None:
        self.stamp = stamp
        self.hints: set[int] = set()
        self.since: int | None = None
        self.left: set[tuple[NodeId, int]] = set()


def test_two_proofs_in_any_order_know_of_each_others_troubles_only_what_is_their_own() -> None:
    for seed in range(300):
        rng = Random(seed)
        promises, debts = Promises(Clock()), Debts(lambda _: None)
        told: dict[NodeId, Told] = {}
        claims: list[Claim] = []
        for _ in range(60):
            leader = rng.choice(LEADERS)
            match rng.randrange(5):
                case 0 if leader not in told or rng.random() < 0.1:
                    told[leader] = Told(rng.randrange(1, 100))
                    promises.make(leader, b"a", told[leader].stamp, b"", ALL)
                case 1 if leader in told and told[leader].since is None:
                    promise = promises.find(leader, b"a")
                    assert promise is not None
                    promise.since = told[leader].since = debts.claims
                    promise.owed = {(peer, BUCKET): ALL for peer in PEERS}
                    told[leader].left = {(peer, at) for peer in PEERS for at in range(PARTITIONS)}
                case 2:
                    partition, oldest = rng.randrange(PARTITIONS), rng.randrange(100)
                    promises.hint_taken(partition, oldest)
                    for known in told.values():
                        if oldest < known.stamp:
                            known.hints.add(partition)
                case 3:
                    claims.append(debts.claim(rng.choice(PEERS), BUCKET, PartitionId(rng.randrange(PARTITIONS))))
                case _ if claims:
                    claim = claims.pop(rng.randrange(len(claims)))
                    promises.proved(claim)
                    for known in told.values():
                        if known.since is not None and claim.number > known.since:
                            known.left.discard((claim.peer, claim.partition))
                case _:
                    pass
            promises.check()
            for one, known in told.items():
                promise = promises.find(one, b"a")
                assert promise is not None
                assert promise.taken == sum(1 << at for at in known.hints)
                assert promise.unequal == sum(1 << at for at in {at for _, at in known.left})
