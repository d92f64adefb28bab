"""A study as it lies on the disk: who writes what, in which order, and what is believed."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ablate.disk import append, holder, locked, remove_leftovers, write, write_json, writing
from ablate.errors import Problem, UserError, did_you_mean, listed
from ablate.store import index, records
from ablate.store.events import read_events
from ablate.store.growing import SEARCH, changes, search_digest
from ablate.store.index import BEGUN, Entry
from ablate.store.keeping import Keeper, rebuilt
from ablate.store.layout import (
    CERTIFICATES,
    DIAGRAMS,
    ENVIRONMENT,
    EVENTS,
    EXPOSURES,
    FORMAT,
    INDEX,
    LOCK,
    PROPOSALS,
    REPORT,
    SPEC,
    TRIALS,
    is_hash,
    is_name,
    is_study,
    refuse_foreign,
    trials_in,
)
from ablate.store.proposals import Proposals
from ablate.store.stamps import unchanged
from ablate.store.states import TrialState, of_begun, of_result
from ablate.store.survey import Survey, survey
from ablate.store.trial import TrialFolder
from ablate.store.trials import Trials
from ablate.store.verifying import verified

_IN_USE = "wait for it, end it, or choose another --out"


class Study(Trials):
    """All trials of one spec, as they lie on the disk.

    ``spec`` is the resolved spec, ``variants`` the variants' records in the order of the table, and then those that a
    search proposed; ``environment`` is what the trials ran on. ``damaged`` names what was found damaged since then: a
    trial's hash, or a file → why.

    One process writes (it ``hold``s the study), and who is ``working`` on a trial in that trial's folder; any number
    read.
    """

    def __init__(
        self, folder: Path, spec: dict[str, Any], variants: list[dict[str, Any]], environment: dict[str, Any]
    ) -> None:
        super().__init__(folder)
        self.spec = spec
        self.variants = list(variants)
        self.environment = environment
        self._certified = len(variants)
        """How many of the variants no search proposed: they come first."""
        self._proposed = Proposals(folder / PROPOSALS)

    @classmethod
    def create(
        cls,
        folder: Path,
        spec: dict[str, Any],
        variants: list[dict[str, Any]],
        environment: dict[str, Any],
        diagrams: Mapping[str, str] | None = None,
    ) -> Study:
        """A new study, or an existing one that goes on or grows (``growing``), whose records are brought up to date.

        ``diagrams``: what ``diagrams()`` will return; None leaves them as they are.

        Errors (UserError): the folder holds a study of another spec, or something that is no study; another process
        holds it; it cannot be written.
        """
        spec, variants, environment = (records.plain(part) for part in (spec, variants, environment))
        _check_variants(variants)
        if not is_study(folder):
            refuse_foreign(folder)
        with writing(folder):
            (folder / TRIALS).mkdir(parents=True, exist_ok=True)
        with locked(folder, LOCK, hint=_IN_USE):
            remove_leftovers(folder)
            changed: list[str] = []
            if is_study(folder):
                records.refuse_later_format(folder)
                changed = changes(folder, spec, variants)
            write_json(folder / ENVIRONMENT, records.sealed({"format": FORMAT, "environment": environment}))
            search = {SEARCH: digest} if (digest := search_digest(spec)) else {}
            write_json(folder / CERTIFICATES, records.sealed({"format": FORMAT, "variants": variants, **search}))
            if diagrams is not None:
                write_json(folder / DIAGRAMS, records.sealed({"format": FORMAT, "diagrams": dict(diagrams)}))
            # Last, since it is what makes the folder a study.
            write(folder / SPEC, records.spec_file(spec))
            study = cls(folder, spec, variants, environment)
            study._read_proposals()
            if changed:
                now = datetime.now(UTC).isoformat(timespec="milliseconds")
                study.log({"event": "spec", "time": now, "changed": changed})
        return study

    @classmethod
    def open(cls, folder: Path) -> Study:
        """The study in ``folder``; nothing is written. Errors (UserError): none there, damaged, of a later format."""
        if not is_study(folder):
            raise UserError(Problem(f"{folder} is no study: it has no {SPEC}", hint="name a folder that a sweep wrote"))
        records.refuse_later_format(folder)
        environment = records.read_environment(folder)
        variants = records.read_variants(folder)
        _check_variants(variants)
        study = cls(folder, records.read_checked_spec(folder), variants, environment)
        study._read_proposals()
        return study

    @contextmanager
    def hold(self) -> Iterator[None]:
        """The right to write, for this process alone; a second one gets a UserError that names the first.

        The kernel gives the lock back when the process ends in whatever way, so that none is ever stale.
        """
        with locked(self.folder, LOCK, hint=_IN_USE):
            self._proposed.mend()
            self._read_proposals()
            keeper = Keeper(self.folder, self.variants)
            self._held = (os.getpid(), keeper)
            try:
                yield
            finally:
                if self._held[0] == os.getpid():
                    keeper.close()
                self._held = None

    def in_use(self) -> str | None:
        """Who holds the study, as ``process 12 on host``; None where nobody does. Asking disturbs nobody."""
        return holder(self.folder, LOCK)

    # One variant.

    def variant(self, name: str | None = None) -> dict[str, Any]:
        """The record of that variant, or of the only one; ``UserError`` with the nearest names where there is none."""
        named = {record["name"]: record for record in self.variants}
        if name is None and len(named) == 1:
            return next(iter(named.values()))
        if name not in named:
            message = f"{self.folder} has no variant '{name}'" if name else "which variant of the study?"
            raise UserError(Problem(message, hint=did_you_mean(name or "", named)))
        return named[name]

    def trial(self, name: str | None = None, seed: int | None = None) -> tuple[int, str]:
        """Seed and hash of a variant's trial, by default of its first seed; ``UserError`` where it has none."""
        record = self.variant(name)
        trials = {int(each): str(hash) for each, hash in record["trials"].items()}
        seed = min(trials, default=0) if seed is None else seed
        if seed not in trials:
            seeds = listed([str(each) for each in sorted(trials)]) or "none"
            raise UserError(f"'{record['name']}' of {self.folder} has no trial of seed {seed}; its seeds: {seeds}")
        return seed, trials[seed]

    # All trials.

    def results(self, hashes: Iterable[str] | None = None) -> dict[str, dict[str, Any]]:
        """The sound results of these trials, or of all in the folder, by the trial's hash.

        Of each trial's files those are read that changed since the index remembered that they are sound.
        """
        wanted = trials_in(self.folder) if hashes is None else [hash for hash in hashes if self.trial_folder(hash)]
        return self._surveyed(wanted, self._rows()).results

    def states(self) -> dict[str, TrialState]:
        """The states of all trials that the variants list, by hash; the index tells where it knows the files."""
        rows, there = self._rows(), set(trials_in(self.folder))
        states = dict.fromkeys(hash for variant in self.variants for hash in variant["trials"].values())
        found: dict[str, TrialState] = {}
        unsure: list[str] = []
        trials = str(self.folder / TRIALS)
        for hash in states:
            row = rows.get(hash)
            if row and hash in there and unchanged(f"{trials}/{hash}", row.stamps):
                found[hash] = row.state
                self.damaged.pop(hash, None)
            else:
                unsure.append(hash)
        survey = self._surveyed([hash for hash in unsure if hash in there], rows)
        begun = "running" if unsure and self.in_use() else "interrupted"
        for hash in unsure:
            if hash in survey.results:
                found[hash] = of_result(hash, survey.results[hash])
            elif hash in survey.damaged:
                found[hash] = TrialState(hash, "damaged", error=survey.damaged[hash])
            else:
                row = rows.get(hash)
                noted = row.state.attempts if row and row.state.status == BEGUN else 0
                found[hash] = of_begun(TrialFolder(self.folder / TRIALS / hash, hash), begun, noted)
        return {hash: found[hash] for hash in states}

    def _rows(self) -> dict[str, Entry]:
        return self._keeper.rows() if self._keeper else index.read(self.folder)

    def _surveyed(self, hashes: list[str], rows: Mapping[str, Entry]) -> Survey:
        found = survey(self.folder, hashes, rows)
        self._tell(hashes, found)
        if self._keeper:
            self._keeper.learn(found.learnt)
        return found

    def _tell(self, hashes: Iterable[str], found: Survey) -> None:
        for hash in hashes:
            self.damaged.pop(hash, None)
        self.damaged.update(found.damaged)

    def verify(self) -> dict[str, str]:
        """Read every file, whatever the index says: what is damaged, a trial's hash or a file → why."""
        found = verified(self.folder)
        self.damaged = {key: why for key, why in self.damaged.items() if not is_hash(key)} | found
        return found

    def rebuild(self) -> Path:
        """Make the index anew from the folders. Errors (UserError): another process holds the study; no room."""
        if self._keeper is None:
            with self.hold():
                return self.rebuild()
        self._tell(trials_in(self.folder), rebuilt(self._keeper))
        return self.folder / INDEX

    def grow(self, variants: list[dict[str, Any]]) -> None:
        """These records of the variants, with the trials of more seeds, from now on. For who holds the study."""
        variants = records.plain(variants)
        _check_variants(variants)
        write_json(self.folder / CERTIFICATES, records.sealed({"format": FORMAT, "variants": variants}))
        self.variants[: self._certified] = variants
        self._certified = len(variants)
        if self._keeper:
            self._keeper.listed()

    # What a search proposes.

    def propose(self, record: Mapping[str, Any]) -> None:
        """Put on record what was proposed, and what is done with it; what is trained is a variant from now on.

        ``record``: ``number``, ``name``, ``outcome`` (one of ``outcomes.PROPOSED``) and what else is known of it; if it
        is trained, ``trial``, the hash, and ``variant``, as the study's variants are. A name that was proposed before
        stands for this one from now on. For who holds the study. ValueError: it is no such record.
        """
        if any(record.get("name") == variant["name"] for variant in self.variants[: self._certified]):
            raise ValueError(f"{record.get('name')!r} is a variant that no search proposed")
        self._proposed.add(record)
        for taken in self._read_proposals():
            if self._keeper:
                self._keeper.proposed(taken["name"], taken["variant"] if taken["outcome"] == "trained" else None)

    def proposals(self) -> list[dict[str, Any]]:
        """The records that ``propose`` was given, of each name the latest, as they were first written in order.

        Those of when the study was opened, and what was proposed through it since, as ``variants`` has them.
        """
        return list(self._proposed.records.values())

    def _read_proposals(self) -> list[dict[str, Any]]:
        """Take in the proposals that were written since; these. A damaged line is left out and told in ``damaged``."""
        known = len(self._proposed.records)
        taken = self._proposed.read()
        if len(self._proposed.records) == known + len(taken):
            self.variants += [record["variant"] for record in taken if record["outcome"] == "trained"]
        else:
            self.variants[self._certified :] = self._proposed.variants()
        self.damaged.pop(PROPOSALS, None)
        if why := self._proposed.damage():
            self.damaged[PROPOSALS] = why
        return taken

    # The study's own files.

    def expose(self, **record: Any) -> None:
        """Put a reading of the test split on record: by, trial, variant, seed, epochs; ``time`` is now."""
        append(self.folder / EXPOSURES, {"time": datetime.now(UTC).isoformat(timespec="seconds"), **record})

    def exposures(self) -> list[dict[str, Any]]:
        """Every reading on record, in order. A damaged line is left out and told in ``damaged``."""
        rows, why = records.read_exposures(self.folder)
        self.damaged.pop(EXPOSURES, None)
        self.damaged |= {EXPOSURES: why} if why else {}
        return rows

    def diagrams(self) -> dict[str, str]:
        """Pictures of networks as SVG, by the network's fingerprint; not of each, and none in older studies.

        A damaged file is left out and told in ``damaged``.
        """
        found, why = records.read_diagrams(self.folder)
        self.damaged.pop(DIAGRAMS, None)
        self.damaged |= {DIAGRAMS: why} if why else {}
        return found

    def log(self, event: Mapping[str, Any]) -> None:
        """A line for ``events.jsonl``, as it is. For who holds the study."""
        append(self.folder / EVENTS, event, settle=False)

    def events(self, offset: int = 0) -> tuple[list[dict[str, Any]], int]:
        """What was logged from that byte on, and the byte at which to go on; a damaged line is left out.

        At most some 8 MiB at once: who wants all reads on for as long as that byte is another one.
        """
        return read_events(self.folder / EVENTS, offset)

    def save_report(self, name: str, text: str) -> Path:
        """``report/name``, replaced whole. Errors (UserError): no name of a file; the folder is a link elsewhere."""
        if not is_name(name):
            raise UserError(f"{name!r} cannot name a file of the report")
        path = self.folder / REPORT / name
        if path.parent.is_symlink():
            raise UserError(Problem(f"{path.parent} is a link: a report is not written elsewhere", hint="remove it"))
        with writing(path.parent):
            path.parent.mkdir(exist_ok=True)
        write(path, text.encode())
        return path


def _check_variants(variants: list[dict[str, Any]]) -> None:
    for variant in variants:
        for hash in variant["trials"].values():
            if not is_hash(hash):
                raise UserError(f"variant {variant['name']!r}: {hash!r} is no trial's hash")
