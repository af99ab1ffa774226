"""The world that leafdb is tested in, for users' own tests: docs/testing-your-code.md.

The pytest plugin (`leafdb.testing.plugin`) is found by pytest itself. What is public besides its fixtures is here, and
is loaded when it is first used: the plugin is part of every pytest run of everybody who has leafdb installed.
"""

from __future__ import annotations

TYPE_CHECKING = False
"""As typing's own, without the ten milliseconds of importing it."""

if TYPE_CHECKING:
    from leafdb.testing.faults import CLIENTS, Faults
    from leafdb.testing.merge_laws import MergeLawBroken, check_merge
    from leafdb.testing.scenario import Cluster
    from leafdb.testing.servers import Servers

_HOMES = {
    "leafdb.testing.faults": ("CLIENTS", "Faults"),
    "leafdb.testing.merge_laws": ("MergeLawBroken", "check_merge"),
    "leafdb.testing.scenario": ("Cluster",),
    "leafdb.testing.servers": ("Servers",),
}

__all__ = ["CLIENTS", "Cluster", "Faults", "MergeLawBroken", "Servers", "check_merge"]

if not TYPE_CHECKING:

    def __getattr__(name):
        """Load the module a public name lives in, and keep the name."""
        for home, names in _HOMES.items():
            if name in names:
                from importlib import import_module

                value = globals()[name] = getattr(import_module(home), name)
                return value
        raise AttributeError(f"module 'leafdb.testing' has no attribute {name!r}")

    def __dir__():
        return sorted({*globals(), *__all__})
