"""The command ``bench``: what this machine gives a study, stage by stage, and which settings are faster."""

from __future__ import annotations

import argparse
import sys
from contextlib import suppress

from ablate.cli.common import (
    FORMATS,
    Commands,
    again,
    load_plan,
    positive,
    print_json,
    print_table,
    takes_spec,
)


def add(commands: Commands) -> None:
    bench = commands.add_parser(
        "bench", help="time training on this machine: by stage, share of peak, the effect of each option, what to set"
    )
    takes_spec(bench)
    bench.add_argument("--variant", help="a variant's name (default: the one whose step costs most)")
    how_long = bench.add_mutually_exclusive_group()
    seconds = "how long each measurement takes, 8 to 200 readings (default: 2)"
    how_long.add_argument("--seconds", type=_positive_seconds, default=2.0, metavar="S", help=seconds)
    how_long.add_argument("--steps", type=positive, metavar="N", help="readings of each measurement, instead")
    bench.add_argument("--compile", action="store_true", help="try torch.compile as well, which takes a minute or more")
    quick = "leave out what needs other processes: the allocator, and trials at once"
    bench.add_argument("--quick", action="store_true", help=quick)
    bench.add_argument("--format", choices=FORMATS, default="terminal")
    bench.add_argument("--json", action="store_true", help="everything that was measured, as values")
    bench.set_defaults(command=_bench)


def _positive_seconds(text: str) -> float:
    with suppress(ValueError):
        if 0 < (value := float(text)) < 3600:
            return value
    raise argparse.ArgumentTypeError(f"'{text}' is not between 0 and 3600 seconds")


def _bench(options: argparse.Namespace) -> int:
    from ablate.benching import Timing, bench, said, tables
    from ablate.workers import keep_memory

    keep_memory()  # as every worker of a sweep does
    plan = load_plan(options.spec, options)
    report = bench(
        plan,
        plan.variant(options.variant) if options.variant else None,
        timing=Timing(options.seconds, options.steps),
        compile=options.compile,
        quick=options.quick,
        say=_say,
    )
    if options.json:
        print_json(report.as_dict())
        return 0
    for table in tables(report):
        print_table(table, options.format)
        print()
    if options.format == "terminal":
        print(said(report))
        print(f"\nnext: ablate plan {again(options)}")
    return 0


def _say(text: str) -> None:
    print(f"measuring: {text}", file=sys.stderr, flush=True)
