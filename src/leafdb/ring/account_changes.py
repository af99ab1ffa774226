"""Changes of users, roles and tokens: metadata in, the metadata of the next epoch out, or NotApplied with the reason.

Each takes the id of its change and answers the same value when that change is in already (`ClusterMetadata.recent`),
or when there is nothing to do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from leafdb.errors import NotApplied, Reason
from leafdb.model.grants import Grant
from leafdb.model.scram import Verifier
from leafdb.ring.accounts import BUILT_IN, Accounts, Role, Token, User, ascending
from leafdb.ring.metadata import ClusterMetadata
from leafdb.types import Epoch


def create_user(
    metadata: ClusterMetadata, name: str, verifier: Verifier | None, roles: Sequence[str], *, change_id: bytes = b""
) -> ClusterMetadata:
    """With one more user."""
    if _is_in(metadata, change_id):
        return metadata
    if name in metadata.accounts.users:
        raise NotApplied(f"there is a user {name!r} already", reason=Reason.NAME_TAKEN)
    user = User(name, metadata.epoch + 1, verifier, ascending(roles))
    return _with_user(metadata, user, change_id)


def set_verifier(
    metadata: ClusterMetadata, name: str, verifier: Verifier | None, *, change_id: bytes = b""
) -> ClusterMetadata:
    """With another password of a user, or none. Sessions that used the old one are nobody's from then on."""
    if _is_in(metadata, change_id):
        return metadata
    user = replace(_user(metadata, name), verifier=verifier, generation=metadata.epoch + 1)
    return _with_user(metadata, user, change_id)


def set_roles(
    metadata: ClusterMetadata, name: str, add: Sequence[str], remove: Sequence[str], *, change_id: bytes = b""
) -> ClusterMetadata:
    """With roles given to a user, and others taken."""
    if _is_in(metadata, change_id):
        return metadata
    user = _user(metadata, name)
    made = replace(user, roles=ascending({*user.roles, *add} - set(remove)))
    return metadata if made == user else _with_user(metadata, made, change_id)


def drop_user(metadata: ClusterMetadata, name: str, *, change_id: bytes = b"") -> ClusterMetadata:
    """Without that user and the user's tokens."""
    if _is_in(metadata, change_id):
        return metadata
    user = _user(metadata, name)
    accounts = metadata.accounts
    users = {key: kept for key, kept in accounts.users.items() if key != user.name}
    tokens = {key: kept for key, kept in accounts.tokens.items() if kept.user != user.name}
    return _made(metadata, replace(accounts, users=users, tokens=tokens), change_id)


def create_role(
    metadata: ClusterMetadata, name: str, grants: Sequence[Grant], *, change_id: bytes = b""
) -> ClusterMetadata:
    """With one more role."""
    if _is_in(metadata, change_id):
        return metadata
    if metadata.accounts.role(name) is not None:
        raise NotApplied(f"there is a role {name!r} already", reason=Reason.NAME_TAKEN)
    return _with_role(metadata, Role(name, ascending(grants)), change_id)


def set_grants(
    metadata: ClusterMetadata, name: str, add: Sequence[Grant], remove: Sequence[Grant], *, change_id: bytes = b""
) -> ClusterMetadata:
    """With grants added to a role, and others taken from it, which have to be there."""
    if _is_in(metadata, change_id):
        return metadata
    role = _own_role(metadata, name)
    if missing := sorted(set(remove) - set(role.grants)):
        there = ", ".join(map(str, role.grants)) or "nothing"
        told = f"role {name!r} does not grant {', '.join(map(str, missing))}; it grants {there}"
        raise NotApplied(told, reason=Reason.BAD_REQUEST)
    made = Role(name, ascending({*role.grants, *add} - set(remove)))
    return metadata if made == role else _with_role(metadata, made, change_id)


def drop_role(metadata: ClusterMetadata, name: str, *, change_id: bytes = b"") -> ClusterMetadata:
    """Without that role, which nobody may have."""
    if _is_in(metadata, change_id):
        return metadata
    role = _own_role(metadata, name)
    accounts = metadata.accounts
    if holders := [user.name for user in accounts.users.values() if name in user.roles]:
        told = f"role {name!r} is that of {', '.join(sorted(holders)[:8])}: take it from them first"
        raise NotApplied(told, reason=Reason.BAD_REQUEST)
    roles = {key: kept for key, kept in accounts.roles.items() if key != role.name}
    return _made(metadata, replace(accounts, roles=roles), change_id)


def create_token(metadata: ClusterMetadata, token: Token, *, change_id: bytes = b"") -> ClusterMetadata:
    """With one more token."""
    if _is_in(metadata, change_id):
        return metadata
    if token.name in metadata.accounts.tokens:
        raise NotApplied(f"there is a token {token.name!r} already", reason=Reason.NAME_TAKEN)
    _user(metadata, token.user)
    accounts = metadata.accounts
    return _made(metadata, replace(accounts, tokens={**accounts.tokens, token.name: token}), change_id)


def drop_token(metadata: ClusterMetadata, name: str, *, change_id: bytes = b"") -> ClusterMetadata:
    """Without that token."""
    if _is_in(metadata, change_id):
        return metadata
    accounts = metadata.accounts
    if name not in accounts.tokens:
        raise NotApplied(f"there is no token {name!r}", reason=Reason.NO_SUCH_ACCOUNT)
    tokens = {key: kept for key, kept in accounts.tokens.items() if key != name}
    return _made(metadata, replace(accounts, tokens=tokens), change_id)


def _is_in(metadata: ClusterMetadata, change_id: bytes) -> bool:
    return bool(change_id) and metadata.epoch_of_change(change_id) is not None


def _user(metadata: ClusterMetadata, name: str) -> User:
    user = metadata.accounts.users.get(name)
    if user is None:
        raise NotApplied(f"there is no user {name!r}", reason=Reason.NO_SUCH_ACCOUNT)
    return user


def _own_role(metadata: ClusterMetadata, name: str) -> Role:
    """A role that can be changed."""
    if name in BUILT_IN:
        raise NotApplied(f"role {name!r} is built in and does not change: create your own", reason=Reason.BAD_REQUEST)
    role = metadata.accounts.roles.get(name)
    if role is None:
        raise NotApplied(f"there is no role {name!r}", reason=Reason.NO_SUCH_ACCOUNT)
    return role


def _with_user(metadata: ClusterMetadata, user: User, change_id: bytes) -> ClusterMetadata:
    accounts = metadata.accounts
    return _made(metadata, replace(accounts, users={**accounts.users, user.name: user}), change_id)


def _with_role(metadata: ClusterMetadata, role: Role, change_id: bytes) -> ClusterMetadata:
    accounts = metadata.accounts
    return _made(metadata, replace(accounts, roles={**accounts.roles, role.name: role}), change_id)


def _made(metadata: ClusterMetadata, accounts: Accounts, change_id: bytes) -> ClusterMetadata:
    if problems := accounts.check(Epoch(metadata.epoch + 1)):
        raise NotApplied("; ".join(problems), reason=Reason.BAD_REQUEST)
    return metadata.next_epoch(change_id, accounts=accounts)
