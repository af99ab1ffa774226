"""What users get wrong, against real nodes: every answer is a typed error that says what to do, nothing is applied, and
the node goes on.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import leafdb
from leafdb import (
    BLIND,
    Client,
    ClientMisuse,
    ConfigError,
    ContextMismatch,
    Found,
    LeafdbError,
    Missing,
    NotApplied,
    NotEnoughReplicas,
    Reason,
)
from leafdb.errors import NotApplied as Refused
from leafdb.limits import KEY_BYTES_MAX, SIBLINGS_MAX, VALUE_BYTES_MAX
from leafdb.model.key import encode_key
from leafdb.wire.errors import decode_error
from leafdb.wire.frame import encode_frame
from leafdb.wire.registry import MessageType
from leafdb.wire.requests import FLAG_BLIND, PutRequest, encode_put
from support.processes import Cluster, run_leafdbd
from support.raw_wire import RawConnection, Witness

pytestmark = pytest.mark.system

CONFIG = """\
[node]
nmae = "x"
drain_timeout = "soon"
[cluster]
secret_file = 7
seeds = ["nowhere"]
[listen]
client = "0.0.0.0:7411"
peer = "127.0.0.1:99999"
[storage]
memtable_bytes = "1B"
wal_sync_interval = "-5ms"
[limits]
memory_bytes_max = "lots"
[tls]
certificate = "x"
[spelling]
"""
WRONG = {
    "node.nmae", "node.drain_timeout", "cluster.secret_file", "cluster.seeds", "listen.peer",
    "storage.memtable_bytes", "storage.wal_sync_interval", "limits.memory_bytes_max", "tls.certificate", "spelling",
    "log.level", "limits.client_sessions_max",
}  # fmt: skip


def test_every_mistake_in_a_configuration_is_named_at_once(tmp_path: Path) -> None:
    path = tmp_path / "leafdb.toml"
    path.write_text(CONFIG)
    ended = run_leafdbd(
        "--config", str(path), "--set", "log.level=loud", LEAFDB__LIMITS__CLIENT_SESSIONS_MAX="many"
    )  # fmt: skip
    assert ended.returncode == 1
    assert ended.stdout == ""
    lines = ended.stderr.splitlines()
    assert all(line.startswith("leafdbd: ") for line in lines)
    named = {line.split()[1].rstrip(":") for line in lines}
    assert named >= WRONG, (WRONG - named, ended.stderr)
    assert "name" in next(line for line in lines if "nmae" in line), "did you mean"
    assert not list(tmp_path.glob("**/IDENTITY")), "nothing was begun"


@pytest.mark.parametrize("text", ["[node", "= 3\n", "[node]\nname = 'x'\nname = 'y'\n", "\x00\x01"])
def test_a_file_that_is_no_toml_is_named_with_the_place(tmp_path: Path, text: str) -> None:
    path = tmp_path / "leafdb.toml"
    path.write_text(text)
    ended = run_leafdbd("--config", str(path))
    assert ended.returncode == 1
    assert str(path) in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.fixture
def db(cluster: Cluster) -> Any:
    with cluster.connect() as client:
        client.create_bucket("input", exist_ok=True)
        client.create_bucket("input-lww", conflict="lww", exist_ok=True)
        with Witness(cluster):
            yield client


MISUSES: list[tuple[str, Callable[[Client], object], type[LeafdbError]]] = [
    ("empty key", lambda db: db.bucket("input").put("", b"v", after=BLIND), ClientMisuse),
    ("key of no key type", lambda db: db.bucket("input").get(7), ClientMisuse),  # type: ignore[arg-type]
    ("key of three parts", lambda db: db.bucket("input").get(("a", "b", "c")), ClientMisuse),  # type: ignore[arg-type]
    ("empty sort key", lambda db: db.bucket("input").get(("a", "")), ClientMisuse),
    ("long key", lambda db: db.bucket("input").put(b"k" * (KEY_BYTES_MAX + 1), b"", after=BLIND), ClientMisuse),
    ("value that is text", lambda db: db.bucket("input").put("k", "v", after=BLIND), LeafdbError),  # type: ignore[arg-type]
    ("no after", lambda db: db.bucket("input").put("k", b"v", after=None), ClientMisuse),  # type: ignore[arg-type]
    ("large value", lambda db: db.bucket("input").put("k", bytes(VALUE_BYTES_MAX + 1), after=BLIND), LeafdbError),
    ("w above n", lambda db: db.bucket("input").put("k", b"v", after=BLIND, w=4), ClientMisuse),
    ("w of nothing", lambda db: db.bucket("input").put("k", b"v", after=BLIND, w=0), ClientMisuse),
    ("w of words", lambda db: db.bucket("input").put("k", b"v", after=BLIND, w="most"), ClientMisuse),  # type: ignore[arg-type]
    ("pw above w", lambda db: db.bucket("input").put("k", b"v", after=BLIND, w=2, pw=3), ClientMisuse),
    ("r above n", lambda db: db.bucket("input").get("k", r=17), ClientMisuse),
    ("pr above r", lambda db: db.bucket("input").get("k", r=1, pr=2), ClientMisuse),
    ("timeout of nothing", lambda db: db.bucket("input").get("k", timeout=0), ClientMisuse),
    ("negative ttl", lambda db: db.bucket("input").put("k", b"v", after=BLIND, ttl=-1), ClientMisuse),
    ("siblings of an lww bucket", lambda db: db.bucket("input-lww").get("k"), ClientMisuse),
    ("the last of a sibling bucket", lambda db: db.lww_bucket("input").put("k", b"v"), ClientMisuse),
    ("bucket of no name", lambda db: db.create_bucket(""), LeafdbError),
    ("bucket of a bad name", lambda db: db.create_bucket("a/b\n"), LeafdbError),
    ("bucket with r above n", lambda db: db.create_bucket("odd", n=2, r=3), LeafdbError),
    ("bucket of no n", lambda db: db.create_bucket("odd", n=0), LeafdbError),
    ("bucket of an unknown policy", lambda db: db.create_bucket("odd", conflict="counter"), ConfigError),  # type: ignore[arg-type]
    ("bucket of a strong class", lambda db: db.create_bucket("odd", conflict="strong"), ConfigError),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("call", "kind"), [misuse[1:] for misuse in MISUSES], ids=[misuse[0] for misuse in MISUSES])
def test_wrong_use_is_a_typed_error_and_applies_nothing(
    db: Client, call: Callable[[Client], object], kind: type[LeafdbError]
) -> None:
    with pytest.raises(kind) as caught:
        call(db)
    assert caught.value.outcome in ("none", "not_applied")
    assert not caught.value.retryable
    assert isinstance(db.bucket("input").get("k"), Missing)


def test_what_is_not_there_is_named(db: Client, cluster: Cluster) -> None:
    for index in range(3):
        with cluster.connect_to(index) as one, pytest.raises(NotApplied) as caught:
            one.bucket("nowhere").get("k")
        assert caught.value.reason is Reason.NO_SUCH_BUCKET
        assert "nowhere" in str(caught.value)
    with pytest.raises(NotApplied) as caught:
        db.drop_bucket("nowhere")
    assert caught.value.reason is Reason.NO_SUCH_BUCKET
    with pytest.raises(NotApplied) as caught:
        db.create_bucket("input")
    assert caught.value.reason is Reason.BUCKET_EXISTS
    with pytest.raises(NotApplied) as caught:
        db.create_bucket("input", n=1, r=1, w=1, exist_ok=True)
    assert caught.value.reason is Reason.BUCKET_EXISTS
    with pytest.raises(NotApplied) as caught:
        db.admin("no such verb")
    assert caught.value.reason is Reason.UNSUPPORTED


def test_more_replicas_than_there_are_nodes_are_refused_by_name_and_number(db: Client) -> None:
    db.create_bucket("wide", n=5, exist_ok=True)
    bucket = db.bucket("wide")
    bucket.put("key", b"value", after=BLIND, w="all", timeout=5.0)  # all there are
    with pytest.raises(NotEnoughReplicas) as caught:
        bucket.put("other", b"value", after=BLIND, w=4, timeout=2.0)
    assert (caught.value.alive, caught.value.required) == (3, 4)
    with pytest.raises(NotEnoughReplicas):
        bucket.get("key", r=5, timeout=2.0)
    assert isinstance(bucket.get("other"), Missing)


def test_a_context_is_good_for_its_own_key_and_bucket_only(db: Client) -> None:
    bucket = db.bucket("input")
    written = bucket.put("context", b"1", after=BLIND)
    with pytest.raises(ContextMismatch):
        bucket.put("another key", b"2", after=written.context)
    db.create_bucket("input-other", exist_ok=True)
    with pytest.raises(ContextMismatch):
        db.bucket("input-other").put("context", b"2", after=written.context)
    token = bytearray(bytes(written.context))
    token[-1] ^= 1  # the seal
    with pytest.raises((ContextMismatch, NotApplied)) as caught:
        bucket.put("context", b"2", after=leafdb.Context.from_bytes(bytes(token)))
    assert not isinstance(caught.value, NotApplied) or caught.value.reason is Reason.CONTEXT_MISMATCH
    for token in (bytearray(), bytearray(b"\x02" + bytes(40)), bytearray(b"x" * 3)):
        with pytest.raises(LeafdbError):
            leafdb.Context.from_bytes(bytes(token))
    assert isinstance(answer := bucket.get("context"), Found)
    assert answer.value == b"1"


def test_the_largest_key_and_value_fit_and_one_byte_more_does_not(db: Client) -> None:
    bucket = db.bucket("input")
    key, value = b"\x00" * KEY_BYTES_MAX, bytes(range(256)) * (VALUE_BYTES_MAX // 256)
    written = bucket.put(key, value, after=BLIND, w=3, timeout=20.0)
    answer = bucket.get(key, r=3, timeout=20.0)
    assert isinstance(answer, Found)
    assert answer.value == value
    # A record of several such siblings has a bound of its own.
    accepted = 1
    with pytest.raises(NotApplied) as caught:
        for _ in range(SIBLINGS_MAX):
            bucket.put(key, value, after=BLIND, timeout=20.0)
            accepted += 1
    assert caught.value.reason is Reason.TOO_LARGE
    assert 2 <= accepted <= 4
    both = bucket.get(key, r=2, timeout=20.0)
    bucket.delete(key, after=both.context)
    assert isinstance(bucket.get(key), Missing)
    assert written.acks == 3


def test_a_node_checks_again_what_the_client_should_have_checked(cluster: Cluster, db: Client) -> None:
    properties = db.admin("bucket.get", {"name": "input"})

    def refusal(**changed: Any) -> Refused:
        asked = {
            "bucket_id": properties["id"], "generation": properties["generation"], "epoch": 0, "deadline_ms": 5_000,
            "flags": FLAG_BLIND, "w": 0, "pw": 0, "dw": 0, "ttl_ms": 0, "op_id": bytes(16),
            "key": encode_key("raw"), "context": b"", "value": b"v",
        }  # fmt: skip
        with RawConnection.client(cluster.nodes[0].client_port) as connection:
            connection.send(encode_frame(MessageType.PUT, 5, encode_put(PutRequest(**{**asked, **changed}))))
            frame = connection.frame()
        assert frame is not None
        assert (frame.type, frame.request_id) == (MessageType.ERROR, 5)
        error = decode_error(frame.body)
        assert isinstance(error, Refused), error
        return error

    assert refusal(bucket_id=4_000_000).reason is Reason.NO_SUCH_BUCKET
    assert refusal(w=9).reason in (Reason.IMPOSSIBLE_QUORUM, Reason.NOT_ENOUGH_REPLICAS)
    assert refusal(w=100).reason is Reason.IMPOSSIBLE_QUORUM
    assert refusal(w=2, pw=3).reason is Reason.IMPOSSIBLE_QUORUM
    assert refusal(value=bytes(VALUE_BYTES_MAX + 1)).reason is Reason.TOO_LARGE
    assert refusal(key=b"no encoded key").reason is Reason.BAD_REQUEST
    assert refusal(key=encode_key("a") + b"\x00").reason is Reason.BAD_REQUEST
    assert refusal(key=b"\x00\x01").reason is Reason.BAD_REQUEST
    assert refusal(deadline_ms=0).reason is Reason.EXPIRED
    assert refusal(flags=0, context=b"garbage").reason is Reason.CONTEXT_MISMATCH
    assert isinstance(db.bucket("input").get("raw"), Missing)
