"""What the page tells of a single variant, and of the trials that failed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ablate.analysis.arms import Arm, measured
from ablate.analysis.curves import rows_of
from ablate.errors import listed
from ablate.findings import is_search
from ablate.labels import flow
from ablate.outcomes import FAILED
from ablate.quantities import COSTS, format_value, unit_of
from ablate.report.captions import counted
from ablate.report.page.claims import Claim, claims, signed
from ablate.report.page.curves import Curves, curves
from ablate.report.page.drawings import inlined
from ablate.store import DIAGRAMS, Study

if TYPE_CHECKING:
    from markupsafe import Markup

MOST_PICTURED = 60
"""Variants; with more, none has a diagram and curves."""
MOST_TOLD = 300
MOST_NAMES = 30
LONGEST_VALUE, LONGEST_MESSAGE, LONGEST_TRACEBACK = 300, 1000, 40
"""Characters of a value and of a message, lines of a traceback."""


@dataclass(frozen=True)
class Trial:
    """One row of a variant's trials; ``values`` are texts, in the order of the page's metrics."""

    seed: str
    state: str
    epochs: str
    seconds: str
    values: tuple[str, ...]
    error: str
    hash: str


@dataclass(frozen=True)
class Part:
    """Of a network: an insertion or a stage, with its parameters and FLOPs as texts."""

    name: str
    params: str
    flops: str


@dataclass(frozen=True)
class Told:
    """A variant, as the page tells of it; ``id`` is what links to it."""

    id: str
    name: str
    is_baseline: bool
    about: tuple[str, ...]
    patch: tuple[tuple[str, str], ...] | None
    """Path and value; None where none is on record."""
    claims: tuple[Claim, ...]
    nodes: tuple[tuple[str, str], ...]
    """Added, removed, changed: which."""
    insertions: tuple[Part, ...]
    stages: tuple[Part, ...]
    costs: tuple[Part, ...]
    trials: tuple[Trial, ...]
    diagram: Markup | None
    undrawn: str
    """Why there is no diagram; empty where there is one, or none is shown of any."""
    curves: Curves | None


@dataclass(frozen=True)
class Failure:
    """A trial that failed."""

    variant: str
    seed: str
    state: str
    message: str
    traceback: tuple[str, ...]


def links_of(arms: Sequence[Arm]) -> dict[str, str]:
    """The ids of the variants that the page tells of, by name."""
    return {arm.name: f"variant-{number}" for number, arm in enumerate(arms[:MOST_TOLD])}


def told(study: Study, arms: Sequence[Arm], metrics: Sequence[str], *, hidden: bool) -> Iterable[Told]:
    """The first ``MOST_TOLD`` of these. ``metrics``: of each trial; ``hidden``: nothing is said of the test split."""
    pictured = len(arms) <= MOST_PICTURED
    diagrams = study.diagrams() if pictured else {}
    rows = rows_of(study, arms) if pictured else {}
    compared = Counter(arm.baseline for arm in arms if arm.baseline is not None)
    for number, arm in enumerate(arms[:MOST_TOLD]):
        certificate: Mapping[str, Any] = arm.record.get("certificate") or {}
        drawn = diagrams.get(str(certificate.get("fingerprint")))
        diagram = inlined(drawn, f"d{number}", f"The network of {arm.name}") if drawn else None
        difference = certificate.get("difference") or {}
        cost = certificate.get("cost") or {}
        yield Told(
            id=f"variant-{number}",
            name=arm.name,
            is_baseline=arm.name in compared,
            about=tuple(_about(arm, compared[arm.name])),
            patch=_patch(arm.record),
            claims=tuple(claims(certificate) if certificate else ()),
            nodes=tuple(_nodes(difference)),
            insertions=tuple(_parts(difference.get("by_insertion") or {}, signs=False)),
            stages=tuple(_parts(difference.get("by_stage") or {}, signs=True)),
            costs=tuple(_parts(cost.get("by_stage") or {}, signs=False)),
            trials=tuple(_trial(arm, seed, metrics) for seed in arm.results),
            diagram=diagram,
            undrawn=_undrawn(study, diagrams, drawn) if pictured and diagram is None else "",
            curves=curves(rows.get(arm.name) or {}, hidden=hidden),
        )


def _undrawn(study: Study, diagrams: Mapping[str, str], drawn: str | None) -> str:
    """Why a variant has no diagram."""
    if DIAGRAMS in study.damaged:
        return f"The diagrams can't be read: {DIAGRAMS} is damaged."
    if drawn:
        return "The diagram on record can't be read as a picture."
    if diagrams:
        return "No diagram was kept of this network: not every network of a study is drawn."
    if is_search(study):
        return "No diagram was kept of this network."
    return "No diagram was kept: going on with the study (ablate sweep) draws it."


def _about(arm: Arm, compared: int) -> Iterable[str]:
    """``compared``: how many variants it is the baseline of."""
    for name in COSTS:
        if (value := arm.cost(name)) is not None:
            yield f"{format_value(name, value)} {name}"
    if duplicate := arm.record.get("duplicate_of"):
        yield f"the same as {duplicate}: one network and one recipe, trained once"
    if compared:
        yield f"the baseline of {counted(compared, 'variant')}"
    if arm.baseline is not None:
        yield f"compared with {arm.baseline}"
    if arm.control_of is not None:
        control = arm.record["control"]
        yield (
            f"a control: {control.get('by')} = {control.get('value')}, so that {control.get('match')} match those of "
            f"{arm.control_of}"
        )


def _patch(record: Mapping[str, Any]) -> tuple[tuple[str, str], ...] | None:
    found = record.get("patch")
    if not isinstance(found, list):
        return None
    return tuple(
        (str(path), _cut(flow(value), LONGEST_VALUE) if value is not None else "removed") for path, value in found
    )


def _nodes(difference: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    for word in ("added", "removed"):
        if names := difference.get(word):
            yield counted(len(names), "node") + f" {word}", listed(names, MOST_NAMES)
    changed: Mapping[str, Mapping[str, Any]] = difference.get("changed") or {}
    if changed:
        said = [
            f"{name} ({', '.join(_change(key, pair) for key, pair in keys.items())})" for name, keys in changed.items()
        ]
        yield counted(len(changed), "node") + " changed", listed(said, MOST_NAMES)


def _change(key: str, pair: Sequence[Any]) -> str:
    return _cut(f"{key} {flow(pair[0])} → {flow(pair[1])}", LONGEST_VALUE)


def _parts(found: Mapping[str, Sequence[int]], *, signs: bool) -> Iterable[Part]:
    for name, (params, flops) in found.items():
        yield Part(name, signed(params), signed(flops)) if signs else Part(name, f"{params:,}", f"{flops:,}")


def _trial(arm: Arm, seed: str, metrics: Sequence[str]) -> Trial:
    result = arm.results[seed] or {}

    def text(name: str) -> str:
        value = measured(result, name) if result else None
        return "" if value is None else format_value(name, value)

    error = result.get("error") or {}
    return Trial(
        seed,
        arm.fates.get(seed, ""),
        f"{result['epochs']:,}" if result.get("epochs") is not None else "",
        text("seconds"),
        tuple(map(text, metrics)),
        _cut(f"{error.get('type')}: {error.get('message')}", 200) if error else "",
        str(arm.record["trials"][seed]),
    )


def failures(arms: Iterable[Arm]) -> list[Failure]:
    """Every trial that failed, once, in the order of the table."""
    found: dict[str, Failure] = {}
    for arm in arms:
        for seed, result in arm.results.items():
            if result is None or result["status"] not in FAILED:
                continue
            error = result.get("error") or {}
            lines = str(error.get("traceback") or "").splitlines()
            message = ": ".join(str(error[key]) for key in ("type", "message") if error.get(key))
            failure = Failure(
                arm.name, seed, str(result["status"]), _cut(message, LONGEST_MESSAGE), tuple(lines[-LONGEST_TRACEBACK:])
            )
            found.setdefault(str(arm.record["trials"][seed]), failure)
    return list(found.values())


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def metric_header(name: str) -> str:
    unit = unit_of(name)
    return f"{name} ({unit})" if unit else name
