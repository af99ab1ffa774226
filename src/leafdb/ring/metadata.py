"""The cluster metadata: one value per epoch that says who is a member, who owns what and which buckets there are.

It lives in a consensus register kept by the control set; every node has a persisted copy; gossip carries only
(epoch, digest). A value is never changed: a transition makes the value of the next epoch. So two nodes at one epoch
hold the same bytes, and the epochs are one history (I18).

- Node numbers and bucket ids are handed out here, counted up and never given twice: old dots, hints and trees name
  them.
- `range_epochs` says when each partition last changed hands; requests carry and replicas compare those, so that
  creating a bucket stops nobody.
- A bucket's generation is the epoch of its creation: a node that meets a later one knows which epoch to fetch.
- `staged`, `plan`, `control_next` are changes of the ring and of the control set under way (`transitions`,
  `control_set`); a value without any is encoded as builds before them did.
- `accounts` are the users, roles and tokens (`accounts`, `account_changes`); only nodes see them.
- `horizons` says below which stamps dead records may be forgotten (`horizons`, `horizon_change`).
- `recent` remembers the ids of the last changes. A proposer that lost sight of its round may run its change again; the
  id says that it is in already. Without it a retried "create" would answer "exists" about its own work.

The encoding is canonical (docs/formats/metadata.md): equal values, equal bytes, equal digests. Decoding checks
everything and refuses bytes it would not have written itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from leafdb.codec import cbor
from leafdb.codec.checksum import xxh3_64
from leafdb.errors import ConfigError, NotApplied, Reason
from leafdb.limits import BUCKETS_MAX, METADATA_BYTES_MAX, METADATA_RECENT_MAX, PARTITIONS_DEFAULT
from leafdb.model import bucket as bucket_model
from leafdb.model.bucket import BUCKET_ID_MAX, BucketProperties
from leafdb.ring import metadata_rules as rules
from leafdb.ring import staging
from leafdb.ring.accounts import Accounts
from leafdb.ring.horizons import Horizon, check_horizons, pack_horizons
from leafdb.ring.member import Member, ProposedMember
from leafdb.ring.metadata_format import (
    CHANGE_ID_BYTES,
    FORMAT_ACCOUNTS,
    FORMAT_CHANGING,
    FORMAT_PURGING,
    FORMAT_STILL,
    read_fields,
)
from leafdb.ring.packing import pack_epochs, pack_owners
from leafdb.ring.placement import claim
from leafdb.ring.plan import Plan
from leafdb.ring.preference_list import Place
from leafdb.ring.staging import StagedChange
from leafdb.ring.token import partition_bits
from leafdb.types import FIRST_BUCKET_ID, BucketId, Epoch, NodeId

FEATURE_LEVEL: Final = 1
"""The newest this build can live by; what a cluster has agreed to emit is in its metadata."""

FIRST_EPOCH: Final = Epoch(1)
FIRST_BUCKET: Final = BucketId(FIRST_BUCKET_ID)


class MetadataError(ValueError):
    """The bytes are no cluster metadata that this build can live by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterMetadata:
    """The metadata of one epoch. The dicts are never changed after construction."""

    cluster_id: bytes
    cluster_number: int
    """Part of every actor this cluster mints; clusters that exchange data need different ones."""
    cluster_name: str
    generation: int = 1
    """Counted up by `cluster recover`, which fences the generation before."""
    epoch: Epoch
    feature_level: int = FEATURE_LEVEL
    partitions: int
    members: dict[NodeId, Member]
    owners: tuple[NodeId, ...]
    """The owner of each partition; copies are placed from here (preference_list)."""
    range_epochs: tuple[Epoch, ...]
    control: tuple[NodeId, ...]
    """The acceptors of the register that holds this value."""
    control_next: tuple[NodeId, ...] = ()
    """Its next acceptors, ascending; empty unless it is changing them: then a round needs both sets."""
    control_epoch: Epoch = FIRST_EPOCH
    """Epoch of the last change to either: messages of the register carry it, acceptors refuse who is behind."""
    buckets: dict[BucketId, BucketProperties] = field(default_factory=dict)
    next_bucket_id: BucketId = FIRST_BUCKET
    next_node_id: NodeId
    bans: tuple[NodeId, ...] = ()
    """Numbers that may never come back, ascending."""
    horizons: tuple[Horizon, ...] = ()
    """Of each partition, below which stamp dead records may be forgotten; empty until something is proved."""
    accounts: Accounts = field(default_factory=Accounts)
    """Who may do what; empty until somebody is made."""
    staged: tuple[StagedChange, ...] = ()
    """What the next plan shall do, in the order in which it was asked for."""
    plan: Plan | None = None
    """The change of the ring in progress."""
    recent: tuple[tuple[bytes, Epoch], ...] = ()
    """(change id, epoch it made) of the last changes, oldest first."""

    # -- asking

    @property
    def format(self) -> int:
        """The oldest format that can say this."""
        if self.accounts:
            return FORMAT_ACCOUNTS
        if self.horizons:
            return FORMAT_PURGING
        changing = self.staged or self.plan is not None or self.control_next or self.control_epoch != FIRST_EPOCH
        return FORMAT_CHANGING if changing else FORMAT_STILL

    @property
    def version(self) -> tuple[int, int]:
        """(generation, epoch): which of two values is the later one."""
        return self.generation, int(self.epoch)

    def bucket_named(self, name: str) -> BucketProperties | None:
        """The bucket of that name."""
        return next((bucket for bucket in self.buckets.values() if bucket.name == name), None)

    def member_named(self, name: str) -> Member | None:
        """The member of that name."""
        return next((member for member in self.members.values() if member.name == name), None)

    def acceptors(self) -> tuple[tuple[NodeId, int], ...]:
        """(node, incarnation) of the control set: the ids of the register's acceptors."""
        return tuple((node, self.members[node].incarnation) for node in self.control)

    def next_acceptors(self) -> tuple[tuple[NodeId, int], ...]:
        """As `acceptors`, of `control_next`."""
        return tuple((node, self.members[node].incarnation) for node in self.control_next)

    def places(self) -> dict[NodeId, Place]:
        """Where each member stands."""
        return {node: Place(member.host, member.zone) for node, member in self.members.items()}

    def epoch_of_change(self, change_id: bytes) -> Epoch | None:
        """The epoch that a recent change made; None when it is not among them."""
        return next((epoch for known, epoch in self.recent if known == change_id), None)

    # -- the next epoch

    def create_bucket(
        self, properties: BucketProperties, *, change_id: bytes = b"", exist_ok: bool = False
    ) -> ClusterMetadata:
        """With one more bucket, whose id and generation are assigned here. Raises NotApplied.

        The same value when the change of this id is in already, or when `exist_ok` and an equal bucket exists.
        """
        if change_id and self.epoch_of_change(change_id) is not None:
            return self
        existing = self.bucket_named(properties.name)
        if existing is not None:
            equal = replace(properties, id=existing.id, generation=existing.generation) == existing
            if exist_ok and equal:
                return self
            other = "" if equal else " with other properties"
            raise NotApplied(f"bucket {properties.name!r} exists{other}", reason=Reason.BUCKET_EXISTS)
        if len(self.buckets) >= BUCKETS_MAX or self.next_bucket_id > BUCKET_ID_MAX:
            raise NotApplied(f"there are {len(self.buckets)} buckets, and no room for more", reason=Reason.TOO_LARGE)
        bucket_id = self.next_bucket_id
        created = replace(properties, id=bucket_id, generation=self.epoch + 1)
        if problems := bucket_model.check(created):
            raise NotApplied("; ".join(problems), reason=Reason.BAD_REQUEST)
        buckets = {**self.buckets, bucket_id: created}
        return self.next_epoch(change_id, buckets=buckets, next_bucket_id=BucketId(bucket_id + 1))

    def drop_bucket(self, bucket_id: BucketId, *, change_id: bytes = b"") -> ClusterMetadata:
        """Without that bucket; its id is never used again. Raises NotApplied."""
        if change_id and self.epoch_of_change(change_id) is not None:
            return self
        if bucket_id not in self.buckets:
            raise NotApplied(f"no bucket has the id {bucket_id}", reason=Reason.NO_SUCH_BUCKET)
        return self.next_epoch(change_id, buckets={key: kept for key, kept in self.buckets.items() if key != bucket_id})

    def set_bucket(self, bucket_id: BucketId, changed: Mapping[str, Any], *, change_id: bytes = b"") -> ClusterMetadata:
        """With some of a bucket's properties changed, those of `bucket.CHANGEABLE`. Raises NotApplied.

        The same value when nothing would change or the change of this id is in already. Id and generation stay.
        """
        if change_id and self.epoch_of_change(change_id) is not None:
            return self
        if bucket_id not in self.buckets:
            raise NotApplied(f"no bucket has the id {bucket_id}", reason=Reason.NO_SUCH_BUCKET)
        if fixed := sorted(changed.keys() - bucket_model.CHANGEABLE):
            why = "; ".join(f"{name}: {bucket_model.WHY_FIXED.get(name, 'no such property')}" for name in fixed)
            raise NotApplied(f"of a bucket that exists this cannot change: {why}", reason=Reason.BAD_REQUEST)
        try:
            made = BucketProperties.from_wire({**self.buckets[bucket_id].to_wire(), **changed})
        except ValueError as error:
            raise NotApplied(str(error), reason=Reason.BAD_REQUEST) from error
        if made == self.buckets[bucket_id]:
            return self
        return self.next_epoch(change_id, buckets={**self.buckets, bucket_id: made})

    def next_epoch(self, change_id: bytes, **changed: Any) -> ClusterMetadata:
        """The value after this one, with those fields changed. What comes out must be sound: whoever calls checks."""
        assert len(change_id) in (0, CHANGE_ID_BYTES), f"change ids are {CHANGE_ID_BYTES} bytes"
        epoch = Epoch(self.epoch + 1)
        recent = (*self.recent, (change_id, epoch))[-METADATA_RECENT_MAX:] if change_id else self.recent
        made = replace(self, epoch=epoch, recent=recent, **changed)
        problems = made.check()
        assert not problems, problems
        acceptors = made.members.keys() & {*self.control, *self.control_next}
        assert all(made.members[node].incarnation == self.members[node].incarnation for node in acceptors), (
            "an acceptor becomes another one by a change of the control set, and not otherwise"
        )
        return made

    # -- bytes

    def to_wire(self) -> dict[str, Any]:
        """The map that is encoded. Lists of members and buckets ascend by id."""
        wire = {
            "format": self.format,
            "cluster_id": self.cluster_id,
            "cluster_number": self.cluster_number,
            "cluster_name": self.cluster_name,
            "generation": self.generation,
            "epoch": int(self.epoch),
            "feature_level": self.feature_level,
            "partitions": self.partitions,
            "members": [self.members[node].to_wire() for node in sorted(self.members)],
            "owners": pack_owners(self.owners),
            "range_epochs": pack_epochs(self.range_epochs),
            "control": list(self.control),
            "buckets": [self.buckets[bucket].to_wire() for bucket in sorted(self.buckets)],
            "next_bucket_id": int(self.next_bucket_id),
            "next_node_id": int(self.next_node_id),
            "bans": list(self.bans),
            "horizons": pack_horizons(self.horizons) if self.horizons else {},
            "plan": None if self.plan is None else self.plan.to_wire(),
            "recent": [[change_id, int(epoch)] for change_id, epoch in self.recent],
        }
        if wire["format"] != FORMAT_STILL:
            wire["staged"] = [staging.to_wire(change) for change in self.staged]
            wire["control_next"] = list(self.control_next)
            wire["control_epoch"] = int(self.control_epoch)
        if wire["format"] == FORMAT_ACCOUNTS:
            wire["accounts"] = self.accounts.to_wire()
        return wire

    def without_accounts(self) -> ClusterMetadata:
        """As clients are given it: no verifier and no digest leaves the nodes."""
        return replace(self, accounts=Accounts()) if self.accounts else self

    def encode(self) -> bytes:
        """The canonical bytes."""
        return cbor.dumps(self.to_wire())

    def digest(self) -> bytes:
        """The eight bytes that gossip beside the epoch."""
        return digest_of(self.encode())

    # -- for tests and people

    def check(self) -> list[str]:
        """Everything that is wrong with it; empty when sound."""
        return [
            *rules.check_head(
                cluster_id=self.cluster_id,
                cluster_number=self.cluster_number,
                cluster_name=self.cluster_name,
                generation=self.generation,
                epoch=self.epoch,
            ),
            *([] if 1 <= self.feature_level <= FEATURE_LEVEL else [f"feature level {self.feature_level} is unknown"]),
            *rules.check_members(self.members, next_node_id=self.next_node_id, bans=self.bans),
            *rules.check_ring(self.partitions, self.owners, self.range_epochs, members=self.members, epoch=self.epoch),
            *check_horizons(self.horizons, range_epochs=self.range_epochs),
            *rules.check_buckets(self.buckets, next_bucket_id=self.next_bucket_id, epoch=self.epoch),
            *rules.check_recent(self.recent, epoch=self.epoch),
            *self.accounts.check(self.epoch),
            *rules.check_control(
                self.control,
                self.control_next,
                control_epoch=self.control_epoch,
                members=self.members,
                plan=self.plan,
                epoch=self.epoch,
            ),
            *rules.check_changes(
                self.staged,
                self.plan,
                owners=self.owners,
                members=self.members,
                bans=self.bans,
                next_node_id=self.next_node_id,
                epoch=self.epoch,
            ),
        ]

    def describe(self) -> str:
        """A few lines for people."""
        control = ", ".join(self.members[node].name for node in self.control)
        lines = [
            f"cluster {self.cluster_name} ({self.cluster_id.hex()}) generation {self.generation} epoch {self.epoch}",
            f"  {self.partitions} partitions, {len(self.members)} members, control set: {control}",
        ]
        for node, member in sorted(self.members.items()):
            zone = f" zone {member.zone}" if member.zone else ""
            lines.append(f"  node {node} {member.name} host {member.host}{zone} owns {self.owners.count(node)}")
        for bucket_id, bucket in sorted(self.buckets.items()):
            lines.append(f"  bucket {bucket_id} {bucket.name} generation {bucket.generation}")
        if self.horizons:
            lines.append(f"  horizons proved in {sum(1 for each in self.horizons if each.stamp)} partitions")
        if self.control_next:
            lines.append("  next control set: " + ", ".join(self.members[node].name for node in self.control_next))
        if self.staged:
            lines.append(f"  {len(self.staged)} changes staged")
        if self.plan is not None:
            lines.append(f"  {self.plan.describe()}")
        return "\n".join(lines)


def found(
    cluster_name: str,
    cluster_id: bytes,
    members: Sequence[ProposedMember],
    *,
    partitions: int = PARTITIONS_DEFAULT,
    cluster_number: int | None = None,
) -> ClusterMetadata:
    """The value of epoch 1: members numbered from 1 in the given order, owners by claim. Raises ConfigError.

    Three members are the control set, or the first alone when there are fewer than three: two acceptors survive no more
    failures than one. They are the first of the list that are in distinct zones and on distinct hosts, as far as it
    goes. Equal arguments found equal bytes.
    """
    problems = [] if members else ["a cluster is founded by at least one member"]
    numbered = {NodeId(at): member.numbered(NodeId(at)) for at, member in enumerate(members, 1)}
    problems += [problem for member in numbered.values() for problem in member.check()]
    if members and not any(member.weight for member in members):
        problems.append("every member has the weight 0: nobody would own anything")
    try:
        partition_bits(partitions)
    except ValueError as error:
        problems.append(str(error))
    if not problems:
        made = ClusterMetadata(
            cluster_id=cluster_id,
            cluster_number=cluster_number or 1 + int.from_bytes(cluster_id[:2], "big") % 65_535,
            cluster_name=cluster_name,
            epoch=FIRST_EPOCH,
            partitions=partitions,
            members=numbered,
            owners=claim(numbered.values(), partitions),
            range_epochs=(FIRST_EPOCH,) * partitions,
            control=_first_control(tuple(numbered.values())),
            next_node_id=NodeId(len(numbered) + 1),
        )
        problems = made.check()
        if not problems:
            return made
    raise ConfigError("this cluster cannot be founded: " + "; ".join(problems), problems=problems)


def _first_control(members: Sequence[Member]) -> tuple[NodeId, ...]:
    """The acceptors of a new register, by the rule of consensus/desired_control.py, but for weights: the list's order
    decides instead."""
    chosen: list[Member] = []
    left = list(members)
    while left and len(chosen) < (3 if len(members) >= 3 else 1):
        zones, hosts = [member.zone for member in chosen], [member.host for member in chosen]
        best = min(left, key=lambda each: (not each.weight, zones.count(each.zone), hosts.count(each.host), each.id))
        chosen.append(best)
        left.remove(best)
    return tuple(sorted(member.id for member in chosen))


def digest_of(encoded: bytes) -> bytes:
    """The digest of metadata that is encoded already."""
    return xxh3_64(encoded).to_bytes(8, "big")


def decode(data: bytes) -> ClusterMetadata:
    """The metadata of its encoding. Raises MetadataError."""
    if len(data) > METADATA_BYTES_MAX:
        raise MetadataError(f"{len(data)} bytes of cluster metadata are over {METADATA_BYTES_MAX}")
    try:
        made = ClusterMetadata(**read_fields(cbor.loads(data)))
    except ValueError as error:
        raise MetadataError(f"malformed cluster metadata: {error}") from error
    if problems := made.check():
        raise MetadataError("unsound cluster metadata: " + "; ".join(problems))
    if made.encode() != data:
        raise MetadataError("cluster metadata in an encoding that is not canonical")
    return made
