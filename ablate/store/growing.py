"""How a study's spec may change while its trials stay: what may differ, and how a study grows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ablate import yamlfile
from ablate.errors import Problem, UserError
from ablate.store.layout import SPEC, is_study
from ablate.store.records import plain, read_variants

MAY_CHANGE = (
    "report",
    "paper",
    "ablation.seeds",
    "data.root",
    "data.download",
    "network.init.download",
    "execution.max_concurrent",
    "execution.cpus",
    "execution.gpus",
    "execution.memory",
    "execution.retries",
    "execution.trial_timeout",
    "execution.budget",
)
"""What may differ when a study goes on: how it is read, where its files and trials lie, and its number of seeds."""

EPOCHS, ABLATION = "train.epochs", "ablation"


def begun_with(folder: Path, spec: Mapping[str, Any]) -> dict[str, Any] | None:
    """The numerics of the study in the folder, where this spec may go on with it; None where there is none such."""
    if not is_study(folder):
        return None
    old, new = plain(yamlfile.load(folder / SPEC)), plain(dict(spec))
    numerics = old.pop("numerics", None)
    new.pop("numerics", None)
    same = all(_is(path, (*MAY_CHANGE, ABLATION, EPOCHS)) for path in differences(old, new))
    return numerics if same and isinstance(numerics, dict) else None


def changes(folder: Path, new: dict[str, Any], variants: list[dict[str, Any]]) -> list[str]:
    """The paths at which a spec differs from that of the study in the folder.

    ``UserError`` where it would be another study. It is the same if each of its trials is one still. It is, too, if its
    trials are trained for more epochs and there are at least as many of them: those of fewer epochs stay in the folder.
    """
    old = plain(yamlfile.load(folder / SPEC))
    changed = differences(old, new)
    _refuse_fewer_seeds(folder, old, new)
    paths = [path for path in changed if not _is(path, MAY_CHANGE)]
    records: list[dict[str, Any]] = []
    with suppress(UserError):
        records = read_variants(folder)
    if paths and not _all_there(records, variants):
        wrong = paths if not _longer(old, new) else [path for path in paths if not _is(path, (EPOCHS, ABLATION))]
        if wrong == [] and not _grown(old.get(ABLATION), new.get(ABLATION)):
            wrong = [path for path in paths if _is(path, (ABLATION,))]
        gone = {record["name"] for record in records} - {variant["name"] for variant in variants}
        if wrong or gone:
            _refuse(folder, wrong or [f"{ABLATION}: {name} is gone" for name in sorted(gone)])
    return changed


def _all_there(old: list[dict[str, Any]], new: list[dict[str, Any]]) -> bool:
    before, after = ({hash for variant in records for hash in variant["trials"].values()} for records in (old, new))
    return bool(before) and before <= after


def _longer(old: dict[str, Any], new: dict[str, Any]) -> bool:
    """Whether ``train.epochs`` has grown."""
    before, after = ((spec.get("train") or {}).get("epochs") for spec in (old, new))
    return type(before) is type(after) is int and after > before


def _grown(old: Any, new: Any) -> bool:
    """Whether everything of ``old`` is in ``new``: keys of mappings, items of lists, equal values."""
    if isinstance(old, dict) and isinstance(new, dict):
        # The seeds have a rule of their own.
        return all(key == "seeds" or (key in new and _grown(below, new[key])) for key, below in old.items())
    if isinstance(old, list) and isinstance(new, list):
        return all(any(_same(item, other) for other in new) for item in old)
    return old is None or _same(old, new)


def _same(old: Any, new: Any) -> bool:
    """``True`` is not 1, and 1 is not 1.0."""
    return json.dumps(old) == json.dumps(new)


def _refuse(folder: Path, paths: list[str]) -> None:
    shown = ", ".join(paths[:5]) + (f", … ({len(paths)} in all)" if len(paths) > 5 else "")
    raise UserError(
        Problem(f"{folder} holds a study of another spec: they differ in {shown}", hint="choose another --out")
    )


def _refuse_fewer_seeds(folder: Path, old: dict[str, Any], new: dict[str, Any]) -> None:
    """A seed that was seen can't be left out afterwards."""
    gone = sorted(_seeds(old) - _seeds(new))
    if gone:
        shown = ", ".join(map(str, gone))
        raise UserError(
            Problem(
                f"{folder} was begun with seed {shown} too: seeds can be added, not taken away",
                hint="choose another --out",
            )
        )


def _seeds(spec: dict[str, Any]) -> set[int]:
    seeds = (spec.get(ABLATION) or {}).get("seeds", 1)
    return set(range(seeds)) if isinstance(seeds, int) else set(seeds)


def _is(path: str, of: tuple[str, ...]) -> bool:
    return any(path == free or path.startswith(f"{free}.") for free in of)


def differences(old: Any, new: Any, path: str = "") -> list[str]:
    """Dotted paths at which two trees of plain data differ. ``True`` is not 1, and 1 is not 1.0."""
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return [] if _same(old, new) else [path]
    found: list[str] = []
    for key in [*old, *(key for key in new if key not in old)]:
        below = f"{path}.{key}" if path else str(key)
        if key in old and key in new:
            found += differences(old[key], new[key], below)
        else:
            found += _leaves(old.get(key, new.get(key)), below)
    return found


def _leaves(tree: Any, path: str) -> list[str]:
    """The paths of a subtree that only one side has, so that ``ablation.seeds`` is seen in a missing ``ablation``."""
    if isinstance(tree, dict) and tree:
        return [leaf for key, below in tree.items() for leaf in _leaves(below, f"{path}.{key}")]
    return [path]
