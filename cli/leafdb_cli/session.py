"""One run of the command line: its options, its client, its output.

A command is a plain function: it takes what it needs from `session_of(ctx)`, raises whatever goes wrong, and prints
through the session. The guard around it (`guard`) turns errors into a message and an exit code.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

import typer

from leafdb.errors import LeafdbError
from leafdb_cli import exits
from leafdb_cli.credentials import auth_of
from leafdb_cli.exits import Quit
from leafdb_cli.options import Options, scheme_of, tls_of, url_of
from leafdb_cli.render import Output

if TYPE_CHECKING:
    from leafdb.client.auth import Auth
    from leafdb.client.core import Routing
    from leafdb.client.sync_client import Client
    from leafdb.client.tls import ClientTls

WATCH_S: Final = 2.0
TIMEOUT_S: Final = 5.0

T = TypeVar("T")


class Session:
    """What a command works with."""

    def __init__(self, options: Options, output: Output | None = None) -> None:
        self.options = options
        self._auth: Auth | None = None
        self.output = output or Output(options.output, no_color=options.no_color or bool(os.environ.get("NO_COLOR")))

    def note(self, text: str) -> None:
        """A line on stderr."""
        self.output.note(text)

    def timeout_s(self, default: float = TIMEOUT_S) -> float:
        """What --timeout says, or this command's own."""
        return default if self.options.timeout_s is None else self.options.timeout_s

    def request_s(self, default: float = TIMEOUT_S) -> float:
        """The deadline of one request. With --wait, --timeout bounds the waiting, which may take hours; the requests it
        is made of have this command's own deadline, or a shorter one.
        """
        return min(default, self.timeout_s(default)) if self.options.wait else self.timeout_s(default)

    @contextmanager
    def client(self, *, routing: Routing = "ring", timeout_s: float = TIMEOUT_S) -> Iterator[Client]:
        """A client for the nodes the options name."""
        with self.connect(url_of(self.options), timeout_s=self.request_s(timeout_s), routing=routing) as client:
            yield client

    def connect(self, where: str, *, timeout_s: float, routing: Routing = "listed") -> Client:
        """A client for these nodes: a URL, or HOST:PORT, which TLS is spoken with if it is with the others; as
        whoever the environment says (`credentials`). A password is typed once a run."""
        from leafdb.client.connect import connect

        url = where if "://" in where else scheme_of(self.options) + where
        return connect(url, tls=tls_of(self.options, url), auth=self.auth, timeout=timeout_s, routing=routing)

    @property
    def auth(self) -> Auth | None:
        """Who the environment says that we are."""
        if self._auth is None:
            self._auth = auth_of()
        return self._auth

    def client_tls(self) -> ClientTls | None:
        """TLS for whoever connects by itself; None where none is spoken."""
        tls = tls_of(self.options, url_of(self.options))
        if tls is None:
            return None
        from leafdb.client.tls import ClientTls

        return ClientTls(tls)

    def ask(
        self,
        verb: str,
        args: Mapping[str, Any] | None = None,
        *,
        changes: bool = False,
        timeout_s: float = TIMEOUT_S,
    ) -> Mapping[str, Any]:
        """One administrative verb, one answer."""
        with self.client(routing="listed", timeout_s=timeout_s) as client:
            return client.admin(verb, args, changes=changes)

    def watching(self, show: Callable[[], T], *, over: Callable[[T], bool] | None = None) -> T:
        """Show once, or with --watch again and again, until interrupted or what was shown is `over`."""
        if not self.options.watch:
            return show()
        while True:
            if self.output.pretty:
                self.output.out.write("\x1b[H\x1b[2J")
            try:
                shown = show()
                if over is not None and over(shown):
                    return shown
            except LeafdbError as error:
                self.note(f"leafdb: {exits.explanation(error)}")
            time.sleep(WATCH_S)

    def confirm_loss(self, name: str, losses: list[str], *, understood: bool) -> None:
        """Say what would be lost and have `name` typed; a script says --yes --i-understand-data-loss instead."""
        for loss in losses:
            self.note(loss)
        if self.options.yes and understood:
            return
        if not (sys.stdin.isatty() and self.output.err.isatty()):
            raise Quit(
                exits.USAGE, "this loses data", "give --yes --i-understand-data-loss to do it without being asked"
            )
        self.output.err.write(f"type {name} to go on: ")
        self.output.err.flush()
        if sys.stdin.readline().strip() != name:
            raise Quit(exits.FAILED, "nothing was done", f"run it again, and type {name} to have it done")


def session_of(ctx: typer.Context, *, watch: bool = False, dry_run: bool = False) -> Session:
    """The session of this run. An option this command would have to ignore is refused: silence would be a promise."""
    session = ctx.find_root().obj
    assert isinstance(session, Session)
    if session.options.dry_run and not dry_run:
        raise typer.BadParameter(f"'{ctx.command_path}' has no --dry-run; nothing was done")
    if session.options.watch and not watch:
        raise typer.BadParameter(f"'{ctx.command_path}' has no --watch; nothing was done")
    return session
