"""Promises: every Python block of README.md and of the client's guide runs, in order, against a real node.

The node is an embedded one. Where a page connects to a cluster by URL it gets a client of that node: client, routing,
coordinator and store are the real ones, only the sockets are pairs.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest

from leafdb.client import connect
from leafdb.client.anyio_connection import Transport
from leafdb.client.url import Address
from leafdb.embedded import MEMORY, EmbeddedNode, PairTransport
from support.pages import blocks
from support.source_tree import ROOT


@pytest.fixture
def node() -> Iterator[EmbeddedNode]:
    node = EmbeddedNode(MEMORY)
    node.start()
    yield node
    node.stop()


@pytest.mark.parametrize("page", ["README.md", "docs/client.md"])
def test_every_python_block_runs(
    page: str, node: EmbeddedNode, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def dial(_: Address) -> Transport:
        return PairTransport(node.connect())

    over = partial(connect.client_over, dial=lambda address, timeout_s: node.connect())
    monkeypatch.setattr(connect, "client_over", over)
    monkeypatch.setattr(connect, "async_client_over", partial(connect.async_client_over, dial=dial))
    monkeypatch.chdir(tmp_path)  # README opens ./data
    module = ModuleType("page")  # a real one: dataclasses look their module up
    monkeypatch.setitem(sys.modules, "page", module)
    code = [block for block in blocks(ROOT / page) if block.language == "python"]
    assert len(code) >= 3
    for block in code:
        source = "\n" * block.lines_before + block.code  # so that a traceback names the page's own line
        exec(compile(source, page, "exec"), vars(module))
