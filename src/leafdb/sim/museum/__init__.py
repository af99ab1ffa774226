"""The bug museum: bugs that systems of this family really had, each a mutation of our own source that must be caught.

A room is a module of this package with a tuple MUTATIONS; here they are put together. `leafdb sim museum` runs them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from leafdb.sim.museum import (
    deaths,
    explanations,
    hints,
    membership,
    names,
    orders,
    protocol,
    purges,
    quorums,
    records,
    register,
    rings,
    rot,
    sessions,
    snapshots,
    stamps,
    storage,
    trees,
    undead,
    windows,
)
from leafdb.sim.mutation import Mutation

MUTATIONS: Final[tuple[Mutation, ...]] = (
    *records.MUTATIONS,
    *names.MUTATIONS,
    *quorums.MUTATIONS,
    *hints.MUTATIONS,
    *protocol.MUTATIONS,
    *storage.MUTATIONS,
    *orders.MUTATIONS,
    *rot.MUTATIONS,
    *snapshots.MUTATIONS,
    *membership.MUTATIONS,
    *register.MUTATIONS,
    *rings.MUTATIONS,
    *trees.MUTATIONS,
    *undead.MUTATIONS,
    *sessions.MUTATIONS,
    *purges.MUTATIONS,
    *stamps.MUTATIONS,
    *deaths.MUTATIONS,
    *explanations.MUTATIONS,
    *windows.MUTATIONS,
)
"""All of them, room by room."""

BY_NAME: Final[Mapping[str, Mutation]] = {mutation.name: mutation for mutation in MUTATIONS}
"""Every mutation by its name."""
