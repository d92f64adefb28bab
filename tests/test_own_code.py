"""Files of a user's own that a spec uses: run with ``--trust``, and known by their content."""

from __future__ import annotations

import importlib
import os
import pickle
import py_compile
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import ablate
from ablate import block, own_code
from ablate.cli import main
from ablate.data import grammar, kind
from ablate.design import as_written, trial_hash
from ablate.errors import UserError
from ablate.numerics import Numerics
from ablate.report import write_report
from ablate.store import Study
from ablate.train import trial_of
from tests.installed import BLOCK

REPOSITORY = Path(__file__).parents[1]
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
    for held in ("_brought", "_as_run"):
        monkeypatch.setattr(own_code, held, {})
    monkeypatch.setattr(sys, "path", [*sys.path])
    known = set(sys.modules)
    (tmp_path / "own_swirl.py").write_text(BLOCK.format(name="own_swirl", by=2.0))
    (tmp_path / "spec.yaml").write_text(SPEC.format(use="[own_swirl.py]", data="fake", block="own_swirl"))
    yield tmp_path
    for name in set(sys.modules) - known:
        file = str(getattr(sys.modules[name], "__file__", "") or "")
        if file.startswith(str(tmp_path)) or name.startswith("own_"):
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


def using(folder: Path, name: str, statement: str = "from own_factor import FACTOR", factor: str = "FACTOR") -> Path:
    """A spec of a block of that name, whose file begins with the statement and multiplies by a helper's number."""
    folder.mkdir(exist_ok=True)
    text = BLOCK.format(name=name, by=2.0).replace("x * self.by", f"x * {factor}")
    (folder / f"{name}.py").write_text(f"{statement}\n{text}")
    file = folder / f"{name}.yaml"
    file.write_text(SPEC.format(use=f"[{name}.py]", data="fake", block=name))
    return file


def known_by(file: Path) -> str:
    """The trial's hash, of a block that runs as its file says."""
    variant = as_written(ablate.load(file, trust=True))
    return trial_hash(variant, 1, "content", {"threads": 1})


def factor_of(file: Path) -> float:
    """What the spec's block multiplies by, as it is run."""
    body = as_written(ablate.load(file, trust=True)).network.built(0).body
    return float(body(torch.ones(1, 7, 2, 2)).mean())


def test_two_files_of_a_folder_leave_each_other_alone(folder: Path) -> None:
    (folder / "own_factor.py").write_text("FACTOR = 3.0\n")
    first, second = (using(folder, name) for name in ("own_one", "own_two"))
    hashes = [known_by(first), known_by(second)]
    module = sys.modules["own_one"]
    assert [known_by(second), known_by(first)] == hashes[::-1]
    assert sys.modules["own_one"] is module
    assert {"own_one", "own_two", "own_factor"} <= {each.__name__ for each in own_code.sent_whole()}


def test_what_shares_a_helper_sees_its_edit(folder: Path) -> None:
    first, second = (using(folder, name) for name in ("own_one", "own_two"))
    seen = []
    for factor in (3.0, 4.0):
        (folder / "own_factor.py").write_text(f"FACTOR = {factor}\n")
        hashes = [known_by(first), known_by(second)]
        assert [factor_of(first), factor_of(second)] == [factor, factor]
        seen += hashes
    assert len(set(seen)) == 4


def test_a_file_that_imports_another_runs_it_once(folder: Path) -> None:
    (folder / "own_factor.py").write_text("FACTOR = 3.0\n")
    using(folder, "own_two")
    spec = using(folder, "own_one", "import own_two")
    spec.write_text(SPEC.format(use="[own_one.py, own_two.py]", data="fake", block="own_two"))
    ablate.load(spec, trust=True)
    assert sys.modules["own_one"].own_two is sys.modules["own_two"]


@pytest.mark.parametrize("statement", ["from own_pack.deep import FACTOR", "import own_pack.deep"])
@pytest.mark.parametrize("marked", [True, False], ids=["package", "namespace"])
def test_a_helper_in_a_package_beside_it_counts_too(folder: Path, statement: str, marked: bool) -> None:
    (folder / "own_pack").mkdir()
    if marked:
        (folder / "own_pack" / "__init__.py").touch()
    spec = using(folder, "own_one", statement, "FACTOR" if "from" in statement else "own_pack.deep.FACTOR")
    hashes = []
    for factor in (3.0, 4.0):
        (folder / "own_pack" / "deep.py").write_text(f"FACTOR = {factor}\n")
        assert factor_of(spec) == factor
        hashes.append(known_by(spec))
    (folder / "own_pack" / "__init__.py").write_text("# another\n")
    hashes.append(known_by(spec))
    assert len(set(hashes)) == 3
    assert {"own_pack", "own_pack.deep"} <= {each.__name__ for each in own_code.sent_whole()}


def test_a_helper_imported_late_counts_too(folder: Path) -> None:
    statement = "def factor():\n    from own_late import FACTOR\n    return FACTOR"
    spec = using(folder, "own_one", statement, "factor()")
    hashes = []
    for factor in (3.0, 4.0):
        (folder / "own_late.py").write_text(f"FACTOR = {factor}\n")
        assert factor_of(spec) == factor
        hashes.append(known_by(spec))
    assert hashes[0] != hashes[1]


@pytest.mark.parametrize("late", [False, True], ids=["at once", "late"])
@pytest.mark.parametrize("helper", ["own_factor", "own_pack.deep"])
def test_a_helper_is_never_another_folders(folder: Path, late: bool, helper: str) -> None:
    statement = f"from {helper} import FACTOR"
    if late:
        statement = f"def factor():\n    {statement}\n    return FACTOR"
    specs = []
    for name, factor in (("own_one", 3.0), ("own_two", 4.0)):
        file = folder.joinpath(name, *helper.split(".")).with_suffix(".py")
        file.parent.mkdir(parents=True)
        file.write_text(f"FACTOR = {factor}\n")
        specs.append(using(folder / name, name, statement, "factor()" if late else "FACTOR"))
    assert factor_of(specs[0]) == 3.0
    with pytest.raises(UserError) as caught:
        ablate.load(specs[1], trust=True)
    (problem,) = caught.value.problems
    assert f"'own_two.py' imports '{helper}' from beside it: there is a module '{helper}' already, " in problem.message
    assert str(folder / "own_one") in problem.message
    assert factor_of(specs[0]) == 3.0


def test_a_helper_that_an_installed_module_hides_is_named(folder: Path) -> None:
    (folder / "colorsys.py").write_text("FACTOR = 3.0\n")
    with pytest.raises(UserError, match=r"'own_one.py' imports 'colorsys' from beside it: there is a module"):
        ablate.load(using(folder, "own_one", "from colorsys import FACTOR"), trust=True)


def test_a_modules_attribute_is_no_file_of_a_folder_that_is_called_as_the_module(folder: Path) -> None:
    (folder / "own_pack").mkdir()
    (folder / "own_pack" / "FACTOR.py").touch()
    (folder / "own_pack.py").write_text("FACTOR = 3.0\n")
    assert factor_of(using(folder, "own_one", "from own_pack import FACTOR")) == 3.0


def test_a_users_earlier_import_is_no_part_of_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(folder))
    (folder / "own_factor.py").write_text("FACTOR = 3.0\n")
    importlib.import_module("own_factor")
    (folder / "own_factor.py").write_text("FACTOR = 4.0\n")
    assert factor_of(using(folder, "own_one")) == 4.0


def test_what_no_statement_imports_is_refused(folder: Path) -> None:
    (folder / "own_factor.py").write_text("FACTOR = 3.0\n")
    statement = "import importlib\nFACTOR = importlib.import_module('own_' + 'factor').FACTOR"
    spec = using(folder, "own_one", statement)
    with pytest.raises(UserError, match=r"'own_one.py' imports 'own_factor' from beside it, and no import statement"):
        ablate.load(spec, trust=True)
    assert "own_one" not in sys.modules
    assert factor_of(using(folder, "own_one", f"import own_factor\n{statement}")) == 3.0


def test_what_is_compiled_is_refused_and_an_environment_in_the_folder_is_not(folder: Path) -> None:
    statement = "import sys\nsys.path.insert(0, sys.path[-1] + '/lib')\nimport own_installed\nFACTOR = 3.0"
    (folder / "lib").mkdir()
    (folder / "lib" / "own_installed.py").touch()
    assert factor_of(using(folder, "own_one", statement)) == 3.0
    py_compile.compile(str(folder / "lib" / "own_installed.py"), str(folder / "own_compiled.pyc"))
    spec = using(folder, "own_two", "from own_compiled import *\nFACTOR = 3.0")
    with pytest.raises(UserError, match=r"imports 'own_compiled' from beside it, which is compiled: .*; a package may"):
        ablate.load(spec, trust=True)


@pytest.mark.parametrize("helper", ["own_factor.py", "own_factor/__init__.py"])
def test_a_helper_that_comes_and_goes_is_seen(folder: Path, helper: str) -> None:
    statement = "try:\n    from own_factor import FACTOR\nexcept ImportError:\n    FACTOR = 2.0"
    spec = using(folder, "own_one", statement)
    before = known_by(spec)
    assert factor_of(spec) == 2.0
    (folder / helper).parent.mkdir(exist_ok=True)
    (folder / helper).write_text("FACTOR = 3.0\n")
    assert factor_of(spec) == 3.0
    assert known_by(spec) != before
    (folder / helper).unlink()
    assert factor_of(spec) == 2.0
    assert known_by(spec) == before


def test_a_file_that_failed_is_run_again_when_it_is_mended(folder: Path) -> None:
    (folder / "own_factor.py").write_text("FACTOR = 1 / 0\n")
    spec = using(folder, "own_one")
    with pytest.raises(UserError, match=r"'own_one.py' can't be run: ZeroDivisionError"):
        ablate.load(spec, trust=True)
    (folder / "own_factor.py").write_text("FACTOR = 3.0\n")
    assert factor_of(spec) == 3.0


def test_where_it_lies_changes_nothing(folder: Path) -> None:
    first = hashed(folder)
    moved = folder / "moved"
    moved.mkdir()
    for name in ("own_swirl.py", "spec.yaml"):
        shutil.copy(folder / name, moved / name)
    with pytest.raises(UserError, match=r"there is a module 'own_swirl' already, .*; choose .*, or use them in two"):
        ablate.load(moved / "spec.yaml", trust=True)
    assert str(moved) not in sys.path
    own_code._forget(["own_swirl"])
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
    own_code._forget(["own_swirl"])
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


LATE = "def factor():\n    from own_pack.deep import FACTOR\n    return FACTOR"


def late(folder: Path, factor: float, marked: bool = False) -> Path:
    """A spec whose block imports its helper when it runs."""
    (folder / "own_pack").mkdir(exist_ok=True)
    if marked:
        (folder / "own_pack" / "__init__.py").touch()
    (folder / "own_pack" / "deep.py").write_text(f"FACTOR = {factor}\n")
    return using(folder, "own_one", LATE, "factor()")


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_rays_workers_have_what_is_imported_late(folder: Path) -> None:
    spec = ablate.load(late(folder, 3.0), trust=True)
    here = ablate.sweep(spec, folder=folder / "here", executor="local", cache=False)
    there = ablate.sweep(spec, folder=folder / "there", executor="ray", cache=False)
    assert [result["status"] for result in there.results().values()] == ["finished"]
    assert [result["metrics"] for result in there.results().values()] == [
        result["metrics"] for result in here.results().values()
    ]


RECEIVING = """\
import pickle, sys
trial = pickle.load(sys.stdin.buffer)
again = pickle.loads(pickle.dumps(trial))
import own_one, own_pack.deep
print(own_one.factor(), trial.own_code == again.own_code)
"""


@pytest.mark.parametrize(
    ("reaches", "marked"), [(False, False), (True, True)], ids=["namespace, elsewhere", "package, in the folder"]
)
def test_another_process_runs_what_was_sent_and_not_what_has_been_edited(
    folder: Path, reaches: bool, marked: bool
) -> None:
    spec = ablate.load(late(folder, 3.0, marked), trust=True)
    trial = trial_of(as_written(spec), 0, Numerics())
    late(folder, 4.0, marked)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY), *[str(folder)] * reaches])}
    command = [sys.executable, "-c", RECEIVING]
    done = subprocess.run(command, input=pickle.dumps(trial), capture_output=True, env=environment, check=False)
    assert done.stdout.decode() == "3.0 True\n", done.stderr.decode()


def test_a_process_that_ran_a_file_keeps_reading_it_from_its_folder(folder: Path) -> None:
    spec = late(folder, 3.0)
    trial = trial_of(as_written(ablate.load(spec, trust=True)), 0, Numerics())
    assert pickle.loads(pickle.dumps(trial)).own_code == trial.own_code
    late(folder, 4.0)
    assert factor_of(spec) == 4.0


def test_what_is_sent_next_takes_the_place_of_what_was_sent(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = []
    for factor in (3.0, 4.0):
        ablate.load(late(folder, factor), trust=True)
        given.append(pickle.dumps(own_code.sent()))
    own_code._forget(["own_one"])
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])
    for pickled, factor in zip(given, (3.0, 4.0), strict=True):
        pickle.loads(pickled)
        assert importlib.import_module("own_one").factor() == factor
    assert sum(isinstance(finder, own_code._Receiver) for finder in sys.meta_path) == 1


def test_a_variant_in_words_says_whose_code_it_is(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(folder / "spec.yaml"), "--trust", "--variant", "own"]) == 0
    digest = as_written(ablate.load(folder / "spec.yaml", trust=True)).outside["block own_swirl"]
    assert f"block own_swirl is code of your own, {digest[:8]}" in capsys.readouterr().out
