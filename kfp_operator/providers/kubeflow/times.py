"""Times in the server's documents: a run's that is not there is 1970, a task's the year 1."""

from datetime import UTC, datetime

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
"""The end of a run that has not ended."""
_EARLIEST = datetime(1971, 1, 1, tzinfo=UTC)


def moment(value: object) -> datetime | None:
    """A time of a document; None for one that is missing, unreadable, or stands for "not yet"."""
    if not isinstance(value, str) or not value:
        return None
    try:
        found = datetime.fromisoformat(value)
        found = found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return found if found > _EARLIEST else None
