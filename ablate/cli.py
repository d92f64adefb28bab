"""The command line: reads arguments, calls one function, prints. Heavy imports wait for the command.

Exit codes: 0 done; 1 the study has failures; 2 the input is wrong; 130 interrupted.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablate.errors import Problem, UserError

if TYPE_CHECKING:
    from ablate.design import StudyPlan
    from ablate.report.tables import Table
    from ablate.spec import Spec
    from ablate.store import Study

FORMATS = ("terminal", "markdown", "csv", "latex")


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ablate", description="Architecture ablations whose every variant is proven to be what was asked for."
    )
    parser.add_argument("--version", action="version", version=_version())
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    check = commands.add_parser("check", help="say everything that is wrong with a spec")
    check.add_argument("specs", nargs="+", metavar="SPEC")
    _settable(check)
    check.set_defaults(command=_check)

    show = commands.add_parser("show", help="a network's layers with shapes, params and FLOPs; or its diagram")
    _takes_spec(show)
    show.add_argument("--variant", help="a variant's name: explained in words too; without it, the spec as written")
    show.add_argument("--json", action="store_true", help="the layers, and the variant's explanation, as values")
    show.add_argument("--mermaid", action="store_true", help="the diagram, as Mermaid text")
    show.add_argument("--format", choices=FORMATS, default="terminal")
    show.set_defaults(command=_show)

    plan = commands.add_parser(
        "plan", help="variants, trials, costs, certificates and time, before anything is trained"
    )
    _takes_spec(plan)
    plan.add_argument("--concurrent", type=_positive, help="trials at once")
    plan.add_argument("--no-timing", action="store_true", help="do not time training steps")
    plan.add_argument("--format", choices=FORMATS, default="terminal")
    plan.add_argument("--variant", help="explain this variant in words and certify it alone")
    plan.add_argument("--json", action="store_true", help="the variants' records with their certificates")
    plan.set_defaults(command=_plan)

    sweep = commands.add_parser("sweep", help="train all variants over all seeds and print the table")
    _takes_spec(sweep)
    folder = "the study's folder (default: runs/NAME, with a profile runs/NAME-PROFILE)"
    sweep.add_argument("--out", type=Path, metavar="FOLDER", help=folder)
    sweep.add_argument("--executor", choices=("ray", "local"), default="ray", help="local: one trial after another")
    sweep.add_argument("--concurrent", type=_positive, help="trials at once (default: CPUs / threads per trial)")
    sweep.add_argument("--quiet", action="store_true", help="no progress on stderr")
    sweep.set_defaults(command=_sweep)

    report = commands.add_parser("report", help="print a study's table and write it as Markdown, CSV and LaTeX")
    report.add_argument("study", type=Path, metavar="STUDY", help="a study's folder, runs/NAME")
    report.add_argument("--format", choices=FORMATS, default="terminal")
    report.add_argument("--json", action="store_true", help="the table's values")
    report.set_defaults(command=_report)

    blocks = commands.add_parser("blocks", help="the blocks that a spec can name, or one block's parameters")
    blocks.add_argument("name", nargs="?", metavar="BLOCK")
    blocks.add_argument("--format", choices=FORMATS, default="terminal")
    blocks.set_defaults(command=_blocks)

    new = commands.add_parser("new", help="write a commented file to start from")
    kinds = new.add_subparsers(title="kinds", required=True, metavar="KIND")
    study = kinds.add_parser("study", help="a spec that works as it is: a network, an insertion, factors, a profile")
    study.add_argument("name", metavar="NAME", help="the study's name, and the file's: NAME.yaml")
    study.add_argument("--folder", type=Path, default=Path("specs"), help="where to put it (default: specs)")
    study.set_defaults(command=_new_study)

    schema = commands.add_parser("schema", help="the JSON Schema of specs, for editors")
    schema.add_argument("-o", "--output", type=Path, metavar="FILE", help="write it there")
    schema.set_defaults(command=_schema)
    return parser


def _takes_spec(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("spec", metavar="SPEC", help="a YAML file")
    _settable(parser)


def _settable(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--set", action="append", default=[], metavar="PATH=VALUE", dest="sets", help="change one path of the spec"
    )
    parser.add_argument("--profile", metavar="NAME", help="one of the spec's profiles, between the spec and its levels")


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not at least 1")
    return value


def _version() -> str:
    from importlib import metadata

    try:
        return f"ablate {metadata.version('ablate-harness')}"
    except metadata.PackageNotFoundError:
        return "ablate (not installed)"


def _loaded(path: str, options: argparse.Namespace) -> Spec:
    from ablate.spec import load

    return load(path, sets=options.sets, profile=options.profile)


def _load_plan(path: str, options: argparse.Namespace) -> StudyPlan:
    from ablate.design import study_plan

    return study_plan(_loaded(path, options))


def _print(table: Table, format: str) -> None:
    from ablate.report.render import render

    print(render(table, format), end="")


def _print_json(values: Any) -> None:
    print(json.dumps(values, indent=2, ensure_ascii=False))


def _check(options: argparse.Namespace) -> int:
    problems: list[Problem] = []
    for path in options.specs:
        try:
            plan = _load_plan(path, options)
        except UserError as error:
            problems += [_of_spec(problem, path) if len(options.specs) > 1 else problem for problem in error.problems]
            continue
        duplicates = len(plan.variants) - len(plan.distinct)
        same = f" ({duplicates} the same as another)" if duplicates else ""
        trials = len(plan.distinct) * len(plan.seeds)
        profiles = list(plan.spec.tree.get("profiles", {}))
        others = f"; profiles: {', '.join(profiles)}" if profiles else ""
        print(f"{path}: sound: {len(plan.variants)} variants{same}, {trials} trials{others}")
    if problems:
        raise UserError(problems)
    return 0


def _of_spec(problem: Problem, path: str) -> Problem:
    """A mistake on the command line, with the spec of those named in which it is one."""
    if path in str(problem) or (problem.place is not None and problem.place.file != "--set"):
        return problem
    return replace(problem, message=f"{path}: {problem.message}")


def _show(options: argparse.Namespace) -> int:
    from ablate import describe, words
    from ablate.design import as_written
    from ablate.diagram import mermaid
    from ablate.facts import explain

    facts = None
    if options.variant is None:
        variant = as_written(_loaded(options.spec, options))
    else:
        plan = _load_plan(options.spec, options)
        variant = plan.variant(options.variant)
        facts = explain(plan, variant)
    layers = describe.layers(variant)
    if options.mermaid:
        print(mermaid(variant.network.graph), end="")
    elif options.json:
        _print_json({"explanation": facts.as_dict() if facts else None, "layers": _values(layers)})
    else:
        if facts and options.format == "terminal":
            print(words.in_words(facts))
        _print(layers, options.format)
    return 0


def _plan(options: argparse.Namespace) -> int:
    from ablate import describe
    from ablate.prepare import prepare, timed_seconds, variant_records

    if options.variant is not None:
        return _plan_one(options)
    prepared = prepare(_load_plan(options.spec, options))
    if options.json:
        _print_json(variant_records(prepared))
    else:
        timed = not options.no_timing and not prepared.failures
        seconds = timed_seconds(prepared) if timed else None
        _print(describe.plan(prepared, seconds, options.concurrent), options.format)
        print(f"\nnext: ablate sweep {_again(options)}" if not prepared.failures else "")
    return 1 if prepared.failures else 0


def _plan_one(options: argparse.Namespace) -> int:
    from ablate import words
    from ablate.facts import explain
    from ablate.prepare import certificate_of

    plan = _load_plan(options.spec, options)
    certificate = certificate_of(plan, plan.variant(options.variant).name)
    facts = explain(plan, plan.variant(options.variant), certificate)
    if options.json:
        _print_json(facts.as_dict())
    else:
        print(words.in_words(facts))
        print(f"next: ablate plan {_again(options)}   (all {len(plan.variants)} variants)")
    return 1 if certificate.failures else 0


def _again(options: argparse.Namespace) -> str:
    """The spec with the options that a command on it takes once more."""
    profile = ["--profile", options.profile] if options.profile else []
    sets = [word for text in options.sets for word in ("--set", text)]
    return shlex.join([options.spec, *profile, *sets])


def _sweep(options: argparse.Namespace) -> int:
    from ablate.prepare import prepare
    from ablate.progress import chosen_display
    from ablate.sweeping import sweep

    plan = _load_plan(options.spec, options)
    if not options.quiet:
        print(f"{len(plan.variants)} variants, {len(plan.seeds)} seeds; certifying", file=sys.stderr)
    prepared = prepare(plan)
    study = sweep(
        prepared,
        options.out,
        executor=options.executor,
        concurrent=options.concurrent,
        progress=chosen_display(options.quiet),
    )
    return _reported(study, "terminal")


def _reported(study: Study, format: str) -> int:
    from ablate.report import ablation_table, write_report

    _print(ablation_table(study), format)
    written = write_report(study)
    results = [study.result(key) for key in {key for record in study.variants for key in record["trials"].values()}]
    missing = sum(result is None for result in results)
    failed = sum(result is not None and result["status"] != "finished" for result in results)
    for key, why in study.damaged.items():
        print(f"damaged: {key}: {why}", file=sys.stderr)
    if missing or failed:
        print(f"{missing} trials missing, {failed} failed", file=sys.stderr)
    print(f"wrote {', '.join(str(path) for path in written)}", file=sys.stderr)
    print(f"next: ablate report {study.folder}", file=sys.stderr)
    return 1 if missing or failed else 0


def _report(options: argparse.Namespace) -> int:
    from ablate.store import Study

    study = Study.open(options.study)
    if options.json:
        from ablate.report import ablation_table

        _print_json(_values(ablation_table(study)))
        return 0
    return _reported(study, options.format)


def _values(table: Table) -> list[dict[str, Any]]:
    return [
        {
            column.name: cell.text if column.kind == "text" else {"text": cell.text, "value": cell.value}
            for column, cell in zip(table.columns, row, strict=True)
        }
        for row in table.rows
    ]


def _blocks(options: argparse.Namespace) -> int:
    from ablate import describe

    if options.name is None:
        _print(describe.blocks(), options.format)
        return 0
    try:
        _print(describe.block(options.name), options.format)
    except KeyError as error:
        raise UserError(Problem(f"no block '{options.name}'", hint=str(error.args[0]))) from None
    return 0


def _new_study(options: argparse.Namespace) -> int:
    from ablate.scaffold import new_study

    file = new_study(options.name, options.folder)
    print(f"wrote {file}")
    print(f"next: ablate check {shlex.quote(str(file))}")
    return 0


def _schema(options: argparse.Namespace) -> int:
    from ablate.schema import spec_schema_text

    if options.output is None:
        print(spec_schema_text(), end="")
        return 0
    try:
        options.output.write_text(spec_schema_text(), encoding="utf-8")
    except OSError as error:
        raise UserError(f"{options.output}: {error.strerror}") from None
    return 0
