"""``NAME`` and ``NAME=TARGET`` of the command line: which tracker, and where it sends to."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.util import find_spec

from ablate.errors import Problem, UserError, did_you_mean
from ablate.labels import clean
from ablate.plugins import LOGGERS, plugins, why_not
from ablate.tracking.view import Tracker

_BUILT_IN = {
    "mlflow": "ablate.tracking.to_mlflow:MlflowTracker",
    "tensorboard": "ablate.tracking.to_tensorboard:TensorboardTracker",
}
_NEEDS = {"mlflow": ("mlflow",), "tensorboard": ("tensorboard",)}
_DATABASES = ("sqlite", "postgresql", "mysql", "mssql")


@dataclass(frozen=True)
class Target:
    """A tracker's name and, perhaps empty, where it is to send to."""

    tracker: str
    value: str = ""

    def __str__(self) -> str:
        """As one writes it, without secrets."""
        return f"{self.tracker}={without_secrets(self.value)}" if self.value else self.tracker


def parse(texts: Sequence[str], option: str = "--track") -> list[Target]:
    """What the command line names, each once. ``UserError``: no such tracker, or what it needs is not installed."""
    found: list[Target] = []
    problems: list[Problem] = []
    for text in texts:
        name, _, value = text.partition("=")
        target = Target(name.strip(), value.strip())
        problem = _problem(target, option)
        if problem is not None:
            problems.append(problem)
        elif target not in found:
            found.append(_in_full(target))
    if problems:
        raise UserError(problems)
    return found


def _problem(target: Target, option: str) -> Problem | None:
    if target.tracker not in _BUILT_IN:
        if target.tracker in plugins(LOGGERS):
            return None
        hint = did_you_mean(target.tracker, [*_BUILT_IN, *plugins(LOGGERS)])
        why = why_not(LOGGERS, target.tracker, builtin=False) or f"there is no tracker '{clean(target.tracker)}'"
        return Problem(f"{option} {clean(str(target))}: {why}", hint=hint)
    needs: tuple[str, ...] = _NEEDS[target.tracker]
    uri = target.value or os.environ.get("MLFLOW_TRACKING_URI", "")
    if target.tracker == "mlflow" and uri.startswith(_DATABASES):
        needs = (*needs, "sqlalchemy", "alembic")
    missing = [name for name in needs if not _is_installed(name)]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        message = f"{option} {clean(str(target))}: {' and '.join(missing)} {verb} not installed"
        return Problem(message, hint=f"pip install 'ablate-harness[{target.tracker}]'")
    return None


def _is_installed(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def _in_full(target: Target) -> Target:
    """A folder, or a database's file, whatever folder the process that sends is in."""
    if target.tracker == "tensorboard" and target.value:
        return replace(target, value=os.path.abspath(os.path.expanduser(target.value)))
    return target


def made(target: Target) -> Tracker:
    """The tracker. ``UserError``: it can't be used."""
    if target.tracker in _BUILT_IN:
        module, _, name = _BUILT_IN[target.tracker].partition(":")
        tracker: Tracker = getattr(import_module(module), name)(target.value)
        return tracker
    offered: Tracker = plugins(LOGGERS)[target.tracker].load()(target.value)
    return offered


_USER = re.compile(r"(?<=://)[^/@\s]+@")
_SECRET = re.compile(r"(?i)([?&;][^=&\s]*(?:pass|pwd|token|secret|key|sig)[^=&\s]*=)[^&\s]+")


def without_secrets(text: str) -> str:
    """Without the names and passwords of addresses in it, and without what their queries call secret."""
    return _SECRET.sub(r"\1…", _USER.sub("", text))


_CAUSE = re.compile(r"""Max retries exceeded .*Caused by \w+\(["'](?:\w+\(host=[^)]*\): )?(.{1,200}?)["']\)""")
"""Of what urllib3 says when it gives up."""


def reason(error: BaseException) -> str:
    """One line on what went wrong, without secrets."""
    said = " ".join(clean(without_secrets(str(error))).split())
    if cause := _CAUSE.search(said):
        return cause[1]
    text = said if isinstance(error, UserError) and said else f"{type(error).__name__}: {said}".rstrip(": ")
    return text if len(text) <= 300 else text[:299] + "…"
