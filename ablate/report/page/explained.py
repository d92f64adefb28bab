"""The section of the page on what the networks look at, as ``ablate explain`` left it in the study's folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ablate.report.page.drawings import inlined
from ablate.report.page.tables import ShownTable, shown
from ablate.report.values import Cell, Column, Table
from ablate.store import EXPLAINED, Study
from ablate.store.explained import read_explained

if TYPE_CHECKING:
    from markupsafe import Markup

MOST_FIGURES = 24
MOST_NAMED = 64
LONGEST_NAME = 60


@dataclass(frozen=True)
class Looked:
    """A picture; None where it can't be read."""

    name: str
    text: str
    picture: Markup | None


@dataclass(frozen=True)
class Section:
    """``about`` are terms with what is said of them; ``folder`` is where the arrays lie, as seen from the page."""

    about: tuple[tuple[str, str], ...]
    figures: tuple[Looked, ...]
    table: ShownTable | None
    folder: str = f"../{EXPLAINED}"


def explained(study: Study, *, hidden: bool) -> Section | None:
    """None where nothing was explained; what is damaged is told in ``study.damaged``.

    ``hidden``: nothing is to be told of the test split yet.
    """
    found = read_explained(study.folder)
    if found is None:
        return None
    study.damaged.update(found.damaged)
    record = found.record
    if not record:
        return None
    if hidden and record["split"] == "test":
        why = "They are of test images: until every trial has its result nothing is told of those."
        return Section((("Pictures", why),), (), None)
    figures = [
        Looked(each["name"], each["text"], _picture(found.pictures, each))
        for each in record["figures"][:MOST_FIGURES]
        if f"{each['name']}.svg" in record["files"]
    ]
    table = _reductions(record["reductions"])
    return Section(tuple(_about(record)), tuple(figures), shown("reductions-table", table, {}) if table else None)


def _picture(pictures: Mapping[str, bytes], figure: Mapping[str, Any]) -> Markup | None:
    svg = pictures.get(figure["name"])
    return None if svg is None else inlined(svg, f"x-{figure['name']}", f"Figure {figure['name']}")


def _about(record: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
    images = [f"{image['index']} ({image['class'][:LONGEST_NAME]})" for image in record["images"][:MOST_NAMED]]
    named = ", ".join(images)
    lines = [
        ("Images", f"of the {record['split']} split, {record['chosen']}: {named}"),
        ("Weights", f"those that the trials of seed {record['seed']} ended with"),
    ]
    layers = [f"{each['name']}: {each['layer']}" for each in record["variants"] if each.get("layer")]
    if layers:
        lines.append(("Grad-CAM reads", "; ".join(layers[:MOST_NAMED])))
    left_out = list(record["left_out"].items())
    if left_out:
        lines.append(("Left out", "; ".join(f"{name}: {why}" for name, why in left_out[:MOST_NAMED])))
    return lines


def _reductions(rows: Sequence[Mapping[str, Any]]) -> Table | None:
    if not rows:
        return None
    columns = (
        Column("node"),
        Column("gate"),
        Column("variant"),
        Column("reduction", "", "right", "number"),
        Column("hidden width", "", "right", "number"),
        Column("mean", "", "right", "number"),
        Column("SD across", "", "right", "number"),
        Column("SD over images", "", "right", "number"),
        Column("silent units", "", "right", "number"),
        Column("RMS weight", "", "right", "number"),
    )
    caption = (
        f"Gates by reduction ratio, over the first {rows[0]['images']:,} images of the split. SD across: of the gates' "
        "means, over channels (of a spatial gate, pixels). Silent: hidden units that are 0 on all of these images. RMS "
        "weight: of the hidden units' own."
    )
    return Table("Gates by reduction ratio", columns, tuple(map(_row, rows)), caption)


def _row(row: Mapping[str, Any]) -> tuple[Cell, ...]:
    def number(key: str, digits: int) -> Cell:
        value = row.get(key)
        return Cell("—") if value is None else Cell(f"{value:.{digits}f}", float(value))

    return (
        Cell(row["node"]),
        Cell(row["part"]),
        Cell(row["variant"]),
        number("reduction", 0),
        number("hidden", 0),
        number("mean", 4),
        number("across", 4),
        number("across_images", 4),
        number("silent", 0),
        number("weight", 4),
    )
