"""What the commands share: options, loading, printing."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablate.errors import Problem, UserError

if TYPE_CHECKING:
    from ablate.design import StudyPlan
    from ablate.diagram import Drawing
    from ablate.report.tables import Table
    from ablate.spec import Spec

FORMATS = ("terminal", "markdown", "csv", "latex")

Commands = Any
"""What ``ArgumentParser.add_subparsers`` returns: a private type of argparse."""


def takes_spec(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("spec", metavar="SPEC", help="a YAML file")
    settable(parser)


def settable(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--set", action="append", default=[], metavar="PATH=VALUE", dest="sets", help="change one path of the spec"
    )
    parser.add_argument(
        "--trust",
        action="store_true",
        help="let the spec name code (use, network.import), which is run; only for specs you trust",
    )
    parser.add_argument("--profile", metavar="NAME", help="one of the spec's profiles, between the spec and its levels")


def shapeable(parser: argparse.ArgumentParser) -> None:
    """For commands that look at a network and train nothing: a file that says no data can be shown too."""
    shape = "the images, for files that name no data; of 1,000 classes unless --classes says otherwise"
    parser.add_argument("--shape", type=_shape, metavar="CxHxW", help=shape)
    parser.add_argument("--classes", type=positive, metavar="N", help="how many classes, with --shape")


def _shape(text: str) -> list[int]:
    parts = text.lower().replace("×", "x").split("x")
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise argparse.ArgumentTypeError(f"'{text}' is no shape; write 3x224x224")
    return [int(part) for part in parts]


def positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not at least 1")
    return value


def natural(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{value} is less than 0")
    return value


def loaded(path: str, options: argparse.Namespace) -> Spec:
    from ablate.spec import load

    sets = [*options.sets, *_stand_ins(path, options)]
    return load(path, sets=sets, profile=options.profile, trust=options.trust)


def _stand_ins(path: str, options: argparse.Namespace) -> list[str]:
    """With ``--shape``: data of that shape, and a name and a recipe where the file has none. Nothing is trained."""
    from ablate.spec import load

    shape, classes = getattr(options, "shape", None), getattr(options, "classes", None)
    if shape is None:
        if classes is not None:
            raise UserError(Problem("--classes goes with --shape", hint="--shape 3x224x224"))
        return []
    written = load(path, profile=options.profile, trust=options.trust).tree
    data = {"name": "fake", "shape": shape, "classes": classes or 1000, "count": {"train": 8, "test": 8}}
    missing = {"name": Path(path).stem, "train": {"epochs": 1, "optimizer": {"name": "sgd", "lr": 0.1}}}
    values = {"data": data} | {key: value for key, value in missing.items() if key not in written}
    return [f"{key}={json.dumps(value)}" for key, value in values.items()]


def load_plan(path: str, options: argparse.Namespace) -> StudyPlan:
    from ablate.tuning import planned

    return planned(loaded(path, options))


def print_table(table: Table, format: str) -> None:
    from ablate.report.render import render

    print(render(table, format), end="")


def print_json(values: Any) -> None:
    print(json.dumps(values, indent=2, ensure_ascii=False))


def write_text(text: str, file: Path) -> None:
    """Into the file that the user named. ``UserError`` where that can't be."""
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{file}: {error.strerror}") from None


def write_svg(drawing: Drawing, file: Path, *, unchanged: bool = False) -> None:
    """The picture of a network; with ``unchanged`` what did not change is folded."""
    from ablate.diagram import fold, svg

    write_text(svg(fold(drawing, unchanged=unchanged)), file)
    print(f"wrote {file}", file=sys.stderr)


def again(options: argparse.Namespace) -> str:
    """The spec with the options that a command on it takes once more."""
    profile = ["--profile", options.profile] if options.profile else []
    sets = [word for text in options.sets for word in ("--set", text)]
    trust = ["--trust"] if options.trust else []
    shape = ["--shape", "x".join(map(str, options.shape))] if getattr(options, "shape", None) else []
    classes = ["--classes", str(options.classes)] if getattr(options, "classes", None) else []
    at_once = ["--concurrent", str(options.concurrent)] if getattr(options, "concurrent", None) else []
    return shlex.join([options.spec, *profile, *sets, *trust, *shape, *classes, *at_once])


def values_of(table: Table) -> list[dict[str, Any]]:
    return [
        {
            column.name: cell.text if column.kind == "text" else {"text": cell.text, "value": cell.value}
            for column, cell in zip(table.columns, row, strict=True)
        }
        for row in table.rows
    ]
