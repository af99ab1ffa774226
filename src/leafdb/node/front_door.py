"""How clients come in: their handshake, and who they are from then on.

One gate a connection: it knows the source, so that failed logins are counted against it, and what the user's password
was when the challenge went out. What a stranger can cost is bounded before any of this: frames of 4 KiB, a deadline,
places that the newest takes from the oldest (`transport/listener`); here a login costs a look-up and two HMACs.

Nobody is indistinguishable from somebody with another password: a user that is not there has a salt as well, the same
on every node of the cluster.

The cluster's own secret opens the door as user `@cluster`, who may do everything: whoever has it could pose as a node
anyway. So the first user is made with it, and a cluster whose administrators have lost their passwords is not lost.
"""

from __future__ import annotations

import base64
from functools import cached_property
from typing import TYPE_CHECKING, Final

from leafdb.errors import NotApplied, Overloaded, Reason
from leafdb.limits import SCRAM_ITERATIONS, SCRAM_ITERATIONS_MIN
from leafdb.model.scram import Verifier, fake_verifier, root_password, verifier_of
from leafdb.node.audit import Audit
from leafdb.node.config_rules import accounts_asked
from leafdb.node.guard import ROOT, Guard
from leafdb.node.login_limits import LoginLimits, is_loopback, source_of
from leafdb.node.metrics import Metrics
from leafdb.node.self_report import server_facts
from leafdb.ring.accounts import Accounts, Principal
from leafdb.transport.listener import host_of
from leafdb.transport.stream import ByteStream
from leafdb.wire.handshake import ServerHello
from leafdb.wire.login import Mechanism, wanted

if TYPE_CHECKING:
    from leafdb.node.node import Node

NONCE_BYTES: Final = 18


class FrontDoor:
    """Of one node. `guard` is for the dispatch, `handshake` for the client port."""

    def __init__(self, node: Node, secret: bytes) -> None:
        config = node.config
        self.node = node
        self.required: bool = accounts_asked(config)
        self.limits: LoginLimits = LoginLimits(node.world.now)
        self.audit: Audit = Audit(
            enabled=config.auth.audit, show_keys=config.log.show_keys, secret=secret, now=node.world.now
        )
        self.guard: Guard = Guard(
            node.view,
            self.audit,
            required=self.required,
            now_ms=node.world.now_ms,
            refuse=node.coordinator.refuse,
            park=node.catch_up.wait,
        )
        node.view.on_install.append(self.guard.installed)
        self._secret = secret
        self.metrics: Metrics = node.metrics

    def handshake(self, stream: ByteStream) -> ServerHello:
        """The near side of a client's handshake."""
        return ServerHello(server_facts(self.node), gate=_Gate(self, stream))

    @property
    def accounts(self) -> Accounts:
        """Those in force."""
        metadata = self.node.view.metadata
        return Accounts() if metadata is None else metadata.accounts

    @cached_property
    def root(self) -> Verifier:
        """Of who has the cluster's secret. The secret is no word of a dictionary, so the least iterations do."""
        salt = fake_verifier(self._secret, ROOT.user, SCRAM_ITERATIONS_MIN).salt
        return verifier_of(root_password(self._secret), salt, SCRAM_ITERATIONS_MIN)

    def verifier(self, user: str) -> Verifier:
        """What is kept of the password of a user, or of nobody."""
        if user == ROOT.user:
            return self.root
        nobody = fake_verifier(self._secret, user, SCRAM_ITERATIONS)  # made for everybody: the time it takes would tell
        found = self.accounts.users.get(user)
        return nobody if found is None or found.verifier is None else found.verifier


class _Gate:
    """One connection's (`wire.login.Gate`)."""

    def __init__(self, door: FrontDoor, stream: ByteStream) -> None:
        self._door = door
        self._remote = stream.remote
        host = host_of(stream.remote)
        self._source = source_of(host)
        self._stream = stream
        self._local = is_loopback(host)
        self._verifier: Verifier | None = None

    @property
    def _private(self) -> bool:
        """A stream that encrypts says so, once it does; others can be read on the way, unless they never leave this
        machine."""
        return self._local or bool(getattr(self._stream, "encrypted", False))

    def anonymous(self) -> None:
        """Welcome, or not."""
        if self._door.required:
            self._turned_away("no login")
            raise wanted()

    def begin(self, mechanism: str) -> None:
        """Not too often, and a token only where nobody else can read it."""
        self.hold_up()
        if mechanism == Mechanism.TOKEN and not self._private:
            self._turned_away("a token in the clear")
            told = "a token is taken over TLS or loopback only: others could have read this one, replace it"
            raise NotApplied(told, reason=Reason.UNAUTHORIZED)

    def hold_up(self) -> None:
        """Nothing is looked up or judged for a source without credit."""
        wait_s = self._door.limits.wait_s(self._source)
        if wait_s:
            self._turned_away("too many failed logins")
            raise Overloaded("too many logins from here have failed", retry_after=wait_s)

    def nonce(self) -> str:
        """Base64 has no comma."""
        return base64.b64encode(self._door.node.world.random_bytes(NONCE_BYTES)).decode()

    def verifier(self, user: str) -> Verifier:
        """Kept, so that a proof counts for the password it was asked of."""
        self._verifier = self._door.verifier(user)
        return self._verifier

    def by_password(self, user: str) -> Principal | None:
        """Whoever has proved it, if the password is still the one that was asked for."""
        if user == ROOT.user:
            return self._let_in(ROOT, Mechanism.SCRAM)
        found = self._door.accounts.users.get(user)
        if found is None or found.verifier is None or found.verifier != self._verifier:
            return None
        return self._let_in(Principal(user, found.generation), Mechanism.SCRAM)

    def by_token(self, text: str) -> tuple[Principal | None, str]:
        """Whose token that is."""
        accounts = self._door.accounts
        token = accounts.token_of(text)
        if token is None or (token.expires_ms and self._door.node.world.now_ms() >= token.expires_ms):
            return None, ""
        user = accounts.users[token.user]
        principal = Principal(user.name, user.generation, token.name, token.digest)
        return self._let_in(principal, Mechanism.TOKEN), user.name

    def failed(self, mechanism: Mechanism, user: str) -> None:
        """Counted against the source, and written down; a name that is nobody's may be a password."""
        self._door.limits.failed(self._source)
        self._door.metrics.logins_rejected_total += 1
        known = user if user in self._door.accounts.users or user == ROOT.user else ""
        self._door.audit.login_failed(known, mechanism, self._remote)

    def _turned_away(self, why: str) -> None:
        self._door.metrics.logins_turned_away_total += 1
        self._door.audit.turned_away(why, self._remote)

    def _let_in(self, principal: Principal, how: Mechanism) -> Principal:
        self._door.metrics.logins_accepted_total += 1
        self._door.audit.logged_in(principal.user, f"token {principal.token}" if principal.token else how, self._remote)
        return principal
