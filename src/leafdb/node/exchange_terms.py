"""How a record is taken in an exchange: from where both stores stand in the partition. Pure (decision 0008, section 2).

    we vouch, they vouch       WHOLE       everything; what lives and is not here proves that it was lost here
    we do not, they do         MADE_WHOLE  we become what they would be after admitting ours; "nothing here" counts too
    nobody vouches             EVERYTHING  everything, if no owner does and all have said so
    else                       MESSAGE     as whatever arrives from anywhere: below the horizon each dot is admitted

Each side has its own terms. While nothing has been proved everybody vouches, and everything is taken.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

from leafdb.model.actor import ActorIdentity
from leafdb.model.admission import left_out, proves_loss
from leafdb.model.epochs import EpochLease
from leafdb.model.record import accept_above, restored
from leafdb.node.horizons import Standing
from leafdb.types import Conflict


class Terms(Enum):
    """Of one side."""

    WHOLE = "both vouch"
    MADE_WHOLE = "the other side vouches, this one does not"
    EVERYTHING = "no owner vouches"
    MESSAGE = "as a message"


class TermsChanged(Exception):
    """What the record came under is no more: it is not taken."""


def terms_of(ours: Standing, theirs: Standing, *, nobody: bool) -> Terms:
    """`nobody`: no owner of the range vouches, and all have said so."""
    assert ours.horizon == theirs.horizon, "stores with different horizons do not exchange"
    if theirs.vouches:
        return Terms.WHOLE if ours.vouches else Terms.MADE_WHOLE
    return Terms.EVERYTHING if nobody and not ours.vouches else Terms.MESSAGE


def loss_proved(terms: Terms, local: bytes | None, theirs: bytes | None, horizon: int) -> bool:
    """Whether the other side has something that lives, and that this store can only have lost. It is taken like all
    else, and no mark goes for it: what the mark says of what was forgotten is still true, and who is made whole drops
    what nobody but it has. Raises RecordError."""
    return terms is Terms.WHOLE and theirs is not None and proves_loss(local, theirs, horizon)


def taken(
    terms: Terms,
    local: bytes | None,
    theirs: bytes | None,
    conflict: Conflict,
    *,
    identity: ActorIdentity,
    epochs: EpochLease,
    horizon: int,
    accept: Callable[[bytes | None, bytes], bytes],
) -> bytes | None:
    """What this store makes of `local` (None: nothing is here), told what the other side has of the key; the very
    object `local` when nothing changes, None when nothing is kept. `accept` takes a record as it is. Raises
    RecordError, LeaseExhausted, and whatever `accept` does."""
    if terms is Terms.MADE_WHOLE:
        return restored(local, theirs, conflict, identity=identity, epochs=epochs, horizon=horizon)
    if theirs is None:
        return local
    if terms is Terms.MESSAGE and left_out(local, theirs, horizon):
        return accept_above(local, theirs, conflict, identity=identity, epochs=epochs, horizon=horizon)
    return accept(local, theirs)
