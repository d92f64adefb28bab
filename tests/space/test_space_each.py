"""``each``: a path for every name of the network that a pattern matches."""

from __future__ import annotations

from typing import Any

import pytest

from ablate import yamlfile
from ablate.design import variant_at
from ablate.errors import UserError
from ablate.space import Grid, grid_on
from ablate.space.each import path_for, written_network
from ablate.space.grammar import read_space
from ablate.space.trying import level_of
from ablate.spec import Spec, load
from tests.conftest import REPOSITORY

BLOCKS = [f"stage{stage}.{block}" for stage in (1, 2, 3) for block in (0, 1, 2)]


@pytest.fixture(scope="module")
def spec() -> Spec:
    return load(REPOSITORY / "specs" / "placement.yaml")


def grid(text: str, spec: Spec) -> Grid:
    return grid_on(read_space(yamlfile.loads(f"space:\n{text}", "space.yaml"), "space.yaml"), spec)


def values(found: Grid) -> dict[str, list[Any]]:
    return {each.path: [option.value for option in each.options] for each in found.dimensions}


def test_every_block_has_its_own_choice_at_its_own_place(spec: Spec) -> None:
    found = grid("  network.insert.own_$each: {each: stage*.*, choice: [null, {block: se, at: [after $each]}]}", spec)
    assert values(found) == {
        f"network.insert.own_{name.replace('.', '_')}": [None, {"block": "se", "at": [f"after {name}"]}]
        for name in BLOCKS
    }
    assert found.count == 2**9


def test_a_point_is_the_network_with_what_was_chosen_for_each_block(spec: Spec) -> None:
    """Built, and held against the graph: an SE after the blocks that chose one, and after no other."""
    found = grid(
        """\
  network.insert.attention: {choice: [null]}
  network.insert.own_$each: {each: 'stage(1|3).*', choice: [null, {block: se, at: after $each}]}
""",
        spec,
    )
    point = (0, 1, 0, 0, 0, 0, 1)
    levels = [level_of(dimension.assignment(chosen)) for dimension, chosen in zip(found.dimensions, point, strict=True)]
    graph = variant_at(spec, "point", levels).network.graph
    assert {node.insertion for node in graph.nodes if node.insertion} == {"own_stage1_0", "own_stage3_2"}
    read = {node.insertion: node.inputs for node in graph.nodes if node.insertion and node.name.endswith("stage3.2")}
    assert all(str(source).startswith("stage3.2") for inputs in read.values() for source in inputs[:1])


def test_a_whole_part_of_a_path_is_the_name_of_a_node(spec: Spec) -> None:
    found = grid("  network.graph.$each.repeat: {each: stage*, int: [1, 5]}", spec)
    assert values(found) == {f"network.graph.stage{stage}.repeat": [1, 2, 3, 4, 5] for stage in (1, 2, 3)}


def test_in_a_pattern_of_set_the_name_keeps_its_dots(spec: Spec) -> None:
    found = grid("  network.set.$each.conv2.kernel: {each: stage1.*, choice: [1, 3]}", spec)
    assert [each.path for each in found.dimensions] == [f"network.set.stage1.{i}.conv2.kernel" for i in range(3)]
    levels = [level_of(dimension.assignment(int(index == 0))) for index, dimension in enumerate(found.dimensions)]
    graph = variant_at(spec, "point", levels).network.graph
    assert [graph.by_name[f"stage1.{i}.conv2"].params.model_dump()["kernel"] for i in range(3)] == [3, 1, 1]


def test_conditions_are_on_the_same_name(spec: Spec) -> None:
    found = grid(
        """\
  network.insert.own_$each:
    each: stage1.*
    choice: [null, {block: se, at: after $each}, {block: simam, at: after $each}]
  network.insert.own_$each.reduction: {each: stage1.*, choice: [2, 4], when: {network.insert.own_$each.block: se}}
""",
        spec,
    )
    assert found.count == (1 + 2 + 1) ** 3
    for point in found:
        labels = found.labels(point)
        for name in ("stage1_0", "stage1_1", "stage1_2"):
            has = labels[f"network.insert.own_{name}"] == "se"
            assert (f"network.insert.own_{name}.reduction" in labels) is has


def test_a_text_has_the_name_beside_its_parts(spec: Spec) -> None:
    found = grid("  network.params.a_$each: {each: stage*, text: $each-$n, with: {n: {choice: [x, $each]}}}", spec)
    assert values(found)["network.params.a_stage2"] == ["stage2-x", "stage2-stage2"]


def test_names_are_those_of_the_network_without_its_insertions(spec: Spec) -> None:
    assert any("attention" in name for name in variant_at(spec, "whole", []).network.graph.places)
    assert not any("attention" in name for name in written_network(spec).places)


@pytest.mark.parametrize(
    ("written", "name", "path"),
    [
        ("network.insert.a_$each", "stage1.0", "network.insert.a_stage1_0"),
        ("network.insert.a_${each}b", "stage1.0", "network.insert.a_stage1_0b"),
        ("network.insert.a_$each.$each", "stem", "network.insert.a_stem.stem"),
        ("network.init.set.$each.conv1", "stage1.0", "network.init.set.stage1.0.conv1"),
    ],
)
def test_the_path_for_a_name(written: str, name: str, path: str) -> None:
    assert path_for(written, name) == path


def test_a_name_with_a_dot_is_no_part_of_a_path() -> None:
    with pytest.raises(ValueError, match=r"'stage1\.0' has a dot"):
        path_for("network.graph.$each.width", "stage1.0")


def test_two_names_that_make_one_path_are_an_error(spec: Spec) -> None:
    text = """\
  network.insert.own_$each: {each: stage*, choice: [{block: se, at: after $each}]}
  network.insert.own_stage2: {choice: [null]}
"""
    with pytest.raises(UserError, match=r"own_\$each' varies 'network\.insert\.own_stage2' too"):
        grid(text, spec)


def test_values_that_become_one_for_a_name_are_an_error(spec: Spec) -> None:
    with pytest.raises(UserError, match="after stage1 is given twice for"):
        grid("  network.params.at_$each: {each: stage1, choice: [after $each, after stage1]}", spec)


def test_a_pattern_that_matches_nothing_hides_no_mistake_of_another_path(spec: Spec) -> None:
    """What a path leads through that the pattern would have made, or has as its condition, is not called missing."""
    text = """\
  network.insert.own_$each: {each: stages9.*, choice: [null, {block: se, at: after $each}]}
  network.graph.stem.kernel: {float: [1, 3]}
  network.insert.own_stage1_0.reduction: {choice: [2, 4]}
  network.graph.stem.width: {choice: [8, 16], when: {network.insert.own_stage1_0.block: se}}
"""
    with pytest.raises(UserError) as refused:
        grid(text, spec)
    assert [problem.path for problem in refused.value.problems] == [
        "space.network.insert.own_$each.each",
        "space.network.graph.stem.kernel",
    ]
