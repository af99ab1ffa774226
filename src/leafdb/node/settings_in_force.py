"""The settings of a process as they are in force: from where each came, and what SIGHUP may change of them.

A reload reads all layers again. What is marked reloadable is taken over at once, by whoever follows; what differs
otherwise waits for a restart and is named in the log and by `leafdb config show`. A configuration with any fault
changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from leafdb.config import Config
from leafdb.errors import ConfigError
from leafdb.node.described import Described, described
from leafdb.node.logs import Log

log: Log = Log("process")


class Read(NamedTuple):
    """All layers, read: the values, and the origin of each by its path."""

    config: Config
    origins: Mapping[str, str]


class SettingsInForce:
    """Of one process. `load` reads all layers again, or raises ConfigError."""

    def __init__(self, read: Read, load: Callable[[], Read]) -> None:
        self.config: Config = read.config
        self.origins: Mapping[str, str] = read.origins
        self.waiting: Mapping[str, Any] = {}
        """By path: what the configuration says now of settings that wait for a restart."""
        self._load = load
        self._followers: list[Callable[[Config], None]] = []

    def follow(self, take: Callable[[Config], None]) -> None:
        """Have `take` called now, and after each change of what is in force. It reads what is reloadable only."""
        self._followers.append(take)
        take(self.config)

    def reload(self) -> None:
        """Take over what may change while running, and say what may not."""
        try:
            wanted, origins = self._load()
        except ConfigError as error:
            log.error("configuration not reloaded", problems=list(error.problems or (str(error),)))
            return
        differ = [entry for entry in described() if value_of(wanted, entry) != value_of(self.config, entry)]
        taken = [entry for entry in differ if entry.setting.reloadable]
        self.waiting = {entry.path: value_of(wanted, entry) for entry in differ if not entry.setting.reloadable}
        self.origins = {
            path: self.origins[path] if path in self.waiting else origin for path, origin in origins.items()
        }
        for entry in taken:
            section = replace(getattr(self.config, entry.section), **{entry.attribute: value_of(wanted, entry)})
            self.config = replace(self.config, **{entry.section: section})
        for take in self._followers:
            take(self.config)
        log.info("configuration reloaded", changed=[entry.path for entry in taken], level=self.config.log.level)
        if self.waiting:
            log.warning("these settings wait for a restart", settings=list(self.waiting))


def value_of(config: Config, entry: Described) -> Any:
    """What a configuration says of one setting."""
    return getattr(getattr(config, entry.section), entry.attribute)
