"""Users, roles and tokens: the part of the cluster metadata that says who may do what (docs/formats/metadata.md).

Of a password there is a verifier, of a token a digest: what is here lets nobody in. It still never leaves the nodes: a
client that fetches the metadata for routing is given them without accounts.

- A user's `generation` is the epoch in which the user was made or the password last changed. A session remembers it,
  so a user that was dropped and made again, or has a new password, is not the one that logged in before.
- A token acts as its user, until it expires, is dropped, or the user is.
- Four roles are built in and cannot be changed; the others are the cluster's own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Final, NamedTuple

from leafdb.codec import cbor
from leafdb.codec.fields import as_list, as_map, bytes_field, int_field, list_field, map_field
from leafdb.limits import (
    ACCOUNT_NAME_BYTES_MAX,
    ACCOUNTS_BYTES_MAX,
    GRANTS_MAX,
    ROLES_MAX,
    TOKENS_MAX,
    USER_ROLES_MAX,
    USERS_MAX,
)
from leafdb.model.grants import Grant
from leafdb.model.scram import Verifier
from leafdb.types import Epoch

NAME: Final = re.compile(r"[a-z0-9]([a-z0-9._-]*[a-z0-9])?")
NAME_RULE: Final = (
    f"1 to {ACCOUNT_NAME_BYTES_MAX} of a-z, 0-9, dot, dash and underscore, with a letter or digit first and last"
)
DIGEST_BYTES: Final = 32
EXPIRES_MS_MAX: Final = (1 << 53) - 1

BUILT_IN: Final[Mapping[str, tuple[Grant, ...]]] = {
    "admin": (Grant("*"),),
    "operator": (Grant("admin.operate"), Grant("admin.read")),
    "writer": (Grant("delete"), Grant("read"), Grant("write")),
    "reader": (Grant("read"),),
}
"""Roles there are in every cluster."""


class Principal(NamedTuple):
    """Who a session is, from its login on."""

    user: str
    generation: int
    token: str = ""
    """The name of the token it came with; empty for a password."""
    digest: bytes = b""
    """That token's: another one may have its name later."""


@dataclass(frozen=True, slots=True)
class User:
    """Somebody. Without a verifier only tokens open the door."""

    name: str
    generation: int
    verifier: Verifier | None
    roles: tuple[str, ...] = ()

    def to_wire(self) -> dict[str, Any]:
        """A plain map for CBOR."""
        return {
            "name": self.name,
            "generation": self.generation,
            "verifier": None if self.verifier is None else self.verifier.to_wire(),
            "roles": list(self.roles),
        }

    @classmethod
    def from_wire(cls, value: object) -> User:
        """The user in a decoded map. Raises ValueError."""
        fields = _exactly(value, "user", ("name", "generation", "verifier", "roles"))
        verifier = fields["verifier"]
        return cls(
            name=_text(fields, "name"),
            generation=int_field(fields, "generation", low=1),
            verifier=None if verifier is None else Verifier.from_wire(verifier),
            roles=tuple(_as_text(each, "role") for each in list_field(fields, "roles", items_max=USER_ROLES_MAX)),
        )


@dataclass(frozen=True, slots=True)
class Role:
    """Grants under a name."""

    name: str
    grants: tuple[Grant, ...] = ()

    def to_wire(self) -> dict[str, Any]:
        """A plain map for CBOR."""
        return {"name": self.name, "grants": [grant.to_wire() for grant in self.grants]}

    @classmethod
    def from_wire(cls, value: object) -> Role:
        """The role in a decoded map. Raises ValueError."""
        fields = _exactly(value, "role", ("name", "grants"))
        grants = list_field(fields, "grants", items_max=GRANTS_MAX)
        return cls(_text(fields, "name"), tuple(map(Grant.from_wire, grants)))


@dataclass(frozen=True, slots=True, repr=False)
class Token:
    """A long random text that stands for a user: its digest, and when it ends (Unix ms; 0: never)."""

    name: str
    user: str
    digest: bytes
    expires_ms: int = 0

    def __repr__(self) -> str:
        return f"Token(name={self.name!r}, user={self.user!r}, expires_ms={self.expires_ms})"

    def to_wire(self) -> dict[str, Any]:
        """A plain map for CBOR."""
        return {"name": self.name, "user": self.user, "digest": self.digest, "expires_ms": self.expires_ms}

    @classmethod
    def from_wire(cls, value: object) -> Token:
        """The token in a decoded map. Raises ValueError."""
        fields = _exactly(value, "token", ("name", "user", "digest", "expires_ms"))
        return cls(
            name=_text(fields, "name"),
            user=_text(fields, "user"),
            digest=bytes_field(fields, "digest", low=DIGEST_BYTES, high=DIGEST_BYTES),
            expires_ms=int_field(fields, "expires_ms", high=EXPIRES_MS_MAX),
        )


@dataclass(frozen=True, slots=True)
class Accounts:
    """All of them, by name. The dicts are never changed after construction."""

    users: dict[str, User] = field(default_factory=dict)
    roles: dict[str, Role] = field(default_factory=dict)
    tokens: dict[str, Token] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.users or self.roles or self.tokens)

    def role(self, name: str) -> Role | None:
        """The role of that name, built in or made."""
        return Role(name, BUILT_IN[name]) if name in BUILT_IN else self.roles.get(name)

    def grants_of(self, user: User) -> tuple[Grant, ...]:
        """All that the user's roles say."""
        return tuple(grant for name in user.roles if (role := self.role(name)) is not None for grant in role.grants)

    def user_of(self, principal: Principal) -> User | None:
        """Whom a session is, if that is still somebody. Whether its token has expired is for who has a clock."""
        user = self.users.get(principal.user)
        if user is None or user.generation != principal.generation:
            return None
        if principal.token:
            token = self.tokens.get(principal.token)
            if token is None or token.user != user.name or token.digest != principal.digest:
                return None
        return user

    def token_of(self, text: str) -> Token | None:
        """The token with this text."""
        digest = token_digest(text)
        return next((token for token in self.tokens.values() if token.digest == digest), None)

    def to_wire(self) -> dict[str, Any]:
        """A plain map for CBOR; each list ascends by name."""
        return {
            "users": [self.users[name].to_wire() for name in sorted(self.users)],
            "roles": [self.roles[name].to_wire() for name in sorted(self.roles)],
            "tokens": [self.tokens[name].to_wire() for name in sorted(self.tokens)],
        }

    @classmethod
    def from_wire(cls, value: object) -> Accounts:
        """The accounts in a decoded map. Raises ValueError."""
        fields = _exactly(value, "accounts", ("users", "roles", "tokens"))
        users = [User.from_wire(each) for each in list_field(fields, "users", items_max=USERS_MAX)]
        roles = [Role.from_wire(each) for each in list_field(fields, "roles", items_max=ROLES_MAX)]
        tokens = [Token.from_wire(each) for each in list_field(fields, "tokens", items_max=TOKENS_MAX)]
        return cls(
            {user.name: user for user in users},
            {role.name: role for role in roles},
            {token.name: token for token in tokens},
        )

    def check(self, epoch: Epoch) -> list[str]:
        """Everything that is wrong with them in metadata of that epoch; empty when sound."""
        problems = []
        for what, named, most in (
            ("users", self.users, USERS_MAX),
            ("roles", self.roles, ROLES_MAX),
            ("tokens", self.tokens, TOKENS_MAX),
        ):
            if len(named) > most:
                problems.append(f"{len(named)} {what} are over {most}")
            problems += [line for name in named for line in check_name(what[:-1], name)]
        for user in self.users.values():
            problems += _check_user(user, self, epoch)
        for role in self.roles.values():
            problems += _check_role(role)
        for token in self.tokens.values():
            if token.user not in self.users:
                problems.append(f"token {token.name!r} is of user {token.user!r}, whom there is not")
        if (grants := sum(len(role.grants) for role in self.roles.values())) > GRANTS_MAX:
            problems.append(f"{grants} grants in all roles are over {GRANTS_MAX}")
        digests = [token.digest for token in self.tokens.values()]
        if len(digests) != len(set(digests)):
            problems.append("two tokens have one digest")
        if not problems and self and len(cbor.dumps(self.to_wire())) > ACCOUNTS_BYTES_MAX:
            problems.append(f"users, roles and tokens take more than {ACCOUNTS_BYTES_MAX} bytes")
        return problems


def token_digest(text: str) -> bytes:
    """What is kept of a token. It is random: a plain hash tells nothing that could be guessed."""
    return sha256(text.encode(errors="surrogatepass")).digest()


def check_name(what: str, name: str) -> list[str]:
    """What is wrong with the name of a user, role or token."""
    if NAME.fullmatch(name) and len(name) <= ACCOUNT_NAME_BYTES_MAX:
        return []
    return [f"{name!r} is no name of a {what}: {NAME_RULE}"]


def _check_user(user: User, accounts: Accounts, epoch: Epoch) -> list[str]:
    problems = [f"user {user.name!r} has no role {name!r}" for name in user.roles if accounts.role(name) is None]
    if list(user.roles) != sorted(set(user.roles)) or len(user.roles) > USER_ROLES_MAX:
        problems.append(f"the roles of user {user.name!r} are not ascending, or over {USER_ROLES_MAX}")
    if not 1 <= user.generation <= epoch:
        problems.append(f"the generation of user {user.name!r} lies outside history")
    return problems


def _check_role(role: Role) -> list[str]:
    problems = [f"role {role.name!r}: {line}" for grant in role.grants for line in grant.check()]
    if role.name in BUILT_IN:
        problems.append(f"role {role.name!r} is built in")
    if list(role.grants) != sorted(set(role.grants)):
        problems.append(f"the grants of role {role.name!r} are not ascending")
    return problems


def _exactly(value: object, what: str, names: Sequence[str]) -> Mapping[str, Any]:
    """Unknown fields are refused, as in all of the metadata: whoever changes it writes all of it back."""
    fields = as_map(value, what)
    if fields.keys() != set(names):
        raise ValueError(f"fields of a {what} are missing or unknown")
    return fields


def _text(fields: Mapping[str, Any], name: str) -> str:
    return _as_text(map_field(fields, name), name)


def _as_text(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{what} is not text")
    return value


def texts(value: object, what: str, *, items_max: int) -> tuple[str, ...]:
    """A list of texts. Raises ValueError."""
    return tuple(_as_text(each, what) for each in as_list(value, what, items_max=items_max))


def ascending(items: Iterable[Any]) -> tuple[Any, ...]:
    """Each once, in order: how roles and grants are kept."""
    return tuple(sorted(set(items)))
