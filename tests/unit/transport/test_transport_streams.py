"""Streams bound what they hold, wake who waits, and say typed what broke; memory and sockets alike."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import trio_test

from leafdb.testing.network import MemoryNetwork, memory_pair
from leafdb.transport.stream import ByteStream, PollableStream, SocketNetwork


@asynccontextmanager
async def ends(kind: str) -> AsyncIterator[tuple[ByteStream, ByteStream]]:
    if kind == "memory":
        near, far = memory_pair(10_000)
        yield near, far
    else:
        listener = await SocketNetwork().listen("127.0.0.1", 0)
        dialled = await SocketNetwork().dial(*listener.address)
        accepted = await listener.accept()
        yield dialled, accepted
        await listener.aclose()
        dialled.close()
        accepted.close()


@pytest.mark.parametrize("kind", ["memory", "socket"])
def test_bytes_arrive_in_order_with_back_pressure_and_then_the_end(kind: str) -> None:
    async def main() -> None:
        async with ends(kind) as (near, far):
            data = bytes(range(256)) * 40_000
            got = bytearray()

            async def send() -> None:
                await near.send_all(data)
                await near.aclose()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(send)
                while part := await far.receive_some(5_000):
                    assert len(part) <= 5_000
                    got += part
            assert got == data

    trio.run(main)


@pytest.mark.parametrize("kind", ["memory", "socket"])
def test_send_now_takes_what_has_room_and_wait_sendable_waits_for_more(kind: str) -> None:
    async def main() -> None:
        async with ends(kind) as (near, far):
            taken = 0
            while size := near.send_now(bytes(65_536)):
                taken += size
            assert taken > 0
            drained = 0

            async def drain() -> None:
                nonlocal drained
                while drained < taken:
                    drained += len(await far.receive_some(65_536))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(drain)
                await near.wait_sendable()
                assert near.send_now(b"more") > 0
            assert drained >= taken

    trio.run(main)


@pytest.mark.parametrize("kind", ["memory", "socket"])
def test_closing_wakes_our_own_reader_and_ends_the_other_sides(kind: str) -> None:
    async def main() -> None:
        async with ends(kind) as (near, far):
            async with trio.open_nursery() as nursery:

                async def read() -> None:
                    with pytest.raises(trio.ClosedResourceError):
                        await near.receive_some(10)

                nursery.start_soon(read)
                await trio.testing.wait_all_tasks_blocked()
                near.close()
                near.close()
            assert await far.receive_some(10) == b""
            with pytest.raises(trio.ClosedResourceError):
                near.send_now(b"x")

    trio.run(main)


@pytest.mark.parametrize("kind", ["memory", "socket"])
def test_sending_to_a_side_that_is_gone_breaks(kind: str) -> None:
    async def main() -> None:
        async with ends(kind) as (near, far):
            far.close()
            with pytest.raises(trio.BrokenResourceError), trio.fail_after(5):
                while True:
                    near.send_now(b"x")
                    await trio.sleep(0.001)

    trio.run(main)


@trio_test
async def test_a_socket_can_be_polled_and_has_nothing_to_say_when_nothing_came() -> None:
    async with ends("socket") as (near, far):
        assert isinstance(near, PollableStream)
        assert near.receive_now(10) is None
        await far.send_all(b"x")
        await trio.lowlevel.wait_readable(near.fileno())
        assert near.receive_now(10) == b"x"
        assert not isinstance(memory_pair()[0], PollableStream)


@trio_test
async def test_dialling_a_port_nobody_listens_on_is_an_os_error() -> None:
    listener = await SocketNetwork().listen("127.0.0.1", 0)
    await listener.aclose()
    with pytest.raises(ConnectionRefusedError):
        await SocketNetwork().dial(*listener.address)
    with pytest.raises(OSError):
        await MemoryNetwork().at("a").dial("b", 1)


@trio_test
async def test_a_port_is_free_again_at_once_after_its_sessions_were_cut() -> None:
    network = SocketNetwork()
    listener = await network.listen("127.0.0.1", 0)
    dialled = await network.dial(*listener.address)
    (await listener.accept()).close()
    await listener.aclose()
    again = await network.listen(*listener.address)
    assert again.address == listener.address
    dialled.close()
    await again.aclose()


@trio_test
async def test_a_listener_that_closes_wakes_who_accepts() -> None:
    for network in (SocketNetwork(), MemoryNetwork().at("a")):
        listener = await network.listen("127.0.0.1", 0)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_accept_nobody, listener)
            await trio.testing.wait_all_tasks_blocked()
            await listener.aclose()


async def _accept_nobody(listener: object) -> None:
    with pytest.raises(trio.ClosedResourceError):
        await listener.accept()  # type: ignore[attr-defined]  # either kind


@trio_test
async def test_a_cut_resets_and_refuses_until_it_is_healed() -> None:
    network = MemoryNetwork()
    listener = await network.at("b").listen("b", 7)
    near = await network.at("a").dial("b", 7)
    far = await listener.accept()
    other = await network.at("c").dial("b", 7)
    await near.send_all(b"lost")
    network.cut("a", "b")
    with pytest.raises(trio.BrokenResourceError):
        await far.receive_some(10)
    with pytest.raises(ConnectionRefusedError):
        await network.at("a").dial("b", 7)
    await other.send_all(b"kept")
    assert await (await listener.accept()).receive_some(10) == b"kept"
    network.heal("a", "b")
    await network.at("a").dial("b", 7)
    network.check()


@trio_test
async def test_a_silent_cut_loses_nothing_and_delivers_nothing_until_it_is_healed() -> None:
    network = MemoryNetwork()
    listener = await network.at("b").listen("b", 7)
    near = await network.at("a").dial("b", 7)
    far = await listener.accept()
    network.cut("a", "b", silently=True)
    await near.send_all(b"late")
    near.close()
    for waiting in (far.receive_some(10), network.at("a").dial("b", 7)):
        with trio.move_on_after(0.01) as scope:
            await waiting
        assert scope.cancelled_caught
    assert far.send_now(b"nobody knows yet") > 0
    network.heal("a", "b")
    assert await far.receive_some(10) == b"late"
    assert await far.receive_some(10) == b""


@trio_test
async def test_a_memory_port_cannot_be_taken_twice() -> None:
    network = MemoryNetwork().at("a")
    listener = await network.listen("a", 7)
    with pytest.raises(OSError):
        await network.listen("a", 7)
    await listener.aclose()
    await network.listen("a", 7)
