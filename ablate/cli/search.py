"""The command ``search``: a space of architectures, enumerated by cost."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from typing import TYPE_CHECKING

from ablate.cli.common import FORMATS, Commands, again, loaded, positive, print_json, print_table, shapeable, takes_spec
from ablate.errors import UserError

if TYPE_CHECKING:
    from ablate.static_search import Found, StaticSearch

TOP = 20


def add(commands: Commands) -> None:
    search = commands.add_parser(
        "search", help="every network of a search space by its cost alone: what keeps the constraints, the best first"
    )
    takes_spec(search)
    shapeable(search)
    search.add_argument("--space", required=True, metavar="FILE", help="the space: search_spaces/NAME.yaml")
    search.add_argument("--static", action="store_true", required=True, help="by cost alone; nothing is trained")
    search.add_argument("--top", type=positive, default=TOP, metavar="N", help=f"rows to print (default: {TOP})")
    search.add_argument("--limit", type=positive, metavar="N", help="the most points to build (default: 10,000)")
    search.add_argument("--format", choices=FORMATS, default="terminal")
    search.add_argument("--json", action="store_true", help="all networks that keep the constraints, and the targets")
    search.add_argument("--quiet", action="store_true", help="no progress on stderr")
    search.set_defaults(command=_search)


def _search(options: argparse.Namespace) -> int:
    from ablate.space import load_space
    from ablate.static_search import LIMIT, networks_table, record, static_search

    space, spec = load_space(options.space), loaded(options.spec, options)
    progress = None if options.quiet else _said
    try:
        found = static_search(space, spec, limit=options.limit or LIMIT, progress=progress)
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
