"""The repository's own source as data: which modules there are, what each imports and when.

The tidy tests read this; nothing here runs or imports the code it describes, so a broken module cannot hide.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CODE_FOLDERS = ("src", "cli", "tests", "bench")


@dataclass(frozen=True, slots=True)
class Import:
    """One import statement's target, resolved to a module as far as the repository knows it."""

    target: str
    name: str
    """The name imported from `target`, "" for a plain import."""
    line: int
    lazy: bool
    """Inside a function: it happens when that runs."""
    typing_only: bool
    """Under `if TYPE_CHECKING`: it never happens."""


@dataclass(frozen=True, slots=True)
class Module:
    """One file of Python."""

    name: str
    path: Path
    tree: ast.Module
    """Empty when the file is broken."""
    text: str
    broken: str = ""
    """Why the file does not parse."""

    @property
    def where(self) -> str:
        return str(self.path.relative_to(ROOT))


def python_files() -> Iterator[Path]:
    """Every Python file that is ours, in a stable order."""
    for folder in CODE_FOLDERS:
        yield from sorted((ROOT / folder).rglob("*.py"))


def _module_name(path: Path) -> str:
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    if parts[0] in ("src", "cli"):
        parts = parts[1:]
    if parts[-1] == "__init__":
        parts = parts[:-1]
    return ".".join(parts)


@cache
def modules() -> dict[str, Module]:
    """Every module by its dotted name; those of tests and bench start with `tests.` and `bench.`."""
    found: dict[str, Module] = {}
    for path in python_files():
        text = path.read_text(encoding="utf-8")
        name = _module_name(path)
        try:
            found[name] = Module(name, path, ast.parse(text, filename=str(path)), text)
        except SyntaxError as error:
            found[name] = Module(name, path, ast.Module([], []), "", str(error))
    return found


def shipped() -> dict[str, Module]:
    """The modules that are installed: leafdb and its command line."""
    return {name: module for name, module in modules().items() if name.split(".")[0] in ("leafdb", "leafdb_cli")}


@cache
def imports_of(module: Module) -> tuple[Import, ...]:
    """All imports of a module, with when they happen. A relative one has a target that starts with a dot."""
    found: list[Import] = []
    _collect(module.tree, found, lazy=False, typing_only=False)
    return tuple(found)


def _collect(node: ast.AST, found: list[Import], *, lazy: bool, typing_only: bool) -> None:
    for child in ast.iter_child_nodes(node):
        match child:
            case ast.Import(names=names):
                found += [Import(alias.name, "", child.lineno, lazy, typing_only) for alias in names]
            case ast.ImportFrom(module=target, names=names, level=level):
                base = "." * level + (target or "")
                for alias in names:
                    whole = f"{base}.{alias.name}"
                    if whole in modules():
                        found.append(Import(whole, "", child.lineno, lazy, typing_only))
                    else:
                        found.append(Import(base, alias.name, child.lineno, lazy, typing_only))
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.Lambda():
                _collect(child, found, lazy=True, typing_only=typing_only)
            case ast.If(test=ast.Name(id="TYPE_CHECKING")):
                for inner in child.body:
                    _collect(ast.Module([inner], []), found, lazy=lazy, typing_only=True)
                _collect(ast.Module(child.orelse, []), found, lazy=lazy, typing_only=typing_only)
            case _:
                _collect(child, found, lazy=lazy, typing_only=typing_only)


def dotted(node: ast.expr) -> str:
    """`a.b.c` for a chain of names, "" for anything else."""
    match node:
        case ast.Name(id=name):
            return name
        case ast.Attribute(value=value, attr=attr):
            base = dotted(value)
            return f"{base}.{attr}" if base else ""
        case _:
            return ""
