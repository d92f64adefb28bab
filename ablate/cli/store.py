"""Commands on a study's files: store rebuild, store verify."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from ablate.cli.common import Commands

if TYPE_CHECKING:
    from ablate.store import Study


def add(commands: Commands) -> None:
    store = commands.add_parser("store", help="a study's files: read all and compare, or make the index anew")
    actions = store.add_subparsers(title="actions", required=True, metavar="ACTION")

    verify = actions.add_parser("verify", help="read every file of every trial, and name what is damaged")
    verify.add_argument("study", type=Path, metavar="STUDY", help="a study's folder, runs/NAME")
    verify.set_defaults(command=_verify)

    rebuild = actions.add_parser("rebuild", help="make trials.sqlite anew from the trials' folders")
    rebuild.add_argument("study", type=Path, metavar="STUDY", help="a study's folder, runs/NAME")
    rebuild.set_defaults(command=_rebuild)


def _verify(options: argparse.Namespace) -> int:
    from ablate.report.render import clean
    from ablate.store import INDEX, Study

    study = Study.open(options.study)
    damaged = study.verify()
    if not damaged:
        print(clean(f"{study.folder}: sound: every file of {_trials(study)} is as it was written"))
        return 0
    shown = _names(study)
    for key, why in damaged.items():
        print(clean(f"damaged: {key}{shown.get(key, '')}: {why}"))
    count = sum(key in shown for key in damaged)
    if count:
        command = "search" if "search" in study.spec else "sweep"
        again = "trains it again" if count == 1 else f"trains these {count} trials again"
        print(clean(f"`ablate {command}` of the study's spec with --out {shlex.quote(str(study.folder))} {again}"))
    if INDEX in damaged:
        print(clean(f"next: ablate store rebuild {shlex.quote(str(study.folder))}"))
    return 1


def _rebuild(options: argparse.Namespace) -> int:
    from ablate.report.render import clean
    from ablate.store import Study

    study = Study.open(options.study)
    written = study.rebuild()
    for hash, why in study.damaged.items():
        print(clean(f"damaged: {hash}{_names(study).get(hash, '')}: {why}"))
    print(clean(f"wrote {written}: {_trials(study)}"))
    print(clean(f"next: ablate store verify {shlex.quote(str(study.folder))}"))
    return 1 if study.damaged else 0


def _names(study: Study) -> dict[str, str]:
    """Which variant and seed a trial is, by its hash."""
    return {
        hash: f" ({variant['name']}, seed {seed})"
        for variant in reversed(study.variants)
        for seed, hash in variant["trials"].items()
    }


def _trials(study: Study) -> str:
    count = len(study.results())
    return f"{count} trial" if count == 1 else f"{count} trials"
