"""Each variant's network with the weights of one seed, on the same images: predictions, Grad-CAM, attention, gates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import fx

from ablate.design import Variant
from ablate.errors import Problem, UserError
from ablate.explaining.cams import grad_cam, layer_of
from ablate.explaining.capturing import Attention, Gate, Seen, seen
from ablate.explaining.choosing import SplitName, Wanted, chosen_images
from ablate.explaining.sources import Sources, normalised
from ablate.graph import Graph
from ablate.pattern import Pattern, nearest

Array = np.ndarray[Any, Any]
MOST_VARIANTS = 24
MOST_VALUES = 1 << 19
"""Of an image's attention matrix over all heads: of a larger one only the rows that are asked about are kept."""
DEFAULT_PIXELS = ((0.5, 0.5), (0.25, 0.25))
"""As parts of the image's height and width: the middle, and that of the upper left quarter."""


@dataclass(frozen=True)
class AttentionMaps:
    """Of one node: what the pixels that are asked about read from each key, (B, h, pixels, height, width).

    ``tokens`` likewise of the first class token, (B, h, height, width); ``matrix`` is all of it, (B, h, N, M), where it
    is small. ``apart``: by what A v differs from what the block computed, relative to the largest.
    """

    node: str
    maps: Array | None
    tokens: Array | None
    matrix: Array | None
    heads: int
    queries: int
    keys: int
    apart: float | None

    @classmethod
    def of(cls, attention: Attention, pixels: Sequence[tuple[float, float]]) -> AttentionMaps:
        """``pixels``: parts of the image's height and width."""
        matrix, extra = attention.matrix, attention.extra
        _, heads, queries, keys = matrix.shape
        maps = tokens = None
        if attention.keys is not None:
            over_pixels = matrix[..., extra:].reshape(*matrix.shape[:3], *attention.keys)
            rows = _rows(attention, pixels)
            maps = over_pixels[:, :, rows].numpy() if rows else None
            tokens = over_pixels[:, :, 0].numpy() if extra or queries == 1 else None
        kept = matrix.numpy() if heads * queries * keys <= MOST_VALUES else None
        return cls(attention.node, maps, tokens, kept, heads, queries, keys, attention.apart)


def _rows(attention: Attention, pixels: Sequence[tuple[float, float]]) -> list[int]:
    """The queries in which these parts of the image lie."""
    if attention.queries is None:
        return []
    height, width = attention.queries
    return [attention.extra + int(y * height) * width + int(x * width) for y, x in pixels]


def _joined(parts: Sequence[AttentionMaps]) -> AttentionMaps:
    """Those of single images, in their order."""
    first = parts[0]
    distances = [part.apart for part in parts if part.apart is not None]
    stacked = {
        name: None if getattr(first, name) is None else np.concatenate([getattr(part, name) for part in parts])
        for name in ("maps", "tokens", "matrix")
    }
    return replace(first, **stacked, apart=max(distances, default=None))  # type: ignore[arg-type]


@dataclass
class Looked:
    """What one variant makes of the images; numbers are of images, in their order."""

    variant: Variant
    trial: str
    scores: Array
    """Softmax, (B, classes)."""
    layer: str | None
    cams: Array | None
    """(B, h, w), at least 0."""
    explained: Array
    """The class of each that Grad-CAM explains."""
    recorded: Array | None = None
    """The classes that its trial took them for, where that is on record: it may have computed in another precision."""
    attention: list[AttentionMaps] = field(default_factory=list)
    gates: list[Gate] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.variant.name

    @property
    def graph(self) -> Graph:
        return self.variant.network.graph


@dataclass
class Looks:
    """All variants on the images."""

    seed: int
    split: SplitName
    index: list[int]
    pictures: Array
    """uint8 (B, H, W, C)"""
    labels: Array
    class_names: tuple[str, ...]
    pixels: list[tuple[float, float]]
    """Whose attention is asked about, as parts of the height and width."""
    by_variant: list[Looked]
    left_out: dict[str, str]
    """Variants that have no weights → why."""


def look(sources: Sources, wanted: Wanted) -> Looks:
    """Everything, of the variants that have weights; ``UserError`` where none has, or one that was named has not."""
    names = _variants(sources, wanted)
    found: list[tuple[str, fx.GraphModule, Variant]] = []
    left_out: dict[str, str] = {}
    for name in names:
        try:
            sources.trial(name)
            found.append((name, *sources.network(name)))
        except UserError as error:
            if wanted.variants:
                raise
            left_out[name] = "; ".join(problem.message for problem in error.problems)
    if not found:
        raise UserError(
            [Problem(f"no variant of {sources.study.folder} can be looked at: {next(iter(left_out.values()))}")]
        )
    if len(found) > MOST_VARIANTS:
        raise UserError(Problem(f"{len(found)} variants: at most {MOST_VARIANTS}", hint="name some by --variants"))
    split = sources.images(found[0][0])
    names_of = sources.data(found[0][0]).class_names
    predicted = {name: sources.predicted(name) for name in wanted.disagree or ()}
    index = chosen_images(wanted, split.labels, names_of, predicted)
    rows = np.asarray(index)
    pictures, labels = split.batch(rows).transpose(0, 2, 3, 1), split.labels[rows]
    pixels = _pixels(wanted.pixels, pictures.shape[1], pictures.shape[2])
    looks = Looks(sources.seed, sources.split, index, pictures, labels, names_of, pixels, [], left_out)
    matched: set[str] = set()
    for name, network, variant in found:
        looks.by_variant.append(_looked(sources, wanted, looks, network, variant, name, matched))
    if unmatched := [pattern for pattern in wanted.nodes if pattern not in matched]:
        graph = looks.by_variant[-1].graph
        near = nearest(unmatched[0], [node.name for node in graph.nodes])
        raise UserError(Problem(f"--nodes {unmatched[0]} matches nothing in these variants", hint=f"nearest: {near}"))
    if wanted.nodes and not any(each.attention or each.gates for each in looks.by_variant):
        names_said = ", ".join(wanted.nodes)
        raise UserError(
            Problem(
                f"--nodes {names_said}: no attention and no gate among these nodes", hint="leave --nodes out to see all"
            )
        )
    return looks


def _variants(sources: Sources, wanted: Wanted) -> list[str]:
    every = [record["name"] for record in sources.study.variants]
    for name in (*wanted.variants, *(wanted.disagree or ())):
        sources.record(name)
    if wanted.variants:
        return list(dict.fromkeys(wanted.variants))
    return [name for name in every if not sources.record(name).get("duplicate_of")]


def _looked(
    sources: Sources,
    wanted: Wanted,
    looks: Looks,
    network: fx.GraphModule,
    variant: Variant,
    name: str,
    matched: set[str],
) -> Looked:
    split = sources.images(name)
    graph = variant.network.graph
    if max(looks.index) >= len(split) or not np.array_equal(split.labels[looks.index], looks.labels):
        raise UserError(Problem(f"'{name}' is on other images", hint="choose variants of one data set by --variants"))
    x = normalised(split, sources.data(name), looks.index)
    nodes = nodes_of(graph, wanted.nodes, matched)
    # one at a time, since matrices of all would not fit
    passes: list[Seen] = []
    attention: list[list[AttentionMaps]] = []
    for one in torch.split(x, 1):
        found = seen(network, graph, one, nodes)
        attention.append([AttentionMaps.of(each, looks.pixels) for each in found.attention])
        passes.append(replace(found, attention=[]))
    scores = torch.cat([found.scores for found in passes]).softmax(1)
    of = scores.argmax(1) if wanted.of == "predicted" else torch.from_numpy(looks.labels)
    layer = layer_of(graph, wanted.layer, name)
    cams = grad_cam(network, graph, layer, x, of) if layer is not None else None
    looked = Looked(variant, sources.trial(name), scores.numpy(), layer, cams, of.numpy())
    if sources.split == "test":
        stored = sources.study.predictions(looked.trial).get("predicted")
        looked.recorded = None if stored is None else stored[looks.index]
    looked.attention = [_joined(each) for each in zip(*attention, strict=True)]
    for each in zip(*(found.gates for found in passes), strict=True):
        looked.gates.append(Gate(each[0].node, each[0].part, torch.cat([gate.values for gate in each])))
    return looked


def _pixels(wanted: Sequence[tuple[int, int]], height: int, width: int) -> list[tuple[float, float]]:
    for row, column in wanted:
        if not (0 <= row < height and 0 <= column < width):
            raise UserError(f"--pixel {row},{column}: the images have {height} rows and {width} columns, from 0")
    return [((row + 0.5) / height, (column + 0.5) / width) for row, column in wanted] or list(DEFAULT_PIXELS)


def nodes_of(graph: Graph, patterns: Sequence[str], matched: set[str] | None = None) -> frozenset[str]:
    """The nodes that a pattern selects, or that are in a scope that it selects; without patterns all."""
    if not patterns:
        return frozenset(node.name for node in graph.nodes)
    found: set[str] = set()
    for text in patterns:
        try:
            places = graph.select(Pattern(text))
        except ValueError as error:
            raise UserError(f"--nodes {text}: {error}") from None
        if places and matched is not None:
            matched.add(text)
        found |= {node.name for place in places for node in graph.in_scope(place)}
    return frozenset(found)
