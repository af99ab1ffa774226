"""Peers find each other again after anything, keep lanes apart, and every call ends exactly once."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable

import pytest
import trio
from trio.testing import MockClock, trio_test

from leafdb.errors import ConnectFailed, DeadlineExceeded, LeafdbError, NotEnoughReplicas, ProtocolError
from leafdb.testing.network import MemoryNetwork
from leafdb.transport.calls import CALL_ID_BASE, PeerLost, Reply
from leafdb.transport.stream import SocketNetwork
from leafdb.types import Epoch, NodeId
from leafdb.wire.control import MetadataFetch
from leafdb.wire.errors import HandshakeRefused, encode_error
from leafdb.wire.frame import Frame, encode_frame
from leafdb.wire.handshake import PeerDialer
from leafdb.wire.hello import PeerFacts, Refusal
from leafdb.wire.registry import Lane, MessageType
from support.transports import SECRET, Client, Member, introduce, start_member, until

ONE, TWO, THREE = NodeId(1), NodeId(2), NodeId(3)
FETCH = MessageType.METADATA_FETCH
VERB = MessageType.PEER_ADMIN


def cluster(body: Callable[[trio.Nursery, MemoryNetwork, list[Member]], Awaitable[None]]) -> None:
    """Three members, n1 to n3, that know each other, under virtual time."""

    async def main() -> None:
        network = MemoryNetwork()
        async with trio.open_nursery() as nursery:
            members = [await start_member(nursery, network.at(f"n{i}"), i, host=f"n{i}") for i in (1, 2, 3)]
            introduce(*members)
            await until(lambda: all(is_whole(member) for member in members))
            await body(nursery, network, members)
            for member in members:
                if not member.scope.cancel_called:
                    member.check()
            nursery.cancel_scope.cancel()

    trio.run(main, clock=MockClock(autojump_threshold=0))


def is_whole(member: Member) -> bool:
    others = {1, 2, 3} - {member.number}
    return member.up() == {(node, lane) for node in others for lane in Lane}


def test_two_nodes_that_have_much_to_say_to_each_other_both_go_on_listening() -> None:
    async def body(_: trio.Nursery, __: MemoryNetwork, members: list[Member]) -> None:
        one, two, _three = members
        frame = encode_frame(MessageType.MEMBERSHIP, 5, bytes(1 << 20))
        for _turn in range(4):
            assert one.peers.send(TWO, Lane.REQUESTS, frame)
            assert two.peers.send(ONE, Lane.REQUESTS, frame)
        await until(lambda: len(one.got) == len(two.got) == 4)

    cluster(body)


def test_every_pair_has_one_session_per_lane_and_both_use_it() -> None:
    async def body(_: trio.Nursery, __: MemoryNetwork, members: list[Member]) -> None:
        one, two, three = members
        assert [len(member.pump.sessions) for member in members] == [6, 6, 6]
        for lane in Lane:
            frame = encode_frame(MessageType.MEMBERSHIP, 5, lane.name.encode())
            assert two.peers.send(ONE, lane, frame)
            assert two.peers.send(THREE, lane, frame)
        await until(lambda: len(one.got) == len(three.got) == 3)
        assert {frame.body for _, frame in one.got} == {b"CONTROL", b"REQUESTS", b"BULK"}
        assert {node for node, _ in one.got} == {2}
        assert one.peers.session(TWO, Lane.BULK) is not one.peers.session(TWO, Lane.CONTROL)
        assert one.peers.session(NodeId(9), Lane.BULK) is None
        assert not one.peers.send(NodeId(9), Lane.BULK, frame)

    cluster(body)


def test_calls_go_both_ways_and_bring_their_own_answers_back() -> None:
    async def body(_: trio.Nursery, __: MemoryNetwork, members: list[Member]) -> None:
        for member in members:
            for other in members:
                if other is member:
                    continue
                for epoch in range(5):
                    answer = await member.peers.call(
                        NodeId(other.number), Lane.CONTROL, FETCH, MetadataFetch(epoch).encode(), 1.0
                    )
                    assert answer.type == MessageType.METADATA_REPLY
                    assert answer.request_id >= CALL_ID_BASE
                    assert MetadataFetch.decode(answer.body).epoch == epoch

    cluster(body)


def test_a_call_ends_at_its_deadline_and_a_late_answer_is_nobodys() -> None:
    async def body(_: trio.Nursery, __: MemoryNetwork, members: list[Member]) -> None:
        one, two, _three = members
        started = trio.current_time()
        with pytest.raises(DeadlineExceeded):
            await one.peers.call(TWO, Lane.CONTROL, MessageType.PEER_ADMIN, b"", 0.5)
        assert trio.current_time() - started == pytest.approx(0.5, abs=0.01)
        asked = two.got[-1][1]
        assert two.peers.send(ONE, Lane.CONTROL, encode_frame(MessageType.PEER_ADMIN_REPLY, asked.request_id, b"late"))
        await until(lambda: one.pump.counters.late_replies_total == 1)
        assert not one.got

    cluster(body)


def test_an_answer_over_another_session_is_nobodys() -> None:
    async def body(_: trio.Nursery, __: MemoryNetwork, members: list[Member]) -> None:
        one, two, three = members
        replies: list[Reply] = []
        assert one.peers.request(TWO, Lane.CONTROL, MessageType.PEER_ADMIN, b"", replies.append, 1.0)
        await until(lambda: bool(two.got))
        call_id = two.got[-1][1].request_id
        forged = encode_frame(MessageType.PEER_ADMIN_REPLY, call_id, b"forged")
        three.peers.send(ONE, Lane.CONTROL, forged)
        two.peers.send(ONE, Lane.BULK, forged)
        await until(lambda: one.pump.counters.late_replies_total == 2)
        assert not replies
        two.peers.send(ONE, Lane.CONTROL, encode_frame(MessageType.PEER_ADMIN_REPLY, call_id, b"true"))
        await until(lambda: bool(replies))
        assert replies == [Frame(MessageType.PEER_ADMIN_REPLY, call_id, b"true")]

    cluster(body)


def test_an_error_answer_is_raised_as_what_it_is() -> None:
    async def body(nursery: trio.Nursery, _: MemoryNetwork, members: list[Member]) -> None:
        one, two, _three = members
        raised: list[LeafdbError] = []

        async def ask() -> None:
            try:
                await one.peers.call(TWO, Lane.CONTROL, MessageType.PEER_ADMIN, b"", 1.0)
            except LeafdbError as error:
                raised.append(error)

        nursery.start_soon(ask)
        await until(lambda: bool(two.got))
        told = encode_error(NotEnoughReplicas("too few", alive=1, required=2))
        two.peers.send(ONE, Lane.CONTROL, encode_frame(MessageType.ERROR, two.got[-1][1].request_id, told))
        await until(lambda: bool(raised))
        assert isinstance(raised[0], NotEnoughReplicas)
        assert raised[0].alive == 1

    cluster(body)


def test_losing_a_session_fails_its_calls_at_once_and_no_others() -> None:
    async def body(_: trio.Nursery, network: MemoryNetwork, members: list[Member]) -> None:
        one, two, three = members
        lost: list[Reply] = []
        kept: list[Reply] = []
        for body_size in range(3):
            one.peers.request(TWO, Lane.REQUESTS, MessageType.PEER_ADMIN, bytes(body_size), lost.append, 100.0)
        one.peers.request(THREE, Lane.REQUESTS, FETCH, MetadataFetch(1).encode(), kept.append, 100.0)
        started = trio.current_time()
        network.cut("n1", "n2")
        await until(lambda: len(lost) == 3 and len(kept) == 1)
        assert trio.current_time() - started < 1.0
        assert all(isinstance(reply, PeerLost) and reply.outcome == "unknown" for reply in lost)
        assert isinstance(kept[0], Frame)
        assert ("down", 2, Lane.REQUESTS) in one.events
        assert ("down", 1, Lane.REQUESTS) in two.events
        assert ("down", 1, Lane.REQUESTS) not in three.events
        with pytest.raises(ConnectFailed):
            await one.peers.call(TWO, Lane.REQUESTS, FETCH, b"", 1.0)

    cluster(body)


def test_peers_come_back_soon_after_a_cut_is_healed() -> None:
    async def body(_: trio.Nursery, network: MemoryNetwork, members: list[Member]) -> None:
        network.cut("n1", "n2")
        await until(lambda: not is_whole(members[0]) and not is_whole(members[1]))
        await trio.sleep(100)
        assert not is_whole(members[0])
        network.heal("n1", "n2")
        healed = trio.current_time()
        await until(lambda: all(is_whole(member) for member in members))
        assert trio.current_time() - healed < 1.5

    cluster(body)


def test_a_half_open_peer_is_found_by_silence_and_an_idle_one_is_kept() -> None:
    async def body(_: trio.Nursery, network: MemoryNetwork, members: list[Member]) -> None:
        one, two, three = members
        await trio.sleep(60)
        assert all(is_whole(member) for member in members), "idle peers answer PING"
        network.cut("n1", "n2", silently=True)
        cut = trio.current_time()
        await until(lambda: not one.peers.session(TWO, Lane.BULK) and not two.peers.session(ONE, Lane.BULK))
        assert trio.current_time() - cut < 10
        assert one.pump.counters.silent_sessions_total == 3
        assert three.pump.counters.silent_sessions_total == 0
        assert is_whole(three)
        network.heal("n1", "n2")
        await until(lambda: all(is_whole(member) for member in members))

    cluster(body)


@pytest.mark.parametrize("victim", [0, 1, 2])
def test_a_member_that_restarts_is_met_again_by_all(victim: int) -> None:
    async def body(nursery: trio.Nursery, network: MemoryNetwork, members: list[Member]) -> None:
        old = members[victim]
        old.scope.cancel()
        others = [member for member in members if member is not old]
        await until(lambda: not any(is_whole(member) for member in others))
        await trio.sleep(3)
        host, port = old.address
        new = await start_member(nursery, network.at(host), old.number, host=host, port=port, boot=2)
        introduce(*others, new)
        started = trio.current_time()
        await until(lambda: all(is_whole(member) for member in [*others, new]))
        assert trio.current_time() - started < 1.5
        new.check()

    cluster(body)


def test_a_newer_session_takes_the_place_of_an_older() -> None:
    """A restarted node dials while we still hold its dead session: the new one wins, the old one's calls fail."""

    async def body(nursery: trio.Nursery, network: MemoryNetwork, members: list[Member]) -> None:
        one, two, _three = members
        replies: list[Reply] = []
        two.peers.request(ONE, Lane.CONTROL, MessageType.PEER_ADMIN, b"", replies.append, 100.0)
        older = two.peers.session(ONE, Lane.CONTROL)
        network.cut("n1", "n2", silently=True)
        one.scope.cancel()
        await trio.sleep(0.5)
        assert two.peers.session(ONE, Lane.CONTROL) is older
        new = await start_member(nursery, network.at("n4"), 1, host="n4")
        introduce(new, two)
        await until(lambda: len(new.up()) == 3)
        assert two.peers.session(ONE, Lane.CONTROL) is not older
        assert isinstance(replies[0], PeerLost)
        downs = [event for event in two.events if event == ("down", 1, Lane.CONTROL)]
        assert len(downs) == 1
        new.check()

    cluster(body)


def test_members_that_leave_are_let_go() -> None:
    async def body(_: trio.Nursery, __: MemoryNetwork, members: list[Member]) -> None:
        one, two, three = members
        introduce(one, two)
        await until(lambda: one.up() == {(2, lane) for lane in Lane})
        await until(lambda: two.up() == {(1, lane) for lane in Lane})
        await until(lambda: not three.up())

    cluster(body)


def test_a_refused_peer_is_told_why_and_tried_again_later() -> None:
    async def body(_: trio.Nursery, network: MemoryNetwork, members: list[Member]) -> None:
        one, two, _three = members
        two.refuse[1] = Refusal.BANNED
        network.cut("n1", "n2")
        await until(lambda: not two.peers.session(ONE, Lane.BULK))
        network.heal("n1", "n2")
        await trio.sleep(20)
        assert (1, Lane.CONTROL) not in two.up()
        assert "banned" in one.peers.problem(TWO)
        assert 3 <= two.pump.counters.handshakes_failed_total <= 40, "not hammered"
        del two.refuse[1]
        await until(lambda: is_whole(one) and is_whole(two))
        assert one.peers.problem(TWO) == ""

    cluster(body)


def test_another_secret_gets_no_session_and_changes_nothing() -> None:
    async def main() -> None:
        network = MemoryNetwork()
        async with trio.open_nursery() as nursery:
            one = await start_member(nursery, network.at("n1"), 1, host="n1")
            two = await start_member(nursery, network.at("n2"), 2, host="n2", secret=b"another secret")
            introduce(one, two)
            await trio.sleep(10)
            assert not one.up()
            assert not two.up()
            assert not one.events
            assert two.pump.counters.handshakes_failed_total > 0
            with pytest.raises(HandshakeRefused) as caught:
                await one.peers.call_stranger(two.address, VERB, b"", 5.0)
            assert caught.value.refusal == Refusal.BAD_SECRET
            nursery.cancel_scope.cancel()

    trio.run(main, clock=MockClock(autojump_threshold=0))


def test_strangers_can_be_asked_by_address_before_there_is_a_cluster() -> None:
    async def main() -> None:
        network = MemoryNetwork()
        async with trio.open_nursery() as nursery:
            one = await start_member(nursery, network.at("n1"), 0, host="n1", cluster_id=b"")
            two = await start_member(nursery, network.at("n2"), 0, host="n2", cluster_id=b"")
            answer = await one.peers.call_stranger(two.address, VERB, b"asked", 5.0)
            assert answer.body == b"asked"
            assert not one.events
            with pytest.raises(PeerLost):  # nothing but verbs
                await one.peers.call_stranger(two.address, FETCH, MetadataFetch(3).encode(), 5.0)
            assert not two.events
            await until(lambda: not one.pump.sessions and not two.pump.sessions)
            with pytest.raises(ConnectFailed):
                await one.peers.call_stranger(("nowhere", 1), VERB, b"", 5.0)
            network.cut("n1", "n2", silently=True)
            with pytest.raises((DeadlineExceeded, ConnectFailed)):
                await one.peers.call_stranger(two.address, VERB, b"", 2.0)
            one.check()
            nursery.cancel_scope.cancel()

    trio.run(main, clock=MockClock(autojump_threshold=0))


def test_whoever_answers_at_a_members_address_must_be_that_member() -> None:
    async def main() -> None:
        network = MemoryNetwork()
        async with trio.open_nursery() as nursery:
            one = await start_member(nursery, network.at("n1"), 1, host="n1")
            other = await start_member(nursery, network.at("n2"), 7, host="n2")
            one.peers.set_members({ONE: one.address, TWO: other.address})
            await trio.sleep(5)
            assert not one.up()
            nursery.cancel_scope.cancel()

    trio.run(main, clock=MockClock(autojump_threshold=0))


@trio_test
async def test_peers_meet_over_real_sockets() -> None:
    async with trio.open_nursery() as nursery:
        members = [await start_member(nursery, SocketNetwork(), i, host="127.0.0.1") for i in (1, 2, 3)]
        introduce(*members)
        await until(lambda: all(is_whole(member) for member in members))
        answer = await members[2].peers.call(ONE, Lane.BULK, FETCH, MetadataFetch(4).encode(), 5.0)
        assert MetadataFetch.decode(answer.body).epoch == 4
        members[1].scope.cancel()
        await until(lambda: members[0].up() == {(3, lane) for lane in Lane})
        members[0].check()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("network", [MemoryNetwork().at("127.0.0.1"), SocketNetwork()], ids=["memory", "socket"])
def test_garbage_on_the_peer_port_hurts_nobody(network: SocketNetwork) -> None:
    async def main() -> None:
        rng = random.Random(8)
        async with trio.open_nursery() as nursery:
            members = [await start_member(nursery, network, i, host="127.0.0.1") for i in (1, 2)]
            introduce(*members)
            one, two = members
            await until(lambda: len(one.up()) == len(two.up()) == 3)
            facts = PeerFacts(b"c" * 16, NodeId(5), 1, 1, b"b" * 16, Epoch(1), Lane.BULK)
            hello = PeerDialer(facts, SECRET, b"n" * 16, lambda _: None).start()
            for number in range(30):
                stream = await network.dial(*two.address)
                if number % 3 == 0:
                    data = bytearray(rng.randbytes(rng.randrange(1, 3000)))
                else:
                    data = bytearray(hello)
                    data[rng.randrange(8, len(data))] ^= 1 << rng.randrange(8)
                await stream.send_all(bytes(data))
                with trio.move_on_after(0.01):
                    said = await Client(stream).last_words()
                    assert said is None or isinstance(said, ProtocolError)
                stream.close()
                answer = await one.peers.call(TWO, Lane.CONTROL, FETCH, MetadataFetch(number).encode(), 5.0)
                assert MetadataFetch.decode(answer.body).epoch == number
            assert len(one.up()) == 3
            assert two.pump.counters.sessions_opened_total == 3
            for member in members:
                member.check()
            nursery.cancel_scope.cancel()

    trio.run(main)


def test_garbage_from_a_proven_peer_closes_that_lane_alone_and_it_comes_back() -> None:
    async def body(_: trio.Nursery, __: MemoryNetwork, members: list[Member]) -> None:
        one, two, _three = members
        control = one.peers.session(TWO, Lane.CONTROL)
        requests = one.peers.session(TWO, Lane.REQUESTS)
        assert requests is not None
        requests.send(b"\xff" * 64)
        await until(lambda: ("down", 1, Lane.REQUESTS) in two.events)
        assert two.pump.counters.protocol_errors_total == 1
        await until(lambda: is_whole(one) and is_whole(two))
        assert one.peers.session(TWO, Lane.CONTROL) is control

    cluster(body)
