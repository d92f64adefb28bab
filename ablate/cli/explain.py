"""The command that draws what the trained networks of a study look at."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ablate.cli.common import Commands, natural, positive
from ablate.errors import Problem, UserError


def add(commands: Commands) -> None:
    explain = commands.add_parser(
        "explain", help="what a study's networks look at: Grad-CAM, attention, gates, learnt joins, on the same images"
    )
    explain.add_argument("study", type=Path, metavar="STUDY", help="a study's folder, runs/NAME")
    explain.add_argument("--images", type=_numbers, metavar="N,N", help="images by their number in the split, from 0")
    explain.add_argument(
        "--class", dest="of_class", metavar="CLASS", help="the first images of a class: name or number"
    )
    explain.add_argument(
        "--disagree", nargs=2, metavar=("A", "B"), help="the first images that two variants take for different classes"
    )
    explain.add_argument("--count", type=positive, default=5, metavar="N", help="how many images (default: 5)")
    explain.add_argument("--split", choices=("test", "val"), default="test", help="whose images (default: test)")
    explain.add_argument("--variants", nargs="+", default=[], metavar="NAME", help="in this order (default: all)")
    explain.add_argument("--seed", type=natural, help="of the trials whose weights are taken (default: the first)")
    nodes = "whose attention and gates: nodes or scopes (default: all that have any)"
    explain.add_argument("--nodes", nargs="+", default=[], metavar="PATTERN", help=nodes)
    layer = "the node or scope whose output Grad-CAM reads (default: the last map before the pooling)"
    explain.add_argument("--layer", metavar="PLACE", help=layer)
    explain.add_argument(
        "--of", choices=("true", "predicted"), default="true", help="the class that Grad-CAM explains (default: true)"
    )
    pixel = "whose attention is drawn, in the image; again for more (default: the middle, and the upper left quarter's)"
    explain.add_argument("--pixel", action="append", type=_pixel, default=[], metavar="ROW,COLUMN", help=pixel)
    explain.add_argument(
        "--set", action="append", default=[], metavar="data.root=FOLDER", dest="sets", help="where the images lie now"
    )
    explain.add_argument(
        "--trust", action="store_true", help="let the study's network.import name any code, which is run"
    )
    explain.set_defaults(command=_explain)


def _numbers(text: str) -> list[int]:
    parts = text.split(",")
    if not all(part.strip().isdecimal() for part in parts):
        raise argparse.ArgumentTypeError(f"'{text}' is no list of numbers; write 5,12")
    return [int(part) for part in parts]


def _pixel(text: str) -> tuple[int, int]:
    parts = text.split(",")
    if len(parts) != 2 or not all(part.strip().isdecimal() for part in parts):
        raise argparse.ArgumentTypeError(f"'{text}' is no pixel; write ROW,COLUMN, as in 8,20")
    return int(parts[0]), int(parts[1])


def _explain(options: argparse.Namespace) -> int:
    from ablate.labels import clean
    from ablate.opened import explain
    from ablate.report.writing import write_report
    from ablate.store import Study

    study = Study.open(options.study)
    for text in options.sets:
        if text.partition("=")[0].strip() not in ("data.root", "network.init.from"):
            raise UserError(
                Problem(f"--set {text}: the networks are as they were trained", hint="data.root may be set")
            )
    wanted = {
        "images": tuple(options.images or ()),
        "of_class": options.of_class,
        "disagree": tuple(options.disagree) if options.disagree else None,
        "count": options.count,
        "split": options.split,
        "variants": tuple(options.variants),
        "seed": options.seed,
        "nodes": tuple(options.nodes),
        "layer": options.layer,
        "of": options.of,
        "pixels": tuple(options.pixel),
    }
    made = explain(study, wanted, sets=options.sets, trust=options.trust)
    for line in lines_of(made.record):
        print(clean(line))
    folder = made.paths[0].parent
    print(clean(f"wrote {folder}: {', '.join(figure['name'] for figure in made.record['figures'])}"))
    print(clean(f"next: {write_report(study)[-1]} shows them"))
    return 0


def lines_of(record: dict[str, Any]) -> list[str]:
    """What was looked at, for the terminal."""
    images = ", ".join(f"{image['index']} ({image['class']})" for image in record["images"])
    lines = [f"{record['split']} images, {record['chosen']}: {images}", f"seed {record['seed']}"]
    for variant in record["variants"]:
        right = sum(p["predicted"] == i["label"] for p, i in zip(variant["predictions"], record["images"], strict=True))
        layer = f"Grad-CAM of {variant['layer']}" if variant["layer"] else "no Grad-CAM: it pools no map"
        lines.append(f"{variant['name']}: {right} of {len(record['images'])} right; {layer}")
    return [*lines, *(f"left out: {name}: {why}" for name, why in record["left_out"].items())]
