"""One door to a bucket, whichever kind it is, for commands that do not know before they look.

A bucket that keeps siblings wants `after` with every write and a last-writer-wins bucket has none; reads of both answer
Found, Missing or Conflict here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from leafdb.errors import ClientMisuse
from leafdb.types import Key
from leafdb_cli.bucket import item_of

if TYPE_CHECKING:
    from leafdb.client.context import Blind, Context
    from leafdb.client.results import Conflict, Explained, Failed, Found, Missing, Put, Written
    from leafdb.client.sync_client import Client
    from leafdb.client.sync_scan import Range, Scan

    Answer = Found[bytes] | Missing | Conflict[bytes]


class Door:
    """A bucket by its name. Raises NotApplied when there is none."""

    def __init__(self, client: Client, name: str) -> None:
        properties = item_of(client.admin("bucket.get", {"name": name}))
        self.name = name
        self.lww: bool = properties["conflict"] == "lww"
        self._siblings = client.bucket(name)
        self._lww = client.lww_bucket(name)

    def get(self, key: Key, **how: Any) -> Answer:
        """What is there."""
        if not self.lww:
            return self._siblings.get(key, **how)
        (answer,) = self.get_many([key], **how)
        return _raised(answer)

    def get_explained(self, key: Key, **how: Any) -> Explained[Any]:
        """What is there, and how it was read."""
        return self._lww.read_explained(key, **how) if self.lww else self._siblings.get_explained(key, **how)

    def get_many(self, keys: Sequence[Key], **how: Any) -> Sequence[Answer | Failed]:
        """Many at once, in the order of the keys."""
        return self._lww.get_many(keys, **how) if self.lww else self._siblings.get_many(keys, **how)

    def put(self, key: Key, value: bytes, after: Context | Blind, **how: Any) -> Written:
        """Write in place of what `after` has seen."""
        if self.lww:
            self._refuse_context(after)
            return self._lww.put(key, value, **how)
        return self._siblings.put(key, value, after=after, **how)

    def put_explained(self, key: Key, value: bytes, after: Context | Blind, **how: Any) -> Explained[Written]:
        """The same, and how it was taken."""
        if self.lww:
            self._refuse_context(after)
            return self._lww.put_explained(key, value, **how)
        return self._siblings.put_explained(key, value, after=after, **how)

    def put_many(self, puts: Iterable[Put[bytes]], **how: Any) -> list[Written | Failed]:
        """Many at once, in their order."""
        return self._lww.put_many(puts, **how) if self.lww else self._siblings.put_many(puts, **how)

    def delete(self, key: Key, after: Context | Blind, **how: Any) -> Written:
        """Delete what `after` has seen."""
        if self.lww:
            self._refuse_context(after)
            return self._lww.delete(key, **how)
        return self._siblings.delete(key, after=after, **how)

    def scan(self, **how: Any) -> Scan[Any]:
        """Every key, in token order."""
        return self._lww.scan(**how) if self.lww else self._siblings.scan(**how)

    def range(self, partition_key: bytes, **how: Any) -> Range[Any]:
        """The pairs of one partition key, by sort key."""
        return (self._lww if self.lww else self._siblings).range(partition_key, **how)

    def _refuse_context(self, after: Context | Blind) -> None:
        from leafdb.client.context import Context

        if isinstance(after, Context):
            raise ClientMisuse(f"bucket {self.name} is last-writer-wins: it takes no context")


def _raised(answer: Answer | Failed) -> Answer:
    from leafdb.client.results import Failed

    if isinstance(answer, Failed):
        raise answer.error
    return answer
