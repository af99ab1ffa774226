"""Promise: who comes, who goes, how far it is and who is banned are told in names, of the metadata alone."""

from __future__ import annotations

from leafdb.ring.change_summary import change_of, change_summary
from leafdb.ring.staging import Replace
from leafdb.types import NodeId
from support.plan_maps import cluster_of, force_remove, join, leave, newcomer
from support.ring_changes import advanced, committed, finished, plan_of, staged


def test_a_ring_at_rest_has_nothing_to_tell() -> None:
    still = cluster_of("a", "b", "c", partitions=16)
    assert change_summary(still) == {"change": {}, "staged": 0, "bans": []}
    assert change_of(still, NodeId(1)) == ""
    assert change_summary(staged(still, join("d", 4), leave(2)))["staged"] == 2


def test_a_plan_names_everybody_who_comes_and_goes() -> None:
    still = cluster_of("a", "b", "c", "e", "f", partitions=16)
    changes = (join("d", 14), leave(2), force_remove(3), Replace(NodeId(4), newcomer("g", 17)))
    moving = committed(still, *changes)
    assert change_summary(moving)["change"] == {
        "id": plan_of(moving).id,
        "phase": "write both, read old",
        "joining": ["d"],
        "leaving": ["b"],
        "removed": ["c"],
        "replaced": [["e", "g"]],
    }
    said = {member.name: change_of(moving, node) for node, member in moving.members.items()}
    assert said == {
        "a": "", "b": "leaving", "c": "removed", "d": "joining", "e": "replaced by g", "f": "", "g": "replaces e",
    }  # fmt: skip
    assert change_summary(advanced(still, *changes))["change"]["phase"] == "write both, read new"
    assert change_summary(finished(still, leave(4), force_remove(5)))["bans"] == [4, 5]
