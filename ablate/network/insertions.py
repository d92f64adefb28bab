"""``network.insert`` → insertions, with every mistake at its place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ablate.block import TAKEN_OVER, BlockParams, BlockType
from ablate.collect import Collector, Path
from ablate.diagnose import problems, shown
from ablate.expression import substitute
from ablate.graph import Graph, Reported
from ablate.insert import At, Insertion, InsertionError, Residual, Site, selected
from ablate.network.edits import spread
from ablate.network.entries import (
    CHANNELS,
    Reading,
    is_linear,
    known_keys,
    mapping,
    read_block,
    read_params,
    reads_unknown,
)
from ablate.pattern import name_problem

INSERTION_KEYS = ("block", "at", "residual", "rank")
INSERT: Path = ("network", "insert")


class ResidualSpec(BaseModel):
    """How an insertion F joins."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    kind: Literal["none", "plain", "weighted"] = Field(description="F(x); F(x) + x; w·F(x) + x with w learnt")
    init: float = Field(0.0, allow_inf_nan=False, description="the first value of w (weighted only)")
    per: Literal["scalar", "channel"] = Field("scalar", description="one w, or one per channel (weighted only)")


def read_insertions(section: object, reading: Reading) -> tuple[list[Insertion], dict[str, tuple[At, ...]]]:
    """The insertions, and the places of all of them: of those with other mistakes too."""
    insertions: list[Insertion] = []
    places: dict[str, tuple[At, ...]] = {}
    for name, value in mapping(section, "insertion names to insertions", reading.collector, INSERT).items():
        if not isinstance(value, dict):
            message = f"{shown(value)} is not an insertion; write {{block: NAME, at: after PATTERN}}"
            reading.collector.add((*INSERT, name), message, key=False)
            continue
        places[name] = _at(value.get("at"), reading.collector, (*INSERT, name, "at"))
        insertion = _insertion(name, value, places[name], reading, (*INSERT, name))
        if insertion is not None:
            insertions.append(insertion)
    return insertions, places


def check_places(
    written: Graph, places: Mapping[str, tuple[At, ...]], section: Mapping[str, Any], collector: Collector
) -> None:
    """Say of every insertion, sound otherwise or not, where its patterns match nothing."""
    for name, at in places.items():
        for index, item in enumerate(at):
            try:
                selected(written, item)
            except ValueError as error:
                report_insertion(InsertionError(str(error), name, index), section, collector)


def report_insertion(error: InsertionError, section: Mapping[str, Any], collector: Collector) -> None:
    if not error.by_place:
        collector.add((*INSERT, error.insertion), str(error))
        return
    path: Path = (*INSERT, error.insertion, "at")
    value = section["insert"][error.insertion]["at"]
    if isinstance(value, list) and error.at is not None:
        path, value = (*path, error.at), value[error.at]
    # The column is that of the pattern within the text, where the text is plain.
    columns = len(value) - len(value.split()[-1]) if isinstance(value, str) and value.split() else 0
    message, _, hint = str(error).partition("; ")
    collector.add(path, message, hint, key=False, columns=columns)


def _insertion(
    name: str, value: Mapping[str, Any], at: tuple[At, ...], reading: Reading, path: Path
) -> Insertion | None:
    wrong = name_problem(name)
    if wrong:
        reading.collector.add(path, wrong)
    block = read_block(value, reading, path)
    known = None
    if block is not None and reading.key is not None and not wrong:
        known = _untroubled_insertion(_Asked(name, value, at, block, reading, path))
    found = known or _read_insertion(name, value, at, block, reading, path)
    return None if wrong else found


class _Asked:
    """An insertion's section and how it is read: equal ones are one insertion, which a search reads once."""

    def __init__(
        self, name: str, value: Mapping[str, Any], at: tuple[At, ...], block: BlockType, reading: Reading, path: Path
    ) -> None:
        self.given = (name, value, at, block)
        self.reading, self.path = reading, path
        self.key = (name, block, repr(value), reading.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Asked) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)


@lru_cache(maxsize=4096)
def _untroubled_insertion(asked: _Asked) -> Insertion | None:
    """The insertion; ``None`` where there is something to report, or will be at its places, to who asks then."""
    reading = asked.reading = asked.reading.silent()
    insertion = _read_insertion(*asked.given, reading, asked.path)
    late = insertion is not None and not isinstance(insertion.params, BlockParams)
    return None if late or not reading.untroubled else insertion


def _read_insertion(
    name: str,
    value: Mapping[str, Any],
    at: tuple[At, ...],
    block: BlockType | None,
    reading: Reading,
    path: Path,
) -> Insertion | None:
    collector = reading.collector
    residual = _residual(value.get("residual", "none"), collector, (*path, "residual"))
    rank = value.get("rank", 0)
    ranked = isinstance(rank, int) and not isinstance(rank, bool)
    if not ranked:
        collector.add((*path, "rank"), f"{shown(rank)} is not a whole number", key=False)
    replaces = any(item.side == "replace" for item in at)
    params = _params(block, value, reading, path, replaces) if block else None
    if block is not None and len(block.ports) != 1 and not replaces:
        collector.add((*path, "block"), f"'{block.name}' joins several inputs and can't be inserted at one", key=False)
        return None
    if block is None or params is None or not at or residual is None or not ranked:
        return None
    return Insertion(name, block, params, at, residual, rank)


def _params(
    block: BlockType, value: Mapping[str, Any], reading: Reading, path: Path, replaces: bool
) -> BlockParams | Callable[[Site], BlockParams] | None:
    """The parameters, or where they depend on the place a function of it."""
    late = replace(reading, unknown=frozenset({CHANNELS}))
    taken = known_keys(block, value, INSERTION_KEYS, late, path)
    if taken is None:
        return None
    spreads = [key for key, item in taken.items() if is_linear(item)]
    for key in spreads:
        if not reads_unknown(taken[key], late) and not _sound_spread(taken[key], reading, (*path, key)):
            return None
    open_keys = replaces and any(key not in taken for key in TAKEN_OVER if key in block.Params.model_fields)
    if spreads or open_keys or reads_unknown(taken, late):
        return partial(_params_at, block, value, reading, path, tuple(spreads))
    return read_params(block, value, INSERTION_KEYS, reading, path)


def _sound_spread(value: Any, reading: Reading, path: Path) -> bool:
    try:
        spread(substitute(value, reading.names), 0, 1)
    except ValueError as error:
        message, _, hint = str(error).partition("; ")
        reading.collector.add(path, message, hint, key=False)
        return False
    return True


def _params_at(
    block: BlockType, value: Mapping[str, Any], reading: Reading, path: Path, spreads: tuple[str, ...], site: Site
) -> BlockParams:
    """The parameters at one place. What is wrong goes to the collector once, and ``Reported`` is raised."""
    names = {**reading.names, CHANNELS: site.channels}
    own = Collector(reading.collector.tree)
    node = dict(value)
    try:
        node |= {key: spread(substitute(value[key], names), site.index, site.count) for key in spreads}
    except ValueError as error:
        own.add(path, str(error), key=False)
    here = replace(reading, names=names, collector=own)
    params = None if own.problems else read_params(block, node, INSERTION_KEYS, here, path, site.taken_over)
    if params is None:
        reading.collector.problems += [problem for problem in own.problems if problem not in reading.collector.problems]
        raise Reported(".".join(map(str, path)))
    return params


def _at(value: object, collector: Collector, path: Path) -> tuple[At, ...]:
    if value is None:
        collector.add(path, "missing: where?", "at: after PATTERN, or at: before PATTERN")
        return ()
    items = value if isinstance(value, list) else [value]
    found: list[At] = []
    for index, item in enumerate(items):
        place: Path = (*path, index) if isinstance(value, list) else path
        try:
            if not isinstance(item, str):
                raise ValueError(f"{shown(item)} is no place; write 'after PATTERN' or 'before PATTERN'")
            found.append(At.parse(item))
        except ValueError as error:
            collector.add(place, str(error), key=False)
    if not items:
        collector.add(path, "an empty list; name at least one place", key=False)
    return tuple(found) if len(found) == len(items) else ()


def _residual(value: object, collector: Collector, path: Path) -> Residual | None:
    try:
        spec = ResidualSpec.model_validate({"kind": value} if isinstance(value, str) else value)
    except ValidationError as error:
        collector.extend(problems(error, collector.tree, path, model=ResidualSpec))
        return None
    if spec.kind != "weighted" and spec.model_fields_set - {"kind"}:
        unused = sorted(spec.model_fields_set - {"kind"})[0]
        collector.add((*path, unused), f"a {spec.kind} residual has no weight", "kind: weighted has")
        return None
    return Residual(spec.kind, spec.init, spec.per)
