"""Pictures of a study's networks: kept with its records, and never taken for whole where they are not."""

from __future__ import annotations

from pathlib import Path

import pytest

from ablate.errors import UserError
from ablate.store import DIAGRAMS, Study
from tests.stores import SPEC, VARIANTS, flip

PICTURES = {"f" * 32: "<svg/>", "e" * 32: "<svg>é</svg>"}


def create(folder: Path, pictures: dict[str, str] | None = None) -> Study:
    return Study.create(folder / "placement", SPEC, VARIANTS, {}, pictures)


def test_they_are_read_back_and_stay_where_a_study_goes_on_without_any(tmp_path: Path) -> None:
    assert create(tmp_path, PICTURES).diagrams() == PICTURES
    assert create(tmp_path).diagrams() == PICTURES
    assert create(tmp_path, {}).diagrams() == {}


def test_a_study_without_them_is_sound(tmp_path: Path) -> None:
    study = create(tmp_path)
    assert study.diagrams() == {}
    assert study.damaged == {}
    assert study.verify() == {}


def test_a_damaged_file_is_left_out_and_told(tmp_path: Path) -> None:
    study = create(tmp_path, PICTURES)
    assert study.verify() == {}
    whole = (study.folder / DIAGRAMS).read_bytes()
    flip(study.folder / DIAGRAMS)
    assert study.diagrams() == {}
    assert DIAGRAMS in study.damaged
    assert DIAGRAMS in Study.open(study.folder).verify()
    (study.folder / DIAGRAMS).write_bytes(whole)
    assert study.diagrams() == PICTURES
    assert study.damaged == {}


def test_one_of_a_later_ablate_is_refused(tmp_path: Path) -> None:
    study = create(tmp_path, PICTURES)
    (study.folder / DIAGRAMS).write_text('{"format": 99, "diagrams": {}}')
    with pytest.raises(UserError, match="format 99"):
        Study.open(study.folder)
