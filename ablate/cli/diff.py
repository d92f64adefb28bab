"""The command that sets two networks side by side: diff."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ablate.cli.common import FORMATS, Commands, loaded, print_json, print_table, settable, shapeable, write_svg
from ablate.errors import Problem, UserError

if TYPE_CHECKING:
    from ablate.design import Variant
    from ablate.difference import Comparison

USAGE = """\
ablate diff SPEC:VARIANT SPEC:VARIANT     two variants, of one spec or of two
ablate diff SPEC VARIANT VARIANT          the same, of one spec
ablate diff SPEC SPEC                     two specs as written, without any level

Says which nodes B adds to A, removes and changes, what each stage costs, and what of recipe and data differs.
Exit code 0, whether they differ or not; 2 where a spec or a variant is wrong."""


def add(commands: Commands) -> None:
    diff = commands.add_parser(
        "diff",
        help="two networks side by side: nodes added, removed, changed, and what each stage costs",
        description=USAGE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    diff.add_argument("a", metavar="A", help="SPEC, or SPEC:VARIANT")
    diff.add_argument("b", metavar="B", help="SPEC, or SPEC:VARIANT; or a variant of A, with another after it")
    diff.add_argument("variant", nargs="?", metavar="VARIANT", help="of SPEC VARIANT VARIANT, the second")
    settable(diff)
    shapeable(diff)
    diff.add_argument("--format", choices=FORMATS, default="terminal")
    output = diff.add_mutually_exclusive_group()
    output.add_argument("--json", action="store_true", help="everything, as values")
    output.add_argument("--mermaid", action="store_true", help="the picture, as Mermaid text")
    diff.add_argument("--svg", type=Path, metavar="FILE", help="write the picture there")
    diff.set_defaults(command=_diff)


def _diff(options: argparse.Namespace) -> int:
    from ablate.beside import drawing_of_comparison
    from ablate.difference import compare

    sides = _sides(options)
    a, b = (_variant(path, name, options) for path, name in sides)
    comparison = compare(a, b, _names(sides, (a, b)))
    if options.svg is not None:
        write_svg(drawing_of_comparison(comparison, a, b), options.svg, unchanged=True)
    if options.mermaid:
        from ablate.diagram import fold, mermaid_of

        print(mermaid_of(fold(drawing_of_comparison(comparison, a, b), unchanged=True)), end="")
    elif options.json:
        print_json(comparison.as_dict())
    else:
        _print_tables(comparison, options)
    return 0


def _sides(options: argparse.Namespace) -> list[tuple[str, str | None]]:
    """(spec, variant) of both sides; no variant: the spec as written."""
    if options.variant is not None:
        return [(options.a, options.b), (options.a, options.variant)]
    path, name = _side(options.b)
    if name is None and not Path(path).exists():
        hint = f"ablate diff {options.a} VARIANT {path} compares two variants of one spec"
        raise UserError(Problem(f"there is no spec '{path}'", hint=hint))
    return [_side(options.a), (path, name)]


def _side(text: str) -> tuple[str, str | None]:
    """``SPEC:VARIANT`` apart, at the first colon that has a file's name before it."""
    if not Path(text).is_file():
        cuts = [index for index, character in enumerate(text) if character == ":"]
        cut = next((index for index in cuts if Path(text[:index]).is_file()), cuts[0] if cuts else None)
        if cut is not None:
            return text[:cut], text[cut + 1 :]
    return text, None


def _variant(path: str, name: str | None, options: argparse.Namespace) -> Variant:
    from ablate.design import as_written, study_plan

    spec = loaded(path, options)
    return as_written(spec) if name is None else study_plan(spec).variant(name)


def _names(sides: list[tuple[str, str | None]], variants: tuple[Variant, Variant]) -> tuple[str, str]:
    """What to call the sides: variants of one spec by their names, others by their files too."""
    (path, name), (other_path, other_name) = sides
    if path == other_path and name is not None and other_name is not None:
        return name, other_name
    first, second = (
        f"{Path(file).stem}:{which}" if which else Path(file).stem
        for file, which in ((path, name), (other_path, other_name))
    )
    return (path, other_path) if first == second else (first, second)


def _print_tables(comparison: Comparison, options: argparse.Namespace) -> None:
    from ablate.beside import tables

    for index, table in enumerate(tables(comparison)):
        if index:
            print()
        print_table(table, options.format)
    if options.format == "terminal" and options.svg is None:
        print("\nnext: the same command with --svg FILE draws it")
