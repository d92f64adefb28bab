from __future__ import annotations

import itertools
import pickle
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ablate.pattern import LONGEST, Pattern, name_problem, nearest

NAMES = [f"stage{s}.{b}.{part}" for s in (1, 2, 3) for b in (0, 1, 2) for part in ("conv1", "conv2", "bn1", "shortcut")]
REPEATS = {"stage1": 3, "stage2": 3, "stage3": 3}


def expanded(pattern: str) -> Iterator[str]:
    """Naively: every text that a pattern without its (a|b) and (2-4) could be."""
    group = re.search(r"\(([^()]*)\)", pattern)
    if group is None:
        yield pattern
        return
    for choice in group[1].split("|"):
        low, dash, high = choice.partition("-")
        words = [str(number) for number in range(int(low), int(high) + 1)] if dash else [choice]
        for word in words:
            yield from expanded(pattern[: group.start()] + word + pattern[group.end() :])


def naive_match(pattern: str, name: str) -> bool:
    parts, segments = name.split("."), pattern.split(".")
    return len(parts) == len(segments) and all(
        any(fnmatchcase(part, text) for text in expanded(segment))
        for part, segment in zip(parts, segments, strict=True)
    )


_pieces = st.one_of(
    st.sampled_from(["*", "a", "b", "1", "2", "12", "a1"]),
    st.lists(st.sampled_from(["a", "b", "1", "2", "ab", "1-3", "0-12"]), min_size=1, max_size=3).map(
        lambda words: f"({'|'.join(words)})"
    ),
)
# Three pieces at most: the naive matcher spells out every combination.
_segments = st.lists(_pieces, min_size=1, max_size=3).map("".join)
_patterns = st.lists(_segments, min_size=1, max_size=3).map(".".join)
_names = st.lists(st.text("ab12", min_size=1, max_size=5), min_size=1, max_size=3).map(".".join)


@given(_patterns, st.lists(_names, min_size=1, max_size=20))
def test_matching_equals_a_naive_matcher(pattern: str, names: list[str]) -> None:
    assert Pattern(pattern).select(names, {}) == [name for name in names if naive_match(pattern, name)]


@given(_patterns, st.data())
def test_what_a_pattern_spells_out_matches_it(pattern: str, data: st.DataObject) -> None:
    some = data.draw(st.sampled_from(list(itertools.islice(expanded(pattern), 50))))
    filled = re.sub(r"\*", lambda _: data.draw(st.text("ab1", max_size=2)), some)
    assert Pattern(pattern).matches(filled, {})


@pytest.mark.parametrize(
    ("pattern", "count"),
    [
        ("stage1.0.conv1", 1),
        ("stage*.*.conv*", 18),
        ("stage(1|3).*.bn1", 6),
        ("stage(2-3).0.*", 8),
        ("stage*.-1.conv2", 3),
        ("stage*.-2.conv2", 3),
        ("*.*.*", 36),
        ("*", 0),
        ("stage*", 0),
        ("stage1.0", 0),
        ("tage1.0.conv1", 0),
        ("stage1.0.conv", 0),
        ("stage1.-4.conv1", 0),
    ],
)
def test_patterns_match_whole_names_segment_by_segment(pattern: str, count: int) -> None:
    assert len(Pattern(pattern).select(NAMES, REPEATS)) == count


def test_the_last_of_a_repeat_is_counted_from_its_own_scope() -> None:
    repeats = {"a": 2, "b": 3}
    assert Pattern("*.-1").select(["a.0", "a.1", "b.0", "b.1", "b.2", "c.1"], repeats) == ["a.1", "b.2"]


@given(
    st.dictionaries(st.sampled_from("abc"), st.integers(1, 4), min_size=1),
    st.lists(st.sampled_from(["*", "a", "b", "0", "1", "-1", "-2", "-3"]), min_size=1, max_size=3),
)
def test_a_count_from_the_end_is_the_index_that_python_has(outer: dict[str, int], segments: list[str]) -> None:
    repeats = {**outer, **{f"{scope}.{index}": 3 for scope, count in outer.items() for index in range(count)}}
    names = [f"{scope}.{index}" for scope, count in repeats.items() for index in range(count)]
    names += [*outer, *(f"{name}.conv" for name in names)]

    def is_meant(name: str) -> bool:
        parts = name.split(".")
        return len(parts) == len(segments) and all(
            part == str([*range(repeats.get(".".join(parts[:at]), 0))][int(segment)])
            if segment.startswith("-") and repeats.get(".".join(parts[:at]), 0) >= -int(segment)
            else not segment.startswith("-") and fnmatchcase(part, segment)
            for at, (part, segment) in enumerate(zip(parts, segments, strict=True))
        )

    assert Pattern(".".join(segments)).select(names, repeats) == [name for name in names if is_meant(name)]


def test_minus_one_selects_nothing_where_nothing_is_repeated() -> None:
    assert Pattern("head.-1").select(["head.0", "head.fc"], {}) == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "a.",
        ".a",
        "a..b",
        "-0",
        "a.-0",
        "-01",
        "--1",
        "stage[12]",
        "a b",
        "a|b",
        "(",
        "(a",
        "a)",
        "()",
        "(a|)",
        "(a-b)",
        "(3-1)",
        "(1-)",
        "((a))",
        "(a.b)",
        "a$",
        "^a",
        "a+",
        "\\d",
        "a?",
        "ä",
        "(1-99999)",
        "a:b",
        "-1x",
        "a\n",
    ],
)
def test_a_malformed_pattern_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="pattern"):
        Pattern(text)


def test_a_pattern_of_ten_thousand_characters_is_refused() -> None:
    for text in ("*" * 10_000, "a" * 10_000, "." * 10_000, "(" * 10_000, "(1|2)" * 2_000):
        with pytest.raises(ValueError, match=f"at most {LONGEST} characters, this one 10000"):
            Pattern(text)


@pytest.mark.parametrize(
    "text", ["_" + "(0-99)" * 24 + "x", "*1" * 90 + "x", "(1|11|111)" * 19 + "x", "*" * LONGEST + "x"]
)
def test_no_pattern_takes_long(text: str) -> None:
    # A matcher that backtracks needs minutes for the first of these names.
    text = text[-LONGEST:]
    assert Pattern(text).select(["_" + "1" * 63, "1" * 64] * 50, {}) == []


def test_a_pattern_can_be_pickled() -> None:
    pattern = pickle.loads(pickle.dumps(Pattern("stage(1|3).*.conv*")))
    assert pattern == Pattern("stage(1|3).*.conv*")
    assert len(pattern.select(NAMES, REPEATS)) == 12


def test_the_nearest_names_are_of_the_same_depth_where_there_are_some() -> None:
    known = ["stem", "stage1", "stage2", "stage3", "stage1.0", "stage1.0.conv1"]
    assert nearest("stages*", known) == "stage1, stage2, stage3"
    assert nearest("stage1.0.cnov1", known) == "stage1.0.conv1"
    assert nearest("zzz", ["input", "a"]) == "input, a"


@pytest.mark.parametrize("name", ["a", "_a", "stage1", "conv2d", "A9_", "a" * 64])
def test_a_name_is_letters_digits_and_underscores(name: str) -> None:
    assert name_problem(name) is None


@pytest.mark.parametrize(
    "name",
    ["", "1a", "a.b", "a-b", "a b", "a" * 65, "ä", "a\n", "for", "class", "None", "input", "output", "$a", "a:b"],
)
def test_what_cannot_be_a_module_is_no_name(name: str) -> None:
    assert name_problem(name) is not None
