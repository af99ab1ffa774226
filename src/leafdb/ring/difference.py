"""What changed between two epochs of cluster metadata, small enough to travel in place of the whole.

    {"base": digest of the old, "made": digest of the new,
     "set": {field: new value}, "unset": [fields],
     "members" / "buckets": {"set": [entries], "drop": [ids]}}

Fields that did not change are left out; of members and buckets only the entries that did are there. `unset` is there
when the new value is of an older format, which has fewer fields. `apply` answers
the new value only if base and result have the digests that were named, so a difference can never make a value that no
register held; whoever cannot apply one fetches the whole.
"""

from __future__ import annotations

from typing import Any, Final

from leafdb.codec import cbor
from leafdb.codec.fields import as_int, as_list, as_map, bytes_field, map_field
from leafdb.limits import BUCKETS_MAX, METADATA_BYTES_MAX, NODES_MAX
from leafdb.ring.metadata import ClusterMetadata, MetadataError, decode, digest_of
from leafdb.ring.metadata_format import FIELDS

_DIGEST_BYTES: Final = 8
_LISTS: Final = {"members": NODES_MAX, "buckets": BUCKETS_MAX}


def difference(old: ClusterMetadata, new: ClusterMetadata) -> bytes:
    """What `apply` needs to make `new` of `old`."""
    before, after = old.to_wire(), new.to_wire()
    change: dict[str, Any] = {
        "base": digest_of(cbor.dumps(before)),
        "made": digest_of(cbor.dumps(after)),
        "set": {
            name: value
            for name, value in after.items()
            if name not in _LISTS and (name not in before or value != before[name])
        },
    }
    if unset := sorted(before.keys() - after.keys()):
        change["unset"] = unset
    for name in _LISTS:
        if before[name] != after[name]:
            change[name] = _list_difference(before[name], after[name])
    return cbor.dumps(change)


def apply(old: ClusterMetadata, change: bytes) -> ClusterMetadata:
    """The value that `change` makes of `old`. MetadataError when it was made for another, or is malformed."""
    if len(change) > METADATA_BYTES_MAX:
        raise MetadataError("a difference larger than any metadata")
    wire = old.to_wire()
    try:
        fields = as_map(cbor.loads(change), "difference")
        if bytes_field(fields, "base", low=_DIGEST_BYTES, high=_DIGEST_BYTES) != digest_of(cbor.dumps(wire)):
            raise MetadataError("the difference starts from another value")
        changed = as_map(map_field(fields, "set"), "set")
        if changed.keys() & _LISTS.keys():
            raise MetadataError("a difference sets a list whole")
        wire.update(changed)
        for name in as_list(fields.get("unset", ()), "unset", items_max=len(wire)):
            if not isinstance(name, str) or name in FIELDS or wire.pop(name, None) is None:
                raise MetadataError("a difference takes away a field that has to be there, or is not")
        for name, items_max in _LISTS.items():
            if name in fields:
                wire[name] = _apply_list(wire[name], fields[name], items_max)
        encoded = cbor.dumps(wire)
        if digest_of(encoded) != bytes_field(fields, "made", low=_DIGEST_BYTES, high=_DIGEST_BYTES):
            raise MetadataError("the difference does not lead to the value it names")
    except MetadataError:
        raise
    except ValueError as error:
        raise MetadataError(f"malformed difference: {error}") from error
    return decode(encoded)


def _list_difference(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> dict[str, Any]:
    old = {entry["id"]: entry for entry in before}
    new = {entry["id"] for entry in after}
    return {
        "set": [entry for entry in after if old.get(entry["id"]) != entry],
        "drop": [number for number in old if number not in new],
    }


def _apply_list(before: list[dict[str, Any]], change: object, items_max: int) -> list[dict[str, Any]]:
    fields = as_map(change, "list difference")
    entries = {entry["id"]: entry for entry in before}
    for number in as_list(map_field(fields, "drop"), "drop", items_max=items_max):
        entries.pop(as_int(number, "id"), None)
    for value in as_list(map_field(fields, "set"), "set", items_max=items_max):
        entry = dict(as_map(value, "entry"))
        entries[as_int(map_field(entry, "id"), "id")] = entry
    return [entries[number] for number in sorted(entries)]
