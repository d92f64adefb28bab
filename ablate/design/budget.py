"""What a profile or ``--set`` changes about a study, so that a paper's numbers are no longer about it."""

from __future__ import annotations

from dataclasses import replace

from ablate.block import Shape
from ablate.collect import Collector
from ablate.data.dataset import shape_of
from ablate.design.plan import root_is_trusted
from ablate.errors import UserError
from ablate.spec import Spec, apply, read_data

TRAINED = ("network", "data", "train")
"""Sections that decide what a trained value comes to."""
NEUTRAL = (("data", "root"), ("data", "download"), ("data", "title"), ("network", "init", "download"))
"""What is in them and decides nothing."""


def resized_by(spec: Spec) -> str:
    """What changes the networks or the images' size, such as ``--profile tiny``; no paper's costs are about these."""
    made = [*spec.profiled, *spec.sets]
    others = [each for each in made if each.path[0] == "network" and each.path[:2] != ("network", "init")]
    if any(each.path[0] == "data" for each in made) and _size(spec) != _size(replace(spec, profiled=(), sets=())):
        others += [each for each in made if each.path[0] == "data"]
    return " and ".join(dict.fromkeys(each.layer for each in others))


def budget_set(spec: Spec) -> list[str]:
    """The paths by which ``--set`` changes what is trained, on what, or how. (Profiles have names.)"""
    return [each.dotted for each in spec.sets if each.path[0] in TRAINED and each.path not in NEUTRAL]


def _size(spec: Spec) -> tuple[Shape, int] | None:
    """Of an image, and how many classes there are; ``None`` where the data can't be found."""
    tree = apply(spec).tree
    data = read_data(tree, Collector(tree))
    try:
        return shape_of(data, base=spec.folder, trusted_root=root_is_trusted(spec)) if data is not None else None
    except UserError:
        return None
