"""Zero-cost scores against closed forms on linear networks, autograd by hand, and codes written out."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from ablate.block import registry
from ablate.builder import build, parameter_digests
from ablate.errors import UserError
from ablate.trainable import Trainable, freeze, training_mode
from ablate.zero_cost import grad_norm, naswot, synflow
from tests.models import images, model
from tests.networks import graph

WIDTHS = (5, 7, 3, 2)
LABELS = torch.tensor([0, 4, 2, 2, 6, 1, 0, 5, 3, 1, 6])
BODY = {
    "stem": {"block": "conv_bn_act", "width": 16, "kernel": 3},
    "stage1": {"block": "basic", "width": 16, "repeat": 2},
    "stage2": {"block": "basic", "width": 16, "stride": 2},
    "head": {"block": "classifier"},
}
SCORES: dict[str, Callable[[nn.Module, Tensor], float]] = {
    "synflow": synflow,
    "grad_norm": lambda network, x: grad_norm(network, x, LABELS[: len(x)] % 5),
    "naswot": naswot,
}


class Through(nn.Module):
    """``inner`` between the layers of a chain of linear ones, which take ones beyond relu6's ceiling."""

    def __init__(self, inner: Callable[[Tensor], Tensor] = lambda x: x) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.layers = nn.ModuleList([nn.Linear(a, b, bias=False) for a, b in pairwise(WIDTHS)])
        self.inner = inner
        with torch.no_grad():
            for layer in self.parameters():
                layer.mul_(19)

    def forward(self, x: Tensor) -> Tensor:
        for index, layer in enumerate(self.layers):
            x = layer(self.inner(x)) if index else layer(x)
        return x


def magnitudes(module: nn.Module) -> list[np.ndarray[Any, Any]]:
    return [each.detach().double().abs().numpy() for each in module.parameters()]


def network(nodes: dict[str, Any] | None = None, **more: Any) -> fx.GraphModule:
    return build(graph({"graph": nodes or BODY, **more}, (3, 11, 13)), seed=1)


def test_synflow_of_a_linear_chain_is_the_sum_of_the_product_of_magnitudes_once_a_layer() -> None:
    chain = Through()
    first, second, third = magnitudes(chain)
    flow = (third @ second @ first).sum()
    assert synflow(chain, torch.randn(1, 5)) == pytest.approx(math.log(3 * flow), abs=1e-12)


@pytest.mark.parametrize(
    "inner",
    [
        F.relu,
        F.relu6,
        lambda x: F.hardtanh(x, 0.0, 1e-3),
        lambda x: x.clamp(0, 1e-3),
        lambda x: F.layer_norm(x, x.shape[1:]),
        lambda x: F.batch_norm(x, torch.full_like(x[0], 2.0), torch.full_like(x[0], 4.0)),
        lambda x: F.group_norm(x, 1),
        lambda x: F.rms_norm(x, x.shape[1:]),
    ],
)
def test_relu_ceilings_and_normalisations_leave_the_flow_of_a_chain_as_it_is(inner: Any) -> None:
    expected = synflow(Through(), torch.zeros(1, 5))
    assert synflow(Through(inner), torch.zeros(1, 5)) == pytest.approx(expected, abs=1e-12)


def test_synflow_of_a_residual_sum_counts_each_way_through() -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(5)
            self.branch, self.head = nn.Linear(5, 5, bias=False), nn.Linear(5, 3, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.head(x + self.branch(x))
            return y

    module = Residual()
    branch, head = magnitudes(module)
    # the head weighs both ways, the branch its own
    flow = (head @ (np.eye(5) + branch)).sum() + (head @ branch).sum()
    assert synflow(module, torch.zeros(1, 5)) == pytest.approx(math.log(flow), abs=1e-12)


def test_attention_passes_on_the_mean_of_its_values() -> None:
    class Attention(nn.Module):
        def __init__(self, how: str) -> None:
            super().__init__()
            torch.manual_seed(7)
            self.how = how
            self.embed = nn.Parameter(torch.randn(3, 4))
            self.inside = nn.MultiheadAttention(4, 2, bias=True, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            tokens = x.unsqueeze(-1) * self.embed * 1e6
            if self.how == "module":
                y: Tensor = self.inside(tokens, tokens, tokens, need_weights=False)[0]
                return y
            query, key, value = F.linear(tokens, self.inside.in_proj_weight, self.inside.in_proj_bias).chunk(3, -1)
            if self.how == "fused":
                read = F.scaled_dot_product_attention(query, key, value)
            else:
                read = torch.softmax(query @ key.mT, -1) @ value
            y = self.inside.out_proj(read)
            return y

    embed, weight, bias, out, out_bias = magnitudes(Attention("module"))

    def flow(*scaled: float) -> float:
        """R as a function of what the parameters are multiplied by."""
        a, b, c, d, e = scaled
        value = (1e6 * a * embed).mean(0) @ (b * weight[8:]).T + c * bias[8:]
        return float(3 * (value @ (d * out).T + e * out_bias).sum())

    ones, step = np.ones(5), 1e-4
    derivatives = [(flow(*(ones + step * unit)) - flow(*(ones - step * unit))) / (2 * step) for unit in np.eye(5)]
    for how in ("module", "fused", "softmax"):
        found = synflow(Attention(how), torch.zeros(1, 3))
        assert found == pytest.approx(math.log(sum(derivatives)), abs=1e-7), how


def test_synflow_of_nothing_and_of_too_much_says_what_instead() -> None:
    for factor, message in ((0.0, "nothing flows"), (1e38, "more than a double holds")):
        chain = Through() if factor == 0 else nn.Sequential(*[nn.Linear(2, 2) for _ in range(9)])
        with torch.no_grad():
            for each in chain.parameters():
                each.fill_(factor)
        with pytest.raises(UserError, match=f"{message}.*; take naswot"):
            synflow(chain, torch.zeros(1, 5 if factor == 0 else 2))


def by_hand(net: fx.GraphModule, x: Tensor, frozen: tuple[str, ...] = ()) -> float:
    net = copy.deepcopy(net)
    training_mode(net, Trainable(frozen))
    F.cross_entropy(net(x), LABELS).backward()
    layers = [each for each in net.modules() if isinstance(each, nn.Conv2d | nn.Linear)]
    return sum(float(each.weight.grad.norm()) for each in layers if each.weight.grad is not None)


def test_grad_norm_is_autograds_by_layer() -> None:
    net, x = network(insert={"gate": {"block": "se", "at": "after stage1.*"}}), images(11, 3, 11, 13)
    assert grad_norm(net, x, LABELS) == pytest.approx(by_hand(net, x), rel=1e-5)


def test_what_is_frozen_has_no_gradient_and_its_norms_keep_their_statistics() -> None:
    net, x = network(), images(11, 3, 11, 13)
    frozen = ("stem.conv", "stem.bn", "stage1.0.conv1", "stage1.0.bn1")
    assert not {f"{name}.weight" for name in frozen} - {name for name, _ in net.named_parameters()}
    whole = grad_norm(net, x, LABELS)
    net.get_submodule("stem.bn").running_mean.fill_(0.3)  # type: ignore[union-attr, operator]
    freeze(net, Trainable(frozen))
    assert grad_norm(net, x, LABELS) == pytest.approx(by_hand(net, x, frozen), rel=1e-5)
    assert grad_norm(net, x, LABELS) != pytest.approx(whole, rel=1e-2)
    net.requires_grad_(False)
    with pytest.raises(UserError, match="no weight of this network is trained; take synflow or naswot"):
        grad_norm(net, x, LABELS)


def test_dropout_and_stochastic_depth_change_no_score() -> None:
    noisy = network(
        insert={
            "depth": {"block": "drop_path", "rate": 0.5, "at": "before stage*.*.add:branch"},
            "drop": {"block": "dropout", "rate": 0.5, "at": "before head.pool"},
        }
    )
    x = images(11, 3, 11, 13)
    for name, score in SCORES.items():
        assert score(noisy, x) == score(network(), x), name


CODES = np.array([[1, 1, 0, 0, 1], [1, 0, 0, 0, 1], [0, 1, 1, 0, 0], [0, 0, 1, 1, 0]])


@pytest.mark.parametrize(
    "kinked",
    [
        F.relu,
        torch.relu,
        lambda x: x.relu(),
        F.relu6,
        nn.ReLU6(),
        F.leaky_relu,
        nn.PReLU(),
        F.selu,
        lambda x: x.clamp(min=0),
    ],
)
def test_naswot_is_the_log_determinant_of_the_units_in_which_codes_agree(kinked: Any) -> None:
    torch.manual_seed(2)
    heights = torch.rand(4, 5) + 0.1
    x = torch.where(torch.tensor(CODES) == 1, heights, -heights)

    class Codes(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.gelu(kinked(x)) + F.hardtanh(kinked(-x))  # the second code is the first one's complement

    kernel = np.array([[2 * sum(a == b) for b in CODES] for a in CODES])
    assert naswot(Codes(), x) == pytest.approx(np.linalg.slogdet(kernel)[1], abs=1e-9)


def test_naswot_of_a_network_is_that_of_what_its_relus_read() -> None:
    net, x = network(), images(11, 3, 11, 13)
    seen: list[Tensor] = []
    twin = copy.deepcopy(net).train()
    for name, module in twin.named_modules():
        if name.split(".")[-1].startswith("act"):
            module.register_forward_pre_hook(lambda module, args: seen.append(args[0].flatten(1) > 0))
    twin(x)
    codes = torch.cat(seen, 1).numpy()
    kernel = (codes[:, None] == codes[None]).sum(-1)
    assert codes.shape[1] > 1000
    assert naswot(net, x) == pytest.approx(np.linalg.slogdet(kernel)[1], rel=1e-9)


def test_without_a_kink_or_with_two_equal_images_there_is_no_naswot() -> None:
    smooth = {**BODY, "stem": {**BODY["stem"], "act": "gelu"}}
    smooth |= {name: {**BODY[name], "act": "silu"} for name in ("stage1", "stage2")}
    x = images(11, 3, 11, 13)
    with pytest.raises(UserError, match=r"no activation .* has a kink at 0 .*; take synflow or grad_norm"):
        naswot(network(smooth), x)
    x[7] = x[2]
    with pytest.raises(UserError, match=r"do not tell these 11 images apart.*; take .*fewer images"):
        naswot(network(), x)


ATTENTION = sorted(name for name, kind in registry().items() if ".attention." in kind.__module__)
AROUND = {"attention_augmented_conv": None, "parallel_attention": None}


def kinds() -> dict[str, fx.GraphModule]:
    """Small networks with everything in them that a spec may have."""
    found = {}
    for name in ATTENTION:
        gate = {"block": name, "at": "after stage1.*", "residual": "none"}
        if name not in AROUND:
            found[name] = network(insert={"gate": gate})
    found["transformer"] = build(model("vit_b_16", (3, 32, 32), 5, depth=2, dim=24, heads=2))
    found["weighted"] = network(
        insert={"att": {"block": "self_attention", "at": "after stage*", "residual": "weighted"}}
    )
    norms = {name: {**BODY[name], "norm": norm} for name, norm in (("stage1", "layer"), ("stage2", "instance"))}
    found["norms"] = network({**BODY, **norms})
    return found


def test_every_kind_of_network_is_scored_and_left_as_it_was() -> None:
    for kind, net in kinds().items():
        freeze(net, Trainable(("stage2.conv1",) if kind == "weighted" else ()))
        net.train()
        first = next(net.modules().__iter__())
        first.training = False
        for each in net.parameters():
            each.grad = torch.ones_like(each)
        torch.manual_seed(11)
        before = _state(net)
        x = images(4, 3, 32, 32) if kind == "transformer" else images(4, 3, 11, 13)
        for name, score in SCORES.items():
            if (name, kind) == ("naswot", "transformer"):
                continue
            found = score(net, x)
            assert math.isfinite(found), (kind, name)
            assert found == score(net, x), (kind, name)
            assert _state(net) == before, (kind, name)


def _state(net: nn.Module) -> Any:
    modes = [module.training for module in net.modules()]
    own = [
        (each.requires_grad, each.dtype, float(each.grad.sum())) for each in net.parameters() if each.grad is not None
    ]
    noise = [(getattr(each, "noise_seed", None), getattr(each, "noise_calls", None)) for each in net.modules()]
    return parameter_digests(net), modes, own, noise, torch.random.get_rng_state().tolist()
