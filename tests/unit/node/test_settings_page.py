"""The documentation of the settings is what the settings say of themselves."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from leafdb.config import Config
from leafdb.node.described import described
from leafdb.node.settings_page import reference, sample
from support.source_tree import ROOT

OPERATIONS = ROOT / "docs" / "operations"


@pytest.mark.parametrize(("name", "make"), [("configuration.md", reference), ("leafdb.toml", sample)])
def test_what_is_committed_is_what_the_settings_say(name: str, make: Callable[[], str]) -> None:
    kind = "sample" if name.endswith("toml") else "reference"
    committed = (OPERATIONS / name).read_text(encoding="utf-8")
    assert committed == make(), f"run: python -m leafdb.node.settings_page {kind} > docs/operations/{name}"


def test_the_page_names_every_setting() -> None:
    page = reference()
    for entry in described():
        assert f"| `{entry.key}` |" in page, entry.path
        assert entry.setting.doc in page


def test_the_sample_means_the_defaults_once_uncommented(tmp_path: Path) -> None:
    settings = pytest.importorskip("leafdb.node.settings")
    text = re.sub(r"^#(?=[a-z_]+ = )", "", sample(), flags=re.MULTILINE)
    assert text.count(" = ") >= len(list(described()))
    path = tmp_path / "leafdb.toml"
    path.write_text(text, encoding="utf-8")
    loaded = settings.load(str(path), environment={}, host_name="")
    assert loaded.config.storage == Config().storage
    assert loaded.config.listen == Config().listen
    assert loaded.config.limits == Config().limits
    assert loaded.config.repair == Config().repair
    assert set(loaded.origins.values()) == {"file leafdb.toml"}
    path.write_text(sample(), encoding="utf-8")
    assert set(settings.load(str(path), environment={}).origins.values()) == {"default"}
