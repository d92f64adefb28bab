"""Grad-CAM: Selvaraju et al., 2016 (arXiv:1610.02391), by captum.

    L^c = relu(Σ_k α_k^c A_k),   α_k^c = mean_HW(∂y^c / ∂A_k)        eq. 1, 2; y^c: the class's score before softmax

A_k are the maps that a node puts out. Without a node that is named, it is the last one with a height and a width that
the scores are computed from, walking from the output back along first inputs: what is pooled.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ablate.errors import Problem, UserError, did_you_mean
from ablate.graph import INPUT, Graph
from ablate.pattern import nearest


def last_map(graph: Graph) -> str | None:
    """The node of the rule above; None for a network that has none (of tokens alone)."""
    value = graph.output
    while value != INPUT:
        node = graph.by_name[value]
        if len(node.shape) == 3 and math.prod(node.shape[1:]) > 1:
            return node.name
        value = node.inputs[0]
    return None


def layer_of(graph: Graph, name: str | None, variant: str) -> str | None:
    """The node whose maps are read: that of the place ``name``, or by rule. ``UserError``: no such, or no map."""
    if name is None:
        return last_map(graph)
    value = graph.places.get(name)
    if value is None or value == INPUT:
        near = nearest(name, [place for place in graph.places if place != INPUT])
        hint = did_you_mean(name, list(graph.places)) or f"nearest: {near}"
        raise UserError(Problem(f"'{variant}' has no node or scope '{name}'", hint=hint))
    if len(graph.shape(value)) != 3:
        raise UserError(f"--layer {name}: its output in '{variant}' has no height and width: {graph.shape(value)}")
    return value


def grad_cam(network: nn.Module, graph: Graph, layer: str, x: Tensor, classes: Tensor) -> np.ndarray[Any, Any]:
    """(B, h, w) float32, at least 0, of the class given for each image; the network is in evaluation mode."""
    from captum.attr import LayerGradCam

    node = graph.by_name[layer]
    if [each.module for each in graph.nodes].count(node.module) > 1:
        raise UserError(Problem(f"'{node.module}' is called more than once", hint="name another node by --layer"))
    module = network.get_submodule(node.module)
    with torch.enable_grad():
        # captum wants a leaf to differentiate through, whatever is frozen
        maps = LayerGradCam(network, module).attribute(
            x.detach().clone().requires_grad_(), target=classes, relu_attributions=True
        )
    return maps.detach()[:, 0].float().numpy()  # type: ignore[no-any-return]
