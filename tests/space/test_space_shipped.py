"""The spaces that come with the package, on the specs that they name: their size, and that their ends are networks."""

from __future__ import annotations

from random import Random

import pytest

from ablate.costing import cost_of
from ablate.design import Variant, variant_at
from ablate.space import Grid, Point, grid_on, load_space
from ablate.space.trying import check_points, level_of
from ablate.spec import Spec, load
from tests.conftest import REPOSITORY

FOLDER = REPOSITORY / "search_spaces"
ON_PLACEMENT = ("attention", "placement_per_block", "resnet_shape", "training")


@pytest.fixture(scope="module")
def spec() -> Spec:
    return load(REPOSITORY / "specs" / "placement.yaml")


def grid_of(name: str, spec: Spec) -> Grid:
    return grid_on(load_space(FOLDER / f"{name}.yaml"), spec, trained=True)


def built(grid: Grid, point: Point, spec: Spec) -> Variant:
    chosen = [(each, value) for each, value in zip(grid.dimensions, point, strict=True) if value is not None]
    return variant_at(spec, "point", [level_of(dimension.assignment(value)) for dimension, value in chosen])


def test_each_is_named_here() -> None:
    assert {path.stem for path in FOLDER.glob("*.yaml")} == {*ON_PLACEMENT, "aicnn_table5"}


@pytest.mark.parametrize("name", ON_PLACEMENT)
def test_its_values_are_taken_and_every_path_acts(name: str, spec: Spec) -> None:
    check_points(grid_of(name, spec), spec)


@pytest.mark.parametrize(
    ("name", "count"),
    [("attention", None), ("placement_per_block", 4**9), ("resnet_shape", 5**3 * 3 * 5 * 5), ("training", None)],
)
def test_so_many_points(name: str, count: int | None, spec: Spec) -> None:
    assert grid_of(name, spec).count == count


def test_without_attention_it_is_the_plain_resnet(spec: Spec) -> None:
    """269,434 parameters for one channel, wherever attention is chosen away."""
    for name in ("attention", "placement_per_block"):
        grid = grid_of(name, spec)
        point = grid.settled(lambda each: each.ends[0])
        assert cost_of(built(grid, point, spec).network.graph).params == 269_434


def test_of_nine_blocks_each_can_have_its_own(spec: Spec) -> None:
    grid = grid_of("placement_per_block", spec)
    point = (0, 1, 2, 3, 0, 1, 2, 3, 0, 1)
    nodes = built(grid, point, spec).network.graph.nodes
    made = {node.insertion for node in nodes if node.insertion}
    assert made == {f"attention_stage{1 + i // 3}_{i % 3}" for i in range(9) if point[1 + i]}


def test_every_shape_can_be_built_the_largest_too(spec: Spec) -> None:
    grid = grid_of("resnet_shape", spec)
    random = Random(0)
    points = [
        grid.settled(lambda each: each.ends[-1]),
        *(grid.settled(lambda each: each.drawn(random)) for _ in "12345"),
    ]
    shapes = [cost_of(built(grid, point, spec).network.graph).params for point in points]
    assert shapes[0] == max(shapes) > 5 * 269_434


def test_a_recipe_changes_nothing_of_the_network(spec: Spec) -> None:
    grid = grid_of("training", spec)
    assert all(each.path.startswith(("train.", "data.")) for each in grid.dimensions)
    graphs = {built(grid, point, spec).network.graph.fingerprint for point in grid.covering(Random(1))}
    assert len(graphs) == 1
