"""What each admin verb of a client needs to be granted. A verb that is not here is refused: a test proves that all are.

Requests for keys need `read`, `write` or `delete` of their bucket and key; that is decided in `guard`, where it is hot.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from leafdb.model.grants import Verb

LOGGED_IN: Final = frozenset({"ping", "ring", "bucket.list", "outcome"})
"""For everybody who is somebody: what a client needs to find its way, and what became of a write whose id it knows.
So who may connect learns the names of members and buckets."""

ANY_OF_BUCKET: Final = frozenset({"bucket.get"})
"""For who may do anything at all with the bucket that `name` says."""

OF_BUCKET: Final[Mapping[str, Verb]] = {
    "bucket.create": Verb.BUCKET_CREATE,
    "bucket.set": Verb.BUCKET_SET,
    "bucket.drop": Verb.BUCKET_DROP,
}
"""Granted for the bucket that is named, or for every one."""

OF_KEY: Final[Mapping[str, Verb]] = {
    "kv.where": Verb.READ,
    "kv.history": Verb.READ,
    "kv.why_kept": Verb.READ,
}
"""Granted for `bucket` and `key`."""

OF_SELF: Final[Mapping[str, str]] = {"user.password": "verifier"}
"""Needs no grant when `name` is who asks and has logged in with a password, if it gives that: a token must not become
more than a token, and taking a password away is for who gives accounts."""

NAMED_BY: Final[Mapping[str, tuple[str, ...]]] = {
    "bucket.create": ("properties", "name"),
    **dict.fromkeys(("bucket.get", "bucket.set", "bucket.drop"), ("name",)),
    **dict.fromkeys(OF_KEY, ("bucket",)),
}
"""Where the arguments of a verb about a bucket name it: where the verb itself looks, and nowhere else. Whoever gives
two names is judged by the one that counts."""

OF_CLUSTER: Final[Mapping[str, Verb]] = {
    **dict.fromkeys(
        (
            *("cluster.staged", "cluster.plan", "cluster.status", "hints.list", "node.list", "node.safe_to_stop"),
            *("repair.findings", "repair.status", "ring.history", "ring.show", "ring.simulate", "snapshots.list"),
            *("stats", "status", "storage.stats", "storage.tasks", "transfer.list"),
            *("config.show", "doctor", "metrics.read", "stats.latency", "stats.queues"),
        ),
        Verb.ADMIN_READ,
    ),
    **dict.fromkeys(
        (
            *("hints.pause", "hints.purge", "node.drain", "node.undrain", "repair.acknowledge", "repair.cancel"),
            *("repair.dry", "repair.purge", "repair.run", "repair.schedule", "snapshots.create", "snapshots.drop"),
            *("storage.compact", "storage.flush", "storage.stop", "storage.verify", "transfer.limit"),
            *("node.loglevel", "node.profile", "stats.top"),  # the last shows keys
        ),
        Verb.ADMIN_OPERATE,
    ),
    **dict.fromkeys(
        (
            *("cluster.abort", "cluster.clear", "cluster.commit", "cluster.init", "cluster.recover"),
            "cluster.stage",
        ),
        Verb.ADMIN_CLUSTER,
    ),
    **dict.fromkeys(
        (*("backup.drop", "backup.files", "backup.read", "backup.restore", "backup.snapshot", "backup.state"),),
        Verb.ADMIN_BACKUP,
    ),
    **dict.fromkeys(
        (
            *("role.create", "role.drop", "role.list", "role.set", "token.create", "token.drop", "token.list"),
            *("user.create", "user.drop", "user.list", "user.password", "user.roles"),
        ),
        Verb.ADMIN_ACCOUNTS,
    ),
}
"""Granted as such."""

ALL: Final = LOGGED_IN | ANY_OF_BUCKET | OF_BUCKET.keys() | OF_KEY.keys() | OF_CLUSTER.keys()

assert len(ALL) == sum(map(len, (LOGGED_IN, ANY_OF_BUCKET, OF_BUCKET, OF_KEY, OF_CLUSTER))), "a verb has one need"
assert NAMED_BY.keys() == ANY_OF_BUCKET | OF_BUCKET.keys() | OF_KEY.keys()


def bucket_in(verb: str, args: Mapping[str, Any]) -> str:
    """The bucket that a verb about one is about; empty when its arguments name none."""
    found: object = args
    for name in NAMED_BY[verb]:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found if isinstance(found, str) else ""
