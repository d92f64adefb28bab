"""The figures of attention: maps of single pixels, single heads, and whole matrices."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from ablate.errors import listed
from ablate.explaining.per_variant import AttentionMaps, Looked, Looks
from ablate.explaining.pictures import MOST_DOWN, MOST_PANELS, Made, images_of, pictures_of, some, spread
from ablate.figures.maps import MOST_ACROSS, Map, Picture, maps_over_images, matrices

MOST_ASKED = 6
"""Rows of the attention's figure: images times pixels."""
MOST_HEADS = 3
"""Figures of single heads: of so many nodes."""


def _each_attention(looks: Looks) -> list[tuple[Looked, AttentionMaps]]:
    return [(looked, each) for looked in looks.by_variant for each in looked.attention]


def attention_of_pixels(looks: Looks) -> Made | None:
    all_ = [pair for pair in _each_attention(looks) if pair[1].maps is not None or pair[1].tokens is not None]
    if not all_:
        return None
    shown = spread(all_, MOST_ACROSS)
    asked: list[tuple[float, float] | None] = list(looks.pixels)
    if any(each.tokens is not None for _, each in all_):
        asked = [None, *asked]
    if all(each.maps is None for _, each in all_):
        asked = [None]
    # of a block with one query for all pixels it is the whole image that asks
    name = "class token" if any(each.tokens is not None and each.queries > 1 for _, each in all_) else "whole image"
    images = max(1, min(len(looks.index), MOST_ASKED // len(asked)))
    pictures, cells = [], []
    for row in range(images):
        for number, mark in enumerate(asked):
            base = pictures_of(looks, mark)[row]
            of_token = None in asked and number == 0
            pictures.append(Picture(base.pixels, (base.under[0], name) if of_token else base.under, mark))
            at = None if of_token else number - (None in asked)
            cells.append([_attention_cell(each, row, at, mark) for _, each in shown])
    text = (
        "What one pixel (the square) reads from each other: rows of the attention matrices, their mean over heads, "
        f"each map from its least value to its largest, which stands beneath it. {_checked([each for _, each in all_])}"
        + some(len(all_), len(shown), "nodes")
        + some(len(looks.index), images, "images")
    )
    arrays = images_of(looks)
    where = ", ".join(f"({y:.3g}, {x:.3g})" for y, x in looks.pixels)
    for number, (looked, each) in enumerate(all_):
        said = f"{looked.name}: {each.node}"
        if each.maps is not None:
            what = f"{said}, (images, heads, pixels, h, w); pixels at {where} of height and width"
            arrays[f"maps_{number}"] = (each.maps, what)
        if each.tokens is not None:
            arrays[f"token_{number}"] = (each.tokens, f"{said}, of the class token, (images, heads, h, w)")
    columns = [f"{looked.name}\n{each.node}" for looked, each in shown]
    return "attention", text, arrays, lambda figure: maps_over_images(figure, pictures, columns, cells)


def _attention_cell(each: AttentionMaps, row: int, pixel: int | None, mark: tuple[float, float] | None) -> Map | None:
    values = each.tokens if pixel is None else each.maps
    if values is None:
        return None
    own = values[row] if pixel is None else values[row][:, pixel]
    mean = own.mean(0)
    return Map(mean, (f"to {mean.max():.2g}",), mark=mark)


def _checked(every: Sequence[AttentionMaps]) -> str:
    distances = [each.apart for each in every if each.apart is not None]
    if not distances:
        return ""
    return f"A·v equals what the blocks computed to {max(distances):.0e} of the largest."


def single_heads(looks: Looks) -> Iterator[Made]:
    """Of each variant the last node with several heads."""
    last = {looked.name: (looked, each) for looked, each in _each_attention(looks) if each.heads > 1}
    mapped = [(a, b) for a, b in last.values() if b.maps is not None or b.tokens is not None]
    for number, (looked, each) in enumerate(mapped[:MOST_HEADS]):
        of_token = each.maps is None
        mark = None if of_token else looks.pixels[0]
        values = each.tokens if each.maps is None else each.maps[:, :, 0]
        assert values is not None
        heads = min(each.heads, MOST_ACROSS)
        pictures = pictures_of(looks, mark)[:MOST_DOWN]
        cells = [[Map(values[row, head], mark=mark) for head in range(heads)] for row in range(len(pictures))]
        asked = "all of it" if each.queries == 1 else "the class token" if of_token else "one pixel (the square)"
        text = (
            f"{looked.name}, {each.node}: what {asked} reads, by head, each map from its least value to its largest."
            + some(each.heads, heads, "heads")
            + some(len(looks.index), len(pictures), "images")
        )
        arrays = images_of(looks) | {"maps": (values, f"{looked.name}: {each.node}, (images, heads, h, w)")}
        columns, heading = [f"head {head + 1}" for head in range(heads)], f"{looked.name}\n{each.node}"
        act = partial(maps_over_images, pictures=pictures, columns=columns, cells=cells, heading=heading)
        yield f"heads-{number + 1}", text, arrays, act


def whole_matrices(looks: Looks) -> Made | None:
    all_ = [pair for pair in _each_attention(looks) if pair[1].matrix is not None and pair[1].queries > 1]
    if not all_:
        return None
    shown = spread(all_, MOST_PANELS)
    panels = []
    for looked, each in shown:
        assert each.matrix is not None
        heads = f", mean of {each.heads} heads" if each.heads > 1 else ""
        panels.append((f"{looked.name}{heads}\n{each.node}", each.matrix[0].mean(0)))
    large = [f"{a.name} {b.node}" for a, b in _each_attention(looks) if b.matrix is None]
    text = (
        f"Attention matrices for image no. {looks.index[0]}, each from 0 to its largest value: a row is one query, and "
        f"sums to one where the block takes a softmax. {_checked([each for _, each in all_])}"
        + (f" Too large to be kept whole: {listed(large[:4])}{' and more' if len(large) > 4 else ''}." if large else "")
        + some(len(all_), len(shown), "nodes")
    )
    arrays = {"index": images_of(looks)["index"]}
    for number, (looked, each) in enumerate(all_):
        assert each.matrix is not None
        arrays[f"matrix_{number}"] = (each.matrix, f"{looked.name}: {each.node}, (images, heads, queries, keys)")
    titles, values = [title for title, _ in panels], [matrix for _, matrix in panels]
    return "matrices", text, arrays, lambda figure: matrices(figure, titles, values)
