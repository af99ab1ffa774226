"""How often logins of one source may fail. A source is an address, of IPv6 the /64 that one customer has.

A source has LOGIN_FAILURES_BURST failures to its credit, and earns them back at LOGIN_FAILURES_PER_S; one without
credit is told to come later before anything is looked up, and again before its proof is judged: a thousand logins that
are under way at once are no thousand guesses. Only failures count, so whoever knows a password logs in as often as they
like; and only the source is held up, never the user, so nobody can lock somebody else out.

Bounded: of more than LOGIN_SOURCES_MAX sources, the one that failed longest ago is forgiven.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable

from leafdb.limits import LOGIN_FAILURES_BURST, LOGIN_FAILURES_PER_S, LOGIN_SOURCES_MAX


class LoginLimits:
    """What each source has left. `now` is monotonic seconds."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._left: dict[str, tuple[float, float]] = {}
        """Source to (credit, when that was), who failed last at the end."""

    def wait_s(self, source: str) -> float:
        """How long this source has to wait before its next login; 0: it need not."""
        credit = self._credit(source)
        return 0.0 if credit >= 1.0 else (1.0 - credit) / LOGIN_FAILURES_PER_S

    def failed(self, source: str) -> None:
        """A login of this source came to nothing."""
        credit = max(0.0, self._credit(source) - 1.0)
        self._left.pop(source, None)
        if len(self._left) >= LOGIN_SOURCES_MAX:
            del self._left[next(iter(self._left))]
        self._left[source] = (credit, self._now())

    def _credit(self, source: str) -> float:
        if source not in self._left:
            return float(LOGIN_FAILURES_BURST)
        credit, at = self._left[source]
        return min(float(LOGIN_FAILURES_BURST), credit + (self._now() - at) * LOGIN_FAILURES_PER_S)

    def check(self) -> None:
        """Bounded, and nobody owes."""
        assert len(self._left) <= LOGIN_SOURCES_MAX
        assert all(0.0 <= credit <= LOGIN_FAILURES_BURST for credit, _ in self._left.values())


def source_of(host: str) -> str:
    """What counts as one source."""
    try:
        address = ipaddress.ip_address(host.removeprefix("[").removesuffix("]").partition("%")[0])
    except ValueError:
        return host
    if address.version == 6 and address.ipv4_mapped is None:
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)


def is_loopback(host: str) -> bool:
    """Whether it is this machine."""
    try:
        return ipaddress.ip_address(host.removeprefix("[").removesuffix("]")).is_loopback
    except ValueError:
        return False
