"""The grammar of ``specs/``: sections as pydantic models, ``extends``, overrides.

A spec stays a tree of data with places until it is asked for what it means: levels and ``--set`` are
assignments into that tree, and only the result is validated as a whole.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ablate import yamlfile
from ablate.collect import Collector, dotted
from ablate.dataset import DataSpec
from ablate.diagnose import problems
from ablate.errors import Place, Problem, UserError, did_you_mean, listed

MOST_EXTENDS = 10
MOST_SEEDS = 1_000
SECTIONS = ("name", "extends", "network", "data", "train", "ablation", "report", "paper", "execution")
REPORT_COLUMNS = (
    "params",
    "flops",
    "seconds",
    *(f"{split}.{metric}" for split in ("train", "val", "test") for metric in ("loss", "accuracy", "error")),
)
MONITORS = ("val.loss", "val.error", "val.accuracy", "test.loss", "test.error", "test.accuracy")


class Section(BaseModel):
    """Strict: unknown keys and silent coercions are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Sgd(Section):
    """Stochastic gradient descent (torch.optim.SGD)."""

    name: Literal["sgd"]
    lr: float = Field(gt=0, description="learning rate; the peak of one_cycle")
    momentum: float = Field(0.0, ge=0, lt=1, description="momentum")
    weight_decay: float = Field(0.0, ge=0, description="L2 penalty, added to the gradient")
    nesterov: bool = Field(False, description="Nesterov's momentum")


class Adam(Section):
    """Adam: Kingma and Ba, 2015 (arXiv:1412.6980) (torch.optim.Adam)."""

    name: Literal["adam"]
    lr: float = Field(gt=0, description="learning rate")
    betas: list[float] = Field([0.9, 0.999], min_length=2, max_length=2, description="decay of the two moments")
    eps: float = Field(1e-8, gt=0, description="added to the denominator")
    weight_decay: float = Field(0.0, ge=0, description="L2 penalty, added to the gradient")


class AdamW(Section):
    """Adam with decoupled weight decay: Loshchilov and Hutter, 2019 (arXiv:1711.05101) (torch.optim.AdamW)."""

    name: Literal["adamw"]
    lr: float = Field(gt=0, description="learning rate")
    betas: list[float] = Field([0.9, 0.999], min_length=2, max_length=2, description="decay of the two moments")
    eps: float = Field(1e-8, gt=0, description="added to the denominator")
    weight_decay: float = Field(0.01, ge=0, description="decay, as a share of the learning rate a step")


class Constant(Section):
    """The learning rate as stated, throughout."""

    name: Literal["constant"]


class MultiStep(Section):
    """Multiplied by gamma at each milestone (torch.optim.lr_scheduler.MultiStepLR)."""

    name: Literal["multi_step"]
    milestones: list[int] = Field(min_length=1, description="epochs after which the rate drops")
    gamma: float = Field(0.1, gt=0, description="factor at each milestone")


class Cosine(Section):
    """From the rate to its floor along half a cosine, a step at a time (CosineAnnealingLR)."""

    name: Literal["cosine"]
    floor: float = Field(0.0, ge=0, description="the last learning rate")


class OneCycle(Section):
    """Up to the rate and down again: Smith and Topin, 2018 (arXiv:1708.07120) (OneCycleLR)."""

    name: Literal["one_cycle"]
    warmup: float = Field(0.3, gt=0, lt=1, description="share of the steps in which the rate rises")
    start_factor: float = Field(25.0, gt=1, description="the first rate is the peak divided by this")
    final_factor: float = Field(1e4, gt=1, description="the last rate is the first divided by this")


class Loss(Section):
    """The training loss. Evaluation always reports the plain cross-entropy, in nats."""

    name: Literal["cross_entropy"] = "cross_entropy"
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="share of the label spread over all classes")


class EarlyStopping(Section):
    """Ends a trial when the monitored metric has stopped improving."""

    monitor: Literal[MONITORS] = Field(description="a metric; one of test.* leaks the test split")  # type: ignore[valid-type]
    patience: int = Field(ge=1, description="epochs without improvement before the end")
    threshold: float = Field(1e-4, ge=0, description="the least change that counts as improvement")
    mode: Literal["relative", "absolute"] = Field("relative", description="threshold as a share of the best, or plain")


class Ema(Section):
    """Exponential moving average of the weights, a step at a time."""

    decay: float = Field(0.999, gt=0, lt=1, description="what is kept of the average each step")


Optimizer = Annotated[Sgd | Adam | AdamW, Field(discriminator="name")]
Schedule = Annotated[Constant | MultiStep | Cosine | OneCycle, Field(discriminator="name")]


class TrainSpec(Section):
    """The training recipe."""

    epochs: int = Field(ge=1, le=100_000, description="passes over the train split")
    batch_size: int = Field(128, ge=2, le=1_000_000, description="examples a step")
    optimizer: Optimizer = Field(description="the optimiser")
    schedule: Schedule = Field(Constant(name="constant"), description="the learning rate over time")
    loss: Loss = Field(Loss(), description="the training loss")
    early_stopping: EarlyStopping | None = Field(None, description="ends a trial early")
    clip_norm: float | None = Field(None, gt=0, description="gradients are scaled down to this L2 norm")
    ema: Ema | None = Field(None, description="keep an average of the weights")
    select: Literal["last", "best", "ema"] = Field("last", description="whose weights are reported")
    precision: Literal["fp32", "bf16", "fp16"] = Field("fp32", description="autocast's type in forward and loss")


class ExecutionSpec(Section):
    """How trials run. Not part of what a variant is, but of the study's numerics profile."""

    threads: int = Field(1, ge=1, le=1024, description="CPU threads per trial")
    channels_last: bool = Field(True, description="memory layout of images and convolutions")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: cuda where there is one")


class ReportSpec(Section):
    """What the table shows."""

    columns: list[Literal[REPORT_COLUMNS]] = Field(  # type: ignore[valid-type]
        ["params", "flops", "val.accuracy", "test.accuracy"], min_length=1, description="columns of the table"
    )


class PaperClaim(Section):
    """Published values, shown beside the measured ones."""

    title: str = Field(min_length=1, max_length=200, description="the paper")
    table: int | str | None = Field(None, description="table or figure of the paper")
    metric: Literal[REPORT_COLUMNS] = Field(description="what the values are")  # type: ignore[valid-type]
    values: dict[str, float] = Field(min_length=1, description="variant → published value")


class FactorByPath(Section):
    """A factor whose levels are values of one path."""

    path: str = Field(description="dotted path that takes each level's value")
    levels: list[Any] = Field(min_length=1, description="the values")


class AblationSpec(Section):
    """What varies, and over which seeds."""

    seeds: int | list[int] = Field(description="how many (0, 1, …), or which")
    design: Literal["grid", "variants"] = Field("grid", description="how levels combine")
    baseline: str | dict[str, str] | None = Field(None, description="a variant's name, or levels (a partial baseline)")
    factors: dict[str, Any] | None = Field(None, description="factor → level → patch, or {path, levels}")
    variants: dict[str, dict[str, Any]] | None = Field(None, description="variant → patch (design: variants)")


@dataclass(frozen=True)
class Assignment:
    """One path that a patch or ``--set`` sets. ``None`` removes."""

    path: tuple[str, ...]
    value: Any
    place: Place
    layer: str
    """``spec``, ``--set`` or the level, ``placement=none``."""

    @property
    def dotted(self) -> str:
        return ".".join(self.path)


@dataclass(frozen=True)
class Spec:
    """A spec as read: its tree (``extends`` merged, nulls resolved), where it stands, what ``--set`` assigns."""

    tree: yamlfile.Mapping
    file: str
    folder: Path
    sets: tuple[Assignment, ...] = ()

    @property
    def name(self) -> str:
        return str(self.tree["name"])


@dataclass
class Applied:
    """A tree after assignments: what they came to."""

    tree: yamlfile.Mapping
    removed_nodes: frozenset[str] = frozenset()
    inactive: list[Assignment] = field(default_factory=list)
    """Assignments below something that another one removed."""


def load(source: str | Path | Mapping[str, Any], *, sets: Mapping[str, Any] | Iterable[str] = ()) -> Spec:
    """Read a spec from a file or a mapping. ``sets`` are ``path=value`` texts, or a mapping of path → value.

    The tree's outline is checked here; networks, levels and variants by ``design.study_plan``.
    """
    if isinstance(source, Mapping):
        tree, file, folder = yamlfile.loads(yamlfile.dump(dict(source)), "<mapping>"), "<mapping>", Path.cwd()
        tree = _extended(tree, folder, folder, ())
    else:
        path = Path(source)
        tree, file, folder = yamlfile.load(path), str(path), path.resolve().parent
        tree = _extended(tree, folder, folder, (path.resolve(),))
    _check_outline(tree)
    spec = Spec(tree, file, folder)
    return Spec(tree, file, folder, _read_sets(sets, spec))


def _extended(tree: yamlfile.Mapping, folder: Path, top: Path, seen: tuple[Path, ...]) -> yamlfile.Mapping:
    """``tree`` merged over what it extends, which stays beneath the spec's folder."""
    collector = Collector(tree)
    parent_name = tree.get("extends")
    if parent_name is None:
        merged = copy.deepcopy(tree)
        _drop_nulls(merged, None, collector, ())
        collector.raise_if_any()
        return merged
    if not isinstance(parent_name, str):
        collector.add(("extends",), f"{parent_name!r} is not a file's name", key=False)
        collector.raise_if_any()
    parent_file = (folder / str(parent_name)).resolve()
    if not parent_file.is_relative_to(top):
        collector.add(("extends",), f"'{parent_name}' is outside the spec's folder", "keep it beneath", key=False)
    elif not parent_file.is_file():
        collector.add(("extends",), f"no file '{parent_name}'", f"looked for {_shown(parent_file)}", key=False)
    elif parent_file in seen:
        collector.add(("extends",), f"'{parent_name}' extends itself", key=False)
    elif len(seen) > MOST_EXTENDS:
        collector.add(("extends",), f"more than {MOST_EXTENDS} files extend one another", key=False)
    collector.raise_if_any()
    parent = yamlfile.load(_shown(parent_file))
    parent = _extended(parent, parent_file.parent, top, (*seen, parent_file))
    child = copy.deepcopy(tree)
    del child["extends"]
    _drop_nulls(child, parent, collector, ())
    collector.raise_if_any()
    return _merged(parent, child, ())


def _shown(path: Path) -> Path:
    """The path as a user would type it from here."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _drop_nulls(tree: yamlfile.Mapping, parent: Any, collector: Collector, path: tuple[str, ...]) -> None:
    """Take nulls out of ``tree``, and what they remove out of ``parent``."""
    if path and path[0] == "ablation":
        return  # A level's null is an assignment, made when the level is.
    for key in list(tree):
        value = tree[key]
        here = (*path, key)
        if isinstance(value, yamlfile.Mapping):
            below = parent.get(key) if isinstance(parent, dict) else None
            _drop_nulls(value, below if isinstance(below, dict) else None, collector, here)
        elif value is None:
            problem = null_problem(here)
            missing = not isinstance(parent, dict) or key not in parent
            if problem:
                collector.add(here, problem[0], problem[1], key=False)
            elif missing and is_open(here):
                hint = did_you_mean(key, parent) if isinstance(parent, dict) else ""
                collector.add(here, "there is nothing to remove", hint)
            del tree[key]
            if isinstance(parent, yamlfile.Mapping):
                parent.pop(key, None)


def _merged(parent: yamlfile.Mapping, child: yamlfile.Mapping, path: tuple[str, ...]) -> yamlfile.Mapping:
    """Mappings merge; a child that changes ``block`` or ``name`` replaces the whole; lists replace."""
    changes_kind = path and any(key in child and key in parent and child[key] != parent[key] for key in ("block", "name"))
    if changes_kind or path[:1] == ("ablation",) and len(path) > 1:
        return child
    merged = copy.deepcopy(parent)
    for key, value in child.items():
        below = merged.get(key)
        if isinstance(below, yamlfile.Mapping) and isinstance(value, yamlfile.Mapping):
            value = _merged(below, value, (*path, key))
        merged[key] = value
        merged.keys_at[key] = child.keys_at[key]
        merged.values_at[key] = child.values_at[key]
    return merged


OPTIONAL_SECTIONS = frozenset(
    {
        ("ablation",),
        ("report",),
        ("paper",),
        ("execution",),
        ("network", "insert"),
        ("network", "init"),
        ("network", "params"),
        ("data", "val"),
        ("data", "limit"),
        ("data", "augment"),
        ("train", "early_stopping"),
        ("train", "clip_norm"),
        ("train", "ema"),
        ("train", "schedule"),
        ("train", "loss"),
        ("ablation", "baseline"),
        ("ablation", "factors"),
        ("ablation", "variants"),
    }
)


def is_open(path: tuple[str, ...]) -> bool:
    """Whether ``path`` is an entry of an open mapping: a node or an insertion."""
    return len(path) == 3 and path[0] == "network" and path[1] in ("graph", "insert", "params")


def null_problem(path: tuple[str, ...]) -> tuple[str, str] | None:
    """Why null can't stand at ``path``: it removes entries of open mappings and sections, never a parameter."""
    if is_open(path) or path in OPTIONAL_SECTIONS:
        return None
    return "null removes a node, an insertion or a section, and this is a parameter", "state a value (none is one)"


def _check_outline(tree: yamlfile.Mapping) -> None:
    collector = Collector(tree)
    for key in tree:
        if key not in SECTIONS:
            collector.add((key,), "unknown key", did_you_mean(key, SECTIONS))
    if "name" in tree:
        problem = study_name_problem(tree["name"])
        if problem:
            collector.add(("name",), problem, key=False)
    for section in ("network", "data", "train", "ablation", "report", "execution"):
        if section in tree and not isinstance(tree[section], dict):
            collector.add((section,), f"{tree[section]!r} is not a mapping", key=False)
    collector.raise_if_any()


def study_name_problem(name: object) -> str | None:
    """Why ``name`` can't name a study's folder."""
    if not isinstance(name, str):
        return f"{name!r} is not text; a study's name becomes a folder"
    allowed = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.")
    if not name or len(name) > 100 or not set(name) <= allowed or name[0] in ".-":
        return f"'{name}' can't name a folder: letters, digits, _, - and . (not first), at most 100"
    return None


def _read_sets(sets: Mapping[str, Any] | Iterable[str], spec: Spec) -> tuple[Assignment, ...]:
    found: list[Assignment] = []
    problems_found: list[Problem] = []
    pairs: list[tuple[str, Any]] = []
    if isinstance(sets, Mapping):
        pairs = [(path, _with_places(value)) for path, value in sets.items()]
    else:
        for text in sets:
            path, equals, value = text.partition("=")
            if not equals:
                problems_found.append(Problem(f"--set {text}: write --set path=value"))
                continue
            try:
                pairs.append((path.strip(), yamlfile.parse_value(value)))
            except UserError as error:
                problems_found += error.problems
    for path, value in pairs:
        place = Place("--set", 1, 1, "--set")
        problem = path_problem(path)
        if problem:
            problems_found.append(Problem(f"--set {path}: {problem[0]}", hint=problem[1]))
        else:
            found.append(Assignment(tuple(path.split(".")), _relayered(value, "--set"), place, "--set"))
    if problems_found:
        raise UserError(problems_found)
    return tuple(found)


def _with_places(value: Any) -> Any:
    """A plain value as the reader would have read it, with places."""
    if isinstance(value, dict | list):
        return yamlfile.loads(yamlfile.dump({"value": value}), "--set")["value"]
    return value


def path_problem(path: str) -> tuple[str, str] | None:
    """Why a patch can't assign ``path``."""
    head = path.split(".")[0]
    if head not in ("network", "data", "train", "ablation", "report", "execution", "paper", "name"):
        return f"'{path}' is not a path of a spec", did_you_mean(head, SECTIONS)
    if any(not part for part in path.split(".")):
        return f"'{path}' has an empty part", "a dot joins two names"
    return None


def level_path_problem(path: str) -> tuple[str, str] | None:
    """Why a level can't assign ``path``: a level changes the network, the data or the recipe."""
    if path.split(".")[0] not in ("network", "data", "train"):
        return f"'{path}' is not a path that a level may change", "network.…, data.… or train.…"
    if len(path.split(".")) < 2:
        return f"'{path}' is a whole section", "name a path within it"
    return path_problem(path)


def apply(spec: Spec, assignments: Iterable[Assignment]) -> Applied:
    """The spec's tree with levels' assignments, and after them those of ``--set``.

    Shorter paths come first, so that a level can replace an insertion and another set a parameter of it.
    ``UserError`` for a null that removes nothing, and for a path that leads through a plain value.
    """
    applied = Applied(copy.deepcopy(spec.tree))
    removed: list[tuple[str, ...]] = []
    ordered = sorted([*assignments, *spec.sets], key=lambda a: len(a.path))
    found: list[Problem] = []
    for assignment in ordered:
        if any(assignment.path[: len(gone)] == gone and len(assignment.path) > len(gone) for gone in removed):
            applied.inactive.append(assignment)
            continue
        problem = _assign(applied.tree, assignment)
        if problem is not None:
            found.append(problem)
        elif assignment.value is None:
            removed.append(assignment.path)
    if found:
        raise UserError(found)
    applied.removed_nodes = frozenset(path[2] for path in removed if path[:2] == ("network", "graph") and len(path) == 3)
    return applied


def _assign(tree: yamlfile.Mapping, assignment: Assignment) -> Problem | None:
    parent: Any = tree
    for depth, part in enumerate(assignment.path[:-1]):
        if not isinstance(parent, dict):
            where = ".".join(assignment.path[:depth])
            return Problem(f"'{where}' is {parent!r} and holds no '{part}'", assignment.dotted, assignment.place)
        if part not in parent:
            if assignment.value is None or is_open(assignment.path[: depth + 1]):
                return _nothing_there(parent, part, assignment)
            _put(parent, part, yamlfile.Mapping(), assignment)
        parent = parent[part]
    if not isinstance(parent, dict):
        where = ".".join(assignment.path[:-1])
        return Problem(f"'{where}' is {parent!r} and has no keys", assignment.dotted, assignment.place)
    last = assignment.path[-1]
    if assignment.value is not None:
        _put(parent, last, _relayered(copy.deepcopy(assignment.value), assignment.layer), assignment)
        return None
    problem = null_problem(assignment.path)
    if problem:
        return Problem(problem[0], assignment.dotted, assignment.place, problem[1])
    if last not in parent and is_open(assignment.path):
        return _nothing_there(parent, last, assignment)
    parent.pop(last, None)
    return None


def _nothing_there(parent: Mapping[str, Any], part: str, assignment: Assignment) -> Problem:
    verb = "remove" if assignment.value is None else "change"
    hint = did_you_mean(part, parent)
    return Problem(f"there is no '{part}' to {verb}", assignment.dotted, assignment.place, hint)


def _put(parent: Any, key: str, value: Any, assignment: Assignment) -> None:
    known = key in parent
    parent[key] = value
    place = Place(assignment.place.file, assignment.place.line, assignment.place.column, assignment.layer)
    if not known:
        parent.keys_at[key] = place
    parent.values_at[key] = place


def _relayered(value: Any, layer: str) -> Any:
    """``value`` with ``layer`` as the writer of everything in it."""

    def moved(place: Place) -> Place:
        return Place(place.file, place.line, place.column, layer)

    if isinstance(value, yamlfile.Mapping):
        value.keys_at = {key: moved(place) for key, place in value.keys_at.items()}
        value.values_at = {key: moved(place) for key, place in value.values_at.items()}
        for item in value.values():
            _relayered(item, layer)
    elif isinstance(value, yamlfile.Sequence):
        value.values_at = [moved(place) for place in value.values_at]
        for item in value:
            _relayered(item, layer)
    return value


_NAMED: dict[tuple[str, ...], dict[str, type[Section]]] = {
    ("train", "optimizer"): {"sgd": Sgd, "adam": Adam, "adamw": AdamW},
    ("train", "schedule"): {"constant": Constant, "multi_step": MultiStep, "cosine": Cosine, "one_cycle": OneCycle},
}


def read_train(tree: yamlfile.Mapping, collector: Collector) -> TrainSpec | None:
    """The recipe; parameters that a later change of an optimiser's or schedule's name orphaned are dropped and listed."""
    section = tree.get("train")
    if section is None:
        collector.add(("train",), "missing: how to train?", "train: {epochs: 5, optimizer: {name: sgd, lr: 0.1}}")
        return None
    pruned = dict(section)
    for path, kinds in _NAMED.items():
        value = section.get(path[-1])
        if isinstance(value, dict) and value.get("name") in kinds:
            known = kinds[value["name"]].model_fields
            pruned[path[-1]] = {
                key: item
                for key, item in value.items()
                if key in known or not collector.drop_if_orphaned(value, key, "name", (*path, key))
            }
    return read_section(TrainSpec, pruned, collector, ("train",))


def read_section(model: Any, value: Any, collector: Collector, path: tuple[str, ...]) -> Any:
    """``value`` validated by ``model``; problems go to the collector and the answer is then ``None``."""
    nulls = [key for key, item in value.items() if item is None] if isinstance(value, dict) else []
    for key in nulls:
        collector.add((*path, key), "null is no value here", key=False)
    if nulls:
        return None
    try:
        return model.model_validate(value)
    except ValidationError as error:
        collector.extend(problems(error, collector.tree, path))
        return None


def read_data(tree: yamlfile.Mapping, collector: Collector) -> DataSpec | None:
    if "data" not in tree:
        collector.add(("data",), "missing: which data?", "data: {name: mnist5k, val: 0.2}")
        return None
    result: DataSpec | None = read_section(DataSpec, tree["data"], collector, ("data",))
    return result


def read_paper(tree: yamlfile.Mapping, collector: Collector) -> list[PaperClaim]:
    value = tree.get("paper", [])
    if not isinstance(value, list):
        collector.add(("paper",), "not a list of {title, table, metric, values}", key=False)
        return []
    claims: list[PaperClaim] = []
    for index, item in enumerate(value):
        try:
            claims.append(PaperClaim.model_validate(item))
        except ValidationError as error:
            collector.extend(problems(error, tree, ("paper", index)))
    return claims


__all__ = ["AblationSpec", "Applied", "Assignment", "Spec", "TrainSpec", "apply", "dotted", "listed", "load"]
