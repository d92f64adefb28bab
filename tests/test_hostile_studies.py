"""Studies that are as they were written, and not written by us: said in a line, never a traceback."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ablate import store
from ablate.errors import UserError
from ablate.figures import Figure
from ablate.figures.canvas import Images
from ablate.report import report_of, written
from ablate.store import Study
from ablate.store.records import sealed, spec_file
from tests.tabled import SPEC, build

Harm = Callable[[Path], None]


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return build(tmp_path, {"none": [97.0, 96.0, 98.0], "se": [97.5, 97.0, 98.2]})


def reseal(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """The record with this change, and the checksum of that."""
    record = json.loads(path.read_text())
    del record["checksum"]
    change(record)
    path.write_text(json.dumps(sealed(record)))


def tamper(study: Study, **changed: Any) -> None:
    """Give the second variant's record these keys."""
    reseal(study.folder / store.CERTIFICATES, lambda record: record["variants"][1].update(changed))


def first(study: Study) -> str:
    return str(study.variants[0]["trials"]["0"])


@pytest.mark.parametrize(
    ("changed", "where"),
    [
        ({"trials": ["0"]}, "variants.1.trials"),
        ({"trials": {"0 x": "0" * 32}}, "variants.1.trials.0 x"),
        ({"trials": {'"><x id="': "0" * 32}}, "variants.1.trials"),
        ({"cost": [1]}, "variants.1.cost"),
        ({"cost": {"params": "many"}}, "variants.1.cost.params"),
        ({"cost": {"flops": float("inf")}}, "variants.1.cost.flops"),
        ({"cost": {"flops": 10**290}}, "variants.1.cost.flops"),
        ({"levels": {"placement": ["se"]}}, "variants.1.levels.placement"),
        ({"name": None}, "variants.1.name"),
        ({"name": "none"}, "variants.1.name"),
        ({"baseline": "nowhere"}, "variants.1.baseline"),
        ({"control": {"of": "none"}}, "variants.1.control"),
        ({"patch": [["a"]]}, "variants.1.patch.0"),
        ({"certificate": "sound"}, "variants.1.certificate"),
        ({"certificate": {"keys": "all"}}, "variants.1.certificate.keys"),
        ({"certificate": {"passes": []}}, "variants.1.certificate.passes"),
        ({"certificate": {"passes": {"batch": 8, "first_loss": "low"}}}, "variants.1.certificate.passes.first_loss"),
        ({"certificate": {"difference": {"by_stage": {"stem": [1]}}}}, "variants.1.certificate.difference.by_stage"),
        ({"certificate": {"protocol": 7}}, "variants.1.certificate.protocol"),
        ({"certificate": {"code": {"block a": 7}}}, "variants.1.certificate.code.block a"),
        ({"data_hash": 7}, "variants.1.data_hash"),
    ],
    ids=str,
)
def test_a_sealed_record_of_another_shape_is_an_error_of_the_file(
    study: Study, changed: dict[str, Any], where: str
) -> None:
    tamper(study, **changed)
    with pytest.raises(UserError) as error:
        Study.open(study.folder)
    assert f"{store.CERTIFICATES} is damaged: {where}" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "spec",
    [
        {"report": []},
        {"report": {"interval": "wide"}},
        {"train": 7},
        {"ablation": {"seeds": "auto", "until": {"metric": "val.accuracy"}}},
        {"ablation": {"seeds": "auto"}},
        {"numerics": {"compile": True}},
        {"paper": [{"metric": "params", "values": {"none": {"plus_minus": 1.0}}}]},
        {"paper": {"title": "P"}},
        {"paper": [{"title": "P"}]},
        {"paper": [{"metric": "params", "values": {"none": [1]}}]},
        {"paper": [{"metric": "params", "values": {"none": 1.0}, "printed_to": -1.0}]},
        {"data": {"limit": [1]}},
        {"search": {"objectives": ["val.accuracy"]}},
    ],
    ids=str,
)
def test_a_sealed_spec_of_another_shape_is_an_error_of_the_file(study: Study, spec: dict[str, Any]) -> None:
    (study.folder / store.SPEC).write_bytes(spec_file({**SPEC, **spec}))
    with pytest.raises(UserError, match=f"{store.SPEC} is no study's: {next(iter(spec))}"):
        Study.open(study.folder)


def test_an_environment_of_another_shape_is_an_error_of_the_file(study: Study) -> None:
    reseal(study.folder / store.ENVIRONMENT, lambda record: record.update(environment=["linux"]))
    with pytest.raises(UserError, match=f"{store.ENVIRONMENT} is damaged"):
        Study.open(study.folder)


@pytest.mark.parametrize(
    "changed",
    [
        {"metrics": {"val.accuracy": "97"}},
        {"metrics": {"val.accuracy": 10**400}},
        {"metrics": {"val.accuracy": -1e300}},
        {"error": "boom"},
        {"code": ["a"]},
        {"test_readings": "one"},
        {"epochs": float("nan")},
    ],
    ids=lambda changed: str(changed)[:40],
)
def test_a_sealed_result_of_another_shape_is_a_damaged_row(study: Study, changed: dict[str, Any]) -> None:
    hash = first(study)
    reseal(study.trial_folder(hash) / store.RESULT, lambda record: record.update(changed))
    opened = Study.open(study.folder)
    report = report_of(opened)
    assert report.tables["table"].column("trials")[0].text == "2 of 3; 1 damaged"
    assert store.RESULT in opened.damaged[hash]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (f'{{"epoch": {10**400}}}', "line 2 is not JSON"),
        ('{"epoch": 1000000000000}', "1.epoch"),
        ('{"epoch": 0}', "1.epoch"),
        ('{"epoch": Infinity}', "1.epoch"),
        ('{"epoch": "2"}', "1.epoch"),
        ('{"val.error": 2.0}', "1.epoch"),
        ('{"epoch": 2, "val.error": [2.0]}', "1.val.error"),
        ('{"epoch": 2, "val.error": 1e308}', "1.val.error"),
    ],
    ids=lambda text: text[:40],
)
def test_epochs_that_none_has_are_damage_and_no_curve(study: Study, line: str, why: str) -> None:
    hash = first(study)
    result = study.result(hash)
    rows = ['{"epoch": 1, "val.error": 3.0}', line, '{"epoch": 3, "val.error": 2.0}']
    (study.trial_folder(hash) / store.METRICS).write_text("\n".join(rows) + "\n")
    study.finish(hash, {key: value for key, value in (result or {}).items() if key != "files"})
    opened = Study.open(study.folder)
    assert opened.metrics(hash) == []
    assert why in opened.damaged[hash]
    assert report_of(opened).tables["table"].column("trials")[0].text == "3 of 3"


def fifo(path: Path) -> None:
    os.mkfifo(path)


def link(path: Path) -> None:
    other = path.with_name("other")
    other.write_text(json.dumps(sealed({"format": store.FORMAT, "diagrams": {"f": "<svg/>"}})))
    path.symlink_to(other)


def large(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(100 * 1024 * 1024)


HARMS: list[tuple[Harm, str]] = [(fifo, "no file"), (link, "a link"), (Path.mkdir, "no file"), (large, "more than")]


@pytest.mark.parametrize(("harm", "why"), HARMS)
def test_pictures_that_are_no_file_of_ours_are_not_read(study: Study, harm: Harm, why: str) -> None:
    harm(study.folder / store.DIAGRAMS)
    opened = Study.open(study.folder)
    assert opened.diagrams() == {}
    assert why in opened.damaged[store.DIAGRAMS]
    assert store.DIAGRAMS in opened.verify()


@pytest.mark.parametrize("name", [store.CERTIFICATES, store.ENVIRONMENT, store.PROPOSALS])
def test_a_pipe_in_the_place_of_a_record_is_not_waited_for(study: Study, name: str) -> None:
    (study.folder / name).unlink(missing_ok=True)
    fifo(study.folder / name)
    with pytest.raises(UserError, match=f"{name}.*no file"):
        Study.open(study.folder)


@pytest.mark.parametrize("name", [store.METRICS, store.TRIAL, store.STATE])
def test_a_pipe_in_the_folder_of_a_trial_is_not_waited_for(study: Study, name: str) -> None:
    folder = study.trial_folder(first(study))
    (folder / store.RESULT).unlink()
    (folder / name).unlink(missing_ok=True)
    fifo(folder / name)
    opened = Study.open(study.folder)
    assert report_of(opened).tables["table"].column("trials")[0].text.startswith("2 of 3; 1 ")
    assert name in " ".join(opened.verify())


def test_a_pipe_in_the_place_of_the_readings_is_told(study: Study) -> None:
    fifo(study.folder / store.EXPOSURES)
    fifo(study.folder / store.EVENTS)
    assert (study.exposures(), study.events()) == ([], ([], 0))
    assert store.EXPOSURES in study.damaged


@pytest.mark.parametrize("content", [b"", b"\x00" * 97, b"PK\x03\x04", b"\x93NUMPY\x01\x00"], ids=repr)
def test_predictions_that_are_none_are_damage(study: Study, content: bytes) -> None:
    hash = first(study)
    result = study.result(hash) or {}
    (study.trial_folder(hash) / store.PREDICTIONS).write_bytes(content)
    study.finish(hash, {key: value for key, value in result.items() if key != "files"})
    assert study.predictions(hash) == {}
    assert store.PREDICTIONS in study.damaged[hash]


def test_the_numbers_of_a_figure_are_json_that_any_reader_takes(study: Study) -> None:
    numbers = {"a": [1.5, float("nan"), {"b": (float("-inf"), 7)}]}
    figure = Figure("made_up", numbers, Images(b"<svg/>", b""), "made up")
    paths = written(replace(report_of(study), figures=[figure]))
    text = next(path.read_text() for path in paths if path.name == "made_up.numbers.json")
    assert json.loads(text) == {"a": [1.5, None, {"b": [None, 7]}]}
    assert "NaN" not in text


def test_a_text_of_a_megabyte_is_cut_in_every_table(tmp_path: Path) -> None:
    long = "x" * 1_000_000
    paper = [{"title": long[:60_000], "metric": "val.accuracy", "values": {"none": 97.0}}]
    study = build(tmp_path, {"none": [97.0, 96.0], "se": ["crashed", 97.0]}, {"paper": paper})
    hash = study.variants[1]["trials"]["0"]
    error = {"type": long, "message": long, "traceback": long}
    reseal(study.trial_folder(hash) / store.RESULT, lambda record: record.update(error=error))
    paths = written(report_of(Study.open(study.folder)))
    sizes = {path.name: path.stat().st_size for path in paths if path.stem in ("table", "comparisons")}
    assert max(sizes.values()) < 50_000, sizes
