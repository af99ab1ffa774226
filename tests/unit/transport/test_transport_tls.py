"""TLS on real sockets: peers believe nodes of their CA and nobody else, sessions stay pollable."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from leafdb.errors import ConfigError, ProtocolError
from leafdb.transport.stream import ByteStream, PollableStream, SocketNetwork
from leafdb.transport.tls import NOT_A_NODE, SPEAK_TLS, TlsNetwork
from leafdb.transport.tls_contexts import Contexts, TlsFiles, load
from leafdb.wire.frame import encode_frame
from leafdb.wire.registry import MessageType
from leafdb.wire.tls_fault import TlsFault, Why
from support.certificates import Doors, Pki, client_doors, peer_doors
from support.transports import Client, Node, introduce, serving, start_member, until

HOST = "127.0.0.1"


class Refusals(list[tuple[str, str]]):
    """What a network hears of handshakes that came to nothing."""

    def __call__(self, remote: str, why: str) -> None:
        self.append((remote, why))


def network(
    doors: Doors, *, peers: bool = True, optional: bool = False, refusals: Refusals | None = None
) -> TlsNetwork:
    return TlsNetwork(
        SocketNetwork(),
        doors,
        peers=peers,
        optional=optional,
        turn=trio.Lock(),
        on_refused=Refusals() if refusals is None else refusals,
    )


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="module")
def contexts(pki: Pki) -> Contexts:
    return pki.contexts()


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Contexts:
    """A node of another cluster."""
    return Pki(tmp_path_factory.mktemp("others")).contexts()


def run(main: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        with trio.fail_after(60.0):
            await main()

    trio.run(bounded)


# -- sessions


def test_peers_meet_over_tls_and_the_pump_watches_their_sockets(contexts: Contexts) -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            one, two = [
                await start_member(nursery, network(peer_doors(contexts)), number, host=HOST) for number in (1, 2)
            ]
            introduce(one, two)
            await until(lambda: len(one.up()) == len(two.up()) == 3)
            for member in (one, two):
                assert all(session.pollable is not None for session in member.pump.sessions)
                member.check()
            nursery.cancel_scope.cancel()

    run(main)


def test_a_client_s_session_carries_large_and_many_answers(contexts: Contexts) -> None:
    async def main() -> None:
        secure = network(client_doors(contexts), peers=False)
        async with serving(secure) as node:
            client = await node.client()
            for size in (0, 1, 16_384, 100_000, 3 << 20):
                body = bytes(size)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(client.ask, 1, body)
            assert all(session.pollable is not None for session in node.pump.sessions)

    run(main)


def test_a_client_that_does_not_read_blocks_its_session_and_gets_everything_later(contexts: Contexts) -> None:
    async def main() -> None:
        secure = network(client_doors(contexts), peers=False)
        async with serving(secure) as node:
            client = await node.client()
            bodies = [bytes([index]) * 700_000 for index in range(12)]
            async with trio.open_nursery() as nursery:

                async def send() -> None:
                    for index, body in enumerate(bodies):
                        await client.stream.send_all(encode_frame(MessageType.GET, index + 1, body))

                nursery.start_soon(send)
                (session,) = node.pump.sessions
                await until(lambda: session.blocked)
                for body in bodies:
                    answer = await client.receive()
                    assert answer is not None
                    assert answer.body == body
            assert not session.blocked
            assert not session.outbox_bytes

    run(main)


# -- who is not believed


async def refused(node: Node, dialling: TlsNetwork) -> TlsFault:
    with pytest.raises(TlsFault) as caught:
        await dialling.dial(*node.acceptor.address)
    return caught.value


def test_a_node_of_another_ca_is_refused_by_both(contexts: Contexts, others: Contexts) -> None:
    async def main() -> None:
        refusals = Refusals()
        async with serving(network(peer_doors(contexts), refusals=refusals)) as node:
            fault = await refused(node, network(peer_doors(others)))
            assert fault.why is Why.UNTRUSTED
            assert "another cluster" in str(fault)
            await until(lambda: len(refusals) == 1)
            # One who does not care whom he speaks to is still not believed himself.
            careless = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            careless.check_hostname = False
            careless.verify_mode = ssl.CERT_NONE
            stream = await trio.open_tcp_stream(*node.acceptor.address)
            line = trio.SSLStream(stream, careless)
            with pytest.raises(trio.BrokenResourceError):
                await line.do_handshake()
                await line.receive_some(1)
            await until(lambda: len(refusals) == 2)
            assert "shows no certificate" in refusals[1][1]
            assert node.pump.counters.handshakes_failed_total == 2
            assert not node.pump.sessions

    run(main)


def test_a_client_s_certificate_opens_no_peer_session(pki: Pki, contexts: Contexts) -> None:
    """It is of the right CA, and made for clients: OpenSSL takes it from who dials, the node does not."""

    async def main() -> None:
        tls = pki.client("mallory")
        dialling = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        dialling.load_verify_locations(str(tls.ca_file))
        dialling.load_cert_chain(str(tls.cert_file), str(tls.key_file))
        refusals = Refusals()
        async with serving(network(peer_doors(contexts), refusals=refusals)) as node:
            stream = await network(Doors(contexts.from_peers, dialling)).dial(*node.acceptor.address)
            with pytest.raises(ProtocolError, match="a client's, not a node's"):
                await Client(stream).greet()
            assert [why for _, why in refusals] == [NOT_A_NODE]
            assert not node.pump.sessions

    run(main)


def test_a_client_s_certificate_serves_no_port(pki: Pki, contexts: Contexts) -> None:
    async def main() -> None:
        tls = pki.client("eve")
        serving_as = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        serving_as.load_cert_chain(str(tls.cert_file), str(tls.key_file))
        async with serving(network(Doors(serving_as, contexts.to_peers))) as node:
            fault = await refused(node, network(peer_doors(contexts)))
            assert fault.why is Why.UNTRUSTED

    run(main)


def test_a_certificate_for_another_host_is_refused(pki: Pki, contexts: Contexts) -> None:
    async def main() -> None:
        elsewhere = load(pki.node("far", ("10.9.9.9",)), "10.9.9.9")
        async with serving(network(peer_doors(elsewhere))) as node:
            fault = await refused(node, network(peer_doors(contexts)))
            assert "not for 127.0.0.1" in str(fault)
            assert "--host 127.0.0.1" in str(fault)

    run(main)


def test_who_comes_in_the_clear_is_told_and_costs_nothing(contexts: Contexts) -> None:
    async def main() -> None:
        for doors, peers in ((client_doors(contexts), False), (peer_doors(contexts), True)):
            async with serving(network(doors, peers=peers)) as node:
                with pytest.raises(ProtocolError, match="leafdbs://"):
                    await Client(await SocketNetwork().dial(*node.acceptor.address)).greet()
                assert SPEAK_TLS.startswith("this port speaks TLS")
                assert not node.pump.sessions

    run(main)


def test_who_speaks_tls_to_a_port_in_the_clear_is_told(contexts: Contexts) -> None:
    async def main() -> None:
        async with serving(SocketNetwork()) as node:
            fault = await refused(node, network(peer_doors(contexts)))
            assert fault.why is Why.PLAIN

    run(main)


def test_a_stranger_who_says_nothing_has_his_time_and_is_gone(contexts: Contexts) -> None:
    async def main() -> None:
        async with serving(network(client_doors(contexts), peers=False)) as node:
            for words in (b"", b"\x16", b"\x16\x03\x01\x02\x00\x01", b"\x16\x03\x01\xff\xff" + bytes(20_000), b"GET /"):
                stream = await SocketNetwork().dial(*node.acceptor.address)
                await stream.send_all(words)
                stream.close()
            await until(lambda: node.pump.counters.handshakes_failed_total == 5)
            client = await node.client()
            assert await client.ask(1, b"still here") == b"still here"

    run(main)


def test_a_flood_of_hellos_computes_one_handshake_a_turn(contexts: Contexts) -> None:
    """Between two handshakes that compute, whoever else is ready has had a turn."""

    async def main() -> None:
        secure = network(client_doors(contexts), peers=False)
        async with serving(secure) as node:
            turns: list[int] = []
            passes = 0

            async def others() -> None:
                nonlocal passes
                while True:
                    await trio.lowlevel.checkpoint()
                    passes += 1

            async with trio.open_nursery() as nursery:
                nursery.start_soon(others)

                async def come() -> None:
                    await node.dial()
                    turns.append(passes)

                async with trio.open_nursery() as flood:
                    for _ in range(20):
                        flood.start_soon(come)
                nursery.cancel_scope.cancel()
            # Before a dialler is done it has computed twice, and the acceptor once: each time in a pass of its own.
            assert len(turns) == 20
            assert passes >= 60

    run(main)


# -- a cluster on its way to TLS


def test_with_and_without_tls_meet_while_it_is_optional(contexts: Contexts) -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            plain = await start_member(nursery, SocketNetwork(), 2, host=HOST)
            both = [
                await start_member(nursery, network(peer_doors(contexts), optional=True), number, host=HOST)
                for number in (1, 3)
            ]
            introduce(plain, *both)
            await until(lambda: all(len(member.up()) == 6 for member in (plain, *both)))
            nursery.cancel_scope.cancel()

    run(main)


def test_optional_does_not_forgive_a_wrong_certificate(contexts: Contexts, others: Contexts) -> None:
    async def main() -> None:
        async with serving(network(peer_doors(others), optional=True)) as node:
            fault = await refused(node, network(peer_doors(contexts), optional=True))
            assert fault.why is Why.UNTRUSTED

    run(main)


# -- certificates that change


def test_new_contexts_are_for_new_connections_and_open_ones_go_on(tmp_path: Path) -> None:
    async def main() -> None:
        pki = Pki(tmp_path)
        doors = client_doors(pki.contexts())
        async with serving(network(doors, peers=False)) as node:
            before = await node.client()
            renewed = client_doors(pki.contexts("renewed"))
            doors.accepting, doors.dialling = renewed.accepting, renewed.dialling
            after = await node.client()
            assert await before.ask(1, b"old") == b"old"
            assert await after.ask(1, b"new") == b"new"

    run(main)


# -- files


def problem_of(files: TlsFiles, host: str = HOST) -> str:
    with pytest.raises(ConfigError) as caught:
        load(files, host)
    return str(caught.value)


def test_files_are_tried_before_they_are_believed(pki: Pki, tmp_path: Path) -> None:
    files = pki.node("tried")
    load(files, HOST)
    junk = tmp_path / "junk.pem"
    junk.write_text("no certificate")
    assert "not the key of" in problem_of(replace(files, key=pki.node("another").key))
    assert problem_of(replace(files, ca=str(junk))).startswith(f"tls.ca_file: {junk} holds no certificates")
    assert problem_of(replace(files, cert=str(junk))).startswith(f"tls.cert_file: {junk}")
    assert "cannot be read" in problem_of(replace(files, cert="/nowhere"))
    assert "cannot be read" in problem_of(replace(files, ca="/nowhere"))
    assert problem_of(replace(files, client_ca=str(junk))).startswith("tls.client_ca_file")
    assert "not for db7" in problem_of(files, "db7")
    assert "run out" in problem_of(pki.node("late", days=0))
    assert "holds no certificate of a CA" in problem_of(replace(files, ca=files.cert))
    stranger = Pki(tmp_path / "stranger")
    assert "not from a CA" in problem_of(replace(files, ca=str(stranger.ca)))
    tls = pki.client("carol")
    shown = problem_of(TlsFiles(str(pki.ca), str(tls.cert_file), str(tls.key_file)))
    assert "another use than a client's" in shown


def test_contexts_speak_nothing_older_and_keep_no_tickets(contexts: Contexts) -> None:
    for context in (contexts.from_peers, contexts.to_peers, contexts.from_clients):
        assert context.minimum_version is ssl.TLSVersion.TLSv1_3
    assert contexts.from_peers.num_tickets == contexts.from_clients.num_tickets == 0
    assert contexts.from_peers.verify_mode is ssl.CERT_REQUIRED
    assert contexts.to_peers.check_hostname


def test_an_older_client_is_refused(contexts: Contexts, pki: Pki) -> None:
    async def main() -> None:
        async with serving(network(client_doors(contexts), peers=False)) as node:
            old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            old.load_verify_locations(str(pki.ca))
            old.maximum_version = ssl.TLSVersion.TLSv1_2
            line = trio.SSLStream(await trio.open_tcp_stream(*node.acceptor.address), old, server_hostname=HOST)
            with pytest.raises(trio.BrokenResourceError):
                await line.do_handshake()

    run(main)


def test_a_secure_stream_is_one_the_kernel_can_watch(contexts: Contexts) -> None:
    async def main() -> None:
        secure = network(client_doors(contexts), peers=False)
        async with serving(secure) as node:
            stream: ByteStream = await node.dial()
            assert isinstance(stream, PollableStream)
            assert stream.receive_now(100) is None
            await stream.aclose()
            await stream.aclose()
            with pytest.raises(trio.ClosedResourceError):
                await stream.receive_some(10)

    run(main)
