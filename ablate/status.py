"""What `ablate status` says: how many trials are in which state, what became of those that have not finished, and what
another sweep does about them. From the study's folder alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ablate.errors import listed
from ablate.outcomes import DONE, FAILED, PROPOSED, RESULTS, STATES, repeated, untrained
from ablate.report.tables import Cell, Column, Table
from ablate.store import Study, TrialState

ORDER = {state: place for place, state in enumerate((*FAILED, "damaged", "interrupted", "running", "waiting"))}
"""Of the rows: what needs a person first."""
MOST = 120
"""Characters of a reason in the table; the values have all of it."""
_COLUMNS = (
    Column("variant"),
    Column("seed", align="right"),
    Column("state"),
    Column("attempts", align="right", kind="number"),
    Column("epochs", align="right"),
    Column("reason"),
)


@dataclass(frozen=True)
class Unfinished:
    """A trial that has not finished; ``epochs`` is how many it is to be trained for, ``same`` who else shares it."""

    state: TrialState
    variant: str
    seed: int
    epochs: int | None
    same: tuple[str, ...] = ()

    @property
    def reason(self) -> str:
        """``Type: message``, without the state that stands beside it."""
        return (self.state.error or "").removeprefix(f"{self.state.status}: ")

    @property
    def again(self) -> str | None:
        """What trains it: ``sweep``, ``--retry-failed``; None: it runs."""
        return None if self.state.status == "running" else trained_by(self.state.status)

    def traceback(self, study: Study) -> Path | None:
        """The file that has it."""
        return study.trial_folder(self.state.hash) / "result.json" if self.state.status == "crashed" else None


@dataclass(frozen=True)
class Searched:
    """How far a search has come: how many trials it is to train, and its proposals by ``outcomes.PROPOSED``."""

    budget: int | None
    proposed: dict[str, int]

    @property
    def left(self) -> int:
        """How many trials of its budget it has not proposed."""
        return max(0, (self.budget or 0) - self.proposed.get("trained", 0))

    def __str__(self) -> str:
        of = "" if self.budget is None else f" of {self.budget:,}"
        return " · ".join([f"trial {self.proposed.get('trained', 0):,}{of}", *untrained(self.proposed)])


@dataclass(frozen=True)
class Status:
    """A study's state, as values."""

    study: Study
    held_by: str | None
    """Who writes it now: ``process 12 on host``."""
    counts: dict[str, int]
    """Trials by state, each once though variants may share it; none of 0."""
    unfinished: tuple[Unfinished, ...]
    search: Searched | None = None
    """There where the study is a search."""

    @property
    def done(self) -> bool:
        """Whether every trial has finished or was pruned: those that a search has proposed so far."""
        return not self.unfinished

    @property
    def command(self) -> str:
        """What trains the study: ``sweep`` or ``search``."""
        return "search" if self.search else "sweep"

    def __str__(self) -> str:
        return f"{sentence(self.counts)}." + (f" Search: {self.search}." if self.search else "")

    def table(self, most_waiting: int | None = None) -> Table:
        """A row per trial that has not finished; of those that wait so many at most, and then how many more."""
        waiting = self.counts.get("waiting", 0)
        cut = len(self.unfinished)
        if most_waiting is not None and waiting > most_waiting:
            cut -= waiting - most_waiting
        rows = [_row(trial, note) for trial, note in zip(self.unfinished[:cut], _notes(self), strict=False)]
        if cut < len(self.unfinished):
            rows.append((Cell(f"… {len(self.unfinished) - cut:,} more"), Cell(), Cell("waiting"), *[Cell()] * 3))
        caption = str(self) + (f" In use by {self.held_by}." if self.held_by else "")
        name = str(self.study.spec.get("name") or self.study.folder.name)
        return Table(name, _COLUMNS, tuple(rows), caption, tuple(_next_steps(self)))

    def as_dict(self) -> dict[str, Any]:
        """As plain values, for ``--json``."""
        trials = [
            {
                "trial": trial.state.hash,
                "variant": trial.variant,
                "same": list(trial.same),
                "seed": trial.seed,
                "state": trial.state.status,
                "attempts": trial.state.attempts,
                "epochs": trial.state.epochs,
                "of_epochs": trial.epochs,
                "seconds": trial.state.seconds,
                "reason": trial.reason or None,
                "traceback": str(trial.traceback(self.study) or "") or None,
                "trained_by": self.command if trial.again == "sweep" else trial.again,
            }
            for trial in self.unfinished
        ]
        search = {"search": {"budget": self.search.budget, "proposed": self.search.proposed}} if self.search else {}
        about = {"study": str(self.study.folder), "held_by": self.held_by, "counts": self.counts}
        return {**about, **search, "trials": trials}


def status(study: Study) -> Status:
    """Where a study stands. Nothing is written, and who holds it is not disturbed."""
    held_by = study.in_use()
    states = study.states()
    names: dict[str, list[str]] = {}
    first: dict[str, tuple[dict[str, Any], str]] = {}
    for variant in study.variants:
        for seed, hash in variant["trials"].items():
            names.setdefault(hash, []).append(variant["name"])
            first.setdefault(hash, (variant, seed))
    epochs = (study.spec.get("train") or {}).get("epochs")
    unfinished = [
        Unfinished(states[hash], variant["name"], int(seed), variant.get("epochs", epochs), tuple(names[hash][1:]))
        for hash, (variant, seed) in first.items()
        if states[hash].status not in DONE
    ]
    unfinished.sort(key=lambda trial: ORDER[trial.state.status])
    return Status(study, held_by, counted(states.values()), tuple(unfinished), searched(study))


def searched(study: Study) -> Searched | None:
    """How far a search has come; None for a study that is none."""
    search = study.spec.get("search")
    if not isinstance(search, dict):
        return None
    found = Counter(record["outcome"] for record in study.proposals())
    budget = (search.get("budget") or {}).get("trials")
    return Searched(budget, {outcome: found[outcome] for outcome in PROPOSED if found[outcome]})


def counted(states: Iterable[TrialState]) -> dict[str, int]:
    """How many trials are in which state, in the order of ``outcomes.STATES``; none of 0."""
    found = Counter(state.status for state in states)
    return {state: found[state] for state in STATES if found[state]}


def sentence(counts: dict[str, int]) -> str:
    """``38 of 40 trials finished; 1 crashed, 1 waiting``."""
    total = sum(counts.values())
    others = ", ".join(f"{count:,} {state}" for state, count in counts.items() if state != "finished")
    return f"{counts.get('finished', 0):,} of {total:,} trials finished" + (f"; {others}" if others else "")


def trained_by(state: str) -> str:
    """Which command trains a trial of that state: ``sweep`` alone, or only with ``--retry-failed``."""
    return "--retry-failed" if state in RESULTS and not repeated({"status": state}) else "sweep"


def _row(trial: Unfinished, note: str) -> tuple[Cell, ...]:
    state = trial.state
    same = f" (= {listed(trial.same, most=2)})" if trial.same else ""
    begun = state.status != "waiting"
    of = "" if trial.epochs is None else f"/{trial.epochs}"
    return (
        Cell(trial.variant + same),
        Cell(str(trial.seed)),
        Cell(state.status),
        Cell(str(state.attempts) if begun else "", float(state.attempts)),
        Cell(f"{state.epochs}{of}" if begun else ""),
        Cell(trial.reason[:MOST] + ("…" if len(trial.reason) > MOST else ""), note=note),
    )


def _notes(status: Status) -> Iterator[str]:
    """Where the traceback of a crashed trial is; of those that crashed alike, where that of the first is."""
    where: dict[str, str] = {}
    for trial in status.unfinished:
        path = trial.traceback(status.study)
        yield where.setdefault(trial.reason, f"traceback: {path}") if path else ""


def _next_steps(status: Status) -> Iterator[str]:
    """What another sweep does, and what it does only when it is told to."""
    command = f"`ablate {status.command}"
    counts = {state: count for state, count in status.counts.items() if state not in (*DONE, "running")}
    by = {way: {s: n for s, n in counts.items() if trained_by(s) == way} for way in ("sweep", "--retry-failed")}
    if by["sweep"] and not status.held_by:
        yield f"{command}` again trains {_told(by['sweep'])}."
        if {"lost", "interrupted"} & {*by["sweep"]}:
            yield "What is lost or interrupted goes on from its checkpoint, where it has one."
    if by["--retry-failed"]:
        yield f"Only {command} --retry-failed` repeats {_told(by['--retry-failed'])}."
    if status.search and status.search.left and not status.held_by:
        yield f"{command}` again goes on: its budget leaves {status.search.left:,} trials."
    if "timed_out" in counts:
        yield "What timed out is repeated too when `execution.trial_timeout` is longer."


def _told(counts: dict[str, int]) -> str:
    return f"{sum(counts.values()):,}: " + ", ".join(f"{count:,} {state}" for state, count in counts.items())
