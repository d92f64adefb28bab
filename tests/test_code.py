"""What code a result is owed to: our sources by one digest, and others' sources in the hash of what uses them."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from ablate import block, code
from ablate.code import PACKAGE, READERS, code_digest, outside_digest, outside_digests
from ablate.data import augment, kind
from ablate.design import as_written, study_plan, trial_hash
from ablate.spec import load
from tests.conftest import TINY

BLOCK = """\
from ablate import Block, BlockParams, Composite
from torch import nn

class Params(BlockParams):
    width: int = 8

class Twice(Block, name="outside_twice"):
    def __init__(self, params, shape):
        super().__init__()
    def forward(self, x):
        return 2 * x

class Ours(Composite, name="outside_of_ours"):
    @classmethod
    def expand(cls, scope, params, x):
        return scope.add("act", "act", x)

class Theirs(Composite, name="outside_of_theirs"):
    @classmethod
    def expand(cls, scope, params, x):
        return scope.add("twice", "outside_twice", x)
"""
DATA = """\
from ablate.data.kind import DataSet
from ablate.datasets.fake import Fake

class Set(Fake, name="{name}"):
    Params = Fake.Params
"""
AUGMENT = """\
from ablate.data.augment import Augmentation
from tests.test_code import halves

class Flip(Augmentation, name="outside_flip"):
    draw = halves

    def apply(self, x, draws):
        return x.flip(3)
"""


def halves(self: Any, count: int, stream: Any) -> Any: ...


Bring = Callable[..., Any]


@pytest.fixture
def bring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bring:
    """Writes a module into a folder of its own and imports it; what it registers is forgotten after the test."""
    for registry, held in ((block.registry, (block, "_registry")), (kind.registry, (kind, "_registry"))):
        registry()
        monkeypatch.setattr(*held, dict(getattr(*held)))
    augment.augmentations()
    monkeypatch.setattr(augment, "_augmentations", dict(augment._augmentations))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.syspath_prepend(str(tmp_path))

    def brought(source: str, name: str = "brought", **beside: str) -> Any:
        for other, text in {name: source, **beside}.items():
            file = tmp_path.joinpath(*other.split(".")).with_suffix(".py")
            file.parent.mkdir(exist_ok=True)
            file.write_text(text)
            monkeypatch.delitem(sys.modules, other.removesuffix(".__init__"), raising=False)
        importlib.invalidate_caches()
        return importlib.import_module(name)

    return brought


def hashed(graph: dict[str, Any] | None = None, **data: Any) -> str:
    nodes = {"stem": {"block": "conv", "width": 7}, **(graph or {}), "head": {"block": "classifier"}}
    spec = {
        "name": "study",
        "data": {"name": "fake", "shape": [3, 11, 13], "classes": 5, "count": {"train": 60, "test": 20}, **data},
        "train": {"epochs": 1, "optimizer": {"name": "sgd", "lr": 0.1}},
        "network": {"graph": nodes},
    }
    return trial_hash(as_written(load(spec)), 1, "content", {"threads": 1})


def using(name: str) -> str:
    return hashed({"body": {"block": name}})


def test_trials_of_our_own_blocks_keep_the_hashes_that_studies_have_stored(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(TINY.replace("val: 0.25}", "val: 0.25, augment: [horizontal_flip]}"))
    plan = study_plan(load(tmp_path / "tiny.yaml"))
    assert {variant.name: trial_hash(variant, 1, "content", {"threads": 1}) for variant in plan.variants} == {
        "none": "944707a97bd176dc4c34d2c3d63aa9ad",
        "se": "04f879ae6243de6dec73295c6a3b96f4",
        "between": "fec27bc5410cd1c2f41f4d3c313d1b8f",
    }


def test_a_block_from_outside_is_known_by_its_source(bring: Bring) -> None:
    bring(BLOCK)
    before, plain = using("outside_twice"), hashed()
    bring(BLOCK.replace("2 * x", "3 * x"))
    assert using("outside_twice") != before
    bring(BLOCK)
    assert using("outside_twice") == before
    assert hashed() == plain


def test_a_composite_from_outside_is_known_by_the_leaves_that_it_places(bring: Bring) -> None:
    bring(BLOCK)
    before = {name: using(name) for name in ("outside_of_ours", "outside_of_theirs")}
    bring(BLOCK.replace("2 * x", "3 * x"))
    assert using("outside_of_ours") == before["outside_of_ours"]
    assert using("outside_of_theirs") != before["outside_of_theirs"]


def test_a_data_set_and_an_augmentation_from_outside_are_known_by_their_sources(bring: Bring) -> None:
    bring(DATA.format(name="outside_set"))
    bring(AUGMENT, "flips")
    before = [hashed(name="outside_set"), hashed(augment=["outside_flip"])]
    bring(DATA.format(name="outside_set") + "# another\n")
    bring(AUGMENT.replace("flip(3)", "flip(2)"), "flips")
    after = [hashed(name="outside_set"), hashed(augment=["outside_flip"])]
    assert not set(before) & set(after)


@pytest.mark.parametrize(
    ("name", "statement", "helper"),
    [
        ("brought", "from helper import FACTOR", "helper"),
        ("brought", "import between", "helper"),
        ("pack.brought", "from .helper import FACTOR", "pack.helper"),
        ("pack.brought", "from pack import helper", "pack.helper"),
    ],
)
def test_what_its_file_imports_from_beside_it_counts_too(bring: Bring, name: str, statement: str, helper: str) -> None:
    beside = {"between": "import helper", "unused": "", "pack.__init__": ""}
    digests = [
        outside_digest(bring(f"{statement}\n{BLOCK}", name, **{**beside, helper: text, "unused": more}).Twice)
        for text, more in (("FACTOR = 2", ""), ("FACTOR = 3", ""), ("FACTOR = 2", "# more"))
    ]
    assert digests[0] == digests[2] != digests[1]


def test_a_base_from_another_file_counts_and_so_does_nothing_of_torch(bring: Bring) -> None:
    bases = "from torch import nn\n\nclass Base(nn.Module):\n    half = {half}\n"
    digests = []
    for half in (0.5, 0.25):
        base = bring(bases.format(half=half), "base").Base
        bring("")
        digests.append(outside_digest(type("Derived", (base,), {"__module__": "brought"})))
    assert digests[0] != digests[1]
    assert outside_digest(block.find("se")) is None


def test_where_it_lies_changes_nothing(bring: Bring, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = outside_digest(bring(BLOCK).Twice)
    shutil.copytree(tmp_path, tmp_path / "moved")
    monkeypatch.syspath_prepend(str(tmp_path / "moved"))
    monkeypatch.delitem(sys.modules, "brought")
    moved = importlib.import_module("brought")
    assert "moved" in str(moved.__file__)
    assert outside_digest(moved.Twice) == here


@pytest.mark.parametrize(
    ("source", "digest"),
    [
        (BLOCK, lambda: using("outside_twice")),
        (DATA.format(name="outside_set"), lambda: hashed(name="outside_set")),
        (AUGMENT, lambda: hashed(augment=["outside_flip"])),
    ],
    ids=["block", "data set", "augmentation"],
)
def test_what_is_edited_after_its_import_is_known_by_what_was_imported(
    bring: Bring, tmp_path: Path, source: str, digest: Callable[[], str]
) -> None:
    bring(source)
    before = digest()
    bring(source)  # anew: its digest has not been asked for
    with (tmp_path / "brought.py").open("a") as file:
        file.write("\n# edited\n")
    assert digest() == before
    bring(source + "\n# edited\n")
    assert digest() != before


def test_processes_compare_what_each_imports_by_itself(bring: Bring) -> None:
    twice = bring(BLOCK).Twice
    there = outside_digests([twice, block.find("se"), typed()])
    assert there == {"brought.Twice": outside_digest(twice)}
    assert outside_digests([bring(BLOCK.replace("2 * x", "3 * x")).Twice]) != there
    twice.__module__ = "__main__"
    assert outside_digests([twice]) == {}


PROMPT = """\
import math, pydantic, threading, types
FACTORS = {{"one": [{table}]}}
SPACE = types.SimpleNamespace(deep=[{space}])
def step(x):
    return further(x) + 1 if x else step(x - 1)
def further(x):
    return math.exp(x) {sign} 1
def by(count):
    def wrap(function):
        return lambda *a: function(*a) * count
    return wrap
class Above:
    height = {height}
{blank}class Typed(Above):
    rates = ({rate}, "a")
    class Params(pydantic.BaseModel):
        width: int | None = {width}
    def stepped(self, x):
        return [step(each) + FACTORS["one"][0] + SPACE.deep[0] for each in x]
    @by({by})
    def wrapped(self, x):
        return super().wrapped(x)
    def forward(self, x, scale={scale}):
        if x in {{"one", "two", "three"}}:
            return [x * {factor} for _ in range(3)]
        return x
    @classmethod
    def made(cls):
        return lambda: {inner}
    class Within:
        depth = {depth}
"""
TYPED: dict[str, Any] = {"blank": "", "rate": 0.5, "scale": 1, "factor": 2, "inner": 5, "depth": 7, "table": 11}
TYPED |= {"space": 17, "sign": "+", "height": 19, "width": 23, "by": 29}


def typed(*, more: str = "", **changed: Any) -> Any:
    """A class that has no file, as of a prompt."""
    names = {"__name__": "prompt"}
    exec(PROMPT.format(**TYPED | changed) + more, names)
    return names["Typed"]


@pytest.mark.parametrize("changed", sorted(TYPED.keys() - {"blank"}))
def test_a_class_without_a_file_is_known_by_all_that_it_uses(changed: str) -> None:
    another: dict[str, Any] = {changed: "-" if changed == "sign" else 31}
    assert outside_digest(typed(**another)) != outside_digest(typed())


def test_where_a_class_was_typed_changes_nothing() -> None:
    kind = typed()
    kind.Params(width=3)
    assert outside_digest(typed(blank="\n\n")) == outside_digest(kind)


def test_what_no_other_process_can_be_told_of_is_this_process_s_own() -> None:
    more = "    lock = threading.Lock()\n    def locked(self):\n        return self.lock\n"
    kind = typed(more=more)
    here = outside_digest(kind)
    assert outside_digest(kind) == here != outside_digest(typed(more=more))


def test_tensors_are_known_by_their_numbers() -> None:
    more = "    import torch\n    weights = torch.tensor([1.5, {}], dtype=torch.{})\n"
    kinds = [typed(more=more.format(*numbers)) for numbers in ((2, "float32"), (3, "float32"), (2, "bfloat16"))]
    kinds += [typed(more=f"    import numpy\n    weights = numpy.array([1.5, {number}])\n") for number in (2, 3)]
    assert len({*map(outside_digest, kinds)}) == 5
    assert outside_digest(typed(more=more.format(2, "float32"))) == outside_digest(kinds[0])


def test_what_it_uses_may_change_after_it_was_typed() -> None:
    kind = typed()
    before = outside_digest(kind)
    kind.stepped.__globals__["step"] = lambda x: x
    assert outside_digest(kind) != before


def test_a_class_typed_after_a_script_is_not_known_by_the_script(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    main = ModuleType("__main__")
    main.__file__ = str(tmp_path / "script.py")
    Path(main.__file__).write_text("")
    monkeypatch.setitem(sys.modules, "__main__", main)
    digests = []
    for number in (1, 2):
        exec(f"class Typed:\n    def number(self):\n        return {number}", vars(main))
        digests.append(outside_digest(main.Typed))
    assert digests[0] != digests[1]


def test_digests_are_the_same_in_every_process(bring: Bring, tmp_path: Path) -> None:
    printed = "import here; from ablate.code import *; print(*map(outside_digest, [here.Here, Typed]))"
    here = bring("class Here:\n    sides = {3, 5, 7}\n", "here")
    digests = [outside_digest(here.Here), outside_digest(typed())]
    script = f"__name__ = 'prompt'\n{PROMPT.format(**TYPED)}\n{printed}"
    environment = os.environ | {"PYTHONHASHSEED": "13", "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
    assert done.stdout.split() == digests, done.stderr


def test_our_digest_changes_with_what_trains_and_not_with_what_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def digest() -> str:
        code_digest.cache_clear()
        return code_digest()

    monkeypatch.setattr(code, "PACKAGE", tmp_path / "ablate")
    shutil.copytree(Path(code.__file__).parent, tmp_path / "ablate", ignore=shutil.ignore_patterns("__pycache__"))
    try:
        before = digest()
        (tmp_path / "ablate" / "report" / "render.py").write_text("# another")
        (tmp_path / "ablate" / "words.py").unlink()
        assert digest() == before
        (tmp_path / "ablate" / "blocks" / "act.py").rename(tmp_path / "ablate" / "blocks" / "acts.py")
        renamed = digest()
        assert renamed != before
        with (tmp_path / "ablate" / "train.py").open("a") as file:
            file.write("\n")
        assert digest() not in (before, renamed)
    finally:
        code_digest.cache_clear()


def test_our_digest_is_of_what_was_imported(tmp_path: Path) -> None:
    """Where the edit comes between the import and the first that asks."""
    shutil.copy(code.__file__, tmp_path / "code.py")

    def imported() -> Any:
        spec = spec_from_file_location("copied", tmp_path / "code.py")
        assert spec is not None
        assert spec.loader is not None
        spec.loader.exec_module(module := module_from_spec(spec))
        return module

    before, unasked = imported().code_digest(), imported()
    (tmp_path / "train.py").write_text("")
    assert unasked.code_digest() == before != imported().code_digest()


def test_nothing_that_makes_a_result_is_taken_for_a_reader() -> None:
    import grimp

    graph = grimp.build_graph("ablate", exclude_type_checking_imports=True, cache_dir=None)
    makers = {"ablate.train", "ablate.processes", "ablate.actors", "ablate.design", "ablate.execute"}
    makers |= {name for name in graph.modules if name.split(".")[1:2] in (["blocks"], ["datasets"], ["augmentations"])}
    makers |= {below for name in makers for below in graph.find_upstream_modules(name, as_package=True)}
    readers = {f"ablate.{name.removesuffix('.py')}" for name in READERS}
    assert readers <= graph.modules
    assert not {name for name in makers if ".".join(name.split(".")[:2]) in readers}


def test_what_only_reads_results_is_there() -> None:
    """A name that is no file any more would let an edit there disown every cached result."""
    assert {name for name in READERS if not (PACKAGE / name).exists()} == set()
