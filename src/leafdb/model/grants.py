"""Grants: who may do what, to which bucket, to keys of which prefix. Deny is the default; nothing takes a grant away.

    grant   = VERB [":" BUCKET ["/" PREFIX]]         read:carts   write:carts/user-   delete:*   admin.read   *

`BUCKET` may be `*`, every bucket there is or will be; without one a verb of buckets means `*`. A prefix is one of the
partition key, so a pair is covered by the part that decides where it lies, and with it the whole range of that part;
`hex:` before it says bytes that are no text. Buckets are named, not numbered: a grant survives a bucket that is dropped
and made again, and may come before it.

`VERB` may end in `.*` or be `*`. A name that this build does not know grants nothing, and is kept: a newer build knows.
The names cross the wire and are stored; they never change meaning.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from leafdb.codec.fields import as_bytes, as_list
from leafdb.limits import GRANT_PREFIX_BYTES_MAX
from leafdb.model.bucket import check_name
from leafdb.model.key import escaped


class Verb(StrEnum):
    """What can be granted."""

    READ = "read"
    WRITE = "write"
    DELETE = "delete"
    BUCKET_CREATE = "bucket.create"
    BUCKET_SET = "bucket.set"
    BUCKET_DROP = "bucket.drop"
    ADMIN_READ = "admin.read"
    """See how the cluster is: members, ring, repairs, hints, stores. No key and no value."""
    ADMIN_OPERATE = "admin.operate"
    """What an operator does by day: repair, drain, flush, snapshots, hints."""
    ADMIN_CLUSTER = "admin.cluster"
    """Who the members are: found, stage, commit, recover."""
    ADMIN_BACKUP = "admin.backup"
    """Read every byte of a store and write records into it."""
    ADMIN_ACCOUNTS = "admin.accounts"
    """Users, roles and tokens; as good as every other verb, for it can grant them."""


DATA_VERBS: Final = (Verb.READ, Verb.WRITE, Verb.DELETE)
"""Those a prefix means something for."""
BUCKET_VERBS: Final = (*DATA_VERBS, Verb.BUCKET_CREATE, Verb.BUCKET_SET, Verb.BUCKET_DROP)

EVERY: Final = "*"
WHOLE: Final = (b"",)
"""The prefixes of a whole bucket."""
_HEX: Final = "hex:"
_VERB: Final = re.compile(r"\*|[a-z]{1,24}(\.([a-z]{1,24}|\*))?")


@dataclass(frozen=True, slots=True, order=True)
class Grant:
    """One permission. `verb` is a name or pattern, `bucket` a name or `*`, `prefix` plain bytes of a partition key."""

    verb: str
    bucket: str = EVERY
    prefix: bytes = b""

    def __str__(self) -> str:
        if not self.on_buckets:
            return self.verb
        if not self.prefix:
            return f"{self.verb}:{self.bucket}"
        text = self.prefix.decode(errors="replace")
        plain = text.isprintable() and not text.startswith(_HEX) and text.encode() == self.prefix
        return f"{self.verb}:{self.bucket}/{text if plain else _HEX + self.prefix.hex()}"

    @property
    def on_buckets(self) -> bool:
        """Whether its bucket means anything."""
        return any(covers(self.verb, verb) for verb in BUCKET_VERBS) and (self.verb, self.bucket) != (EVERY, EVERY)

    def to_wire(self) -> list[object]:
        """A plain list for CBOR."""
        return [self.verb, self.bucket, self.prefix]

    @classmethod
    def from_wire(cls, value: object) -> Grant:
        """The grant in a decoded list. Raises ValueError."""
        parts = as_list(value, "grant", items_max=3)
        if len(parts) != 3 or not isinstance(parts[0], str) or not isinstance(parts[1], str):
            raise ValueError("a grant is a verb, a bucket and a prefix")
        return cls(parts[0], parts[1], as_bytes(parts[2], "prefix", high=GRANT_PREFIX_BYTES_MAX))

    def check(self) -> list[str]:
        """What is wrong with its form."""
        problems = []
        if not _VERB.fullmatch(self.verb):
            problems.append(f"{self.verb!r} is no name of a verb")
        if self.bucket != EVERY:
            problems += check_name(self.bucket)
        if self.prefix and self.verb not in DATA_VERBS:
            problems.append(f"a prefix is for {', '.join(DATA_VERBS)}, not for {self.verb}")
        if len(self.prefix) > GRANT_PREFIX_BYTES_MAX:
            problems.append(f"a prefix of {len(self.prefix)} bytes is over {GRANT_PREFIX_BYTES_MAX}")
        return problems


def parse_grant(text: str) -> Grant:
    """The grant that people write. Raises ValueError that says what is wrong with it."""
    verb, colon, rest = text.partition(":")
    known = [each for each in Verb if covers(verb, each)]
    if not known:
        raise ValueError(f"{verb!r} is no verb: there are {', '.join(Verb)}, admin.*, bucket.* and *")
    bucket, slash, prefix_text = rest.partition("/")
    if colon and not bucket:
        raise ValueError(f"{text!r} names no bucket: {verb}:* means every one")
    if colon and not any(each in BUCKET_VERBS for each in known):
        raise ValueError(f"{verb} is not about buckets: grant it as it is")
    if slash and not prefix_text:
        raise ValueError(f"{text!r} has an empty prefix: leave the slash out for the whole bucket")
    prefix = prefix_text.encode()
    if prefix_text.startswith(_HEX):
        prefix = bytes.fromhex(prefix_text.removeprefix(_HEX))
    made = Grant(verb, bucket or EVERY, prefix)
    if problems := made.check():
        raise ValueError("; ".join(problems))
    return made


def covers(pattern: str, verb: Verb) -> bool:
    """Whether a grant of `pattern` is one of `verb`."""
    return pattern in (EVERY, verb) or (pattern.endswith(".*") and verb.startswith(pattern[:-1]))


class Permit:
    """Grants, made ready for the request path: of each verb and bucket the encoded prefixes that are open.

    `buckets` maps the names there are to their numbers; a number that is not among them has what `*` gives.
    """

    __slots__ = ("_everywhere", "_grants", "_scopes", "_verbs")

    def __init__(self, grants: Iterable[Grant], buckets: Mapping[str, int]) -> None:
        grants = self._grants = tuple(grants)
        self._verbs = frozenset(
            verb
            for verb in Verb
            for grant in grants
            # What is granted for one bucket is no verb of the whole cluster, though `*` names all of them.
            if covers(grant.verb, verb) and (verb in BUCKET_VERBS or (grant.bucket == EVERY and not grant.prefix))
        )
        self._everywhere: dict[Verb, tuple[bytes, ...]] = {}
        self._scopes: dict[Verb, dict[int, tuple[bytes, ...]]] = {}
        for verb in BUCKET_VERBS:
            granted = [grant for grant in grants if covers(grant.verb, verb)]
            everywhere = [escaped(grant.prefix) for grant in granted if grant.bucket == EVERY]
            self._everywhere[verb] = _shortest(everywhere)
            scopes: dict[int, list[bytes]] = {}
            for grant in granted:
                if grant.bucket in buckets and grant.bucket != EVERY:
                    scopes.setdefault(buckets[grant.bucket], list(everywhere)).append(escaped(grant.prefix))
            self._scopes[verb] = {number: _shortest(prefixes) for number, prefixes in scopes.items()}

    def has(self, verb: Verb) -> bool:
        """Whether the verb is granted at all, for whatever bucket; all there is to ask of an `admin.` verb."""
        return verb in self._verbs

    def scope(self, verb: Verb, bucket_id: int) -> tuple[bytes, ...]:
        """The encoded prefixes of the bucket that are open to a verb of buckets: WHOLE for all of it, () for none."""
        return self._scopes[verb].get(bucket_id) or self._everywhere[verb]

    def scope_named(self, verb: Verb, bucket: str) -> tuple[bytes, ...]:
        """As `scope`, of a bucket by its name, which need not be there yet."""
        granted = (grant for grant in self._grants if covers(grant.verb, verb) and grant.bucket in (bucket, EVERY))
        return _shortest(escaped(grant.prefix) for grant in granted)

    def touches(self, bucket: str) -> bool:
        """Whether anything at all may be done with the bucket of that name."""
        return any(self.scope_named(verb, bucket) for verb in BUCKET_VERBS)

    def check(self) -> None:
        """No prefix is covered by another; what is granted everywhere is granted in each bucket."""
        for verb, scopes in self._scopes.items():
            for prefixes in (*scopes.values(), self._everywhere[verb]):
                assert prefixes == _shortest(prefixes)
            for prefixes in scopes.values():
                assert all(each.startswith(prefixes) for each in self._everywhere[verb])


def _shortest(prefixes: Iterable[bytes]) -> tuple[bytes, ...]:
    """Without those that another one covers, ascending."""
    kept: list[bytes] = []
    for prefix in sorted(prefixes):  # one that covers others comes before them
        if not prefix.startswith(tuple(kept)):
            kept.append(prefix)
    return tuple(kept)
