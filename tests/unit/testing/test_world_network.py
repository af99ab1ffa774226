"""Links are late, slow or silent one way, in order within a connection, and never lose a byte by themselves."""

from __future__ import annotations

from random import Random

import pytest
import trio

from leafdb.testing.network import Link, MemoryByteStream, MemoryNetwork
from leafdb.testing.virtual_time import virtual


async def connected(
    network: MemoryNetwork, source: str = "a", target: str = "b"
) -> tuple[MemoryByteStream, MemoryByteStream]:
    listener = await network.at(target).listen(target, 0)
    near = await network.at(source).dial(*listener.address)
    return near, await listener.accept()


async def receive(stream: MemoryByteStream, size: int) -> bytes:
    got = b""
    while len(got) < size:
        data = await stream.receive_some(1 << 20)
        assert data
        got += data
    return got


async def assert_silence(stream: MemoryByteStream, seconds: float = 60.0) -> None:
    with trio.move_on_after(seconds) as scope:
        await stream.receive_some(1)
    assert scope.cancelled_caught


@virtual
async def test_latency_holds_for_one_direction() -> None:
    network = MemoryNetwork(Random(1))
    near, far = await connected(network)
    network.set_link("a", "b", Link((0.5, 0.5)))
    began = trio.current_time()
    near.send_now(b"there")
    assert await far.receive_some(10) == b"there"
    assert trio.current_time() - began == pytest.approx(0.5)
    far.send_now(b"back")
    assert await near.receive_some(10) == b"back"
    assert trio.current_time() - began == pytest.approx(0.5)
    network.check()


@virtual
async def test_within_a_connection_nothing_overtakes_and_between_connections_things_do() -> None:
    network = MemoryNetwork(Random(1))
    network.default_link = Link((0.0, 1.0))
    pairs = [await connected(network) for _ in range(5)]
    order: list[int] = []

    async def read(number: int, far: MemoryByteStream) -> None:
        assert await receive(far, 100) == bytes(range(100))
        order.append(number)

    async with trio.open_nursery() as nursery:
        for number, (near, far) in enumerate(pairs):
            for byte in range(100):
                near.send_now(bytes((byte,)))
            nursery.start_soon(read, number, far)
    assert sorted(order) == list(range(5)) != order
    network.check()


@virtual
async def test_bandwidth_and_drops() -> None:
    network = MemoryNetwork(Random(1))
    near, far = await connected(network)
    network.set_link("a", "b", Link(bytes_per_s=1000.0, trickle_bytes=10))
    began = trio.current_time()
    near.send_now(bytes(500))
    assert len(await far.receive_some(1000)) == 10
    assert trio.current_time() - began == pytest.approx(0.01)
    await receive(far, 490)
    assert trio.current_time() - began == pytest.approx(0.5)


@virtual
async def test_what_is_under_way_when_a_link_is_mended_does_not_go_on_crawling() -> None:
    network = MemoryNetwork(Random(1))
    near, far = await connected(network)
    network.set_link("a", "b", Link(bytes_per_s=10, trickle_bytes=5))
    began = trio.current_time()
    near.send_now(bytes(10_000))
    await trio.sleep(1)
    network.set_link("a", "b", None)
    await receive(far, 10_000)
    near.send_now(b"next")
    assert await receive(far, 4) == b"next"
    assert trio.current_time() - began == pytest.approx(1)
    network.check()


@virtual
async def test_bytes_on_their_way_make_the_writer_wait() -> None:
    network = MemoryNetwork(Random(1), buffer_bytes=100)
    near, far = await connected(network)
    network.set_link("a", "b", Link((1.0, 1.0)))
    assert near.send_now(bytes(150)) == 100
    assert near.send_now(b"x") == 0
    network.check()
    await trio.sleep(2)
    assert near.send_now(b"x") == 0, "arrived, and not read"
    await receive(far, 100)
    await near.wait_sendable()
    assert near.send_now(b"x") == 1


@virtual
async def test_a_clog_is_one_way_and_loses_nothing() -> None:
    network = MemoryNetwork()
    near, far = await connected(network)
    network.clog("a", "b")
    near.send_now(b"kept")
    near.send_now(b" in order")
    far.send_now(b"heard")
    assert await near.receive_some(10) == b"heard"
    await assert_silence(far)
    with trio.move_on_after(60) as scope:
        await network.at("b").dial("a", 9)  # its answer could not come
    assert scope.cancelled_caught
    network.check()
    network.unclog("a", "b")
    assert await receive(far, 13) == b"kept in order"
    network.check()


@virtual
async def test_a_reset_ends_connections_and_allows_new_ones_at_once() -> None:
    network = MemoryNetwork()
    near, far = await connected(network)
    other, _ = await connected(network, "c")
    network.reset("a", "b")
    for end in (near, far):
        with pytest.raises(trio.BrokenResourceError):
            await end.receive_some(1)
    await connected(network)
    assert other.send_now(b"alive") == 5


@virtual
async def test_a_host_that_vanished_answers_old_connections_only_when_it_is_back() -> None:
    network = MemoryNetwork()
    near, _far = await connected(network)
    network.vanish("b")
    assert near.send_now(b"anybody there?") > 0
    await assert_silence(near, 1000)
    with trio.move_on_after(60) as scope:
        await network.at("a").dial("b", 7)
    assert scope.cancelled_caught
    network.appear("b")
    with pytest.raises(trio.BrokenResourceError):
        await near.receive_some(1)
    new, new_far = await connected(network)
    new.send_now(b"hello")
    assert await new_far.receive_some(10) == b"hello"
    network.check()


@virtual
async def test_half_open_stays_half_open_while_nothing_is_said() -> None:
    network = MemoryNetwork()
    near, _far = await connected(network)
    network.vanish("b")
    network.appear("b")
    await assert_silence(near)
    near.send_now(b"?")
    with pytest.raises(trio.BrokenResourceError):
        await near.receive_some(1)


@virtual
async def test_what_a_killed_host_had_sent_arrives_whole_or_not_at_all_and_then_the_reset() -> None:
    seen: list[bytes] = []
    for seed in range(20):
        network = MemoryNetwork(Random(seed))
        near, far = await connected(network)
        network.set_link("b", "a", Link((0.1, 0.2)))
        far.send_now(b"last")
        far.send_now(b" words")
        network.host_died("b")
        got = b""
        with pytest.raises(trio.BrokenResourceError):
            while True:
                got += await near.receive_some(100)
        seen.append(got)
        network.check()
    assert set(seen) == {b"", b"last words"}


@virtual
async def test_a_reset_does_not_pass_a_silent_cut() -> None:
    network = MemoryNetwork()
    near, _far = await connected(network)
    network.cut("a", "b", silently=True)
    network.host_died("b")
    await assert_silence(near)
    network.heal("a", "b")
    with pytest.raises(trio.BrokenResourceError):
        await near.receive_some(1)


@virtual
async def test_every_delivery_is_observed() -> None:
    network = MemoryNetwork(Random(1))
    seen: list[tuple[str, str, bytes]] = []
    network.observer = lambda *delivery: seen.append(delivery)
    near, far = await connected(network)
    near.send_now(b"1")
    network.set_link("b", "a", Link((1.0, 1.0)))
    far.send_now(b"2")
    await receive(near, 1)
    assert seen == [("a", "b", b"1"), ("b", "a", b"2")]


@virtual
async def test_one_stalled_connection_delivers_nothing_while_others_between_the_same_hosts_do() -> None:
    network = MemoryNetwork(Random(1))
    near, far = await connected(network)
    other_near, other_far = await connected(network)
    near.outgoing.stall()
    near.send_now(b"late")
    far.send_now(b"back")
    other_near.send_now(b"at once")
    assert await near.receive_some(10) == b"back"
    assert await other_far.receive_some(10) == b"at once"
    await assert_silence(far)
    network.check()
    near.outgoing.resume()
    assert await far.receive_some(10) == b"late"
    network.check()


@virtual
async def test_what_gets_through_a_stalled_connection_is_its_beginning() -> None:
    network = MemoryNetwork(Random(1))
    near, far = await connected(network)
    near.outgoing.stall()
    near.outgoing.let_pass(1)  # nothing is there
    for data in (b"one", b"two"):
        near.send_now(data)
    for data in (b"o", b"ne", b"t"):
        near.outgoing.let_pass(len(data))
        assert await far.receive_some(10) == data
    network.clog("a", "b")
    near.outgoing.let_pass(2)
    await assert_silence(far)
    network.unclog("a", "b")
    await assert_silence(far)
    near.outgoing.resume()
    assert await far.receive_some(10) == b"wo"
    network.check()


@virtual
async def test_a_stall_keeps_what_is_under_way_and_the_end_behind_it() -> None:
    network = MemoryNetwork(Random(1))
    network.default_link = Link((0.5, 0.5))
    near, far = await connected(network)
    near.send_now(b"under way")
    near.outgoing.stall()
    near.outgoing.let_pass(9)  # not yet there
    near.close()
    await assert_silence(far)
    near.outgoing.resume()
    assert await far.receive_some(10) == b"under way"
    assert await far.receive_some(10) == b""
    network.check()
