"""The command ``track``: a study sent to MLflow, TensorBoard and other trackers."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ablate.cli.common import Commands
from ablate.errors import Problem, UserError

if TYPE_CHECKING:
    from ablate.tracking import Target


def trackable(parser: argparse._ActionsContainer) -> None:
    """For commands that train: who is shown the study meanwhile."""
    parser.add_argument(
        "--track",
        action="append",
        metavar="NAME[=TARGET]",
        help="show the study in mlflow[=URI] or tensorboard[=FOLDER] as it goes; repeatable",
    )


def add(commands: Commands) -> None:
    track = commands.add_parser("track", help="a study sent to MLflow, TensorBoard or another tracker")
    actions = track.add_subparsers(title="actions", required=True, metavar="ACTION")
    sync = actions.add_parser("sync", help="send what a tracker lacks of a study, and nothing twice")
    sync.add_argument("study", type=Path, metavar="STUDY", help="a study's folder, runs/NAME")
    sync.add_argument(
        "--to",
        action="append",
        default=[],
        metavar="NAME[=TARGET]",
        help="mlflow[=URI] or tensorboard[=FOLDER]; repeatable (default: where the study was sent before)",
    )
    sync.set_defaults(command=_sync)


def _sync(options: argparse.Namespace) -> int:
    from ablate.labels import clean
    from ablate.store import Study, Trackers
    from ablate.tracking import Target, parse

    study = Study.open(options.study)
    targets = parse(options.to, "--to")
    if not targets:
        targets = [Target(name, value) for name, value in Trackers(study.folder).known()]
        parse([target.tracker for target in targets], "--to")  # whether they are installed
    if not targets:
        raise UserError(Problem(f"{study.folder} was sent nowhere yet", hint="name where to: --to mlflow=URI"))
    failed = [target for target in targets if not _sent(study.folder.absolute(), target)]
    if failed:
        words = [word for target in failed for word in ("--to", str(target))]
        again = shlex.join(["ablate", "track", "sync", str(options.study), *words])
        print(clean(f"next: {again}"), file=sys.stderr)
    return 1 if failed else 0


def _sent(folder: Path, target: Target) -> bool:
    """Whether all is there now; what is not is said."""
    from ablate.labels import clean
    from ablate.tracking import Sender, reason

    try:
        sender = Sender(folder, target)
        with sender.alone():
            done = sender.sync()
    except Exception as error:  # whatever a client raises
        print(clean(f"not sent to {target}: {reason(error)}"), file=sys.stderr)
        return False
    print(clean(f"sent to {target.tracker} ({done.where}): {done.trials} of {done.count} trials, {done.state}"))
    if target.tracker == "tensorboard":
        runs = target.value or f"{done.where}/tensorboard"
        print(clean(f"next: tensorboard --logdir {shlex.quote(runs)}"))
    return True
