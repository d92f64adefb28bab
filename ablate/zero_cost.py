"""Zero-cost scores: what one batch through an untrained network says of how well it will train. Higher is better.

    synflow     ln Σ_θ |θ · ∂R/∂θ|,  R = Σ outputs of the network with |θ| for θ, for an image of ones
                Tanaka, Kunin, Yamins and Ganguli, 2020 (arXiv:2006.05467), to prune; to rank networks as
                Abdelfattah, Mehrotra, Dudziak and Lane, 2021 (arXiv:2101.08134)
    grad_norm   Σ_θ ‖∂L/∂θ‖₂ over the weights that are trained,  L the mean cross-entropy of the batch
                Abdelfattah et al., 2021
    naswot      ln det K,  K_ij = units in which images i and j are on the same side of the kink
                Mellor, Turner, Storkey and Crowley, 2021 (arXiv:2006.04647)

They rank networks of one space on one batch, and their values mean nothing beside those of another batch: ``naswot``
grows with the number of images, ``grad_norm`` shrinks with it. None of them sees the recipe.

A network keeps its parameters, their gradients, its buffers and its modes, and torch's random state is as before.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from ablate.errors import Problem, UserError

KINKED = frozenset(("relu", "relu_", "relu6", "leaky_relu", "leaky_relu_", "prelu", "rrelu", "rrelu_", "selu", "selu_"))
"""Functions of torch whose slope jumps at 0, under any spelling (``F.relu``, ``torch.relu``, ``x.relu()``)."""
LOWER_BOUND = {"hardtanh": "min_val", "hardtanh_": "min_val", "clamp": "min", "clamp_": "min", "clamp_min": "min"}
"""Those that have a kink where they begin, which may be 0; ``nn.ReLU6`` is one. By the name of that argument."""
NORMS = frozenset(("batch_norm", "layer_norm", "group_norm", "instance_norm", "rms_norm", "local_response_norm"))


def synflow(network: nn.Module, images: Tensor) -> float:
    """The natural logarithm of the synaptic flow; of ``images`` only the size of one counts. In double precision.

    The logarithm, since the flow grows tenfold with every layer or two: ranks are the same, and whatever reads values
    (a Gaussian process, a bound, a table) would see the deepest networks alone.

    So that it is a flow, normalisations pass on what they read, and their parameters count as little as in Abdelfattah
    et al., who take batch norm out: in evaluation an untrained one does that anyway, and a layer norm would bring every
    flow back to one size. In the same way attention gives all tokens one weight, and what has a ceiling (``relu6``) has
    none. All other parameters count, frozen ones too. Gates pass on nearly everything, and add next to nothing.

    ``UserError`` where the flow is 0, or more than a double holds.
    """
    weights = {name: each.detach().double().abs().requires_grad_() for name, each in network.named_parameters()}
    buffers = {name: each.double() if each.is_floating_point() else each for name, each in _buffers(network).items()}
    ones = torch.ones(1, *images.shape[1:], dtype=torch.float64, device=images.device)
    with _entered(network, images), torch.enable_grad():
        with _Flowing():
            flow = functional_call(network, {**weights, **buffers}, (ones,)).sum()
        gradients = _gradients(flow, list(weights.values()))
    pairs = zip(weights.values(), gradients, strict=True)
    total = math.fsum(float((weight.detach() * each).abs().sum()) for weight, each in pairs if each is not None)
    if not math.isfinite(total):
        raise _none("synflow", "what flows through this network is more than a double holds (1.8e308)", "naswot")
    if total == 0:
        raise _none("synflow", "nothing flows from the images to the scores of this network", "naswot")
    return math.log(total)


def grad_norm(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """The sum of the Euclidean norms of the gradients of a first step's cross-entropy, a norm for each weight.

    Weights are what is trained and has two axes or more: no biases, and nothing of norms, as in the authors' code.
    Batch norm sees the batch, as in training, unless it is frozen; dropout and stochastic depth drop nothing.

    ``UserError`` where nothing is trained, or a gradient is no number.
    """
    weights = {name: each.detach().requires_grad_(each.requires_grad) for name, each in network.named_parameters()}
    trained = [weight for weight in weights.values() if weight.requires_grad and weight.ndim > 1]
    with _entered(network, images, by_batch=True), torch.enable_grad():
        scores = functional_call(network, {**weights, **_buffers(network)}, (images,))
        gradients = _gradients(F.cross_entropy(scores.float(), labels), trained)
    norms = [float(torch.linalg.vector_norm(each, dtype=torch.float64)) for each in gradients if each is not None]
    if not norms:
        raise _none("grad_norm", "no weight of this network is trained", "synflow or naswot")
    if not math.isfinite(sum(norms)):
        raise _none("grad_norm", "the gradient of a first step through this network is no number", "synflow")
    return math.fsum(norms)


def naswot(network: nn.Module, images: Tensor) -> float:
    """The natural logarithm of the determinant of the kernel of the images' codes.

    A code has a bit for each value that an activation with a kink at 0 reads: whether it is above 0. Those within
    attention and gates count as all others; what has another first axis than the images' has no code of an image. The
    batch is entered as for ``grad_norm``.

    ``UserError`` where no activation has a kink (``gelu``, ``silu``), or where images have the same code.
    """
    weights = {name: each.detach() for name, each in network.named_parameters()}
    with _entered(network, images, by_batch=True), torch.no_grad(), _Codes(len(images)) as codes:
        functional_call(network, {**weights, **_buffers(network)}, (images,))
    if codes.units == 0:
        message = "no activation of this network has a kink at 0 (relu and its like), so that images have no codes"
        raise _none("naswot", message, "synflow or grad_norm")
    sizes = torch.linalg.eigvalsh(codes.kernel)
    if float(sizes[0]) <= float(sizes[-1]) * len(images) * torch.finfo(torch.float64).eps:
        message = f"{codes.units} units do not tell these {len(images)} images apart: their kernel has no inverse"
        raise _none("naswot", message, "synflow or grad_norm, or fewer images")
    return float(sizes.log().sum())


def _none(score: str, why: str, instead: str) -> UserError:
    return UserError(Problem(f"{score} can't be had: {why}", hint=f"take {instead}"))


def _buffers(network: nn.Module) -> dict[str, Tensor]:
    """Copies, which a pass may write into."""
    return {name: each.detach().clone() for name, each in network.named_buffers()}


def _gradients(value: Tensor, of: Sequence[Tensor]) -> Sequence[Tensor | None]:
    """None for each that the value does not depend on."""
    if not of or not value.requires_grad:
        return [None] * len(of)
    return torch.autograd.grad(value, of, allow_unused=True)


@contextmanager
def _entered(network: nn.Module, images: Tensor, *, by_batch: bool = False) -> Iterator[None]:
    """In evaluation mode, in which nothing is drawn; ``by_batch``: but for the norms that are trained."""
    modes = [(module, module.training) for module in network.modules()]
    devices = [images.device] if images.is_cuda else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(0)  # for a block that draws all the same
        network.eval()
        for module in network.modules() if by_batch else ():
            if isinstance(module, nn.modules.batchnorm._NormBase) and not _is_frozen(module):
                module.train()
        try:
            yield
        finally:
            for module, training in modes:
                module.training = training


def _is_frozen(module: nn.Module) -> bool:
    parameters = [*module.parameters()]
    return bool(parameters) and not any(parameter.requires_grad for parameter in parameters)


class _Flowing(TorchFunctionMode):
    """Norms pass on what they read, attention is the same for all, what begins at 0 and has a ceiling has none."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs, name = kwargs or {}, func.__name__
        if name in NORMS:
            return _read(args, kwargs)
        if name == "relu6" or _begins_at_zero(func, args, kwargs):
            return torch.relu(_read(args, kwargs))
        if name == "softmax":
            # with logits as large as a flow it would take one token at random, and its gradient overflow
            return func(torch.zeros_like(_read(args, kwargs)), *args[1:], **kwargs)
        if name == "scaled_dot_product_attention":
            return func(torch.zeros_like(args[0]), torch.zeros_like(args[1]), args[2])
        if name == "multi_head_attention_forward":
            return func(*_without_queries(args), **kwargs)
        return func(*args, **kwargs)


def _without_queries(args: Sequence[Any]) -> list[Any]:
    """Of ``F.multi_head_attention_forward``: query, key, value, width, heads, what makes the three of them."""
    width, weight, bias = args[3], args[5], args[6]
    kept = torch.ones(3 * width, dtype=weight.dtype, device=weight.device)
    kept[:width] = 0
    return [*args[:5], weight * kept[:, None], None if bias is None else bias * kept, *args[7:]]


class _Codes(TorchFunctionMode):
    """Adds up, over all activations with a kink at 0, in how many units each two images are on the same side of it."""

    def __init__(self, images: int) -> None:
        super().__init__()
        self.images = images
        self.units = 0
        self.kernel = torch.zeros(images, images, dtype=torch.float64)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func.__name__ in KINKED or _begins_at_zero(func, args, kwargs):
            self._add(_read(args, kwargs))
        return func(*args, **kwargs)

    def _add(self, x: Tensor) -> None:
        if x.ndim < 2 or len(x) != self.images:
            return
        sides = torch.where(x > 0, 1.0, -1.0).flatten(1)
        units = sides.shape[1]
        # same - different = sides · sides, whole numbers that fp32 holds exactly; same + different = units
        self.kernel += ((sides @ sides.mT).double().cpu() + units) / 2
        self.units += units


def _begins_at_zero(func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    keyword = LOWER_BOUND.get(func.__name__)
    if keyword is None:
        return False
    bound = args[1] if len(args) > 1 else kwargs.get(keyword)
    return isinstance(bound, int | float) and bound == 0


def _read(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    return args[0] if args else kwargs["input"]
