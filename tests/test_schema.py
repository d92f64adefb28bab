"""The JSON Schema of specs: complete, described, never stricter than the tool, and shipped as it is made."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ablate
from ablate import yamlfile
from ablate.block import registry
from ablate.cli import main
from ablate.data.augment import augmentations
from ablate.data.dataset import registry as data_sets
from ablate.errors import UserError
from ablate.plugins import own_alone
from ablate.schema import spec_schema, spec_schema_text
from ablate.schema.parts import ENTRY
from ablate.spec import OPTIONAL_SECTIONS, SECTIONS, is_open, load
from tests.conftest import REPOSITORY, TINY

SHIPPED = REPOSITORY / "ablate" / "spec.schema.json"
SPECS = sorted((REPOSITORY / "specs").rglob("*.yaml"))
WRONG = sorted((REPOSITORY / "tests" / "wrong_specs").glob("*.yaml"))
Schema = dict[str, Any]


SCHEMA = spec_schema()
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


@pytest.fixture
def schema() -> Schema:
    return SCHEMA


@pytest.fixture
def validator() -> Any:
    return VALIDATOR


def mistakes(validator: Any, text: str) -> list[str]:
    """Where the schema refuses what."""
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(yamlfile.loads(text, "x.yaml"))]


def ours(kinds: dict[str, Any]) -> dict[str, Any]:
    """Without what other tests have registered."""
    return {name: kind for name, kind in kinds.items() if kind.__module__.startswith("ablate.")}


def network(validator: Any, text: str) -> list[str]:
    return mistakes(validator, f"network:\n  {text}\n")


def test_the_shipped_schema_is_the_one_that_the_command_prints() -> None:
    """It catches a block, a parameter or a description that was changed without `ablate schema` being run again."""
    shipped = SHIPPED.read_text(encoding="utf-8")
    with own_alone():
        # Another test may have registered an augmentation in this process: a fresh one has the last word.
        same = spec_schema_text() == shipped or printed() == shipped
    assert same, "run: python -m ablate schema --own -o ablate/spec.schema.json"


def printed() -> str:
    command = [sys.executable, "-m", "ablate", "schema", "--own"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout


def test_the_command_writes_it_to_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema", "-o", str(tmp_path / "x.json")]) == 0
    assert json.loads((tmp_path / "x.json").read_text(encoding="utf-8"))["title"] == "ablate spec"
    assert capsys.readouterr().out == ""
    assert main(["schema", "-o", str(tmp_path / "missing" / "x.json")]) == 2
    assert "No such file or directory" in capsys.readouterr().err


def test_it_is_well_formed(schema: Schema) -> None:
    # By the rules of an older draft, which say the same of the keywords used and take a tenth of the time.
    jsonschema.Draft7Validator.check_schema(schema)


def test_every_section_of_a_spec_is_in_it(schema: Schema) -> None:
    assert set(schema["properties"]) == set(SECTIONS)


def test_every_property_is_described(schema: Schema) -> None:
    bare = [path for path, value in properties(schema, "") if not described(value, schema)]
    assert bare == []


def properties(part: Any, path: str, above: frozenset[str] = frozenset()) -> Iterator[tuple[str, Any]]:
    """Every property of a schema, at any depth. What an ``allOf`` adds to one of the schema's own is none."""
    if isinstance(part, list):
        for index, item in enumerate(part):
            yield from properties(item, f"{path}/{index}", above)
    elif isinstance(part, dict):
        own = {
            f"{holder}/{key}": value
            for holder in ("properties", "patternProperties")
            for key, value in part.get(holder, {}).items()
        }
        yield from ((f"{path}/{key}", value) for key, value in own.items() if key not in above)
        for key, value in own.items():
            yield from properties(value, f"{path}/{key}")
        for key, value in part.items():
            if key in ("allOf", "then", "else"):
                yield from properties(value, f"{path}/{key}", above | own.keys())
            elif key not in ("properties", "patternProperties", "if"):
                yield from properties(value, f"{path}/{key}")


def described(value: Schema, schema: Schema) -> bool:
    if value.get("description"):
        return True
    return "$ref" in value and described(target(value["$ref"], schema), schema)


def target(pointer: str, schema: Schema) -> Any:
    part: Any = schema
    for key in pointer.split("/")[1:]:
        part = part[int(key)] if isinstance(part, list) else part[unquote(key).replace("~1", "/").replace("~0", "~")]
    return part


@pytest.mark.parametrize("path", SPECS, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_it_accepts_every_shipped_spec(validator: Any, path: Path) -> None:
    assert [f"{error.json_path}: {error.message}" for error in validator.iter_errors(yamlfile.load(path))] == []


@pytest.mark.parametrize("path", SPECS, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_every_shipped_spec_names_it_for_editors(path: Path) -> None:
    first = path.read_text(encoding="utf-8").splitlines()[0]
    start, _, name = first.partition("$schema=")
    assert start == "# yaml-language-server: "
    assert (path.parent / name).resolve() == SHIPPED


@pytest.mark.parametrize("path", WRONG, ids=lambda path: path.stem)
def test_it_refuses_the_wrong_specs_whose_mistake_a_schema_can_see(validator: Any, path: Path) -> None:
    """Each says in its second line whether one can, and the line must be true both ways."""
    says = path.read_text(encoding="utf-8").splitlines()[1].removeprefix("# schema: ")
    if says.startswith("the reader refuses it"):
        with pytest.raises(UserError):
            yamlfile.load(path)
        return
    assert says == "sees it" or says.startswith("can't: ")
    assert validator.is_valid(yamlfile.load(path)) == (says != "sees it")


def test_a_parameter_belongs_to_its_block(validator: Any) -> None:
    for name, block in ours(registry()).items():
        takes = "".join(f", {parameter}: $k" for parameter in block.Params.model_fields)
        assert network(validator, f"{{graph: {{x: {{block: {name}{takes}}}}}}}") == []
        assert network(validator, f"{{insert: {{x: {{block: {name}, at: after x{takes}}}}}}}") == []
        assert network(validator, f"{{graph: {{x: {{block: {name}, misspelt: 1}}}}}}") != []
        assert network(validator, f"{{insert: {{x: {{block: {name}, at: after x, misspelt: 1}}}}}}") != []


def test_every_data_set_and_augmentation_is_known(validator: Any) -> None:
    for name in ours(data_sets()):
        assert mistakes(validator, f"data: {{name: {name}}}") == []
        assert mistakes(validator, f"data: {{name: {name}, no_such_parameter: 1}}") != []
    for name, kind in ours(augmentations()).items():
        needed = [key for key, field in kind.model_fields.items() if field.is_required()]
        assert (mistakes(validator, f"data: {{augment: [{name}]}}") == []) == (not needed)
        assert mistakes(validator, f"data: {{augment: [{{{name}: {{no_such_parameter: 1}}}}]}}") != []


def test_a_block_that_the_spec_declares_may_have_any_name_and_parameters(validator: Any) -> None:
    assert network(validator, "graph: {x: {block: my_block, depth: 3, from: [stem, x]}}") == []
    assert network(validator, "insert: {x: {block: my_block, depth: 3, at: [after x, before y]}}") == []


def test_expressions_stand_for_numbers_and_spreads_only_where_there_are_several_places(validator: Any) -> None:
    spread = "{linear: [0, 0.1]}"
    assert network(validator, "graph: {x: {block: conv, width: 16*$k, repeat: $n}}") == []
    assert network(validator, f"insert: {{x: {{block: dropout, rate: {spread}, at: after stage*}}}}") == []
    assert network(validator, f'set: {{"stage*.*": {{rate: {spread}}}}}') == []
    assert network(validator, f"graph: {{x: {{block: dropout, rate: {spread}}}}}") != []
    assert network(validator, 'graph: {x: {block: conv, width: "16"}}') != []


@pytest.mark.parametrize("name", ["graph", "insert", "set", "defaults", "params", "blocks"])
def test_null_removes_an_entry_and_stands_for_no_value(validator: Any, name: str) -> None:
    assert is_open(("network", name, ENTRY))
    assert network(validator, f"{name}: {{x: null}}") == []
    assert network(validator, "insert: {x: {block: se, reduction: null, at: after y}}") != []


def test_null_removes_an_optional_section(validator: Any) -> None:
    for path in OPTIONAL_SECTIONS:
        text = "null"
        for key in reversed(path):
            text = f"{{{key}: {text}}}"
        assert mistakes(validator, text) == [], path


def test_nothing_is_required_that_another_file_may_give(validator: Any) -> None:
    assert mistakes(validator, "train: {optimizer: {lr: 0.1}}\ndata: {val: {seed: 3}}") == []
    assert mistakes(validator, "train: {optimizer: {lr: much}}") != []


@pytest.mark.parametrize(
    ("path", "sound", "wrong"),
    [
        ("train.epochs", "3", "3.7"),
        ("train.optimizer.lr", "0.1", "much"),
        ("train.optimizer", "{name: sgd, lr: 0.1}", "{name: sdg, lr: 0.1}"),
        ("data.val", "{size: 60}", "60"),
        ("network.params.k", "2", "two"),
        ("network.insert.attention", "null", "3"),
        ("network.insert.attention.at", "after stage*", "stage*"),
        ("network.insert.attention.reduction", "8", '"8"'),
        ("network.insert.attention.depth_of_my_block", "8", None),
        ("network.graph.stem.width", "8", "wide"),
        ("network.set.stage*.*.conv2.kernel", "5", "5.5"),
        ("network.init.set.*.bn2", "zero", "none"),
        ("train.epoch", None, "3"),
        ("report.columns", None, "[params]"),
    ],
)
def test_a_levels_path_decides_its_value(validator: Any, path: str, sound: str | None, wrong: str | None) -> None:
    forms = (
        "ablation: {{factors: {{f: {{a: {{{path}: {value}}}}}}}}}",
        "ablation: {{factors: {{f: {{path: '{path}', levels: [{value}]}}}}}}",
        "ablation: {{components: {{c: {{{path}: {value}}}}}}}",
        "ablation: {{variants: {{v: {{{path}: {value}}}}}}}",
    )
    for form in forms:
        if sound is not None:
            assert mistakes(validator, form.format(path=path, value=sound)) == []
        if wrong is not None:
            assert mistakes(validator, form.format(path=path, value=wrong)) != []


def test_a_profile_sets_sections_and_paths(validator: Any) -> None:
    text = "profiles: {{tiny: {}}}"
    paths = "train.epochs: 1, ablation.seeds: 1, network.params.n: 1, execution.threads: 2"
    sound = f"{{data: {{name: fake, classes: 5}}, {paths}}}"
    assert mistakes(validator, text.format(sound)) == []
    for wrong in ("{train.epoch: 1}", "{ablation.factors: {}}", "{network: {}}", "{data: {name: fakes}}", "{name: x}"):
        assert mistakes(validator, text.format(wrong)) != [], wrong


VALUES = st.sampled_from(
    [
        None,
        True,
        0,
        1,
        3,
        0.25,
        -1.0,
        "x",
        "8",
        "$k",
        "after stem",
        [],
        [1, 2],
        {},
        {"name": "adam"},
        {"linear": [0, 1]},
    ]
)


def places(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every path of a spec."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        yield (*path, key)
        yield from places(value, (*path, key))


SOUND = yamlfile.loads(TINY, "tiny.yaml")


@given(st.sampled_from(list(places(SOUND))), VALUES)
@settings(max_examples=60)
def test_what_it_refuses_the_tool_refuses_too(path: tuple[Any, ...], value: Any) -> None:
    """An editor that marks a sound spec as wrong would teach its user to look away."""
    tree = plain(copy.deepcopy(SOUND))
    below = tree
    for key in path[:-1]:
        below = below[key]
    below[path[-1]] = value
    if not VALIDATOR.is_valid(tree):
        with pytest.raises(UserError):
            ablate.load(tree)


def plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list) else value


def test_the_studys_own_spec_is_a_spec(validator: Any, tiny: Path) -> None:
    """What a sweep freezes into its folder: numerics, and the profile."""
    tree = {**plain(load(tiny).tree), "numerics": {"threads": 1}, "profile": "tiny"}
    assert validator.is_valid(tree)
