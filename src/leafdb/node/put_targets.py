"""Who is asked to take a put: primaries, stand-ins for those that are away, and whether that can be enough.

With one set of owners this is a comparison of counts. A range in a plan has two (decision 0007), and a put needs its
counts in each of them; whom a stand-in helps most is for `owner_set.appoint` to say. What cannot succeed is refused
here, and nothing has happened yet.
"""

from __future__ import annotations

from leafdb.node.coordinator import Coordinator, Joint, Place, not_enough
from leafdb.quorum.joint_put_operation import JointPutOperation
from leafdb.quorum.owner_set import OwnerSet, appoint
from leafdb.quorum.policy import JointWritePolicy, WritePolicy
from leafdb.quorum.put_operation import PutOperation
from leafdb.types import NodeId
from leafdb.wire.requests import PutRequest


def one_set(
    coordinator: Coordinator, place: Place, policy: WritePolicy, targets: dict[NodeId, NodeId], absent: list[NodeId]
) -> PutOperation:
    """The operation, with a fallback for each absent primary as far as there are any. Raises NotEnoughReplicas.

    `targets` are the usable primaries, each standing for itself; a coordinator that is none is among them already.
    """
    spares: list[NodeId] = []
    if absent and policy.sloppy:
        spares = coordinator.hints.fallbacks(place.partition, place.bucket, (*targets, coordinator.view.self_id))
    owed = []
    for node in absent:
        if spares:
            targets[spares.pop(0)] = node
        else:
            owed.append(node)
    if len(targets) < policy.w:
        raise not_enough(len(targets), policy.w, "replicas")
    if policy.pw:
        there = sum(1 for node in targets if node in place.primaries)
        if there < policy.pw:
            raise not_enough(there, policy.pw, "primaries")
    machine = PutOperation(w=policy.w, pw=policy.pw, targets=targets, spares=spares)
    machine.owed = owed
    return machine


def two_sets(
    coordinator: Coordinator,
    place: Place,
    joint: Joint,
    policy: JointWritePolicy,
    targets: dict[NodeId, NodeId],
    absent: list[NodeId],
    *,
    stands_in: bool,
) -> JointPutOperation:
    """The operation of a range in a plan, with a fallback for each absent owner as far as there are any. Raises
    NotEnoughReplicas.

    `targets` are the usable holders, each standing for itself. A coordinator that is none of them and `stands_in` is
    the first fallback, and stands for whom that helps most.
    """
    old = OwnerSet(joint.old, w=policy.old.w, pw=policy.old.pw)
    new = OwnerSet(joint.new, w=policy.new.w, pw=policy.new.pw)
    spares: list[NodeId] = []
    if absent and policy.old.sloppy:
        own = coordinator.view.self_id
        spares = coordinator.hints.fallbacks(place.partition, place.bucket, (*targets, own))
        if stands_in:
            spares.insert(0, own)
    owed = appoint(targets, absent, spares, (old, new))
    machine = JointPutOperation(old=old, new=new, targets=targets, spares=spares)
    short = machine.short()
    if short is not None:
        raise not_enough(*short)
    machine.owed = owed
    return machine


def anew(coordinator: Coordinator, place: Place, request: PutRequest) -> PutOperation:
    """The operation of a put whose record exists, under another ring than the one it began under. Raises NotApplied or
    NotEnoughReplicas, as at the beginning.

    A coordinator that is no holder any more is not among the targets: its copy counts for nobody.
    """
    own, usable, joint = coordinator.view.self_id, coordinator.view.usable, place.joint
    targets = {node: node for node in place.holders if node == own or node in usable}
    absent = [node for node in place.holders if node not in targets]
    counts = (request.w, request.pw, request.dw, request.flags)
    if joint is None:
        return one_set(coordinator, place, place.bucket.write_policy(*counts), targets, absent)
    both = place.bucket.joint_write_policy(*counts, len(joint.old), len(joint.new))
    return two_sets(coordinator, place, joint, both, targets, absent, stands_in=False)


def enough_without(own: NodeId, machine: PutOperation) -> bool:
    """Whether the other targets of an operation that has not begun can meet its counts."""
    others = {node: stands_for for node, stands_for in machine.waiting.items() if node != own}
    if isinstance(machine, JointPutOperation):
        return machine.old.short(others) is None and machine.new.short(others) is None
    in_person = sum(1 for node, stands_for in others.items() if node == stands_for)
    return len(others) >= machine.w and in_person >= machine.pw
