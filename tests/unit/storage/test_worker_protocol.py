"""Messages between node and worker survive any cut of the pipe; anything malformed is refused."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from leafdb.errors import CorruptionError, DiskFull, StorageError, StoreFailed, UnknownFormat
from leafdb.limits import WORKER_FRAME_BYTES_MAX
from leafdb.storage.jobs import CompactionResult, FlushJob, FlushResult, JobResult
from leafdb.storage.value_files import ValueMeta
from leafdb.storage.worker_protocol import (
    FrameBuffer,
    WorkerLost,
    decode_answer,
    decode_request,
    encode_answer,
    encode_frame,
    encode_pace,
    encode_request,
)
from support.source_tree import ROOT
from support.tables import TREE, meta_of

JOB = FlushJob(segments=("wal/0000000001.log",), outputs=((TREE, 4),), upto_lsn=3)


def test_the_request_drawn_in_the_format_page_is_true() -> None:
    page = (ROOT / "docs" / "formats" / "worker.md").read_text(encoding="utf-8")
    drawn = page.split("## Example")[1].split("```")[1]
    data = bytes.fromhex("".join(re.findall(r"^ *((?:[0-9a-f]{2} ?)+)", drawn, re.MULTILINE)))
    job = FlushJob(segments=JOB.segments, outputs=((TREE, 7),), upto_lsn=20, after_lsn=9, values=((TREE, 8),))
    assert data == encode_request(1, job)
    pace = page.split("Half pace:")[1].split("```")[1]
    assert bytes.fromhex(pace) == encode_pace(0.5)


@pytest.mark.parametrize(("share", "told"), [(1.0, 1.0), (0.1, 0.1), (0.3333, 0.333), (0.000_1, 0.001)])
def test_a_pace_survives_the_trip(share: float, told: float) -> None:
    (message,) = FrameBuffer().feed(encode_pace(share))
    assert decode_request(message) == told


@pytest.mark.parametrize("pace", [0, 1001, -1, 0.5, "1", None, True])
def test_a_pace_that_is_none_is_refused(pace: object) -> None:
    with pytest.raises(ValueError, match="thousandths"):
        decode_request({"pace": pace})


@pytest.mark.parametrize("cut", [1, 2, 3, 7, 1000])
def test_messages_survive_any_cut_of_the_pipe(cut: int) -> None:
    stream = encode_request(1, JOB) + encode_frame({}) + encode_request(2, JOB)
    buffer, messages = FrameBuffer(), list[Any]()
    for start in range(0, len(stream), cut):
        messages += buffer.feed(stream[start : start + cut])
    assert [decode_request(messages[0]), messages[1], decode_request(messages[2])] == [(1, JOB), {}, (2, JOB)]


@pytest.mark.parametrize(
    "result",
    [
        FlushResult(()),
        FlushResult((replace(meta_of(1, b"a", b"b"), references=((2, 70), (5, 9))),), (ValueMeta(2, TREE, 134, 2),)),
        CompactionResult((meta_of(1, b"a", b"b"),), (2, 3), 20, 10, (ValueMeta(9, TREE, 134, 2),)),
    ],
)
def test_results_survive_the_trip(result: JobResult) -> None:
    (message,) = FrameBuffer().feed(encode_answer(5, result))
    assert decode_answer(message) == (5, result)


@pytest.mark.parametrize(
    "error",
    [
        StorageError("a", path="p"),
        CorruptionError("b", path="p", offset=1 << 40),
        DiskFull("c"),
        StoreFailed("d", path="p"),
        UnknownFormat("e", path="p"),
    ],
)
def test_errors_keep_their_kind_and_place(error: StorageError) -> None:
    (message,) = FrameBuffer().feed(encode_answer(5, error))
    number, found = decode_answer(message)
    assert number == 5
    assert isinstance(found, StorageError)
    assert type(found) is type(error)
    assert (str(found), found.path) == (str(error), error.path)
    if isinstance(error, CorruptionError):
        assert isinstance(found, CorruptionError)
        assert found.offset == error.offset


def test_a_lost_worker_may_be_tried_again() -> None:
    assert WorkerLost("gone").retryable
    assert not StoreFailed("gone").retryable


@pytest.mark.parametrize(
    "message",
    [
        None,
        {},
        {"id": "1"},
        {"id": 1},
        {"id": 1, "flush": 3},
        {"id": 1, "flush": {"added": [[]], "values": []}},
        {"id": 1, "error": {}},
    ],
)
def test_malformed_messages_are_refused(message: Any) -> None:
    with pytest.raises(ValueError):
        decode_answer(message)
    with pytest.raises(ValueError):
        decode_request(message)


def test_an_endless_message_is_refused_at_its_head() -> None:
    with pytest.raises(ValueError, match="bytes"):
        list(FrameBuffer().feed((WORKER_FRAME_BYTES_MAX + 1).to_bytes(4, "little")))
