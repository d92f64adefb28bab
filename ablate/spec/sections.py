"""The sections of a spec's tree, validated: recipe, data, paper. (The network: ``ablate.network``.)"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from ablate import yamlfile
from ablate.collect import Collector, Path, dotted
from ablate.data.dataset import DataFields, DataSpec
from ablate.data.dataset import registry as data_sets
from ablate.data.mix import MIXINGS
from ablate.diagnose import problems
from ablate.errors import Problem
from ablate.grammar import PaperClaim
from ablate.recipe import Loss, Optimizer, Schedule, Section, TrainSpec, by_name
from ablate.spec.rules import nulls_within

_NAMED: dict[tuple[str, ...], dict[str, type[Section]]] = {
    ("train", "optimizer"): by_name(Optimizer),
    ("train", "schedule"): by_name(Schedule),
    ("train", "loss"): by_name(Loss),
}


def read_train(tree: yamlfile.Mapping, collector: Collector) -> TrainSpec | None:
    """The recipe; what a later change of an optimiser's or schedule's name orphaned is dropped and listed."""
    section = tree.get("train")
    if section is None:
        collector.add(("train",), "missing: how to train?", "train: {epochs: 5, optimizer: {name: sgd, lr: 0.1}}")
        return None
    pruned = dict(section)
    for path, kinds in _NAMED.items():
        if path[-1] in section:
            pruned[path[-1]] = _without_orphans(section[path[-1]], kinds, path, collector)
    recipe: TrainSpec | None = read_section(TrainSpec, pruned, collector, ("train",))
    return recipe


def _without_orphans(value: Any, kinds: Mapping[str, Any], path: tuple[str, ...], collector: Collector) -> Any:
    """A mapping with a ``name``, without the keys that a later change of it orphaned."""
    if not isinstance(value, dict) or not isinstance(value.get("name"), str) or value["name"] not in kinds:
        return value
    known = kinds[value["name"]].model_fields
    return {
        key: item
        for key, item in value.items()
        if key in known or not collector.drop_if_orphaned(value, key, "name", (*path, key))
    }


def unknown_keys(path: tuple[str, ...], value: Mapping[str, Any], collector: Collector) -> list[Problem]:
    """What is wrong with those keys of a mapping with a ``name`` which nothing of that name has."""
    name = value.get("name")
    kinds = MIXINGS if path == ("data", "mix") else _NAMED.get(path, {})
    model = DataSpec if path == ("data",) else kinds.get(str(name))
    known = _data_keys(name) if path == ("data",) else frozenset(model.model_fields if model else ())
    wrong = {dotted((*path, key)) for key in value if known and key not in known}
    if not wrong:
        return []
    own = Collector(collector.tree)
    read_section(model, value, own, path)
    return [problem for problem in own.problems if problem.path in wrong]


def read_section(model: Any, value: Any, collector: Collector, path: Path) -> Any:
    """``value`` validated by ``model``; problems go to the collector and the answer is then ``None``."""
    nulls = nulls_within(value)
    for inner in nulls:
        collector.add((*path, *inner), "null is no value here", key=False)
    if nulls:
        return None
    try:
        return model.model_validate(value)
    except ValidationError as error:
        collector.extend(problems(error, collector.tree, path))
        return None


def read_data(tree: yamlfile.Mapping, collector: Collector) -> DataSpec | None:
    """The data; keys that a later change of ``data.name`` orphaned are dropped and listed."""
    if "data" not in tree:
        hint = "data: {name: mnist5k, val: 0.2}; to look at a network alone, --shape 3x224x224"
        collector.add(("data",), "missing: which data?", hint)
        return None
    section = tree["data"]
    taken = _data_keys(section.get("name"))
    kept = {
        key: value
        for key, value in section.items()
        if key in taken or not taken or not collector.drop_if_orphaned(section, key, "name", ("data", key))
    }
    if "mix" in kept:
        kept["mix"] = _without_orphans(kept["mix"], MIXINGS, ("data", "mix"), collector)
    result: DataSpec | None = read_section(DataSpec, kept, collector, ("data",))
    return result


def _data_keys(name: object) -> frozenset[str]:
    """The keys that a data set makes use of; none for one that does not exist."""
    kind = data_sets().get(name) if isinstance(name, str) else None
    if kind is None:
        return frozenset()
    unused = {"root"} if kind.folder == "none" else set()
    unused |= set() if kind.downloads else {"download"}
    return frozenset({*DataFields.model_fields, *kind.Params.model_fields} - unused)


def read_paper(tree: yamlfile.Mapping, collector: Collector) -> list[PaperClaim]:
    value = tree.get("paper", [])
    if not isinstance(value, list):
        collector.add(("paper",), "not a list of {title, table, metric, values}", key=False)
        return []
    claims: list[PaperClaim] = []
    for index, item in enumerate(value):
        claim = read_section(PaperClaim, item, collector, ("paper", index))
        claims += [claim] if claim is not None else []
    return claims
