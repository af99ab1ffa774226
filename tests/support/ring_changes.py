"""Staging, committing and finishing plans, for tests about changing rings."""

from __future__ import annotations

from leafdb.ring.metadata import ClusterMetadata
from leafdb.ring.plan import Plan
from leafdb.ring.proposal import propose
from leafdb.ring.staging import StagedChange
from leafdb.ring.transitions import advance, commit, finish, stage


def staged(metadata: ClusterMetadata, *changes: StagedChange) -> ClusterMetadata:
    """With those changes staged, one after the other."""
    for change in changes:
        metadata = stage(metadata, change)
    return metadata


def committed(metadata: ClusterMetadata, *changes: StagedChange) -> ClusterMetadata:
    """With a plan of those changes in its first phase."""
    ready = staged(metadata, *changes)
    return commit(ready, propose(ready).id)


def advanced(metadata: ClusterMetadata, *changes: StagedChange) -> ClusterMetadata:
    """With a plan of those changes in its second phase."""
    under_way = committed(metadata, *changes)
    return advance(under_way, plan_of(under_way).id)


def finished(metadata: ClusterMetadata, *changes: StagedChange) -> ClusterMetadata:
    """With those changes made."""
    under_way = advanced(metadata, *changes)
    return finish(under_way, plan_of(under_way).id)


def plan_of(metadata: ClusterMetadata) -> Plan:
    """The plan in progress, of which there is one."""
    assert metadata.plan is not None
    return metadata.plan
