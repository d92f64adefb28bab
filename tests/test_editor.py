"""Specs in an editor: what yaml-language-server underlines, completes and tells by the schema that we publish."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import pytest

from ablate.block import registry
from ablate.scaffold import new_study
from tests.language_server import SERVER, LanguageServer

pytestmark = pytest.mark.skipif(SERVER is None, reason="no yaml-language-server here")
SCHEMA = Path(str(files("ablate") / "spec.schema.json"))
SPECS = Path(__file__).parents[1] / "specs"
SPEC = f"""\
# yaml-language-server: $schema={SCHEMA}
name: x
data: {{name: mnist5k, val: 0.2}}
network:
  graph:
    stem: {{block: conv_bn_act, width: 16, kernel: 3}}
    head: {{block: classifier}}
  insert:
    attention:
      block: cbam
      reduction: 8
      at: after stem
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LanguageServer]:
    server = LanguageServer(tmp_path_factory.mktemp("editor"))
    yield server
    server.close()


def place(text: str, word: str) -> tuple[int, int]:
    """Line and character of a word's second letter, from 0."""
    line = next(number for number, line in enumerate(text.splitlines()) if word in line)
    return line, text.splitlines()[line].index(word) + 1


def test_a_sound_spec_has_nothing_underlined(server: LanguageServer, tmp_path: Path) -> None:
    assert server.open(tmp_path / "spec.yaml", SPEC) == []


@pytest.mark.parametrize("name", ["placement.yaml", "cnntention/table3.yaml"])
def test_our_own_specs_find_their_schema_and_have_nothing_underlined(server: LanguageServer, name: str) -> None:
    assert server.open(SPECS / name) == []
    misspelt = (SPECS / name).read_text(encoding="utf-8").replace("\nreport:", "\nreprot:")
    assert server.open((SPECS / name).with_name("misspelt.yaml"), misspelt) != []


def test_a_new_study_finds_the_schema_beside_it(server: LanguageServer, tmp_path: Path) -> None:
    file = new_study("mine", tmp_path)[0]
    assert server.open(file) == []
    (wrong,) = server.open(
        tmp_path / "other.yaml", file.read_text(encoding="utf-8").replace("shortcut: pad", "shortcut: pda", 1)
    )
    assert wrong["range"]["start"]["line"] == place(file.read_text(encoding="utf-8"), "shortcut: pad")[0]


def test_an_unknown_key_is_underlined_where_it_is(server: LanguageServer, tmp_path: Path) -> None:
    text = SPEC.replace("reduction:", "reducton:")
    (wrong,) = server.open(tmp_path / "spec.yaml", text)
    line, character = place(text, "reducton")
    assert wrong["range"]["start"] == {"line": line, "character": character - 1}
    assert "reducton" in wrong["message"]


def test_a_value_of_another_kind_is_underlined(server: LanguageServer, tmp_path: Path) -> None:
    assert server.open(tmp_path / "spec.yaml", SPEC.replace("reduction: 8", "reduction: many")) != []
    assert server.open(tmp_path / "spec.yaml", SPEC.replace("val: 0.2", "val: much")) != []


def test_the_parameters_of_a_block_complete_and_no_others(server: LanguageServer, tmp_path: Path) -> None:
    text = SPEC.replace("      reduction: 8\n", "      \n")
    server.open(tmp_path / "spec.yaml", text)
    found = server.completions(tmp_path / "spec.yaml", place(SPEC, "reduction")[0], 6)
    parameters = registry()["cbam"].Params.model_fields
    assert set(parameters) <= set(found)
    assert "heads" not in found
    assert found["reduction"]["documentation"] == parameters["reduction"].description


def test_names_of_blocks_complete_with_what_they_are(server: LanguageServer, tmp_path: Path) -> None:
    text = SPEC.replace("block: cbam", "block: ")
    server.open(tmp_path / "spec.yaml", text)
    line, character = place(SPEC, "cbam")
    found = server.completions(tmp_path / "spec.yaml", line, character - 1)
    assert set(registry()) <= set(found)
    assert found["cbam"]["documentation"] == registry()["cbam"].summary()


@pytest.mark.parametrize(
    ("word", "said"), [("cbam", "Woo, Park, Lee and Kweon"), ("reduction", "channels per hidden unit")]
)
def test_hovering_says_what_it_is(server: LanguageServer, tmp_path: Path, word: str, said: str) -> None:
    server.open(tmp_path / "spec.yaml", SPEC)
    assert said in server.hover(tmp_path / "spec.yaml", *place(SPEC, word))
