"""What only the blocking client promises: threads share it, a fork may not, the socket is the only loop it has."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from random import Random

import pytest

import leafdb
from leafdb import BLIND, Found
from leafdb.client.blocking_connection import BlockingConnection
from leafdb.client.blocking_driver import dial_tcp
from leafdb.client.connect import client_over
from leafdb.client.effects import Expired, Severed, Unsent
from leafdb.client.url import Address
from leafdb.errors import DeadlineExceeded, OutcomeUnknown
from leafdb.wire.frame import Frame, encode_frame
from leafdb.wire.registry import MessageType
from unit.client.fake_node import FakeCluster, Session, hang_up, silence, when


def connection_to(cluster: FakeCluster) -> BlockingConnection:
    return BlockingConnection.establish(dial_tcp(cluster.node.address, 5.0), time.monotonic() + 5.0)


def soon() -> float:
    return time.monotonic() + 10.0


def eventually(condition: Callable[[], bool]) -> None:
    until = soon()
    while not condition():
        assert time.monotonic() < until, "it never came true"
        time.sleep(0.001)


PING = (MessageType.ADMIN, b"\xa2dargs\xa0dverbdping")


def test_threads_share_one_connection_and_get_their_own_answers() -> None:
    with FakeCluster() as cluster, leafdb.connect(cluster.url) as db:
        cluster.create("b")
        raw = db.bucket("b")

        def work(thread: int) -> None:
            for turn in range(40):
                key, value = f"{thread}/{turn}", b"%d/%d" % (thread, turn)
                raw.put(key, value, after=BLIND)
                answer = raw.get(key)
                assert isinstance(answer, Found)
                assert answer.value == value

        with ThreadPoolExecutor(12) as pool:
            list(pool.map(work, range(12)))
        assert len(cluster.node.sessions) == 1


def test_threads_survive_a_node_that_hangs_up_at_random() -> None:
    """No answer goes astray, no thread waits for ever, no write is applied twice, and one that could not be sent again
    says that it may have been applied."""
    rng = Random(7)
    with FakeCluster() as cluster, leafdb.connect(cluster.url) as db:
        cluster.create("b")
        raw = db.bucket("b")

        def act(session: Session, frame: Frame) -> None:
            if rng.random() < 0.3:
                session.hang_up()
            else:
                session.node.answer(session, frame)

        cluster.node.script(MessageType.GET, *[act] * 2_000)
        cluster.node.script(MessageType.PUT, *[act] * 2_000)
        refused: list[leafdb.LeafdbError] = []

        def work(thread: int) -> None:
            for turn in range(40):
                key, value = f"{thread}/{turn}", b"%d/%d" % (thread, turn)
                try:
                    raw.put(key, value, after=BLIND)
                    answer = raw.get(key)
                except (OutcomeUnknown, leafdb.ConnectFailed) as error:
                    refused.append(error)
                else:
                    assert isinstance(answer, Found)
                    assert answer.value == value

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(work, range(8)))
        assert any(isinstance(error, OutcomeUnknown) for error in refused)
        assert len(refused) < 320


def test_a_waiting_thread_becomes_the_reader_when_the_reader_leaves() -> None:
    with FakeCluster() as cluster:
        connection = connection_to(cluster)
        release = threading.Event()
        cluster.node.script(MessageType.ADMIN, silence, when(release))

        def give_up() -> None:
            with pytest.raises(Expired):
                connection.exchange(*PING, time.monotonic() + 0.2)

        leader = threading.Thread(target=give_up)
        leader.start()
        eventually(lambda: len(connection.waiting) == 1)
        answers: list[Frame] = []
        follower = threading.Thread(target=lambda: answers.append(connection.exchange(*PING, soon())))
        follower.start()
        leader.join()
        release.set()
        follower.join(10.0)
        assert [answer.type for answer in answers] == [MessageType.ADMIN_REPLY]
        connection.check()
        connection.close("done")


def test_a_follower_is_answered_while_the_leader_still_waits() -> None:
    with FakeCluster() as cluster:
        connection = connection_to(cluster)
        release = threading.Event()
        cluster.node.script(MessageType.ADMIN, when(release))
        leader = threading.Thread(target=connection.exchange, args=(*PING, soon()))
        leader.start()
        eventually(lambda: len(connection.waiting) == 1)
        for _ in range(5):
            assert connection.exchange(*PING, soon()).type == MessageType.ADMIN_REPLY
        assert leader.is_alive()
        release.set()
        leader.join(10.0)
        assert not leader.is_alive()
        connection.close("done")


def test_a_dead_connection_tells_everybody_and_the_next_is_unsent() -> None:
    with FakeCluster() as cluster:
        connection = connection_to(cluster)
        cluster.node.script(MessageType.ADMIN, silence, silence, hang_up)
        errors: list[Exception] = []

        def exchange() -> None:
            try:
                connection.exchange(*PING, soon())
            except Severed as error:
                errors.append(error)

        threads = [threading.Thread(target=exchange) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10.0)
        assert len(errors) == 3
        with pytest.raises(Unsent):
            connection.exchange(*PING, soon())
        connection.check()
        assert connection.dead


def test_the_end_of_an_idle_connection_is_seen_before_sending() -> None:
    """A write after a node's restart is sent to the new process instead of being lost on the old connection."""
    with FakeCluster() as cluster, leafdb.connect(cluster.url) as db:
        cluster.create("b")
        raw = db.bucket("b")
        for _ in range(5):
            raw.put("k", b"", after=BLIND)
            sessions = len(cluster.node.sessions)
            cluster.node.sessions[-1].hang_up()
            time.sleep(0.01)
            raw.put("k", b"", after=BLIND)
            assert len(cluster.node.sessions) == sessions + 1


def test_requests_larger_than_the_sockets_go_out_while_answers_come_in() -> None:
    with FakeCluster() as cluster, leafdb.connect(cluster.url) as db:
        cluster.create("b")
        raw = db.bucket("b")
        values = [bytes([number]) * 1_000_000 for number in range(24)]
        written = raw.put_many(leafdb.Put(f"k{number}", value, BLIND) for number, value in enumerate(values))
        assert not [each for each in written if isinstance(each, leafdb.Failed)]
        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(lambda number: raw.get(f"k{number}"), range(24)))
        assert [answer.value for answer in answers if isinstance(answer, Found)] == values


def test_a_node_that_stops_reading_costs_the_deadline_and_the_connection() -> None:
    ours, theirs = socket.socketpair()
    with FakeCluster() as cluster, theirs:
        session = Session(cluster.node, theirs)
        thread = threading.Thread(target=session.serve, daemon=True)
        thread.start()
        connection = BlockingConnection.establish(ours, soon())
        blocked = threading.Event()

        def block(session: Session, frame: Frame) -> None:
            blocked.wait(10.0)

        cluster.node.script(MessageType.ADMIN, block)
        with pytest.raises(Expired) as waited:
            connection.exchange(*PING, time.monotonic() + 0.05)
        assert waited.value.sent
        with pytest.raises(Expired) as cut:
            connection.exchange(MessageType.ADMIN, b"x" * (8 << 20), time.monotonic() + 0.1)
        assert cut.value.sent
        assert connection.dead == "a request was cut off by its deadline"
        connection.check()
        blocked.set()
        thread.join(10.0)


class InterruptibleSocket(socket.socket):
    """Raises KeyboardInterrupt in place of an answer already received, when told to."""

    interrupt = False

    def recv(self, *arguments: int) -> bytes:
        data = super().recv(*arguments)
        if self.interrupt:
            raise KeyboardInterrupt
        return data


def test_an_interrupt_while_reading_ends_the_connection_and_nothing_else() -> None:
    sockets: list[InterruptibleSocket] = []

    def dial(address: Address, timeout_s: float) -> socket.socket:
        sockets.append(InterruptibleSocket())
        sockets[-1].connect(address)
        return sockets[-1]

    with FakeCluster() as cluster, client_over([cluster.node.address], dial=dial) as db:
        cluster.create("b")
        raw = db.bucket("b")
        raw.put("k", b"1", after=BLIND)
        sockets[0].interrupt = True
        with pytest.raises(KeyboardInterrupt):
            raw.get("k")
        answer = raw.get("k")
        assert isinstance(answer, Found)
        assert answer.value == b"1"
        assert len(cluster.node.sessions) == 2


def test_closing_ends_the_calls_of_other_threads() -> None:
    with FakeCluster() as cluster:
        cluster.create("b")
        db = leafdb.connect(cluster.url)
        raw = db.bucket("b")
        raw.get("k")
        cluster.node.script(MessageType.GET, silence)
        cluster.node.script(MessageType.PUT, silence)
        with ThreadPoolExecutor(2) as pool:
            reading = pool.submit(raw.get, "k")
            writing = pool.submit(raw.put, "k", b"", after=BLIND)
            eventually(lambda: len(cluster.asked(MessageType.GET)) + len(cluster.asked(MessageType.PUT)) == 3)
            db.close()
            assert isinstance(writing.exception(10.0), OutcomeUnknown)
            assert isinstance(reading.exception(10.0), leafdb.LeafdbError)


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_the_child_of_a_fork_is_refused_and_harms_nothing() -> None:
    with FakeCluster() as cluster, leafdb.connect(cluster.url) as db:
        cluster.create("b")
        raw = db.bucket("b")
        raw.put("k", b"1", after=BLIND)
        pid = os.fork()
        if pid == 0:
            try:
                with pytest.raises(leafdb.ClientMisuse, match="fork"):
                    raw.get("k")
                db.close()
                os._exit(0)
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert isinstance(raw.get("k"), Found)
        assert len(cluster.node.sessions) == 1


def test_any_dialer_will_do() -> None:
    """The seam for an embedded node: one end of a socket pair, no port, no address."""
    with FakeCluster() as cluster:
        cluster.create("b")

        def dial(address: Address, timeout_s: float) -> socket.socket:
            assert address == Address("embedded", 1)
            ours, theirs = socket.socketpair()
            threading.Thread(target=Session(cluster.node, theirs).serve, daemon=True).start()
            return ours

        with client_over([Address("embedded", 1)], dial=dial, routing="listed") as db:
            db.bucket("b").put("k", b"1", after=BLIND)
            assert isinstance(db.bucket("b").get("k"), Found)


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        encode_frame(MessageType.PONG, 7, b""),
        encode_frame(MessageType.WELCOME, 0, b"\xa0"),
        b"",
    ],
)
def test_what_is_no_leafdb_node_is_told_apart(reply: bytes) -> None:
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            with sock:
                sock.recv(65_536)
                sock.sendall(reply)

    threading.Thread(target=serve, daemon=True).start()
    address = Address(*listener.getsockname())
    with leafdb.connect(f"leafdb://{address}") as db, pytest.raises(leafdb.ConnectFailed) as failed:
        db.ping(timeout=1.0)
    listener.close()
    assert "handshake" in failed.value.attempts[str(address)]


@pytest.mark.parametrize(
    "answer", [b"\xff\xff garbage that is no frame", encode_frame(MessageType.GET_REPLY, 999, b"")]
)
def test_a_node_that_breaks_the_protocol_is_left(answer: bytes) -> None:
    with FakeCluster() as cluster, leafdb.connect(cluster.url) as db:
        cluster.create("b")
        raw = db.bucket("b")
        raw.put("k", b"1", after=BLIND)
        cluster.node.script(MessageType.GET, lambda session, frame: session.send_raw(answer))
        assert isinstance(raw.get("k"), Found)
        assert len(cluster.node.sessions) == 2


def test_an_answer_that_makes_no_sense_is_a_server_bug() -> None:
    with FakeCluster() as cluster, leafdb.connect(cluster.url) as db:
        cluster.create("b")
        raw = db.bucket("b")
        raw.get("k")
        wrong_type = lambda session, frame: session.send(MessageType.PUT_REPLY, frame.request_id, b"")  # noqa: E731
        cut_short = lambda session, frame: session.send(MessageType.GET_REPLY, frame.request_id, b"\x00")  # noqa: E731
        cluster.node.script(MessageType.GET, wrong_type, cut_short)
        with pytest.raises(leafdb.ServerBug):
            raw.get("k")
        with pytest.raises(leafdb.ServerBug):
            raw.get("k")
        no_reply_to_a_put = lambda session, frame: session.send(0x13, frame.request_id, b"")  # noqa: E731
        cluster.node.script(MessageType.PUT, *[no_reply_to_a_put] * 4)
        with pytest.raises(OutcomeUnknown):
            raw.put("k", b"", after=BLIND)


def test_a_farewell_gives_the_reason() -> None:
    with FakeCluster() as cluster, leafdb.connect(cluster.url) as db:
        cluster.create("b")
        db.bucket("b").get("k")
        goodbye = leafdb.NotApplied("this node is stopping", reason=leafdb.Reason.DRAINING)
        cluster.node.script(MessageType.GET, *[lambda session, frame: session.refuse(0, goodbye)] * 4)
        with pytest.raises(leafdb.ConnectFailed, match="this node is stopping"):
            db.bucket("b").get("k")


def test_a_deadline_holds_however_the_receive_timeout_is_rounded() -> None:
    with FakeCluster() as cluster, leafdb.connect(cluster.url) as db:
        cluster.create("b")
        raw = db.bucket("b")
        raw.get("k")
        for timeout in (0.003, 0.017, 0.13):
            cluster.node.script(MessageType.GET, silence)
            started = time.monotonic()
            with pytest.raises(DeadlineExceeded):
                raw.get("k", timeout=timeout)
            assert time.monotonic() - started >= timeout


def test_the_blocking_client_loads_no_event_loop_and_no_server() -> None:
    code = (
        "import sys, leafdb\n"
        "before = set(sys.modules)\n"
        "assert not [name for name in before if name.startswith('leafdb.')], before\n"
        "leafdb.connect('leafdb://127.0.0.1:1').close()\n"
        "heavy = {'trio', 'anyio', 'asyncio', 'pydantic', 'rich', 'structlog', 'typer', 'cbor2._pydecoder'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "rows = {name.split('.')[1] for name in sys.modules if name.startswith('leafdb.')}\n"
        "assert not rows & {'node', 'storage', 'transport', 'vfs', 'hints', 'membership'}, rows\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
