"""Every admin verb there is, by name: those of clients and those between nodes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from leafdb.node import (
    admin_accounts,
    admin_backup,
    admin_cluster,
    admin_data,
    admin_doctor,
    admin_drain,
    admin_founding,
    admin_hints,
    admin_join,
    admin_keys,
    admin_outcome,
    admin_plan,
    admin_process,
    admin_purge,
    admin_recovery,
    admin_repair,
    admin_ring,
    admin_snapshots,
    admin_stats,
    admin_storage,
    admin_transfers,
    clock_watch,
)
from leafdb.node.admin import Verb

VERBS: Final[Mapping[str, Verb]] = {
    **admin_accounts.VERBS,
    **admin_backup.VERBS,
    **admin_cluster.VERBS,
    **admin_data.VERBS,
    **admin_doctor.VERBS,
    **admin_drain.VERBS,
    **admin_founding.VERBS,
    **admin_hints.VERBS,
    **admin_keys.VERBS,
    **admin_outcome.VERBS,
    **admin_plan.VERBS,
    **admin_process.VERBS,
    **admin_purge.VERBS,
    **admin_recovery.VERBS,
    **admin_repair.VERBS,
    **admin_ring.VERBS,
    **admin_snapshots.VERBS,
    **admin_stats.VERBS,
    **admin_storage.VERBS,
    **admin_transfers.VERBS,
}
PEER_VERBS: Final[Mapping[str, Verb]] = {
    **admin_backup.PEER_VERBS,
    **admin_cluster.PEER_VERBS,
    **admin_data.PEER_VERBS,
    **admin_doctor.PEER_VERBS,
    **admin_drain.PEER_VERBS,
    **admin_founding.PEER_VERBS,
    **admin_hints.PEER_VERBS,
    **admin_join.PEER_VERBS,
    **admin_keys.PEER_VERBS,
    **admin_outcome.PEER_VERBS,
    **admin_purge.PEER_VERBS,
    **admin_recovery.PEER_VERBS,
    **admin_repair.PEER_VERBS,
    **admin_storage.PEER_VERBS,
    **admin_ring.PEER_VERBS,
    **admin_snapshots.PEER_VERBS,
    **admin_stats.PEER_VERBS,
    **admin_transfers.PEER_VERBS,
    **clock_watch.PEER_VERBS,
}
