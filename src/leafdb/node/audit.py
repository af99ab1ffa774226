"""The audit log: who came, who was turned away, what was changed and by whom. Lines of the part `audit`, through the
log; whoever keeps the log keeps these, and tells them by their logger, `leafdb.audit`.

Written whatever `log.level` says, and never thinned out as repeated lines of the log are: a change that was made has
its line. Only what a stranger can cause at will is bounded, refusals and failed logins: AUDIT_LINES_BURST at once and
AUDIT_LINES_PER_S from then on, with the number that was left out in the next line.

Never in a line: a password, a token, a verifier, a value; a key only as a hash, unless `log.show_keys` is set. The hash
is keyed with the cluster secret: equal keys have equal hashes on every node, and nobody else can try keys out.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping
from typing import Any, Final

from leafdb.limits import AUDIT_LINES_BURST, AUDIT_LINES_PER_S
from leafdb.node.logs import AUDIT, Log
from leafdb.node.required_grants import NAMED_BY, bucket_in

_SHOWN: Final = ("bucket", "expires_ms", "name", "node", "role", "target", "token", "user")
"""Arguments of verbs that name something; the others may be anything."""
_LISTED: Final = ("add", "grants", "remove", "roles")
"""Those that say what somebody is given or loses: roles, and grants, of which a prefix is part of a key."""
_SHOWN_CHARS_MAX: Final = 128
_PERSON: Final = b"leafdb audit 1"

log: Log = Log("audit")


class Audit:
    """`enabled` by `[auth] audit`. `now` is monotonic seconds."""

    def __init__(self, *, enabled: bool, show_keys: bool, secret: bytes, now: Callable[[], float]) -> None:
        self.enabled = enabled
        self._show_keys = show_keys
        self._key = hashlib.blake2b(secret, digest_size=32, person=_PERSON).digest()
        self._now = now
        self._credit = float(AUDIT_LINES_BURST)
        self._credited_at = now()
        self._left_out = 0
        if enabled:
            logging.getLogger(AUDIT).setLevel(logging.INFO)

    def logged_in(self, user: str, how: str, remote: str) -> None:
        """Somebody proved who they are."""
        if self.enabled:
            log.info("login", user=user, how=how, remote=remote)

    def login_failed(self, user: str, how: str, remote: str) -> None:
        """Nobody did. `user` only if there is one: what is typed there in error may be a password."""
        self._bounded("login failed", user=user or "(unknown)", how=how, remote=remote)

    def turned_away(self, why: str, remote: str) -> None:
        """Somebody did not try, or may not for a while."""
        self._bounded("turned away", reason=why, remote=remote)

    def denied(self, user: str, verb: str, bucket: str, key: bytes | None, remote: str) -> None:
        """Somebody asked for what they have no grant for."""
        facts = {"key": self._shown_key(key)} if key is not None else {}
        self._bounded("denied", user=user, verb=verb, bucket=bucket, remote=remote, **facts)

    def admin(self, user: str, verb: str, args: Mapping[str, Any], remote: str) -> None:
        """An admin verb is about to run."""
        if self.enabled:
            shown: dict[str, Any] = {
                f"arg_{name}": value[:_SHOWN_CHARS_MAX] if isinstance(value, str) else value
                for name in _SHOWN
                if isinstance(value := args.get(name), str | int)
            }
            shown.update({f"arg_{name}": text for name in _LISTED if (text := self._listed(args.get(name)))})
            if verb in NAMED_BY:
                shown["bucket"] = bucket_in(verb, args)[:_SHOWN_CHARS_MAX]
            log.info("admin", user=user, verb=verb, remote=remote, **shown)

    def _bounded(self, event: str, **facts: Any) -> None:
        if not self.enabled:
            return
        now = self._now()
        self._credit = min(AUDIT_LINES_BURST, self._credit + (now - self._credited_at) * AUDIT_LINES_PER_S)
        self._credited_at = now
        if self._credit < 1.0:
            self._left_out += 1
            return
        self._credit -= 1.0
        if self._left_out:
            facts["left_out"] = self._left_out
            self._left_out = 0
        log.info(event, **facts)

    def _listed(self, value: object) -> str:
        texts = [each for each in value if isinstance(each, str)] if isinstance(value, list) else []
        if not self._show_keys:
            texts = [each.partition("/")[0] + "/..." if "/" in each else each for each in texts]
        return ", ".join(texts)[:_SHOWN_CHARS_MAX]

    def _shown_key(self, key: bytes) -> str:
        if self._show_keys:
            return key.decode(errors="backslashreplace")
        return hashlib.blake2b(key, digest_size=8, key=self._key).hexdigest()
