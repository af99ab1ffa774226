"""A known bug as a switch: exact snippets of our source, replaced before the module is compiled.

The suite has to find such a bug again; the mutations are `leafdb.sim.museum`. A mutation is applied in a fresh process,
before the modules it changes are imported, by a finder in front of all others. What it compiles is never cached, so no
later run meets it. Sources are read, checked and compiled when the mutation is activated: a snippet that the source has
outgrown is an error at once, not a bug that nobody finds.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.abc import InspectLoader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import CodeType, ModuleType
from typing import Final

from leafdb.sim.outcome import NODES, OPERATIONS, Tier
from leafdb.testing.violation import Invariant

SEEDS_MAX: Final = 20


class MutationError(Exception):
    """A mutation cannot be applied: its snippet is not there exactly once, or the module is imported already."""


@dataclass(frozen=True, slots=True)
class Edit:
    """In the source of `module` (a dotted name) the text `old`, which is there exactly once, becomes `new`."""

    module: str
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Mutation:
    """One bug, and what finds it: a run of `tier` among seeds 1 to `seeds_max` that breaks one of `caught_by`."""

    name: str
    """Short, as on a command line: `own-entry-below-floor`."""
    title: str
    """What is wrong, and where it was seen, in a sentence."""
    edits: tuple[Edit, ...]
    tier: Tier
    caught_by: tuple[Invariant, ...]
    seeds_max: int = SEEDS_MAX
    nodes: int = NODES
    operations: int = OPERATIONS
    compare_hash_seeds: bool = False
    """Found by running a seed twice, under different hash seeds, and comparing fingerprints (I39)."""


def mutated_sources(mutation: Mutation) -> dict[str, str]:
    """The changed source of each module it touches; nothing is imported. MutationError for a stale snippet."""
    found: dict[str, str] = {}
    for edit in mutation.edits:
        source = found.get(edit.module) or _source(_spec(edit.module, mutation), mutation)
        count = source.count(edit.old)
        if count != 1 or edit.old == edit.new:
            reason = "changes nothing" if edit.old == edit.new else f"is there {count} times, not once"
            raise MutationError(f"mutation {mutation.name}: in {edit.module} the snippet {reason}: {edit.old!r}")
        found[edit.module] = source.replace(edit.old, edit.new)
    for module, source in found.items():
        try:
            compile(source, module, "exec", dont_inherit=True)
        except SyntaxError as error:
            raise MutationError(f"mutation {mutation.name}: {module} is no Python any more: {error}") from None
    return found


class Activation(MetaPathFinder):
    """A mutation that is switched on. `pending` are the modules of it that were not imported yet."""

    def __init__(self, mutation: Mutation, sources: Mapping[str, str]) -> None:
        self._mutation = mutation
        self._sources = sources
        self.pending: set[str] = set(sources)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec of a module with a loader that has its changed code; None for every other module."""
        if fullname not in self._sources:
            return None
        spec = _spec(fullname, self._mutation)
        assert isinstance(spec.loader, SourceFileLoader), "checked when the source was read"
        spec.loader = _MutatedLoader(fullname, spec.loader.path, self._sources[fullname])
        spec.cached = None
        self.pending.discard(fullname)
        return spec

    def remove(self) -> None:
        """Switch it off for modules imported from now on."""
        sys.meta_path.remove(self)


class _MutatedLoader(SourceFileLoader):
    """`get_code` alone decides what runs; the original one reads and writes the cache."""

    def __init__(self, fullname: str, path: str, source: str) -> None:
        super().__init__(fullname, path)
        self._source = source

    def get_source(self, fullname: str) -> str:
        return self._source

    def get_code(self, fullname: str) -> CodeType:
        # A name that no file has: tracebacks then show the lines of get_source, which are those that ran.
        return compile(self._source, f"{self.path} (mutated)", "exec", dont_inherit=True)


def activate(mutation: Mutation) -> Activation:
    """Switch the mutation on in this process. MutationError when it is stale, or too late."""
    sources = mutated_sources(mutation)
    late = sorted(name for name in sources if name in sys.modules)
    if late:
        raise MutationError(f"mutation {mutation.name} is too late: {', '.join(late)} is imported already")
    activation = Activation(mutation, sources)
    sys.meta_path.insert(0, activation)
    return activation


def _spec(module: str, mutation: Mutation) -> ModuleSpec:
    """Where a module lies, without importing it or the packages around it."""
    locations: list[str] | None = None
    spec: ModuleSpec | None = None
    parts = module.split(".")
    for end in range(1, len(parts) + 1):
        spec = PathFinder.find_spec(".".join(parts[:end]), locations)
        if spec is None:
            break
        locations = spec.submodule_search_locations
    if spec is None or not isinstance(spec.loader, SourceFileLoader):
        raise MutationError(f"mutation {mutation.name}: there is no source of a module {module}")
    return spec


def _source(spec: ModuleSpec, mutation: Mutation) -> str:
    source = spec.loader.get_source(spec.name) if isinstance(spec.loader, InspectLoader) else None
    if source is None:
        raise MutationError(f"mutation {mutation.name}: {spec.name} has no source")
    return source
