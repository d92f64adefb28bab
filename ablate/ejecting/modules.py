"""Modules → the classes that the ejected file has for them, and the calls that make them.

A module of ``torch.nn`` stays one. Of any other the class is written anew: its ``__init__`` from what the module holds,
its methods from their source, with what is constant of all modules of a class folded in. Modules whose methods come out
equal share a class; what differs among them is an argument.
"""

from __future__ import annotations

import ast
import copy
import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from types import FunctionType
from typing import Any

import torch
from torch import nn

from ablate.block import Block
from ablate.blocks.vit.position_embedding import PositionEmbedding, sines_and_cosines
from ablate.ejecting.classes import define
from ablate.ejecting.constants import shared
from ablate.ejecting.docs import of_class
from ablate.ejecting.folding import NOISE, Folder, WithoutCalls, constant_of, stores
from ablate.ejecting.make import Arg, Code, Make, Value, expression, is_attribute, literal
from ablate.ejecting.source import CannotEject, Sheet, locals_of, names_of, tree_of
from ablate.ejecting.torchmodules import CannotRecover, constructor, is_torch

_BOOKKEEPING = frozenset({"__init__", "extra_repr", *vars(Block)})
LARGEST_TABLE = 64
"""The numbers of a buffer that are written out."""


@dataclass
class Plan:
    """What is to be written for one module that is not torch's."""

    module: nn.Module
    base: type[nn.Module]
    methods: list[ast.FunctionDef]
    contents: dict[str, Value | nn.Module]
    height: int = 0
    make: Make | None = None
    title: str = ""
    """What the class is called, if not as the module's own."""

    @property
    def key(self) -> tuple[object, ...]:
        code = "\n".join(ast.dump(method) for method in self.methods)
        return self.height, type(self.module), self.title, self.base, code, tuple(self.contents)


@dataclass
class Modules:
    """Gathers modules, then writes a class for each kind."""

    sheet: Sheet
    plans: dict[int, Plan] = field(default_factory=dict)

    def gather(self, module: nn.Module) -> int:
        """Take note of a module and of those within; the number of classes that stand on one another in it."""
        if isinstance(module, nn.Sequential | nn.ModuleList | nn.ModuleDict) and type(module).__module__.startswith(
            "torch"
        ):
            return max((self.gather(child) for child in module.children()), default=0)
        if is_torch(type(module)):
            return 0
        if id(module) not in self.plans:
            self.adopt(_plan(module, self.sheet))
        plan = self.plans[id(module)]
        if not plan.height:
            plan.height = 1 + max((self.gather(child) for child in module.children()), default=0)
        return plan.height

    def adopt(self, plan: Plan) -> None:
        """Take note of a module of which all but its contents is known."""
        plan.contents = _state(plan.module, plan.base, self.sheet) | plan.contents
        self.plans[id(plan.module)] = plan

    def write(self) -> None:
        """Define the classes of all that was gathered, those that others hold first."""
        self._share_constants()
        groups: dict[tuple[object, ...], list[Plan]] = {}
        for plan in sorted(self.plans.values(), key=lambda plan: plan.height):
            groups.setdefault(plan.key, []).append(plan)
        for group in groups.values():
            self._write(group)

    def _share_constants(self) -> None:
        """Parts of an imported model that differ in constants alone get one class."""
        functions = {function.name: function for function in self.sheet.functions}
        alike: dict[tuple[object, ...], list[Plan]] = {}
        for plan in self.plans.values():
            if plan.title:
                alike.setdefault((plan.title, plan.height, *plan.contents), []).append(plan)
        for group in alike.values():
            differing = shared([plan.methods[0] for plan in group], group[0].contents, functions)
            for plan, values in zip(group, differing or [], strict=bool(differing)):
                plan.contents |= values

    def _write(self, group: Sequence[Plan]) -> None:
        first = group[0]
        plain = is_torch(first.base) and not first.methods and not first.contents
        supers = [self._super(plan) for plan in group]
        if plain:
            makes = supers
        else:
            contents = [{name: self.value(held) for name, held in plan.contents.items()} for plan in group]
            makes = define(
                self.sheet,
                first.title or type(first.module).__name__.lstrip("_"),
                "" if first.title else of_class(type(first.module), _is_folded(first)),
                contents,
                first.methods,
                base=f"nn.{first.base.__name__}" if is_torch(first.base) else "nn.Module",
                supers=supers if is_torch(first.base) else None,
            )
        for plan, make in zip(group, makes, strict=True):
            plan.make = make

    def _super(self, plan: Plan) -> Make:
        if not is_torch(plan.base):
            return Make("nn.Module")
        try:
            return constructor(plan.module, plan.base)
        except CannotRecover as error:
            raise CannotEject(f"{error}") from None

    def value(self, held: Value | nn.Module) -> Value:
        return self.make(held) if isinstance(held, nn.Module) else held

    def make(self, module: nn.Module) -> Make:
        """The call that makes the module, once the classes are written."""
        if id(module) in self.plans:
            make = self.plans[id(module)].make
            assert make is not None
            return make
        if type(module) is nn.Sequential:
            return sequential(self.sheet, {name: self.make(child) for name, child in module.named_children()})
        if type(module) is nn.ModuleList:
            return module_list([self.make(child) for child in module])
        if type(module) is nn.ModuleDict:
            return module_dict({name: self.make(child) for name, child in module.items()})
        try:
            return constructor(module)
        except CannotRecover as error:
            raise CannotEject(f"a module that can't be told by its attributes ({error})") from None


def _is_folded(plan: Plan) -> bool:
    return any(getattr(method, "folded", False) for method in plan.methods)


def sequential(sheet: Sheet, parts: dict[str, Make]) -> Make:
    """``nn.Sequential``; with names, where they are not 0, 1, 2, …"""
    if list(parts) == [str(index) for index in range(len(parts))]:
        return Make("nn.Sequential", tuple(Arg("", part, name) for name, part in parts.items()))
    sheet.uses("OrderedDict")
    items = tuple(Arg(name, part, name) for name, part in parts.items())
    if all(is_attribute(name) for name in parts):
        return Make("nn.Sequential", (Arg("", Make("OrderedDict", items)),))
    return Make("nn.Sequential", (Arg("", Make("OrderedDict", (Arg("", Make("{}", items)),))),))


def module_list(parts: Sequence[Make]) -> Make:
    items = tuple(Arg("", part, f"part{index}") for index, part in enumerate(parts))
    return Make("nn.ModuleList", (Arg("", Make("[]", items)),))


def module_dict(parts: dict[str, Make]) -> Make:
    items = tuple(Arg(name, part, name) for name, part in parts.items())
    return Make("nn.ModuleDict", (Arg("", Make("{}", items)),))


def _plan(module: nn.Module, sheet: Sheet) -> Plan:
    kind = type(module)
    base = next(each for each in kind.__mro__ if is_torch(each) or each is nn.Module)
    # Imported modules that draw have hooks, which give them streams of their own: here they draw from torch's.
    hooked = (module._forward_hooks or module._forward_pre_hooks) and not hasattr(module, NOISE)
    if hooked or hasattr(module, "parametrizations"):
        raise CannotEject(f"a {kind.__name__} with hooks or parametrisations")
    methods = _methods(module, base, sheet)
    return Plan(module, base, methods, dict(_attributes(module, base, methods, sheet)))


# Methods.


def _methods(module: nn.Module, base: type[nn.Module], sheet: Sheet) -> list[ast.FunctionDef]:
    """The methods that a forward pass needs, folded, and with the file's names."""
    overridden = _own(type(module), base)
    wanted = ["forward", *(name for name in overridden if base is not nn.Module and hasattr(base, name))]
    found: dict[str, tuple[FunctionType, ast.FunctionDef]] = {}
    for name in wanted:
        _collect(module, name, overridden, found)
    trees = [tree for _, tree in found.values()]
    later = stores(trees)
    for function, tree in found.values():
        inner = locals_of(tree)
        seen = {name: value for name, value in names_of(function).items() if name not in inner}
        folder = Folder(module, seen, later, lambda value: sheet.reference(value, "function"))
        folder.visit(tree)
        tree.__dict__["folded"] = folder.left_out
    constants = {
        name: value for name, tree in zip(found, trees, strict=True) if (value := constant_of(tree)) is not None
    }
    for tree in trees:
        WithoutCalls(constants).visit(tree)
    kept = _reached(wanted, found)
    ordered = [overridden[name] for name in overridden if name in kept]
    ordered += [found[name][0] for name in found if name in kept and name not in overridden]
    answer = []
    for name in kept:
        function, tree = found[name]
        answer.append((ordered.index(function), sheet.adopted(tree, function, rename=name)))
    return [tree for _, tree in sorted(answer, key=lambda pair: pair[0])]


def _own(kind: type, base: type) -> dict[str, FunctionType]:
    """The methods and properties of a class that are neither torch's nor the bookkeeping of blocks, in their order."""
    found: dict[str, FunctionType] = {}
    for each in reversed(kind.__mro__[: kind.__mro__.index(base)]):
        for name, value in vars(each).items():
            function = _function(value)
            if each is not Block and function is not None and name not in _BOOKKEEPING - {"forward"}:
                found[name] = function
    return found


def _function(value: object) -> FunctionType | None:
    if isinstance(value, staticmethod | classmethod):
        value = value.__func__
    if isinstance(value, property):
        value = value.fget
    return value if isinstance(value, FunctionType) else None


def _collect(
    module: nn.Module,
    name: str,
    own: dict[str, FunctionType],
    found: dict[str, tuple[FunctionType, ast.FunctionDef]],
) -> None:
    if name in found or name not in own:
        return
    tree = copy.deepcopy(tree_of(own[name]))
    found[name] = (own[name], tree)
    _without_super(module, own[name], tree, found)
    for attribute in _attributes_read(tree):
        _collect(module, attribute, own, found)


def _without_super(
    module: nn.Module,
    function: FunctionType,
    tree: ast.FunctionDef,
    found: dict[str, tuple[FunctionType, ast.FunctionDef]],
) -> None:
    """``super().f()`` that means a class which the file won't have becomes ``self._f_of_base()``."""
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Call(func=ast.Name(id="super"), args=[]), attr=name):
                owner, inherited = _next(type(module), function, name)
                if inherited is not None:
                    assert isinstance(node, ast.Attribute)
                    node.attr = f"_{name.strip('_')}_of_{owner.__name__.strip('_').lower()}"
                    node.value = ast.Name("self", ast.Load())
                    _collect(module, node.attr, {**_own(type(module), nn.Module), node.attr: inherited}, found)


def _next(kind: type, function: FunctionType, name: str) -> tuple[type, FunctionType | None]:
    """The method that ``super()`` finds, unless it is torch's."""
    owners = [each for each in kind.__mro__ if any(_function(value) is function for value in vars(each).values())]
    for each in kind.__mro__[kind.__mro__.index(owners[0]) + 1 :]:
        if name in vars(each):
            return each, None if each.__module__.startswith("torch.") else _function(vars(each)[name])
    return kind, None


def _attributes_read(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id="self"), attr=name):
                yield name


def _reached(wanted: Sequence[str], found: dict[str, tuple[FunctionType, ast.FunctionDef]]) -> list[str]:
    """What is still called once the branches that are never taken are gone."""
    kept: list[str] = []
    waiting = [name for name in wanted if name in found]
    while waiting:
        name = waiting.pop()
        if name not in kept:
            kept.append(name)
            waiting += [other for other in _attributes_read(found[name][1]) if other in found]
    return kept


# What a module holds.


def _state(module: nn.Module, base: type[nn.Module], sheet: Sheet) -> dict[str, Value | nn.Module]:
    """Parameters, buffers and modules, those that torch's constructor makes left out."""
    inherited = constructor_state(module, base) if is_torch(base) else frozenset()
    held: dict[str, Value | nn.Module] = {}
    for name, parameter in module._parameters.items():
        if name not in inherited:
            held[name] = None if parameter is None else Make("nn.Parameter", (Arg("", tensor(parameter, name)),))
    for name, buffer in module._buffers.items():
        if name not in inherited:
            lasting = name not in module._non_persistent_buffers_set
            held[name] = _buffer(
                name, None if buffer is None else _table(module, name, buffer, lasting, sheet), lasting
            )
    for name, child in module._modules.items():
        if name not in inherited:
            held[name] = child
    return held


def constructor_state(module: nn.Module, base: type[nn.Module]) -> frozenset[str]:
    """The names of parameters, buffers and modules that the constructor of torch's class makes."""
    try:
        code = expression(constructor(module, base))
    except CannotRecover as error:
        raise CannotEject(str(error)) from None
    with torch.device("meta"):
        plain: nn.Module = eval(
            compile(ast.fix_missing_locations(ast.Expression(code)), "<module>", "eval"), {"nn": nn}
        )
    return frozenset({*plain._parameters, *plain._buffers, *plain._modules})


def _buffer(name: str, value: Value, lasting: bool) -> Make:
    """Stands for the statement ``self.register_buffer(name, value)``."""
    args = (Arg("", name), Arg("", value, name), Arg("persistent", lasting, default=True))
    return Make("self.register_buffer", args)


def _table(module: nn.Module, name: str, value: torch.Tensor, lasting: bool, sheet: Sheet) -> Value:
    """A buffer's value: computed, written out where it is short, or zeros until the weights are loaded."""
    if isinstance(module, PositionEmbedding):
        sides = (module.rows, module.columns, module.extra, value.shape[2])
        name = sheet.reference(sines_and_cosines, "sines_and_cosines")
        return Code(f"{name}({', '.join(map(str, sides))}).float()")
    if value.is_meta or value.numel() <= LARGEST_TABLE or bool((value == value.reshape(-1)[0]).all()):
        return tensor(value, name)
    if not lasting:
        raise CannotEject(f"the buffer '{name}', {value.numel():,} numbers that are not saved with the weights")
    sheet.tables.add(name)
    return tensor(torch.zeros_like(value), name)


def tensor(value: torch.Tensor, name: str) -> Make:
    """A tensor of that shape: with its value if that is one number or a short list, else random and about as wide."""
    size = tuple(Arg("", side, "features" if index else "size") for index, side in enumerate(value.shape))
    kind = (Arg("dtype", Code(str(value.dtype)), default=Code("torch.float32")),)
    if value.is_meta or value.numel() == 0:
        return Make("torch.empty", (*size, *kind))
    plain = value.detach().cpu()
    numbers = plain.reshape(-1)
    first = numbers[0].item()
    if bool((numbers == numbers[0]).all()):
        if first in (0, 1) and first is not True and first is not False:
            return Make("torch.zeros" if first == 0 else "torch.ones", (*size, *kind))
        return Make("torch.full", (Arg("", tuple(value.shape), "shape"), Arg("", first, name), *kind))
    if plain.numel() <= LARGEST_TABLE:
        return Make("torch.tensor", (Arg("", plain.tolist(), name), *kind))
    scale = float(f"{plain.double().std().item():.1g}")
    return Make("nn.init.normal_", (Arg("", Make("torch.empty", (*size, *kind))), Arg("std", scale, "std")))


def _attributes(
    module: nn.Module, base: type[nn.Module], methods: Sequence[ast.FunctionDef], sheet: Sheet
) -> dict[str, Value]:
    """The plain values that the methods still read."""
    of_torch = set(dir(nn.Module())) | ({*vars(module)} & _torch_attributes(module, base) if is_torch(base) else set())
    written = {method.name for method in methods}
    held = {*module._parameters, *module._buffers, *module._modules}
    names = dict.fromkeys(name for method in methods for name in _attributes_read(method))
    found: dict[str, Value] = {}
    for name in names:
        if name in written or name in held or name in of_torch:
            continue
        if name == NOISE:
            methods_of_noise(methods)
            continue
        if not hasattr(module, name):
            raise CannotEject(f"the attribute '{name}', which is set in a forward pass only")
        found[name] = _plain(getattr(module, name), name, sheet)
    return found


def _torch_attributes(module: nn.Module, base: type[nn.Module]) -> set[str]:
    return {*inspect.signature(base.__init__).parameters, *dir(base)}


def methods_of_noise(methods: Sequence[ast.FunctionDef]) -> None:
    """Marks that the class draws: ``define`` gives it a ``noise_seed``."""
    methods[0].__dict__["draws"] = True


def _plain(value: Any, name: str, sheet: Sheet) -> Value:
    if isinstance(value, torch.Size):
        value = tuple(value)
    return value if literal(value) else Code(sheet.reference(value, name))
