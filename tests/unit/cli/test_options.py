from datetime import timedelta

import pytest
import typer

from kfp_operator.cli.options import duration, pair


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("90s", timedelta(seconds=90)),
        ("1.5s", timedelta(seconds=1.5)),
        ("10m", timedelta(minutes=10)),
        ("1h30m", timedelta(hours=1, minutes=30)),
        ("2d", timedelta(days=2)),
        ("1w", timedelta(weeks=1)),
        (" 5m ", timedelta(minutes=5)),
    ],
)
def test_a_length_of_time_is_read_as_people_write_it(text: str, length: timedelta) -> None:
    assert duration(text) == length


@pytest.mark.parametrize("text", ["", "10", "m", "-5m", "0s", "5 m", "30m1h", "1y", "9" * 30 + "w"])
def test_what_is_no_length_of_time_is_refused_with_examples(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="90s, 10m or 1h30m"):
        duration(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("a=1", ("a", "1")), ("a=", ("a", "")), ("a=b=c", ("a", "b=c")), (" a = 1", ("a", " 1")), ('a={"x": 1}', ("a", '{"x": 1}'))],
)
def test_a_pair_is_split_at_the_first_equals_sign(text: str, expected: tuple[str, str]) -> None:
    assert pair("a parameter")(text) == expected


@pytest.mark.parametrize("text", ["a", "=1", " =1", ""])
def test_a_pair_without_a_name_or_equals_sign_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="is not a parameter, as name=value"):
        pair("a parameter")(text)
