"""Every example in docs/language.md goes through the tool and through the schema."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import jsonschema
import pytest

from ablate import yamlfile
from ablate.data.augment import augmentations
from ablate.data.dataset import registry as data_sets
from ablate.data.fields import DataFields
from ablate.design import StudyPlan, as_written, study_plan
from ablate.grammar import AblationSpec, Design
from ablate.insert import Side
from ablate.network import Recipe
from ablate.recipe import Loss, Optimizer, Schedule, TrainSpec, by_name
from ablate.schema import spec_schema
from ablate.spec import SECTIONS, load
from tests.conftest import REPOSITORY

TEXT = (REPOSITORY / "docs" / "language.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```yaml\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
FILES = {match[1]: text for text in EXAMPLES if (match := re.match(r"# (specs/\S+)\n", text))}
FRAGMENTS = [text for text in EXAMPLES if not text.startswith("# ")]
VALIDATOR = jsonschema.Draft202012Validator(spec_schema())


@pytest.fixture
def specs(tmp_path: Path) -> Path:
    """The folder ``specs`` with every whole file of the page."""
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return tmp_path / "specs"


def checked(specs: Path, fragment: str, profile: str | None = None) -> StudyPlan:
    path = specs / "fragment.yaml"
    path.write_text(f"extends: base.yaml\n{fragment}", encoding="utf-8")
    return study_plan(load(path, profile=profile))


def test_the_page_has_the_examples_that_are_looked_for() -> None:
    assert len(FILES) >= 5
    assert len(FRAGMENTS) >= 12


@pytest.mark.parametrize("name", [name for name in FILES if "/models/" not in name])
def test_a_whole_file_is_sound(specs: Path, name: str) -> None:
    spec = load(specs.parent / name)
    assert as_written(spec).network.graph.nodes
    assert study_plan(spec).variants


@pytest.mark.parametrize("fragment", FRAGMENTS, ids=lambda text: text.split("\n", 1)[0])
def test_a_fragment_is_sound_beside_the_base(specs: Path, fragment: str) -> None:
    plan = checked(specs, fragment)
    assert plan.variants
    if "ablation:" in fragment:
        assert len(plan.variants) > 1


def test_the_profile_of_the_page_can_be_chosen(specs: Path) -> None:
    fragment = next(text for text in FRAGMENTS if text.startswith("profiles:"))
    variant = checked(specs, fragment, "tiny").variants[0]
    assert (variant.data.name, variant.train.epochs) == ("fake", 1)


@pytest.mark.parametrize("text", EXAMPLES, ids=lambda text: text.split("\n", 1)[0])
def test_an_example_is_right_for_editors(text: str) -> None:
    if text.count("\n") > 1:
        tree = yamlfile.loads(text, "example.yaml")
        assert [f"{error.json_path}: {error.message}" for error in VALIDATOR.iter_errors(tree)] == []


def test_insertions_are_named_as_the_page_says(specs: Path) -> None:
    fragment = next(text for text in FRAGMENTS if "replace stage1.*.conv2" in text)
    nodes = {node.name for node in checked(specs, fragment).variants[0].network.graph.nodes}
    named = {"stem_gate", "stem_gate_residual", "stage1.0.conv2_wide", "stage1.0.add_in_branch_attention"}
    assert named <= nodes


@pytest.mark.parametrize(
    "name", [*SECTIONS, *TrainSpec.model_fields, *AblationSpec.model_fields, *DataFields.model_fields]
)
def test_every_key_is_on_the_page(name: str) -> None:
    assert f"`{name}" in TEXT or f"\n  {name}:" in TEXT or f"\n{name}:" in TEXT


def test_everything_that_a_section_can_name_is_on_the_page() -> None:
    named = [
        *by_name(Optimizer),
        *by_name(Schedule),
        *by_name(Loss),
        *get_args(Design),
        *get_args(Recipe),
        *get_args(Side),
    ]
    kinds = {**data_sets(), **augmentations()}
    ours = [name for name, kind in kinds.items() if kind.__module__.startswith("ablate.")]  # not those of other tests
    missing = [name for name in [*named, *ours] if f"`{name}" not in TEXT]
    assert missing == []
