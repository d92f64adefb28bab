"""Files of a user's own that a spec uses: run with ``--trust``, and known by their content."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import ablate
from ablate import block, own_code
from ablate.cli import main
from ablate.data import grammar, kind
from ablate.design import as_written, trial_hash
from ablate.errors import UserError
from ablate.report import write_report
from ablate.store import Study
from tests.installed import BLOCK

SPEC = """\
name: own
use: {use}
data: {{name: {data}, shape: [3, 11, 13], classes: 5, count: {{train: 60, test: 20}}, val: 0.25}}
train: {{epochs: 1, batch_size: 16, optimizer: {{name: sgd, lr: 0.1}}}}
network:
  graph:
    stem: {{block: conv, width: 7}}
    body: {{block: {block}}}
    head: {{block: classifier}}
execution: {{threads: 1, device: cpu}}
"""
DATA = """\
from ablate.datasets.fake import Fake

class Own(Fake, name="own_rain"):
    Params = Fake.Params
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """With ``own_swirl.py`` and a spec that uses it; what they register is forgotten after the test."""
    block.registry()
    kind.registry()
    for module in (block, kind):
        monkeypatch.setattr(module, "_registry", dict(module._registry))
    grammar._grammar.cache_clear()
    monkeypatch.setattr(sys, "path", [*sys.path])
    known = set(sys.modules)
    (tmp_path / "own_swirl.py").write_text(BLOCK.format(name="own_swirl", by=2.0))
    (tmp_path / "spec.yaml").write_text(SPEC.format(use="[own_swirl.py]", data="fake", block="own_swirl"))
    yield tmp_path
    for folder in (tmp_path, *tmp_path.iterdir()):
        own_code._forget(folder)
    for name in set(sys.modules) - known:
        if str(getattr(sys.modules[name], "__file__", "") or "").startswith(str(tmp_path)):
            del sys.modules[name]


def check(folder: Path, *options: str) -> int:
    return main(["check", str(folder / "spec.yaml"), *options])


def test_without_trust_nothing_is_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "own_swirl.py").write_text(f"open({str(folder / 'was_run')!r}, 'w')\n")
    assert check(folder) == 2
    said = capsys.readouterr().err
    assert "spec.yaml:2:7: use.0: 'own_swirl.py' is refused: without --trust a spec runs no code" in said
    assert not (folder / "was_run").exists()
    assert "own_swirl" not in sys.modules


def test_with_trust_its_blocks_and_data_sets_are_used_by_name(folder: Path) -> None:
    assert check(folder, "--trust") == 0
    (folder / "own_rain.py").write_text(DATA)
    (folder / "spec.yaml").write_text(
        SPEC.format(use="[own_swirl.py, own_rain.py]", data="own_rain", block="own_swirl")
    )
    variant = as_written(ablate.load(folder / "spec.yaml", trust=True))
    assert variant.data.data_set.__name__ == "Own"
    assert set(variant.outside) == {"block own_swirl", "data own_rain"}
    assert not list(folder.glob("**/__pycache__"))


def hashed(folder: Path) -> str:
    return trial_hash(as_written(ablate.load(folder / "spec.yaml", trust=True)), 1, "content", {"threads": 1})


def test_what_it_holds_now_is_what_counts(folder: Path) -> None:
    first = hashed(folder)
    assert hashed(folder) == first
    (folder / "own_swirl.py").write_text(BLOCK.format(name="own_swirl", by=3.0))
    assert hashed(folder) != first
    assert as_written(ablate.load(folder / "spec.yaml", trust=True)).network.built(0).body.by == 3.0
    (folder / "own_swirl.py").write_text(BLOCK.format(name="own_swirl", by=2.0))
    assert hashed(folder) == first


def test_what_it_imports_from_beside_it_counts_too(folder: Path) -> None:
    text = BLOCK.format(name="own_swirl", by=2.0).replace("x * self.by", "x * self.by * own_factor.FACTOR")
    (folder / "own_swirl.py").write_text(f"import own_factor\n{text}")
    hashes = []
    for factor in (2, 3):
        (folder / "own_factor.py").write_text(f"FACTOR = {factor}\n")
        hashes.append(hashed(folder))
        assert factor == sys.modules["own_factor"].FACTOR
    assert hashes[0] != hashes[1]


def test_where_it_lies_changes_nothing(folder: Path) -> None:
    first = hashed(folder)
    moved = folder / "moved"
    moved.mkdir()
    for name in ("own_swirl.py", "spec.yaml"):
        shutil.copy(folder / name, moved / name)
    with pytest.raises(UserError, match="have one name, and this process has run the other"):
        ablate.load(moved / "spec.yaml", trust=True)
    own_code._forget(folder)
    sys.path.remove(str(folder))
    assert hashed(moved) == first


def test_a_spec_that_extends_uses_what_its_parent_does(folder: Path) -> None:
    below = folder / "below"
    below.mkdir()
    specs = folder / "specs"
    specs.mkdir()
    (specs / "deeper").mkdir()
    for name in ("own_swirl.py", "spec.yaml"):
        shutil.move(folder / name, specs / name)
    (specs / "deeper" / "child.yaml").write_text("name: child\nextends: ../spec.yaml\n")
    assert main(["check", str(specs / "deeper" / "child.yaml"), "--trust"]) == 0
    (specs / "deeper" / "child.yaml").write_text("name: child\nextends: ../spec.yaml\nuse: null\n")
    own_code._forget(specs)
    block._registry.pop("own_swirl", None)
    assert main(["check", str(specs / "deeper" / "child.yaml"), "--trust"]) == 2


@pytest.mark.parametrize(
    ("use", "said"),
    [
        ("[lost.py]", "use.0: no file 'lost.py'; looked in"),
        ("[own_swirl.txt]", "use.0: 'own_swirl.txt' is no Python file's name"),
        ("[7]", "use.0: 7 is no Python file's name"),
        ("[]", "use: a list of files was expected; such as [my_block.py]"),
        ("own_swirl.py", "use: a list of files was expected"),
        ("[own_swirl.py, own_swirl.py]", "use.1: 'own_swirl.py' is given twice"),
        ("[own-bad.py]", "is no name of a module"),
        ("[torch.py]", "'torch.py' can't be called so: there is a module 'torch' already"),
        ("[own_broken.py]", "'own_broken.py' can't be run: ZeroDivisionError: division by zero"),
        ("[own_se.py]", "can't be run: ValueError: block 'se' is defined in"),
    ],
)
def test_what_cannot_be_used_is_said_at_its_place(
    folder: Path, capsys: pytest.CaptureFixture[str], use: str, said: str
) -> None:
    texts = {"own-bad.py": "", "torch.py": "", "own_broken.py": "1 / 0", "own_se.py": BLOCK.format(name="se", by=1.0)}
    for name, text in texts.items():
        (folder / name).write_text(text)
    (folder / "spec.yaml").write_text(SPEC.format(use=use, data="fake", block="act"))
    assert check(folder, "--trust") == 2
    assert said in capsys.readouterr().err


def test_levels_profiles_and_set_reach_no_files(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(folder, "--trust", "--set", "use=[other.py]") == 2
    assert "'use' is not a path of a spec" in capsys.readouterr().err


def test_a_study_of_it_is_swept_recorded_and_opened(folder: Path) -> None:
    spec = ablate.load(folder / "spec.yaml", trust=True)
    study = ablate.sweep(spec, folder=folder / "study", executor="local", cache=False)
    assert [result["status"] for result in study.results().values()] == ["finished"]
    (told,) = study.certificate()["code"].items()
    assert told[0] == "block own_swirl"
    assert told[1] == {"digest": as_written(spec).outside["block own_swirl"]}
    stored = Study.open(folder / "study")
    (record,) = stored.variants
    hash = trial_hash(as_written(spec), 0, record["data_hash"], stored.spec["numerics"])
    assert record["trials"] == {"0": hash}
    write_report(stored)
    shown = (stored.folder / "report" / "report.html").read_text(encoding="utf-8")
    assert f"block own_swirl is code from a file beside the spec: {told[1]['digest']}." in shown
    assert record["data_hash"] in shown
    with pytest.raises(UserError, match="is refused: without --trust"):
        study.model()
    assert study.model(trust=True).body.by == 2.0
    again: Any = ablate.sweep(spec, folder=folder / "study", executor="local", cache=False)
    assert again.results() == study.results()


def test_a_variant_in_words_says_whose_code_it_is(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(folder / "spec.yaml"), "--trust", "--variant", "own"]) == 0
    digest = as_written(ablate.load(folder / "spec.yaml", trust=True)).outside["block own_swirl"]
    assert f"block own_swirl is code of your own, {digest[:8]}" in capsys.readouterr().out
