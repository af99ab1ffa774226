"""docs/ as a book: a Sphinx extension, for what a book needs and plain Markdown on a forge does not.

The pages are never touched; while Sphinx reads them it is given a little more than they say:

- **Contents.** Each section of docs/README.md is a part of the book: the pages it links to, in that order. A README.md
  further down lists the pages of its folder in the same way. A page that no list has is a warning.
- **The Python reference.** Below each section of docs/reference/python.md the public names that it lists, from their
  docstrings (autodoc).
- **The command reference.** Below docs/reference/commands.md every command of the tree, with what `--help` says of it.
- **Links that lead out of docs/** become their text: what they point to is no page of the book.

Docstrings are written in plain words, with code in single quotes and drawings indented; here they are made into what
Sphinx reads (`restructured`).
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator
from enum import Enum
from itertools import pairwise
from pathlib import Path
from typing import Any

import typer
from sphinx.application import Sphinx

_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^## (.*)$", re.MULTILINE)
_NAME = re.compile(r"(?<=[-,] )`(leafdb[\w.]*)`(?=[:,])")
_CODE = re.compile(r"(``?)(.+?)\1", re.DOTALL)
_MARKUP = re.compile(r"[*|\\]|_(?=\W|$)")

HELP_COLUMNS = 100


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("source-read", _read)
    app.connect("autodoc-process-docstring", _docstring)
    app.connect("autodoc-process-signature", _signature)
    app.connect("build-finished", _front_door)
    return {"parallel_read_safe": True}


def _read(app: Sphinx, page: str, source: list[str]) -> None:
    docs = Path(app.srcdir)
    text = _without_ways_out(docs, docs / f"{page}.md", source[0])
    if page.rpartition("/")[2] == "README":
        text += contents(docs, docs / f"{page}.md", source[0])
    elif page == "reference/python":
        text = "".join(section + _documented(section) for section in sections(text))
    elif page == "reference/commands":
        text += "".join(commands())
    source[0] = text


def sections(text: str) -> list[str]:
    """A page, cut before each heading of the second level."""
    starts = [0, *(found.start() for found in _HEADING.finditer(text)), len(text)]
    return [text[start:end] for start, end in pairwise(starts)]


# -- contents


def contents(docs: Path, page: Path, text: str) -> str:
    """A hidden table of contents for each section of a README.md that links to pages of the book."""
    made = []
    seen: set[str] = set()
    for section in sections(text):
        heading = _HEADING.match(section)
        names = [name for name in _linked(docs, page, section) if name not in seen]
        seen.update(names)
        if names:
            caption = f":caption: {heading[1]}\n" if heading else ""
            listed = "".join(f"/{name}\n" for name in dict.fromkeys(names))
            made.append(f"\n\n```{{toctree}}\n:hidden:\n{caption}\n{listed}```\n")
    return "".join(made)


def _linked(docs: Path, page: Path, text: str) -> Iterator[str]:
    """The pages that a README.md lists: any for the one of docs/, others those of their folder."""
    for _, link in _LINK.findall(text):
        target = (page.parent / link.partition("#")[0]).resolve()
        inside = target.is_relative_to(docs) if page.parent == docs else target.parent == page.parent
        listed_there = target.name != "README.md" and (target.parent / "README.md").exists() and page.parent == docs
        if inside and target.suffix == ".md" and target != page and (not listed_there or target.parent == docs):
            yield target.relative_to(docs).with_suffix("").as_posix()


def _without_ways_out(docs: Path, page: Path, text: str) -> str:
    def kept(found: re.Match[str]) -> str:
        link = found[2]
        if ":" in link or link.startswith("#") or (page.parent / link.partition("#")[0]).resolve().is_relative_to(docs):
            return found[0]
        return found[1]

    return _LINK.sub(kept, text)


def _front_door(app: Sphinx, error: Exception | None) -> None:
    """`index.html`, which people open first."""
    if error is None and app.builder.format == "html":
        door = f'<!doctype html><meta http-equiv="refresh" content="0; url={app.config.root_doc}.html">\n'
        (Path(app.outdir) / "index.html").write_text(door, encoding="utf-8")


# -- the Python reference


def _documented(section: str) -> str:
    """What autodoc is asked for below a section."""
    asked = [directive for name in _NAME.findall(section) if (directive := _directive(name))]
    return "\n\n```{eval-rst}\n" + "\n".join(asked) + "```\n\n" if asked else ""


def _directive(name: str) -> str:
    """How a public name is documented; nothing for a type alias or a constant, of which the page itself says all."""
    home, _, last = name.rpartition(".")
    value = getattr(importlib.import_module(home), last)
    if inspect.isclass(value) and issubclass(value, BaseException):
        return f".. autoexception:: {name}\n   :members:\n   :show-inheritance:\n"
    if inspect.isclass(value) and issubclass(value, Enum):
        return f".. autoclass:: {name}\n   :members:\n   :undoc-members:\n"
    if inspect.isclass(value):
        return f".. autoclass:: {name}\n   :members:\n   :inherited-members: object, Enum, str, Generic, Protocol\n"
    return f".. autofunction:: {name}\n" if inspect.isroutine(value) else ""


def _docstring(_: Sphinx, _what: str, _name: str, _value: object, _options: object, lines: list[str]) -> None:
    lines[:] = restructured("\n".join(lines)).splitlines()


def _signature(
    _: Sphinx, what: str, _name: str, _value: object, _options: object, signature: str | None, answer: str | None
) -> tuple[str | None, str | None]:
    """A handle is given by the client: how it makes one is nobody's business."""
    return ("", answer) if what == "class" and "driver:" in (signature or "") else (signature, answer)


def restructured(text: str) -> str:
    """A docstring of ours as reStructuredText: paragraphs, lists, code; anything drawn by indentation as it stands."""
    made = []
    for paragraph in re.split(r"\n\s*\n", text.strip("\n")):
        lines = paragraph.splitlines()
        if lines and lines[0].startswith("- "):
            made.append(_words(paragraph))
        elif any(line.startswith(" ") for line in lines):
            made.append("::\n\n" + "\n".join(f"    {line}" for line in lines))
        else:
            made.append(_words(paragraph))
    return "\n\n".join(made) + "\n"


def _words(text: str) -> str:
    """Code in double quotes; in between nothing that reStructuredText would take for markup."""
    made = []
    end = 0
    for found in _CODE.finditer(text):
        made += [_MARKUP.sub(r"\\\g<0>", text[end : found.start()]), f"``{found[2].strip()}``"]
        end = found.end()
    return "".join(made) + _MARKUP.sub(r"\\\g<0>", text[end:])


# -- the command reference


def commands() -> Iterator[str]:
    """A section for each noun, and in it what `--help` says of each of its commands."""
    from leafdb_cli.main import build

    root = typer.main.get_command(build())
    context = _context(root, None, "leafdb")
    yield f"\n\n## leafdb\n\n{_help(context)}"
    for name in root.list_commands(context):
        yield from _told(root.get_command(context, name), context, name, 2)


def _told(command: Any, parent: Any, name: str, depth: int) -> Iterator[str]:
    context = _context(command, parent, name)
    yield f"\n{'#' * depth} {context.command_path}\n\n{_help(context)}"
    if hasattr(command, "list_commands"):
        for verb in command.list_commands(context):
            yield from _told(command.get_command(context, verb), context, verb, depth + 1)


def _context(command: Any, parent: Any, name: str) -> Any:
    """Of the command-line library that typer brings, under whatever name it has there."""
    return command.context_class(
        command, parent=parent, info_name=name, terminal_width=HELP_COLUMNS, max_content_width=HELP_COLUMNS
    )


def _help(context: Any) -> str:
    return f"```text\n{context.get_help()}\n```\n"
