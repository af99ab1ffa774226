"""A stand-in for a cluster in tests of the command line: the real wire, and the admin verbs that a test gives.

The command line runs whole, in this process: arguments, client, socket, output, exit code.
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import pytest

from leafdb.errors import LeafdbError, NotApplied, Reason
from leafdb.wire.body import encode_map
from leafdb.wire.control import AdminRequest
from leafdb.wire.frame import Frame
from leafdb.wire.registry import MessageType
from leafdb_cli.main import main

Answer = Mapping[str, Any] | LeafdbError
Verb = Answer | Callable[[Mapping[str, Any]], Answer] | list[Answer]
"""An answer for ever, a function of the arguments, or answers in order of which the last one stays."""


class Ended(NamedTuple):
    """How a command ended."""

    code: object
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        """Its JSON."""
        found: dict[str, Any] = json.loads(self.out)
        assert found["apiVersion"] == "leafdb/v1"
        return found

    @property
    def item(self) -> dict[str, Any]:
        """Its only item."""
        (found,) = self.document["items"]
        assert isinstance(found, dict)
        return found


Run = Callable[..., Ended]
"""The command line: arguments, `typed=` and `terminal=`."""


class StandIn:
    """Verbs and what was asked of them."""

    def __init__(self) -> None:
        self.verbs: dict[str, Verb] = {}
        self.calls: list[tuple[str, dict[str, Any]]] = []

    def reply_to(self, frame: Frame) -> tuple[MessageType, bytes]:
        """In place of a `FakeCluster`'s own."""
        request = AdminRequest.decode(frame.body)
        answer = self._answer(request.verb, dict(request.args))
        if isinstance(answer, LeafdbError):
            raise answer
        return MessageType.ADMIN_REPLY, encode_map(dict(answer))

    def asked(self, verb: str) -> list[dict[str, Any]]:
        """The arguments of each call of a verb."""
        return [args for called, args in self.calls if called == verb]

    def _answer(self, verb: str, args: dict[str, Any]) -> Answer:
        self.calls.append((verb, args))
        if verb not in self.verbs:
            return NotApplied(f"no such verb {verb!r}", reason=Reason.UNSUPPORTED)
        found = self.verbs[verb]
        if isinstance(found, list):
            return found.pop(0) if len(found) > 1 else found[0]
        return found(args) if callable(found) else found


class Terminal(io.StringIO):
    """A person's screen."""

    def isatty(self) -> bool:
        return True


def run_cli(monkeypatch: pytest.MonkeyPatch, *arguments: str, typed: str = "", terminal: bool = False) -> Ended:
    """Run a command; `typed` is what a person answers, `terminal` whether there is one."""
    streams = {name: Terminal() if terminal else io.StringIO() for name in ("stdin", "stdout", "stderr")}
    streams["stdin"].write(typed)
    streams["stdin"].seek(0)
    with monkeypatch.context() as patch:
        for name, stream in streams.items():
            patch.setattr(sys, name, stream)
        with pytest.raises(SystemExit) as ended:
            main(arguments)
    return Ended(ended.value.code or 0, streams["stdout"].getvalue(), streams["stderr"].getvalue())
