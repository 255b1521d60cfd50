"""How often a sender may send: a token bucket for each, which lets a burst pass and then so many in a second."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass


@dataclass(slots=True)
class _Bucket:
    left: float
    at: float


class RateLimit:
    """Buckets by name. `clock`: seconds of a clock that only goes forward."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._buckets: dict[str, _Bucket] = {}

    def take(self, name: str, count: int, *, per_second: float, burst: int) -> float:
        """Take so many, at most `burst`; 0.0 when they were there, else the seconds until they will be, and nothing is taken."""
        now = self._clock()
        bucket = self._buckets.setdefault(name, _Bucket(burst, now))
        bucket.left = min(burst, bucket.left + (now - bucket.at) * per_second)
        bucket.at = now
        missing = count - bucket.left
        if missing > 0:
            return missing / per_second
        bucket.left -= count
        return 0.0

    def keep(self, names: Iterable[str]) -> None:
        """Forget all others."""
        kept = set(names)
        self._buckets = {name: bucket for name, bucket in self._buckets.items() if name in kept}
