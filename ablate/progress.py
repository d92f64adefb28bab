"""How a sweep goes, on stderr: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from typing import IO, Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ablate.execute import Progress
from ablate.report.render import clean
from ablate.train import Row, Trial


@dataclass
class Running:
    """A trial that runs: since when, and its last epoch's row."""

    trial: Trial
    since: float
    row: Row = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def epoch(self) -> int:
        return int(self.row.get("epoch", 0))


class Tally:
    """What is known about the sweep's course; both displays draw it."""

    def __init__(self) -> None:
        self.total = self.kept = self.finished = self.failed = 0
        self.running: dict[str, Running] = {}
        self.began = time.monotonic()
        self.epochs_done = 0
        self.epochs_to_do = 0

    def begin(self, trials: list[Trial], finished: int) -> None:
        self.total, self.kept = len(trials), finished
        per_trial = sum(trial.train.epochs for trial in trials) / max(len(trials), 1)
        self.epochs_to_do = round(per_trial * (len(trials) - finished))
        self.began = time.monotonic()

    def started(self, trial: Trial) -> None:
        # A repeated trial starts over: its earlier epochs are to be done again.
        earlier = self.running.get(trial.hash)
        self.epochs_done -= earlier.epoch if earlier else 0
        self.running[trial.hash] = Running(trial, time.monotonic())

    def epoch(self, trial: Trial, row: Row) -> None:
        running = self.running.setdefault(trial.hash, Running(trial, time.monotonic()))
        running.row = row
        self.epochs_done += 1

    def ended(self, trial: Trial, result: dict[str, Any]) -> None:
        running = self.running.pop(trial.hash, None)
        self.epochs_done += trial.train.epochs - (running.epoch if running else 0)
        if result["status"] == "finished":
            self.finished += 1
        else:
            self.failed += 1

    def lost(self, trial: Trial) -> None:
        self.running.pop(trial.hash, None)
        self.failed += 1

    @property
    def waiting(self) -> int:
        return self.total - self.kept - self.finished - self.failed - len(self.running)

    def seconds_left(self) -> float | None:
        """From the epochs done so far; ``None`` before the first."""
        if self.epochs_done < 1:
            return None
        elapsed = time.monotonic() - self.began
        return max(0.0, elapsed / self.epochs_done * (self.epochs_to_do - self.epochs_done))

    def summary(self) -> str:
        parts = [f"{self.kept + self.finished} of {self.total} finished"]
        parts += [f"{self.kept} of them earlier"] if self.kept else []
        parts += [f"{len(self.running)} running"] if self.running else []
        parts += [f"{self.waiting} waiting"] if self.waiting else []
        parts += [f"{self.failed} failed"] if self.failed else []
        left = self.seconds_left()
        if left is not None and (self.running or self.waiting):
            parts.append(f"about {duration(left)} left")
        return " · ".join(parts)


def duration(seconds: float) -> str:
    """``45 s``, ``3 min 20 s``, ``2 h 05 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def outcome_text(result: dict[str, Any]) -> str:
    """One line on how a trial ended."""
    if result["status"] == "crashed":
        error = result["error"]
        return f"crashed: {error['type']}: {clean(error['message'])[:200]}"
    if result["status"] == "diverged":
        return f"diverged in epoch {result['epochs']}"
    metrics = result["metrics"]
    shown = [f"{key} {metrics[key]:.2f}" for key in ("train.loss", "val.accuracy") if key in metrics]
    return ", ".join([*shown, f"{result['images_per_second']:.0f} images/s", duration(result["seconds"])])


class Plain(Progress):
    """A line when a trial starts, and one when it ends."""

    def __init__(self, stream: IO[str] | None = None) -> None:
        self.stream = stream or sys.stderr
        self.tally = Tally()

    def _say(self, text: str) -> None:
        print(text, file=self.stream, flush=True)

    def begin(self, trials: list[Trial], finished: int) -> None:
        self.tally.begin(trials, finished)
        self._say(self.tally.summary())

    def started(self, trial: Trial) -> None:
        self.tally.started(trial)
        self._say(f"started   {clean(trial.variant)}, seed {trial.seed}")

    def epoch(self, trial: Trial, row: Row) -> None:
        self.tally.epoch(trial, row)

    def ended(self, trial: Trial, result: dict[str, Any]) -> None:
        self.tally.ended(trial, result)
        self._say(f"{result['status']:<9} {clean(trial.variant)}, seed {trial.seed}: {outcome_text(result)}")
        self._say(f"          {self.tally.summary()}")

    def lost(self, trial: Trial, reason: str) -> None:
        self.tally.lost(trial)
        self._say(f"lost      {clean(trial.variant)}, seed {trial.seed}: {reason}")


class Display(Progress):
    """A table of what runs, redrawn in place."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)
        self.tally = Tally()
        self.live = Live(get_renderable=self.drawn, console=self.console, refresh_per_second=2, transient=True)

    def begin(self, trials: list[Trial], finished: int) -> None:
        self.tally.begin(trials, finished)
        self.live.start()

    def started(self, trial: Trial) -> None:
        self.tally.started(trial)

    def epoch(self, trial: Trial, row: Row) -> None:
        self.tally.epoch(trial, row)

    def ended(self, trial: Trial, result: dict[str, Any]) -> None:
        self.tally.ended(trial, result)
        colour = "green" if result["status"] == "finished" else "red"
        line = Text.assemble((f"{result['status']:<9} ", colour), f"{clean(trial.variant)}, seed {trial.seed}: ")
        self.console.print(line.append(outcome_text(result)))

    def lost(self, trial: Trial, reason: str) -> None:
        self.tally.lost(trial)
        self.console.print(Text(f"lost      {clean(trial.variant)}, seed {trial.seed}: {reason}", "red"))

    def end(self) -> None:
        self.live.stop()

    def drawn(self) -> Group:
        table = Table(box=None, pad_edge=False, header_style="dim")
        for name in ("variant", "seed", "epoch", "loss", "val. accuracy", "images/s", "time"):
            table.add_column(name, justify="left" if name == "variant" else "right")
        for running in self.tally.running.values():
            table.add_row(*self._cells(running))
        return Group(table, Text(self.tally.summary(), "bold"))

    def _cells(self, running: Running) -> list[str]:
        row, trial = running.row, running.trial
        return [
            clean(trial.variant),
            str(trial.seed),
            f"{running.epoch}/{trial.train.epochs}",
            f"{row['train.loss']:.3f}" if row else "",
            f"{row['val.accuracy']:.2f}" if "val.accuracy" in row else "",
            f"{row['images_per_second']:.0f}" if "images_per_second" in row else "",
            duration(time.monotonic() - running.since),
        ]


def chosen_display(quiet: bool = False) -> Progress:
    """A live table where stderr is a terminal, plain lines elsewhere, nothing when asked to be quiet."""
    if quiet:
        return Progress()
    return Display() if sys.stderr.isatty() else Plain()
