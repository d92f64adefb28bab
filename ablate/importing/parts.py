"""A traced model in parts that can be nodes of our graph: each reads tensors that keep the batch axis, and gives one.

What lies between two such values (sizes, tuples, a tensor of windows) belongs to the part that ends it. Most parts are
one module or one function.
"""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx, nn

from ablate.graph import module_attribute_clash
from ablate.importing.tracing import MODE, Trace, TraceError

MOST_STEPS = 2_000


@dataclass(frozen=True)
class Ref:
    """In the arguments of a step: the part's input ``index`` (``-1`` and below), or the result of step ``index``."""

    index: int


@dataclass(frozen=True)
class Step:
    """One operation of a part. ``target`` is a callable, a method's name, or the local name of a module or tensor."""

    kind: str
    """``function``, ``method``, ``module`` or ``tensor`` (a parameter, buffer or constant that is read)."""
    target: Any
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Part:
    """What becomes one node."""

    name: str
    inputs: tuple[str, ...]
    """The parts that it reads; ``""`` is the model's input."""
    steps: tuple[Step, ...]
    modules: dict[str, str]
    """Local name → path in the model."""
    tensors: dict[str, str]
    """Local name of a parameter or buffer that is read outside its module → path in the model."""
    probes: frozenset[str] = frozenset()
    """Those of which only the type or the device is read, and no value."""
    alone: str | None = None
    """The path of the module that is the whole part: called once, with its inputs and nothing else."""


@dataclass(frozen=True)
class Parts:
    parts: tuple[Part, ...]
    """In the order of the model's own calls."""
    output: str
    scopes: dict[str, str]
    """Module that was traced through → the part that gives its output (``""``: the model's input)."""
    repeats: dict[str, int]
    numbered: dict[str, tuple[str, ...]]
    """Module that is called more than once → the names of its calls."""
    inside: dict[str, str]
    """Module that can't be selected → the part that it is inside of."""


def divided(model: nn.Module, trace: Trace) -> Parts:
    """The parts of a traced model. ``TraceError`` where its output, or a module's, is not one tensor."""
    output = _output(trace)
    ends = _ends(trace, output)
    regions = {end: _region(trace, end) for end in ends}
    _refuse_split(regions)
    names = _names(trace, ends, {path for path, _ in model.named_modules()})
    parts = tuple(_part(trace, model, end, regions[end], names) for end in ends)
    scopes = {}
    for path, returned in trace.scopes.items():
        if path and len(returned) == 1 and returned[0] in names:
            scopes[path] = names[returned[0]]
    numbered = _numbered(trace, ends, names)
    return Parts(parts, names[output], scopes, _repeats(model), numbered, _inside(model, parts, scopes))


def _inside(model: nn.Module, parts: tuple[Part, ...], scopes: dict[str, str]) -> dict[str, str]:
    """What a part calls or reads and is no place: modules of modules, and those of which only weights are read."""
    found: dict[str, str] = {}
    for part in parts:
        for path in part.modules.values():
            found |= {inner: part.name for inner, _ in model.get_submodule(path).named_modules(prefix=path)}
        found |= {path.rpartition(".")[0]: part.name for path in part.tensors.values()}
    places = {"", *scopes, *(part.name for part in parts)}
    return {path: name for path, name in found.items() if path not in places}


def _output(trace: Trace) -> fx.Node:
    end = next(node for node in reversed(trace.graph.nodes) if node.op == "output").args[0]
    if not isinstance(end, fx.Node):
        kind = "several values" if isinstance(end, tuple | list | dict) else type(end).__name__
        raise TraceError(f"its forward returns {kind}; one tensor (batch, classes) is needed")
    if not trace.facts[end].plain:
        raise TraceError("its forward does not return a tensor whose first axis is the batch")
    return end


def _ends(trace: Trace, output: fx.Node) -> list[fx.Node]:
    """The plain values that the output depends on, in the order of the calls; the model's input is none."""
    needed: set[fx.Node] = set()
    waiting = [output]
    while waiting:
        node = waiting.pop()
        if node not in needed:
            needed.add(node)
            waiting.extend(node.all_input_nodes)
    inputs = [node for node in trace.graph.nodes if node.op == "placeholder"]
    extra = [node.name for node in inputs[1:] if node in needed]
    if extra:
        raise TraceError(f"its forward takes more than the images: {', '.join(extra)}")
    return [
        node for node in trace.graph.nodes if node in needed and trace.facts[node].plain and node.op != "placeholder"
    ]


def _region(trace: Trace, end: fx.Node) -> list[fx.Node]:
    """``end`` and what only it can be computed with: everything back to the next plain values."""
    region: set[fx.Node] = {end}
    waiting = [end]
    while waiting:
        for source in waiting.pop().all_input_nodes:
            if source not in region and not _is_border(trace, source):
                region.add(source)
                waiting.append(source)
    if len(region) > MOST_STEPS:
        raise TraceError(f"'{end.name}' takes more than {MOST_STEPS:,} operations on values that are no tensors")
    return [node for node in trace.graph.nodes if node in region]


def _is_border(trace: Trace, node: fx.Node) -> bool:
    return trace.facts[node].plain or node.op == "placeholder"


class SplitError(TraceError):
    """A module that two parts would call; ``scope`` is the module around it, which can be kept whole instead."""

    def __init__(self, message: str, scope: str) -> None:
        super().__init__(message)
        self.scope = scope


def _refuse_split(regions: dict[fx.Node, list[fx.Node]]) -> None:
    """A module inside of two parts would be called twice."""
    owners: dict[fx.Node, fx.Node] = {}
    for end, region in regions.items():
        for node in region:
            if node.op == "call_module" and owners.setdefault(node, end) is not end:
                message = f"module '{node.target}' gives several values that are read in different places"
                stack = [name for name, _ in (node.meta.get("nn_module_stack") or {}).values() if name != node.target]
                scope = stack[-1] if stack else ""
                raise SplitError(f"{message} ('{owners[node].name}' and '{end.name}')", scope)


def _names(trace: Trace, ends: list[fx.Node], modules: set[str]) -> dict[fx.Node | None, str]:
    """A module's path, numbered where it is called more than once; of a function, its scope and its name."""
    calls = Counter(path for end in ends if (path := _module_of(trace, end)) is not None)
    seen: Counter[str] = Counter()
    taken = {*trace.scopes, *calls, *modules}
    names: dict[fx.Node | None, str] = {node: "" for node in trace.graph.nodes if node.op == "placeholder"}
    for end in ends:
        path = _module_of(trace, end)
        if path is None:
            name = _free(_function_name(end), taken)
            taken.add(name)
        elif calls[path] == 1:
            name = path
        else:
            seen[path] += 1
            name = f"{path}#{seen[path]}"
        names[end] = name
    return names


def _module_of(trace: Trace, end: fx.Node) -> str | None:
    """The module that a part is called after: the one it calls, also where only one of its results is taken."""
    if end.target is operator.getitem and isinstance(end.args[0], fx.Node) and not trace.facts[end.args[0]].plain:
        end = end.args[0]
    return str(end.target) if end.op == "call_module" else None


def _function_name(end: fx.Node) -> str:
    stack = list((end.meta.get("nn_module_stack") or {}).values())
    scope = stack[-1][0] if stack else ""
    plain = str(end.target if end.op == "call_method" else getattr(end.target, "__name__", end.target))
    plain = plain.strip("_").rpartition(".")[2] or "call"
    return f"{scope}.{plain}" if scope else plain


def _free(name: str, taken: set[str]) -> str:
    """The name, or the next one that neither a module nor an attribute of ``torch.nn.Module`` has."""
    if name not in taken and not module_attribute_clash(name):
        return name
    number = 1
    while f"{name}_{number}" in taken:
        number += 1
    return f"{name}_{number}"


def _part(
    trace: Trace, model: nn.Module, end: fx.Node, region: list[fx.Node], names: dict[fx.Node | None, str]
) -> Part:
    inputs: dict[fx.Node, int] = {}
    modules: dict[str, str] = {}
    tensors: dict[str, str] = {}
    probes: set[str] = set()
    results: dict[fx.Node, int] = {}
    steps: list[Step] = []

    def ref(node: fx.Node) -> Ref:
        if node in results:
            return Ref(results[node])
        return Ref(-1 - inputs.setdefault(node, len(inputs)))

    for node in region:
        args, kwargs = _with_refs(node.args, ref), _with_refs(node.kwargs, ref)
        target: Any = node.target
        if node.op == "call_module":
            target = _local(str(node.target), modules, tensors)
            modules[target] = str(node.target)
        elif node.op == "get_attr":
            target = _local(str(node.target), tensors, modules)
            tensors[target] = str(node.target)
            if all(user.target is getattr and user.args[1] in ("dtype", "device") for user in node.users):
                probes.add(target)
            args, kwargs = (), {}
        steps.append(Step(_KINDS[node.op], target, args, dict(kwargs)))
        results[node] = len(steps) - 1
    plain_call = tuple(Ref(-1 - index) for index in range(len(inputs)))
    alone = len(steps) == 1 and steps[0].kind == "module" and steps[0].args == plain_call and not steps[0].kwargs
    return Part(
        names[end],
        tuple(names[node] for node in inputs),
        tuple(steps),
        modules,
        tensors,
        frozenset(probes),
        str(end.target) if alone else None,
    )


_KINDS = {"call_module": "module", "call_function": "function", "call_method": "method", "get_attr": "tensor"}


def _local(path: str, same: dict[str, str], others: dict[str, str]) -> str:
    """A name within the part for what lies at ``path``: the path's last word, longer where two would share one."""
    words = path.split(".")
    for count in range(1, len(words) + 1):
        name = "_".join(words[-count:])
        name = f"m{name}" if name[0].isdigit() else name
        if same.get(name, path) == path and name not in others and not module_attribute_clash(f"x.{name}"):
            return name
    return f"{'_'.join(words)}_"


def _with_refs(value: Any, ref: Any) -> Any:
    if isinstance(value, fx.Node):
        return ref(value)
    if isinstance(value, tuple | list):
        return (
            type(value)(*(_with_refs(item, ref) for item in value))
            if hasattr(value, "_fields")
            else type(value)([_with_refs(item, ref) for item in value])
        )
    if isinstance(value, dict):
        return {key: _with_refs(item, ref) for key, item in value.items()}
    if isinstance(value, slice):
        return slice(*(_with_refs(item, ref) for item in (value.start, value.stop, value.step)))
    return value


def _repeats(model: nn.Module) -> dict[str, int]:
    """Modules whose parts are numbered 0, 1, …: there a pattern's ``-1`` is the last."""
    found = {}
    for path, module in model.named_modules():
        children = [name for name, _ in module.named_children()]
        if path and children and children == [str(index) for index in range(len(children))]:
            found[path] = len(children)
    return found


def _numbered(trace: Trace, ends: list[fx.Node], names: dict[fx.Node | None, str]) -> dict[str, tuple[str, ...]]:
    found: dict[str, list[str]] = {}
    for end in ends:
        path = _module_of(trace, end)
        if path is not None and "#" in names[end]:
            found.setdefault(path, []).append(names[end])
    return {path: tuple(calls) for path, calls in found.items()}


def references(value: Any) -> Iterator[Any]:
    """Every leaf of a step's arguments."""
    if isinstance(value, tuple | list):
        for item in value:
            yield from references(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from references(item)
    elif isinstance(value, slice):
        yield from references((value.start, value.stop, value.step))
    else:
        yield value


def filled(value: Any, of: Any) -> Any:
    """A step's arguments with ``of(leaf)`` in the place of every reference and of the mode."""
    if isinstance(value, Ref) or value is MODE:
        return of(value)
    if isinstance(value, tuple | list):
        items = [filled(item, of) for item in value]
        return items if isinstance(value, list) else type(value)(items)  # a plain one in the place of fx's own lists
    if isinstance(value, dict):
        return {key: filled(item, of) for key, item in value.items()}
    if isinstance(value, slice):
        return slice(*(filled(item, of) for item in (value.start, value.stop, value.step)))
    return value


def tensor_at(model: nn.Module, path: str) -> torch.Tensor:
    """The parameter, buffer or constant at a path."""
    owner, _, last = path.rpartition(".")
    found: torch.Tensor = getattr(model.get_submodule(owner), last)
    return found
