"""Without the cli extra the script says what to install."""

from __future__ import annotations

import sys

import pytest

from leafdb_cli.entry import main


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delitem(sys.modules, "leafdb_cli.main", raising=False)
    monkeypatch.setitem(sys.modules, "typer", None)
    assert main() == 1
    assert "pip install 'leafdb[cli]'" in capsys.readouterr().err
