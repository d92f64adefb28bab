"""Regions → classes: equal regions share one, and what differs among them is an argument, a number or a module."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from torch import nn

from ablate.ejecting.classes import define
from ablate.ejecting.docs import of_composite, with_shapes
from ablate.ejecting.forwards import Step, forward
from ablate.ejecting.leaves import LIGHT
from ablate.ejecting.make import IDENTITY, Make, Value, member
from ablate.ejecting.modules import Modules, module_dict, module_list, sequential
from ablate.ejecting.regions import Item, Region, Regions
from ablate.ejecting.source import Sheet

MOST_SLOTS = 2
"""Arguments of a class that are modules. Regions that differ in more are written as two classes."""
LONGEST_SHAPES = 80
"""Characters of a line of shapes; of a class with many inputs nothing is said."""
_ANYTHING = "any"
_CAT = re.compile(r"torch\.cat\(\[\{0\}(?:, \{\d+\})*\], ((?:dim=)?\d+)\)")
_OF_MODULE_DICT = frozenset(dir(nn.ModuleDict()))
"""Names that a module in a ``ModuleDict`` can't have."""


def _gathered(region: Region) -> str:
    """``torch.cat(x, 1)`` of a region that first of all concatenates what it reads, however much that is."""
    if not region.is_composite or not region.items or region.items[0].leaf is None:
        return ""
    first, *others = region.items
    match = _CAT.fullmatch(first.leaf.call) if first.leaf else None
    read = {value for item in others for value in item.inputs} | {region.output}
    alone = first.inputs == region.inputs and read.isdisjoint(region.inputs)
    return f"torch.cat(x, {match[1]})" if match and alone else ""


def _is_numbered(region: Region) -> bool:
    """Whether it was an ``nn.Sequential`` in an imported model."""
    return all(item.path[0].isdigit() for item in region.items)


class Writer:
    """Writes the classes of a graph's regions into a sheet."""

    def __init__(self, sheet: Sheet, modules: Modules, regions: Regions) -> None:
        self.sheet, self.modules, self.regions = sheet, modules, regions

    def write(self) -> None:
        whole = self.regions.whole()
        self.modules.write()
        waiting = [region for region in whole.inner() if region is not whole and not region.is_elided]
        self._settle_chains(waiting)
        while waiting := [region for region in waiting if region.make is None]:
            self._write_group(self._ready(waiting))
        self._class([whole], fixed="Network")

    # Chains of modules need no class.

    def _settle_chains(self, waiting: Sequence[Region]) -> None:
        composites = Counter(region.title for region in waiting if region.is_composite)
        self.as_chain = {
            region.scope
            for region in waiting
            if (not region.is_composite or composites[region.title] == 1 or _is_numbered(region))
            and self._is_chain(region)
        }

    def _is_chain(self, region: Region) -> bool:
        """Whether each module reads what the one before gives, so that ``nn.Sequential`` is all of it."""
        if len(region.inputs) != 1:
            return False
        value = region.inputs[0]
        for item in region.items:
            if item.inputs != (value,) or len(item.path) > 1:
                return False
            if item.leaf is not None and item.leaf.made is None and item.leaf.module is None:
                return False
            value = item.value
        modules = [item.path[0] for item in region.items if not item.elided]
        return value == region.output and modules == self._in_order(region, modules) and bool(modules)

    def _in_order(self, region: Region, names: Sequence[str]) -> list[str]:
        """Names of modules and scopes of a region, in the order in which the network holds them."""
        first: dict[str, int] = {}
        prefix = f"{region.scope}." if region.scope else ""
        for module, rank in self.regions.rank.items():
            if module.startswith(prefix):
                first.setdefault(module.removeprefix(prefix).split(".")[0], rank)
        return sorted(dict.fromkeys(names), key=lambda name: first.get(name, 0))

    def _chain(self, region: Region) -> Make:
        parts = {item.path[0]: self._made(item) for item in region.items if not item.elided}
        return sequential(self.sheet, {name: part for name, part in parts.items() if part is not None})

    # Everything else is a class.

    def _ready(self, waiting: Sequence[Region]) -> list[Region]:
        """Regions of one structure, all that they hold written already."""
        for whole_group in (True, False):
            for first in waiting:
                group = [region for region in waiting if self._structure(region) == self._structure(first)]
                ready = [region for region in group if self._is_ready(region)]
                if ready and (ready == group or not whole_group):
                    return ready
        raise AssertionError("regions hold each other")

    @staticmethod
    def _is_ready(region: Region) -> bool:
        return all(item.region is None or item.elided or item.region.make is not None for item in region.items)

    def _structure(self, region: Region) -> tuple[object, ...]:
        """Equal for regions that may share a class, whatever stands at the places with one input."""
        gathered = _gathered(region)
        forms = tuple(
            (item.leaf.call if len(item.inputs) > 1 and item.leaf is not None else _ANYTHING)
            for item in region.items[bool(gathered) :]
        )
        wiring = region.wiring_behind_first if gathered else region.wiring
        return region.title, region.is_composite, region.scope in self.as_chain, wiring, forms, gathered

    def _write_group(self, group: Sequence[Region]) -> None:
        if group[0].scope in self.as_chain:
            for region in group:
                region.make = self._chain(region)
            return
        if self._is_one_class(group):
            self._class(group)
            return
        strict: dict[tuple[object, ...], list[Region]] = {}
        for region in group:
            strict.setdefault(tuple(self._form(item) for item in region.items), []).append(region)
        for same in strict.values():
            self._class(same)

    def _is_one_class(self, group: Sequence[Region]) -> bool:
        slots = 0
        for items in zip(*(region.items for region in group), strict=True):
            forms = {self._form(item) for item in items}
            if len(forms) > 1:
                makes = [self._made(item) for item in items]
                if any(make is None for make in makes):
                    return False
                slots += len({make.callee for make in makes if make is not None}) > 1
        return slots <= MOST_SLOTS

    def _form(self, item: Item) -> tuple[str, ...]:
        if item.elided:
            return ("elided",)
        if item.leaf is not None and item.leaf.call:
            return "call", _CAT.sub(r"torch.cat(x, \1)", item.leaf.call)
        make = self._made(item)
        return "make", make.callee if make else ""

    def _made(self, item: Item) -> Make | None:
        if item.elided:
            return IDENTITY
        return item.region.make if item.region is not None else item.leaf.make(self.modules) if item.leaf else None

    def _class(self, group: Sequence[Region], fixed: str = "") -> None:
        first = group[0]
        forms = [self._common_form(items) for items in zip(*(region.items for region in group), strict=True)]
        contents, owners = zip(*(self._contents(region, forms) for region in group), strict=True)
        steps, output = self._steps(group, forms, owners[0])
        method = forward(steps, 0 if _gathered(first) else len(first.inputs), output)
        if fixed:
            self.sheet.release(fixed)
        doc = with_shapes(self._doc(first), self._shapes(group) if not fixed else ())
        makes = define(self.sheet, fixed or first.title, doc, list(contents), [method])
        for region, make in zip(group, makes, strict=True):
            region.make = make

    @staticmethod
    def _doc(region: Region) -> str:
        blocks = {item.block for inner in region.inner() for item in inner.items if not item.elided}
        return of_composite(region.doc, blocks) if region.doc else ""

    def _common_form(self, items: Sequence[Item]) -> str:
        """``elided``, ``call`` or ``module``: what the same place of all of the regions is."""
        forms = {self._form(item) for item in items}
        (kind, *_), *others = forms
        return kind if not others and kind != "make" else "module"

    def _contents(self, region: Region, forms: Sequence[str]) -> tuple[dict[str, Value], dict[tuple[str, ...], str]]:
        """What the class holds, by name; and, for each path within, whether its last part is an attribute or a key."""
        tree: dict[str, Any] = {}
        for item, form in zip(region.items, forms, strict=True):
            if form == "module":
                branch = tree
                for name in item.path[:-1]:
                    branch = branch.setdefault(name, {})
                branch.setdefault(item.path[-1], self._made(item))
        owners: dict[tuple[str, ...], str] = {}
        names = self._in_order(region, list(tree))
        return {name: self._held(tree[name], region, (name,), "attribute", owners) for name in names}, owners

    def _held(self, held: Any, region: Region, path: tuple[str, ...], owner: str, owners: dict[Any, str]) -> Make:
        owners[path] = owner
        if isinstance(held, Make):
            return held
        prefix = Region(".".join([*([region.scope] if region.scope else []), *path]), [], (), "")
        names = self._in_order(prefix, list(held))
        numbered = names == [str(index) for index in range(len(names))]
        clash = not _OF_MODULE_DICT.isdisjoint(names)
        kind = "index" if numbered else "attribute" if clash else "key"
        parts = {name: self._held(held[name], region, (*path, name), kind, owners) for name in names}
        if numbered:
            return module_list(list(parts.values()))
        if clash:
            (make,) = define(self.sheet, "Scope", "Holds modules.", [parts], [])
            return make
        return module_dict(parts)

    def _steps(
        self, group: Sequence[Region], forms: Sequence[str], owners: dict[tuple[str, ...], str]
    ) -> tuple[list[Step], int]:
        first = group[0]
        number = {value: -1 - index for index, value in enumerate(first.inputs)}
        steps: list[Step] = []
        for index, (item, form) in enumerate(zip(first.items, forms, strict=True)):
            inputs = tuple(number[value] for value in item.inputs)
            gathered = _gathered(first) if index == 0 else ""
            if form == "elided":
                number[item.value] = inputs[0]
                continue
            number[item.value] = len(steps)
            if gathered:
                inputs = ()
            call = gathered or item.leaf.call if form == "call" and item.leaf else self._call(item, owners)
            light = item.block in LIGHT or (item.block == "imported" and item.leaf is not None and item.leaf.light)
            steps.append(Step(call, inputs, item.path[-1], light, self._shape([each.items[index] for each in group])))
        return steps, number[first.output]

    @staticmethod
    def _call(item: Item, owners: dict[tuple[str, ...], str]) -> str:
        kinds = [owners[item.path[: depth + 1]] for depth in range(len(item.path))]
        places = ", ".join(f"{{{index}}}" for index in range(len(item.inputs)))
        return f"{member(item.path, kinds)}({places})"

    def _shape(self, items: Sequence[Item]) -> str:
        shapes = {self.regions.graph.shape(item.value) for item in items}
        return str(*shapes) if len(shapes) == 1 else ""

    def _shapes(self, group: Sequence[Region]) -> list[str]:
        """What goes in and comes out, where the class is used at several shapes."""
        graph = self.regions.graph
        lines = dict.fromkeys(
            f"{', '.join(str(graph.shape(value)) for value in region.inputs)} -> {graph.shape(region.output)}"
            for region in group
        )
        if len(lines) == 1:
            return []
        if max(map(len, lines)) > LONGEST_SHAPES:
            return []
        shown = list(lines)[:4]
        return [*shown, *(["…"] if len(lines) > 4 else [])]
