"""What a store does not take in, or does not show, where things may have been forgotten: the words for both."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class LeftOut(Exception):
    """Of a record that came, siblings were left out, since they were forgotten by right (model/admission): who sent it
    is behind, or has what nobody else has. What was taken in is as durable as asked."""

    def __init__(self, dots: int) -> None:
        super().__init__(f"{dots} of its siblings are older than the horizon, and not known here any more")


class Doubted(Protocol):
    """Below which stamp readers believe nothing of what is here (`Horizons.doubted`)."""

    def __call__(self, storage_key: bytes, horizon: int = 0, *, holder: bool = True) -> int:
        """Of a record that is here as a holder's, or is kept for one, by a reader who knows of that horizon. 0: they
        believe all of it."""


def all_believed(storage_key: bytes, horizon: int = 0, *, holder: bool = True) -> int:
    """Where nothing is ever forgotten."""
    return 0


def all_but(done: Callable[[Exception | None], None], left_out: LeftOut, error: Exception | None) -> None:
    """What was taken in is durable, or the store has failed: tell `done`, and if that is all, what was left out."""
    done(left_out if error is None else error)
