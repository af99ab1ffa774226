"""What may stand where the cursor is: for the shells' completion scripts and for `leafdb shell`, from one command tree.

Words of the tree need nobody: nouns, verbs, options. A few words are names (`Names`): of buckets and members, from a
node when one answers at once, of saved connections, from their file. Nothing here fails or waits: somebody is typing.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, Final

import typer

from leafdb_cli.main import NOUNS, build
from leafdb_cli.options import FLAGS, VALUED, Format, Options, parted

ANSWER_S: Final = 0.3
"""A node that takes longer is not waited for."""
MEMBER_METAVARS: Final = frozenset({"NODE", "HOLDER", "TARGET"})


@dataclass(frozen=True, slots=True)
class Names:
    """Where names come from; each answers an empty list when it cannot say."""

    buckets: Callable[[Options], Sequence[str]]
    members: Callable[[Options], Sequence[str]]
    contexts: Callable[[], Sequence[str]]


def split_line(line: str) -> list[str]:
    """The words of a line up to the cursor, without `leafdb` and what stands before it; the last is the one under way,
    empty behind a space."""
    words = _words(line)
    if not line or line[-1].isspace():
        words.append("")
    for index, word in enumerate(words[:-1]):
        if PurePath(word).name == "leafdb":
            return words[index + 1 :]
    return words


def _words(line: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError:  # a quotation is open
        return line.split()


def candidates(words: Sequence[str], names: Names) -> list[str]:
    """What may stand in place of the last word, in order; empty where anything may, as the path of a file."""
    *before, partial = words or [""]
    if before and before[-1] in VALUED:
        found: Iterable[str] = _values(before[-1], names)
    else:
        front, rest = parted(before)
        found = _behind(rest, partial, _options(front), names)
    return sorted({word for word in found if word.startswith(partial)})


def _values(option: str, names: Names) -> Sequence[str]:
    """Values of a global option."""
    if option in ("-o", "--output"):
        return [str(form) for form in Format]
    return names.contexts() if option == "--cluster" else []


def _options(front: Sequence[str]) -> Options:
    """Which nodes the line is for."""
    said: dict[str, str] = {}
    for index, argument in enumerate(front):
        name, equals, value = argument.partition("=")
        if name in ("--node", "--cluster"):
            said[name] = value if equals else "".join(front[index + 1 : index + 2])
    return Options(node=said.get("--node", ""), cluster=said.get("--cluster", ""))


def _behind(rest: Sequence[str], partial: str, options: Options, names: Names) -> Iterable[str]:
    """What may follow these words, global options left out."""
    if not rest:
        return [*VALUED, *FLAGS, "--help"] if partial.startswith("-") else NOUNS
    if rest[0] not in NOUNS:
        return []
    command: Any = typer.main.get_command(build(rest[0]))
    depth = 0
    while depth < len(rest) and (inner := getattr(command, "commands", {}).get(rest[depth])) is not None:
        command, depth = inner, depth + 1
    commands: Mapping[str, Any] = getattr(command, "commands", {})
    if commands:
        if depth < len(rest):
            return []  # a word that is none of its commands
        return ["--help"] if partial.startswith("-") else [name for name, each in commands.items() if not each.hidden]
    return _of_command(command, rest[:depth], rest[depth:], partial, options, names)


def _of_command(
    command: Any, path: Sequence[str], given: Sequence[str], partial: str, options: Options, names: Names
) -> Iterable[str]:
    """An option, the value of one, or the argument that is due."""
    by_option = {name: param for param in command.params for name in (*param.opts, *param.secondary_opts)}
    arguments = [param for param in command.params if param.param_type_name == "argument"]
    position, waits = 0, None
    for word in given:
        if waits is not None:
            waits = None
        elif word in by_option and by_option[word].param_type_name == "option":
            waits = None if by_option[word].is_flag else by_option[word]
        else:
            position += 1
    if waits is not None:
        return _named(waits, path, options, names)
    if partial.startswith("-"):
        return [*(name for name in by_option if name.startswith("-")), *VALUED, *FLAGS, "--help"]
    if position < len(arguments):
        return _named(arguments[position], path, options, names)
    return _named(arguments[-1], path, options, names) if arguments and arguments[-1].nargs == -1 else []


def _named(param: Any, path: Sequence[str], options: Options, names: Names) -> Sequence[str]:
    """The names that a parameter takes, by what its help calls it."""
    called = str(param.metavar or "").strip("[].")
    if called == "BUCKET":
        return names.buckets(options)
    if called in MEMBER_METAVARS or "--only" in param.opts or (called == "NAME" and path[0] == "node"):
        return names.members(options)
    return names.contexts() if called == "CONTEXT" else []


def live_names() -> Names:
    """From the nodes that a line is for, and from the user's file."""
    return Names(_buckets, _members, _contexts)


def _buckets(options: Options) -> Sequence[str]:
    return [str(each["name"]) for each in _asked(options, "bucket.list").get("buckets", ())]


def _members(options: Options) -> Sequence[str]:
    return [str(each["name"]) for each in _asked(options, "node.list").get("nodes", ())]


def _asked(options: Options, verb: str) -> Mapping[str, Any]:
    """The answer to a verb; empty when there is none at once."""
    from leafdb.client.connect import connect
    from leafdb.errors import LeafdbError
    from leafdb_cli.options import url_of

    try:
        with connect(url_of(options), timeout=ANSWER_S, routing="listed") as client:
            return client.admin(verb)
    except (LeafdbError, OSError):
        return {}


def _contexts() -> Sequence[str]:
    import os

    from leafdb.errors import LeafdbError
    from leafdb_cli.saved import read_saved, saved_clusters_path

    try:
        return list(read_saved(saved_clusters_path(os.environ)).tables)
    except LeafdbError:
        return []
