"""Mistakes in a space that only its spec shows, each at its place, before anything is trained."""

from __future__ import annotations

from pathlib import Path

import pytest

from ablate.errors import UserError
from ablate.searching import held
from ablate.space import load_space
from ablate.spec import load

SPEC = """\
name: tiny
data: {name: fake, shape: [3, 8, 8], classes: 3, count: {train: 48, test: 12}, val: 0.25}
train: {epochs: 2, batch_size: 12, optimizer: {name: sgd, lr: 0.05, momentum: 0.9}}
network:
  params: {k: 1}
  graph:
    stem: {block: conv_bn_act, width: 4*$k, kernel: 3}
    body: {block: basic, width: 4*$k, repeat: 1, shortcut: pad}
    head: {block: classifier}
  insert:
    attention: {block: se, reduction: 2, at: after body}
"""

OBJECTIVE = "objectives: {val.accuracy: maximize}\n"


def problems(tmp_path: Path, paths: str) -> list[str]:
    (tmp_path / "spec.yaml").write_text(SPEC)
    (tmp_path / "space.yaml").write_text(f"space:\n{paths}{OBJECTIVE}")
    try:
        held(load_space(tmp_path / "space.yaml"), load(tmp_path / "spec.yaml"))
    except UserError as error:
        return [str(problem).replace(f"{tmp_path}/", "") for problem in error.problems]
    return []


@pytest.mark.parametrize(
    ("paths", "said"),
    [
        ("  train.optimizer.lr: {float: [-1.0, 0.1]}\n", "space.yaml:2:3: train.optimizer.lr"),
        ("  train.optimizer.name: {choice: [sgd, adm]}\n", "did you mean 'adam'"),
        ("  train.optimizer.learning_rate: {choice: [0.1, 0.2]}\n", "space.yaml:2:3: train.optimizer.learning_rate"),
        ("  network.insert.attention.at: {choice: [after body, after bdy]}\n", "space.yaml:2:60"),
        ("  network.graph.body.repeat: {int: [0, 2]}\n", "network.graph.body.repeat"),
        ("  data.augment: {choice: [[horizontal_flip], [flip]]}\n", "flip"),
    ],
)
def test_a_value_that_no_point_can_have_is_a_mistake_at_its_place(tmp_path: Path, paths: str, said: str) -> None:
    found = problems(tmp_path, paths)
    assert len(found) == 1
    assert said in found[0]


def test_one_that_can_be_built_beside_some_values_is_none(tmp_path: Path) -> None:
    paths = """\
  network.insert.attention.block: {choice: [self_attention, multi_head_attention]}
  network.insert.attention.heads: {choice: [2, 3], when: {network.insert.attention.block: multi_head_attention}}
  network.params.k: {choice: [2, 3]}
"""
    assert problems(tmp_path, paths) == []  # of 8 channels no 3 heads can be made, of 12 they can


def test_a_path_that_acts_nowhere_is_a_mistake(tmp_path: Path) -> None:
    paths = """\
  network.insert.attention.block: {choice: [simam, eca]}
  network.insert.attention.reduction: {choice: [2, 4]}
"""
    (found,) = problems(tmp_path, paths)
    assert "network.insert.attention.reduction: has no effect at any point" in found


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("sampler: {name: cmaes}\n", "sampler.name: cmaes needs two ranges of numbers"),
        ("pruner: {name: asha, grace: 3}\n", "pruner.grace: 3 epochs of grace, and a trial has 2"),
    ],
)
def test_what_the_sampler_or_the_pruner_can_not_do_is_said_at_its_place(tmp_path: Path, lines: str, said: str) -> None:
    paths = "  network.insert.attention.block: {choice: [se, simam]}\n"
    (found,) = problems(tmp_path, paths + lines)
    assert found.startswith("space.yaml:3:")
    assert said in found


def test_the_sampler_the_pruner_and_the_objectives_are_judged_at_once(tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text(SPEC.replace(", val: 0.25", ""))
    paths = "  network.insert.attention.block: {choice: [se, simam]}\n"
    lines = f"sampler: {{name: cmaes}}\npruner: {{name: asha, grace: 3}}\n{OBJECTIVE}"
    (tmp_path / "space.yaml").write_text(f"space:\n{paths}{lines}")
    with pytest.raises(UserError) as refused:
        held(load_space(tmp_path / "space.yaml"), load(tmp_path / "spec.yaml"))
    found = [problem.path for problem in refused.value.problems]
    assert found == ["objectives.val.accuracy", "sampler.name", "pruner.grace"]


@pytest.mark.parametrize("also", ["", "flops: minimize, "])
def test_trials_are_compared_on_the_same_images_alone(tmp_path: Path, also: str) -> None:
    paths = """\
  data.val: {choice: [0.25, 0.5]}
  data.augment: {choice: [null, [horizontal_flip]]}
  data.mix: {choice: [null, {name: mixup}]}
  data.limit.train: {int: [12, 24], step: 12}
  data.classes: {choice: [3, 4]}
  train.optimizer.lr: {choice: [0.1, 0.2]}
"""
    (tmp_path / "spec.yaml").write_text(SPEC)
    space = f"space:\n{paths}{OBJECTIVE.replace('{', '{' + also)}"
    (tmp_path / "space.yaml").write_text(space)
    with pytest.raises(UserError) as refused:
        held(load_space(tmp_path / "space.yaml"), load(tmp_path / "spec.yaml"))
    found = refused.value.problems
    assert [problem.path for problem in found] == ["data.val", "data.limit.train", "data.classes"]
    assert str(found[0]).endswith(
        "space.yaml:2:3: data.val: may change the images that 'val.accuracy' is of: trials evaluated on other images "
        "can't be compared; leave it out"
    )
    (tmp_path / "space.yaml").write_text(space.replace("val.accuracy", "train.accuracy"))
    held(load_space(tmp_path / "space.yaml"), load(tmp_path / "spec.yaml"))
