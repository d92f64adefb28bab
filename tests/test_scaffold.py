"""What ``ablate new block`` and ``ablate new dataset`` write works as it is, in both ways."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

import ablate
from ablate import own_code
from ablate.cli import main
from ablate.design import as_written
from ablate.plugins import BLOCKS, DATA_SETS
from tests.installed import install
from tests.test_own_code import folder
from tests.test_plugins import installed

__all__ = ["folder", "installed"]
REPOSITORY = Path(__file__).parents[1]
KINDS = {"block": ("my_gate", BLOCKS), "dataset": ("my_set", DATA_SETS)}


def written(kind: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """What the command says: what is beside each of its headings."""
    assert main(["new", kind, KINDS[kind][0], "--folder", str(folder)]) == 0
    parts: dict[str, str] = {}
    heading = ""
    for line in capsys.readouterr().out.splitlines():
        heading = line[:15].strip() or heading
        parts[heading] = f"{parts.get(heading, '')}{line[15:]}\n"
    return parts


@pytest.mark.parametrize("kind", KINDS)
def test_its_test_passes_as_it_was_written(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = written(kind, tmp_path, capsys)
    file = said["test it"].split()[1]
    assert len(Path(file).read_text().splitlines()) <= 7
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", file]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout


def test_its_test_fails_where_the_block_breaks_its_contract(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = written("block", tmp_path, capsys)
    file = tmp_path / "my_gate.py"
    file.write_text(file.read_text().replace("return x * gate", "return x + x * gate"))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", said["test it"].split()[1]]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.returncode == 1

    assert "ablate.testing.rules.ContractError: block 'my_gate' breaks its contract" in done.stdout


@pytest.mark.parametrize("kind", KINDS)
def test_a_spec_beside_it_uses_it(kind: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = written(kind, folder, capsys)
    assert main(["new", "study", "mine", "--folder", str(folder)]) == 0
    spec = yaml.safe_load((folder / "mine.yaml").read_text())
    added = yaml.safe_load(said["in a spec"])
    spec["use"] = added["use"]
    if kind == "block":
        spec["network"]["insert"]["mine"] = added["network"]["insert"]["mine"]
    else:
        spec["data"] = {**added["data"], "val": 0.2}
        del spec["profiles"]
    (folder / "mine.yaml").write_text(yaml.safe_dump(spec, sort_keys=False))
    assert main(["check", str(folder / "mine.yaml"), "--trust"]) == 0
    name = {"block": "block my_gate", "dataset": "data my_set"}[kind]
    assert name in as_written(ablate.load(folder / "mine.yaml", trust=True)).outside


@pytest.mark.parametrize("kind", KINDS)
def test_a_package_of_it_is_found_by_its_name(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], installed: object, request: pytest.FixtureRequest
) -> None:
    said = written(kind, tmp_path / "new", capsys)
    name, group = KINDS[kind]
    project = tomllib.loads(said["in a package"].partition("then pip")[0])["project"]
    source = (tmp_path / "new" / f"{name}.py").read_text()
    request.getfixturevalue("installed")(
        project["name"], project["entry-points"], {f"my_package.{name}": source}, project["version"]
    )
    importlib.invalidate_caches()
    found = ablate.block.find(name) if group == BLOCKS else ablate.data.kind.find(name)  # type: ignore[attr-defined]
    assert found.__module__ == f"my_package.{name}"


def test_names_that_have_a_meaning_or_can_be_no_module_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = {"se": "there is a block 'se' already", "torch": "there is a module 'torch' already"}
    wrong |= {"my-block": "my-block", "My_Block": "can't be a module's name", "3d": "3d", "class": "class"}
    for name, said in wrong.items():
        assert main(["new", "block", name, "--folder", str(tmp_path)]) == 2
        assert said in capsys.readouterr().err
    assert main(["new", "dataset", "mnist5k", "--folder", str(tmp_path)]) == 2
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "test_my_gate.py").write_text("mine")
    assert main(["new", "block", "my_gate", "--folder", str(tmp_path)]) == 2
    assert "is there already" in capsys.readouterr().err
    assert not (tmp_path / "my_gate.py").exists()
    assert (tmp_path / "test_my_gate.py").read_text() == "mine"
    assert own_code.is_taken("torch")
    assert install
