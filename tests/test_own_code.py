"""Files of a user's own that a spec uses: run with ``--trust``, and known by their content."""

from __future__ import annotations

import importlib
import os
import pickle
import py_compile
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

import ablate
from ablate import block, own_code
from ablate.cli import main
from ablate.data import kind
from ablate.design import as_written, trial_hash
from ablate.design.variant import Variant
from ablate.errors import UserError
from ablate.numerics import Numerics
from ablate.report import write_report
from ablate.static_search.processes import Pool
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
    monkeypatch.setattr(own_code, "_here", own_code._Process())
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
    spec = using(folder, "own_one", "import own_factor", "own_factor.FACTOR")
    hashes = []
    for factor in (3.0, 4.0):
        (folder / "own_factor.py").write_text(f"FACTOR = {factor}\n")
        hashes.append(known_by(spec))
        assert factor_of(spec) == factor
    assert hashes[0] != hashes[1]


def using(folder: Path, name: str, statement: str = "from own_factor import FACTOR", factor: str = "FACTOR") -> Path:
    """A spec of a block of that name, whose file begins with the statement and multiplies by a helper's number."""
    folder.mkdir(parents=True, exist_ok=True)
    text = BLOCK.format(name=name, by=2.0).replace("x * self.by", f"x * {factor}")
    (folder / f"{name}.py").write_text(f"{statement}\n{text}")
    return spec_of(folder, name)


def spec_of(folder: Path, name: str, *files: str) -> Path:
    file = folder / f"{name}.yaml"
    file.write_text(
        SPEC.format(use=f"[{', '.join(f'{each}.py' for each in files or [name])}]", data="fake", block=name)
    )
    return file


def put(folder: Path, file: str, factor: float, marked: bool = False) -> None:
    """A helper with a number, in packages or in folders."""
    path = folder / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"FACTOR = {factor}\n")
    if marked:
        for each in path.relative_to(folder).parents[:-1]:
            (folder / each / "__init__.py").touch()


def known_by(file: Path) -> str:
    """The trial's hash, of a block that runs as its file says."""
    return known(as_written(ablate.load(file, trust=True)))


def known(variant: Variant) -> str:
    return trial_hash(variant, 1, "content", {"threads": 1})


def factor_of(file: Path) -> float:
    """What the spec's block multiplies by, as it is run."""
    return factor_in(as_written(ablate.load(file, trust=True)))


def factor_in(variant: Variant) -> float:
    return float(variant.network.built(0).body(torch.ones(1, 7, 2, 2)).mean())


def test_two_files_of_a_folder_leave_each_other_alone(folder: Path) -> None:
    put(folder, "own_factor.py", 3.0)
    first, second = (using(folder, name) for name in ("own_one", "own_two"))
    hashes = [known_by(first), known_by(second)]
    held = as_written(ablate.load(first, trust=True))
    assert [known_by(second), known_by(first)] == hashes[::-1]
    assert as_written(ablate.load(first, trust=True)).kinds == held.kinds
    both = spec_of(folder, "own_one", "own_two", "own_one")
    assert known_by(both) == hashes[0]


def test_what_shares_a_helper_sees_its_edit(folder: Path) -> None:
    first, second = (using(folder, name) for name in ("own_one", "own_two"))
    seen = []
    for factor in (3.0, 4.0):
        put(folder, "own_factor.py", factor)
        hashes = [known_by(first), known_by(second)]
        assert [factor_of(first), factor_of(second)] == [factor, factor]
        seen += hashes
    assert len(set(seen)) == 4


@pytest.mark.parametrize("late", [False, True])
def test_files_that_are_used_together_are_modules_of_one_program(folder: Path, late: bool) -> None:
    put(folder, "own_factor.py", 3.0)
    using(folder, "own_two")
    statement = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import own_two" if late else "import own_two"
    using(folder, "own_one", statement, "1.0")
    ablate.load(spec_of(folder, "own_two", "own_one", "own_two"), trust=True)
    one, two = (sys.modules[block.find(name).__module__] for name in ("own_one", "own_two"))
    assert late or one.own_two is two
    assert [one.__file__, two.__file__] == [str(folder / "own_one.py"), str(folder / "own_two.py")]
    assert pickle.loads(pickle.dumps(block.find("own_one"))) is block.find("own_one")


@pytest.mark.parametrize(
    ("statement", "factor"),
    [
        ("from own_pack.deep import FACTOR", "FACTOR"),
        ("import own_pack.deep", "own_pack.deep.FACTOR"),
        ("import os, own_pack.deep as deep", "deep.FACTOR"),
        ("from own_pack import deep", "deep.FACTOR"),
        ("from .own_pack.deep import *", "FACTOR"),
        ("def factor():\n    import own_pack.deep\n    return own_pack.deep.FACTOR", "factor()"),
    ],
)
@pytest.mark.parametrize("marked", [True, False], ids=["package", "namespace"])
@pytest.mark.parametrize("deep", ["own_pack.deep", "own_pack.sub.deep"])
def test_a_helper_in_a_package_beside_it_counts_too(
    folder: Path, statement: str, factor: str, marked: bool, deep: str
) -> None:
    inner = deep.rpartition(".")[0]
    spec = using(folder, "own_one", statement.replace("own_pack", inner), factor.replace("own_pack", inner))
    hashes = []
    for value in (3.0, 4.0):
        put(folder, f"{deep.replace('.', '/')}.py", value, marked)
        assert factor_of(spec) == value
        hashes.append(known_by(spec))
    (folder / "own_pack" / "__init__.py").write_text("# another\n")
    hashes.append(known_by(spec))
    assert len(set(hashes)) == 3


FACTORY = """\
from ablate import Block, BlockParams

def make(wanted, by):
    class Made(Block, name=wanted):
        class Params(BlockParams):
            pass
        def __init__(self, params, shape):
            super().__init__()
        def forward(self, x):
            return x * by
    return Made
"""


@pytest.mark.parametrize("way", ["factory", "package", "settings"])
def test_whatever_a_file_makes_of_its_helpers_counts(folder: Path, way: str) -> None:
    spec = spec_of(folder, "own_one")
    hashes = []
    for value in (3.0, 4.0):
        if way == "factory":
            (folder / "own_make.py").write_text(FACTORY)
            (folder / "own_one.py").write_text(f"from own_make import make\nOne = make('own_one', {value})\n")
        elif way == "package":
            using(folder / "own_pack", "own_one", "from own_factor import FACTOR")
            (folder / "own_one.py").write_text("from own_pack.own_one import own_oneBlock\n")
            put(folder, "own_factor.py", value)
        else:
            using(folder, "own_one", "FACTOR = 1.0")
            shutil.move(folder / "own_one.py", folder / "own_deep.py")
            (folder / "own_one.py").write_text(f"import own_deep\nown_deep.FACTOR = {value}\n")
        assert factor_of(spec) == value
        hashes.append(known_by(spec))
    assert hashes[0] != hashes[1]


LATE = "def factor():\n    from own_pack.deep import FACTOR\n    return FACTOR"


def late(folder: Path, factor: float, marked: bool = False) -> Path:
    """A spec whose block imports its helper when it runs."""
    put(folder, "own_pack/deep.py", factor, marked)
    return using(folder, "own_one", LATE, "factor()")


def test_a_helper_imported_late_is_that_which_was_there_when_the_spec_was_read(folder: Path) -> None:
    before = as_written(ablate.load(late(folder, 3.0), trust=True))
    spec = late(folder, 4.0)
    after = as_written(ablate.load(spec, trust=True))
    assert (factor_in(before), factor_in(after)) == (3.0, 4.0)
    assert known(before) != known(after)
    again = as_written(ablate.load(late(folder, 3.0), trust=True))
    assert (factor_in(again), known(again)) == (3.0, known(before))


@pytest.mark.parametrize("late", [False, True], ids=["at once", "late"])
@pytest.mark.parametrize("helper", ["own_factor", "own_pack.deep"])
def test_a_helper_is_never_another_folders(folder: Path, late: bool, helper: str) -> None:
    statement = f"from {helper} import FACTOR"
    if late:
        statement = f"def factor():\n    {statement}\n    return FACTOR"
    specs = []
    for name, factor in (("own_one", 3.0), ("own_two", 4.0)):
        put(folder / name, f"{helper.replace('.', '/')}.py", factor)
        specs.append(using(folder / name, name, statement, "factor()" if late else "FACTOR"))
    assert [factor_of(spec) for spec in (*specs, *specs)] == [3.0, 4.0, 3.0, 4.0]


def test_a_helper_that_is_not_there_is_nobodys(folder: Path) -> None:
    put(folder / "a", "own_factor.py", 3.0)
    assert factor_of(using(folder / "a", "own_one")) == 3.0
    statement = "try:\n    from own_factor import FACTOR\nexcept ImportError:\n    FACTOR = 1.0"
    assert factor_of(using(folder / "b", "own_two", statement)) == 1.0


def test_a_helper_that_an_installed_module_hides_is_named(folder: Path) -> None:
    put(folder, "colorsys.py", 3.0)
    with pytest.raises(
        UserError, match=r"'own_one.py' imports 'colorsys': there is a module 'colorsys' already; choose"
    ):
        ablate.load(using(folder, "own_one", "from colorsys import FACTOR"), trust=True)


def test_files_from_two_folders_agree_on_their_helpers(folder: Path) -> None:
    put(folder, "own_factor.py", 3.0)
    put(folder / "below", "own_factor.py", 4.0)
    using(folder, "own_one")
    using(folder / "below", "own_two")
    message = r"'own_two.py' imports 'own_factor' from beside it, and 'own_one.py' another of that name; choose another"
    with pytest.raises(UserError, match=message):
        ablate.load(spec_of(folder, "own_one", "own_one", "below/own_two"), trust=True)
    shutil.copy(folder / "own_one.py", folder / "below")
    with pytest.raises(UserError, match=r"another file is called 'own_one.py'"):
        ablate.load(spec_of(folder, "own_one", "own_one", "below/own_one"), trust=True)


def test_a_modules_attribute_is_no_file_of_a_folder_that_is_called_as_the_module(folder: Path) -> None:
    (folder / "own_pack").mkdir()
    (folder / "own_pack" / "FACTOR.py").touch()
    put(folder, "own_pack.py", 3.0)
    assert factor_of(using(folder, "own_one", "from own_pack import FACTOR")) == 3.0


def test_a_users_own_import_is_no_part_of_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(folder))
    put(folder, "own_factor.py", 3.0)
    theirs = importlib.import_module("own_factor")
    put(folder, "own_factor.py", 4.0)
    assert factor_of(using(folder, "own_one")) == 4.0
    assert sys.modules["own_factor"] is theirs


@pytest.mark.parametrize("reaches", [False, True], ids=["elsewhere", "on the path"])
def test_what_no_statement_imports_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch, reaches: bool) -> None:
    if reaches:
        monkeypatch.syspath_prepend(str(folder))
    put(folder, "own_factor.py", 3.0)
    statement = "import importlib\nFACTOR = importlib.import_module('own_' + 'factor').FACTOR"
    said = "imports 'own_factor' from beside it by no statement" if reaches else "No module named 'own_factor'"
    for _ in range(2):
        with pytest.raises(UserError, match=rf"'own_one.py' .*{said}.*; from beside it are imported Python files that"):
            ablate.load(using(folder, "own_one", statement), trust=True)


def test_what_is_compiled_is_refused_and_an_environment_in_the_folder_is_not(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "lib").mkdir()
    (folder / "lib" / "own_installed.py").touch()
    monkeypatch.syspath_prepend(str(folder / "lib"))
    assert factor_of(using(folder, "own_one", "import own_installed\nFACTOR = 3.0")) == 3.0
    py_compile.compile(str(folder / "lib" / "own_installed.py"), str(folder / "own_compiled.pyc"))
    with pytest.raises(UserError, match=r"No module named 'own_compiled'; from beside it are imported Python files"):
        ablate.load(using(folder, "own_two", "from own_compiled import *\nFACTOR = 3.0"), trust=True)


@pytest.mark.parametrize("helper", ["own_factor.py", "own_factor/__init__.py"])
def test_a_helper_that_comes_and_goes_is_seen(folder: Path, helper: str) -> None:
    (folder / "own_factor").mkdir()
    statement = "try:\n    from own_factor import FACTOR\nexcept ImportError:\n    FACTOR = 2.0"
    spec = using(folder, "own_one", statement)
    before = known_by(spec)
    assert factor_of(spec) == 2.0
    put(folder, helper, 3.0)
    assert factor_of(spec) == 3.0
    assert known_by(spec) != before
    (folder / helper).unlink()
    assert factor_of(spec) == 2.0
    assert known_by(spec) == before


def test_a_file_that_failed_is_run_again_when_it_is_mended(folder: Path) -> None:
    put(folder, "own_factor.py", 3.0)
    spec = using(folder, "own_one")
    held = ablate.load(spec, trust=True)
    (folder / "own_factor.py").write_text("FACTOR = 1 / 0\n")
    with pytest.raises(UserError, match=r"'own_one.py' can't be run: ZeroDivisionError"):
        ablate.load(spec, trust=True)
    assert factor_in(as_written(held)) == 3.0
    put(folder, "own_factor.py", 4.0)
    assert factor_of(spec) == 4.0


def test_what_a_file_defines_no_more_is_known_no_more(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(folder, "own_factor.py", 3.0)
    spec = using(folder, "own_one")
    assert main(["check", str(spec), "--trust"]) == 0
    text = (folder / "own_one.py").read_text()
    (folder / "own_one.py").write_text(text.replace('name="own_one"', 'name="own_new"'))
    assert main(["check", str(spec), "--trust"]) == 2
    assert "unknown block 'own_one'" in capsys.readouterr().err
    (folder / "own_one.py").write_text(text)
    assert factor_of(spec) == 3.0
    (folder / "own_one.py").rename(folder / "own_other.py")
    assert factor_of(spec_of(folder, "own_one", "own_other")) == 3.0
    (folder / "own_one.py").write_text(text)
    with pytest.raises(UserError, match=r"'own_one' is defined in .*own_other.py and in .*own_one.py"):
        ablate.load(spec_of(folder, "own_one", "own_one"), trust=True)
    assert factor_of(spec_of(folder, "own_one", "own_other")) == 3.0


def test_an_edited_default_of_a_data_set_is_the_one_that_is_used(folder: Path) -> None:
    text = (
        "from ablate.datasets.fake import Fake\n\nclass Own(Fake, name='own_rain'):\n    class Params(Fake.Params):\n"
    )
    (folder / "spec.yaml").write_text(SPEC.format(use="[own_rain.py]", data="own_rain", block="act"))
    for noise in (0.25, 0.5):
        (folder / "own_rain.py").write_text(f"{text}        noise: float = {noise}\n")
        data = as_written(ablate.load(folder / "spec.yaml", trust=True)).data
        assert (data.params.noise, data.identity()["noise"]) == (noise, noise)


def test_a_block_of_two_folders_is_neither_for_the_other(folder: Path) -> None:
    for place, factor in (("a", 3.0), ("b", 4.0)):
        put(folder / place, "own_factor.py", factor)
    first, second = (using(folder / place, "own_one") for place in ("a", "b"))
    assert factor_of(first) == 3.0
    with pytest.raises(UserError) as caught:
        ablate.load(second, trust=True)
    places = f"block 'own_one' is defined in {first.with_suffix('.py')} and in {second.with_suffix('.py')}"
    assert places in str(caught.value)
    assert factor_of(first) == 3.0


def test_where_it_lies_changes_nothing(folder: Path) -> None:
    first = hashed(folder)
    moved = folder / "moved"
    moved.mkdir()
    for name in ("own_swirl.py", "spec.yaml"):
        shutil.copy(folder / name, moved / name)
    assert hashed(moved) == first
    (folder / "own_swirl.py").unlink()
    assert hashed(moved) == first
    assert not {str(folder), str(moved)} & set(sys.path)


def test_threads_may_read_specs_at_once(folder: Path) -> None:
    put(folder, "own_factor.py", 3.0)
    statement = "import time\ntime.sleep(0.05)\nfrom own_factor import FACTOR"
    specs = [using(folder, f"own_{number}", statement) for number in range(6)]
    output = sys.stdout
    with ThreadPoolExecutor(6) as pool:
        assert len(list(pool.map(lambda spec: ablate.load(spec, trust=True), specs))) == 6
    assert [factor_of(spec) for spec in specs] == [3.0] * 6
    assert sys.stdout is output


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
    (folder / "own_swirl.py").write_text(BLOCK.format(name="own_swirl", by=2.0).replace("x * self", "x + self"))
    with pytest.raises(UserError, match=rf"was trained with other code of block own_swirl: {told[1]['digest']}; here"):
        study.model(trust=True)


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
(kind,) = [node.block for node in trial.graph.nodes if node.block.name == "own_one"]
print(sys.modules[kind.__module__].factor(), trial.own_code == again.own_code)
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


@pytest.mark.parametrize("edited", [False, True])
def test_a_process_that_was_sent_a_file_can_read_it_too(
    folder: Path, monkeypatch: pytest.MonkeyPatch, edited: bool
) -> None:
    put(folder, "own_factor.py", 3.0)
    spec = using(folder, "own_one")
    trial = pickle.dumps(trial_of(as_written(ablate.load(spec, trust=True)), 0, Numerics()))
    monkeypatch.setattr(own_code, "_here", own_code._Process())
    for name in [name for name in sys.modules if name.startswith(own_code.PREFIX)]:
        del sys.modules[name]
    block._registry.pop("own_one")
    pickle.loads(trial)
    assert "own_one" in block._registry
    if edited:
        put(folder, "own_factor.py", 4.0)
    assert factor_of(spec) == (4.0 if edited else 3.0)


def as_it_runs(kind: type) -> Callable[[str], float]:
    """What a process of a pool makes of a class: a function of a name in its module."""
    return lambda name: float(vars(sys.modules[kind.__module__])[name])


def test_processes_of_a_pool_run_what_was_read(folder: Path) -> None:
    put(folder, "own_factor.py", 3.0)
    ablate.load(using(folder, "own_one"), trust=True)
    put(folder, "own_factor.py", 4.0)
    with Pool(1, as_it_runs, (block.find("own_one"),)) as pool:
        assert [done for _, done in pool.each(["FACTOR"])] == [3.0]


def test_a_variant_in_words_says_whose_code_it_is(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(folder / "spec.yaml"), "--trust", "--variant", "own"]) == 0
    digest = as_written(ablate.load(folder / "spec.yaml", trust=True)).outside["block own_swirl"]
    assert f"block own_swirl is code of your own, {digest[:8]}" in capsys.readouterr().out
