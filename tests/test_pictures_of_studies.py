"""A study begins with pictures of its networks, since a report can build none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ablate import prepare
from ablate.design import study_plan
from ablate.spec import load

SPEC: dict[str, Any] = {
    "name": "pictures",
    "data": {"name": "fake", "shape": [1, 7, 7], "classes": 3, "count": {"train": 11, "test": 5}},
    "train": {"epochs": 1, "batch_size": 5, "optimizer": {"name": "sgd", "lr": 0.1}},
    "network": {"graph": {"stem": {"block": "conv", "width": 2}, "head": {"block": "classifier"}}},
    "ablation": {
        "seeds": 1,
        "design": "variants",
        "variants": {
            "plain": {},
            "slow": {"train.optimizer.lr": 0.01},
            "wide": {"network.graph.stem.width": 5},
        },
    },
}


def test_each_network_is_drawn_once_and_titled_by_all_who_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    variants = study_plan(load(SPEC)).variants
    pictures = prepare.diagrams_of(variants)
    assert list(pictures) == [variants[0].network.graph.fingerprint, variants[2].network.graph.fingerprint]
    first, second = pictures.values()
    assert "plain, slow" in first
    assert "conv 2×" in first
    assert "conv 5×" in second
    monkeypatch.setattr(prepare, "MOST_DIAGRAMS", 1)
    assert list(prepare.diagrams_of(variants)) == list(pictures)[:1]


def test_a_study_is_made_with_its_pictures_and_what_each_variant_changes(tmp_path: Path) -> None:
    study = prepare.create_study(prepare.prepare(study_plan(load(SPEC)), folder=tmp_path / "study", measure=False))
    fingerprints = {record["certificate"]["fingerprint"] for record in study.variants}
    assert study.diagrams().keys() == fingerprints
    assert [record["patch"] for record in study.variants] == [
        [],
        [["train.optimizer.lr", 0.01]],
        [["network.graph.stem.width", 5]],
    ]
