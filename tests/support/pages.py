"""What the documentation says that can be checked: its Python, its shell lines, the commands it names in passing.

A block that cannot be run says so in the line above it, where a reader of the page does not see it, with the reason:

    <!-- no-run: needs systemd -->
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from typing import NamedTuple

from leafdb_cli.options import FLAGS, VALUED
from support.source_tree import ROOT

_BLOCK = re.compile(r"^( *)```(\w*)\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
_INDENTED = re.compile(r"^ {4}(\S.*)$", re.MULTILINE)
_GRAMMAR = re.compile(r"\s\[")
_TYPED = re.compile(r"(?<=^\n)((?: {4}.*\n)+)", re.MULTILINE)
_NO_RUN = re.compile(r"<!-- no-run: ([^\n]+?) -->\s*\Z")
_PLACEHOLDER = re.compile(r"[A-Z.…\[<]|[a-z]+\|")  # a|b names several commands
_DEEPER = (["cluster", "stage"], ["storage", "dump"], ["storage", "snapshot"], ["repair", "schedule"])
_SPAN = re.compile(r"`([^`\n]+)`")
SHELL = ("sh", "shell", "bash", "console")
PROGRAMS = ("leafdb", "leafdbd", "make", "pip", "python", "python3", "systemctl", "kubectl", "ansible-playbook")
"""With what an indented block begins that people are to type."""


class Block(NamedTuple):
    """A block of a page, also one in a list: its code, after how many lines of the page it begins, the heading above
    it, and why it is not run."""

    language: str
    code: str
    lines_before: int
    heading: str
    no_run: str = ""


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
    return [_block(text, found[2], found, 3) for found in _BLOCK.finditer(text)]


def shell_blocks(page: Path) -> list[Block]:
    """What a page would have somebody type: its blocks of shell, and those that are indented and begin with a program.
    A line with brackets is grammar, not a command."""
    text = page.read_text(encoding="utf-8")
    typed = [_block(text, "sh", found, 1) for found in _TYPED.finditer(_prose(text))]
    fenced = [block for block in blocks(page) if block.language in SHELL]
    indented = [block for block in typed if begins_with_program(block.code) and not _GRAMMAR.search(block.code)]
    return sorted([*fenced, *indented], key=lambda block: block.lines_before)


def begins_with_program(line: str) -> bool:
    """Whether a line calls something that people type."""
    return any(words[0] in PROGRAMS for words in _calls(line.partition("\n")[0]))


def _block(text: str, language: str, found: re.Match[str], code: int) -> Block:
    headings = _HEADING.findall(_prose(text), 0, found.start())
    no_run = _NO_RUN.search(text, 0, found.start())
    return Block(
        language,
        dedent(found[code]),
        text.count("\n", 0, found.start(code)),
        headings[-1] if headings else "",
        no_run[1] if no_run else "",
    )


def _prose(text: str) -> str:
    """A page with its fenced blocks blank: a comment in one is no heading."""
    return _BLOCK.sub(lambda found: re.sub(r"[^\n]", " ", found[0]), text)


def commands(page: Path, *programs: str) -> list[Command]:
    """The lines of a page, in shell blocks, in indented blocks and in the text, that begin with one of `programs`."""
    text = page.read_text(encoding="utf-8")
    prose = _BLOCK.sub("", text)
    found = [words for block in blocks(page) if block.language in SHELL for words in commands_of(block, *programs)]
    lines = _INDENTED.findall(prose) + _SPAN.findall(prose)
    found += [words for line in lines for words in _calls(line) if words[0] in programs]
    return [Command(page, words) for words in found]


def commands_of(block: Block, *programs: str) -> list[tuple[str, ...]]:
    """The words of each line of a shell block that begins with one of `programs`."""
    lines = block.code.replace("\\\n", " ").splitlines()
    return [words for line in lines for words in _calls(line) if words[0] in programs]


def split(words: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """The nouns and verbs of a line of `leafdb` (as `kv get`), and its options but the global ones."""
    path: list[str] = []
    options: list[str] = []
    skip = False
    for word in words:
        if skip:
            skip = False
        elif word.startswith("-"):
            name = word.partition("=")[0]
            skip = name in VALUED and "=" not in word
            if name not in (*VALUED, *FLAGS, "--help", "--"):
                options.append(name)
        elif len(path) < (3 if path in _DEEPER else 2) and not options and not _PLACEHOLDER.match(word):
            path.append(word)
    return path, options


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
