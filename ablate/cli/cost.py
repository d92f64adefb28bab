"""The command ``cost``: parameters, FLOPs, activation memory and latency, before anything is trained."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ablate.cli.common import (
    FORMATS,
    Commands,
    again,
    load_plan,
    loaded,
    positive,
    print_json,
    print_table,
    shapeable,
    takes_spec,
    values_of,
)
from ablate.errors import Problem, UserError

if TYPE_CHECKING:
    from ablate.cost_tables import Priced
    from ablate.design import StudyPlan, Variant
    from ablate.report.tables import Table

BY = ("node", "stage", "insertion", "variant")


def add(commands: Commands) -> None:
    cost = commands.add_parser(
        "cost",
        help="params, FLOPs, memory and latency: per variant beside the paper's numbers, per node, per insertion",
    )
    takes_spec(cost)
    shapeable(cost)
    cost.add_argument("--variant", help="a variant's name; without it all variants, or where nothing varies the spec")
    cost.add_argument("--by", choices=BY, help="a row each (default: variant; with --variant: node)")
    cost.add_argument("--memory", action="store_true", help="what training keeps for the backward pass, and the peak")
    cost.add_argument("--latency", action="store_true", help="time forward passes and training steps on this machine")
    batch = "examples in a batch (default: for memory the recipe's batch_size, for latency 1)"
    cost.add_argument("--batch", type=positive, metavar="N", help=batch)
    cost.add_argument("--format", choices=FORMATS, default="terminal")
    cost.add_argument("--json", action="store_true", help="the tables as values")
    cost.set_defaults(command=_cost)


def _cost(options: argparse.Namespace) -> int:
    tables = _tables(options)
    if options.json:
        print_json([{"title": table.title, "caption": table.caption, "rows": values_of(table)} for table in tables])
        return 0
    for number, table in enumerate(tables):
        if number:
            print()
        print_table(table, options.format)
    if options.format == "terminal":
        print(f"\nnext: {_next(options)}")
    return 0


def _next(options: argparse.Namespace) -> str:
    more = "--memory" if not options.memory else "--latency" if not options.latency else ""
    return f"ablate cost {again(options)} {more}" if more else f"ablate plan {again(options)}"


def _tables(options: argparse.Namespace) -> list[Table]:
    from ablate import cost_tables

    if options.latency and options.by in ("stage", "insertion"):
        hint = "--by node times each node, --by variant each network"
        raise UserError(Problem(f"--latency is not measured by {options.by}", hint=hint))
    plan = load_plan(options.spec, options)
    variants = _chosen(plan, options)
    compares = options.variant is None and (len(variants) > 1 or bool(plan.paper))
    by = options.by or ("variant" if compares else "node")
    if by == "variant":
        if options.variant is not None:
            raise UserError(Problem("--by variant shows all variants", hint="leave --variant out"))
        prices, said = _priced(plan, variants, options, by_node=False)
        return [cost_tables.variant_table(plan, prices, said)]
    if by == "node":
        prices, said = _priced(plan, _one(plan, variants, options), options, by_node=options.latency)
        tables = [cost_tables.node_table(prices[0], said)]
        if prices[0].cost.by_insertion():
            tables.append(cost_tables.group_table("insertion", prices))
        return tables
    prices, said = _priced(plan, variants, options, by_node=False)
    if by == "insertion" and not any(each.cost.by_insertion() for each in prices):
        raise UserError(Problem("--by insertion: there are no insertions", hint="--by stage, or --by node"))
    return [cost_tables.group_table(by, prices, said)]


def _chosen(plan: StudyPlan, options: argparse.Namespace) -> list[Variant]:
    return plan.variants if options.variant is None else [plan.variant(options.variant)]


def _one(plan: StudyPlan, variants: list[Variant], options: argparse.Namespace) -> list[Variant]:
    """The variant that is asked for; of several the spec as written."""
    from ablate.design import as_written

    return variants if len(variants) == 1 else [as_written(loaded(options.spec, options))]


def _priced(
    plan: StudyPlan, variants: list[Variant], options: argparse.Namespace, *, by_node: bool
) -> tuple[list[Priced], str]:
    """What was asked for about these variants, and how latency was measured."""
    from ablate import cost_tables

    layout = plan.execution.channels_last
    prices = cost_tables.priced(variants, memory=options.memory, memory_batch=options.batch, channels_last=layout)
    if not options.latency:
        return prices, ""
    from ablate.resolving import on_this_machine

    batch, numerics = options.batch or 1, on_this_machine(plan)
    prices = cost_tables.with_latency(prices, batch, numerics, by_node=by_node)
    return prices, cost_tables.latency_text(prices, batch, numerics)
