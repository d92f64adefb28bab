"""A PyTorch model → one ``torch.fx`` graph that holds in both modes and writes nowhere in place.

``torch.fx`` freezes ``self.training`` into what it traces, so the model is traced in both modes: where the two graphs
differ in a switch alone (``F.dropout(..., training=True)``) the switch becomes ``MODE``, and a module whose inside
differs otherwise is kept whole. A module that can't be traced is kept whole too.
"""

from __future__ import annotations

import copy
import inspect
import math
import operator
import traceback
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import torch
from torch import fx, nn

from ablate.block import Shape
from ablate.errors import listed

CONSTANT = "_tensor_constant"
"""How ``torch.fx`` calls a tensor that a forward makes from nothing."""
MOST_ATTEMPTS = 200
BATCHES = (2, 3)
"""The two batch sizes by which it is seen which axis is the batch."""


class TraceError(ValueError):
    """A model that can't be made into a graph; the sentence says where and why."""


class _Mode(Enum):
    """Stands for ``self.training`` in an argument. (An enumeration, so that a copy of it is itself.)"""

    MODE = "self.training"

    def __repr__(self) -> str:
        return self.value


MODE = _Mode.MODE
NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)
"""Leaves, and so are classes made of them: what is kept whole counts its batches, and is a norm to ``train.groups``."""
_DIFFER = object()


@dataclass
class Trace:
    """The graph of a model. ``graph``'s nodes are those of ``torch.fx``."""

    graph: fx.Graph
    scopes: dict[str, list[fx.Node | None]]
    """Each module that was traced through → what each call of it returned (``None``: no single value)."""
    facts: dict[fx.Node, Fact]
    whole: tuple[str, ...] = ()
    """The modules that were kept whole because their inside can't be traced."""


@dataclass(frozen=True)
class Fact:
    """What a value is: a tensor that keeps the batch axis first, and its shape without it; or something else."""

    is_tensor: bool = False
    plain: bool = False
    shape: Shape = ()
    storage: int = 0
    """Of a tensor: which memory it is, or is a view of."""
    writes: tuple[fx.Node, ...] = ()
    """The arguments that the node wrote into."""


@dataclass
class _Attempt:
    graph: fx.Graph
    scopes: dict[str, list[fx.Node | None]] = field(default_factory=dict)


class _Tracer(fx.Tracer):
    """Leaves are modules of ``torch.nn``, modules with nothing inside, and those that ``whole`` names."""

    proxy_buffer_attributes = True
    """A buffer is read when the network runs, and not once while it is traced: it may change."""

    def __init__(self, whole: set[str]) -> None:
        super().__init__(autowrap_modules=(math,))
        self.whole = whole
        self.failed: str | None = None
        self.scopes: dict[str, list[fx.Node | None]] = {}

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if module_qualified_name in self.whole or super().is_leaf_module(m, module_qualified_name):
            return True
        if isinstance(m, NORMS):
            return True
        empty = next(m.children(), None) is None and not m.state_dict() and next(m.buffers(), None) is None
        return empty and not isinstance(m, nn.Sequential)

    def create_args_for_root(self, root_fn: Any, is_module: bool, concrete_args: Any = None) -> tuple[Any, list[Any]]:
        """The images alone are an input; what else a forward takes has the value that it has by default."""
        return root_fn, [self.root, self.create_proxy("placeholder", "images", (), {})]

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        name = self.path_of_module(m)
        try:
            output = super().call_module(m, forward, args, kwargs)
        except Exception:
            self.failed = self.failed or name
            raise
        if not self.is_leaf_module(m, name):
            self.scopes.setdefault(name, []).append(output.node if isinstance(output, fx.Proxy) else None)
        return output


def trace(model: nn.Module, shape: Shape, keep: Iterable[str] = ()) -> Trace:
    """Trace a model for images of that shape, (C, H, W). ``TraceError`` says what can't be traced.

    ``keep`` names modules that are kept whole.
    """
    whole = set(keep)
    before = _plain_state(model)
    for _ in range(MOST_ATTEMPTS):
        model.train()
        training = _attempt(model, whole)
        model.eval()
        evaluating = _attempt(model, whole) if isinstance(training, _Attempt) else training
        if isinstance(evaluating, str):
            whole.add(evaluating)
            continue
        assert isinstance(training, _Attempt)
        culprit = _merge(model, training.graph, evaluating.graph)
        if culprit is not None:
            whole.add(culprit)
            continue
        changed = [name for name, value in _plain_state(model).items() if before.get(name, value) != value]
        if changed:
            raise TraceError(f"its forward changes '{changed[0]}', which is no parameter and no buffer of it")
        facts = _facts(model, training.graph, evaluating.graph, shape)
        _without_writes(model, training, facts)
        return Trace(training.graph, training.scopes, facts, tuple(sorted(whole)))
    raise TraceError(f"gave up after {MOST_ATTEMPTS} attempts; modules kept whole: {listed(sorted(whole))}")


def _plain_state(model: nn.Module) -> dict[str, Any]:
    """The numbers, texts and switches that the modules hold beside their tensors."""
    return {
        f"{path}.{key}" if path else key: value
        for path, module in model.named_modules()
        for key, value in vars(module).items()
        if key != "training" and isinstance(value, bool | int | float | str)
    }


def _attempt(model: nn.Module, whole: set[str]) -> _Attempt | str:
    """The traced graph, or the name of the module that should be kept whole."""
    tracer = _Tracer(whole)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return _Attempt(tracer.trace(model), tracer.scopes)
        except Exception as error:  # whatever a model's code raises on a proxy
            if tracer.failed and tracer.failed not in whole:
                return tracer.failed
            raise TraceError(_not_traceable(model, error)) from None


def _not_traceable(model: nn.Module, error: Exception) -> str:
    file = inspect.getsourcefile(type(model)) or ""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    where = f" at '{frames[-1].line}' (line {frames[-1].lineno} of {type(model).__name__}'s file)" if frames else ""
    reason = str(error).split("\n", 1)[0]
    return f"{type(model).__name__} can't be traced{where}: {reason}"


def _merge(model: nn.Module, training: fx.Graph, evaluating: fx.Graph) -> str | None:
    """Put ``MODE`` where the graphs differ in a switch. The module that must be kept whole where they differ more."""
    ours, theirs = list(training.nodes), list(evaluating.nodes)
    same = dict(zip(ours, theirs, strict=False))
    for node, other in zip(ours, theirs, strict=False):
        if _is_constant(node) and _is_constant(other):
            # A tensor that the forward makes from nothing has a name of its own in each trace.
            if not torch.equal(getattr(model, str(node.target)), getattr(model, str(other.target))):
                return _blamed(node, other)
            continue
        if (node.op, str(node.target)) != (other.op, str(other.target)):
            return _blamed(node, other)
        merged = _merged((node.args, node.kwargs), (other.args, other.kwargs), same)
        if merged is _DIFFER:
            return _blamed(node, other)
        node.args, node.kwargs = merged
    if len(ours) != len(theirs):
        return _blamed(ours[-1], theirs[-1])
    return None


def _is_constant(node: fx.Node) -> bool:
    return node.op == "get_attr" and str(node.target).startswith(CONSTANT)


def _blamed(node: fx.Node, other: fx.Node) -> str:
    """The innermost module in which both stand: its forward does one thing in training and another in evaluation."""
    one, two = (
        [
            name
            for name, _ in (each.meta.get("nn_module_stack") or {}).values()
            if each.op != "call_module" or name != each.target
        ]
        for each in (node, other)
    )
    common = [name for name in one if name in two and name]
    if not common:
        message = "its forward does one thing in training and another in evaluation"
        raise TraceError(f"{message}; a model with one output in both modes is needed (aux_logits: false?)")
    return str(common[-1])


def _merged(ours: Any, theirs: Any, same: dict[fx.Node, fx.Node]) -> Any:
    """``ours`` with MODE where it says True and ``theirs`` False; ``_DIFFER`` where they differ otherwise."""
    if isinstance(ours, fx.Node):
        return ours if same.get(ours) is theirs else _DIFFER
    if type(ours) is not type(theirs):
        return _DIFFER
    if isinstance(ours, tuple | list):
        if len(ours) != len(theirs):
            return _DIFFER
        items = [_merged(a, b, same) for a, b in zip(ours, theirs, strict=True)]
        if any(item is _DIFFER for item in items):
            return _DIFFER
        return type(ours)(items) if type(ours) in (tuple, list) else ours
    if isinstance(ours, dict):
        if ours.keys() != theirs.keys():
            return _DIFFER
        merged = {key: _merged(value, theirs[key], same) for key, value in ours.items()}
        return _DIFFER if any(value is _DIFFER for value in merged.values()) else merged
    if isinstance(ours, slice):
        parts = _merged((ours.start, ours.stop, ours.step), (theirs.start, theirs.stop, theirs.step), same)
        return parts if parts is _DIFFER else slice(*parts)
    if ours is True and theirs is False:
        return MODE
    return ours if ours is theirs or ours == theirs else _DIFFER


@dataclass(frozen=True)
class _Seen:
    """What a node gave in one run, and the positions of the nodes that it wrote into."""

    shape: Shape | None
    is_real: bool
    storage: int
    writes: tuple[int, ...]


class _Recorder(fx.Interpreter):
    """Runs a graph and notes what each value is. Nothing is freed, so that no two tensors share memory by chance."""

    def __init__(self, model: nn.Module, graph: fx.Graph) -> None:
        super().__init__(fx.GraphModule(model, graph), garbage_collect_values=False)
        self.found: list[_Seen] = []
        copied: fx.Graph = self.module.graph  # type: ignore[assignment]
        self.positions = {node: position for position, node in enumerate(copied.nodes)}

    def run_node(self, n: fx.Node) -> Any:
        sources = {node: self.env[node] for node in n.all_input_nodes if isinstance(self.env[node], torch.Tensor)}
        versions = {node: tensor._version for node, tensor in sources.items()}
        value = super().run_node(n)
        writes = tuple(self.positions[node] for node, tensor in sources.items() if tensor._version != versions[node])
        if isinstance(value, torch.Tensor):
            storage = value.untyped_storage()._cdata
            self.found.append(_Seen(tuple(value.shape), value.is_floating_point(), storage, writes))
        else:
            self.found.append(_Seen(None, False, 0, writes))
        return value


def _facts(model: nn.Module, graph: fx.Graph, evaluating: fx.Graph, shape: Shape) -> dict[fx.Node, Fact]:
    """What each value of ``graph`` is, seen by running it in evaluation at two batch sizes."""
    small, large = (_recorded(model, evaluating, (batch, *shape)) for batch in BATCHES)
    facts = {}
    nodes = list(graph.nodes)
    for node, seen, other in zip(nodes, small, large, strict=True):
        one, two = seen.shape or (), other.shape or ()
        plain = len(one) >= 2 and seen.is_real and (one[0], two[0]) == BATCHES and one[1:] == two[1:]
        writes = tuple(nodes[position] for position in seen.writes)
        facts[node] = Fact(seen.shape is not None, plain, one[1:] if plain else (), seen.storage, writes)
    return facts


def _recorded(model: nn.Module, graph: fx.Graph, shape: Shape) -> list[_Seen]:
    error: Exception | None = None
    for device in ("meta", "cpu"):  # some operations do not know meta tensors
        try:
            twin = copy.deepcopy(model).to(device)
            with torch.no_grad(), torch.device(device):
                recorder = _Recorder(twin, graph)
                recorder.run(torch.zeros(shape, device=device))
            return recorder.found
        except Exception as raised:
            error = raised
    reason = str(error).split("\n", 1)[0]
    raise TraceError(f"it does not run on images of shape {tuple(shape[1:])}: {reason}")


_INPLACE_OPERATORS: dict[Any, Any] = {
    getattr(operator, f"i{name}"): getattr(operator, name)
    for name in ["add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul"]
} | {operator.iand: operator.and_, operator.ior: operator.or_, operator.ixor: operator.xor}


def _without_writes(model: nn.Module, traced: _Attempt, facts: dict[fx.Node, Fact]) -> None:
    """Every in-place operation becomes the one that returns a new tensor; later readers of what it wrote read that.

    ``TraceError`` where there is no such operation, or where what was written is read later by another name: a view.
    """
    graph = traced.graph
    order = {node: index for index, node in enumerate(graph.nodes)}
    for node in list(graph.nodes):
        functional = _made_functional(model, node)
        written = (node.args[0] if node.args else node.kwargs.get("input")) if functional else None
        # Seen, and not only known by its name: a module of somebody's own may write too.
        for target in dict.fromkeys([*facts[node].writes, *([written] if isinstance(written, fx.Node) else [])]):
            if facts[target].is_tensor:
                _refuse_late_readers(graph, facts, order, node, target, known=functional and target is written)
        if not isinstance(written, fx.Node) or not facts[written].is_tensor:
            continue
        for user in [user for user in written.users if order[user] > order[node]]:
            user.replace_input_with(written, node)
        scopes = [name for name, _ in (node.meta.get("nn_module_stack") or {}).values()]
        for scope in scopes:
            if scope in traced.scopes:
                traced.scopes[scope] = [node if end is written else end for end in traced.scopes[scope]]


def _refuse_late_readers(
    graph: fx.Graph, facts: dict[fx.Node, Fact], order: dict[fx.Node, int], node: fx.Node, written: fx.Node, known: bool
) -> None:
    """``known``: that ``written`` itself was written is being made good; of its other names nothing is."""
    for other in graph.nodes:
        if order[other] >= order[node] or facts[other].storage != facts[written].storage or not facts[other].is_tensor:
            continue
        late = [user for user in other.users if order[user] > order[node]]
        if late and not (known and other is written):
            message = f"'{_name_of(node)}' writes into a tensor that '{late[0].name}' reads later by another name"
            raise TraceError(f"{message} ('{other.name}')")


def _made_functional(model: nn.Module, node: fx.Node) -> bool:
    """Whether the node wrote into its first argument, and no longer does."""
    if node.op == "call_module":
        return bool(getattr(model.get_submodule(str(node.target)), "inplace", False))
    if node.op == "call_method":
        return _method_made_functional(node)
    if node.op != "call_function":
        return False
    if node.target in _INPLACE_OPERATORS:
        node.target = _INPLACE_OPERATORS[node.target]
        return True
    if node.target is operator.setitem or node.kwargs.get("out") is not None:
        raise TraceError(f"'{_name_of(node)}' writes into a tensor, and there is no form of it that does not")
    if _switched_off(node):
        return True
    name = getattr(node.target, "__name__", "")
    if name.endswith("_") and not name.endswith("__"):
        functional = getattr(torch, name[:-1], None) or getattr(nn.functional, name[:-1], None)
        if functional is None:
            raise TraceError(f"'{name}' writes into a tensor, and there is no '{name[:-1]}' that does not")
        node.target = functional
        return True
    return False


def _method_made_functional(node: fx.Node) -> bool:
    name = str(node.target)
    if name == "__setitem__":
        raise TraceError("an assignment to part of a tensor writes in place, and there is no form of it that does not")
    if not name.endswith("_") or name.endswith("__"):
        return False
    if not callable(getattr(torch.Tensor, name[:-1], None)):
        raise TraceError(f"'{name}' writes into a tensor, and there is no '{name[:-1]}' that does not")
    node.target = name[:-1]
    return True


def _switched_off(node: fx.Node) -> bool:
    """Whether an argument ``inplace`` was true; it is false then."""
    if node.kwargs.get("inplace"):
        node.kwargs = {**node.kwargs, "inplace": False}
        return True
    try:
        names: Sequence[str] = list(inspect.signature(node.target).parameters)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return False
    index = names.index("inplace") if "inplace" in names else -1
    if 0 <= index < len(node.args) and node.args[index]:
        node.args = (*node.args[:index], False, *node.args[index + 1 :])
        return True
    return False


def _name_of(node: fx.Node) -> str:
    return str(getattr(node.target, "__name__", node.target))
