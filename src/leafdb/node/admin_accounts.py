"""Verbs about users, roles and tokens. Passwords and tokens never come here: a verifier or a digest does.

Each answers once every member that can be reached goes by the change. What is shown tells whether somebody has a
password, not what is kept of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from leafdb.codec.fields import bytes_field, int_field, list_field
from leafdb.errors import NotApplied, Reason
from leafdb.limits import GRANTS_MAX, USER_ROLES_MAX
from leafdb.model.grants import Grant, parse_grant
from leafdb.model.scram import Verifier
from leafdb.node.admin import Verb
from leafdb.node.admin_cluster import metadata_of
from leafdb.node.admin_data import CHANGE_TIMEOUT_S, offer, text
from leafdb.node.register_change import Change
from leafdb.ring import account_changes as changes
from leafdb.ring.accounts import BUILT_IN, DIGEST_BYTES, EXPIRES_MS_MAX, Accounts, Role, Token, User, texts

if TYPE_CHECKING:
    from leafdb.node.node import Node

Args = Mapping[str, Any]
Answer = dict[str, Any]


async def _changed(node: Node, change: Change) -> Accounts:
    """Make the change and tell everybody; the accounts after it."""
    chosen = await node.register.change(change, CHANGE_TIMEOUT_S)
    await offer(node, chosen)
    return chosen.accounts


def _verifier(args: Args) -> Verifier | None:
    return None if args["verifier"] is None else Verifier.from_wire(args["verifier"])


def _grants(args: Args, name: str) -> list[Grant]:
    """Grants as people write them, checked against the verbs this build knows."""
    return [
        parse_grant(each) for each in texts(list_field(args, name, items_max=GRANTS_MAX), name, items_max=GRANTS_MAX)
    ]


def _roles(args: Args, name: str) -> tuple[str, ...]:
    return texts(list_field(args, name, items_max=USER_ROLES_MAX), name, items_max=USER_ROLES_MAX)


def _user_item(user: User, accounts: Accounts) -> Answer:
    tokens = sorted(token.name for token in accounts.tokens.values() if token.user == user.name)
    grants = sorted({str(grant) for grant in accounts.grants_of(user)})
    return {
        "name": user.name,
        "password": user.verifier is not None,
        "roles": list(user.roles),
        "grants": grants,
        "tokens": tokens,
    }


def _role_item(role: Role, accounts: Accounts) -> Answer:
    return {
        "name": role.name,
        "built_in": role.name in BUILT_IN,
        "grants": [str(grant) for grant in role.grants],
        "users": sorted(user.name for user in accounts.users.values() if role.name in user.roles),
    }


def _token_item(token: Token) -> Answer:
    return {"name": token.name, "user": token.user, "expires_ms": token.expires_ms or None}


async def user_list(node: Node, args: Args) -> Answer:
    """Every user."""
    accounts = metadata_of(node).accounts
    return {"users": [_user_item(accounts.users[name], accounts) for name in sorted(accounts.users)]}


async def user_create(node: Node, args: Args) -> Answer:
    """Make a user, with a verifier of the password or none."""
    name, verifier, roles = text(args, "name"), _verifier(args), _roles(args, "roles")
    accounts = await _changed(
        node, lambda current, change_id: changes.create_user(current, name, verifier, roles, change_id=change_id)
    )
    return _answer_user(accounts, name)


async def user_password(node: Node, args: Args) -> Answer:
    """Give a user another password, or none. Who is logged in with the old one is turned out."""
    name, verifier = text(args, "name"), _verifier(args)
    accounts = await _changed(
        node, lambda current, change_id: changes.set_verifier(current, name, verifier, change_id=change_id)
    )
    return _answer_user(accounts, name)


async def user_roles(node: Node, args: Args) -> Answer:
    """Give a user roles, and take others."""
    name, add, remove = text(args, "name"), _roles(args, "add"), _roles(args, "remove")
    accounts = await _changed(
        node, lambda current, change_id: changes.set_roles(current, name, add, remove, change_id=change_id)
    )
    return _answer_user(accounts, name)


async def user_drop(node: Node, args: Args) -> Answer:
    """Drop a user with all tokens. Who is logged in is turned out."""
    name = text(args, "name")
    await _changed(node, lambda current, change_id: changes.drop_user(current, name, change_id=change_id))
    return {}


async def role_list(node: Node, args: Args) -> Answer:
    """Every role, those built in first."""
    accounts = metadata_of(node).accounts
    roles = [Role(name, grants) for name, grants in BUILT_IN.items()]
    roles += [accounts.roles[name] for name in sorted(accounts.roles)]
    return {"roles": [_role_item(role, accounts) for role in roles]}


async def role_create(node: Node, args: Args) -> Answer:
    """Make a role of grants."""
    name, grants = text(args, "name"), _grants(args, "grants")
    accounts = await _changed(
        node, lambda current, change_id: changes.create_role(current, name, grants, change_id=change_id)
    )
    return _answer_role(accounts, name)


async def role_set(node: Node, args: Args) -> Answer:
    """Add grants to a role, and take others."""
    name, add, remove = text(args, "name"), _grants(args, "add"), _grants(args, "remove")
    accounts = await _changed(
        node, lambda current, change_id: changes.set_grants(current, name, add, remove, change_id=change_id)
    )
    return _answer_role(accounts, name)


async def role_drop(node: Node, args: Args) -> Answer:
    """Drop a role that nobody has."""
    name = text(args, "name")
    await _changed(node, lambda current, change_id: changes.drop_role(current, name, change_id=change_id))
    return {}


async def token_list(node: Node, args: Args) -> Answer:
    """Every token, by name."""
    tokens = metadata_of(node).accounts.tokens
    return {"tokens": [_token_item(tokens[name]) for name in sorted(tokens)]}


async def token_create(node: Node, args: Args) -> Answer:
    """Keep the digest of a token of a user's."""
    digest = bytes_field(args, "digest", low=DIGEST_BYTES, high=DIGEST_BYTES)
    expires_ms = int_field(args, "expires_ms", high=EXPIRES_MS_MAX)
    if expires_ms and expires_ms <= node.world.now_ms():
        raise NotApplied("the token would have expired already", reason=Reason.BAD_REQUEST)
    token = Token(text(args, "name"), text(args, "user"), digest, expires_ms)
    await _changed(node, lambda current, change_id: changes.create_token(current, token, change_id=change_id))
    return _token_item(token)


async def token_drop(node: Node, args: Args) -> Answer:
    """Drop a token. Who came with it is turned out."""
    name = text(args, "name")
    await _changed(node, lambda current, change_id: changes.drop_token(current, name, change_id=change_id))
    return {}


def _answer_user(accounts: Accounts, name: str) -> Answer:
    """The user, or nothing when somebody dropped it again at once."""
    user = accounts.users.get(name)
    return {} if user is None else _user_item(user, accounts)


def _answer_role(accounts: Accounts, name: str) -> Answer:
    role = accounts.role(name)
    return {} if role is None else _role_item(role, accounts)


VERBS: Mapping[str, Verb] = {
    "user.list": user_list,
    "user.create": user_create,
    "user.password": user_password,
    "user.roles": user_roles,
    "user.drop": user_drop,
    "role.list": role_list,
    "role.create": role_create,
    "role.set": role_set,
    "role.drop": role_drop,
    "token.list": token_list,
    "token.create": token_create,
    "token.drop": token_drop,
}
