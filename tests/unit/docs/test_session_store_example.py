"""Promises: the session store of docs/examples keeps its own: in an embedded node behind a real web server, and in a
cluster, where sessions slide, end, and stay ended whichever side of a broken network the logout was on."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from wsgiref.simple_server import WSGIRequestHandler, make_server

import trio
from hypothesis import strategies as st

import leafdb
from leafdb.testing import Cluster, Faults, check_merge
from session_store import BUCKET, Noted, Session, SessionStore, merge_sessions, web_site
from support.browsing import Browser
from support.processes import eventually

IDLE_S = 1800.0


class Quiet(WSGIRequestHandler):
    """Says nothing about each request."""

    def log_message(self, *_: object) -> None: ...


@contextmanager
def serving(db: leafdb.Client) -> Iterator[int]:
    """The site on a free port, in a thread."""
    with make_server("127.0.0.1", 0, web_site(SessionStore(db)), handler_class=Quiet) as server:
        thread = threading.Thread(target=partial(server.serve_forever, poll_interval=0.02))
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def test_the_site_knows_its_visitors_until_they_log_out(leafdb_memory: leafdb.Client) -> None:
    with serving(leafdb_memory) as port:
        alice, bob = Browser(port), Browser(port)
        assert "Who are you" in alice.open("/")
        alice.open("/?as=alice")
        bob.open("/?as=bob")
        assert alice.open("/") == "Hello alice, visit 1."
        assert alice.open("/") == "Hello alice, visit 2."
        assert bob.open("/") == "Hello bob, visit 1."
        stolen = Browser(port)
        stolen.cookie = alice.cookie
        alice.open("/logout")
        assert "Who are you" in stolen.open("/"), "the server forgot it, not only the browser"
        assert bob.open("/") == "Hello bob, visit 2."


def test_a_session_ends_by_itself(leafdb_memory: leafdb.Client) -> None:
    store = SessionStore(leafdb_memory, idle_s=0.3)
    token = store.begin("alice")
    stored = leafdb_memory.bucket(BUCKET)
    eventually("it has expired", lambda: isinstance(stored.get(token), leafdb.Missing))
    assert store.find(token) is None
    assert store.note(token, "visits", "1") is None
    assert isinstance(stored.get(token), leafdb.Missing), "a late write brings no session back"


def test_a_token_that_nobody_gave_out_is_no_session(leafdb_memory: leafdb.Client) -> None:
    store = SessionStore(leafdb_memory)
    store.end("guessed")
    assert store.find("guessed") is None
    assert store.find("") is None
    assert isinstance(leafdb_memory.bucket(BUCKET).get("guessed"), leafdb.Missing), "and costs no room"


def test_sessions_slide_as_long_as_somebody_comes(leafdb_cluster: Cluster) -> None:
    store = SessionStore(leafdb_cluster.connect(), idle_s=IDLE_S, clock=lambda: leafdb_cluster.time)
    token = store.begin("alice")
    for _ in range(3):
        leafdb_cluster.run(leafdb_cluster.sleep, IDLE_S * 2 / 3)
        session = store.find(token)
        assert session is not None, "three visits last longer than one session would"
        assert session.user == "alice"
    leafdb_cluster.run(leafdb_cluster.sleep, IDLE_S + 1)
    assert store.find(token) is None


def test_a_logout_wins_over_what_another_tab_writes_on_the_other_side(
    leafdb_cluster: Cluster, leafdb_faults: Faults
) -> None:
    n1, n2, n3 = leafdb_cluster.nodes
    one, other = (
        SessionStore(leafdb_cluster.connect(via=node, timeout=20.0), idle_s=IDLE_S, clock=lambda: leafdb_cluster.time)
        for node in (n1, n3)
    )
    token = one.begin("alice")
    leafdb_faults.partition([n1, n2], [n3])  # the clients reach both sides
    other_bucket = leafdb_cluster.connect(via=n3).bucket(BUCKET, codec=leafdb.JSON(Session), merge=merge_sessions)
    leafdb_cluster.run(trio.sleep, 10)
    seen = other_bucket.read(token, r=1, sloppy=False)
    one.end(token)
    late = Session("alice", leafdb_cluster.time, {"visits": Noted("2", leafdb_cluster.time)})
    other_bucket.put(token, late, after=seen.context, w=1)
    leafdb_faults.heal()
    leafdb_cluster.run(leafdb_cluster.settle)
    for store in (one, other):
        assert store.find(token) is None


def test_sessions_merge() -> None:
    texts = st.sampled_from(["", "a", "b"])
    times = st.sampled_from([0.0, 1.0, 2.0])
    values = st.dictionaries(texts, st.builds(Noted, texts, times), max_size=3)
    sessions = st.builds(Session, texts, times, values, st.booleans())
    check_merge(merge_sessions, sessions, codec=leafdb.JSON(Session))
