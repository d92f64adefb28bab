"""Search spaces: what each distribution's values are, and the points that paths and conditions span on a spec."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ablate import yamlfile
from ablate.errors import UserError
from ablate.schema import space_schema, space_schema_text
from ablate.space import Grid, grid_on, load_space
from ablate.space.grammar import Space, read_space
from ablate.spec import Spec, load
from tests.conftest import REPOSITORY

SHIPPED = sorted((REPOSITORY / "search_spaces").glob("*.yaml"))
NETWORK = """\
name: network
data: {name: fake, shape: [3, 11, 13], classes: 5, count: {train: 10, test: 10}}
network:
  params: {k: 1}
  graph:
    stem:   {block: conv_bn_act, width: 8*$k, kernel: 3}
    stage1: {block: basic, width: 8*$k, repeat: 2}
    head:   {block: classifier}
  insert:
    gate: {block: se, reduction: 4, at: after stage1.*}
profiles:
  wide: {network.graph.stem.kernel: 5}
"""


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> Spec:
    return spec_of(tmp_path_factory.mktemp("specs"))


def spec_of(folder: Path, **options: Any) -> Spec:
    path = folder / "network.yaml"
    path.write_text(NETWORK)
    return load(path, **options)


def space(text: str) -> Space:
    return read_space(yamlfile.loads(f"space:\n{text}", "space.yaml"), "space.yaml")


def values(distribution: str) -> list[Any]:
    """The values of one path with this distribution."""
    read = space(f"  network.graph.stem.kernel: {distribution}").distributions["network.graph.stem.kernel"]
    options = [option.value for option in read.options()]
    assert len(options) == read.count
    return options


def points(grid: Grid) -> list[dict[str, Any]]:
    """Each point as path → value."""
    return [{".".join(a.path): a.value for a in grid.assignments(point)} for point in grid]


# ---- distributions ----


def test_a_choice_is_any_value_and_null_is_one() -> None:
    assert values("{choice: [3, text, null, {block: se}, 0.5]}") == [3, "text", None, {"block": "se"}, 0.5]


def test_a_range_has_both_its_bounds() -> None:
    assert values("{int: [3, 7]}") == [3, 4, 5, 6, 7]
    assert values("{int: [3, 11], step: 4}") == [3, 7, 11]
    assert values("{int: [5, 5]}") == [5]
    assert values("{int: [1, 4], log: true}") == [1, 2, 3, 4]


def test_steps_of_a_tenth_are_the_numbers_that_one_would_write() -> None:
    """Added up in binary, the third would be 0.30000000000000004."""
    assert values("{float: [0.1, 0.7], step: 0.1}") == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]
    assert values("{float: [-1, 1], step: 1}") == [-1.0, 0.0, 1.0]


def test_steps_that_nobody_could_count_are_a_problem_and_no_traceback() -> None:
    with pytest.raises(UserError, match="too many to tell apart"):
        values("{float: [1.0e-300, 1.0e+300], step: 1.0e-300}")


def test_a_range_without_steps_has_no_count() -> None:
    read = space("  network.params.k: {float: [0.5, 2], log: true}").distributions["network.params.k"]
    assert read.count is None


def test_a_subset_keeps_the_order_and_the_smaller_come_first() -> None:
    assert values("{subset: [c, a, b]}") == [["c"], ["a"], ["b"], ["c", "a"], ["c", "b"], ["a", "b"], ["c", "a", "b"]]
    assert values("{subset: [c, a, b], at_least: 2, at_most: 2}") == [["c", "a"], ["c", "b"], ["a", "b"]]
    assert values("{subset: [c, a], at_least: 0, at_most: 1}") == [[], ["c"], ["a"]]


@given(st.integers(1, 7), st.integers(0, 7), st.integers(0, 7))
def test_subsets_are_those_of_a_binary_count(size: int, at_least: int, at_most: int) -> None:
    """Compared with a walk over all numbers of ``size`` bits."""
    by_bits = {tuple(i for i in range(size) if number >> i & 1) for number in range(2**size)}
    expected = {each for each in by_bits if at_least <= len(each) <= at_most}
    text = f"{{subset: {list(range(size))}, at_least: {at_least}, at_most: {at_most}}}"
    if at_least > min(at_most, size):
        with pytest.raises(UserError, match="no subset has"):
            values(text)
    else:
        found = values(text)
        assert len(found) == len(expected)
        assert {tuple(each) for each in found} == expected


def test_a_text_joins_what_a_subset_takes_as_a_pattern_does() -> None:
    found = values("{text: 'before stage$n.*.conv${c}_x', with: {n: {subset: [1, 4]}, c: {int: [2, 3]}}}")
    assert found == [
        "before stage1.*.conv2_x",
        "before stage1.*.conv3_x",
        "before stage4.*.conv2_x",
        "before stage4.*.conv3_x",
        "before stage(1|4).*.conv2_x",
        "before stage(1|4).*.conv3_x",
    ]


# ---- points ----


def test_a_condition_leaves_a_path_as_written_where_it_does_not_hold(spec: Spec) -> None:
    grid = grid_on(
        space("""\
  network.insert.gate.reduction: {choice: [2, 4], when: {network.insert.gate.block: [se, cbam]}}
  network.insert.gate.block: {choice: [se, simam, cbam]}
"""),
        spec,
    )
    block, reduction = "network.insert.gate.block", "network.insert.gate.reduction"
    assert points(grid) == [
        {block: "se", reduction: 2},
        {block: "se", reduction: 4},
        {block: "simam"},
        {block: "cbam", reduction: 2},
        {block: "cbam", reduction: 4},
    ]
    assert grid.count == 5


def test_a_condition_on_an_inactive_path_does_not_hold(spec: Spec) -> None:
    grid = grid_on(
        space("""\
  network.insert.gate.block: {choice: [se, simam]}
  network.insert.gate.reduction: {choice: [2, 4], when: {network.insert.gate.block: se}}
  network.insert.gate.min_hidden: {choice: [1, 3], when: {network.insert.gate.reduction: [2, 4]}}
"""),
        spec,
    )
    assert grid.count == len(points(grid)) == 2 * 2 + 1


def test_a_condition_below_a_path_that_varies_is_about_the_point_and_not_about_the_spec(spec: Spec) -> None:
    """The spec's own gate is an ``se``: where another stands in its place, there is none whose reduction could vary."""
    grid = grid_on(
        space("""\
  network.insert.gate: {choice: [null, {block: se, at: after stem}, {block: simam, at: after stem}]}
  network.insert.gate.reduction: {choice: [2, 4], when: {network.insert.gate.block: se}}
"""),
        spec,
    )
    found = [(each["network.insert.gate"], each.get("network.insert.gate.reduction")) for each in points(grid)]
    assert [(gate and gate["block"], reduction) for gate, reduction in found] == [
        (None, None),
        ("se", 2),
        ("se", 4),
        ("simam", None),
    ]


def test_a_condition_that_no_value_of_the_path_above_can_fulfil_is_an_error(spec: Spec) -> None:
    text = """\
  network.insert.gate: {choice: [{block: simam, at: after stem}, {block: cbam, at: after stem}]}
  network.graph.stem.kernel: {choice: [3, 5], when: {network.insert.gate.block: eca}}
"""
    with pytest.raises(UserError, match=r"eca' is what no value of 'network\.insert\.gate' in this space has there"):
        grid_on(space(text), spec)


@pytest.mark.parametrize(
    ("about", "hint"),
    [
        ("train.schedule.name", "state it in the spec, or let it vary"),
        ("train.schedule", "state it in the spec, or let it vary"),
        ("train.schedule.warmpu", "did you mean 'warmup'?"),
        ("train.scedule.name", "did you mean 'schedule'?"),
        ("network.graph.stem.kernl", "did you mean 'kernel'?"),
    ],
)
def test_a_condition_on_what_is_nowhere_names_what_is_near_to_the_part_that_is_missing(
    about: str, hint: str, spec: Spec
) -> None:
    text = f"""\
  train.schedule.warmup: {{choice: [1, 2]}}
  network.params.k: {{choice: [1, 2], when: {{{about}: 1}}}}
"""
    with pytest.raises(UserError) as refused:
        grid_on(space(text), spec, trained=True)
    (problem,) = refused.value.problems
    assert (problem.message, problem.hint) == ("neither varies nor stands in the spec", hint)


def test_nothing_varies_below_what_null_removes(spec: Spec) -> None:
    grid = grid_on(
        space("""\
  network.insert.gate.reduction: {int: [1, 5]}
  network.insert.gate: {choice: [null, {block: se, at: after stem}]}
"""),
        spec,
    )
    assert points(grid)[0] == {"network.insert.gate": None}
    assert grid.count == len(points(grid)) == 1 + 5


def test_a_condition_on_what_the_spec_says_is_settled_beforehand(spec: Spec) -> None:
    text = "  network.insert.gate.reduction: {choice: [2, 4], when: {network.graph.stem.kernel: 3}}"
    assert grid_on(space(text), spec).count == 2


def test_a_condition_sees_the_profile(tmp_path: Path) -> None:
    text = "  network.insert.gate.reduction: {choice: [2, 4], when: {network.graph.stem.kernel: 5}}"
    assert grid_on(space(text), spec_of(tmp_path, profile="wide")).count == 2
    with pytest.raises(UserError, match="never holds: the spec says 3"):
        grid_on(space(text), spec_of(tmp_path))


def test_what_no_cost_depends_on_is_left_as_it_is_unless_a_condition_needs_it(spec: Spec) -> None:
    text = """\
  train.epochs: {int: [1, 1000]}
  train.optimizer.name: {choice: [sgd, adam]}
  network.init.recipe: {choice: [kaiming_fan_in, kaiming_fan_out]}
  network.insert.gate.reduction: {choice: [2, 4], when: {train.optimizer.name: adam}}
"""
    grid = grid_on(space(text), spec)
    assert grid.left_out == ("train.epochs", "network.init.recipe")
    assert grid.count == 1 + 2


CONDITIONAL = st.lists(
    st.tuples(st.integers(1, 4), st.lists(st.tuples(st.integers(0, 3), st.sets(st.integers(0, 3), min_size=1)))),
    min_size=1,
    max_size=4,
)


@given(CONDITIONAL)
def test_points_are_the_whole_product_without_what_is_not_active(spec: Spec, drawn: Any) -> None:
    """Of random conditions on earlier paths, against all combinations, in which what is inactive is struck out."""
    paths = [f"network.params.p{i}" for i in range(len(drawn))]
    sizes = [size for size, _ in drawn]
    conditions: list[dict[int, set[int]]] = []
    lines = []
    for index, (size, wanted) in enumerate(drawn):
        about = {other: values & set(range(sizes[other])) for other, values in wanted if other < index}
        conditions.append({other: values for other, values in about.items() if values})
        when = ", ".join(f"{paths[other]}: {sorted(values)}" for other, values in conditions[-1].items())
        lines.append(f"  {paths[index]}: {{choice: {list(range(size))}{f', when: {{{when}}}' if when else ''}}}")
    expected = set()
    for combination in product(*(range(size) for size in sizes)):
        point: list[int | None] = []
        for index, value in enumerate(combination):
            holds = all(point[other] in values for other, values in conditions[index].items())
            point.append(value if holds else None)
        expected.add(tuple(point))
    if any(all(point[index] is None for point in expected) for index in range(len(paths))):
        with pytest.raises(UserError, match="it never varies"):
            grid_on(space("\n".join(lines)), spec)
        return
    grid = grid_on(space("\n".join(lines)), spec)
    order = [grid.position[path] for path in paths]
    found = [tuple(point[index] for index in order) for point in grid]
    assert len(found) == len(set(found)) == grid.count
    assert set(found) == expected


def test_points_that_nobody_could_list_are_counted(spec: Spec) -> None:
    text = "\n".join(f"  network.params.p{i}: {{int: [1, 1000]}}" for i in range(12))
    assert grid_on(space(text), spec).count == 10**36


# ---- the schema for editors ----

VALIDATOR = jsonschema.Draft202012Validator(space_schema())


def test_the_schema_is_shipped_as_it_is_made() -> None:
    """To write it anew: ``ablate schema --space -o ablate/space.schema.json``."""
    assert (REPOSITORY / "ablate" / "space.schema.json").read_text(encoding="utf-8") == space_schema_text()


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_space_is_sound(path: Path) -> None:
    assert load_space(path).distributions
    assert list(VALIDATOR.iter_errors(yamlfile.load(path))) == []


@pytest.mark.parametrize(
    "name", ["misspelt_keys", "no_distribution", "not_of_a_space", "no_mapping", "bounds", "searching"]
)
def test_an_editor_sees_what_the_file_alone_shows(name: str) -> None:
    tree = yamlfile.load(REPOSITORY / "tests" / "wrong_spaces" / f"{name}.yaml")
    assert list(VALIDATOR.iter_errors(tree))


@given(
    st.dictionaries(
        st.sampled_from(
            ["choice", "subset", "int", "float", "text", "with", "step", "log", "at_least", "when", "each"]
        ),
        st.sampled_from([[1, 2], [3], [], {}, "a$n", 1, 0.5, True, {"n": {"choice": [1]}}, {"train.epochs": 1}]),
        max_size=3,
    )
)
def test_the_schema_refuses_nothing_that_the_tool_takes(distribution: dict[str, Any]) -> None:
    tree = {"space": {"network.graph.stem.kernel": distribution}}
    try:
        read_space(yamlfile.loads(yamlfile.dump(tree), "space.yaml"), "space.yaml")
    except UserError:
        return
    assert list(VALIDATOR.iter_errors(tree)) == []


def test_a_mapping_is_called_by_its_block_where_no_other_is() -> None:
    text = "{choice: [null, {block: se, reduction: 8}, {block: cbam}, {block: cbam, reduction: 4}, {name: adamw}]}"
    distribution = space(f"  network.insert.gate: {text}\n").distributions["network.insert.gate"]
    labels = [option.label for option in distribution.options()]
    assert labels == ["null", "se", "{block: cbam}", "{block: cbam, reduction: 4}", "adamw"]
