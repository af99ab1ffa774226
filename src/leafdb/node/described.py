"""Every setting with where it stands: for the page and the sample, for layers, flags and what is shown."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import Any, NamedTuple

from leafdb.config import Config, Kind, Setting


class Described(NamedTuple):
    """A setting together with where it stands."""

    section: str
    key: str
    """As written in a file: without the unit."""
    attribute: str
    setting: Setting
    default: Any

    @property
    def path(self) -> str:
        """`section.key`."""
        return f"{self.section}.{self.key}"


def described() -> Iterator[Described]:
    """Every setting, in the order of the page and the sample."""
    for section in fields(Config):
        for entry in fields(section.default):  # type: ignore[arg-type]  # every default is a section's dataclass
            about: Setting = entry.metadata["setting"]
            key = entry.name.removesuffix("_s") if about.kind is Kind.DURATION else entry.name
            yield Described(section.name, key, entry.name, about, entry.default)
