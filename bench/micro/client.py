"""What the client adds to a bare exchange of the same bytes: CPU of its process beside that of a plain blocking socket.

    python bench/micro/client.py [--rounds 15] [--exchanges 3000] [--value-size 100] [--profile FORM]

An echo of the protocol in a process of its own answers every GET and PUT with a reply made beforehand (the request id
and the checksum are all it changes), so that what is measured is the client. Every form is a process of its own with
one connection, and they take turns of `--exchanges` round trips in an order drawn anew each round:

    bare       a blocking socket: encode the request, sendall, recv, cut into frames, decode the reply
    sync       leafdb.connect
    asyncio    leafdb.connect_async under asyncio
    trio       leafdb.connect_async under trio

and, one connection each: `asyncio x64`, `trio x64` (64 tasks that get all the time), `sync x8` (8 threads). What counts
is CPU time of the form's process, user and system, over the round trips of a turn; ratios are taken within a round, and
the median over the rounds is told. A machine that is busy with other things slows all forms of a round alike.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import socket
import statistics
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import leafdb
from leafdb import BLIND
from leafdb.codec.checksum import crc32c
from leafdb.limits import FRAME_BYTES_MAX
from leafdb.model.bucket import BucketProperties
from leafdb.model.key import encode_key
from leafdb.ring.member import ProposedMember
from leafdb.ring.metadata import found
from leafdb.types import Conflict, Epoch, NodeId
from leafdb.wire.body import encode_map
from leafdb.wire.connection import Connection
from leafdb.wire.control import AdminRequest
from leafdb.wire.frame import HEADER_BYTES, FrameReader, encode_frame
from leafdb.wire.handshake import ClientHello, ServerHello
from leafdb.wire.hello import ServerFacts
from leafdb.wire.registry import CLIENT_REPLY_TYPES, MessageType
from leafdb.wire.requests import (
    FLAG_BLIND,
    GetRequest,
    PutRequest,
    decode_get_reply,
    decode_put_reply,
    encode_get,
    encode_get_reply,
    encode_put,
    encode_put_reply,
)

FORMS: tuple[str, ...] = ("bare", "sync", "asyncio", "trio", "sync x8", "asyncio x64", "trio x64")
CLUSTER_ID = b"c" * 16
KEY = "user/4711"
CONTEXT = b"\x01" * 48
ACTOR = b"actor-of-14-by"
HEADER = struct.Struct(">IIBBQ")
TAIL = struct.Struct(">BBQ")
PREFIX = struct.Struct(">II")
BUCKET = BucketProperties(id=256, name="bench", generation=1, conflict=Conflict.SIBLINGS)
EPOCH = Epoch(1)


# -- the echo


class Echo:
    """Answers on every connection it is given, one thread for all of them: only one is busy at a time."""

    def __init__(self, value_size: int) -> None:
        value = b"v" * value_size
        get = encode_get_reply(EPOCH, CONTEXT, [(ACTOR, 7, 1 << 60, value)])
        put = encode_put_reply(EPOCH, 2, 2, CONTEXT)
        self._replies = {
            int(MessageType.GET): (int(MessageType.GET_REPLY), get),
            int(MessageType.PUT): (int(MessageType.PUT_REPLY), put),
        }
        self.listener = socket.create_server(("127.0.0.1", 0))
        port = self.listener.getsockname()[1]
        address = f"127.0.0.1:{port}"
        member = ProposedMember(name="n1", host="h1", zone="", client_address=address, peer_address=address)
        metadata = found("bench", CLUSTER_ID, [member], partitions=16)
        self._verbs: dict[str, dict[str, object]] = {
            "ring": {"epoch": metadata.epoch, "metadata": metadata.encode()},
            "bucket.get": BUCKET.to_wire(),
        }

    def serve(self) -> None:
        while True:
            sock, _ = self.listener.accept()
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._converse, args=(sock,), daemon=True).start()

    def _converse(self, sock: socket.socket) -> None:
        wire = Connection(ServerHello(ServerFacts(NodeId(1), "n1", "bench", CLUSTER_ID, EPOCH)))
        while wire.facts is None:
            wire.receive(sock.recv(4096))
            sock.sendall(wire.take_output())
        rest = b""
        while data := sock.recv(1 << 18):
            rest = self._answer(sock, rest + data if rest else data)

    def _answer(self, sock: socket.socket, data: bytes) -> bytes:
        replies = []
        at, end = 0, len(data)
        while end - at >= HEADER_BYTES:
            length, _, message_type, _, request_id = HEADER.unpack_from(data, at)
            stop = at + HEADER_BYTES + length
            if stop > end:
                break
            ready = self._replies.get(message_type)
            if ready is None:
                verb = AdminRequest.decode(data[at + HEADER_BYTES : stop]).verb
                replies.append(encode_frame(MessageType.ADMIN_REPLY, request_id, encode_map(self._verbs[verb])))
            else:
                rest = TAIL.pack(ready[0], 0, request_id) + ready[1]
                replies.append(PREFIX.pack(len(ready[1]), crc32c(rest)) + rest)
            at = stop
        if replies:
            sock.sendall(b"".join(replies))
        return data[at:]


# -- the forms: each a function of how many gets and puts to do


class Bare:
    """The exchange itself, and nothing else."""

    def __init__(self, port: int, value: bytes) -> None:
        self._value = value
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = Connection(ClientHello("bench"))
        self._socket.sendall(connection.start())
        while connection.facts is None:
            connection.receive(self._socket.recv(4096))
        self._reader = FrameReader(FRAME_BYTES_MAX, CLIENT_REPLY_TYPES)
        self._request_id = 0

    def gets(self, count: int) -> None:
        sock, reader, epoch = self._socket, self._reader, EPOCH
        for request_id in range(count):
            body = encode_get(GetRequest(256, 1, epoch, 4_900, 0, 0, 0, encode_key(KEY)))
            sock.sendall(encode_frame(MessageType.GET, request_id, body))
            (frame,) = reader.feed(sock.recv(65_536))
            assert decode_get_reply(frame.body).siblings[0].value

    def puts(self, count: int) -> None:
        sock, reader, epoch, value = self._socket, self._reader, EPOCH, self._value
        for request_id in range(count):
            op_id = os.urandom(16)
            body = encode_put(
                PutRequest(256, 1, epoch, 4_900, FLAG_BLIND, 0, 0, 0, 0, op_id, encode_key(KEY), b"", value)
            )
            sock.sendall(encode_frame(MessageType.PUT, request_id, body))
            (frame,) = reader.feed(sock.recv(65_536))
            assert decode_put_reply(frame.body).acks


def blocking(port: int, value: bytes, threads: int) -> tuple[Callable[[int], None], Callable[[int], None]]:
    """The synchronous client."""
    bucket = leafdb.connect(f"leafdb://127.0.0.1:{port}").bucket("bench")

    def gets(count: int) -> None:
        get = bucket.get
        for _ in range(count):
            get(KEY)

    def puts(count: int) -> None:
        put = bucket.put
        for _ in range(count):
            put(KEY, value, after=BLIND)

    def spread(work: Callable[[int], None], count: int) -> None:
        running = [threading.Thread(target=work, args=(count // threads,)) for _ in range(threads)]
        for thread in running:
            thread.start()
        for thread in running:
            thread.join()

    return (gets, puts) if threads == 1 else (partial(spread, gets), partial(spread, puts))


async def awaited(port: int, value: bytes, tasks: int, take_turns: Callable[..., Awaitable[None]]) -> None:
    """The asynchronous client, in whichever loop runs."""
    import anyio

    async with leafdb.connect_async(f"leafdb://127.0.0.1:{port}") as db:
        bucket = db.bucket("bench")

        async def gets(count: int) -> None:
            get = bucket.get
            for _ in range(count):
                await get(KEY)

        async def puts(count: int) -> None:
            put = bucket.put
            for _ in range(count):
                await put(KEY, value, after=BLIND)

        async def spread(work: Callable[[int], Awaitable[None]], count: int) -> None:
            async with anyio.create_task_group() as group:
                for _ in range(tasks):
                    group.start_soon(work, count // tasks)

        await take_turns(*((gets, puts) if tasks == 1 else (partial(spread, gets), partial(spread, puts))))


def pin(place: int) -> None:
    """Stay on one core, if there are several: the echo on one and all forms on another, as on two machines."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[place % len(cores)]})


def run_form(form: str, port: int, value: bytes) -> None:
    """The process of one form: a line with a verb and a count comes in, seconds of CPU and of the clock go out."""
    pin(1)
    name, _, many = form.partition(" x")

    def told(began: tuple[float, float]) -> None:
        print(time.process_time() - began[0], time.perf_counter() - began[1], flush=True)

    if name in ("bare", "sync"):
        if name == "bare":
            bare = Bare(port, value)
            works = {"get": bare.gets, "put": bare.puts}
        else:
            works = dict(zip(("get", "put"), blocking(port, value, int(many or 1)), strict=True))
        for line in sys.stdin:
            verb, count = line.split()
            began = time.process_time(), time.perf_counter()
            works[verb](int(count))
            told(began)
        return

    async def take_turns(gets: Callable[[int], Awaitable[None]], puts: Callable[[int], Awaitable[None]]) -> None:
        for line in sys.stdin:  # nothing else goes on in this loop between turns
            verb, count = line.split()
            began = time.process_time(), time.perf_counter()
            await (gets if verb == "get" else puts)(int(count))
            told(began)

    if name == "trio":
        import trio

        trio.run(awaited, port, value, int(many or 1), take_turns)
    else:
        asyncio.run(awaited(port, value, int(many or 1), take_turns))


# -- the runs


class Turns:
    """The processes of all forms, and what their turns took."""

    def __init__(self, forms: tuple[str, ...], value_size: int) -> None:
        command = [sys.executable, __file__, "--value-size", str(value_size)]
        self.echo = subprocess.Popen([*command, "--echo"], stdout=subprocess.PIPE, text=True)
        assert self.echo.stdout is not None
        self.port = int(self.echo.stdout.readline())
        self.processes = {
            form: subprocess.Popen(
                [*command, "--form", form, "--port", str(self.port)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for form in forms
        }

    def turn(self, form: str, verb: str, count: int) -> tuple[float, float]:
        """(microseconds of CPU, of the clock) of one round trip."""
        process = self.processes[form]
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{verb} {count}\n")
        process.stdin.flush()
        cpu, wall = map(float, process.stdout.readline().split())
        return cpu / count * 1e6, wall / count * 1e6

    def end(self) -> None:
        for process in self.processes.values():
            assert process.stdin is not None
            process.stdin.close()
            process.wait()
        self.echo.kill()
        self.echo.wait()


def measure(forms: tuple[str, ...], rounds: int, exchanges: int, value_size: int) -> str:
    """All forms by turns; a page of what they took."""
    sys.path.append(str(Path(__file__).resolve().parents[1]))
    from machine_notes import machine_notes

    notes = machine_notes(".")
    turns = Turns(forms, value_size)
    taken: dict[tuple[str, str], list[tuple[float, float]]] = {(v, f): [] for v in ("get", "put") for f in forms}
    rng = random.Random(7)
    try:
        for form in forms:
            for verb in ("get", "put"):
                turns.turn(form, verb, 640)
        for _ in range(rounds):
            for verb in ("get", "put"):
                for form in rng.sample(forms, len(forms)):
                    taken[verb, form].append(turns.turn(form, verb, exchanges // 64 * 64))
    finally:
        turns.end()
    lines = [f"| {name} | {text} |" for name, text in notes.items()]
    page = ["| | |", "|---|---|", *lines, ""]
    for verb in ("get", "put"):
        page += [f"## {verb}", "", "| form | CPU us | ratio to bare | lowest, highest | round trips/s |"]
        page += ["|---|---:|---:|---:|---:|"]
        for form in forms:
            cpu = [each[0] for each in taken[verb, form]]
            ratios = [one[0] / other[0] for one, other in zip(taken[verb, form], taken[verb, "bare"], strict=True)]
            rate = 1e6 / statistics.median(each[1] for each in taken[verb, form])
            page.append(
                f"| {form} | {statistics.median(cpu):.1f} | {statistics.median(ratios):.2f} "
                f"| {min(ratios):.2f}, {max(ratios):.2f} | {rate:,.0f} |"
            )
        page.append("")
    return "\n".join(page)


def profile(form: str, exchanges: int, value_size: int) -> None:
    """cProfile of one form, in this process."""
    import cProfile
    import io
    import pstats

    turns = Turns((), value_size)
    sys.stdin = io.StringIO(f"get 1000\nget {exchanges}\n")
    profiler: Any = cProfile.Profile()
    profiler.runcall(run_form, form, turns.port, b"v" * value_size)
    pstats.Stats(profiler).sort_stats("tottime").print_stats(45)
    turns.end()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--exchanges", type=int, default=3_000)
    parser.add_argument("--value-size", type=int, default=100)
    parser.add_argument("--forms", default=",".join(FORMS), help="those to compare, the first of them bare")
    parser.add_argument("--profile", choices=FORMS)
    parser.add_argument("--echo", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--form", help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.echo:
        pin(0)
        echo = Echo(args.value_size)
        print(echo.listener.getsockname()[1], flush=True)
        echo.serve()
    elif args.form:
        run_form(args.form, args.port, b"v" * args.value_size)
    elif args.profile:
        profile(args.profile, args.exchanges, args.value_size)
    else:
        print(measure(tuple(args.forms.split(",")), args.rounds, args.exchanges, args.value_size))


if __name__ == "__main__":
    main()
