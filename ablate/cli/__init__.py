"""The command line: reads arguments, calls one function, prints. Heavy imports wait for the command.

Exit codes: 0 done; 1 the study has failures; 2 the input is wrong; 130 interrupted.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from ablate.cli import (
    bench,
    cache,
    catalogue,
    completion,
    cost,
    diff,
    eject,
    explain,
    export,
    search,
    store,
    studies,
    track,
    watching,
)
from ablate.errors import UserError

COMMANDS = (
    studies,
    watching,
    track,
    cost,
    bench,
    diff,
    search,
    export,
    eject,
    explain,
    catalogue,
    cache,
    store,
    completion,
)
"""Each adds its subparsers, in the order in which ``ablate --help`` lists them."""


def main(arguments: Sequence[str] | None = None) -> int:
    program = parser()
    completion.complete(program)
    options = program.parse_args(arguments)
    try:
        code: int = options.command(options)
        sys.stdout.flush()
        return code
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; what was finished is kept, and the same command goes on", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Whoever read our output has gone. Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def parser() -> argparse.ArgumentParser:
    """All commands with their options."""
    program = argparse.ArgumentParser(
        prog="ablate", description="Architecture ablations whose every variant is proven to be what was asked for."
    )
    program.add_argument("--version", action="version", version=_version())
    commands = program.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for module in COMMANDS:
        module.add(commands)
    return program


def _version() -> str:
    from importlib import metadata

    try:
        return f"ablate {metadata.version('ablate-harness')}"
    except metadata.PackageNotFoundError:
        return "ablate (not installed)"
