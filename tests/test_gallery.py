"""The specs of ``specs/gallery``: sound, short, certified, trainable, and as docs/gallery.md says."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

from ablate.design import study_plan
from ablate.prepare import Prepared, prepare
from ablate.spec import load
from ablate.train import train

ROOT = Path(__file__).resolve().parent.parent
MOST_LINES = 60


def _page_builder() -> Any:
    found = importlib.util.spec_from_file_location("build_gallery", ROOT / "docs" / "build_gallery.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules[found.name] = module
    found.loader.exec_module(module)
    return module


gallery = _page_builder()
STUDIES = {file.stem: file for file in gallery.studies()}
PROMISED = {
    *("senet_placement", "senet_stages", "senet_reduction", "senet_operators"),
    *("cbam_channel", "cbam_spatial", "cbam_order", "non_local", "convnext_roadmap", "resnet_d"),
    *("preactivation_shortcuts", "preactivation_order", "stochastic_depth", "vit_heads", "vit_position"),
    *("compound_scaling", "cnntention_residual", "aicnn_table3", "aicnn_table4", "train_attention_only"),
}


def test_every_table_that_is_promised_is_there() -> None:
    assert STUDIES.keys() >= PROMISED


@pytest.mark.parametrize("file", sorted((ROOT / "specs" / "gallery").glob("*.yaml")), ids=lambda file: file.stem)
def test_a_gallery_spec_is_short_and_names_its_source(file: Path) -> None:
    lines = file.read_text().splitlines()
    assert len(lines) < MOST_LINES
    head = " ".join(line for line in lines if line.startswith("#"))
    assert any(mark in head for mark in ("arXiv:", "doi:", "CNNtention", "AICNN"))


@pytest.mark.parametrize("name", STUDIES)
def test_a_table_is_as_the_page_says(name: str) -> None:
    """Number of variants, parameters and FLOPs at full size, and the paper's values beside them."""
    file = STUDIES[name]
    plan = study_plan(load(file))
    rows = gallery.rows(plan)
    page = gallery.PAGE.read_text()
    assert gallery.line(file, rows, (len(rows), len(rows))) in page, "run `make gallery`"
    assert gallery.section(file, plan, rows) in page, "run `make gallery`"


@pytest.mark.parametrize("name", STUDIES)
def test_every_variant_is_certified_and_trains(name: str) -> None:
    prepared = prepare(study_plan(load(STUDIES[name], profile="tiny")))
    assert not prepared.failures
    statuses = {trial.variant: _status(prepared, trial) for trial in _of_the_first_seed(prepared)}
    assert set(statuses.values()) == {"finished"}, statuses


def _of_the_first_seed(prepared: Prepared) -> list[Any]:
    return [trial for trial in prepared.trials if trial.seed == prepared.plan.seeds[0]]


def _status(prepared: Prepared, trial: Any) -> str:
    return str(train(trial, prepared.data_of(trial.variant)).result["status"])
