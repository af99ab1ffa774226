"""Promises: every Python block of a page that has nothing but Python runs, in order, against a real node. Pages that
have shell beside it: tests/system/test_pages_at_a_desk.py, or here with SHELL_ELSEWHERE. Two pages are about tests,
and have tests of their own.

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
from support.pages import Block, blocks, pages, shell_blocks
from support.source_tree import ROOT


@pytest.fixture
def node() -> Iterator[EmbeddedNode]:
    node = EmbeddedNode(MEMORY)
    node.start()
    yield node
    node.stop()


ABOUT_TESTS = ("docs/testing.md", "docs/testing-your-code.md")
SHELL_ELSEWHERE = ("docs/operations/accounts.md",)
"""Its shell is run by the story of tests/system/test_how_to_pages.py."""


def python_of(page: Path) -> list[Block]:
    return [block for block in blocks(page) if block.language == "python"]


PAGES = [
    str(page.relative_to(ROOT))
    for page in pages()
    if python_of(page)
    and (str(page.relative_to(ROOT)) in SHELL_ELSEWHERE or not any(not block.no_run for block in shell_blocks(page)))
]


@pytest.mark.parametrize("page", [page for page in PAGES if page not in ABOUT_TESTS])
def test_every_python_block_runs(
    page: str, node: EmbeddedNode, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def dial(_: Address) -> Transport:
        return PairTransport(node.connect())

    over = partial(connect.client_over, dial=lambda address, timeout_s: node.connect())
    monkeypatch.setattr(connect, "client_over", over)
    monkeypatch.setattr(connect, "async_client_over", partial(connect.async_client_over, dial=dial))
    monkeypatch.chdir(tmp_path)  # pages open ./data
    module = ModuleType("page")  # a real one: dataclasses look their module up
    monkeypatch.setitem(sys.modules, "page", module)
    for block in python_of(ROOT / page):
        source = "\n" * block.lines_before + block.code  # so that a traceback names the page's own line
        exec(compile(source, page, "exec"), vars(module))


def test_the_guides_are_among_them() -> None:
    assert {"docs/client.md", "docs/concepts.md", "docs/how-to/cache.md"} <= set(PAGES)
