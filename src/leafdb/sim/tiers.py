"""From a tier to what runs it. A runner is imported when it is asked for: each brings its own part of leafdb along, and
a mutation has to come before any of that.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Final, cast

from leafdb.sim.outcome import Runner, Tier

MODULES: Final[Mapping[Tier, str]] = {
    Tier.CLUSTER: "leafdb.sim.cluster_run",
    Tier.STORE: "leafdb.sim.store_run",
    Tier.RECORD: "leafdb.sim.record_run",
    Tier.MEMBERSHIP: "leafdb.sim.membership_run",
    Tier.REGISTER: "leafdb.sim.register_run",
}
"""Each has a function `run`, which is the Runner."""


def runner(tier: Tier) -> Runner:
    """What runs the tier's seeds."""
    return cast(Runner, import_module(MODULES[tier]).run)
