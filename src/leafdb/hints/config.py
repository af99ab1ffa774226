"""Settings of hinted handoff: each with what it buys and what it costs."""

from __future__ import annotations

from dataclasses import dataclass

from leafdb.limits import HINT_AGE_S_MAX, HINT_BATCH_BYTES_MAX, HINT_CREDITS


@dataclass(frozen=True, slots=True)
class HintsConfig:
    """One for both sides: holder and target."""

    age_s_max: float = HINT_AGE_S_MAX
    """Coordinator hints older than this are given up for an anti-entropy exchange. Fallback copies never are."""
    batch_bytes_max: int = HINT_BATCH_BYTES_MAX
    """Of one batch, and of one page read for it; a larger record travels alone."""
    batches_in_flight_max: int = 2
    """One on its way while the target merges the other."""
    page_records_max: int = HINT_CREDITS
    credits_max: int = HINT_CREDITS
    """Records a target has granted to all holders together: bounds what hits it when it comes back."""
    grant_idle_s: float = 30.0
    """A holder that does not use its credits for so long loses them, so that a stuck one starves nobody."""
    reply_timeout_s: float = 30.0
    """How long a holder waits for a batch's end, or for credits before it asks again."""
    linger_s: float = 0.1
    """A hint for a node that is up waits this long for company."""
    backoff_s_min: float = 0.5
    backoff_s_max: float = 30.0
    """After a refusal or a timeout: doubled each time up to this, with jitter down to a half; progress resets it."""

    def check(self) -> None:
        """Assert what the machines assume."""
        assert 0 < self.backoff_s_min <= self.backoff_s_max
        assert self.page_records_max >= 1
        assert 1 <= self.credits_max <= HINT_CREDITS
        assert self.batches_in_flight_max >= 1
        assert self.batch_bytes_max >= 1
        assert min(self.age_s_max, self.grant_idle_s, self.reply_timeout_s, self.linger_s) > 0
