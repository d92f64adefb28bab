"""Commands that help to write a spec: blocks, new, schema."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from ablate.cli.common import FORMATS, Commands, print_table, write_text
from ablate.errors import Problem, UserError


def add(commands: Commands) -> None:
    blocks = commands.add_parser("blocks", help="the blocks that a spec can name, or one block's parameters")
    blocks.add_argument("name", nargs="?", metavar="BLOCK")
    blocks.add_argument("--format", choices=FORMATS, default="terminal")
    blocks.add_argument("--markdown", action="store_true", help="the page of all blocks, or one block's part of it")
    blocks.set_defaults(command=_blocks)

    new = commands.add_parser("new", help="write a commented file to start from")
    kinds = new.add_subparsers(title="kinds", required=True, metavar="KIND")
    study = kinds.add_parser("study", help="a spec that works as it is: a network, an insertion, factors, a profile")
    study.add_argument("name", metavar="NAME", help="the study's name, and the file's: NAME.yaml")
    study.add_argument("--folder", type=Path, default=Path("specs"), help="where to put it (default: specs)")
    study.set_defaults(command=_new_study)
    for kind, what in (("block", "a block of your own"), ("dataset", "a data set of your own")):
        part = kinds.add_parser(kind, help=f"{what}, for a spec's use: or for a package, with its test")
        part.add_argument("name", metavar="NAME", help="its name in specs, and the file's: NAME.py")
        part.add_argument("--folder", type=Path, default=Path("specs"), help="where to put it (default: specs)")
        part.set_defaults(command=_new_part, kind=kind)

    schema = commands.add_parser("schema", help="the JSON Schema of specs, for editors")
    schema.add_argument("--space", action="store_true", help="that of search spaces")
    schema.add_argument("--own", action="store_true", help="without what installed packages add")
    schema.add_argument("-o", "--output", type=Path, metavar="FILE", help="write it there")
    schema.set_defaults(command=_schema)


def _blocks(options: argparse.Namespace) -> int:
    from ablate import describe

    if options.markdown:
        return _blocks_page(options.name)
    if options.name is None:
        print_table(describe.blocks(), options.format)
        return 0
    try:
        print_table(describe.block(options.name), options.format)
    except KeyError as error:
        raise UserError(Problem(f"no block '{options.name}'", hint=str(error.args[0]))) from None
    return 0


def _blocks_page(name: str | None) -> int:
    from ablate import blocks_page

    try:
        print(blocks_page.page() if name is None else blocks_page.section(name), end="")
    except KeyError as error:
        raise UserError(Problem(f"no block '{name}'", hint=str(error.args[0]))) from None
    return 0


def _new_study(options: argparse.Namespace) -> int:
    from ablate.scaffold import new_study

    file, *schema = new_study(options.name, options.folder)
    print(f"wrote {file}")
    for path in schema:
        again = shlex.join(["ablate", "schema", "-o", str(path)])
        print(f"wrote {path}: editors complete and check specs by it ({again} has what you add)")
    print(f"next: ablate check {shlex.quote(str(file))}")
    return 0


def _new_part(options: argparse.Namespace) -> int:
    from ablate.scaffold import new_part

    paths, how = new_part(options.kind, options.name, options.folder)
    print("\n".join(f"wrote {path}" for path in paths))
    print(how)
    return 0


def _schema(options: argparse.Namespace) -> int:
    from contextlib import nullcontext

    from ablate.plugins import own_alone
    from ablate.schema import space_schema_text, spec_schema_text

    with own_alone() if options.own else nullcontext():
        text = space_schema_text() if options.space else spec_schema_text()
    if options.output is None:
        print(text, end="")
        return 0
    write_text(text, options.output)
    return 0
