"""Promises: the session store of docs/examples as people run it: two web servers, one cluster, and a node that dies."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from leafdb.testing.servers import MORTAL
from support.browsing import Browser
from support.processes import WAIT_S, Cluster, clean_environment
from support.source_tree import ROOT

pytestmark = pytest.mark.system

PROGRAM = ROOT / "docs" / "examples" / "session_store.py"


@contextmanager
def web_server(cluster: Cluster) -> Iterator[int]:
    """The program, on a free port: which."""
    process = subprocess.Popen(
        [sys.executable, "-c", MORTAL, str(PROGRAM), cluster.url, "0"],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        env={**clean_environment(), "PYTHONPATH": ":".join(sys.path)},
    )  # fmt: skip
    try:
        assert process.stdout is not None
        address = process.stdout.readline()
        yield int(address.split("/")[2].rpartition(":")[2])
    finally:
        process.kill()
        process.communicate(timeout=WAIT_S)


def test_a_visitor_is_known_to_every_web_server_while_a_node_dies(cluster: Cluster) -> None:
    with web_server(cluster) as one, web_server(cluster) as other:
        alice = Browser(one)
        alice.open("/?as=alice")
        assert alice.open("/") == "Hello alice, visit 1."
        alice.port = other
        assert alice.open("/") == "Hello alice, visit 2."
        cluster.kill(2)
        assert alice.open("/") == "Hello alice, visit 3."
        stolen = Browser(one)
        stolen.cookie = alice.cookie
        alice.open("/logout")
        assert "Who are you" in stolen.open("/")
