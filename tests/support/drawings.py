"""The bytes that a page of docs/formats draws: what a build of today must read for ever."""

from __future__ import annotations

import re

from support.source_tree import ROOT

_BLOCK = re.compile(r"^```\n(.*?)^```", re.MULTILINE | re.DOTALL)
_ROW = re.compile(r"^[0-9a-f]{4}  ((?:[0-9a-f]{2} ?){1,16})", re.MULTILINE)


def drawn(page: str) -> list[bytes]:
    """Each dump of the page, in order."""
    text = (ROOT / "docs" / "formats" / page).read_text(encoding="utf-8")
    dumps = ["".join(_ROW.findall(block)) for block in _BLOCK.findall(text)]
    return [bytes.fromhex(dump) for dump in dumps if dump]
