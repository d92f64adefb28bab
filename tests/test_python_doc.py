"""docs/python.md, docs/extending.md and docs/tutorial.ipynb: all that they show is run."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

import ablate
from ablate import block, own_code, plugins
from ablate.cli import main
from ablate.data.kind import find
from ablate.plugins import BLOCKS, COLUMNS, DATA_SETS, GROUPS
from ablate.testing import check_dataset
from tests.conftest import REPOSITORY
from tests.installed import install

DOCS = REPOSITORY / "docs"
PYTHON, EXTENDING = ((DOCS / name).read_text() for name in ("python.md", "extending.md"))
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONDONTWRITEBYTECODE": "1"}


def fenced(text: str, language: str) -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [example for marked, example in found if marked == language]


def files(text: str) -> dict[str, str]:
    """The examples that begin with a file's name."""
    examples = [example for language in ("yaml", "python", "toml") for example in fenced(text, language)]
    named = [(re.match(r"# (\S+\.(?:yaml|py|toml))\n", example), example) for example in examples]
    return {match[1]: example for match, example in named if match}


def place(text: str, folder: Path) -> None:
    for name, content in files(text).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    block.registry()
    monkeypatch.setattr(block, "_registry", dict(block._registry))
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(own_code, "_here", own_code._Process())
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    known = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - known:
        if str(getattr(sys.modules[name], "__file__", "") or "").startswith(str(tmp_path)):
            del sys.modules[name]
    plugins.forget()


def test_the_python_page_runs_from_top_to_bottom(here: Path) -> None:
    place(PYTHON, here)
    examples = [example for example in fenced(PYTHON, "python") if not example.startswith("# ")]
    assert len(examples) == 3
    names: dict[str, object] = {}
    for example in examples:
        exec(example, names)
    assert isinstance(names["study"], ablate.Study)
    assert names["table"].attrs["units"]["val.accuracy"] == "%"  # type: ignore[attr-defined]
    assert (here / "runs" / "placement" / "report" / "report.html").is_file()


def test_what_the_python_page_names_of_a_study_is_there() -> None:
    named = re.findall(r"^\| `(.+?)` \|", PYTHON, re.MULTILINE)
    words = [word for row in named for word in re.findall(r"[a-z_]+(?=\(|`|,|$)", row.replace("`", ""))]
    assert {"table", "trials", "metrics", "model", "variants", "results", "spec"} <= {*words}
    for name in ("table", "trials", "metrics", "model", "variants", "results", "spec"):
        assert hasattr(ablate.Study, name)


def test_the_extending_page_s_own_file_is_checked_tested_and_swept(here: Path) -> None:
    place(EXTENDING, here)
    commands = [line for text in fenced(EXTENDING, "") for line in text.splitlines() if line.startswith("ablate")]
    assert [command.split()[1] for command in commands] == ["new", "new", "check", "sweep"]
    for command in commands:
        assert main(shlex.split(command)[1:]) == 0, command
    tests = sorted(str(path) for path in (here / "specs").glob("test_*.py"))
    assert len(tests) == 3
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
    done = subprocess.run(command, capture_output=True, text=True, cwd=here, env=ENVIRONMENT)
    assert "3 passed" in done.stdout, done.stdout
    code = ablate.Study(here / "runs" / "doubled").certificate()["code"]
    assert set(code) == {"block double"}


def test_the_extending_page_s_package_is_found(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place(EXTENDING, here)
    project = tomllib.loads((here / "pyproject.toml").read_text())["project"]
    site = here / "site"
    modules = {
        "acme_blocks.double": (here / "specs" / "double.py").read_text(),
        "acme_blocks.stripes": (here / "specs" / "stripes.py").read_text(),
        "acme_blocks.columns": (here / "acme_blocks" / "columns.py").read_text(),
    }
    install(site, project["name"], project["entry-points"], modules, project["version"])
    monkeypatch.syspath_prepend(str(site))
    plugins.forget()
    text = (here / "specs" / "doubled.yaml").read_text().replace("use: [double.py]\n", "")
    (here / "doubled.yaml").write_text(f"{text}report: {{columns: [params, best_epoch]}}\n")
    assert main(["sweep", "doubled.yaml", "--executor", "local", "--quiet"]) == 0
    assert "best_epoch (epoch)" in capsys.readouterr().out
    study = ablate.Study(here / "runs" / "doubled")
    assert study.certificate()["code"]["block double"]["distribution"] == "acme-blocks"
    assert study.table()["best_epoch"].tolist() == [1.0]
    assert {*project["entry-points"]} == {BLOCKS, DATA_SETS, COLUMNS}
    check_dataset(find("stripes"), params=[{}, {"side": 8}])
    assert re.findall(r"^\| `(ablate\.\w+)` \|", EXTENDING, re.MULTILINE) == [
        BLOCKS,
        "ablate.datasets",
        COLUMNS,
        "ablate.loggers",
    ]
    assert len(GROUPS) == 4


def test_the_notebook_runs(here: Path) -> None:
    notebook = nbformat.read(DOCS / "tutorial.ipynb", as_version=4)
    nbformat.validate(notebook)
    assert not any(cell.get("outputs") for cell in notebook.cells)
    os.environ["PYTHONPATH"], before = str(REPOSITORY), os.environ.get("PYTHONPATH")
    try:
        done = NotebookClient(notebook, timeout=200, resources={"metadata": {"path": str(here)}}).execute()
    finally:
        os.environ["PYTHONPATH"] = before or ""
    shown = [output["data"] for cell in done.cells for output in cell.get("outputs", []) if "data" in output]
    assert any("image/svg+xml" in data for data in shown)
    assert sum("text/html" in data for data in shown) >= 4
    assert (here / "runs" / "tutorial" / "report" / "report.html").is_file()
