"""How long to wait after failures."""

from datetime import timedelta

from kfp_operator.errors import Permanent, Retryable
from kfp_operator.operator.backoff import Trouble, backoff
from tests import builders as b


def test_waits_double_up_to_a_limit_however_long_it_lasts() -> None:
    assert [backoff(failures, most=60) for failures in (1, 2, 3, 7, 100_000)] == [1, 2, 4, 60, 60]


def test_trouble_that_may_pass_is_put_off_longer_each_time() -> None:
    first = Trouble().after(Retryable("503"), b.NOW, most=60)
    second = first.after(Retryable("504"), b.NOW, most=60)
    assert (first.left(b.NOW), second.left(b.NOW), second.left(b.at(1.5)), second.left(b.at(5))) == (1, 2, 0.5, 0)
    assert (second.message, second.refused) == ("504", "")


def test_a_provider_that_says_when_to_come_back_is_obeyed() -> None:
    assert Trouble().after(Retryable("429", after=33), b.NOW, most=60).not_before == b.NOW + timedelta(seconds=33)


def test_a_refusal_is_final_for_its_reason_and_asked_for_again_late() -> None:
    trouble = Trouble().after(Permanent("too long", reason="TooLong"), b.NOW, most=60)
    assert (trouble.refused, trouble.left(b.NOW)) == ("TooLong", 60)
    assert Trouble().left(b.NOW) == 0
