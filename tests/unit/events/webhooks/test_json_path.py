from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kfp_operator.events.webhooks.json_path import MISSING, parse_path

DOCUMENT = {"a": {"b": [10, {"c d": None}], "é": 1}, "x-y": {"": 2}, "0": 3}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("$", DOCUMENT),
        ("$.a.b[0]", 10),
        ("$.a.b[-1]['c d']", None),
        ('$["a"]["b"][1]', {"c d": None}),
        ("$.a.é", 1),
        ("$['x-y']['']", 2),
        ("$['0']", 3),
        ("$[ 'a' ].b[ 0 ]", 10),
        ("$.b", MISSING),
        ("$[0]", MISSING),
        ("$.a.b[2]", MISSING),
        ("$.a.b[-3]", MISSING),
        ("$.a.b['0']", MISSING),
        ("$.a.b[0].c", MISSING),
        ("$.a.b[1]['c d'].e", MISSING),
    ],
)
def test_a_path_leads_to_one_value_or_nowhere(path: str, expected: object) -> None:
    assert parse_path(path).find(DOCUMENT) == expected


@pytest.mark.parametrize(
    "path",
    [
        "",
        "a",
        "$.",
        "$a",
        "$..a",
        "$.*",
        "$[*]",
        "$[?@.a]",
        "$[0:2]",
        "$['a','b']",
        "$.a-b",
        "$[01]",
        "$[-0]",
        "$['a",
        "$.a ",
        " $",
        "$" + ".a" * 200,
    ],
)
def test_what_may_lead_to_several_values_or_is_no_path_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="is not a path to one value"):
        parse_path(path)


@pytest.mark.slow
@settings(deadline=None)
@given(st.text(max_size=40), st.recursive(st.none() | st.integers(), lambda c: st.lists(c) | st.dictionaries(st.text(), c)))
def test_any_text_is_a_path_or_refused(text: str, document: Any) -> None:
    try:
        path = parse_path("$" + text)
    except ValueError:
        return
    path.find(document)


@settings(deadline=None)
@given(st.text(alphabet=st.characters(exclude_characters="'\\", exclude_categories=["Cs", "Cc"]), max_size=50))
def test_every_key_without_quotes_can_be_written(key: str) -> None:
    assert parse_path(f"$['{key}']").find({key: 1}) == 1
