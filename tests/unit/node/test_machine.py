"""Promises: what a node tells of its machine is what the system says, and what cannot be read is left out."""

from __future__ import annotations

import resource

import pytest

from leafdb.node import machine
from leafdb.node.machine import machine_facts

MEMINFO = "MemTotal:       16384 kB\nMemFree:         2048 kB\nSwapTotal:        1024 kB\n"
FILES = {machine.MEMORY: MEMINFO, **dict.fromkeys(machine.KERNEL.values(), "128\n")}


def test_what_the_system_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_read", FILES.__getitem__)
    found = machine_facts()
    assert found["open_files_max"] == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    assert (found["listen_backlog_max"], found["swappiness"]) == (128, 128)
    assert (found["memory_bytes"], found["swap_bytes"]) == (16 << 20, 1 << 20)


@pytest.mark.parametrize("text", ["", "none", "a\nb"])
def test_what_cannot_be_read_is_left_out(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(machine, "_read", lambda path: text)
    assert set(machine_facts()) == {"open_files_max", "open_files_hard"}


def test_another_system_has_no_such_files(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(path: str) -> str:
        raise FileNotFoundError(path)

    monkeypatch.setattr(machine, "_read", missing)
    assert set(machine_facts()) == {"open_files_max", "open_files_hard"}
