"""What crosses the pipes between a node and its storage worker. docs/formats/worker.md draws it.

A message is its length and one CBOR map. A request carries a job under a number, and an answer that number and either
what the job made or the error it met. Answers come in any order. A request can also be a pace, which is for all
compactions and has no answer. Both ends are one build, started together, so there is no version; a pipe does not damage
bytes, so there is no checksum. Anything malformed is a ValueError, and the end that meets one hangs up.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct
from typing import Any, Final

from leafdb.codec import cbor
from leafdb.errors import CorruptionError, DiskFull, StorageError, StoreFailed, UnknownFormat
from leafdb.limits import WORKER_FRAME_BYTES_MAX
from leafdb.storage.jobs import CompactionResult, FlushResult, Job, JobResult, SalvageResult, job_from_plain

_LENGTH: Final = Struct("<I")
PACE_WHOLE: Final = 1_000


class WorkerLost(StorageError):
    """The worker ended before it answered. Nothing it was writing may be trusted; the same job may be given again."""

    retryable = True


_ERRORS: Final[dict[str, type[StorageError]]] = {
    kind.__name__: kind for kind in (StorageError, CorruptionError, UnknownFormat, StoreFailed, DiskFull)
}


def encode_frame(message: dict[str, Any]) -> bytes:
    body = cbor.dumps(message)
    if len(body) > WORKER_FRAME_BYTES_MAX:
        raise ValueError(f"a worker message of {len(body)} bytes")
    return _LENGTH.pack(len(body)) + body


class FrameBuffer:
    """Bytes as they come from a pipe, messages as they are complete."""

    __slots__ = ("_data",)

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> Iterator[Any]:
        """Take bytes; every message they complete."""
        self._data += data
        while len(self._data) >= _LENGTH.size:
            (size,) = _LENGTH.unpack_from(self._data)
            if size > WORKER_FRAME_BYTES_MAX:
                raise ValueError(f"a worker message of {size} bytes")
            end = _LENGTH.size + size
            if len(self._data) < end:
                return
            body = bytes(self._data[_LENGTH.size : end])
            del self._data[:end]
            yield cbor.loads(body)


def encode_request(number: int, job: Job) -> bytes:
    return encode_frame({"id": number, "job": job.to_plain()})


def encode_pace(share: float) -> bytes:
    """The share of the time that compactions may take from now on."""
    return encode_frame({"pace": max(1, round(share * PACE_WHOLE))})


def decode_request(message: Any) -> tuple[int, Job] | float:
    """A job and its number, or a pace: the share of the time, above 0.0 and at most 1.0."""
    if isinstance(message, dict) and "pace" in message:
        pace = message["pace"]
        if type(pace) is not int or not 1 <= pace <= PACE_WHOLE:
            raise ValueError("a pace is a number of thousandths")
        return pace / PACE_WHOLE
    if not isinstance(message, dict) or type(message.get("id")) is not int:
        raise ValueError("a request is a map with a number")
    return message["id"], job_from_plain(message.get("job"))


def encode_answer(number: int, result: JobResult | StorageError) -> bytes:
    match result:
        case StorageError():
            kind = type(result).__name__
            error = {"kind": kind if kind in _ERRORS else "StorageError", "message": str(result), "path": result.path}
            if isinstance(result, CorruptionError):
                error["offset"] = str(result.offset)
            return encode_frame({"id": number, "error": error})
        case CompactionResult():
            return encode_frame({"id": number, "compaction": result.to_plain()})
        case FlushResult():
            return encode_frame({"id": number, "flush": result.to_plain()})
        case SalvageResult():
            return encode_frame({"id": number, "salvage": result.to_plain()})


def decode_answer(message: Any) -> tuple[int, JobResult | StorageError]:
    if not isinstance(message, dict) or type(message.get("id")) is not int:
        raise ValueError("an answer is a map with a number")
    number: int = message["id"]
    if "error" in message:
        return number, _decode_error(message["error"])
    if "compaction" in message:
        return number, CompactionResult.from_plain(message["compaction"])
    if "salvage" in message:
        return number, SalvageResult.from_plain(message["salvage"])
    if "flush" not in message:
        raise ValueError("an answer without a result")
    return number, FlushResult.from_plain(message["flush"])


def _decode_error(error: Any) -> StorageError:
    try:
        kind = _ERRORS[error["kind"]]
        if kind is CorruptionError:
            return CorruptionError(error["message"], path=error["path"], offset=int(error["offset"]))
        return kind(error["message"], path=error["path"])
    except (KeyError, TypeError) as problem:
        raise ValueError(f"a malformed error: {problem}") from problem
