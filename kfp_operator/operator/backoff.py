"""How long to wait before another try."""

_DOUBLINGS = 64
"""An outage of a day is more failures than a float has doublings."""


def backoff(failures: int, *, most: float) -> float:
    """Seconds to wait after so many failures in a row (1 or more): 1, 2, 4 ... and never more than `most`."""
    return min(2.0 ** min(failures - 1, _DOUBLINGS), most)
