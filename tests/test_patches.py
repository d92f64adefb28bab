"""What assignments make of a spec's tree, against another model of it: a flat table of leaves by path."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ablate import yamlfile
from ablate.design import study_plan
from ablate.errors import Place, UserError
from ablate.spec import Assignment, load, split_path
from ablate.spec.assignments import Spec, apply
from tests.fuzzing import SMALL

TREE = SMALL.partition("ablation:")[0] + "  set: {stage1.*.conv1: {kernel: 5}}\n"
VALUES: dict[str, list[Any]] = {
    "train.epochs": [2, 3],
    "train.optimizer.lr": [0.2, 0.3],
    "train.optimizer": [{"name": "adamw"}, {"name": "sgd", "lr": 0.5, "momentum": 0.9}],
    "data.shape": [[3, 8, 8], [1, 4, 4]],
    "network.params.k": [2, "$k"],
    "network.graph.stem.width": [8, "2*$k"],
    "network.graph.stage1": [{"block": "basic", "width": 6}, None],
    "network.graph.stage1.repeat": [1, 3],
    "network.insert.attention": [{"block": "eca", "at": "after stem"}, None],
    "network.insert.attention.at": ["after stem", ["after stem", "before head"]],
    "network.insert.attention.reduction": [4, 8],
    "network.insert.more": [{"block": "spatial_gate", "kernel": 3, "at": "after stem"}],
    "network.set.stage1.*.conv1.kernel": [1, 7],
    "network.set.stem.conv.bias": [True],
    "network.defaults.conv.bias": [True, False],
}
"""Path → what may be put there; None removes."""

Leaves = dict[tuple[str, ...], str]
Patch = dict[str, Any]


def leaves(value: Any, path: tuple[str, ...] = ()) -> Leaves:
    """Path → JSON of what is no mapping, or of an empty one."""
    if isinstance(value, dict) and value:
        return {at: leaf for key, item in value.items() for at, leaf in leaves(item, (*path, key)).items()}
    return {path: json.dumps(value)}


def below(path: tuple[str, ...], scope: tuple[str, ...]) -> bool:
    return path[: len(scope)] == scope


def keys(path: str) -> tuple[str, ...]:
    """As the language has it: of ``network.set`` the pattern is one key, and the parameter another."""
    if path.startswith("network.set."):
        pattern, _, parameter = path.removeprefix("network.set.").rpartition(".")
        return ("network", "set", pattern, parameter)
    return tuple(path.split("."))


def expected(tree: Any, *phases: Patch) -> Leaves:
    """Shorter paths first, phase by phase; below what a phase removed nothing is set until it is there again."""
    table = leaves(tree)
    gone: set[tuple[str, ...]] = set()
    for phase in phases:
        for text in sorted(phase, key=lambda text: len(keys(text))):
            path, value = keys(text), phase[text]
            if any(below(path, each) and (path != each or value is None) for each in gone):
                continue
            gone = {each for each in gone if not below(each, path)}
            kept = {at: leaf for at, leaf in table.items() if not below(at, path)}
            if value is None:
                gone.add(path)
                parent = path[:-1]
                if not any(below(at, parent) for at in kept):
                    kept[parent] = "{}"
            else:
                kept = {at: leaf for at, leaf in kept.items() if not below(path, at)}  # an empty mapping above it
                kept |= leaves(value, path)
            table = kept
    return table


def spec() -> Spec:
    return Spec(yamlfile.loads(TREE, "small.yaml"), "small.yaml", Path())


def assignments(patch: Patch, layer: str = "f=a") -> list[Assignment]:
    return [
        Assignment(split_path(path), yamlfile.parse_value(json.dumps(value)), Place("small.yaml", 9, 1), layer)
        for path, value in patch.items()
    ]


@st.composite
def patches(draw: st.DrawFn, paths: tuple[str, ...] = tuple(VALUES)) -> Patch:
    chosen = draw(st.lists(st.sampled_from(paths), unique=True, max_size=6))
    return {path: draw(st.sampled_from(VALUES[path])) for path in chosen}


NESTED = tuple(path for path in VALUES if path.startswith(("network.insert.attention", "network.graph.stage1")))
"""Of these one removes or replaces what another changes."""


@given(st.lists(patches() | patches(NESTED), max_size=4))
def test_the_tree_is_what_a_flat_table_of_its_leaves_says(phases: list[Patch]) -> None:
    base = spec()
    written = yamlfile.dump(base.tree)
    assert leaves(apply(base, *map(assignments, phases)).tree) == expected(spec().tree, *phases)
    assert yamlfile.dump(base.tree) == written


@given(patches(), st.randoms(use_true_random=False))
def test_the_order_in_which_a_patch_is_written_is_nothing(patch: Patch, choice: Any) -> None:
    other = list(patch)
    choice.shuffle(other)
    one, two = (apply(spec(), assignments(each)) for each in (patch, {path: patch[path] for path in other}))
    assert one.tree == two.tree
    assert {each.path for each in one.inactive} == {each.path for each in two.inactive}


@given(patches(), patches())
def test_what_was_set_last_is_read(first: Patch, last: Patch) -> None:
    last = {path: value for path, value in last.items() if value is not None}
    gone = {keys(path) for path, value in first.items() if value is None}
    last = {path: value for path, value in last.items() if not any(below(keys(path), each) for each in gone)}
    tree = apply(spec(), assignments(first, "f=a"), assignments(last, "g=b")).tree
    for path, value in last.items():
        if any(other != path and below(keys(other), keys(path)) for other in last):
            continue  # a longer path has changed what is in it
        here: Any = tree
        for key in keys(path)[:-1]:
            here = here[key]
        assert here[keys(path)[-1]] == value
        assert here.values_at[keys(path)[-1]].layer == "g=b"


@given(patches(tuple(path for path in VALUES if path.startswith("train"))))
def test_a_patch_and_then_the_spec_s_own_values_are_the_spec(patch: Patch) -> None:
    own = {"train.epochs": 1, "train.optimizer": {"name": "sgd", "lr": 0.1}}
    assert apply(spec(), assignments(patch), assignments(own)).tree == spec().tree


def test_a_key_that_was_not_there_has_the_place_and_the_layer_of_who_put_it() -> None:
    tree = apply(spec(), assignments({"train.precision": "fp32"}, "g=b")).tree
    for places in (tree["train"].keys_at, tree["train"].values_at):
        assert (str(places["precision"]), places["precision"].layer) == ("small.yaml:9:1", "g=b")


def test_a_patch_is_the_same_after_another_changed_what_it_put_there() -> None:
    put = assignments({"network.insert.attention": {"block": "se", "reduction": 4, "at": "after stem"}})
    change = assignments({"network.insert.attention.reduction": 8}, "g=b")
    first, second = apply(spec(), put, change), apply(spec(), put)
    assert first.tree["network"]["insert"]["attention"]["reduction"] == 8
    assert second.tree["network"]["insert"]["attention"]["reduction"] == 4


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("train.epochs.more", "'train.epochs' is 1 and has no keys"),
        ("train.epochs.more.still", "'train.epochs' is 1 and holds no 'more'"),
        ("network.graph.stme.width", "there is no 'stme' to change"),
        ("network.insert.attention.reduction.by", "'network.insert.attention.reduction' is 2 and has no keys"),
    ],
)
def test_a_path_that_leads_nowhere_is_named_with_its_place(path: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        apply(spec(), assignments({path: 1, "train.epochs": 1}))
    (problem,) = caught.value.problems
    assert said in problem.message
    assert problem.path == path
    assert str(problem.place) == "small.yaml:9:1"


def test_whatever_is_wrong_in_several_levels_is_said_at_once_with_line_and_column(tmp_path: Path) -> None:
    levels = ["a: {train.epochs.x: 1}", "b: {network.graph.stme.width: 2}", "c: {}"]
    file = tmp_path / "spec.yaml"
    file.write_text(
        f"{TREE}ablation:\n  seeds: 2\n  factors:\n    f:\n" + "".join(f"      {each}\n" for each in levels)
    )
    with pytest.raises(UserError) as caught:
        study_plan(load(file))
    assert {str(problem.place) for problem in caught.value.problems} == {f"{file}:17:11", f"{file}:18:11"}
