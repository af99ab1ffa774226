"""Members and metadata for tests about rings."""

from __future__ import annotations

from collections.abc import Sequence

from leafdb.model.bucket import BucketProperties
from leafdb.ring.member import ProposedMember
from leafdb.ring.metadata import ClusterMetadata, found
from leafdb.types import BucketId

CLUSTER_ID = bytes(range(16))


def proposed(number: int, *, host: str = "", zone: str = "", weight: int = 1) -> ProposedMember:
    """Member `number`; its host is its own unless named."""
    return ProposedMember(
        name=f"node-{number}",
        host=host or f"host-{number}",
        zone=zone,
        weight=weight,
        client_address=f"127.0.0.1:{7411 + 10 * number}",
        peer_address=f"127.0.0.1:{7412 + 10 * number}",
        http_address=f"127.0.0.1:{7413 + 10 * number}",
    )


def cluster(count: int = 3, *, partitions: int = 64, hosts: Sequence[str] = ()) -> ClusterMetadata:
    """Epoch 1 of a cluster of `count`."""
    members = [proposed(at, host=hosts[at] if hosts else "") for at in range(count)]
    return found("tests", CLUSTER_ID, members, partitions=partitions)


def bucket(name: str = "carts", *, n: int = 3) -> BucketProperties:
    """Properties as asked for: number and generation are still to be given."""
    return BucketProperties(id=BucketId(0), name=name, generation=0, n=n)
