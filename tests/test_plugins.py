"""What installed packages add by their entry points."""

from __future__ import annotations

import importlib
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ablate
from ablate import block, plugins
from ablate.certify import Certifier
from ablate.cli import main
from ablate.data import kind
from ablate.design import as_written, study_plan, trial_hash
from ablate.errors import UserError
from ablate.numerics import Numerics
from ablate.plugins import BLOCKS, COLUMNS, DATA_SETS, PluginError
from ablate.prepare import load_data
from ablate.schema import spec_schema
from tests.conftest import TINY
from tests.installed import BLOCK, install

DATA = """\
from ablate.datasets.fake import Fake

class {name}Set(Fake, name="{name}"):
    Params = Fake.Params
"""
Install = Callable[..., None]


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Installs packages into a folder of the test's own; what they register is forgotten after it."""
    block.registry()
    kind.registry()
    for module in (block, kind):
        monkeypatch.setattr(module, "_registry", dict(module._registry))
    monkeypatch.setattr(plugins, "_warned", set())
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    known = set(sys.modules)
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))

    def place(distribution: str, entry_points: Any, modules: Any, version: str = "1.0") -> None:
        install(folder, distribution, entry_points, modules, version)
        importlib.invalidate_caches()
        plugins.forget()

    yield place
    for module in set(sys.modules) - known:
        if str(getattr(sys.modules[module], "__file__", "") or "").startswith(str(folder)):
            del sys.modules[module]
    plugins.forget()


def swirl(by: float = 2.0, name: str = "swirl") -> str:
    return BLOCK.format(name=name, by=by)


def study(**graph: Any) -> dict[str, Any]:
    return {
        "name": "study",
        "data": {"name": "fake", "shape": [3, 11, 13], "classes": 5, "count": {"train": 60, "test": 20}},
        "train": {"epochs": 1, "optimizer": {"name": "sgd", "lr": 0.1}},
        "network": {"graph": {"stem": {"block": "conv", "width": 7}, **graph, "head": {"block": "classifier"}}},
    }


def test_an_installed_block_is_used_by_its_name(installed: Install) -> None:
    installed("acme-blocks", {BLOCKS: {"swirl": "acme.parts:swirlBlock"}}, {"acme.parts": swirl()})
    network = ablate.build(ablate.load(study(body={"block": "swirl", "by": 3.0})))
    assert network.get_submodule("body").by == 3.0
    with pytest.raises(UserError, match=r"body\.bye: unknown parameter of block 'swirl'; did you mean 'by'"):
        ablate.build(ablate.load(study(body={"block": "swirl", "bye": 3.0})))


def test_nothing_is_imported_for_a_spec_that_uses_nothing_of_it(installed: Install) -> None:
    installed("acme-blocks", {BLOCKS: {"swirl": "acme.parts:swirlBlock"}}, {"acme.parts": swirl()})
    assert block.find("se").name == "se"
    assert "acme.parts" not in sys.modules


def test_lists_the_schema_and_hints_have_it(installed: Install, capsys: pytest.CaptureFixture[str]) -> None:
    installed("acme-blocks", {BLOCKS: {"swirl": "acme.parts:swirlBlock"}}, {"acme.parts": swirl()})
    assert main(["blocks"]) == 0
    assert "Scales by 2.0, as swirl does." in capsys.readouterr().out
    assert main(["blocks", "swirl"]) == 0
    assert "block.swirl" in spec_schema()["$defs"]
    with plugins.own_alone():
        assert "block.swirl" not in spec_schema()["$defs"]
    with pytest.raises(UserError, match="unknown block 'swril'; did you mean 'swirl'"):
        ablate.build(ablate.load(study(body={"block": "swril"})))


def test_an_installed_data_set_is_used_by_its_name(installed: Install) -> None:
    installed("acme-data", {DATA_SETS: {"rain": "acme_data:rainSet"}}, {"acme_data": DATA.format(name="rain")})
    spec = study()
    spec["data"]["name"] = "rain"
    assert as_written(ablate.load(spec)).data.data_set.__name__ == "rainSet"
    spec["data"]["name"] = "rains"
    with pytest.raises(UserError, match="unknown data set 'rains'; did you mean 'rain'"):
        as_written(ablate.load(spec))


def hashed() -> str:
    return trial_hash(as_written(ablate.load(study(body={"block": "swirl"}))), 1, "content", {"threads": 1})


def test_source_and_version_are_in_the_hash_of_what_uses_it_and_of_nothing_else(
    installed: Install, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hashes, plain = [], set()
    for source, version in ((swirl(2), "1.0"), (swirl(2), "1.1"), (swirl(2) + "# more\n", "1.0"), (swirl(2), "1.0")):
        for old in (tmp_path / "site").glob("*.dist-info"):
            shutil.rmtree(old)
        block._registry.pop("swirl", None)
        sys.modules.pop("acme_parts", None)
        installed("acme-blocks", {BLOCKS: {"swirl": "acme_parts:swirlBlock"}}, {"acme_parts": source}, version)
        hashes.append(hashed())
        plain.add(trial_hash(as_written(ablate.load(study())), 1, "content", {"threads": 1}))
    assert len(set(hashes)) == 3
    assert hashes[0] == hashes[3]
    assert len(plain) == 1


def test_the_certificate_names_package_version_and_digest(installed: Install) -> None:
    installed("acme-blocks", {BLOCKS: {"swirl": "acme.parts:swirlBlock"}}, {"acme.parts": swirl()}, "3.1")
    plan = study_plan(ablate.load(study(body={"block": "swirl"})))
    variant = plan.variants[0]
    data = load_data(variant.data, base=Path())
    certificate = Certifier(lambda _: data, Numerics()).certify(variant, None, passes=False)
    found = certificate.code["block swirl"]
    assert (found["distribution"], found["version"]) == ("acme-blocks", "3.1")
    assert found["digest"] == variant.outside["block swirl"]
    json.dumps(certificate.as_dict())


def test_a_block_that_cannot_be_imported_breaks_no_other_and_is_named_where_it_is_asked_for(
    installed: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    installed("acme-blocks", {BLOCKS: {"swirl": "acme.parts:swirlBlock"}}, {"acme.parts": swirl()})
    installed("bad-blocks", {BLOCKS: {"bent": "bent:Bent"}}, {"bent": "import there_is_no_such_thing\n"}, "0.3")
    said = "block 'bent' of bad-blocks 0.3 (bent:Bent) can't be imported: ModuleNotFoundError: No module named"
    for _ in range(2):
        assert "swirl" in block.registry()
    assert capsys.readouterr().err.count(f"warning: {said}") == 1
    ablate.build(ablate.load(study(body={"block": "swirl"})))
    with pytest.raises(UserError) as error:
        ablate.build(ablate.load(study(body={"block": "bent"})))
    assert f"network.graph.body.block: {said}" in str(error.value)
    with pytest.raises(KeyError, match=r"bad-blocks 0\.3"):
        block.find("bent")


def test_what_is_no_block_or_has_another_name_is_refused(installed: Install) -> None:
    names = {"wound": "parts:swirlBlock", "five": "parts:FIVE", "none": "parts:nothing"}
    installed("acme-blocks", {BLOCKS: names}, {"parts": f"{swirl()}\nFIVE = 5\n"})
    for name, said in (("wound", "calls itself 'swirl'"), ("five", "is no class"), ("none", "AttributeError")):
        with pytest.raises(KeyError, match=said):
            block.find(name)


def test_a_name_that_two_packages_claim_is_an_error_that_names_both(installed: Install) -> None:
    for package in ("one", "two"):
        installed(f"{package}-blocks", {BLOCKS: {"swirl": f"{package}:swirlBlock"}}, {package: swirl()})
    with pytest.raises(UserError) as error:
        ablate.build(ablate.load(study(body={"block": "swirl"})))
    assert "one-blocks 1.0 (one:swirlBlock) and by two-blocks 1.0 (two:swirlBlock)" in str(error.value)
    assert not plugins.plugins(BLOCKS)


def test_a_name_of_our_own_that_a_package_claims_is_an_error_that_names_both(installed: Install) -> None:
    installed("acme-blocks", {BLOCKS: {"se": "parts:seBlock"}}, {"parts": swirl(name="se")})
    with pytest.raises(UserError, match=r"block 'se' is one of ablate's own, and is claimed by acme-blocks 1\.0"):
        ablate.build(ablate.load(study(body={"block": "se"})))
    ablate.build(ablate.load(study(body={"block": "eca"})))


def test_a_data_set_that_cannot_be_used_says_why(installed: Install) -> None:
    installed("acme-data", {DATA_SETS: {"rain": "broken_data:Rain"}}, {"broken_data": "1 / 0\n"})
    installed("fake-data", {DATA_SETS: {"fake": "fakes:fakeSet"}}, {"fakes": DATA.format(name="fake")})
    for name, said in (("rain", "ZeroDivisionError"), ("fake", "ablate's own")):
        spec = study()
        spec["data"]["name"] = name
        with pytest.raises(UserError, match=said):
            as_written(ablate.load(spec))


def test_plugins_are_listed_without_an_import(installed: Install) -> None:
    installed("acme", {COLUMNS: {"ratio": "acme_columns:ratio"}}, {"acme_columns": "raise SystemExit('no')\n"})
    found = plugins.plugins(COLUMNS)["ratio"]
    assert (found.distribution, found.version, found.package) == ("acme", "1.0", "acme_columns")
    assert "acme_columns" not in sys.modules
    with pytest.raises(PluginError, match=r"column 'ratio' of acme 1\.0 \(acme_columns:ratio\) can't be imported: Sys"):
        found.load()


COLUMN = """\
def gain(row):
    if row.baseline is None:
        return None
    theirs = row.baseline.results
    return {seed: r["metrics"]["val.accuracy"] - theirs[seed]["metrics"]["val.accuracy"]
            for seed, r in row.results.items()}

gain.unit = "points"

def weight(row):
    return row.cost["params"]

def kind(row):
    return "with" if row.variant != "none" else None

def peek(row):
    return {seed: r["metrics"]["test.accuracy"] for seed, r in row.results.items()}

def share(row):
    return 1 / (row.cost["params"] - row.cost["params"])

number = 5
"""
NAMES = ("gain", "weight", "kind", "peek", "share", "number")


@pytest.fixture
def columns(installed: Install) -> None:
    installed("acme", {COLUMNS: {name: f"acme_columns:{name}" for name in NAMES}}, {"acme_columns": COLUMN})


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("columns")
    (folder / "tiny.yaml").write_text(TINY)
    spec = ablate.load(folder / "tiny.yaml", set={"train.epochs": 1, "ablation.seeds": 2})
    return ablate.sweep(spec, folder=folder / "study", executor="local", cache=False).folder


@pytest.mark.usefixtures("columns")
def test_an_installed_column_is_a_value_by_seed_a_number_or_a_text(swept: Path) -> None:
    opened = ablate.Study(swept)
    table = opened.values(["params", "gain", "weight", "kind"])
    accuracy = {
        record["name"]: [opened.results()[hash]["metrics"]["val.accuracy"] for hash in record["trials"].values()]
        for record in opened.variants
    }
    gain = dict(zip([cell.text for cell in table.column("variant")], table.column("gain"), strict=True))
    assert gain["none"] == type(gain["none"])()
    for name in ("se", "between"):
        first, second = (ours - theirs for ours, theirs in zip(accuracy[name], accuracy["none"], strict=True))
        half = 12.706204736 * abs(first - second) / 2
        assert gain[name].value == pytest.approx((first + second) / 2)
        assert gain[name].n == 2
        assert gain[name].interval is not None
        assert gain[name].interval.half_width == pytest.approx(half)
    header = next(column for column in table.columns if column.name == "gain")
    assert (header.unit, header.kind) == ("points", "estimate")
    assert [cell.value for cell in table.column("weight")] == [cell.value for cell in table.column("params")]
    assert [cell.text for cell in table.column("kind")] == ["", "with", "with"]


@pytest.mark.usefixtures("columns")
def test_a_spec_may_name_an_installed_column(tmp_path: Path, capsys: pytest.CaptureFixture[str], swept: Path) -> None:
    text = f"{TINY.partition('report:')[0]}report: {{columns: [params, weight]}}\n"
    (tmp_path / "tiny.yaml").write_text(text)
    assert main(["check", str(tmp_path / "tiny.yaml")]) == 0
    (tmp_path / "tiny.yaml").write_text(text.replace("weight", "weigth"))
    assert main(["check", str(tmp_path / "tiny.yaml")]) == 2
    assert "report.columns.1: 'weigth' is not one of: params, flops" in capsys.readouterr().err
    assert main(["report", str(swept), "--columns", "params,gain"]) == 0
    assert "gain (points)" in capsys.readouterr().out
    names = spec_schema()["properties"]["report"]["properties"]["columns"]["items"]["enum"]
    assert {"gain", "params"} <= {*names}
    with plugins.own_alone():
        assert "gain" not in json.dumps(spec_schema()["properties"]["report"])


@pytest.mark.usefixtures("columns")
def test_a_column_that_fails_fails_alone_and_says_so(swept: Path) -> None:
    table = ablate.Study(swept).values(["params", "share"])
    assert {cell.text for cell in table.column("share")} == {"failed"}
    assert "acme 1.0 (acme_columns:share) raises ZeroDivisionError" in table.column("share")[0].note
    assert table.column("params")[0].value


@pytest.mark.usefixtures("columns")
def test_a_column_sees_nothing_of_the_test_split_before_every_trial_has_a_result(swept: Path, tmp_path: Path) -> None:
    shutil.copytree(swept, tmp_path / "study")
    opened = ablate.Study(tmp_path / "study")
    assert opened.values(["peek"]).column("peek")[0].value is not None
    shutil.rmtree(tmp_path / "study" / "trials" / next(iter(opened.results())))
    peeked = ablate.Study(tmp_path / "study").values(["peek"]).column("peek")
    assert {cell.value for cell in peeked} == {None}
    assert "KeyError" in peeked[-1].note


@pytest.mark.usefixtures("columns")
def test_a_column_that_cannot_be_used_says_why(swept: Path, installed: Install) -> None:
    with pytest.raises(UserError, match=r"column 'number' of acme 1\.0 .* is no function of a row"):
        ablate.Study(swept).values(["number"])
    names = {"params": "bad_columns:x", "lost": "bad_columns:x"}
    installed("bad", {COLUMNS: names}, {"bad_columns": "import there_is_no_such_thing\n"})
    for name, said in (("params", "ablate's own"), ("lost", "can't be imported: ModuleNotFoundError")):
        with pytest.raises(UserError, match=said):
            ablate.Study(swept).values([name])
