"""Which weight of a file goes to which parameter or buffer of a graph's network, and what is left over."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import lru_cache
from math import isinf, isnan
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ablate.block import INIT_RECIPES, Block, BlockParams, Shape
from ablate.diagnose import shown
from ablate.graph import Graph, Node
from ablate.weights.checkpoint import Checkpoint, is_plain
from ablate.weights.cutting import Rules, cut, cuts
from ablate.weights.rename import Wrong, new_names

MOST_LINES = 20
"""Of an error: so many weights of each kind are named, the rest counted."""
MOST_COMPARED = 5_000
BATCHES = "num_batches_tracked"
"""Batch norm's count of the batches that it saw: torch has it since 0.4.1, and files from before load without."""


class Slot(NamedTuple):
    """A parameter or buffer of a network, by its name there: what a weight must be to go there."""

    name: str
    shape: Shape
    dtype: torch.dtype
    is_parameter: bool


class Unfit(NamedTuple):
    """A weight of the file whose name is right and that does not fit."""

    name: str
    key: str
    why: str


@dataclass(frozen=True)
class Match:
    """Where each weight goes. Names are the network's; ``extra`` has those of the file, after renaming."""

    loaded: Mapping[str, str]
    """Name in the network → name in the file."""
    missing: tuple[str, ...]
    extra: tuple[str, ...]
    unfit: tuple[Unfit, ...]
    anew: tuple[str, ...]
    """What ``init.set`` starts, whatever the file has."""
    converted: tuple[str, ...]
    """What the file holds in another precision."""
    digest: str
    """128 bits of SHA-256 over what is loaded: its values, and where in the canonical graph they go."""
    tensors: Mapping[str, Tensor] = field(repr=False)
    """What is loaded, by name in the network; its shape may lack axes of size 1 at the end, or have more."""
    counts_batches: bool = True
    """Whether the file has any count of batch norm's batches; torch reads one that has none, and so do we."""

    @property
    def lacking(self) -> tuple[str, ...]:
        """The missing ones that are a mistake: not batch norm's counts, where the file is from before these."""
        return tuple(name for name in self.missing if self.counts_batches or not name.endswith(f".{BATCHES}"))

    @property
    def is_whole(self) -> bool:
        return not (self.lacking or self.extra or self.unfit)


def names_of(graph: Graph) -> dict[str, str]:
    """The network's own names of its parameters and buffers → those that its weights have elsewhere."""
    found: dict[str, str] = {}
    for module, node in _modules(graph).items():
        found |= {
            f"{module}.{slot.name}": node.block.elsewhere(node.params, module, slot.name) for slot in _slots(node)
        }
    return found


def slots_of(graph: Graph) -> list[Slot]:
    """Every parameter and buffer of the graph's network, in the order of the graph. Nothing is allocated."""
    return [slot for slots in _by_module(graph).values() for slot in slots]


def _by_module(graph: Graph) -> dict[str, list[Slot]]:
    return {
        module: [slot._replace(name=f"{module}.{slot.name}") for slot in _slots(node)]
        for module, node in _modules(graph).items()
    }


def _modules(graph: Graph) -> dict[str, Node]:
    """Each module, with the first node that calls it."""
    modules: dict[str, Node] = {}
    for node in graph.nodes:
        modules.setdefault(node.module, node)
    return modules


def _slots(node: Node) -> tuple[Slot, ...]:
    # mypy takes the module's __hash__ for the class's
    return _slots_of(node.block, node.params.model_dump_json(), node.shapes)  # type: ignore[arg-type]


@lru_cache(maxsize=65_536)
def _slots_of(block: type[Block], params_json: str, shapes: tuple[Shape, ...]) -> tuple[Slot, ...]:
    params: BlockParams = block.Params.model_validate_json(params_json)
    with torch.device("meta"):
        module = block.make(params, *shapes)
    parameters = {name for name, _ in module.named_parameters(remove_duplicate=False)}
    return tuple(
        Slot(name, tuple(tensor.shape), tensor.dtype, name in parameters)
        for name, tensor in module.state_dict().items()
    )


def started_anew(graph: Graph) -> set[str]:
    """What ``init.set`` starts: of a recipe all that a node holds, of anything else its parameters."""
    found: set[str] = set()
    for node in graph.nodes:
        if node.start is not None:
            whole = node.start.kind in INIT_RECIPES
            found |= {f"{node.module}.{slot.name}" for slot in _slots(node) if whole or slot.is_parameter}
    return found


def match(checkpoint: Checkpoint, rename: Rules, graph: Graph) -> tuple[Match | None, list[Wrong]]:
    """Hold the weights of a file, renamed, against a graph. Where a rule is wrong there is no match."""
    if cuts(rename):
        checkpoint, wrong = _in_parts(checkpoint, tuple(rename.items()))
        rename = {}
        if wrong:
            return None, wrong
    renamed, wrong = new_names(checkpoint.tensors, {pattern: str(name) for pattern, name in rename.items()})
    if wrong:
        return None, wrong
    by_name = {name: key for key, name in renamed.items()}
    theirs, anew = names_of(graph), started_anew(graph)
    loaded: dict[str, str] = {}
    missing: list[str] = []
    unfit: list[Unfit] = []
    converted: list[str] = []
    slots = {slot.name: slot for slot in slots_of(graph)}
    for name, slot in slots.items():
        key = by_name.get(theirs[name])
        if name in anew:
            continue
        if key is None:
            missing.append(name)
        elif why := _unfit(checkpoint.tensors[key], slot) or _unsound(checkpoint, key, slot):
            unfit.append(Unfit(name, key, why))
        else:
            loaded[name] = key
            converted += [name] if checkpoint.tensors[key].dtype != slot.dtype else []
    known = set(theirs.values())
    extra = tuple(name for name in by_name if name not in known)
    digest = _digest(checkpoint, loaded, graph)
    started = tuple(name for name in slots if name in anew)
    tensors = {name: checkpoint.tensors[key] for name, key in loaded.items()}
    counts = any(name.endswith(f".{BATCHES}") for name in by_name)
    return Match(loaded, tuple(missing), extra, tuple(unfit), started, tuple(converted), digest, tensors, counts), []


@lru_cache(maxsize=2)
def _in_parts(checkpoint: Checkpoint, rules: tuple[tuple[str, Any], ...]) -> tuple[Checkpoint, list[Wrong]]:
    """The checkpoint after rules of which some cut; once for each, since it remembers what was digested."""
    tensors, wrong = cut(checkpoint.tensors, dict(rules))
    return Checkpoint(checkpoint.path, tensors, checkpoint.taken, checkpoint.beside), wrong


def _shape(shape: Iterable[int]) -> Shape:
    """Without the axes of size 1 at its end: a matrix is the 1 × 1 convolution with its values."""
    sizes = list(shape)
    while sizes and sizes[-1] == 1:
        sizes.pop()
    return tuple(sizes)


def _unfit(tensor: Tensor, slot: Slot) -> str:
    """Why a tensor can't go there; empty where it can."""
    if not is_plain(tensor):  # of which some have no shape to ask for
        return "is nested, sparse, quantised, or without values"
    if _shape(tensor.shape) != _shape(slot.shape):
        return f"has shape {tuple(tensor.shape)}, and the network's is {slot.shape}"
    if tensor.is_floating_point() != slot.dtype.is_floating_point or tensor.is_complex():
        return f"holds {_kind(tensor.dtype)}, and the network's {_kind(slot.dtype)}"
    return ""


def _unsound(checkpoint: Checkpoint, key: str, slot: Slot) -> str:
    """Why values of the right kind and shape are no weights: they would be trained, and reported, as any others."""
    if not slot.dtype.is_floating_point:
        return ""
    least, largest = checkpoint.bounds(key, slot.dtype)
    # A buffer may hold infinities on purpose: a mask that attention adds.
    if isnan(least) or ((slot.is_parameter or _is_statistic(slot)) and isinf(max(-least, largest))):
        converted = checkpoint.tensors[key].dtype != slot.dtype
        return f"holds values that are not finite{f' as {_kind(slot.dtype)}' if converted else ''}"
    if slot.name.endswith(".running_var") and least < 0:
        return f"holds a variance below 0 ({least:.3g})"
    return ""


def _is_statistic(slot: Slot) -> bool:
    return slot.name.endswith((".running_mean", ".running_var"))


def _kind(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _digest(checkpoint: Checkpoint, loaded: Mapping[str, str], graph: Graph) -> str:
    """By canonical numbers of modules, so that one network has one digest whatever its nodes are called."""
    numbers = {name: number for number, name in enumerate(dict.fromkeys(graph.seeding_names))}
    rows = []
    for module, slots in _by_module(graph).items():
        for slot in slots if module in numbers else []:
            if slot.name in loaded:
                digest = checkpoint.digest(loaded[slot.name], slot.dtype, slot.shape)
                rows.append([numbers[module], slot.name.removeprefix(f"{module}."), digest])
    return hashlib.sha256(json.dumps(sorted(rows)).encode()).hexdigest()[:32]


def complaints(found: Match, checkpoint: Checkpoint) -> list[tuple[str, str]]:
    """(message, hint) of each weight that is missing, left over, or does not fit."""
    free = list(found.extra[:MOST_COMPARED])
    said: list[tuple[str, str]] = []
    for name in found.lacking[:MOST_LINES]:
        said.append((f"the file has no weight for '{name}'", _nearest(name, free, "nearest in the file")))
    said += _rest(len(found.lacking), "weights of the network are missing in the file")
    for name in found.extra[:MOST_LINES]:
        hint = _nearest(name, found.lacking[:MOST_COMPARED], "nearest that lacks one")
        said.append((f"the file's {shown(name)} belongs to no weight of the network", hint))
    said += _rest(len(found.extra), "weights of the file belong to none of the network")
    said += [(f"the file's {shown(each.key)} {each.why}: '{each.name}'", "") for each in found.unfit[:MOST_LINES]]
    said += _rest(len(found.unfit), "weights of the file do not fit")
    if said:
        said[-1] = (said[-1][0], "; ".join(filter(None, [said[-1][1], _advice(found, checkpoint)])))
    return said


def _advice(found: Match, checkpoint: Checkpoint) -> str:
    left_over = all(name.startswith("module.") for name in found.extra)  # by a rule that is there, none is
    if left_over and found.extra and all(name.startswith("module.") for name in checkpoint.tensors):
        return r"every name begins with 'module.' (DataParallel): rename: {'module\.(.*)': '\1'}"
    return "init.rename maps names, init.set starts nodes anew, and strict: false loads what matches"


def _rest(count: int, what: str) -> list[tuple[str, str]]:
    return [(f"{count:,} {what} in all", "")] if count > MOST_LINES else []


def _nearest(name: str, names: Iterable[str], label: str) -> str:
    near = get_close_matches(name, list(names), n=1, cutoff=0.4)
    return f"{label}: {shown(near[0])}" if near else ""
