"""Several modules → one class, whose arguments are what differs among them."""

from __future__ import annotations

import ast
import keyword
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from ablate.ejecting.expressions import flat
from ablate.ejecting.make import (
    ABSENT,
    IDENTITY,
    Arg,
    Code,
    Hole,
    Make,
    Value,
    expression,
    filled,
    generalise,
    holes,
    is_attribute,
    same,
)
from ablate.ejecting.pretty import commented, docstring
from ablate.ejecting.source import IMPORTS, Sheet

_SIZES = ("channels", "width", "features", "hidden")
"""Roles of arguments that a caller gives by place, and that may be multiples of each other."""

_NOISE = '''
@property
def noise_seed(self) -> int:
    """Drawn anew, from torch's global stream, whenever it is read."""
    return int(torch.randint(2**62, ()))
'''


@dataclass
class Parameter:
    """An argument of a class: what each of the modules that share it gives for it."""

    name: str
    values: tuple[Value, ...]
    role: str
    default: Value = ABSENT

    @property
    def is_module(self) -> bool:
        return any(isinstance(value, Make) for value in self.values)

    @property
    def has_default(self) -> bool:
        return self.default is not ABSENT

    @property
    def annotation(self) -> str:
        if self.is_module:
            return "nn.Module | None" if self.has_default else "nn.Module"
        kinds = dict.fromkeys(type(value).__name__ for value in self.values if value is not None)
        names = [{"tuple": "tuple[int, ...]", "list": "list[int]"}.get(kind, kind) for kind in kinds if kind != "Code"]
        return " | ".join([*names, *(["None"] if None in self.values else [])])

    @property
    def code(self) -> Code:
        return Code(
            f"nn.Identity() if {self.name} is None else {self.name}"
            if self.is_module and self.has_default
            else self.name
        )


def define(
    sheet: Sheet,
    wanted: str,
    doc: str,
    contents: Sequence[dict[str, Value]],
    methods: Sequence[ast.FunctionDef],
    base: str = "nn.Module",
    supers: Sequence[Make] | None = None,
    notes: Sequence[str] = (),
) -> list[Make]:
    """Write the class of modules that hold ``contents``, one mapping for each, and say how each is made."""
    name = sheet.claim(wanted)
    count = len(contents)
    parent = generalise(supers, "super") if supers else Make("super().__init__")
    held = {key: generalise([each[key] for each in contents], key, key) for key in contents[0]}
    found = [hole for value in (parent, *held.values()) for hole in holes(value)]
    parameters, names = _parameters(found, {name, *_names_in(held.values())})
    body: list[ast.stmt] = [docstring(doc)] if doc else []
    inherits = bool(supers) and not held
    if not inherits and (held or parameters or supers):
        body.append(_constructor(parent, held, parameters, names))
    if any(getattr(method, "draws", False) for method in methods):
        body += ast.parse(_NOISE).body
    body += methods
    definition = ast.ClassDef(name, [ast.parse(base, mode="eval").body], [], body or [ast.Pass()], [])
    sheet.classes.append(commented(definition, notes))
    if inherits and supers:
        return [Make(name, each.args) for each in supers]
    return [Make(name, tuple(_given(parameter, index) for parameter in parameters)) for index in range(count)]


def _given(parameter: Parameter, index: int) -> Arg:
    by_place = parameter.role in _SIZES and not parameter.has_default and parameter.name in _SIZES[:2]
    value = parameter.values[index]
    if parameter.is_module and parameter.has_default and same(value, IDENTITY):
        value = None
    return Arg("" if by_place else parameter.name, value, parameter.role, parameter.default)


def _parameters(found: Sequence[Hole], taken: set[str]) -> tuple[list[Parameter], dict[str, Code]]:
    """The arguments, those by place first, those with a default last; and the code that stands for each hole."""
    parameters: dict[str, Parameter] = {}
    names: dict[str, Code] = {}
    found = _with_roles(found)
    for hole in found:
        if hole.key in names:
            continue
        derived = _derived(hole, parameters.values())
        if derived is not None:
            names[hole.key] = derived
            continue
        name = _free_name(hole.role, hole.place, {*taken, *(each.name for each in parameters.values())})
        parameter = Parameter(name, hole.values, hole.role)
        parameter.default = _default(parameter)
        parameters[hole.key] = parameter
        names[hole.key] = parameter.code
    ordered = sorted(
        parameters.values(),
        key=lambda each: (each.has_default, _SIZES.index(each.name) if each.name in _SIZES[:2] else 2),
    )
    return ordered, names


def _with_roles(found: Sequence[Hole]) -> list[Hole]:
    """The holes by what their number is: in ``fc1: channels -> n``, ``fc2: n -> channels``, n is hidden.

    A normalisation's number is that of the layer before or after it.
    """
    of_number: dict[str, str] = {}
    for hole in found:
        if of_number.get(hole.key, "norm") == "norm":
            of_number[hole.key] = hole.role
    outer = next((hole.key for hole in found if hole.role == "channels"), "")
    if any(hole.key == outer and hole.role == "width" for hole in found):
        within = [hole.key for hole in found if hole.role == "width" and hole.key != outer]
        read = {hole.key for hole in found if hole.role == "channels"}
        of_number.update({key: "hidden" for key in within[:1] if key in read})
    named = {"norm": "width"}
    return [replace(hole, role=named.get(of_number[hole.key], of_number[hole.key])) for hole in found]


def _default(parameter: Parameter) -> Value:
    if parameter.is_module:
        return None if any(same(value, IDENTITY) for value in parameter.values) else ABSENT
    if parameter.role in _SIZES or any(isinstance(value, Code | list | dict) for value in parameter.values):
        return ABSENT
    if parameter.role == "stride" and any(same(value, 1) for value in parameter.values):
        return 1
    (value, count), *_ = Counter(map(repr, parameter.values)).most_common(1)
    is_usual = count > 1 and 2 * count >= len(parameter.values)
    return next(each for each in parameter.values if repr(each) == value) if is_usual else ABSENT


def _derived(hole: Hole, parameters: Iterable[Parameter]) -> Code | None:
    """``4 * width``, or ``kernel // 2`` of a padding, where that is what all of the modules have."""
    values = hole.values
    for parameter in parameters:
        given = parameter.values
        if not all(type(value) is int for value in (*values, *given)):
            continue
        if (
            hole.role == "padding"
            and parameter.role == "kernel"
            and all(p == k // 2 for p, k in zip(values, given, strict=True))
        ):
            return Code(f"{parameter.name} // 2")
        if hole.role in _SIZES and parameter.role in _SIZES and given[0]:
            factor = values[0] // given[0]
            if factor > 1 and all(value == factor * each for value, each in zip(values, given, strict=True)):
                return Code(f"{factor} * {parameter.name}")
    return None


def _free_name(role: str, place: str, taken: set[str]) -> str:
    first = place.split(".")[0]
    candidates = [role, f"{first}_{role}" if first != role else role, *(f"{role}{number}" for number in range(2, 1000))]
    for name in candidates:
        if (
            is_attribute(name)
            and name not in taken
            and not keyword.issoftkeyword(name)
            and name not in ("self", *IMPORTS)
        ):
            return name
    return _free_name("argument", "", taken)


def _names_in(values: Iterable[Value]) -> set[str]:
    """The names that the constructor's code reads: no argument may be called so."""
    found: set[str] = set()
    for value in values:
        if isinstance(value, Make):
            found |= {value.callee.split(".")[0], *_names_in(arg.value for arg in value.args)}
        elif isinstance(value, Hole):
            found |= set()
        elif isinstance(value, Code):
            found |= {node.id for node in ast.walk(ast.parse(value.text)) if isinstance(node, ast.Name)}
        elif isinstance(value, list | tuple):
            found |= _names_in(value)
    return found


def _constructor(
    parent: Value, held: dict[str, Value], parameters: Sequence[Parameter], names: dict[str, Code]
) -> ast.FunctionDef:
    arguments = ", ".join(_declared(parameter) for parameter in parameters)
    function = ast.parse(f"def __init__(self{', ' if arguments else ''}{arguments}) -> None: pass").body[0]
    assert isinstance(function, ast.FunctionDef)
    parent = filled(parent, names)
    function.body = [ast.Expr(expression(Make("super().__init__", parent.args)))]
    function.body += [assigned(name, filled(value, names)) for name, value in held.items()]
    return function


def _declared(parameter: Parameter) -> str:
    head = f"{parameter.name}: {parameter.annotation or 'object'}"
    return f"{head} = {flat(expression(parameter.default))}" if parameter.has_default else head


def assigned(name: str, value: Value) -> ast.stmt:
    """``self.name = value``, or what does that for a name that is no attribute's."""
    code = expression(value)
    if isinstance(value, Make) and value.callee == "self.register_buffer":
        return ast.Expr(code)
    if is_attribute(name):
        return ast.Assign([ast.Attribute(ast.Name("self", ast.Load()), name, ast.Store())], code)
    return ast.Expr(ast.Call(ast.parse("self.add_module", mode="eval").body, [ast.Constant(name), code], []))
