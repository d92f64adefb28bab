"""What a path's values are measured on: numbers from one bound to the other, or categories in an order."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ablate.findings.values import Findings, Trial
from ablate.labels import short_labels, short_names
from ablate.quantities import COSTS

FIXED = ("number", *COSTS, "epochs", "front")
"""The columns that a search's table has whatever the space is, beside its objectives."""


@dataclass(frozen=True)
class Scale:
    """Of one path. ``categories`` are labels, in the order of the space, each with a short one; none: it has numbers.

    ``low`` and ``high`` are the bounds that the space gives, else the least and the most that were tried. ``step`` is
    the distance of the numbers, 0 where any between may be drawn; with ``log`` the logarithm is what is drawn evenly.
    """

    path: str
    categories: Mapping[str, str]
    low: float = 0.0
    high: float = 0.0
    step: float = 0.0
    log: bool = False

    def of(self, trial: Trial) -> float | str | None:
        """Where a trial is on it: a number or a label; None where the path is not active in the trial."""
        if self.path not in trial.labels:
            return None
        return trial.labels[self.path] if self.categories else float(trial.values[self.path])


def scale_of(found: Findings, path: str) -> Scale:
    """The scale of a path, over the trials that are ranked."""
    trials = [trial for trial in found.ranked if path in trial.labels]
    values = {trial.labels[path]: trial.values.get(path) for trial in trials}
    written = distribution(found, path)
    bounds = next((written[kind] for kind in ("int", "float") if _are_bounds(written.get(kind))), None)
    numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values.values())
    if not (numeric and values and (bounds or not written)):
        ordered = _in_order(values, written.get("choice"))
        return Scale(path, short_labels({label: values[label] for label in ordered}))
    low, high = min([*(bounds or ())[:1], *values.values()]), max([*(bounds or ())[1:], *values.values()])
    step = written.get("step") or (1 if "int" in written and not written.get("log") else 0)
    return Scale(path, {}, float(low), float(high), float(step), written.get("log") is True)


def distribution(found: Findings, path: str) -> Mapping[str, Any]:
    """What the space says of a path, be it of each of several names; nothing where it does not say."""
    written = (found.search.get("space") or {}).get(key_of(found, path))
    return written if isinstance(written, Mapping) else {}


def key_of(found: Findings, path: str) -> str:
    """Under which key the space has a path: its own, or one with ``$each`` that stands for several."""
    for key in found.search.get("space") or {}:
        if re.fullmatch(r"[^.]+".join(map(re.escape, key.split("$each"))), path):
            return str(key)
    return path


def columns_of(found: Findings) -> dict[str, list[str]]:
    """The paths that vary, by short names: those that the space writes as one, for each of several names, together.

    A table has other columns beside these, whose names none of them takes.
    """
    together: dict[str, list[str]] = {}
    for path in found.varying:
        together.setdefault(key_of(found, path), []).append(path)
    fixed = dict.fromkeys((*FIXED, *found.objectives))
    names = short_names([*fixed, *together])[len(fixed) :]
    return dict(zip(names, together.values(), strict=True))


def _are_bounds(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(isinstance(bound, int | float) for bound in value)


def _in_order(values: Mapping[str, Any], choice: Any) -> Iterable[str]:
    """As the space lists them; then numbers by size, and others as they came."""
    listed = [_label(value) for value in choice] if isinstance(choice, list) else []
    if all(isinstance(value, int | float) for value in values.values()):
        return sorted(values, key=lambda label: values[label])
    return sorted(values, key=lambda label: listed.index(label) if label in listed else len(listed))


def _label(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
