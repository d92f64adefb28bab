"""What ``network.init.from`` names: a file, a trial of a finished study, or an entry of torchvision's weights.

A file and a study lie beneath the spec's folder, unless the command line names them: a spec is data from a stranger.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlparse

from ablate.diagnose import shown
from ablate.errors import Problem, UserError, did_you_mean, listed
from ablate.store import Study
from ablate.weights.checkpoint import SUFFIXES, is_file, said

STUDY, TORCHVISION = "study:", "torchvision:"


class Source(Protocol):
    """Where weights come from. ``seeds`` are those that have weights of their own; ``None`` where all share one file.

    ``key`` is the place of weights that a seed chooses, and empty for a file that is the same for all.
    """

    @property
    def seeds(self) -> Sequence[int] | None: ...

    @property
    def key(self) -> str: ...

    def file(self, seed: int) -> Path: ...


@dataclass(frozen=True)
class OneFile:
    """One file for every seed."""

    path: Path
    seeds: None = None
    key: str = ""

    def file(self, seed: int) -> Path:
        return self.path


@dataclass(frozen=True)
class StudyTrials:
    """The weights that the trials of one variant of a study ended with, each for its own seed."""

    folder: Path
    variant: str
    trials: tuple[tuple[int, str], ...]
    """(seed, the trial's hash), by seed."""

    @property
    def seeds(self) -> Sequence[int]:
        return [seed for seed, _ in self.trials]

    @property
    def key(self) -> str:
        return f"{self.folder}/{self.variant}"

    def file(self, seed: int) -> Path:
        """The trial's weights, whose checksum was held against its result."""
        hash = dict(self.trials).get(seed)
        if hash is None:
            seeds = ", ".join(map(str, self.seeds)) or "none"
            raise UserError(f"'{self.variant}' of {self.folder} has no trial of seed {seed}; its seeds: {seeds}")
        return Study.open(self.folder).weights(hash)


def resolve(text: str, base: Path, *, trusted: bool, download: bool) -> Source:
    """What ``text`` names, seen from the folder ``base``. ``trusted``: the command line names it.

    ``UserError`` for what is not there, lies outside, or is no file of weights.
    """
    if not text or not text.isprintable():
        raise UserError(f"{shown(text)} names no weights")
    if text.startswith(TORCHVISION):
        return OneFile(_torchvision(text.removeprefix(TORCHVISION), download))
    if download:
        raise UserError(
            Problem("download is for torchvision's weights", hint=f"from: {TORCHVISION}NAME, or leave it out")
        )
    if text.startswith(STUDY):
        return _study(text.removeprefix(STUDY), base, trusted)
    path = _beneath(text, base, trusted)
    if path.suffix not in SUFFIXES:
        hint = f"or {STUDY}FOLDER/VARIANT, or {TORCHVISION}NAME"
        raise UserError(Problem(f"'{text}' is no file of weights, which end in {', '.join(SUFFIXES)}", hint=hint))
    if path.exists() and not is_file(path):
        raise UserError(f"'{text}' is {'a folder' if path.is_dir() else 'no plain file that can be read'}")
    if not is_file(path):
        raise UserError(Problem(f"no file '{text}'", hint=_beside(path)))
    return OneFile(path)


def _beneath(text: str, base: Path, trusted: bool) -> Path:
    try:
        path = (base / Path(text).expanduser()).resolve()
    except (OSError, RuntimeError, ValueError) as error:  # ~ of an unknown user, a loop of links
        raise UserError(f"{shown(text)} leads nowhere: {error}") from None
    if not trusted and not path.is_relative_to(base.resolve()):
        hint = "a spec may read only beneath itself; name it on the command line: --set network.init.from=…"
        raise UserError(Problem(f"'{text}' is outside the spec's folder", hint=hint))
    return path


def _beside(path: Path) -> str:
    """The nearest file of weights in the same folder, which the spec may read; or where it was looked for."""
    try:
        names = [name for name in os.listdir(path.parent) if name.endswith(SUFFIXES)]
    except OSError:
        names = []
    return did_you_mean(path.name, names) if names else f"looked for {said(path)}"


def _study(text: str, base: Path, trusted: bool) -> StudyTrials:
    """A variant's name may hold slashes: the study is the first folder on the way that is one."""
    parts = text.split("/")
    for count in range(1, len(parts) + 1):
        if not (prefix := "/".join(parts[:count])):
            continue
        folder = _beneath(prefix, base, trusted)
        if (folder / "spec.yaml").is_file():
            return _trials(Study.open(folder), "/".join(parts[count:]))
    _beneath(text, base, trusted)
    raise UserError(
        Problem(f"no study at '{text}'", hint=f"write {STUDY}FOLDER/VARIANT, the folder one that a sweep wrote")
    )


def _trials(study: Study, variant: str) -> StudyTrials:
    records = {record["name"]: record for record in study.variants}
    if variant not in records:
        message = f"{study.folder} has no variant {shown(variant)}" if variant else "which variant of the study?"
        raise UserError(Problem(message, hint=did_you_mean(variant, records)))
    trials = {int(seed): hash for seed, hash in records[variant]["trials"].items()}
    return StudyTrials(study.folder.resolve(), variant, tuple(sorted(trials.items())))


def _torchvision(name: str, download: bool) -> Path:
    """The file of an entry of torchvision's weights, in torch hub's cache; its name holds the start of its hash."""
    from torch import hub

    url = _entry(name).url
    file_name = Path(urlparse(url).path).name
    path = Path(hub.get_dir()) / "checkpoints" / file_name
    if not is_file(path):
        if not download:
            hint = f"put {url} there, or let it be fetched: network.init.download: true"
            raise UserError(Problem(f"no file {said(path)}", hint=hint))
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            hub.download_url_to_file(url, str(path), hash_prefix=_hash_in(file_name) or None, progress=False)
        except (OSError, RuntimeError) as error:
            raise UserError(f"{url} cannot be fetched: {error}") from None
    _check_hash(path, _hash_in(file_name))
    return path


def _entry(name: str) -> Any:
    entries = _entries()
    if name not in entries:
        if of_model := _of_class(name, entries):
            raise UserError(Problem(f"{shown(name)} has several weights", hint=f"one of: {listed(of_model)}"))
        if of_model := _of_model(name, entries):
            raise UserError(f"{shown(name)} is a model; its weights: {listed(of_model)}")
        raise UserError(Problem(f"torchvision has no weights {shown(name)}", hint=did_you_mean(name, entries)))
    return entries[name]


def _of_class(name: str, entries: Iterable[str]) -> list[str]:
    return [each for each in entries if each.startswith(f"{name}.") and not each.endswith(".DEFAULT")]


def _of_model(name: str, entries: Iterable[str]) -> list[str]:
    from torchvision import models

    return _of_class(models.get_model_weights(name).__name__, entries) if name in models.list_models() else []


@cache
def _entries() -> dict[str, Any]:
    from torchvision import models

    classes = {models.get_model_weights(name) for name in models.list_models()}
    return {f"{each.__name__}.{name}": entry for each in classes for name, entry in each.__members__.items()}


def _hash_in(file_name: str) -> str:
    """``0676ba61`` of ``resnet50-0676ba61.pth``."""
    found = Path(file_name).stem.rpartition("-")[2]
    return found if len(found) >= 8 and set(found) <= set("0123456789abcdef") else ""


@cache
def _check_hash(path: Path, expected: str) -> None:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if not digest.startswith(expected):
        raise UserError(
            Problem(f"{said(path)} is damaged: its SHA-256 does not begin with {expected}", hint="fetch it anew")
        )
