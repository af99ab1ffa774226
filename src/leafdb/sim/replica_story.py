"""What each node writes about a key, for the timeline of a replay: records of the bucket, and hints for others.

Only a story that is kept hears of it, and its fingerprint does not: what stores write follows from what is in the
fingerprint already, and decoding every record would cost a campaign too much.
"""

from __future__ import annotations

from leafdb.hints.hint import decode as decode_hint
from leafdb.hints.hint import decode_key as decode_hint_key
from leafdb.model.key import decode_key
from leafdb.model.record import decode
from leafdb.node.hint_keeper import HINTS_TREE
from leafdb.ring.token import split_storage_key
from leafdb.sim.setting import Setting, dots_text, name_of
from leafdb.types import NodeId, TreeId


def tell_replica_writes(setting: Setting) -> None:
    """From now on every write of a node to its copies of the bucket is a line of the story, if there is one."""
    trace, bucket = setting.trace, setting.bucket.id

    def written(node: NodeId, tree: TreeId, key: bytes, value: bytes | None) -> None:
        if tree == TreeId(bucket):
            text = "drops its record" if value is None else f"stores {_shown(value)}"
        elif tree == HINTS_TREE and (hint_key := decode_hint_key(key)).bucket == bucket:
            key = hint_key.storage_key
            text = f"has no hint for n{hint_key.target} any more"
            if value is not None:
                hint = decode_hint(value)
                text = f"keeps for n{hint_key.target} ({hint.kind.name.lower()} hint) {_shown(hint.record)}"
        else:
            return
        name = name_of(decode_key(split_storage_key(key)[1]))
        trace.note(f"n{node}", text, name)

    if trace.keep:
        setting.cluster.observe_writes(written)


def _shown(record: bytes) -> str:
    """The writes a record holds, by their numbers."""
    siblings = decode(record).siblings.values()
    values = [sibling.value for sibling in siblings if sibling.value is not None]
    deletions = len(siblings) - len(values)
    told = dots_text(values) if values else ""
    if deletions:
        told += f"{' and ' if told else ''}{deletions} deletion{'s' if deletions > 1 else ''}"
    return told or "a record without siblings"
