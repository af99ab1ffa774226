"""Promises: JSON is an interface (envelope, bytes, errors on top); tables are never cut; data and notes keep apart."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from leafdb_cli.keys import key_fields, key_from_fields, key_text, preview
from leafdb_cli.options import Format
from leafdb_cli.render import (
    Column,
    ItemStream,
    Output,
    bytes_fields,
    bytes_from_fields,
    human_bytes,
    human_seconds,
    plain_table,
)

COLUMNS = [Column("name"), Column("size", show=human_bytes, right=True)]
ITEMS: list[dict[str, Any]] = [{"name": "a", "size": 10}, {"name": "long-name", "size": 4096}]


def output(form: Format) -> tuple[Output, io.StringIO, io.StringIO]:
    out, err = io.StringIO(), io.StringIO()
    return Output(form, no_color=True, out=out, err=err), out, err


def test_the_envelope() -> None:
    printer, out, err = output(Format.JSON)
    printer.items("ThingList", ITEMS, COLUMNS, errors={"dev-2": "gone"}, extra={"epoch": 3})
    assert json.loads(out.getvalue()) == {
        "apiVersion": "leafdb/v1",
        "kind": "ThingList",
        "epoch": 3,
        "items": ITEMS,
        "errors": {"dev-2": "gone"},
    }
    assert err.getvalue() == ""


def test_no_errors_no_key() -> None:
    """`hints list` is drained when there are no items and no `errors`."""
    printer, out, _ = output(Format.JSON)
    printer.items("HintList", [], COLUMNS, errors={}, empty="no hints")
    assert json.loads(out.getvalue()) == {"apiVersion": "leafdb/v1", "kind": "HintList", "items": []}


def test_lines_and_tables_tell_errors_on_stderr() -> None:
    for form in (Format.JSONL, Format.TABLE):
        printer, out, err = output(form)
        printer.items("ThingList", ITEMS, COLUMNS, errors={"dev-2": "gone"})
        assert "dev-2" not in out.getvalue()
        assert err.getvalue() == "dev-2 could not be asked: gone\n"


def test_json_lines() -> None:
    printer, out, _ = output(Format.JSONL)
    printer.items("ThingList", ITEMS, COLUMNS)
    assert [json.loads(line) for line in out.getvalue().splitlines()] == ITEMS


def test_plain_tables() -> None:
    assert plain_table(COLUMNS, ITEMS) == "name          size\na             10 B\nlong-name  4.0 KiB\n"
    wide = [{"name": "x" * 500, "size": None}]
    assert "x" * 500 in plain_table(COLUMNS, wide)


def test_nothing_to_show_is_said_on_stderr() -> None:
    printer, out, err = output(Format.TABLE)
    printer.items("ThingList", [], COLUMNS, empty="no things")
    assert (out.getvalue(), err.getvalue()) == ("", "no things\n")


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_streamed_document_is_the_same_document(count: int) -> None:
    printer, out, _ = output(Format.JSON)
    stream = ItemStream(printer, "KeyList")
    items = [{"key": f"k{index}"} for index in range(count)]
    for item in items:
        stream.write(item, lambda: "")
    stream.close({"cursor": "ff"})
    assert json.loads(out.getvalue()) == {
        "apiVersion": "leafdb/v1", "kind": "KeyList", "items": items, "cursor": "ff",
    }  # fmt: skip


def test_bytes_in_json_and_back() -> None:
    assert bytes_fields("value", "tée".encode()) == {"value": "tée"}
    assert bytes_fields("value", b"\xff\x00") == {"value_base64": "/wA="}
    for value in (b"", b"tea", b"\xff\x00", bytes(range(256))):
        fields = json.loads(json.dumps(bytes_fields("value", value)))
        assert bytes_from_fields(fields, "value") == value


@pytest.mark.parametrize(
    "fields", [{}, {"value": "a", "value_base64": "YQ=="}, {"value": 3}, {"value_base64": "?"}, {"value_base64": None}]
)
def test_bad_bytes_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        bytes_from_fields(fields, "value")


def test_keys_in_json_and_back() -> None:
    keys: list[bytes | tuple[bytes, bytes]] = [b"alice", b"\xff", (b"alice", b"2024"), (b"\xfe", b"\xff")]
    for key in keys:
        assert key_from_fields(key_fields(key)) == key
    assert key_fields((b"a", b"\xff")) == {"key": "a", "sort_key_base64": "/w=="}


def test_previews_are_one_line_and_bounded() -> None:
    assert preview(b"tea") == "tea"
    assert preview(b"a\nb") == "a\\nb"
    assert preview(b"\xff\x00") == "0xff00"
    assert len(preview(b"x" * 10_000)) == 60
    assert "0x" not in preview("é".encode() * 1000), "a character cut at the end does not make a text binary"
    assert key_text((b"a", b"b")) == "a / b"


def test_figures_for_people() -> None:
    assert [human_bytes(size) for size in (0, 1023, 1024, 5 << 20, None)] == [
        "0 B",
        "1023 B",
        "1.0 KiB",
        "5.0 MiB",
        "-",
    ]
    assert [human_seconds(each) for each in (0.5, 75, 7500, 200_000, None)] == [
        "0.5s",
        "1m 15s",
        "2h 05m",
        "2d 07h",
        "-",
    ]
