import pytest

from kfp_operator.errors import ConfigurationError
from kfp_operator.events.jetstream import JetStreamBus
from kfp_operator.events.streams import Streams
from kfp_operator.events.subjects import Subjects
from kfp_operator.settings import EventsSettings, NatsSettings


def make(subject: str, prefix: str = "events") -> Streams:
    return Streams(JetStreamBus(NatsSettings()), Subjects(prefix), EventsSettings(documented_subject=subject, prefix=prefix))


@pytest.mark.parametrize("subject", ["", "events", "runs", "mlops.runs", "events.plain", "events.documented"])
async def test_a_documented_subject_outside_the_streams_is_fine(subject: str) -> None:
    assert make(subject).problem


@pytest.mark.parametrize(
    "subject",
    ["events.documented.x", "events.run-completion.a.b", "events.inbound.a", "a.*", ">", "a..b", ".a", "two words", "$JS.API", "a.b>"],
)
async def test_a_documented_subject_that_cannot_work_is_refused_at_once(subject: str) -> None:
    with pytest.raises(ConfigurationError, match=r"events\.documentedSubject"):
        make(subject)


async def test_the_age_of_duplicates_is_within_the_age_of_messages() -> None:
    streams = Streams(JetStreamBus(NatsSettings()), Subjects(), EventsSettings(replay_window=30))
    assert streams.wanted("documented")["duplicate_window"] == 30 * 10**9
