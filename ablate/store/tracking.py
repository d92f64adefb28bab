"""What a study's folder knows of the trackers that show it elsewhere: which there are, and what they were sent."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ablate.disk import locked, write_json, writing
from ablate.errors import Problem, UserError
from ablate.store.layout import TRACKING
from ablate.store.records import read_json

_ID = "id.json"
_MEMORY = re.compile(r"[A-Za-z0-9_-]+-[0-9a-f]{8}\.json")


class Trackers:
    """``tracking/`` of a study: one file for each tracker and target, each whole or not at all.

    Nothing in it is a result: without it, a tracker asks the other side what is there.
    """

    def __init__(self, study: Path) -> None:
        self.folder = study / TRACKING

    def identity(self) -> str:
        """The study's own name among all others, of 32 hex characters: made once, it moves with the folder."""
        found = self._read(_ID).get("study")
        if isinstance(found, str) and re.fullmatch(r"[0-9a-f]{32}", found):
            return found
        with locked(self._made(), ".id.lock", patience=10.0):
            found = self._read(_ID).get("study")
            if not isinstance(found, str):
                found = secrets.token_hex(16)
                write_json(self.folder / _ID, {"study": found})
        return found

    def known(self) -> list[tuple[str, str]]:
        """Each tracker's name and target that was sent something."""
        paths = sorted(self.folder.glob("*.json")) if self._is_own() else []
        found = [self._read(path.name) for path in paths if _MEMORY.fullmatch(path.name)]
        return [(each["tracker"], each["target"]) for each in found if {"tracker", "target"} <= each.keys()]

    def memory(self, tracker: str, target: str) -> dict[str, Any]:
        """What was remembered of that target; nothing where there is no sound file."""
        found = self._read(f"{_stem(tracker, target)}.json").get("memory")
        return found if isinstance(found, dict) else {}

    def remember(self, tracker: str, target: str, memory: Mapping[str, Any]) -> None:
        """Replace what is remembered."""
        path = self._made() / f"{_stem(tracker, target)}.json"
        write_json(path, {"tracker": tracker, "target": target, "memory": dict(memory)})

    @contextmanager
    def sending(self, tracker: str, target: str, patience: float = 0.0) -> Iterator[None]:
        """The sole right to send to that target; ``InUseError`` names who has it."""
        hint = "it sends what there is; end it, or wait for it"
        with locked(self._made(), f".{_stem(tracker, target)}.lock", patience=patience, hint=hint):
            yield

    def _read(self, name: str) -> dict[str, Any]:
        try:
            found = read_json(self.folder / name) if self._is_own() else None
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def _is_own(self) -> bool:
        return self.folder.is_dir() and not self.folder.is_symlink()

    def _made(self) -> Path:
        if self.folder.is_symlink():
            raise UserError(Problem(f"{self.folder} is a link: a study keeps its own records", hint="remove it"))
        with writing(self.folder):
            self.folder.mkdir(exist_ok=True)
        return self.folder


def _stem(tracker: str, target: str) -> str:
    name = re.sub(r"[^A-Za-z0-9_]", "_", tracker)[:40]
    return f"{name}-{hashlib.sha256(f'{tracker}={target}'.encode()).hexdigest()[:8]}"
