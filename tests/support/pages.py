"""What the documentation says that can be checked: its Python, its shell lines, the commands it names in passing."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from support.source_tree import ROOT

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_INDENTED = re.compile(r"^ {4}(\S.*)$", re.MULTILINE)
_SPAN = re.compile(r"`([^`\n]+)`")
_FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
SHELL = ("sh", "shell", "bash", "console")


class Block(NamedTuple):
    """A fenced block of a page: its code, and after how many lines of the page it begins."""

    language: str
    code: str
    lines_before: int


class Command(NamedTuple):
    """A command line that a page shows."""

    page: Path
    words: tuple[str, ...]

    @property
    def where(self) -> str:
        """For messages."""
        return f"{self.page.relative_to(ROOT)}: {' '.join(self.words)}"


def pages() -> list[Path]:
    """Every page of the documentation, README.md first."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    return [Block(found[1], found[2], text[: found.start(2)].count("\n")) for found in _BLOCK.finditer(text)]


def commands(page: Path, *programs: str) -> list[Command]:
    """The lines of a page, in shell blocks, in indented blocks and in the text, that begin with one of `programs`."""
    text = page.read_text(encoding="utf-8")
    prose = _FENCE.sub("", text)
    shell = [block.code.replace("\\\n", " ") for block in blocks(page) if block.language in SHELL]
    lines = [line for code in shell for line in code.splitlines()]
    lines += _INDENTED.findall(prose)
    lines += _SPAN.findall(prose)
    return [Command(page, words) for line in lines for words in _calls(line) if words[0] in programs]


def _calls(line: str) -> Iterator[tuple[str, ...]]:
    """The words of each command on a line: without prompt, comment, environment, and what follows a pipe is another."""
    for part in re.split(r"\s(?:\||&&|;)\s", line.strip().removeprefix("$ ")):
        try:
            words = shlex.split(part, comments=True)
        except ValueError:
            continue
        while words and (re.fullmatch(r"[A-Z_]+=.*", words[0]) or words[0] in ("sudo", "exec", "or", "|")):
            words.pop(0)
        if words:
            yield (Path(words[0]).name, *words[1:])
