"""What a reader sees of a record. Merge keeps more than that; nothing here changes a record.

Hidden are tombstones, expired siblings, all but the smallest dot of one operation id (a retried write that two replicas
coordinated), and in an `lww` bucket all but the winner. Folding the duplicates of an operation is done here and not in
merge because there it would not be associative (docs/decisions/0003).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from leafdb.model.clock import Dot
from leafdb.model.record_format import OP_ID_BYTES, Record, Sibling
from leafdb.types import Conflict

NO_OPERATION: Final = bytes(OP_ID_BYTES)
"""The id of a write that has none: never a reason to fold two siblings."""


def live(record: Record, now_ms: int, conflict: Conflict) -> list[tuple[Dot, Sibling]]:
    """The siblings to show, in dot order; none: the key is absent, although the record's clock still counts."""
    siblings = record.siblings
    if conflict is Conflict.LWW and len(siblings) > 1:
        dot = winner(siblings.items())
        return shown(((dot, siblings[dot]),), now_ms)
    return shown(siblings.items(), now_ms)


def winner(siblings: Iterable[tuple[Dot, Sibling]]) -> Dot:
    """The dot of the sibling with the greatest (stamp, dot)."""
    return max((sibling.stamp, dot) for dot, sibling in siblings)[1]


def shown(siblings: Iterable[tuple[Dot, Sibling]], now_ms: int) -> list[tuple[Dot, Sibling]]:
    """Those neither deleted nor expired, one for each operation id, in dot order."""
    visible = [
        (dot, sibling)
        for dot, sibling in siblings
        if sibling.value is not None and (sibling.expires_ms == 0 or sibling.expires_ms > now_ms)
    ]
    if len(visible) < 2:
        return visible
    visible.sort()
    operations: set[bytes] = set()
    folded = []
    for dot, sibling in visible:
        if sibling.op_id in operations:
            continue
        if sibling.op_id != NO_OPERATION:
            operations.add(sibling.op_id)
        folded.append((dot, sibling))
    return folded
