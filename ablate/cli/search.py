"""The command ``search``: the best networks of a space, by what training tells or, with ``--static``, by cost alone."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ablate.cli.common import (
    FORMATS,
    Commands,
    again,
    loaded,
    natural,
    positive,
    print_json,
    print_table,
    shapeable,
    takes_spec,
    write_text,
)
from ablate.cli.searched import TOP, print_findings
from ablate.cli.track import trackable
from ablate.errors import Problem, UserError

if TYPE_CHECKING:
    from ablate.beforehand import RayBeforehand
    from ablate.searching import Held, Searchable
    from ablate.space import Space
    from ablate.static_search import Found, StaticSearch
    from ablate.store import Study

SAMPLERS = ("random", "grid", "tpe", "cmaes", "gp", "nsga2", "nsga3")
TRAINED_ONLY = (
    *("epochs", "time", "executor", "concurrent", "address", "out"),
    *("best", "number", "no_cache", "retry_failed", "track"),
)
"""Options that say nothing of a search by cost alone."""


def add(commands: Commands) -> None:
    search = commands.add_parser(
        "search", help="the best networks of a search space: trained, or by their cost alone (--static)"
    )
    takes_spec(search)
    shapeable(search)
    search.add_argument("--space", required=True, metavar="FILE", help="the space: search_spaces/NAME.yaml")
    search.add_argument("--static", action="store_true", help="by cost alone; nothing is trained")

    spent = search.add_argument_group("how much is spent, over what the space says")
    spent.add_argument("--trials", type=positive, metavar="N", help="distinct points to train (with --static: to draw)")
    spent.add_argument("--epochs", type=positive, metavar="N", help="epochs that all trials are trained for together")
    spent.add_argument("--time", metavar="2h", help="how long this call may take")

    proposed = search.add_argument_group("what is proposed, over what the space says")
    proposed.add_argument("--sampler", choices=SAMPLERS, help="what proposes points")
    proposed.add_argument("--seed", type=natural, metavar="N", help="of the sampler's draws (default: 0)")

    trained = search.add_argument_group("how trials run, as for `ablate sweep`")
    trained.add_argument("--executor", choices=("ray", "local"), help="local: in this process (default: ray)")
    trained.add_argument("--concurrent", type=positive, metavar="N", help="trials at once")
    trained.add_argument("--address", metavar="ADDRESS", help="of a Ray cluster; auto: the one of this machine")
    trained.add_argument("--out", type=Path, metavar="DIR", help="the study's folder (default: runs/SPEC-SPACE)")
    trained.add_argument("--retry-failed", action="store_true", default=None, help="repeat trials that failed")
    trained.add_argument("--no-cache", action="store_true", default=None, help="train every trial here")

    trackable(trained)
    shown = search.add_argument_group("what is shown and written")
    shown.add_argument("--best", type=Path, metavar="FILE", help="write the best network as a spec of its own")
    shown.add_argument("--number", metavar="N", help="with --best: another one of the table")
    shown.add_argument("--top", type=positive, default=TOP, metavar="N", help=f"rows to print (default: {TOP})")
    shown.add_argument("--limit", type=positive, metavar="N", help="with --static: the most points to enumerate")
    shown.add_argument("--jobs", type=positive, metavar="N", help="with --static: processes (default: by points)")
    shown.add_argument("--format", choices=FORMATS, default="terminal")
    shown.add_argument("--json", action="store_true", help="all that was found, as JSON")
    shown.add_argument("--quiet", action="store_true", help="no progress on stderr")
    search.set_defaults(command=_search)


def _search(options: argparse.Namespace) -> int:
    from ablate.space import load_space

    _refuse_idle(options)
    space = load_space(options.space)
    return _static(space, options) if options.static else _trained(_changed(space, options), options)


def _refuse_idle(options: argparse.Namespace) -> None:
    """Options that would say nothing."""
    idle = TRAINED_ONLY if options.static else ("limit", "jobs", "shape", "classes")
    given = [name for name in idle if getattr(options, name) is not None]
    why = "--static trains nothing" if options.static else "only for a search by cost alone"
    hint = "leave it out, or --static" if options.static is False else "leave it out, or leave --static out"
    found = [Problem(f"--{name.replace('_', '-')}: {why}", hint=hint) for name in given]
    if options.number is not None and options.best is None and not options.static:
        found.append(Problem("--number goes with --best", hint="--best best.yaml --number 12"))
    if options.address is not None and options.executor == "local":
        found.append(Problem("--address is of a Ray cluster, and --executor local uses none", hint="leave one out"))
    if options.best is not None and not options.best.absolute().parent.is_dir():
        found.append(Problem(f"--best {options.best}: there is no folder {options.best.parent}", hint="make it first"))
    if options.executor == "local" and options.concurrent is not None:
        found.append(Problem("--concurrent is for Ray, and --executor local runs one at a time", hint="leave one out"))
    if found:
        raise UserError(found)


def _changed(space: Space, options: argparse.Namespace) -> Space:
    """The space with what the command line says over it."""
    from ablate.space import SamplerSpec
    from ablate.units import duration

    model = space.model
    budget = {"trials": options.trials, "epochs": options.epochs}
    try:
        budget["time"] = duration(options.time) if options.time is not None else None
    except ValueError as error:
        raise UserError(Problem(f"--time {options.time}: {error}")) from None
    stated = {key: value for key, value in budget.items() if value is not None}
    sampler = model.chosen_sampler
    if options.sampler is not None and options.sampler != sampler.name:
        sampler = SamplerSpec(name=options.sampler, seed=sampler.seed)
    if options.seed is not None:
        sampler = sampler.model_copy(update={"seed": options.seed})
    update = {"budget": model.budget.model_copy(update=stated), "sampler": sampler}
    return replace(space, model=model.model_copy(update=update))


# Trained.


def _trained(space: Space, options: argparse.Namespace) -> int:
    from ablate.searching import held
    from ablate.tracking import parse

    parse(options.track or ())
    found = held(space, loaded(options.spec, options))
    if not options.quiet:
        print(_opening(found), file=sys.stderr)
    if options.address is not None:
        from ablate.raysession import session  # joined first: what the cluster has decides how trials are placed

        with session(options.address):
            return _searched(found, options)
    if options.executor == "local":
        return _searched(found, options)
    from ablate.beforehand import RayBeforehand

    with RayBeforehand() as beforehand:
        return _searched(found, options, beforehand)


def _searched(found: Held, options: argparse.Namespace, beforehand: RayBeforehand | None = None) -> int:
    from ablate import describe
    from ablate.cache import default_cache
    from ablate.progress import chosen_display
    from ablate.searching import search, settle
    from ablate.tracking import tracked

    at_once = 1 if options.executor == "local" else options.concurrent
    prepared = settle(found, folder=options.out, concurrent=at_once)
    if not options.quiet:
        print(describe.numerics(prepared.plan, prepared.settled), file=sys.stderr)
    with tracked(prepared.folder, options.track or ()):
        study = search(
            prepared,
            executor=options.executor or "ray",
            progress=chosen_display(options.quiet),
            retry_failed=bool(options.retry_failed),
            cache=None if options.no_cache else default_cache(),
            beforehand=beforehand,
        )
        return _reported(study, prepared, options)


def _reported(study: Study, prepared: Searchable, options: argparse.Namespace) -> int:
    code = print_findings(study, options.format, options.top, json=options.json)
    if options.best is not None:
        from ablate.searching import winner

        write_text(winner(prepared, study, options.number), options.best)
        print(f"wrote {options.best}", file=sys.stderr)
    print(f"next: {_then(study, options)}", file=sys.stderr)
    return code


def _then(study: Study, options: argparse.Namespace) -> str:
    """The winner's seeds; else the same command, which writes the winner where there is one."""
    from ablate.findings import findings_of

    if options.best is not None:
        return f"ablate sweep {shlex.quote(str(options.best))}"
    found = findings_of(study)
    if not found.trials:
        return f"loosen the constraints in {shlex.quote(options.space)}, and search in another folder (--out)"
    given = {
        name: getattr(options, name) for name in ("trials", "epochs", "time", "sampler", "seed", "executor", "out")
    }
    words = [word for name, value in given.items() if value is not None for word in (f"--{name}", str(value))]
    words += [f"--{name.replace('_', '-')}" for name in ("no_cache", "retry_failed") if getattr(options, name)]
    words += ["--address", options.address] if options.address is not None else []
    words += [word for text in options.track or () for word in ("--track", text)]
    words += ["--best", "best.yaml"] if found.ranked and not found.missing else []
    return f"ablate search {again(options)} --space {shlex.quote(options.space)} {shlex.join(words)}".rstrip()


def _opening(held: Held) -> str:
    model, count = held.space.model, held.grid.count
    points = "a space without end" if count is None else f"{count:,} points"
    ways = " and ".join(f"{metric} ({way})" for metric, way in model.objectives.items())
    return f"{points}; {ways}; {model.chosen_sampler.name} proposes, {model.budget.trials:,} trials; settling"


# By cost alone.


def _static(space: Space, options: argparse.Namespace) -> int:
    from ablate.static_search import LIMIT, networks_table, record, static_search

    progress = None if options.quiet else _said
    try:
        found = static_search(
            space,
            loaded(options.spec, options),
            limit=options.limit or LIMIT,
            trials=options.trials,
            sampler=options.sampler,
            seed=options.seed,
            jobs=options.jobs,
            progress=progress,
        )
    except KeyboardInterrupt:
        print("interrupted; of a search by cost nothing is kept", file=sys.stderr)
        return 130
    if options.json:
        print_json(record(found))
        return 0
    print_table(networks_table(found, options.top), options.format)
    print(f"next: {_next(found, options)}", file=sys.stdout if options.format == "terminal" else sys.stderr)
    return 0


def _said(done: int, points: int) -> None:
    """At the start and after each twentieth."""
    part = max(points // 20, 1)
    if done == 0:
        print(f"{points:,} points; building and counting each", file=sys.stderr)
    elif done % part == 0 or done == points:
        print(f"{done:,} of {points:,}", file=sys.stderr)


def _next(found: StaticSearch, options: argparse.Namespace) -> str:
    """The best network's layers; where none was kept, the space to change."""
    if not found.kept:
        return f"loosen the constraints in {shlex.quote(options.space)}: no network keeps them"
    sets = [word for text in _assigned(found.kept[0]) for word in ("--set", text)]
    return f"ablate show {again(options)} {shlex.join(sets)}"


def _assigned(found: Found) -> list[str]:
    """The point as ``--set`` takes it: JSON is YAML, and a plain word needs no quotes."""
    values = {path: value for path, value in found.point.items() if value is not None}
    plain = {path: value for path, value in values.items() if isinstance(value, str) and _is_plain(value)}
    removed = [f"{path}=" for path, value in found.point.items() if value is None]
    return [*removed, *(f"{path}={plain.get(path, json.dumps(value))}" for path, value in values.items())]


def _is_plain(text: str) -> bool:
    from ablate.yamlfile import parse_value

    try:
        return bool(parse_value(text) == text)
    except UserError:
        return False
