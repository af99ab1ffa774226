"""Every example in docs/client.md runs, in order, against a fake node."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from unit.client.fake_node import FakeCluster

GUIDE = Path(__file__).parents[3] / "docs" / "client.md"


def test_the_guide_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    page = GUIDE.read_text()
    blocks = list(re.finditer(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL))
    assert len(blocks) > 8
    module = ModuleType("guide")  # a real one: dataclasses look their module up
    monkeypatch.setitem(sys.modules, "guide", module)
    with FakeCluster() as cluster:
        for block in blocks:
            lines_before = page[: block.start(1)].count("\n")
            code = "\n" * lines_before + block[1].replace("leafdb://127.0.0.1:7411", cluster.url)
            exec(compile(code, str(GUIDE), "exec"), vars(module))
