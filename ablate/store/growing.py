"""How a study's spec may change while its trials stay: what may differ, and how a study grows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ablate import yamlfile
from ablate.errors import Problem, UserError
from ablate.store.layout import CERTIFICATES, SPEC, is_study
from ablate.store.records import check_spec, checksum, plain, read_record, read_spec, read_variants

MAY_CHANGE = (
    "report",
    "paper",
    "use",
    "ablation.seeds",
    "ablation.until",
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
    "search.budget",
    "search.file",
)
"""What may differ when a study goes on: how it is read, where its files and trials lie, its number of seeds and
until when some are added, and how long a search goes on."""

EPOCHS, ABLATION, SEARCH, AUTO = "train.epochs", "ablation", "search", "auto"
NAMED = {"variants": 1, "components": 1, "factors": 2}
"""Of ``ablation``: keys below which the user's own names stand, through so many levels."""


def begun_with(folder: Path, spec: Mapping[str, Any]) -> dict[str, Any] | None:
    """The numerics of the study in the folder, where this spec may go on with it; None where there is none such."""
    if not is_study(folder):
        return None
    try:
        old, new = plain(yamlfile.load(folder / SPEC)), plain(dict(spec))
    except UserError:
        return None
    numerics = old.pop("numerics", None)
    new.pop("numerics", None)
    if SEARCH not in new:  # asked before the search is known
        old.pop(SEARCH, None)
    same = all(_is(path, (*MAY_CHANGE, ABLATION, EPOCHS)) for path in differences(old, new))
    # Whether an altered one was the same its trials will tell, and those only with the numerics that they had.
    return numerics if isinstance(numerics, dict) and (same or _is_altered(folder / SPEC)) else None


def _is_altered(path: Path) -> bool:
    try:
        check_spec(path)
    except (OSError, ValueError):
        return True
    return False


def changes(folder: Path, new: dict[str, Any], variants: list[dict[str, Any]]) -> list[str]:
    """The paths at which a spec differs from that of the study in the folder.

    ``UserError`` where it would be another study. It is the same if each of its trials is one still, whatever befell
    its spec. It is, too, if its trials are trained for more epochs and there are at least as many of them: those of
    fewer epochs stay in the folder. Not if its trials are others though the spec is the same.

    A search proposes its trials as it goes, and those that it has trained stay its own: it is the same only if no more
    differs than what may (``MAY_CHANGE``).
    """
    records: list[dict[str, Any]] = []
    with suppress(UserError):
        records = read_variants(folder)
    all_there = _all_there(records, variants)
    try:
        old = read_spec(folder)
    except UserError as error:
        if all_there or _same_search(folder, new):
            return []
        message = f"{folder / SPEC} was edited, or is damaged, and this spec's trials are not those of the study"
        raise UserError(Problem(message, hint="choose another --out")) from error
    changed = differences(old, new)
    if SEARCH in old or SEARCH in new:
        _refuse_another_kind(folder, old, new)
        if wrong := [path for path in changed if not _is(path, MAY_CHANGE)]:
            _refuse(folder, wrong, _hint_of_search(old, new, wrong))
        return changed
    _refuse_fewer_seeds(folder, _seeds(old, records) - _seeds(new, variants))
    if all_there:
        return changed
    longer, grown = _longer(old, new), _grown(old.get(ABLATION) or {}, new.get(ABLATION) or {})
    free = (EPOCHS,) * longer + (ABLATION,) * grown
    paths = [path for path in changed if not _is(path, MAY_CHANGE)]
    wrong = [path for path in paths if not _is(path, free)]
    if not wrong and not longer:
        _refuse_others(folder, records, variants)
        wrong = paths
    gone = {record["name"] for record in records} - {variant["name"] for variant in variants}
    if wrong or (paths and gone):
        _refuse(folder, wrong or [f"{ABLATION}: {name} is gone" for name in sorted(gone)])
    return changed


def search_digest(spec: Mapping[str, Any]) -> str | None:
    """The sha256 of what may not differ when a search goes on, in hex; None for what is no search's spec."""
    if SEARCH not in spec:
        return None
    fixed = plain(dict(spec))
    for path in MAY_CHANGE:
        *above, key = path.split(".")
        section = fixed
        for name in above:
            section = section.get(name)
            section = section if isinstance(section, dict) else {}
        section.pop(key, None)
    return checksum(fixed)


def _same_search(folder: Path, new: dict[str, Any]) -> bool:
    """Whether this is the search that the folder's records say it holds, whatever befell its spec."""
    with suppress(UserError):
        recorded = read_record(folder / CERTIFICATES).get(SEARCH)
        return recorded is not None and recorded == search_digest(new)
    return False


def _all_there(old: list[dict[str, Any]], new: list[dict[str, Any]]) -> bool:
    before, after = ({hash for variant in records for hash in variant["trials"].values()} for records in (old, new))
    return bool(before) and before <= after


def _longer(old: dict[str, Any], new: dict[str, Any]) -> bool:
    """Whether ``train.epochs`` has grown."""
    before, after = ((spec.get("train") or {}).get("epochs") for spec in (old, new))
    return type(before) is type(after) is int and after > before


def _grown(old: dict[str, Any], new: dict[str, Any]) -> bool:
    """Whether the section ``ablation`` is as it was, but for names that were added. Seeds have a rule of their own."""
    others = {*old, *new} - {*NAMED, "seeds", "until"}
    return all(key in old and key in new and _same(old[key], new[key]) for key in others) and all(
        _added(old[key], new.get(key), depth) for key, depth in NAMED.items() if key in old
    )


def _added(old: Any, new: Any, depth: int) -> bool:
    """Whether ``new`` has the names of ``old``, through so many levels of them, with what is below as it was."""
    if depth and isinstance(old, dict) and isinstance(new, dict):
        if isinstance(old.get("path"), str):  # a factor that is written {path, levels}
            return _same(old["path"], new.get("path")) and _added(old.get("levels"), new.get("levels"), depth)
        return all(name in new and _added(below, new[name], depth - 1) for name, below in old.items())
    if depth and isinstance(old, list) and isinstance(new, list):
        return all(any(_same(item, other) for other in new) for item in old)
    return _same(old, new)


def _same(old: Any, new: Any) -> bool:
    """``True`` is not 1, and 1 is not 1.0."""
    return json.dumps(old) == json.dumps(new)


def _refuse(folder: Path, paths: list[str], hint: str = "choose another --out") -> None:
    raise UserError(Problem(f"{folder} holds a study of another spec: they differ in {_few(paths)}", hint=hint))


def _hint_of_search(old: dict[str, Any], new: dict[str, Any], paths: list[str]) -> str:
    """How a search goes on of which only the sampler is another."""
    before, now = ((spec[SEARCH].get("sampler") or {}).get("name") for spec in (old, new))
    if before is None or before == now or not all(_is(path, (f"{SEARCH}.sampler",)) for path in paths):
        return "choose another --out"
    return f"it was searched by {before}: --sampler {before} goes on with it; or choose another --out"


def _refuse_another_kind(folder: Path, old: dict[str, Any], new: dict[str, Any]) -> None:
    there, this = ("a search" if SEARCH in spec else "a sweep" for spec in (old, new))
    if there != this:
        raise UserError(Problem(f"{folder} holds {there}, and this is {this}", hint="choose another --out"))


def _few(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f", … ({len(names)} in all)" if len(names) > 5 else "")


def _refuse_others(folder: Path, old: list[dict[str, Any]], new: list[dict[str, Any]]) -> None:
    """A trial of the same variant and seed that is another one now would take the place of the former in the table."""
    now = {variant["name"]: variant["trials"] for variant in new}
    there = {hash for trials in now.values() for hash in trials.values()}
    others = [
        variant["name"]
        for variant in old
        if any(hash not in there and seed in now.get(variant["name"], {}) for seed, hash in variant["trials"].items())
    ]
    if others:
        message = (
            f"{folder}: the trials of {_few(others)} are others now, though the spec says the same of them: "
            "the code of a block of your own, the data or a version has changed since"
        )
        raise UserError(Problem(message, hint="choose another --out"))


def _refuse_fewer_seeds(folder: Path, gone: set[int]) -> None:
    """A seed that was seen can't be left out afterwards."""
    if gone:
        shown = ", ".join(map(str, sorted(gone)))
        raise UserError(
            Problem(
                f"{folder} was begun with seed {shown} too: seeds can be added, not taken away",
                hint="choose another --out",
            )
        )


def _seeds(spec: dict[str, Any], variants: list[dict[str, Any]]) -> set[int]:
    """Those that a spec states; with ``auto``, those that its variants have come to."""
    seeds = (spec.get(ABLATION) or {}).get("seeds", 1)
    if seeds == AUTO:
        return set(_in_order(variants))
    return set(range(seeds)) if isinstance(seeds, int) else set(seeds)


def seeds_of(folder: Path) -> list[int]:
    """The seeds that the study in the folder has come to, in order; none where there is no study that could say so."""
    with suppress(UserError, ValueError):
        if is_study(folder):
            return _in_order(read_variants(folder))
    return []


def _in_order(variants: list[dict[str, Any]]) -> list[int]:
    return list(dict.fromkeys(int(seed) for variant in variants for seed in variant["trials"]))


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
