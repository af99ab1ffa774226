"""The public face: its names, its types, its weight, and that both clients have one."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import leafdb
import leafdb.errors
from leafdb.client.results import found, written
from leafdb.wire.requests import SiblingReply

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
SNIPPETS = HERE / "typing_negative"


def test_every_public_name_is_there_and_no_other() -> None:
    for name in leafdb.__all__:
        assert getattr(leafdb, name) is not None
        assert name in dir(leafdb)
    assert not hasattr(leafdb, "no_such_name")
    assert sorted(leafdb.__all__) == sorted(set(leafdb.__all__))
    tree = ast.parse(Path(leafdb.__file__).read_text())
    typed = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("leafdb.")
        for alias in node.names
    }
    assert typed == set(leafdb.__all__), "what type checkers see and what is there differ"


def test_the_pinned_names_are_public() -> None:
    pinned = """connect connect_async BLIND Blind Found Missing Conflict Sibling Written Item Failed Put Context Raw
        Text JSON CBOR Codec Key Merge Client AsyncClient SiblingBucket Bucket LwwBucket AsyncSiblingBucket AsyncBucket
        AsyncLwwBucket Scan LeafdbError ConfigError ClientMisuse ContextMismatch DataError OpenFailed ConnectFailed
        NotApplied NotEnoughReplicas Overloaded OutcomeUnknown DeadlineExceeded ServerBug Reason"""
    assert set(pinned.split()) <= set(leafdb.__all__)


def test_every_error_says_whose_fault_it_is() -> None:
    for name in leafdb.__all__:
        kind = getattr(leafdb, name)
        if isinstance(kind, type) and issubclass(kind, leafdb.LeafdbError):
            assert kind is getattr(leafdb.errors, name)
            assert kind.outcome in ("not_applied", "unknown", "none")
            assert isinstance(kind.retryable, bool)


def test_both_faces_have_the_same_methods() -> None:
    for name in ("Client", "SiblingBucket", "Bucket", "LwwBucket", "Scan"):
        sync, other = getattr(leafdb, name), getattr(leafdb, f"Async{name}")
        public = {each for each in dir(sync) if not each.startswith("_")}
        assert public == {each for each in dir(other) if not each.startswith("_")}
        for each in public - {"cursor", "name", "session_token"}:
            mine, theirs = inspect.signature(getattr(sync, each)), inspect.signature(getattr(other, each))
            assert list(mine.parameters) == list(theirs.parameters)


def test_defaults_are_the_pinned_ones() -> None:
    create = inspect.signature(leafdb.Client.create_bucket).parameters
    pinned = {
        "n": 3, "r": "quorum", "w": "quorum", "pr": 0, "pw": 0, "dw": 0, "conflict": "siblings",
        "durability": "always", "ttl": None, "sloppy": True, "exist_ok": False,
    }  # fmt: skip
    assert {name: create[name].default for name in pinned} == pinned
    connect = inspect.signature(leafdb.connect).parameters
    pinned = {"tls": None, "auth": None, "zone": None, "timeout": 5.0, "routing": "ring"}
    assert {name: connect[name].default for name in pinned} == pinned
    scan = inspect.signature(leafdb.SiblingBucket.scan).parameters
    assert (scan["cursor"].default, scan["limit"].default, scan["page_size"].default) == (None, None, 256)


def test_results_are_values() -> None:
    context = leafdb.Context(1, b"sealed")
    assert leafdb.Found(b"v", context) == leafdb.Found(b"v", context)
    assert repr(leafdb.BLIND) == "BLIND"
    assert leafdb.Context.from_bytes(bytes(context)) == context
    assert hash(leafdb.Context.from_bytes(bytearray(bytes(context)))) == hash(context)
    assert bytes(context)[:9] == b"\x01" + (1).to_bytes(8, "big")
    for wrong in (b"", b"\x02" + bytes(20), bytes(context)[:5], b"\x01" + bytes(20_000)):
        with pytest.raises(leafdb.DataError):
            leafdb.Context.from_bytes(wrong)
    frozen: Any = leafdb.Failed(leafdb.DataError("x"))
    with pytest.raises(AttributeError):
        frozen.error = None


def test_what_calls_make_is_what_the_classes_make() -> None:
    """Their fields are set one by one, in the order in which the classes have them."""
    context, origin = leafdb.Context(b"bucket\x00key", b"sealed"), SiblingReply(bytes(14), 7, 3 << 16, b"v")
    plain: leafdb.Found[bytes] = leafdb.Found(b"v", context, _origin=origin)
    quick = found(b"v", context, origin)
    assert (quick, quick.dot, quick.written_at) == (plain, plain.dot, plain.written_at)
    assert hash(quick) == hash(plain)
    with pytest.raises(AttributeError):
        quick.value = b"w"  # type: ignore[misc]  # it is frozen
    made = written(context, b"op", 3, 2)
    assert made == leafdb.Written(context, b"op", 3, primaries=2)
    assert (made.op_id, made.acks, made.primaries) == (b"op", 3, 2)


def test_a_context_is_the_same_before_and_after_its_tag_was_made() -> None:
    context = leafdb.Context(b"bucket\x00key", b"sealed")
    carried = leafdb.Context.from_bytes(bytes(context))
    assert carried == context
    assert hash(carried) == hash(context)
    assert repr(carried) == repr(context)
    assert context != leafdb.Context(b"bucket\x00other", b"sealed")
    for one in (context, carried):
        assert one.sealed_for(b"bucket\x00key") == b"sealed"
        with pytest.raises(leafdb.ContextMismatch):
            one.sealed_for(b"bucket\x00other")


IGNORE = re.compile(r"  # type: ignore\[([\w, -]+)\](?=  # \w)")
ERROR = re.compile(r"^(?:.*/)?(\w+\.py):(\d+): error: .*\[([\w-]+)\]$", re.MULTILINE)
Verdicts = dict[tuple[str, int], set[str]]


def test_misuses_do_not_type_check_and_everything_else_does(tmp_path: Path) -> None:
    """Each misuse is marked with the error it must be. With the marks taken away, mypy --strict finds them all, each
    as what it is, and nothing else."""
    pytest.importorskip("mypy")
    wanted: Verdicts = {}
    for path in SNIPPETS.glob("*.py"):
        text = path.read_text(encoding="utf-8")
        for number, line in enumerate(text.splitlines(), 1):
            for mark in IGNORE.finditer(line):
                wanted[path.name, number] = set(mark[1].split(", "))
        assert text.count("type: ignore") == sum(name == path.name for name, _ in wanted), "say which error, and why"
        (tmp_path / path.name).write_text(IGNORE.sub("", text), encoding="utf-8")
    assert len(wanted) >= 30
    finished = subprocess.run(
        [sys.executable, "-m", "mypy", "--no-pretty", "--no-error-summary", str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True, timeout=250, check=False,
    )  # fmt: skip
    found: Verdicts = {}
    for name, number, code in ERROR.findall(finished.stdout):
        found.setdefault((name, int(number)), set()).add(code)
    assert found == wanted, finished.stdout + finished.stderr
