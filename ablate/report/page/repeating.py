"""How a study is repeated: its spec and the command, with no more of the disk's paths than it takes."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ablate import yamlfile
from ablate.errors import listed
from ablate.store import SPEC, Study

ELSEWHERE = "STUDY"
"""Stands for the study's folder where that is not beneath the working folder."""
MOST_LINES = 5000


def command(study: Study) -> tuple[str, str]:
    """What repeats the study into another folder, and what has to be known for it."""
    root = (study.spec.get("data") or {}).get("root")
    # a path that leaves the spec's folder is taken from the command line alone
    said = ["--set", f"data.root={nearer(str(root))}"] if root else []
    name = re.sub(r"[^A-Za-z0-9_.-]", "-", study.folder.resolve().name) or "study"
    more = ["--out", f"runs/{name}-again", *said]
    notes = ["The data are read from data.root: change it if they lie elsewhere now."] if root else []
    if names := _imports(study.spec.get("network")):
        notes.append(f"The network imports {listed(names)}: what is no model of torchvision's or timm's needs --trust.")
    if files := study.spec.get("use"):
        notes.append(f"The spec runs {listed([Path(str(file)).name for file in files])}: it needs --trust.")
    if search := study.spec.get("search"):
        notes.insert(0, "SPEC is the file of the spec that was searched; the folder holds no copy of it.")
        space = nearer(str(search.get("file")))
        return shlex.join(["ablate", "search", "SPEC", "--space", space, *more]), " ".join(notes)
    folder = nearer(str(study.folder))
    if Path(folder).is_absolute():
        folder = ELSEWHERE
        notes.insert(0, f"{ELSEWHERE} is this study's folder: the one that report/ with this page is in.")
    return shlex.join(["ablate", "sweep", str(Path(folder) / SPEC), *more]), " ".join(notes)


def spec_lines(study: Study, *, hidden: bool) -> list[str]:
    """The resolved spec as YAML, its paths as ``nearer`` has them.

    A root of data elsewhere is told by the command alone; ``hidden``: what papers published is left out.
    """
    spec = _nearer_in(study.spec)
    if hidden and spec.get("paper"):
        spec["paper"] = "(hidden until every trial has a result)"
    data = spec.get("data")
    if isinstance(data, dict) and isinstance(data.get("root"), str) and Path(data["root"]).is_absolute():
        data["root"] = "(outside the working folder: see the command)"
    lines = yamlfile.dump(spec).splitlines()
    return lines if len(lines) <= MOST_LINES else [*lines[:MOST_LINES], f"# and so on: {SPEC} has all"]


def nearer(path: str) -> str:
    """An absolute path beneath the working folder relative to it, any other as it is."""
    if not path.startswith("/"):
        return path
    try:
        return str(Path(path).relative_to(Path.cwd()))
    except ValueError:
        return path


def _nearer_in(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _nearer_in(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_nearer_in(part) for part in value]
    return nearer(value) if isinstance(value, str) else value


def _imports(spec: Any) -> list[str]:
    """The code that a network is imported from."""
    if isinstance(spec, Mapping):
        own = [spec["import"]] if isinstance(spec.get("import"), str) else []
        return list(dict.fromkeys([*own, *(name for value in spec.values() for name in _imports(value))]))
    return []
