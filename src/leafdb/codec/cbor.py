"""CBOR, the one way in and the one way out: canonical when written, hardened when read.

Whatever a peer or a disk hands us is decoded here and nowhere else. The subset is what JSON has plus byte strings:
integers of 64 bits, floats, text, bytes, arrays, maps with text or byte keys, true, false, null. Refused:

- every tag, the built-in ones too: they would build regexes, MIME messages, huge decimals and cyclic lists;
- indefinite lengths, duplicate map keys, nesting over CBOR_DEPTH_MAX;
- bytes after the item (the library ignores them), simple values and `undefined`;
- more than CBOR_ITEMS_MAX items: a mebibyte of empty maps would cost seventy of heap, so heads are counted first.

Counting costs Python time per item, so it runs only where it can matter: an input shorter than the item budget cannot
hold more items than bytes. The same walk refuses simple values; a C search for their lead bytes says when to walk.

Map keys that are integers cannot be read back (hash-collision attacks): use text.
"""

from __future__ import annotations

import re
from io import BytesIO
from typing import Any, Final, NoReturn

import cbor2

from leafdb.limits import CBOR_DEPTH_MAX, CBOR_ITEMS_MAX


class DecodeError(ValueError):
    """The bytes are not one item of the subset."""


class EncodeError(ValueError):
    """The value has a part that CBOR, or our subset of it, cannot carry."""


def _refuse_tag(*_: object) -> NoReturn:
    raise ValueError("tags are not accepted")


# A raising tag_hook is not enough: it sees only the tags the library does not know.
_BUILT_IN_TAGS: Final = (
    *range(6),
    *(25, 28, 29, 30, 35, 36, 37, 52, 54, 100, 256, 258, 260, 261, 1004, 43000, 55799),
)
_REFUSING: Final = dict.fromkeys(_BUILT_IN_TAGS, _refuse_tag)
_SUSPECT: Final = re.compile(rb"[\xe0-\xf3\xf7\xf8]")
"""Lead bytes of simple values other than false, true and null; also found, harmlessly, inside strings."""


def dumps(value: object) -> bytes:
    """The canonical encoding: shortest forms, map keys sorted; equal values have equal bytes."""
    try:
        return cbor2.dumps(value, canonical=True)
    except (cbor2.CBOREncodeError, RecursionError) as error:
        raise EncodeError(str(error)) from error


def loads(data: bytes) -> Any:
    """The one item that `data` is. Raises DecodeError."""
    if len(data) > CBOR_ITEMS_MAX or _SUSPECT.search(data) is not None:
        _walk(data)
    decoder = cbor2.CBORDecoder(
        BytesIO(data),
        tag_hook=_refuse_tag,
        semantic_decoders=_REFUSING,
        max_depth=CBOR_DEPTH_MAX,
        allow_indefinite=False,
        allow_duplicate_keys=False,
        strict_hashable_types=True,
    )
    try:
        value = decoder.decode()
    except (cbor2.CBORError, ValueError, OverflowError, RecursionError, MemoryError) as error:
        raise DecodeError(_reason(error)) from None
    try:
        decoder.read(1)
    except cbor2.CBORDecodeEOF:
        return value
    raise DecodeError("bytes after the item")


def _reason(error: BaseException) -> str:
    cause = error.__cause__
    return f"{error}: {cause}" if cause is not None else str(error)


def _walk(data: bytes) -> None:
    """Step over the heads of all items without building any: counts them and refuses what the library would take."""
    at, end, items, wanted = 0, len(data), 0, 1
    while wanted:
        if at >= end:
            raise DecodeError("cut off")
        lead = data[at]
        at += 1
        major, info = lead >> 5, lead & 31
        if major == 7:
            if info not in (20, 21, 22, 25, 26, 27):
                raise DecodeError("simple value")
            at += 1 << (info - 24) if info > 24 else 0
            argument = 0
        elif info < 24:
            argument = info
        elif info < 28:
            width = 1 << (info - 24)
            argument = int.from_bytes(data[at : at + width], "big")
            at += width
        else:
            raise DecodeError("indefinite length or reserved head")
        if major in (2, 3):
            at += argument
        elif major in (4, 5):
            wanted += argument << (major - 4)
        elif major == 6:
            raise DecodeError("tags are not accepted")
        wanted -= 1
        items += 1
        if items + wanted > CBOR_ITEMS_MAX:
            raise DecodeError(f"more than {CBOR_ITEMS_MAX} items")
    if at != end:
        raise DecodeError("cut off" if at > end else "bytes after the item")
