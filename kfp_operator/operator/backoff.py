"""How long to wait before another try."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from kfp_operator.errors import Permanent, ProviderError, Retryable

_DOUBLINGS = 64
"""An outage of a day is more failures than a float has doublings."""


def backoff(failures: int, *, most: float) -> float:
    """Seconds to wait after so many failures in a row (1 or more): 1, 2, 4 ... and never more than `most`."""
    return min(2.0 ** min(failures - 1, _DOUBLINGS), most)


@dataclass(frozen=True, slots=True)
class Trouble:
    """What a provider failed in last, and when it is asked again."""

    message: str = ""
    refused: str = ""
    """Its reason when it is final; "": it may pass."""
    failures: int = 0
    not_before: datetime | None = None

    def left(self, now: datetime) -> float:
        """Seconds until the provider may be asked again; 0: now."""
        return max((self.not_before - now).total_seconds(), 0.0) if self.not_before is not None else 0.0

    def after(self, error: ProviderError, now: datetime, *, most: float) -> "Trouble":
        """The trouble that follows this one: what is refused for good is asked for again after `most` seconds."""
        failures, final = self.failures + 1, isinstance(error, Permanent)
        asked = error.after if isinstance(error, Retryable) else None
        delay = most if final else asked if asked is not None else backoff(failures, most=most)
        return Trouble(str(error), error.reason if final else "", failures, now + timedelta(seconds=delay))
