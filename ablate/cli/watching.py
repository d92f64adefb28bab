"""Commands on a study that may be at work: status, watch."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ablate.cli.common import FORMATS, Commands, print_json, print_table

if TYPE_CHECKING:
    from ablate.status import Status

MOST_WAITING = 20
"""Rows of the terminal's table for trials that have never begun; the other formats have them all."""


def add(commands: Commands) -> None:
    status = commands.add_parser("status", help="what became of a study's trials, and what another sweep would do")
    status.add_argument("study", type=Path, metavar="STUDY", help="a study's folder, runs/NAME")
    status.add_argument("--format", choices=FORMATS, default="terminal")
    status.add_argument("--json", action="store_true", help="the same, as values")
    status.set_defaults(command=_status)

    watch = commands.add_parser("watch", help="follow a sweep from another terminal")
    watch.add_argument("study", type=Path, metavar="STUDY", help="a study's folder, runs/NAME")
    watch.add_argument("--once", action="store_true", help="print how it stands now, and end")
    watch.set_defaults(command=_watch)


def _status(options: argparse.Namespace) -> int:
    from ablate.status import status
    from ablate.store import Study

    found = status(Study.open(options.study))
    if options.json:
        print_json(found.as_dict())
    elif found.done and options.format == "terminal":
        print(found)
    else:
        print_table(found.table(MOST_WAITING if options.format == "terminal" else None), options.format)
    if not options.json:
        print(f"next: ablate {_following(found)}", file=sys.stderr)
    return 0 if found.done else 1


def _following(found: Status) -> str:
    if found.held_by and not (found.done and found.search is None):
        return f"watch {found.study.folder}"
    if found.done:
        return f"report {found.study.folder}"
    by_itself = any(trial.again == "sweep" for trial in found.unfinished)
    again = "search SPEC --space FILE" if found.search else "sweep SPEC"
    return again if by_itself else f"{again} --retry-failed"


def _watch(options: argparse.Namespace) -> int:
    from ablate import watching
    from ablate.store import Study

    study = Study.open(options.study)
    (watching.once if options.once else watching.follow)(study, sys.stdout)
    return 0
