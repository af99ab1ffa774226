"""Promises of import and export: nothing lost, no siblings made by retrying, interrupted jobs go on where they were."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

from leafdb.client.context import Context
from leafdb.client.results import Conflict, Failed, Found, Item, Missing, Put, Sibling, Written, stamp_time
from leafdb.errors import ConfigError, ConnectFailed, DataError, NotApplied, OutcomeUnknown, Reason
from leafdb_cli.checkpoint import Checkpoint, default_path
from leafdb_cli.importing import BATCH_BYTES, PATIENCE_S, Importer, Report, batches
from leafdb_cli.sources import Entry, JsonLines, source_of
from leafdb_cli.targets import FilesTarget, JsonLinesTarget, safe_name, target_of

CONTEXT = Context(1, b"c")
WHEN = stamp_time(0)


class FakeDoor:
    """A bucket in a dict, with failures to come."""

    lww = False

    def __init__(self) -> None:
        self.values: dict[Any, list[bytes]] = {}
        self.put_failures: list[tuple[Exception, bool]] = []
        """Each put takes one, with whether the write happens all the same."""
        self.down = 0

    def get_many(self, keys: Sequence[Any]) -> list[Any]:
        if self.down:
            self.down -= 1
            return [Failed(ConnectFailed("down")) for _ in keys]
        return [self._answer(key) for key in keys]

    def _answer(self, key: Any) -> Any:
        values = self.values.get(key, [])
        if not values:
            return Missing(CONTEXT)
        if len(values) == 1:
            return Found(values[0], CONTEXT)
        return Conflict(tuple(Sibling(value, "d", WHEN) for value in values), CONTEXT)

    def put_many(self, puts: Iterable[Put[bytes]]) -> list[Any]:
        results: list[Any] = []
        for put in puts:
            assert put.after is CONTEXT, "a write is made after what was read"
            error, applied = self.put_failures.pop(0) if self.put_failures else (None, True)
            if applied:
                self.values[put.key] = [put.value]
            results.append(Failed(error) if error else Written(CONTEXT, bytes(16), 2))  # type: ignore[arg-type]  # LeafdbError in these tests
        return results


def entries(count: int) -> list[Entry]:
    return [Entry(f"k{index}".encode(), f"v{index}".encode(), index, index) for index in range(count)]


def importer(door: FakeDoor, report: Report) -> Importer:
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    return Importer(door, report, clock=lambda: now[0], sleep=sleep)  # type: ignore[arg-type]  # what it uses of a Door


def test_everything_is_written_and_twice_changes_nothing() -> None:
    door, report = FakeDoor(), Report()
    importer(door, report).write(entries(5))
    assert (report.written, report.keys, report.value_bytes) == (5, 5, 10)
    again = Report()
    importer(door, again).write(entries(5))
    assert (again.written, again.unchanged) == (0, 5)


def test_a_write_of_unknown_outcome_is_made_again_only_if_it_is_not_there() -> None:
    door, report = FakeDoor(), Report()
    unknown = OutcomeUnknown("lost", acks=1, required=2)
    door.put_failures = [(unknown, True), (unknown, False)]
    importer(door, report).write(entries(3))
    assert door.values == {b"k0": [b"v0"], b"k1": [b"v1"], b"k2": [b"v2"]}
    assert (report.written, report.unchanged) == (2, 1)
    assert report.retried == {b"k0", b"k1"}


def test_our_own_write_twice_is_settled_a_strangers_conflict_is_left_alone() -> None:
    door, report = FakeDoor(), Report(retried={b"k0", b"k1"})
    door.values = {b"k0": [b"v0", b"v0"], b"k1": [b"v1", b"other"], b"k2": [b"v2", b"v2"]}
    importer(door, report).write(entries(3))
    assert door.values[b"k0"] == [b"v0"]
    assert report.conflicts == ["k1", "k2"]


def test_a_cluster_that_is_away_for_a_while_costs_patience_only() -> None:
    door, report = FakeDoor(), Report()
    door.down = 20
    importer(door, report).write(entries(3))
    assert report.written == 3
    door.down = 10 * int(PATIENCE_S / 0.25)
    with pytest.raises(ConnectFailed):
        importer(door, Report()).write(entries(3))


def test_what_can_never_be_written_is_reported_and_the_rest_goes_on() -> None:
    door, report = FakeDoor(), Report()
    door.put_failures = [(NotApplied("too large", reason=Reason.TOO_LARGE), False)]
    importer(door, report).write(entries(3))
    assert report.written == 2
    assert report.refused == ["k0: too large"]


def test_batches_are_bounded_and_never_hold_a_key_twice() -> None:
    found = list(batches(entries(600)))
    assert [len(batch) for batch in found] == [256, 256, 88]
    large = [Entry(bytes([index]), bytes(BATCH_BYTES // 2), index, index) for index in range(4)]
    assert [len(batch) for batch in batches(large)] == [2, 2]
    twice = [Entry(b"k", b"1", 0, 0), Entry(b"j", b"2", 1, 1), Entry(b"k", b"3", 2, 2)]
    assert [[entry.value for entry in batch] for batch in batches(twice)] == [[b"1", b"2"], [b"3"]]


def test_files_come_in_order_and_go_on_behind_a_position(tmp_path: Path) -> None:
    for name in ("b.txt", "a/z.txt", "a/y.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "link").symlink_to(tmp_path / "b.txt")
    source = source_of("", tmp_path)
    found = list(source.entries(None))
    assert [(entry.key, entry.value) for entry in found] == [
        (b"a/y.txt", b"a/y.txt"), (b"a/z.txt", b"a/z.txt"), (b"b.txt", b"b.txt"),
    ]  # fmt: skip
    assert source.total() == found[-1].done == 3
    assert [entry.key for entry in source.entries(found[0].position)] == [b"a/z.txt", b"b.txt"]


def test_json_lines_go_on_at_an_offset(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text('{"key": "a", "value": "1"}\n\n{"key": "p", "sort_key": "s", "value_base64": "/w=="}\n')
    source = source_of("", path)
    found = list(source.entries(None))
    assert [(entry.key, entry.value) for entry in found] == [(b"a", b"1"), ((b"p", b"s"), b"\xff")]
    assert [entry.key for entry in source.entries(found[0].position)] == [(b"p", b"s")]
    assert source.total() == found[-1].done == path.stat().st_size
    with pytest.raises(DataError, match="shorter"):
        list(source.entries(10_000))


@pytest.mark.parametrize(
    "line",
    ["nonsense", "[]", '{"key": "a"}', '{"value": "a"}', '{"key": 1, "value": "a"}', '{"key": "a", "siblings": []}'],
)
def test_a_bad_line_is_named_by_its_place(tmp_path: Path, line: str) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text('{"key": "a", "value": "1"}\n' + line + "\n")
    with pytest.raises(DataError, match="at byte 27"):
        list(JsonLines(path).entries(None))


def test_formats_that_make_no_sense(tmp_path: Path) -> None:
    for form, path in (("xml", tmp_path), ("files", Path("-")), ("", tmp_path / "missing")):
        with pytest.raises(ConfigError):
            source_of(form, path)
    for form, path in (("xml", tmp_path), ("files", Path("-"))):
        with pytest.raises(ConfigError):
            target_of(form, path)


def test_checkpoints_are_kept_for_their_own_job(tmp_path: Path) -> None:
    path = default_path(tmp_path / "data", "import")
    assert path.parent == tmp_path, "beside the data, not inside"
    job = {"import": "/data", "bucket": "b"}
    assert not Checkpoint(path, job).load()
    Checkpoint(path, job).save("6162", 7)
    found = Checkpoint(path, job)
    assert found.load()
    assert (found.position, found.count) == ("6162", 7)
    with pytest.raises(ConfigError, match="another job"):
        Checkpoint(path, {**job, "bucket": "c"}).load()
    path.write_text("{")
    with pytest.raises(ConfigError, match="remove it"):
        Checkpoint(path, job).load()
    found.remove()
    assert not path.exists()
    found.remove()


@pytest.mark.parametrize(
    ("key", "safe"),
    [(b"a/b.txt", True), ("é".encode(), True), (b"../a", False), (b"/etc/passwd", False), (b"a//b", False),
     (b"a/..", False), (b".", False), (b"a\x00b", False), ((b"p", b"s"), False), (b"x" * 300, False)],
)  # fmt: skip
def test_no_key_leaves_the_directory(key: Any, safe: bool) -> None:
    assert (safe_name(key) is not None) is safe


def test_files_out(tmp_path: Path) -> None:
    target = FilesTarget(tmp_path / "out")
    target.open(None)
    assert target.write(Item(b"a/b", Found(b"\xff", CONTEXT))) == ""
    assert (tmp_path / "out" / "a" / "b").read_bytes() == b"\xff"
    assert "siblings" in target.write(Item(b"c", Conflict((), CONTEXT)))
    assert "relative" in target.write(Item(b"../x", Found(b"1", CONTEXT)))
    assert target.write(Item(b"a", Found(b"1", CONTEXT))), "a key that is also a directory is reported"
    assert sorted(path.name for path in (tmp_path / "out").rglob("*")) == ["a", "b"]


def test_json_lines_out_are_cut_at_the_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    first = JsonLinesTarget(path)
    first.open(None)
    first.write(Item(b"a", Found(b"1", CONTEXT)))
    position = first.sync()
    first.write(Item(b"b", Found(b"2", CONTEXT)))
    first.close()
    second = JsonLinesTarget(path)
    second.open(position)
    second.write(Item((b"p", b"s"), Found(b"\xff", CONTEXT)))
    second.close()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines == [{"key": "a", "value": "1"}, {"key": "p", "sort_key": "s", "value_base64": "/w=="}]
    assert [entry.key for entry in JsonLines(path).entries(None)] == [b"a", (b"p", b"s")]


def test_json_lines_to_standard_output(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    monkeypatch.setattr("sys.stdout", out)
    target = target_of("", Path("-"))
    target.open(None)
    target.write(Item(b"a", Conflict((Sibling(b"1", "d:1", WHEN), Sibling(b"2", "d:2", WHEN)), CONTEXT)))
    target.close()
    assert [each["value"] for each in json.loads(out.getvalue())["siblings"]] == ["1", "2"]
    assert not out.closed
