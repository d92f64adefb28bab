"""The points of a grid: which dimensions are active, how many points there are, what a few points cover."""

from __future__ import annotations

import math
from itertools import product
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ablate import yamlfile
from ablate.errors import Place, UserError
from ablate.space import Dimension, Grid, Numbers, Part, Point, Span, grid_on
from ablate.space.distributions import Option
from ablate.space.grammar import Space, read_space
from ablate.space.grid import Condition
from ablate.spec import Spec, apply, load
from tests.conftest import REPOSITORY


def placed(count: int, *conditions: tuple[int, set[int], bool], at: int, **more: Any) -> Dimension:

    about = tuple(Condition(f"p{other}", frozenset(options), inactive) for other, options, inactive in conditions)
    options = tuple(Option(str(i), i) for i in range(count))
    return Dimension(f"p{at}", options, Place("space.yaml", 1, 1), about, **more)


def grid_of(*dimensions: Dimension) -> Grid:
    return Grid(dimensions, (), {each.path: index for index, each in enumerate(dimensions)})


@st.composite
def grids(draw: st.DrawFn) -> Grid:
    """Up to five dimensions of one to three options; each with conditions on any of those before it."""
    dimensions: list[Dimension] = []
    for index in range(draw(st.integers(1, 5))):
        others = draw(st.lists(st.integers(0, index - 1), max_size=2, unique=True)) if index else []
        conditions = [(other, draw(st.sets(st.integers(0, 2))), draw(st.booleans())) for other in others]
        dimensions.append(placed(draw(st.integers(1, 3)), *conditions, at=index))
    return grid_of(*dimensions)


def by_hand(grid: Grid) -> set[Point]:
    """All combinations, what is inactive struck out: with the definition and nothing else."""
    found = set()
    for combination in product(*(range(len(each.options)) for each in grid.dimensions)):
        point: list[int | None] = []
        for dimension, option in zip(grid.dimensions, combination, strict=True):
            others = [(point[int(c.path[1:])], c) for c in dimension.conditions]
            met = all(c.if_inactive if other is None else other in c.options for other, c in others)
            point.append(option if met else None)
        found.add(tuple(point))
    return found


@given(grids())
@settings(max_examples=60)
def test_points_their_count_and_what_never_varies_are_those_of_all_combinations(grid: Grid) -> None:
    expected = by_hand(grid)
    found = list(grid)
    assert (set(found), len(found), grid.count) == (expected, len(expected), len(expected))
    idle = [each.path for i, each in enumerate(grid.dimensions) if all(point[i] is None for point in expected)]
    assert [each.path for each in grid.never_active()] == idle


@given(grids(), st.integers(0, 9))
@settings(max_examples=60)
def test_covering_points_are_points_that_have_every_option_that_any_has(grid: Grid, seed: int) -> None:
    expected = by_hand(grid)
    found = list(grid.covering(Random(seed)))
    assert set(found) <= expected
    assert {(i, o) for point in found for i, o in enumerate(point)} >= {
        (i, o) for point in expected for i, o in enumerate(point) if o is not None
    }
    assert len(found) <= sum(len(each.options) for each in grid.dimensions)
    assert found == list(grid.covering(Random(seed)))


@given(grids(), st.integers(0, 9))
@settings(max_examples=40)
def test_a_point_that_is_to_have_a_value_has_it(grid: Grid, seed: int) -> None:
    expected = by_hand(grid)
    for index, dimension in enumerate(grid.dimensions):
        found = grid.having(index, len(dimension.options) - 1, Random(seed))
        wanted = [point for point in expected if point[index] == len(dimension.options) - 1]
        assert found in wanted if wanted else found is None


def test_only_what_is_active_is_asked_for_and_in_order() -> None:
    grid = grid_of(placed(2, at=0), placed(3, (0, {1}, False), at=1), placed(2, (1, {2}, True), at=2))
    asked: list[str] = []

    def choose(options: dict[str, int]) -> Point:
        asked.clear()
        return grid.settled(lambda each: asked.append(each.path) or options[each.path])  # type: ignore[func-returns-value]

    assert choose({"p0": 0, "p2": 1}) == (0, None, 1)
    assert asked == ["p0", "p2"]
    assert choose({"p0": 1, "p1": 0}) == (1, 0, None)
    assert choose({"p0": 1, "p1": 2, "p2": 0}) == (1, 2, 0)
    assert grid.labels((1, 2, 0)) == {"p0": "1", "p1": "2", "p2": "0"}
    assert grid.values((0, None, 1)) == {"p0": 0, "p2": 1}


def test_fifty_sites_that_one_switch_turns_off_are_counted_without_listing_them() -> None:
    """Each: off, or one of two blocks, of which the second has three reductions: 1 + 1 + 3."""
    switch = placed(2, at=0)
    sites = [placed(3, (0, {1}, False), at=1 + index) for index in range(50)]
    reductions = [placed(3, (1 + index, {2}, False), (0, {1}, False), at=51 + index) for index in range(50)]
    assert grid_of(switch, *sites, *reductions).count == 1 + 5**50


def test_a_span_is_drawn_within_its_ends_and_evenly_as_it_says() -> None:
    span = placed(0, at=0, span=Span(1e-4, 1.0, log=True))
    flat = placed(0, at=1, span=Span(-1.0, 3.0, log=False))
    grid = grid_of(span, flat)
    assert grid.count is None
    found = list(grid.covering(Random(0)))
    assert found == [(1e-4, -1.0), (1.0, 3.0)]
    random = Random(0)
    drawn = [grid.settled(lambda each: each.drawn(random)) for _ in range(2_000)]
    assert sum(math.log10(point[0] or 1) for point in drawn) / len(drawn) == pytest.approx(-2, abs=0.1)
    assert sum(point[1] or 0 for point in drawn) / len(drawn) == pytest.approx(1, abs=0.1)
    assert all(1e-4 <= (point[0] or 0) <= 1 and -1 <= (point[1] or 0) <= 3 for point in drawn)
    assert span.assignment(0.03).value == 0.03
    assert span.option(0.03).label == "0.03"


# ---- on a spec ----


@pytest.fixture(scope="module")
def spec() -> Spec:
    return load(REPOSITORY / "specs" / "placement.yaml")


def space(text: str) -> Space:
    return read_space(yamlfile.loads(f"space:\n{text}", "space.yaml"), "space.yaml")


def test_what_is_trained_varies_only_where_it_is_trained(spec: Spec) -> None:
    varied = space("  train.optimizer.lr: {float: [0.001, 0.5], log: true}\n  network.params.k: {int: [1, 3]}")
    grid = grid_on(varied, spec, trained=True)
    assert ([each.path for each in grid.dimensions], grid.left_out) == (["train.optimizer.lr", "network.params.k"], ())
    assert grid.dimensions[0].span == Span(0.001, 0.5, log=True)
    static = grid_on(varied, spec)
    assert ([each.path for each in static.dimensions], static.left_out) == (
        ["network.params.k"],
        ("train.optimizer.lr",),
    )


def test_a_range_without_end_is_an_error_only_where_points_are_listed(spec: Spec) -> None:
    varied = space("  network.graph.stem.kernel: {float: [1, 3]}")
    with pytest.raises(UserError, match="a range without steps has no end of values"):
        grid_on(varied, spec)
    assert grid_on(varied, spec, spans=True).count is None


def test_numbers_say_which_option_is_which_number(spec: Spec) -> None:
    text = "  train.epochs: {int: [3, 11], step: 4}\n  train.optimizer.momentum: {float: [0.1, 0.7], step: 0.2}"
    whole, stepped = grid_on(space(text), spec, trained=True).dimensions
    assert whole.numbers == Numbers(3, 11, 4, whole=True, log=False)
    assert stepped.numbers == Numbers(0.1, 0.7, 0.2, whole=False, log=False)
    for dimension in (whole, stepped):
        assert dimension.numbers is not None
        low, step = dimension.numbers.low, dimension.numbers.step
        assert [option.value for option in dimension.options] == pytest.approx(
            [low + i * step for i in (0, 1, 2, 3)][: len(dimension.options)]
        )


def test_the_parts_of_a_text_count_its_options_as_digits_do(spec: Spec) -> None:
    text = """\
  network.insert.attention.at:
    text: after stage$stages.$block
    with: {stages: {subset: [1, 2]}, block: {int: [0, 2]}}
"""
    (dimension,) = grid_on(space(text), spec).dimensions
    assert dimension.parts == (Part("stages", ("1", "2", "1, 2")), Part("block", ("0", "1", "2")))
    assert dimension.options[2 * 3 + 1].value == "after stage(1|2).1"


def test_labels_are_told_apart_where_their_short_form_is_one(spec: Spec) -> None:
    at = "block: se, at: after stem"
    text = f"  network.insert.attention: {{choice: [{{{at}, reduction: 8}}, {{{at}, reduction: '8'}}]}}"
    (dimension,) = grid_on(space(text), spec).dimensions
    first, second = (option.label for option in dimension.options)
    assert first != second
    assert '"8"' in second


def test_null_leaves_what_is_not_there_and_removes_what_is(spec: Spec) -> None:

    text = """\
  network.insert.attention: {choice: [null]}
  network.insert.other: {choice: [null, {block: se, at: after stem}]}
"""
    grid = grid_on(space(text), spec)
    found = [set(apply(spec, grid.assignments(point)).tree["network"]["insert"]) for point in grid]
    assert found == [set(), {"other"}]


def test_below_what_neither_spec_nor_point_has_nothing_varies(spec: Spec) -> None:
    """The insertion is there for one block of the stem alone: elsewhere there is no reduction to set."""
    text = """\
  network.graph.stem.kernel: {choice: [3, 5]}
  network.insert.other: {choice: [{block: se, at: after stem}], when: {network.graph.stem.kernel: 5}}
  network.insert.other.reduction: {choice: [2, 4]}
"""
    grid = grid_on(space(text), spec)
    assert list(grid) == [(0, None, None), (1, 0, 0), (1, 0, 1)]
