"""Promises: every command on the pages that tell how to found, grow, shrink, replace, recover, restart and upgrade a
cluster does what the page says, run from the page itself against real nodes; and none is there that was not run.

What is put for the pages' machines and addresses says `support.machines`. The story is the blocks of the pages in an
order in which a person may come to them, and what happens to the machines between.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from leafdb import Found
from support.machines import Machines
from support.pages import SHELL, Block, blocks, commands, commands_of, split
from support.source_tree import ROOT

pytestmark = pytest.mark.system

OPERATIONS = ROOT / "docs" / "operations"
FOUND, GROW, RESTART, REPLACE = "cluster.md", "how-to-grow.md", "how-to-restart.md", "how-to-replace.md"
TROUBLE, TLS, ACCOUNTS = "trouble.md", "tls.md", "accounts.md"
WHOLE = (FOUND, GROW, RESTART, REPLACE)
"""The pages of which every command is run, also those that the text names in passing."""
ONE_BY_ONE = "Restarting and upgrading, one node after the other"
NO_MAJORITY = "When the majority of the control set is gone"
KEYS = 500


class Step(NamedTuple):
    """A block of a page: which of those below a heading, and the machine on which it is run."""

    page: str
    heading: str
    number: int = 0
    on: str = "a"

    def block(self) -> Block:
        """What is run."""
        return [block for block in shell_blocks(self.page) if block.heading == self.heading][self.number]


def shell_blocks(page: str) -> list[Block]:
    """The blocks of a page that a person would run."""
    return [block for block in blocks(OPERATIONS / page) if block.language in SHELL and not block.no_run]


class Play:
    """A story being played."""

    def __init__(self, directory: Path) -> None:
        (config,) = [block.code for block in blocks(OPERATIONS / FOUND) if block.language == "toml"]
        self._machines = Machines(directory, config)

    @contextmanager
    def on_stage(self) -> Iterator[None]:
        """While the machines run; what their logs say when it goes wrong."""
        with self._machines as machines:
            try:
                yield
            finally:
                print(machines.logs())

    def page(self, page: str, heading: str, number: int = 0, *, on: str = "a") -> None:
        """Run a block."""
        self._run(Step(page, heading, number, on))

    @contextmanager
    def beside(self, page: str, heading: str, number: int) -> Iterator[None]:
        """Run a block, and others meanwhile."""
        failed: list[BaseException] = []

        def run() -> None:
            try:
                self.page(page, heading, number)
            except BaseException as error:
                failed.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        yield
        thread.join()
        assert not failed, failed

    def _run(self, step: Step) -> None:
        print(f"--- {step.page}, {step.heading}\n{self._machines.run(step.block().code, on=step.on)}")

    def typed(self, command: str) -> None:
        """What a person does besides."""
        print(f"--- besides\n{self._machines.run(command)}")

    def install(self, name: str) -> None:
        """A machine has its configuration."""
        self._machines.install(name)

    def start(self, *names: str) -> None:
        """Nodes are started, on machines that have never run one unless they were emptied."""
        self._machines.start(*names)

    def breaks(self, *names: str) -> None:
        """Machines are gone."""
        self._machines.kill(*names)

    def has_left(self, name: str) -> None:
        """A node has ended by itself, as one that is no member any more. Its directory is emptied."""
        assert self._machines.ended(name) == 77
        self._machines.empty(name)

    def fill(self) -> None:
        """Write what must never be lost."""
        with self._machines.connect("a", "b", "c") as db:
            bucket = db.bucket("carts")
            for number in range(KEYS):
                bucket.put(f"key-{number}", b"%d " % number * 200, after=bucket.get(f"key-{number}").context)

    def check(self, *members: str) -> None:
        """These are the members, each has its share, and every key is read as it was written."""
        with self._machines.connect(*members) as db:
            shown = db.admin("ring.show", {})
            assert sorted(member["name"] for member in shown["members"]) == sorted(members)
            assert not shown["change"]
            owned = [member["owned"] for member in shown["members"]]
            assert max(owned) - min(owned) <= 1
            bucket = db.bucket("carts")
            for number in range(KEYS):
                answer = bucket.get(f"key-{number}")
                assert isinstance(answer, Found), f"key-{number}: {answer}"
                assert answer.value == b"%d " % number * 200


class Rehearsal(Play):
    """The same without machines: which blocks are run, in order."""

    def __init__(self) -> None:
        self.steps: list[Step] = []

    def _run(self, step: Step) -> None:
        self.steps.append(step)

    def typed(self, command: str) -> None: ...
    def install(self, name: str) -> None: ...
    def start(self, *names: str) -> None: ...
    def breaks(self, *names: str) -> None: ...
    def has_left(self, name: str) -> None: ...
    def fill(self) -> None: ...
    def check(self, *members: str) -> None: ...


def story(play: Play) -> None:
    """A cluster is founded, restarted, grown, shrunk, and loses machines: one, another, and then most of them."""
    play.page(TLS, "Certificates")
    play.page(FOUND, "Install", 0)
    play.install("a")
    play.page(FOUND, "Install", 1)
    play.start("a", "b", "c")
    play.page(FOUND, "Found it", 0)
    play.page(ACCOUNTS, "The first user")
    play.page(FOUND, "Found it", 1)
    play.page(ACCOUNTS, "Users, roles, grants")
    play.page(ACCOUNTS, "Logging in")
    play.page(TLS, "Clients")
    play.fill()
    play.page(FOUND, "Day by day")

    play.page(TLS, "Before a certificate runs out")  # installed as the nodes are restarted
    play.page(RESTART, ONE_BY_ONE, 0, on="b")
    play.typed("leafdb node drain b --wait")
    play.page(RESTART, ONE_BY_ONE, 1)
    play.page(RESTART, ONE_BY_ONE, 2)
    play.page(RESTART, "Upgrading")
    play.check("a", "b", "c")

    play.page(GROW, "Before")
    play.start("d", "e")
    play.page(GROW, "Grow", 0)
    with play.beside(GROW, "Grow", 1):
        play.page(GROW, "Meanwhile", 0)
        play.page(GROW, "Meanwhile", 1)
    play.check("a", "b", "c", "d", "e")

    play.page(GROW, "Shrink")
    play.has_left("e")
    play.check("a", "b", "c", "d")

    # A newcomer goes down for good before it has come, and holds the plan up.
    play.start("e")
    play.typed("leafdb cluster stage join 10.0.0.5:7412; leafdb cluster plan")
    play.breaks("e")
    play.typed("leafdb cluster commit PLAN_ID")
    play.page(GROW, "Meanwhile", 2)
    play.check("a", "b", "c", "d")
    play.start("e")
    play.page(GROW, "In a script")
    play.check("a", "b", "c", "d", "e")

    play.breaks("b")
    play.start("f")
    play.page(REPLACE, "Replace")
    play.check("a", "c", "d", "e", "f")
    play.breaks("c")
    play.page(REPLACE, "Remove a dead one", 0)
    play.check("a", "d", "e", "f")
    play.page(TROUBLE, "Compare everything, to sleep better")

    # Two of the three that keep the register, and of the owners of some ranges all but one.
    play.breaks("a", "d")
    play.page(REPLACE, NO_MAJORITY, 0)
    play.typed("for node in a d; do leafdb cluster stage force-remove $node; done")
    play.page(REPLACE, "Remove a dead one", 1)
    play.page(REPLACE, NO_MAJORITY, 1)
    play.check("e", "f")


def test_the_pages_do_what_they_say(tmp_path: Path) -> None:
    play = Play(tmp_path)
    with play.on_stage():
        story(play)


def test_no_page_has_a_command_that_is_not_run() -> None:
    rehearsal = Rehearsal()
    story(rehearsal)
    played = {(step.page, step.block()) for step in rehearsal.steps}
    missing = {(page, block) for page in (*WHOLE, TLS, ACCOUNTS) for block in shell_blocks(page)} - played
    assert not missing, [f"{page}, line {block.lines_before + 1}" for page, block in missing]
    # What the text names in passing was run somewhere, with each option it is shown with.
    run = [said(words) for _, block in played for words in commands_of(block, "leafdb")]
    for page in WHOLE:
        for command in commands(OPERATIONS / page, "leafdb"):
            path, options = said(command.words)
            assert any(path == way and options <= shown for way, shown in run), command.where


def said(words: tuple[str, ...]) -> tuple[list[str], set[str]]:
    """The noun and the verb of a command, and all its options."""
    return split(words[1:])[0], {word.partition("=")[0] for word in words if word.startswith("--")}
