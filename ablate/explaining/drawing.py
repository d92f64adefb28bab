"""From what was looked at to figures, each with the arrays that it shows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ablate.explaining.attending import attention_of_pixels, single_heads, whole_matrices
from ablate.explaining.capturing import Gate
from ablate.explaining.choosing import Of
from ablate.explaining.learnt import Points
from ablate.explaining.per_variant import Looked, Looks
from ablate.explaining.pictures import MOST_DOWN, MOST_PANELS, Made, images_of, pictures_of, some, spread
from ablate.explaining.reducing import Reduced
from ablate.explaining.sources import shown_class
from ablate.figures.canvas import Images, draw
from ablate.figures.maps import (
    MOST_ACROSS,
    GateSpread,
    Map,
    channel_gates,
    joins,
    maps_over_images,
    reductions,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Shown:
    """A figure: ``arrays`` by name, with what each is in ``about``; ``text`` says what is to be seen."""

    name: str
    text: str
    images: Images
    arrays: dict[str, np.ndarray[Any, Any]]
    about: dict[str, str]


def figures_of(looks: Looks, of: Of, rows: Sequence[Reduced], learnt: dict[str, Any], title: str) -> Iterator[Shown]:
    """As far as there is anything to show."""

    def drawn(
        name: str,
        text: str,
        arrays: dict[str, tuple[np.ndarray[Any, Any], str]],
        act: Callable[[Figure], None],
    ) -> Shown:
        values = {key: value for key, (value, _) in arrays.items()}
        about = {key: said for key, (_, said) in arrays.items()}
        return Shown(name, text, draw(f"{title}: {name}", act), values, about)

    if cams := _gradcam(looks, of):
        yield drawn(*cams)
    for make in (attention_of_pixels, whole_matrices, _spatial_gates, _channel_gates):
        if found := make(looks):
            yield drawn(*found)
    for each in single_heads(looks):
        yield drawn(*each)
    if rows:
        yield drawn(*_reductions(rows))
    if learnt:
        yield drawn(*_joins(learnt))


def _gradcam(looks: Looks, of: Of) -> Made | None:
    all_ = [looked for looked in looks.by_variant if looked.cams is not None]
    if not all_:
        return None
    shown = all_[:MOST_ACROSS]
    pictures = pictures_of(looks)[:MOST_DOWN]
    cells = [[_cam(looks, looked, row) for looked in shown] for row in range(len(pictures))]
    target = "the image's own class" if of == "true" else "the class that the variant predicts"
    same = len({looked.layer for looked in all_}) == 1
    layers = str(all_[0].layer) if same else "; ".join(f"{each.name}: {each.layer}" for each in all_)
    text = (
        f"Grad-CAM for {target}, of the maps that each variant pools ({layers}), after ReLU; each map from its least "
        "value to its largest. Beneath it what the variant predicts, with its probability"
        f"{', and below that of the image’s own class where it is another' if of == 'true' else ''}."
        + _otherwise(looks)
        + some(len(all_), len(shown), "variants")
        + some(len(looks.index), len(pictures), "images")
    )
    arrays = images_of(looks)
    for number, each in enumerate(all_):
        assert each.cams is not None
        arrays[f"maps_{number}"] = (each.cams, f"{each.name}: Grad-CAM of {each.layer}, (images, h, w)")
        arrays[f"scores_{number}"] = (each.scores, f"{each.name}: softmax, (images, classes)")
        arrays[f"of_{number}"] = (each.explained, f"{each.name}: the classes that are explained")
    columns = [looked.name for looked in shown]
    return "gradcam", text, arrays, lambda figure: maps_over_images(figure, pictures, columns, cells)


def _otherwise(looks: Looks) -> str:
    """How many predictions are others than on record: rounding, where a trial was evaluated in bf16."""
    known = [(each.scores.argmax(1), each.recorded) for each in looks.by_variant if each.recorded is not None]
    differ = sum(int((mine != recorded).sum()) for mine, recorded in known)
    if not differ:
        return ""
    count = sum(len(recorded) for _, recorded in known)
    others = "1 is another than" if differ == 1 else f"{differ} are others than"
    return f" Of {count} predictions, made here in fp32, {others} on record."


def _cam(looks: Looks, looked: Looked, row: int) -> Map:
    assert looked.cams is not None
    scores, label = looked.scores[row], int(looks.labels[row])
    guess = int(scores.argmax())
    under = [f"{shown_class(looks.class_names, guess)} {scores[guess]:.2f}"]
    if guess != label:
        under.append(f"({shown_class(looks.class_names, label)} {scores[label]:.2f})")
    return Map(looked.cams[row], tuple(under), guess == label)


def _each_gate(looks: Looks, kinds: Sequence[str]) -> list[tuple[Looked, Gate]]:
    return [(looked, gate) for looked in looks.by_variant for gate in looked.gates if gate.kind in kinds]


def _gate_name(gate: Gate) -> str:
    return f"{gate.node} ({gate.part})" if gate.part else gate.node


def _limits(arrays: Sequence[np.ndarray[Any, Any]]) -> tuple[float, float]:
    """0 to 1, or as far as the values reach."""
    return min(0.0, *(float(a.min()) for a in arrays)), max(1.0, *(float(a.max()) for a in arrays))


def _spatial_gates(looks: Looks) -> Made | None:
    all_ = _each_gate(looks, ("spatial", "full"))
    if not all_:
        return None
    shown = spread(all_, MOST_ACROSS)
    pictures = pictures_of(looks)[:MOST_DOWN]
    # a gate of every channel and pixel is drawn by its mean over channels
    values = [gate.values.mean(1).numpy() for _, gate in shown]
    cells = [
        [Map(own[row], (f"{own[row].min():.2f} to {own[row].max():.2f}",)) for own in values]
        for row in range(len(pictures))
    ]
    text = (
        "Spatial gates: what a pixel is multiplied by, all on one scale; of gates that differ by channel, the mean."
        + some(len(all_), len(shown), "gates")
        + some(len(looks.index), len(pictures), "images")
    )
    alone = Counter((looked.name, gate.node) for looked, gate in shown)
    columns = [
        f"{looked.name}\n{gate.node if alone[looked.name, gate.node] == 1 else _gate_name(gate)}"
        for looked, gate in shown
    ]
    limits = _limits(values)
    return (
        "spatial-gates",
        text,
        images_of(looks) | _gate_arrays(all_),
        lambda figure: maps_over_images(figure, pictures, columns, cells, limits=limits),
    )


def _gate_arrays(gates: Sequence[tuple[Looked, Gate]]) -> dict[str, tuple[np.ndarray[Any, Any], str]]:
    return {
        f"gate_{number}": (gate.values.numpy(), f"{looked.name}: {_gate_name(gate)}, (images, C or 1, H or 1, W or 1)")
        for number, (looked, gate) in enumerate(gates)
    }


def _channel_gates(looks: Looks) -> Made | None:
    all_ = _each_gate(looks, ("channel", "full"))
    if not all_:
        return None
    shown = spread(all_, MOST_PANELS)
    rows = [
        f"{shown_class(looks.class_names, int(label))}, no. {index}"
        for label, index in zip(looks.labels, looks.index, strict=True)
    ]
    titles = [f"{looked.name}: {_gate_name(gate)}" for looked, gate in shown]
    values = [gate.values.mean((2, 3)).numpy() for _, gate in shown]
    text = (
        "Channel gates: what each channel is multiplied by, image by image, all on one scale; of gates that differ by "
        f"pixel, the mean.{some(len(all_), len(shown), 'gates')}"
    )
    arrays = images_of(looks) | _gate_arrays(all_)
    return "channel-gates", text, arrays, lambda figure: channel_gates(figure, titles, values, rows)


def _reductions(rows: Sequence[Reduced]) -> Made:
    by_node: dict[str, list[GateSpread]] = {}
    for row in rows:
        by_node.setdefault(f"{row.node} ({row.part})", []).append(
            GateSpread(row.variant, row.reduction, row.hidden, row.gates)
        )
    shown = dict(list(by_node.items())[:MOST_PANELS])
    text = (
        f"Gates by reduction ratio, their means over the first {rows[0].images} images of the split: a point for each "
        "channel (of a spatial gate, each pixel), bars for median and quartiles; in brackets the hidden width."
        + some(len(by_node), len(shown), "gates")
    )
    arrays = {
        f"gates_{number}": (row.gates, f"{row.variant}: {row.node} ({row.part}), reduction {row.reduction}")
        for number, row in enumerate(rows)
    }
    return "reductions", text, arrays, lambda figure: reductions(figure, shown)


def _joins(learnt: dict[str, dict[str, dict[str, Points]]]) -> Made:
    shown = dict(list(learnt.items())[:MOST_PANELS])
    ends = any(len(p) == 2 and p[1][0] > 1 for v in learnt.values() for n in v.values() for p in n.values())
    text = (
        "Learnt residual weights by epoch, a line for each seed (of one weight per channel, the mean)."
        + (" Dotted: only the start and the end are known." if ends else "")
        + some(len(learnt), len(shown), "variants")
    )
    arrays = {
        f"weight_{index}": (np.asarray(points, dtype=np.float64), f"{variant}: {node}, seed {seed}, (epoch, weight)")
        for index, (variant, node, seed, points) in enumerate(
            (variant, node, seed, points)
            for variant, nodes in learnt.items()
            for node, seeds in nodes.items()
            for seed, points in seeds.items()
        )
    }
    panels = {
        variant: {node: list(seeds.values()) for node, seeds in nodes.items()} for variant, nodes in shown.items()
    }
    return "joins", text, arrays, lambda figure: joins(figure, panels, ())
