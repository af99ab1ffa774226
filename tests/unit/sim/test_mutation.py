"""Promises: a mutation changes exactly what it says, in this process only; a stale one is an error, never silent."""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest

from leafdb.sim.museum import BY_NAME, MUTATIONS
from leafdb.sim.mutation import Activation, Edit, Mutation, MutationError, activate, mutated_sources
from leafdb.sim.outcome import Tier
from leafdb.testing.violation import Invariant

ANSWER = "def answer() -> int:\n    return 1\n\n\ndef fail() -> None:\n    raise ValueError(1)\n"


def mutation(*edits: Edit) -> Mutation:
    return Mutation("toy", "a toy", edits, Tier.RECORD, (Invariant.DOTS_UNIQUE,))


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A package of two modules that nobody has imported."""
    package = tmp_path / "toy_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "answers.py").write_text(ANSWER)
    (package / "other.py").write_text("from toy_package.answers import answer\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield "toy_package"
    forget()


def forget() -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "toy_package"]:
        del sys.modules[name]


def removed(activation: Activation) -> None:
    activation.remove()
    forget()


def test_the_changed_module_is_what_is_imported_whoever_imports_it(toy: str) -> None:
    activation = activate(mutation(Edit(f"{toy}.answers", "return 1", "return 2")))
    try:
        assert activation.pending == {"toy_package.answers"}
        assert importlib.import_module(f"{toy}.other").answer() == 2
        assert not activation.pending
    finally:
        removed(activation)
    assert importlib.import_module(f"{toy}.other").answer() == 1


def test_cached_bytecode_is_neither_read_nor_written(toy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    monkeypatch.setattr(sys, "pycache_prefix", str(tmp_path / "cache"))
    assert importlib.import_module(f"{toy}.answers").answer() == 1
    cached = list((tmp_path / "cache").rglob("answers*.pyc"))
    assert len(cached) == 1
    before = cached[0].read_bytes()
    forget()
    activation = activate(mutation(Edit(f"{toy}.answers", "return 1", "return 2")))
    try:
        assert importlib.import_module(f"{toy}.answers").answer() == 2
    finally:
        removed(activation)
    assert list((tmp_path / "cache").rglob("answers*.pyc")) == cached
    assert cached[0].read_bytes() == before


def test_several_edits_of_one_module_apply_in_turn(toy: str) -> None:
    name = f"{toy}.answers"
    edits = (Edit(name, "return 1", "return 2"), Edit(name, "return 2", "return 3"))
    assert "return 3" in mutated_sources(mutation(*edits))[name]
    assert name not in sys.modules
    assert toy not in sys.modules


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("return 7", "return 2", "0 times"),
        ("def ", "async def ", "2 times"),
        ("return 1", "return 1", "changes nothing"),
        ("return 1", "return (", "no Python"),
    ],
)
def test_a_snippet_that_does_not_fit_is_an_error(toy: str, old: str, new: str, why: str) -> None:
    with pytest.raises(MutationError, match=why):
        activate(mutation(Edit(f"{toy}.answers", old, new)))


def test_a_module_that_is_not_there_is_an_error(toy: str) -> None:
    for name in (f"{toy}.nothing", "no_such_package.answers", "sys"):
        with pytest.raises(MutationError, match="no source"):
            activate(mutation(Edit(name, "a", "b")))


def test_a_module_that_is_imported_already_is_an_error(toy: str) -> None:
    importlib.import_module(f"{toy}.answers")
    with pytest.raises(MutationError, match="too late"):
        activate(mutation(Edit(f"{toy}.answers", "return 1", "return 2")))


def test_a_traceback_shows_the_line_that_ran(toy: str) -> None:
    activation = activate(mutation(Edit(f"{toy}.answers", "raise ValueError(1)", "raise ValueError(2)")))
    try:
        module = importlib.import_module(f"{toy}.answers")
        with pytest.raises(ValueError, match="2") as caught:
            module.fail()
        assert "raise ValueError(2)" in "".join(traceback.format_exception(caught.value))
    finally:
        removed(activation)


@pytest.mark.parametrize("exhibit", MUTATIONS, ids=lambda exhibit: exhibit.name)
def test_every_mutation_of_the_museum_fits_the_source_as_it_is(exhibit: Mutation) -> None:
    assert mutated_sources(exhibit)
    assert exhibit.caught_by
    assert exhibit.title


def test_mutations_have_names_of_their_own() -> None:
    assert len(BY_NAME) == len(MUTATIONS)
