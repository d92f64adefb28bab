"""Commands on the cache of finished trials: ls, verify, gc."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from ablate.cli.common import FORMATS, Commands, print_json, print_table, values_of
from ablate.errors import Problem, UserError

if TYPE_CHECKING:
    from ablate.cache import Cache, Entry
    from ablate.report.tables import Table


def add(commands: Commands) -> None:
    cache = commands.add_parser("cache", help="finished trials that other studies take over: list, verify, remove")
    actions = cache.add_subparsers(title="actions", required=True, metavar="ACTION")

    ls = actions.add_parser("ls", help="what is there, by study and variant")
    ls.add_argument("--format", choices=FORMATS, default="terminal")
    ls.add_argument("--json", action="store_true", help="the table's values")
    ls.set_defaults(command=_ls)

    verify = actions.add_parser("verify", help="read every file; damaged trials are named, and make the exit code 1")
    verify.set_defaults(command=_verify)

    gc = actions.add_parser("gc", help="remove damaged trials and, as asked, others; say what that set free")
    gc.add_argument("--keep", type=_unit("size"), metavar="SIZE", help="at most so much (10GiB): the longest unused go")
    gc.add_argument("--older", type=_unit("duration"), metavar="TIME", help="what was not used for so long (90d) goes")
    gc.add_argument("--all", action="store_true", help="everything goes")
    gc.set_defaults(command=_gc)


def _unit(name: str) -> Callable[[str], float]:
    def parsed(text: str) -> float:
        from ablate import units

        try:
            value: float = getattr(units, name)(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None
        return value

    return parsed


def _cache() -> Cache:
    from ablate.cache import VARIABLE, default_cache

    cache = default_cache()
    if cache is None:
        raise UserError(Problem("there is no cache", hint=f"{VARIABLE} is 'off'; unset it, or name a folder"))
    return cache


def _ls(options: argparse.Namespace) -> int:
    table = _table(_cache())
    if options.json:
        print_json(values_of(table))
    else:
        print_table(table, options.format)
    return 0


def _verify(options: argparse.Namespace) -> int:
    cache = _cache()
    count, damaged = len(cache.entries()), cache.verify()
    for name, why in damaged.items():
        print(f"{name}: {why}")
    print(f"{_trials(count)} read, {len(damaged)} damaged")
    if damaged:
        print("next: ablate cache gc", file=sys.stderr)
    return 1 if damaged else 0


def _gc(options: argparse.Namespace) -> int:
    from ablate.cache import DAY
    from ablate.units import size_text

    cache = _cache()
    keep = 0 if options.all else options.keep
    freed = cache.gc(keep=keep, older=None if options.older is None else options.older / DAY)
    for name, why in freed.damaged.items():
        print(f"damaged: {name}: {why}")
    print(f"removed {_trials(len(freed.removed))}, which freed {size_text(freed.bytes)}")
    left = cache.entries()
    print(f"left: {_trials(len(left))}, {_sizes(left)}")
    return 0


def _table(cache: Cache) -> Table:
    """A row for each variant of each study that says so: how much is kept, and since when."""
    from ablate.code import code_digest
    from ablate.report.tables import Cell, Column, Table
    from ablate.units import size_text

    entries = cache.entries()
    groups: dict[tuple[str, str], list[Entry]] = {}
    for entry in entries:
        groups.setdefault((entry.study, entry.variant), []).append(entry)

    rows = []
    for (study, variant), group in sorted(groups.items()):
        counts = (len(group), sum(entry.code == code_digest() for entry in group))
        sizes = (sum(entry.own for entry in group), sum(entry.shared for entry in group))
        times = (min(each.made for each in group), max(each.made for each in group), max(each.used for each in group))
        rows.append(
            (
                *(Cell(name or "—") for name in (study, variant)),
                *(Cell(f"{count:,}", count) for count in counts),
                *(Cell(size_text(size), size) for size in sizes),
                *(Cell(_day(when)) for when in times),
            )
        )
    numbers = ("trials", "of this code", "size", "shared")
    columns = (
        *(Column(name) for name in ("study", "variant")),
        *(Column(name, "", "right", "number") for name in numbers),
        *(Column(name) for name in ("oldest", "newest", "last used")),
    )
    notes = (
        "of this code: what the ablate that is installed now can take; the rest was made by another version.",
        "size: what removing it frees. shared: files that a study holds as well, which take no room of their own.",
    )
    return Table(str(cache.folder), columns, tuple(rows), f"{_trials(len(entries))}, {_sizes(entries)}", notes)


def _sizes(entries: list[Entry]) -> str:
    from ablate.units import size_text

    own, shared = sum(entry.own for entry in entries), sum(entry.shared for entry in entries)
    return size_text(own) + (f", and {size_text(shared)} shared with studies" if shared else "")


def _trials(count: int) -> str:
    return f"{count:,} trial{'' if count == 1 else 's'}"


def _day(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d}"
