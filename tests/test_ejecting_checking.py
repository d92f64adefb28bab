"""An ejected file is given to nobody before it was held against the network, with all of its parts at work."""

from __future__ import annotations

import networks
import pytest
import torch
from ejected import ejected

from ablate.ejecting import CannotEject, check

GRAPH = """
graph:
  stem: {block: conv, width: 7}
  drop: {block: dropout, rate: 0.5}
  body: {block: basic, width: 7}
  head: {block: classifier}
"""
WEIGHTED = "insert: {gate: {block: self_attention, at: after body, residual: weighted}}\n"
DROPPED = "insert: {path: {block: drop_path, rate: 0.5, at: after body.bn2}}\n"
ZERO = "init: {set: {body.bn2: zero}}\n"


@pytest.mark.parametrize(
    ("more", "right", "wrong", "said"),
    [
        pytest.param(WEIGHTED, "scale=1.0)", "scale=3.0)", "other outputs", id="behind a residual weight of zero"),
        pytest.param(ZERO, "F.relu(self.bn1(", "F.gelu(self.bn1(", "other outputs", id="behind a zero normalisation"),
        pytest.param("", "nn.Dropout(0.5)", "nn.Dropout(0.9)", "other outputs .* in training", id="a rate of torch's"),
        pytest.param(DROPPED, "self.rate = 0.5", "self.rate = 0.9", "other outputs .* in training", id="a rate"),
        pytest.param(
            "", "nn.BatchNorm2d(7)", "nn.BatchNorm2d(7, momentum=0.9)", "statistics .*running_mean", id="a momentum"
        ),
        pytest.param("", "self.conv2(y)", "self.conv2(y.detach())", "gradients where|other gradients", id="a gradient"),
    ],
)
def test_a_difference_that_does_not_show_at_the_start_is_found(more: str, right: str, wrong: str, said: str) -> None:
    network = networks.network(GRAPH + more, (3, 13, 17))
    text = ejected(network.graph, calls=network.written.calls)
    assert right in text
    with pytest.raises(CannotEject, match=said):
        check(text.replace(right, wrong), network.graph)


def test_to_check_a_file_moves_no_random_stream_and_no_setting() -> None:
    network = networks.network(GRAPH, (3, 13, 17))
    text = ejected(network.graph, calls=network.written.calls)
    torch.manual_seed(11)
    before = torch.get_rng_state(), torch.are_deterministic_algorithms_enabled()
    check(text, network.graph)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert torch.are_deterministic_algorithms_enabled() == before[1]
