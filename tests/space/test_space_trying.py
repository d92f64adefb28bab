"""A few points are tried before any is trained: what no network or recipe takes is a mistake, with its place."""

from __future__ import annotations

from typing import Any

import pytest

from ablate import yamlfile
from ablate.design import Variant
from ablate.errors import Problem, UserError
from ablate.space import grid_on, trying
from ablate.space.grammar import read_space
from ablate.space.trying import check_points
from ablate.spec import Spec, load

SPEC = """\
name: small
data: {name: fake, shape: [3, 11, 13], classes: 5, count: {train: 10, test: 10}}
train: {epochs: 1, optimizer: {name: sgd, lr: 0.1}}
network:
  graph:
    stem:   {block: conv_bn_act, width: 8, kernel: 3}
    stage1: {block: basic, width: 8, repeat: 2}
    head:   {block: classifier}
  insert:
    gate: {block: se, reduction: 4, at: after stage1.*}
"""


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> Spec:
    path = tmp_path_factory.mktemp("spec") / "small.yaml"
    path.write_text(SPEC)
    return load(path)


def checked(text: str, spec: Spec) -> list[Problem]:
    space = read_space(yamlfile.loads(f"space:\n{text}", "space.yaml"), "space.yaml")
    try:
        check_points(grid_on(space, spec, trained=True), spec)
    except UserError as error:
        return error.problems
    return []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("  train.optimizer.lrr: {float: [0.1, 0.5]}", ["2:3: train.optimizer.lrr: has no effect", "'lr'?"]),
        ("  network.insert.gate.reducton: {choice: [2]}", ["2:3: network.insert.gate.reducton", "'reduction'?"]),
        ("  train.optimizer.lr: {choice: [0.1, -1.0]}", ["2:38: train.optimizer.lr: -1.0 is too small"]),
        ("  network.insert.gate.block: {choice: [se, s_e]}", ["2:44: network.insert.gate.block: unknown block 's_e'"]),
        ("  network.insert.gate.at: {choice: [after stem, after stam]}", ["pattern 'stam' matches nothing"]),
        ("  train.epochs: {int: [0, 2]}", ["train.epochs: 0 is too small"]),
        ("  train.optimzer.lr: {choice: [0.1]}", ["unknown key; did you mean 'optimizer'?"]),
    ],
)
def test_a_mistake_is_said_with_its_place(text: str, words: list[str], spec: Spec) -> None:
    (problem,) = checked(text, spec)
    assert all(word in str(problem) for word in words)


def test_two_mistakes_are_said_at_once_and_sound_values_are_not_blamed(spec: Spec) -> None:
    """Both bad values fall on one point: neither, and no third one of that point, may hide behind the other."""
    text = """\
  network.insert.gate.block: {choice: [s_e, se]}
  network.insert.gate.at: {choice: [after stam, after stem]}
  network.graph.stem.kernel: {choice: [3, 5]}
"""
    found = checked(text, spec)
    assert [problem.path for problem in found] == ["network.insert.gate.block", "network.insert.gate.at"]


def test_wrong_values_and_paths_without_effect_are_said_at_once(spec: Spec) -> None:
    text = """\
  train.optimizer.lrr: {float: [0.1, 0.5]}
  train.epochs: {int: [0, 2]}
  network.params.j: {choice: [1, 2]}
"""
    found = [(problem.path, problem.message.split(":")[0]) for problem in checked(text, spec)]
    assert found == [
        ("train.optimizer.lrr", "has no effect at any point"),
        ("train.epochs", "0 is too small; at least 1"),
        ("network.params.j", "has no effect at any point"),
    ]


def test_a_path_that_lacks_what_a_wrong_value_would_have_put_there_is_not_blamed(spec: Spec) -> None:
    text = """\
  network.insert.gate.block: {choice: [se, self_attentoin]}
  network.insert.gate.heads: {choice: [2, 4]}
"""
    assert [problem.path for problem in checked(text, spec)] == ["network.insert.gate.block"]


def test_a_parameter_acts_where_an_expression_of_the_space_reads_it(spec: Spec) -> None:
    text = "  network.params.j: {choice: [1, 2]}\n  network.graph.stem.width: {choice: [8, 8*$j]}\n"
    assert checked(text, spec) == []
    (problem,) = checked(text.replace("params.j", "params.i_j").replace("8*$j", "16"), spec)
    assert str(problem).startswith("space.yaml:2:3: network.params.i_j: has no effect")
    assert "no expression reads $i_j" in str(problem)


def test_a_point_that_can_not_be_built_is_no_mistake_where_others_can(spec: Spec) -> None:
    """A shortcut that pads takes no channels away: a stage of 8 is one behind a stem of 8 alone."""
    text = """\
  network.graph.stage1.shortcut: {choice: [pad]}
  network.graph.stem.width: {choice: [16, 8]}
  network.graph.stage1.width: {choice: [8, 16]}
"""
    assert checked(text, spec) == []


def test_a_space_of_which_no_point_can_be_built_says_why(spec: Spec) -> None:
    found = checked("  network.insert.gate.at: {choice: [after stam]}", spec)
    assert "matches nothing" in str(found[0])


def test_only_so_many_points_are_tried(spec: Spec, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []
    one = trying.variant_at

    def counted(spec: Spec, name: str, levels: Any) -> Variant:
        tried.append(name)
        return one(spec, name, levels)

    monkeypatch.setattr(trying, "variant_at", counted)
    monkeypatch.setattr(trying, "MOST", 3)
    assert checked("  train.epochs: {int: [1, 50]}", spec) == []
    assert len(tried) == 3
