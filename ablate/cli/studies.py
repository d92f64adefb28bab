"""Commands on a study: check, show, plan, sweep, report."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
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
    settable,
    shapeable,
    takes_spec,
    values_of,
    write_svg,
)
from ablate.cli.searched import print_findings
from ablate.cli.track import trackable
from ablate.errors import Problem, UserError
from ablate.labels import clean
from ablate.outcomes import DONE, FAILED

if TYPE_CHECKING:
    from ablate.beforehand import RayBeforehand
    from ablate.design import StudyPlan
    from ablate.store import Study


def add(commands: Commands) -> None:
    check = commands.add_parser("check", help="say everything that is wrong with a spec")
    check.add_argument("specs", nargs="+", metavar="SPEC")
    settable(check)
    check.set_defaults(command=_check)

    show = commands.add_parser("show", help="a network's layers with shapes, params and FLOPs; or its diagram")
    takes_spec(show)
    shapeable(show)
    show.add_argument("--variant", help="a variant's name: explained in words too; without it, the spec as written")
    show.add_argument("--json", action="store_true", help="the layers, and the variant's explanation, as values")
    show.add_argument("--mermaid", action="store_true", help="the diagram, as Mermaid text")
    show.add_argument("--svg", type=Path, metavar="FILE", help="write the diagram there, equal repeats drawn once")
    show.add_argument("--format", choices=FORMATS, default="terminal")
    show.set_defaults(command=_show)

    plan = commands.add_parser(
        "plan", help="variants, trials, costs, certificates and time, before anything is trained"
    )
    takes_spec(plan)
    plan.add_argument("--concurrent", type=positive, help="trials at once")
    plan.add_argument("--no-timing", action="store_true", help="do not time training steps")
    plan.add_argument("--format", choices=FORMATS, default="terminal")
    plan.add_argument("--variant", help="explain this variant in words and certify it alone")
    plan.add_argument("--json", action="store_true", help="the variants' records with their certificates")
    plan.set_defaults(command=_plan)

    sweep = commands.add_parser("sweep", help="train all variants over all seeds and print the table")
    takes_spec(sweep)
    folder = "the study's folder (default: runs/NAME, with a profile runs/NAME-PROFILE)"
    sweep.add_argument("--out", type=Path, metavar="FOLDER", help=folder)
    sweep.add_argument("--executor", choices=("ray", "local"), default="ray", help="local: one trial after another")
    sweep.add_argument(
        "--address", metavar="HOST:PORT", help="train on the Ray cluster there; auto: the one this machine belongs to"
    )
    sweep.add_argument("--concurrent", type=positive, help="trials at once (default: execution.max_concurrent)")
    sweep.add_argument(
        "--retry-failed", action="store_true", help="also repeat what crashed, diverged, did not fit or took too long"
    )
    sweep.add_argument(
        "--no-cache", action="store_true", help="train every trial here, whatever other studies have trained already"
    )
    trackable(sweep)
    sweep.add_argument("--quiet", action="store_true", help="no progress on stderr")
    sweep.set_defaults(command=_sweep)

    report = commands.add_parser(
        "report", help="print a study's table; write tables, figures and one page of all of it"
    )
    report.add_argument("study", type=Path, metavar="STUDY", help="a study's folder, runs/NAME")
    report.add_argument("--format", choices=FORMATS, default="terminal")
    report.add_argument("--json", action="store_true", help="the table's values")
    report.add_argument(
        "--columns",
        type=lambda text: text.split(","),
        metavar="NAME,NAME",
        help="the table's columns: costs, metrics and measures (default: the spec's report.columns)",
    )
    report.add_argument(
        "--strict", action="store_true", help="fail where the trials contradict what the spec's papers claim"
    )
    report.set_defaults(command=_report)


def _check(options: argparse.Namespace) -> int:
    problems: list[Problem] = []
    for path in options.specs:
        try:
            plan = load_plan(path, options)
        except UserError as error:
            problems += [_of_spec(problem, path) if len(options.specs) > 1 else problem for problem in error.problems]
            continue
        duplicates = len(plan.variants) - len(plan.distinct)
        same = f" ({duplicates} the same as another)" if duplicates else ""
        counts = [len(plan.distinct) * len(seeds) for seeds in (plan.seeds, plan.possible_seeds)]
        trials = " to ".join(map(str, dict.fromkeys(counts)))
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
    from ablate.diagram import drawing_of, kinds_of, mermaid
    from ablate.facts import explain

    facts = None
    if options.variant is None:
        variant = as_written(loaded(options.spec, options))
    else:
        plan = load_plan(options.spec, options)
        variant = plan.variant(options.variant)
        facts = explain(plan, variant)
    if options.svg is not None:
        write_svg(drawing_of(variant.network.graph, variant.name, kinds_of(variant.network.written)), options.svg)
    layers = describe.layers(variant)
    if options.mermaid:
        print(mermaid(variant.network.graph), end="")
    elif options.json:
        print_json({"explanation": facts.as_dict() if facts else None, "layers": values_of(layers)})
    else:
        if facts and options.format == "terminal":
            print(words.in_words(facts))
        print_table(layers, options.format)
    return 0


def _plan(options: argparse.Namespace) -> int:
    from ablate import describe
    from ablate.prepare import prepare, timed_seconds, variant_records

    if options.variant is not None:
        return _plan_one(options)
    timed = not options.no_timing
    prepared = prepare(_tuned_so_far(options), concurrent=options.concurrent, measure=timed)
    if options.json:
        print_json(variant_records(prepared))
    else:
        seconds = timed_seconds(prepared) if timed and not prepared.failures else None
        print_table(describe.plan(prepared, seconds), options.format)
        print(f"\nnext: ablate sweep {again(options)}" if not prepared.failures else "")
    return 1 if prepared.failures else 0


def _tuned_so_far(options: argparse.Namespace) -> StudyPlan:
    from ablate.prepare import folder_of
    from ablate.tuning import as_far_as_tuned

    plan = load_plan(options.spec, options)
    return as_far_as_tuned(plan, folder_of(plan))


def _plan_one(options: argparse.Namespace) -> int:
    from ablate import words
    from ablate.facts import explain
    from ablate.prepare import certificate_of

    plan = _tuned_so_far(options)
    certificate = certificate_of(plan, plan.variant(options.variant).name)
    facts = explain(plan, plan.variant(options.variant), certificate)
    if options.json:
        print_json(facts.as_dict())
    else:
        print(words.in_words(facts))
        print(f"next: ablate plan {again(options)}   (all {len(plan.variants)} variants)")
    return 1 if certificate.failures else 0


def _sweep(options: argparse.Namespace) -> int:
    from ablate.prepare import folder_of
    from ablate.store import Study, is_study
    from ablate.tracking import tracked

    if options.address is not None and options.executor == "local":
        raise UserError(Problem("--address is of a Ray cluster, and --executor local uses none", hint="leave one out"))
    plan = load_plan(options.spec, options)
    folder = folder_of(plan, options.out)
    if is_study(folder):
        with Study(folder, {}, [], {}).hold():  # whether it is free is said before anything is certified
            pass
    with tracked(folder, options.track or ()):
        return _placed(plan, folder, options)


def _placed(plan: StudyPlan, folder: Path, options: argparse.Namespace) -> int:
    """Swept, in this process or by Ray."""
    if options.address is not None:
        from ablate.raysession import session  # joined first: what the cluster has decides how trials are placed

        with session(options.address):
            return _swept(plan, folder, options)
    if options.executor == "local" or _is_complete(folder, plan):
        return _swept(plan, folder, options)
    from ablate.beforehand import RayBeforehand

    with RayBeforehand() as beforehand:
        return _swept(plan, folder, options, beforehand)


def _is_complete(folder: Path, plan: StudyPlan) -> bool:
    """Whether nothing seems to be left to train, so that Ray need not be started for it."""
    from ablate.analysis.arms import arms_of
    from ablate.analysis.widths import Until, look
    from ablate.store import Study, is_study

    if not is_study(folder):
        return False
    try:
        study = Study.open(folder)
        states = study.states()
    except UserError:  # a damaged record: the sweep writes it anew, or says why it can't
        return False
    until = Until.of(plan.tree)
    return all(state.status in DONE for state in states.values()) and not (until and look(until, arms_of(study)).more)


def _swept(plan: StudyPlan, folder: Path, options: argparse.Namespace, beforehand: RayBeforehand | None = None) -> int:
    from ablate import describe
    from ablate.cache import default_cache
    from ablate.prepare import prepare
    from ablate.progress import chosen_display
    from ablate.sweeping import sweep
    from ablate.tuning import tuned

    at_once = 1 if options.executor == "local" else options.concurrent
    cache = None if options.no_cache else default_cache()
    progress = chosen_display(options.quiet)
    plan = tuned(
        plan,
        folder,
        executor=options.executor,
        concurrent=at_once,
        progress=progress,
        cache=cache,
        beforehand=beforehand,
    )
    if not options.quiet:
        seeds = " to ".join(map(str, dict.fromkeys(map(len, (plan.seeds, plan.possible_seeds)))))
        print(f"{len(plan.variants)} variants, {seeds} seeds; settling and certifying", file=sys.stderr)
    prepared = prepare(plan, folder=folder, concurrent=at_once)
    if not options.quiet:
        print(describe.numerics(prepared.plan, prepared.settled), file=sys.stderr)
    study = sweep(
        prepared,
        executor=options.executor,
        progress=chosen_display(options.quiet),
        retry_failed=options.retry_failed,
        cache=cache,
        beforehand=beforehand,
    )
    return _reported(study, "terminal")


def _reported(study: Study, format: str, columns: list[str] | None = None) -> int:
    from ablate.report import render, report_of, written

    report = report_of(study, columns)
    print(render(report.tables["table"], format), end="")
    paths = written(report)
    results = {arm.record["trials"][seed]: result for arm in report.arms for seed, result in arm.results.items()}
    missing = sum(result is None for result in results.values())
    failed = sum(result is not None and result["status"] in FAILED for result in results.values())
    for key, why in study.damaged.items():
        print(f"damaged: {key}: {why}", file=sys.stderr)
    if missing or failed:
        print(f"{missing} trials missing, {failed} failed: ablate status {study.folder}", file=sys.stderr)
    print(f"wrote {paths[0].parent}/ ({len(paths)} files): {_kinds(paths)}", file=sys.stderr)
    print(f"next: open {paths[-1]} in a browser", file=sys.stderr)
    return 1 if missing or failed else 0


def _kinds(paths: list[Path]) -> str:
    """``table.*, comparisons.*, report.html``: each name once."""
    names = dict.fromkeys(path.name if path.suffix == ".html" else f"{path.name.partition('.')[0]}.*" for path in paths)
    return ", ".join(names)


def _report(options: argparse.Namespace) -> int:
    from ablate.store import Study

    study = Study.open(options.study)
    if "search" in study.spec:
        if options.columns:
            raise UserError(Problem("--columns: the table of a search has its own", hint="leave it out"))
        return print_findings(study, options.format, json=options.json)
    if options.json:
        from ablate.report import ablation_table

        print_json(values_of(ablation_table(study, options.columns)))
        code = 0
    else:
        code = _reported(study, options.format, options.columns)
    return max(code, _say_broken(study)) if options.strict else code


def _say_broken(study: Study) -> int:
    """Names on stderr each claim that the trials contradict, and how many can't be judged; 1 where one is broken."""
    from ablate.report.claims import broken_claims, unjudged_text

    broken = broken_claims(study)
    for claim in broken:
        print(f"broken: {clean(claim)}", file=sys.stderr)
    if unjudged := unjudged_text(study):
        print(clean(unjudged), file=sys.stderr)
    return 1 if broken else 0
