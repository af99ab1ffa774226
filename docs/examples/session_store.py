"""Sessions of a web site, kept in leafdb: they end by themselves when nobody comes any more, and on logging out.

    python session_store.py                                    # one node inside this process, its data in ./sessions
    python session_store.py leafdb://127.0.0.1:7411            # the same on a cluster

Then open http://127.0.0.1:8000/?as=alice in a browser. docs/examples/session-store.md explains every part.
"""

from __future__ import annotations

import secrets
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from http.cookies import SimpleCookie
from typing import Any
from urllib.parse import parse_qs
from wsgiref.simple_server import make_server

import leafdb

BUCKET = "sessions"
COOKIE = "session"
IDLE_S = 1800.0


@dataclass(frozen=True)
class Noted:
    """A value somebody put into a session, and when, in seconds since 1970."""

    value: str
    at: float


@dataclass(frozen=True)
class Session:
    """What is known of a visitor. It is never changed in place."""

    user: str
    seen_at: float
    values: dict[str, Noted] = field(default_factory=dict)
    ended: bool = False


def merge_sessions(one: Session, other: Session) -> Session:
    """Two tabs wrote at once: the newest of each value, the later visit; and logging out wins over everything."""
    values = dict(one.values)
    for name, noted in other.values.items():
        values[name] = max(values.get(name, noted), noted, key=lambda each: (each.at, each.value))
    return Session(
        user=max(one.user, other.user),
        seen_at=max(one.seen_at, other.seen_at),
        values=dict(sorted(values.items())),
        ended=one.ended or other.ended,
    )


class SessionStore:
    """Sessions by token. One for all threads of a program."""

    def __init__(self, db: leafdb.Client, *, idle_s: float = IDLE_S, clock: Callable[[], float] = time.time) -> None:
        """`idle_s`: a session of which nothing is heard for so long is gone. `clock`: seconds since 1970."""
        db.create_bucket(BUCKET, ttl=idle_s, exist_ok=True)
        self._sessions = db.bucket(BUCKET, codec=leafdb.JSON(Session), merge=merge_sessions)
        self._idle_s = idle_s
        self._clock = clock

    def begin(self, user: str) -> str:
        """A new session; its token, for the cookie."""
        token = secrets.token_urlsafe(32)
        self._sessions.put(token, Session(user, self._clock()), after=leafdb.BLIND)  # nobody else has this key
        return token

    def find(self, token: str) -> Session | None:
        """The session of a visitor who has just come, or None: never there, idle for too long, or logged out."""
        session = self._sessions.get(token) if token else None
        if session is None or session.ended:
            return None
        if self._clock() - session.seen_at > self._idle_s / 4:
            session = self._change(token, lambda stored: replace(stored, seen_at=self._clock()))
        return session

    def note(self, token: str, name: str, value: str) -> Session | None:
        """Put a value into a session; the session as it is then, or None."""
        noted = Noted(value, self._clock())
        return self._change(
            token, lambda stored: replace(stored, seen_at=noted.at, values={**stored.values, name: noted})
        )

    def end(self, token: str) -> None:
        """Log out: whatever another tab writes at the same moment, this session is over.

        The end is kept for longer than anything that was written beside it.
        """
        self._change(token, lambda stored: replace(stored, ended=True), ttl=2 * self._idle_s)

    def _change(self, token: str, change: Callable[[Session], Session], *, ttl: float | None = None) -> Session | None:
        """Read, change, write. What is written has the bucket's ttl: it lives for `idle_s` from now on."""
        found = self._sessions.read(token)
        if isinstance(found, leafdb.Missing) or found.value.ended:
            return None
        changed = change(found.value)
        self._sessions.put(token, changed, after=found.context, ttl=ttl)
        return changed


def web_site(store: SessionStore) -> Callable[..., Iterable[bytes]]:
    """The site, as any WSGI server takes it: /?as=NAME logs in, / counts visits, /logout."""

    def answer(environ: dict[str, Any], start_response: Callable[..., object]) -> list[bytes]:
        token = _cookie(environ)
        query = parse_qs(environ.get("QUERY_STRING", ""))
        headers = [("Content-Type", "text/plain; charset=utf-8")]
        if environ["PATH_INFO"] == "/logout":
            store.end(token)
            headers.append(("Set-Cookie", f"{COOKIE}=; Max-Age=0; Path=/"))
            page = "Goodbye."
        elif "as" in query:
            token = store.begin(query["as"][0])
            headers.append(("Set-Cookie", f"{COOKIE}={token}; HttpOnly; SameSite=Lax; Path=/"))
            page = "Welcome. Come back to /"
        elif (session := store.find(token)) is None:
            page = "Who are you? Log in at /?as=NAME"
        else:
            visits = int(session.values["visits"].value) + 1 if "visits" in session.values else 1
            store.note(token, "visits", str(visits))
            page = f"Hello {session.user}, visit {visits}."
        start_response("200 OK", headers)
        return [page.encode()]

    return answer


def _cookie(environ: dict[str, Any]) -> str:
    morsel = SimpleCookie(environ.get("HTTP_COOKIE", "")).get(COOKIE)
    return morsel.value if morsel is not None else ""


def main(where: str = "./sessions", port: str = "8000") -> None:
    """Serve the site until interrupted."""
    with (
        leafdb.connect(where) if "://" in where else leafdb.open(where) as db,
        make_server("127.0.0.1", int(port), web_site(SessionStore(db))) as server,
    ):
        print(f"http://127.0.0.1:{server.server_port}/?as=alice", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
