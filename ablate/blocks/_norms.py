"""The normalisations that composites know by name, and the leaf blocks that they are."""

from __future__ import annotations

from typing import Literal, get_args

Norm = Literal["batch", "group", "layer", "instance", "none"]

BLOCKS: dict[Norm, str] = {
    "batch": "batch_norm",
    "group": "group_norm",
    "layer": "layer_norm",
    "instance": "instance_norm",
    "none": "identity",
}
"""``none`` leaves a node behind that patterns can name: ``bn1`` is a place whatever normalises there."""
assert set(BLOCKS) == set(get_args(Norm))

NORM_HELP = "normalisation, in the nodes bn*: over the batch, groups of channels, channels (layer), H and W (instance)"
"""What the parameter ``norm`` says of itself."""
