"""Weights as a variant has them: resolved, held against its graph, and put into what is built from it.

Every network that starts is built by ``started``, so that nobody forgets the weights. What a trial carries is a
``Loading``: a worker reads the file again, and refuses one that changed since the plan was made.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import fx

from ablate.builder import build
from ablate.collect import Collector
from ablate.diagnose import shown
from ablate.errors import Problem, UserError
from ablate.graph import Graph
from ablate.weights.checkpoint import Checkpoint, read, said
from ablate.weights.cutting import Rules
from ablate.weights.matching import Match, complaints, match, slots_of
from ablate.weights.sources import Source, resolve

PATH = ("network", "init", "from")


class WeightsChanged(UserError):
    """A file of weights is not what it was when the study was planned."""


@dataclass(frozen=True)
class Loading:
    """The weights that one network of one seed starts from."""

    file: Path
    rename: tuple[tuple[str, str | tuple[str, ...]], ...]
    digest: str
    """Of what is loaded; see ``Match``."""

    def put(self, network: fx.GraphModule, graph: Graph) -> None:
        """Copy the weights into a network of this graph. ``WeightsChanged`` where they are not those of the digest."""
        found = self._matched(graph)
        tensors = network.state_dict(keep_vars=True)
        with torch.no_grad():
            for name, tensor in found.tensors.items():
                tensors[name].copy_(tensor.reshape(tensors[name].shape))

    def _matched(self, graph: Graph) -> Match:
        try:
            found, _ = match(read(self.file), dict(self.rename), graph)
        except UserError as error:
            raise WeightsChanged(error.problems) from None
        if found is None or found.digest != self.digest:
            raise WeightsChanged(_changed(self.file))
        return found


def _changed(file: Path) -> Problem:
    message = f"{said(file)} holds other weights than when the study was planned"
    return Problem(message, hint="put the file back, or start the command again")


@dataclass(frozen=True)
class Weights:
    """What ``network.init.from`` came to, for one graph."""

    text: str
    """As written."""
    source: Source
    rename: tuple[tuple[str, str | tuple[str, ...]], ...]
    strict: bool
    graph: Graph = field(repr=False)
    digest: str
    """Of what is loaded of the first seed, when the spec was read."""
    leaves_nothing: bool
    """Whether every parameter and buffer is loaded, or started by ``init.set``: the recipe then starts nothing."""

    @property
    def first_seed(self) -> int:
        """The seed whose weights stand for all in the variant's identity; each trial's hash has its own."""
        return min(self.source.seeds or (0,))

    def loading(self, seed: int) -> Loading:
        return Loading(self.source.file(seed), self.rename, self.matched(seed)[1].digest)

    def matched(self, seed: int) -> tuple[Checkpoint, Match]:
        """The file of a seed, and where its weights go. ``UserError`` where it does not fit."""
        checkpoint = read(self.source.file(seed))
        found, wrong = match(checkpoint, dict(self.rename), self.graph)
        if found is None:
            raise UserError([Problem(each.message, "network.init.rename", hint=each.hint) for each in wrong])
        if found.digest != self.digest and (self.source.seeds is None or seed == self.first_seed):
            raise WeightsChanged(_changed(checkpoint.path))
        wrong_weights = complaints(found, checkpoint) if self.strict else []
        if wrong_weights:
            raise UserError([Problem(message, ".".join(PATH), hint=hint) for message, hint in wrong_weights])
        return checkpoint, found

    def identity(self) -> str:
        """By content; see ``Match``."""
        return self.digest

    def in_words(self) -> str:
        """What of the network starts from where, in a sentence."""
        found = self.facts(self.first_seed)
        part = "all" if found["loaded"] == found["of"] else f"{found['loaded']} of {found['of']}"
        unused = f", and {len(found['left_over'])} of the file's are not used" if found["left_over"] else ""
        return f"Training starts from {self.text}: {part} parameters and buffers{unused}."

    def facts(self, seed: int) -> dict[str, Any]:
        """What starts from where, for the certificate: plain data, names in the order of the graph."""
        checkpoint, found = self.matched(seed)
        return {
            "from": self.text,
            "file": checkpoint.path.name,
            "taken": checkpoint.taken,
            "digest": found.digest,
            "loaded": len(found.loaded),
            "of": len(found.loaded) + len(found.missing) + len(found.unfit) + len(found.anew),
            "as_initialised": list(found.missing),
            "unfit": [f"{each.key} {each.why}: {each.name}" for each in found.unfit],
            "anew": list(found.anew),
            "left_over": list(found.extra),
            "converted": list(found.converted),
        }


def read_weights(
    text: str,
    rename: Rules,
    graph: Graph,
    collector: Collector,
    *,
    base: Path,
    strict: bool = True,
    trusted: bool = False,
    download: bool = False,
) -> Weights | None:
    """The weights that a spec names, held against its graph; what is wrong goes to ``collector``, with its place."""
    try:
        source = resolve(text, base, trusted=trusted, download=download)
        rules = tuple((pattern, names if isinstance(names, str) else tuple(names)) for pattern, names in rename.items())
        checkpoint = read(source.file(min(source.seeds or (0,))))
    except UserError as error:
        for problem in error.problems:
            collector.add(PATH, problem.message, problem.hint, key=False)
        return None
    found, wrong = match(checkpoint, dict(rules), graph)
    for each in wrong:
        path = ("network", "init", "rename")
        collector.add((*path, each.pattern) if each.pattern is not None else path, each.message, each.hint)
    if found is None:
        return None
    wrong_weights = complaints(found, checkpoint) if strict else []
    if not strict and not any(slot.is_parameter and slot.name in found.loaded for slot in slots_of(graph)):
        near = ", ".join(shown(name) for name in list(checkpoint.tensors)[:3]) or "nothing"
        wrong_weights = [("no weight of the file has a name and shape of a parameter's", f"the file has {near}, …")]
    for message, hint in wrong_weights:
        collector.add(PATH, message, hint, key=False)
    if wrong_weights:
        return None
    # Of several files only the first was looked at: without strict, another may hold less.
    leaves_nothing = not (found.lacking or found.unfit) and (strict or source.seeds is None)
    return Weights(text, source, rules, strict, graph, found.digest, leaves_nothing)


def started(graph: Graph, *, seed: int, recipe: str, loading: Loading | None = None) -> fx.GraphModule:
    """The network of a graph as its training starts: initialised by name, and then the weights that it starts from."""
    network = build(graph, seed=seed, recipe=recipe)
    if loading is not None:
        loading.put(network, graph)
    return network
