"""The filter language: what it accepts, what holds, and that nothing a user writes gets past InvalidSpec."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kfp_operator.errors import InvalidSpec
from kfp_operator.events.filters import MAX_DEPTH, MAX_LENGTH, parse_filter

METADATA = {
    "pushed": 1,
    "ratio": 0.5,
    "name": "penguin",
    "one": "1",
    "flag": True,
    "nothing": None,
    "empty": "",
    "tags": ["a", "b", 3],
    "map": {"x": 1, "deep": {"y": "z"}, "none": {}},
    "a-b": {"c": "d"},
    "items": [{"name": "p", "size": 1}, {"name": "q", "size": 2}],
    "path/like": "v",
    "_private": "yes",
}

HOLDS = {
    # equality takes the type of what is compared
    "pushed == 1": True,
    "pushed == 1.0": True,
    'pushed == "1"': True,
    "pushed==1": True,
    "pushed != 1": False,
    "pushed == 2": False,
    "pushed == -1": False,
    "ratio == 0.5": True,
    'ratio == "5e-1"': True,
    "one == 1": True,
    "one == 1.0": False,
    "flag == 1": True,
    "flag == true": True,
    "flag == T": True,
    "flag == false": False,
    "flag != false": True,
    "name == penguin": True,
    'name == "penguin"': True,
    "name == `penguin`": True,
    'empty == ""': True,
    r'name == "\x70enguin"': True,
    # containment
    "name contains eng": True,
    "name not contains eng": False,
    "eng in name": True,
    "eng not in name": False,
    "tags contains a": True,
    "tags contains 3": True,
    "c in tags": False,
    "3 in tags": True,
    "map contains x": True,
    "x in map": True,
    "y not in map": True,
    '"a" in tags': True,
    # regular expressions are not anchored
    "name matches `^pen`": True,
    "name matches guin": True,
    "name matches `^guin`": False,
    "name not matches `[0-9]`": True,
    # emptiness
    "empty is empty": True,
    "name is not empty": True,
    "map.none is empty": True,
    "tags is empty": False,
    # logic: and binds tighter, both stop early
    "pushed == 1 or pushed == 2 and pushed == 3": True,
    "(pushed == 1 or pushed == 2) and pushed == 3": False,
    "not pushed == 2": True,
    "not not pushed == 1": True,
    "not (pushed == 1 and flag == false)": True,
    "pushed == 1 or missing == 1": True,
    "pushed == 2 and missing == 1": False,
    "( pushed == 1 )": True,
    # selectors
    "map.x == 1": True,
    "map.deep.y == z": True,
    "items.0.name == p": True,
    '"/a-b/c" == d': True,
    '"/map/x" == 1': True,
    '"/path~1like" == v': True,
    "path/like == v": True,
    '"/_private" == yes': True,
    # a key that is missing inside a map
    "map.q == 1": False,
    "map.q != 1": True,
    "map.q contains 1": False,
    "map.q not contains 1": True,
    "map.q matches a": False,
    "map.q not matches a": True,
    "map.q is empty": True,
    "map.q is not empty": False,
    # collections
    "any items as i { i.name == q }": True,
    "all items as i { i.name == q }": False,
    "all items as i { i.size != 3 }": True,
    "any items as n, i { n == 1 and i.name == q }": True,
    "any map as key { key == x }": True,
    "any map.deep as _, value { value == z }": True,
    "any map.deep as key, value { value == z }": True,
    "any map.q as i { i == 1 }": False,
    "all map.q as i { i == 1 }": True,
    "not any items as i { i.size == 3 }": True,
    "any items as i { any tags as t { i.name == q and t == b } }": True,
}

FAILS = {
    "missing == 1": "no 'missing'",
    "missing != 1": "no 'missing'",
    "missing is empty": "no 'missing'",
    "not missing == 1": "no 'missing'",
    "missing == 1 or pushed == 1": "no 'missing'",
    "map.q.r == 1": "no 'map.q'",
    "pushed.x == 1": "leads into a number",
    "items.7.name == p": "no item '7'",
    "items.x == p": "no item 'x'",
    "pushed == penguin": "a number cannot be compared with 'penguin'",
    "flag == penguin": "cannot be compared with 'penguin'",
    "tags == a": "a list cannot be compared",
    "map == a": "a map cannot be compared",
    "nothing == a": "null cannot be compared",
    "pushed contains 1": "contains nothing",
    "pushed is empty": "neither empty nor full",
    "pushed matches 1": "wants a string",
    "items contains p": "a map cannot be compared",
    "any pushed as i { i == 1 }": "neither a list nor a map",
    "any missing as i { i == 1 }": "no 'missing'",
}

REFUSED = {
    "": "expected a comparison",
    "size > 3": "there is no operator >",
    "size <= 3": "there is no operator <",
    "pushed": "expected one of ==",
    "pushed ==": "expected a value at its end",
    "pushed = 1": "cannot read '= 1'",
    "pushed == 1 pushed == 2": "instead of pushed at character 13",
    "(pushed == 1": "expected ) at its end",
    "pushed == 1)": "expected and, or",
    'name == "x': "has no end",
    "name == `x": "has no end",
    r'name == "\d"': "backticks",
    "name matches `(`": "not a regular expression",
    "name == v-1": "quotes around a text",
    "pushed == 1e5": "cannot read '1e5'",
    "pushed == 01": "cannot read '01'",
    "_private == 1": "cannot read '_private",
    "_ == 1": "expected a comparison",
    "1 == pushed": "expected the name of a metadata key",
    "not": "expected a comparison",
    "pushed == 1 and": "expected a comparison",
    "any items as { i == 1 }": "expected a name",
    "any items as i { i == 1": "expected }",
    "pushed is full": "expected one of ==",
}


@pytest.mark.parametrize(("text", "expected"), HOLDS.items(), ids=str)
def test_a_filter_holds_or_not(text: str, expected: bool) -> None:
    assert parse_filter(text).matches(METADATA) is expected


@pytest.mark.parametrize(("text", "why"), FAILS.items(), ids=str)
def test_metadata_that_does_not_fit_is_an_error_that_says_why(text: str, why: str) -> None:
    understood = parse_filter(text)
    with pytest.raises(InvalidSpec, match=r"^spec.artifacts\[0\].path: ") as caught:
        understood.matches(METADATA, field="spec.artifacts[0].path")
    assert why in str(caught.value)


@pytest.mark.parametrize(("text", "why"), REFUSED.items(), ids=str)
def test_what_is_no_filter_is_refused_with_the_place(text: str, why: str) -> None:
    with pytest.raises(InvalidSpec) as caught:
        parse_filter(text, field="spec.artifacts[0].path")
    assert why in str(caught.value)
    assert caught.value.field == "spec.artifacts[0].path"
    assert caught.value.reason == "InvalidArtifactFilter"


def test_length_and_nesting_are_bounded() -> None:
    deep = "(" * MAX_DEPTH + "a == 1" + ")" * MAX_DEPTH
    assert parse_filter(deep).matches({"a": 1})
    for text in (f"({deep})", "not " * 300 + "a == 1", "a == 1 or " * MAX_LENGTH + "a == 1"):
        with pytest.raises(InvalidSpec):
            parse_filter(text)


def test_nested_collections_over_large_metadata_end_with_an_error() -> None:
    metadata = {"a": list(range(1000))}
    filter_ = parse_filter("all a as x { all a as y { x != -1 and y != -1 } }")
    with pytest.raises(InvalidSpec, match="comparisons"):
        filter_.matches(metadata)


def test_a_regular_expression_that_backtracks_elsewhere_is_linear_here() -> None:
    assert not parse_filter("text matches `^(a+)+$`").matches({"text": "a" * 100_000 + "b"})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["a", "b", "c"]), inner, max_size=3),
    max_leaves=12,
)
WORDS = st.sampled_from(["a", "b", "a.b", "a.0", '"/a/b"', "1", "-2.5", '"x"', "`y`", "\ud800", "é"]) | st.sampled_from(
    [
        "not",
        "and",
        "or",
        "in",
        "is",
        "empty",
        "contains",
        "matches",
        "any",
        "all",
        "as",
        "==",
        "!=",
        "(",
        ")",
        "{",
        "}",
        ",",
        '"',
        "\\",
        "<",
        "[",
    ]
)


@given(st.lists(WORDS, max_size=14).map(" ".join), st.dictionaries(st.sampled_from(["a", "b", "c"]), JSON, max_size=3))
def test_no_filter_and_no_metadata_raises_anything_but_invalid_spec(text: str, metadata: dict[str, object]) -> None:
    try:
        result = parse_filter(text).matches(metadata)
    except InvalidSpec:
        return
    assert result in (True, False)
