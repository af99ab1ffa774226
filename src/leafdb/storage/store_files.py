"""Which names the files of a store at rest have, and which of them one such store is made of.

A snapshot is a store at rest: no log, no lock. Names come from peers and from lists that anybody may have written; one
that is none of these is never opened.
"""

from __future__ import annotations

import re
from typing import Final

STORE_FILE: Final = re.compile(
    r"CURRENT|IDENTITY|MANIFEST-[0-9]{10}|tables/[0-9]{10}\.sst|values/[0-9]{10}\.val", re.ASCII
)


def is_store_file(path: str) -> bool:
    """Whether a store at rest may have a file of that name, relative to its root."""
    return STORE_FILE.fullmatch(path) is not None
