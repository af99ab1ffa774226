"""What all calls of one client share: the router, the retry budget, the bucket properties, the clock and the defaults.

Both drivers own exactly one. It holds no connection and no lock: its parts are replaced whole, or bound a load where a
lost update is harmless, so threads may share it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import TYPE_CHECKING, Literal

from leafdb.client import deadlines
from leafdb.client.effects import Denied, Exchange
from leafdb.client.hedging import Hedging
from leafdb.client.options import Seconds, timeout_s
from leafdb.client.retry import RETRIES_AT_FIRST, RETRIES_SAVED_MAX, RETRY_SHARE
from leafdb.client.routing import NodeState, Router
from leafdb.client.session import Session
from leafdb.client.session_token import SessionToken, parse
from leafdb.client.token_bucket import TokenBucket
from leafdb.client.url import Address
from leafdb.errors import ClientMisuse, ConfigError, ContextMismatch
from leafdb.model.bucket import BucketProperties

if TYPE_CHECKING:
    from leafdb.client.auth import Auth
    from leafdb.wire.login import Login

Routing = Literal["ring", "listed"]


class Core:
    """The shared state of a client. `clock` is monotonic seconds: the loop's own where there is one."""

    __slots__ = (
        "auth", "buckets", "budget", "clock", "cluster_id", "encrypted", "hedging", "rng", "router", "session",
        "timeout_s",
    )  # fmt: skip

    def __init__(
        self,
        addresses: Sequence[Address],
        *,
        zone: str | None,
        timeout: Seconds,
        routing: Routing,
        clock: Callable[[], float],
        rng: Random,
        auth: Auth | None = None,
    ) -> None:
        if routing not in ("ring", "listed"):
            raise ClientMisuse(f'routing is "ring" or "listed", not {routing!r}')
        if zone is not None and not isinstance(zone, str):
            raise ClientMisuse(f"zone is a str or None, not {zone!r}")
        self.timeout_s: float = timeout_s(timeout)
        self.router: Router = Router(addresses, zone=zone, use_ring=routing == "ring", rng=rng)
        self.budget: TokenBucket = TokenBucket(RETRY_SHARE, RETRIES_SAVED_MAX, RETRIES_AT_FIRST)
        self.hedging: Hedging = Hedging()
        self.buckets: dict[str, BucketProperties] = {}
        self.cluster_id: bytes = b""
        self.session: Session = Session()
        self.auth: Auth | None = auth
        self.encrypted: bool = False
        """Whether connections are TLS: nobody else reads what goes over them."""
        self.clock: Callable[[], float] = clock
        self.rng: Random = rng

    def deadline(self, timeout: Seconds | None) -> float:
        """When a call that starts now must end: its own timeout or the client's, and the blocks around it."""
        deadline = self.clock() + (self.timeout_s if timeout is None else timeout_s(timeout))
        return deadlines.nearest(self, deadline) if deadlines.any_block() else deadline

    def hedge(self, late: Exchange, connected: Callable[[NodeState], bool]) -> Exchange | None:
        """The same request to another node, one that is connected and in good standing, if the budget allows it."""
        self.hedging.late()
        now = self.clock()
        node = self.router.pick(late.place, now, (late.node,))
        if node is None or node.disgraced_until > now or late.node.traces > node.traces or not connected(node):
            return None
        if not self.hedging.budget.take():
            return None
        return late._replace(node=node, hedge_at=0.0)

    def meet(self, cluster_id: bytes) -> bool:
        """Whether a node of this cluster is one of ours: the first cluster met is the only one."""
        if cluster_id and not self.cluster_id:
            self.cluster_id = cluster_id
        return not cluster_id or cluster_id == self.cluster_id

    def login(self, address: Address) -> Login | None:
        """Who to say this client is, to the node at that address. Raises Denied when it must not be said there."""
        if self.auth is None:
            return None
        from leafdb.client.auth import login_at  # a client that has no account never needs it

        try:
            return login_at(self.auth, address, encrypted=self.encrypted)
        except ConfigError as error:
            raise Denied(error) from None

    def observe(self, token: SessionToken) -> None:
        """See no less than the client the token was taken from. Raises DataError, ContextMismatch, ClientMisuse."""
        if not isinstance(token, bytes):
            raise ClientMisuse(f"observe takes the session_token of a client, not {token!r}")
        parts = parse(token)
        if not self.meet(parts.cluster_id):
            raise ContextMismatch("this token was taken from a client of another cluster")
        self.session.observe(parts)

    def check(self) -> None:
        """Its parts are sound."""
        self.session.check()
        self.router.check()
        self.budget.check()
        self.hedging.check()
