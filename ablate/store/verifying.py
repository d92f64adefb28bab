"""Everything in a study's folder read and compared with its checksums, whatever the index says."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from ablate.store import index
from ablate.store.explained import read_explained
from ablate.store.index import Damaged, Unusable
from ablate.store.layout import (
    CERTIFICATES,
    DIAGRAMS,
    ENVIRONMENT,
    EXPOSURES,
    FILES,
    INDEX,
    METRICS,
    PROPOSALS,
    RESULT,
    SPEC,
    STATE,
    TRIAL,
    TRIALS,
    trials_in,
)
from ablate.store.proposals import Proposals
from ablate.store.records import check_record, check_spec, read_exposures
from ablate.store.stamps import stamp
from ablate.store.states import of_result
from ablate.store.survey import Survey, survey
from ablate.store.trial import TrialFolder


def verified(study: Path) -> dict[str, str]:
    """What is damaged: a trial's hash where its result does not count, else a file's path in the study → why."""
    hashes = trials_in(study)
    found = survey(study, hashes, {})
    damaged = dict(found.damaged)
    for hash in hashes:
        trial = TrialFolder(study / TRIALS / hash, hash)
        damaged |= {f"{TRIALS}/{hash}/{name}": why for name, why in _of_trial(trial, found)}
    damaged |= dict(_of_records(study))
    if explained := read_explained(study, whole=True):
        damaged |= explained.damaged
    if why := read_exposures(study)[1]:
        damaged[EXPOSURES] = why
    proposals = Proposals(study / PROPOSALS)
    proposals.read()
    if why := proposals.damage():
        damaged[PROPOSALS] = why
    if why := _of_index(study, found):
        damaged[INDEX] = why
    return damaged


def _of_records(study: Path) -> Iterator[tuple[str, str]]:
    try:
        check_spec(study / SPEC)
    except (OSError, ValueError) as error:
        yield SPEC, str(error)
    kept = (DIAGRAMS,) if os.path.lexists(study / DIAGRAMS) else ()  # older studies have none
    for name in (CERTIFICATES, ENVIRONMENT, *kept):
        try:
            check_record(study / name)
        except (OSError, ValueError) as error:
            yield name, str(error)


def _of_trial(trial: TrialFolder, found: Survey) -> Iterator[tuple[str, str]]:
    """What no result vouches for."""
    try:
        trial.state()
    except (OSError, ValueError) as error:
        yield STATE, str(error)
    if trial.hash in found.damaged:
        return
    if result := found.results.get(trial.hash):
        unlisted = [name for name in FILES if name not in result["files"] and os.path.lexists(trial.path / name)]
        if (trial.path / RESULT).exists():  # else it began again just now
            yield from ((name, "the result does not vouch for it") for name in unlisted)
        return
    try:
        trial.begun()
    except (OSError, ValueError) as error:
        yield TRIAL, str(error)
    if why := trial.rows()[1]:
        yield METRICS, why


def _of_index(study: Path, found: Survey) -> str:
    try:
        rows = index.check(study)
    except Unusable:
        return ""
    except Damaged as error:
        return str(error)
    for hash, result in found.results.items():
        row = rows.get(hash)
        current = row and row.stamps.get(RESULT) == stamp(str(study / TRIALS / hash / RESULT))
        if row and current and row.state != of_result(hash, result):
            return f"it says of {hash} what its result does not"
    return ""
