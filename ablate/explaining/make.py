"""``explained/`` of a study: what its networks look at, as pictures, as arrays, and as a record of both."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ablate.analysis.arms import arms_of
from ablate.analysis.widths import is_complete
from ablate.design import StudyPlan
from ablate.errors import Problem, UserError
from ablate.explaining.choosing import Wanted
from ablate.explaining.drawing import Shown, figures_of
from ablate.explaining.learnt import joins_by_epoch
from ablate.explaining.per_variant import Looked, Looks, look
from ablate.explaining.reducing import Reduced, reduced
from ablate.explaining.sources import Sources, shown_class
from ablate.findings import is_search
from ablate.store import Study
from ablate.store.explained import save_explained


@dataclass(frozen=True)
class Explanation:
    """What was written: ``paths`` (the record's first), ``record``, and the reductions' rows in it."""

    paths: list[Path]
    record: dict[str, Any]


def explain(plan: StudyPlan, study: Study, wanted: Wanted) -> Explanation:
    """Look at the study's networks, and write ``explained/`` anew; readings of the test split go on record.

    ``UserError`` for whatever was named and is not there: a variant, its weights, an image, a class, a node.
    """
    check_explainable(study, wanted)
    sources = Sources.of(plan, study, wanted)
    # reproducible to the last bit on one machine: sums are in one order
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        looks = look(sources, wanted)
        rows = reduced(sources, looks)
        learnt = joins_by_epoch(sources, [looked.name for looked in looks.by_variant])
    finally:
        torch.set_num_threads(threads)
    if sources.split == "test":  # before anything is written of it
        count = max([len(looks.index), *(row.images for row in rows)])
        for looked in looks.by_variant:
            study.expose(
                by="explain", trial=looked.trial, variant=looked.name, seed=looks.seed, epoch=None, images=count
            )
    title = str(study.spec.get("name") or study.folder.name)
    figures = list(figures_of(looks, wanted.of, rows, learnt, title))
    record = _record(looks, wanted, rows, figures)
    files: dict[str, bytes] = {}
    for figure in figures:
        files[f"{figure.name}.svg"], files[f"{figure.name}.png"] = figure.images.svg, figure.images.png
        files[f"{figure.name}.npz"] = _packed(figure.arrays)
    return Explanation(save_explained(study.folder, record, files), record)


def check_explainable(study: Study, wanted: Wanted) -> None:
    """``UserError``: a search's trials, or the test split of a study that is not done."""
    if is_search(study):
        message = f"{study.folder} is a search: of its trials no two are meant to be compared image by image"
        raise UserError(Problem(message, hint="sweep the best one beside a baseline, and explain that study"))
    if wanted.split == "test" and not is_complete(study, arms_of(study)):
        message = f"{study.folder} is not done: until every trial has its result nothing is told of the test split"
        raise UserError(Problem(message, hint="finish the sweep, or look at --split val"))


def _packed(arrays: Mapping[str, np.ndarray[Any, Any]]) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **dict(arrays))  # type: ignore[arg-type]  # its stub takes a name for a flag
    return buffer.getvalue()


def _record(looks: Looks, wanted: Wanted, rows: Sequence[Reduced], figures: Sequence[Shown]) -> dict[str, Any]:
    return {
        "seed": looks.seed,
        "split": looks.split,
        "of": wanted.of,
        "chosen": _how_chosen(wanted),
        "images": [
            {"index": index, "label": int(label), "class": shown_class(looks.class_names, int(label))}
            for index, label in zip(looks.index, looks.labels, strict=True)
        ],
        "pixels": [list(pixel) for pixel in looks.pixels],
        "variants": [_of_variant(looks, looked) for looked in looks.by_variant],
        "left_out": looks.left_out,
        "reductions": [row.as_record() for row in rows],
        "figures": [{"name": each.name, "text": each.text, "arrays": each.about} for each in figures],
    }


def _how_chosen(wanted: Wanted) -> str:
    if wanted.images:
        return "by number"
    said = [f"of class {wanted.of_class}"] if wanted.of_class is not None else []
    if wanted.disagree is not None:
        said.append(f"that {wanted.disagree[0]} and {wanted.disagree[1]} take for different classes")
    return f"the first {' '.join(said)}" if said else "the first of each class"


def _of_variant(looks: Looks, looked: Looked) -> dict[str, Any]:
    guesses = looked.scores.argmax(1)
    return {
        "name": looked.name,
        "trial": looked.trial,
        "layer": looked.layer,
        "recorded": None if looked.recorded is None else [int(guess) for guess in looked.recorded],
        "predictions": [
            {
                "predicted": int(guess),
                "class": shown_class(looks.class_names, int(guess)),
                "probability": round(float(scores[guess]), 4),
                "of_label": round(float(scores[label]), 4),
            }
            for guess, scores, label in zip(guesses, looked.scores, looks.labels, strict=True)
        ],
        "attention": [
            {"node": a.node, "heads": a.heads, "queries": a.queries, "keys": a.keys, "apart": a.apart}
            for a in looked.attention
        ],
        "gates": [{"node": g.node, "part": g.part, "kind": g.kind} for g in looked.gates],
    }
