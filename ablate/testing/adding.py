"""Whether a block adds its own input to its output, which is the wiring's business."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import fx

from ablate.testing.cases import BlockCase, run

_FORMS = frozenset(
    [
        *("alias", "clone", "contiguous", "detach", "flatten", "permute", "reshape", "transpose", "unflatten", "view"),
        *("_unsafe_view", "to", "_to_copy", "relu", "gelu", "silu", "hardswish", "leaky_relu", "elu", "dropout"),
    ]
)


def adds_no_input(case: BlockCase) -> Iterator[str]:
    """By what it computes, F(x) + x: an addition of x, behind which nothing but its form changes; or what is left of it
    with all parameters at 0, which is x. What an embedding adds hangs on no input.
    """
    if _adds_in_its_graph(case) or _is_left_with_its_input(case):
        yield "it adds its own input to its output: joining is the wiring's business (residual: plain)"


def _adds_in_its_graph(case: BlockCase) -> bool:
    try:
        graph = case.exported.graph
    except Exception:  # said by ``exports``
        return False
    images = [node for node in graph.nodes if node.op == "placeholder"][-len(case.shapes) :]
    if len(images) != 1:
        return False
    reading = set(images)
    for node in graph.nodes:
        if any(source in reading for source in node.all_input_nodes):
            reading.add(node)
    output = next(node for node in graph.nodes if node.op == "output").all_input_nodes
    last = _behind_its_form(output[0]) if output else None
    if last is None or not str(last.target).startswith(("aten.add.", "aten.add_.")):
        return False
    sides = [arg for arg in last.args[:2] if isinstance(arg, fx.Node)]
    return len(sides) == 2 and all(side in reading for side in sides) and images[0] in map(_behind_its_form, sides)


def _behind_its_form(node: fx.Node) -> fx.Node:
    """What a value was before it was given another form, or passed an activation."""
    while str(node.target).split(".")[1:2] and str(node.target).split(".")[1] in _FORMS:
        node = node.all_input_nodes[0]
    return node


def _is_left_with_its_input(case: BlockCase) -> bool:
    module = case.drawn().eval()
    inputs = [x.double() for x in case.inputs()]
    if len(inputs) > 1 or not list(module.parameters()):
        return False
    with torch.no_grad():
        drawn, other = (run(module, [x]) for x in (inputs[0], inputs[0].flip(0) * 2))
        if drawn.shape != inputs[0].shape:
            return False
        constant = torch.allclose(drawn - inputs[0], other - inputs[0].flip(0) * 2)
        for parameter in module.parameters():
            parameter.zero_()
        return torch.equal(run(module, inputs), inputs[0]) and not constant
