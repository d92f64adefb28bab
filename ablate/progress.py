"""How a sweep goes, on stderr: a live picture on a terminal, plain lines elsewhere. Both draw a ``Tally``.

Every word that comes from a spec, an error or a log is cleaned of what would steer a terminal.
"""

from __future__ import annotations

import sys
import threading
import time
from contextlib import suppress
from typing import IO, Any, cast

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ablate.errors import listed
from ablate.events import Event
from ablate.outcomes import DONE, untrained
from ablate.quantities import format_value, is_rate, unit_of
from ablate.report.render import clean
from ablate.tally import Best, Failure, Running, Tally, best_of
from ablate.units import size_text

MOST = 200
"""Characters of a reason that are shown; all of it is in the trial's ``result.json``."""
MANY = 100
"""Proposals of a search that are not trained, after which plain lines say how many there are."""


class Progress:
    """Who is told how a sweep goes; this one tells nobody."""

    def tell(self, event: Event) -> None:
        """An event, as ``ablate.events`` has them. Nothing that it holds may end the sweep."""

    def close(self) -> None:
        """The sweep is over, in whatever way."""


class Unfailing:
    """A stream whose reader may go, or whose disk may be full: the sweep then goes on unseen."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with suppress(OSError):
            return self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class Plain(Progress):
    """A line when a trial starts, and one when it ends; of what a search does not train, one for many."""

    def __init__(self, stream: IO[str] | None = None, tally: Tally | None = None) -> None:
        self.stream = Unfailing(stream or sys.stderr)
        self.tally = tally or Tally()

    def tell(self, event: Event) -> None:
        self.tally.apply(event)
        line = sentence(event)
        if line is not None:
            self.stream.write(f"{line[0]:<13} {line[1]}\n")
        many = event.get("event") == "proposed" and self.tally.untrained.total() % MANY == 0
        if many or event.get("event") in ("sweep", "ended"):
            parts = summary(self.tally) + time_left(self.tally, self.tally.now)
            self.stream.write(f"{'':<13} {' · '.join(parts)}\n")
        self.stream.flush()


class Display(Progress):
    """What runs, redrawn in place, beneath a line for each trial that ended."""

    def __init__(self, console: Console | None = None, tally: Tally | None = None, head: str = "") -> None:
        self.console = console or Console(file=cast(IO[str], Unfailing(sys.stderr)))
        self.tally = tally or Tally()
        self.head = head
        """A line above the picture."""
        # the picture is drawn in a thread of its own, while events change what it shows
        self._lock = threading.Lock()
        self._live = Live(get_renderable=self.drawn, console=self.console, refresh_per_second=2, transient=True)
        self._closed = False

    def open(self) -> None:
        """Begin to draw, as the first event does."""
        if not self._closed:
            self._live.start()

    def tell(self, event: Event) -> None:
        with self._lock:
            self.tally.apply(event)
        self.open()
        line = sentence(event)
        if line is not None and line[0] != "started":
            text = Text.assemble((f"{line[0]:<13} ", _colour(event)), line[1])
            self.console.print(text, no_wrap=True, overflow="ellipsis")

    def close(self) -> None:
        self._closed = True
        self._live.stop()

    def drawn(self) -> Group:
        """The picture as it is now."""
        with self._lock:
            now = max(time.time(), self.tally.now)
            return picture(self.tally, now, self.console.height, self.head)


def chosen_display(quiet: bool = False) -> Progress:
    """A live picture where stderr is a terminal, plain lines elsewhere, nothing when asked to be quiet."""
    if quiet:
        return Progress()
    return Display() if sys.stderr.isatty() else Plain()


def picture(tally: Tally, now: float, height: int | None = None, head: str = "") -> Group:
    """What runs, how many trials are in which state, what is used, what failed last: within so many lines.

    ``now`` is in seconds since 1970; without a ``height`` everything is shown.
    """
    above = [Text(head, "dim")] if head else []
    middle = [Text(" · ".join(parts), "bold") for parts in (summary(tally), use(tally, now)) if parts]
    failures = [Text(failure_line(failure), "red") for failure in tally.failures]
    running = [*tally.running.values()] if tally.over is None else []
    shown = len(running)
    if height is not None:
        room = height - 1 - len(above) - len(middle)
        failures = failures[max(0, len(failures) - room // 3) :]
        room -= len(failures) + 1  # the table's header
        shown = len(running) if len(running) <= room else max(1, room - 1)
    table = [_running_table(running[:shown], now)] if running else []
    more = [Text(f"… {len(running) - shown} more running", "dim")] if shown < len(running) else []
    lines = [*more, *middle, *failures]
    for line in [*above, *lines]:
        line.no_wrap, line.overflow = True, "ellipsis"
    return Group(*above, *table, *lines)


def _running_table(running: list[Running], now: float) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    nodes = len({attempt.node for attempt in running}) > 1
    names = ["variant", "seed", "epoch", "loss", "val. accuracy", "images/s", "time", *(["node"] if nodes else [])]
    for name in names:
        left = name in ("variant", "node")
        table.add_column(name, justify="left" if left else "right", no_wrap=True, overflow="ellipsis")
    for attempt in running:
        cells = _cells(attempt, now) + ([clean(attempt.node)] if nodes else [])
        table.add_row(*map(Text, cells))  # as texts: a variant's name is no markup
    return table


def _cells(running: Running, now: float) -> list[str]:
    remarks = [f"attempt {running.attempt}"] if running.attempt > 1 else []
    remarks += ["alone"] if running.alone else []
    loss, accuracy = running.number("train.loss"), running.number("val.accuracy")
    rate = running.number("images_per_second")
    return [
        clean(running.variant) + (f" ({', '.join(remarks)})" if remarks else ""),
        str(running.seed),
        f"{running.epoch}/{running.epochs}",
        "" if loss is None else f"{loss:.3f}",
        "" if accuracy is None else f"{accuracy:.2f}",
        "" if rate is None else f"{rate:.0f}",
        duration(max(0.0, now - running.since)),
    ]


def summary(tally: Tally) -> list[str]:
    """How many trials are in which state."""
    if tally.searching:
        return _of_search(tally)
    counts = tally.counts()
    earlier = tally.kept - tally.kept_failed - tally.kept_pruned
    known = [f"{earlier} earlier"] * (earlier > 0) + [f"{tally.cached} from the cache"] * (tally.cached > 0)
    of_them = f" ({', '.join(known)})" if known else ""
    parts = [f"{counts.pop('finished', 0)} of {tally.total} finished{of_them}"]
    parts += [f"{count} {state}" for state, count in counts.items()]
    return [*parts, *([f"{tally.kept_failed} failed earlier"] if tally.kept_failed else [])]


def _of_search(tally: Tally) -> list[str]:
    """At which trial a search is, its best so far, and what it did not train or finish."""
    known = [f"{tally.kept} earlier"] * (tally.kept > 0) + [f"{tally.cached} from the cache"] * (tally.cached > 0)
    parts = [f"trial {tally.begun} of {tally.total}" + (f" ({', '.join(known)})" if known else "")]
    parts += [*([f"best {best_text(tally.best)}"] if tally.best else []), *untrained(tally.untrained)]
    usual = ("finished", "running", "waiting")
    parts += [f"{state} {count}" for state, count in tally.counts().items() if state not in usual]
    return parts + ([f"failed earlier {tally.kept_failed}"] if tally.kept_failed else [])


def best_text(best: Best) -> str:
    """``val.accuracy 97.10% (9)``: its objectives, and which proposal it is."""
    values = [f"{clean(name)} {_with_unit(name, value)}" for name, value in best.values.items()]
    return f"{', '.join(values)} ({clean(best.number)})"


def _with_unit(name: str, value: float) -> str:
    return format_value(name, value) + ("%" if is_rate(name) else {"s": " s", "ms": " ms"}.get(unit_of(name), ""))


def time_left(tally: Tally, now: float) -> list[str]:
    """How long the sweep goes on."""
    left = tally.seconds_left(now)
    return [] if left is None else [f"about {duration(left)} left"]


def use(tally: Tally, now: float) -> list[str]:
    """How long the sweep goes on, and what it uses now."""
    parts, used = time_left(tally, now), tally.used()
    parts += [] if used.cores is None else [f"{used.cores:.1f} cores busy"]
    parts += [] if used.memory is None else [f"{size_text(used.memory)} of memory"]
    parts += [] if used.gpu_memory is None else [f"{size_text(used.gpu_memory)} of GPU memory"]
    parts += [] if used.gpu is None else [f"GPU {used.gpu:.0%} busy"]
    return parts + ([f"unfit: {clean(listed([*tally.unfit], most=3))}"] if tally.unfit else [])


def failure_line(failure: Failure) -> str:
    """What failed, why, and whether it is tried again."""
    attempt = f", attempt {failure.attempt}" if failure.attempt > 1 else ""
    what = f"{failure.status}: {clean(failure.variant)}, seed {failure.seed}{attempt}"
    why = _reason(failure.why, failure.status)
    return what + (f": {why}" if why else "") + ("; goes on" if failure.again else "")


def sentence(event: Event) -> tuple[str, str] | None:
    """An event as a word and what it is about; None for one that is not worth a line."""
    about = f"{_text(event, 'variant')}, seed {event.get('seed')}"
    about += f", attempt {event['attempt']}" if event.get("attempt", 1) != 1 else ""
    match event:
        case {"event": "started"}:
            return "started", about
        case {"event": "best"} if best := best_of(event):
            return "best", best_text(best)
        case {"event": "proposed", "outcome": "uncertified"}:
            return "uncertified", f"{_text(event, 'number')}: {_text(event, 'why')}"
        case {"event": "ended"}:
            return _text(event, "status"), f"{about}: {outcome_text(event)}"
        case {"event": "again"}:
            return _text(event, "status"), f"{about}: {_reason(event.get('why'))}; it goes on"
        case {"event": "node"}:
            why = _reason(event.get("why"))
            return "node", f"{_text(event, 'name')} {_text(event, 'change')}" + (f": {why}" if why else "")
        case {"event": "spec", "changed": list(paths)}:
            return "spec", f"the study goes on with other {_reason(', '.join(map(str, paths)))}"
        case {"event": "seeds", "message": str(message)}:
            return "seeds", clean(message)
        case {"event": "over", "why": str(why)} if why != "done":
            return "over", f"{_reason(why)}: {_reason(event.get('message'))}"
        case {"event": "over", "message": str(message)} if message:
            return "over", _reason(message)
    return None


def outcome_text(event: Event) -> str:
    """How a trial ended, on one line."""
    status = event.get("status")
    seconds, rate, metrics = event.get("seconds"), event.get("images_per_second") or None, event.get("metrics")
    if status not in DONE:
        return _reason(event.get("error"), str(status)) or f"in epoch {event.get('epochs')}"
    shown = [f"after epoch {event.get('epochs')}"] if status == "pruned" else []
    shown += [
        f"{key} {metrics[key]:.2f}"
        for key in ("train.loss", "val.accuracy")
        if isinstance(metrics, dict) and isinstance(metrics.get(key), int | float)
    ]
    shown += [f"{rate:.0f} images/s"] if isinstance(rate, int | float) else []
    return ", ".join([*shown, *([duration(seconds)] if isinstance(seconds, int | float) else [])])


def duration(seconds: float) -> str:
    """``45 s``, ``3 min 20 s``, ``2 h 05 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def _reason(why: Any, status: str = "") -> str:
    """A reason on one line, without the status that stands before it, and cut."""
    text = "" if why is None else str(why)
    text = text.removeprefix(f"{status}: ")
    return clean(text[:MOST]) + ("…" if len(text) > MOST else "")


def _text(event: Event, key: str) -> str:
    return _reason(event.get(key))


def _colour(event: Event) -> str:
    if event["event"] == "ended":
        return {"finished": "green", "pruned": "yellow"}.get(str(event.get("status")), "red")
    return {"again": "yellow", "best": "green", "proposed": "red"}.get(event["event"], "cyan")
