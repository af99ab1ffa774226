"""Seats in the control set: taken with the metadata that name a node, kept when it is replaced, lost if forgotten."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from random import Random
from typing import Any, cast

from leafdb.codec import cbor
from leafdb.consensus.acceptor_state import AcceptorState, decode
from leafdb.consensus.ballot import AcceptorId, Ballot
from leafdb.consensus.messages import Accept, Message, Nack, NackReason, Prepare, Promise, from_wire, to_wire
from leafdb.node.control_seats import FORGOTTEN, REGISTER
from leafdb.node.register import META_TREE, METADATA_KEY, REGISTERS_TREE, Register
from leafdb.node.timers import TimingWheel
from leafdb.node.view import ClusterView
from leafdb.ring.metadata import ClusterMetadata
from leafdb.ring.metadata import decode as decode_metadata
from leafdb.ring.recovery import recovered
from leafdb.storage.engine import Engine
from leafdb.types import Epoch, NodeId, TreeId
from leafdb.wire.frame import HEADER_BYTES
from support.clusters import cluster

ONE, TWO, FOUR, FIVE = NodeId(1), NodeId(2), NodeId(4), NodeId(5)


class Store:
    """What the register asks of an engine: writes, in order, each synced when `sync` comes."""

    def __init__(self) -> None:
        self.durable: dict[tuple[TreeId, bytes], bytes | None] = {}
        self.waiting: list[tuple[list[tuple[TreeId, bytes, bytes | None]], Callable[[None], None]]] = []

    def write(
        self, writes: Iterable[tuple[TreeId, bytes, bytes | None]], durability: object, done: Callable[[None], None]
    ) -> None:
        self.waiting.append((list(writes), done))

    def sync(self, count: int = 100) -> None:
        """The next so many writes become durable."""
        while self.waiting and count:
            writes, done = self.waiting.pop(0)
            self.durable.update({(tree, key): value for tree, key, value in writes})
            done(None)
            count -= 1

    @property
    def state(self) -> bytes | None:
        return self.durable.get((REGISTERS_TREE, REGISTER))


class Member:
    """Node 4, with its store, over several lives."""

    def __init__(self, metadata: ClusterMetadata) -> None:
        self.store = Store()
        self.expelled: list[ClusterMetadata] = []
        self.store.durable[META_TREE, METADATA_KEY] = metadata.encode()
        self.start()

    def start(self) -> None:
        self.store.waiting.clear()
        self.answers: list[Message] = []
        self.register = Register(
            engine=cast(Engine, self.store), view=ClusterView(), wheel=TimingWheel(lambda: 0.0), now=lambda: 0.0,
            rng=Random(1), random_bytes=lambda count: b"n" * count, send=self._send,
            expelled=self.expelled.append, begins=lambda _: None,
        )  # fmt: skip
        metadata = self.store.durable[META_TREE, METADATA_KEY]
        assert metadata is not None
        self.register.load(FOUR, decode_metadata(metadata), self.store.state)
        self.store.sync()

    def state(self) -> AcceptorState | None:
        found = self.store.state
        return None if found is None else decode(found)

    def _send(self, to: NodeId, frame: bytes) -> bool:
        self.answers.append(from_wire(cbor.loads(frame[HEADER_BYTES:])))
        return True

    def ask(self, message: Prepare | Accept) -> Message | None:
        self.answers.clear()
        self.register.on_request(ONE, cbor.dumps(to_wire(message)))
        self.store.sync()
        return self.answers[0] if self.answers else None

    def refused(self) -> NackReason | None:
        answer = self.ask(Prepare(REGISTER, 1, ballot(100)))
        return answer.reason if isinstance(answer, Nack) else None


def ballot(counter: int) -> Ballot:
    return Ballot(counter, ONE, 5)


def changed(metadata: ClusterMetadata, **what: Any) -> ClusterMetadata:
    return replace(metadata, epoch=Epoch(metadata.epoch + 1), **what)


FOUNDED = cluster(5)
NAMED = changed(FOUNDED, control=(ONE, TWO, FOUR))
DROPPED = changed(NAMED, control=FOUNDED.control)


def test_a_seat_is_taken_in_one_write_with_the_metadata_that_name_it() -> None:
    member = Member(FOUNDED)
    assert member.state() is None
    member.register.learn(NAMED)
    member.store.sync(1)
    assert member.state() == AcceptorState(REGISTER, AcceptorId(FOUR, NAMED.members[FOUR].incarnation))
    member.start()
    assert isinstance(member.ask(Prepare(REGISTER, 1, ballot(3))), Promise)


def test_one_that_is_not_named_yet_answers_and_keeps_its_word_when_it_is() -> None:
    """A change that is not chosen yet cannot be without the votes of those it names."""
    member = Member(FOUNDED)
    member.ask(Prepare(REGISTER, 1, ballot(7)))
    member.register.learn(NAMED)
    member.store.sync()
    assert isinstance(member.ask(Prepare(REGISTER, 1, ballot(6))), Nack)
    member.start()
    assert isinstance(member.ask(Prepare(REGISTER, 1, ballot(6))), Nack)


def test_one_that_refused_before_it_was_named_has_its_seat_all_the_same() -> None:
    member = Member(FOUNDED)
    assert isinstance(member.ask(Prepare(REGISTER, 2, ballot(7))), Nack), "another generation: nothing to write down"
    member.register.learn(NAMED)
    member.store.sync()
    member.start()
    assert isinstance(member.ask(Prepare(REGISTER, 1, ballot(7))), Promise)


def test_a_store_put_in_under_another_incarnation_begins_with_nothing() -> None:
    member = Member(FOUNDED)
    member.ask(Accept(REGISTER, 1, ballot(9), b"of the former life"))
    again = replace(NAMED.members[FOUR], incarnation=NAMED.members[FOUR].incarnation + 1)
    member.register.learn(replace(NAMED, members={**NAMED.members, FOUR: again}))
    member.store.sync()
    for _ in range(2):
        answer = member.ask(Prepare(REGISTER, 1, ballot(3)))
        assert isinstance(answer, Promise)
        assert answer.acceptor == AcceptorId(FOUR, again.incarnation)
        assert answer.accepted is None
        member.start()


def test_one_that_was_replaced_still_shows_what_it_accepted() -> None:
    member = Member(FOUNDED)
    member.ask(Accept(REGISTER, 1, ballot(3), DROPPED.encode()))
    member.start()
    answer = member.ask(Prepare(REGISTER, 1, ballot(4)))
    assert isinstance(answer, Promise)
    assert answer.value == DROPPED.encode()


def test_a_seat_that_is_gone_is_never_taken_again_under_this_incarnation() -> None:
    member = Member(NAMED)
    assert member.refused() is NackReason.INCOMPLETE, "named, and nothing there: it has forgotten"
    assert member.store.state == FORGOTTEN
    member.register.learn(DROPPED)
    member.store.sync()
    member.start()
    again = changed(DROPPED, control=NAMED.control)
    member.register.learn(again)
    member.store.sync()
    assert member.refused() is NackReason.INCOMPLETE
    member.start()
    assert member.refused() is NackReason.INCOMPLETE


def test_an_unreadable_state_is_not_replaced_by_an_empty_one() -> None:
    member = Member(FOUNDED)
    member.store.durable[REGISTERS_TREE, REGISTER] = b"\x00"
    member.start()
    member.register.learn(NAMED)
    member.store.sync()
    assert member.refused() is NackReason.INCOMPLETE
    member.start()
    assert member.refused() is NackReason.INCOMPLETE


def test_a_state_of_another_store_gives_no_vote_now_or_later() -> None:
    member = Member(NAMED)
    stranger = AcceptorState(REGISTER, AcceptorId(FOUR, 7))
    member.store.durable[REGISTERS_TREE, REGISTER] = stranger.encode()
    member.start()
    assert member.refused() is NackReason.INCOMPLETE
    member.register.learn(changed(NAMED))
    member.store.sync()
    member.start()
    assert member.refused() is NackReason.INCOMPLETE


RECOVERED = recovered(NAMED, (ONE, FOUR, FIVE), 1)
LEFT_OUT = recovered(NAMED, (ONE, TWO, FIVE), 1)


def test_a_register_begun_anew_forgets_what_the_former_one_promised_and_accepted() -> None:
    member = Member(FOUNDED)
    member.register.learn(NAMED)
    member.store.sync()
    member.ask(Accept(REGISTER, 1, ballot(900), NAMED.encode()))
    member.register.learn(RECOVERED)
    assert member.refused() is NackReason.STALE_CONFIG, "of the former generation, from the first moment on"
    member.store.sync()
    for _ in range(2):
        answer = member.ask(Prepare(REGISTER, RECOVERED.generation, ballot(3)))
        assert isinstance(answer, Promise)
        assert (answer.value, answer.accepted) == (RECOVERED.encode(), Ballot(1, ONE, 0))
        member.start()


def test_one_that_forgot_may_vote_again_when_the_register_is_begun_anew() -> None:
    member = Member(NAMED)
    assert member.refused() is NackReason.INCOMPLETE
    member.register.learn(RECOVERED)
    member.store.sync()
    assert isinstance(member.ask(Prepare(REGISTER, RECOVERED.generation, ballot(3))), Promise)


def test_one_that_is_left_out_of_the_new_generation_comes_into_it_later_with_nothing() -> None:
    """What it accepted in the former one carries ballots that would beat the new ones."""
    member = Member(FOUNDED)
    member.register.learn(NAMED)
    member.store.sync()
    member.ask(Accept(REGISTER, 1, ballot(900), NAMED.encode()))
    member.register.learn(LEFT_OUT)
    member.store.sync()
    assert member.store.state is None
    member.start()
    later = changed(LEFT_OUT, control=(ONE, TWO, FOUR))
    member.register.learn(later)
    member.store.sync()
    answer = member.ask(Prepare(REGISTER, later.generation, ballot(3)))
    assert isinstance(answer, Promise)
    assert (answer.value, answer.accepted) == (None, None)


def test_metadata_of_an_older_generation_are_old_news_whatever_their_epoch() -> None:
    member = Member(NAMED)
    member.register.learn(RECOVERED)
    member.store.sync()
    heard: list[int] = []
    member.register.learn(replace(NAMED, epoch=Epoch(RECOVERED.epoch + 5)), lambda: heard.append(1))
    member.store.sync()
    assert heard == [1]
    assert member.register.newest == RECOVERED.version
    stored = member.store.durable[META_TREE, METADATA_KEY]
    assert stored == RECOVERED.encode()


def test_newer_metadata_that_do_not_name_this_node_are_told_of_and_not_taken() -> None:
    """What becomes of it depends on what it knew while it was a member."""
    member = Member(FOUNDED)
    others = {node: FOUNDED.members[node] for node in (ONE, TWO, NodeId(3))}
    gone = changed(FOUNDED, members=others, bans=(FOUR,))
    believed: list[str] = []
    member.register.learn(gone, lambda: believed.append("over"))
    member.store.sync()
    assert member.expelled == [gone]
    assert believed == ["over"], "whoever waits for it waits no longer"
    assert member.store.durable[META_TREE, METADATA_KEY] == FOUNDED.encode()
    member.register.learn(replace(gone, epoch=FOUNDED.epoch))
    assert member.expelled == [gone], "what is no news proves nothing"


def test_a_member_that_joins_begins_with_an_empty_seat_where_its_first_metadata_give_it_one() -> None:
    store = Store()
    register = Register(
        engine=cast(Engine, store), view=ClusterView(), wheel=TimingWheel(lambda: 0.0), now=lambda: 0.0,
        rng=Random(1), random_bytes=lambda count: b"n" * count, send=lambda *_: True, expelled=lambda _: None,
        begins=lambda _: None,
    )  # fmt: skip
    taken: list[object] = []
    register.found(FOUR, NAMED, taken.append)
    store.sync()
    assert taken == [None]
    assert store.state is not None
    assert decode(store.state) == AcceptorState(REGISTER, AcceptorId(FOUR, NAMED.members[FOUR].incarnation))
