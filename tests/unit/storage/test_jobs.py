"""Jobs and results survive the trip between processes; what is not one is refused."""

from __future__ import annotations

from typing import Any

import pytest

from leafdb.codec import cbor
from leafdb.storage.forgotten import Told
from leafdb.storage.jobs import (
    CompactionJob,
    CompactionResult,
    FlushJob,
    Job,
    SalvageJob,
    SalvageResult,
    job_from_plain,
)
from leafdb.storage.lost_ranges import LostRange
from leafdb.storage.version import TableMeta, VersionEdit
from leafdb.storage.worker_protocol import FrameBuffer, decode_answer, encode_answer
from support.tables import TREE, meta_of

FLUSH = FlushJob(
    segments=("wal/0000000001.log",), outputs=((TREE, 4),), upto_lsn=9, after_lsn=3, expiring=(TREE,), expiry="a.b:c"
)
SALVAGE = SalvageJob(meta_of(3, b"a", b"c"), 7)
COMPACTION = CompactionJob(
    tree_id=TREE,
    inputs=(meta_of(1, b"a", b"c"),),
    output_level=1,
    below=((b"a", b"b"),),
    outputs=(7, 8),
    table_bytes=10,
    forgotten=(Told(b"", b"b", 5, 6), Told(b"b", None, 7, 8)),
    expiry="a.b:c",
)


@pytest.mark.parametrize("job", [FLUSH, COMPACTION, SALVAGE])
def test_jobs_survive_the_trip(job: Job) -> None:
    assert job_from_plain(cbor.loads(cbor.dumps(job.to_plain()))) == job


def test_results_survive_the_trip_and_say_their_edit() -> None:
    result = CompactionResult(
        added=(meta_of(7, b"a", b"b", level=1),), removed=(1,), entries_read=10, entries_written=9
    )
    assert CompactionResult.from_plain(cbor.loads(cbor.dumps(result.to_plain()))) == result
    assert result.edit() == VersionEdit(added=result.added, removed=(1,))


@pytest.mark.parametrize("added", [None, meta_of(7, b"a", b"b")])
def test_a_salvage_survives_the_pipe_and_its_edit_names_the_holes(added: TableMeta | None) -> None:
    result = SalvageResult(added=added, lost=((b"b", b"c"),))
    (answer,) = FrameBuffer().feed(encode_answer(5, result))
    assert decode_answer(answer) == (5, result)
    edit = result.edit(SALVAGE.table)
    assert edit.lost == (LostRange(3, TREE, b"b", b"c"),)
    assert (edit.removed, edit.added) == ((3,), () if added is None else (added,))
    for plain in ({}, {"added": None}, {"added": 1, "lost": []}, {"added": None, "lost": [["b", "c"]]}):
        with pytest.raises(ValueError):
            SalvageResult.from_plain(plain)


@pytest.mark.parametrize(
    "plain",
    [
        None,
        {},
        {"kind": "dance"},
        {"kind": "flush"},
        {**FLUSH.to_plain(), "segments": [1]},
        {**FLUSH.to_plain(), "outputs": [[1, 2, 3]]},
        {**FLUSH.to_plain(), "after_lsn": -1},
        {**COMPACTION.to_plain(), "inputs": [[]]},
        {**COMPACTION.to_plain(), "below": [["a", "b"]]},
        {**COMPACTION.to_plain(), "outputs": None},
        {**SALVAGE.to_plain(), "output": -1},
        {**SALVAGE.to_plain(), "table": None},
    ],
)
def test_what_is_no_job_is_refused(plain: Any) -> None:
    with pytest.raises(ValueError):
        job_from_plain(plain)


def test_enough_numbers_are_wanted_for_outputs_that_do_not_shrink() -> None:
    job = CompactionJob(
        tree_id=TREE, inputs=tuple(meta_of(n, b"a", b"b", size=50) for n in range(1, 5)), output_level=1
    )
    assert job.outputs_wanted == 2
    assert CompactionJob(tree_id=TREE, inputs=job.inputs, output_level=1, table_bytes=50).outputs_wanted == 10
