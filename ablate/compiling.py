"""Training steps through ``torch.compile``: whether that pays in a study, and the compiled network.

What is compiled is kept in the user's cache folder, so that a second trial of one architecture, in whatever process,
compiles nothing. Compiled steps equal eager ones within rounding. What draws random numbers, and code that is neither
ours nor torch's, is left out: it runs between the compiled pieces as it was written.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import shlex
import shutil
import sys
import sysconfig
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from ablate.disk import cache_folder

COLD, COLD_NODE, WARM = 30.0, 1.1, 6.0
"""Seconds of one core that compiling takes: for an architecture, for each of its nodes, and for each trial that finds
its architecture compiled. Of a busy core of a server of 2023: 118 s for ResNet-20, 37 s for a stem and a head."""
SAVED = {"fp32": 0.10, "bf16": 0.12, "fp16": 0.12}
"""The share of a training step's time that a compiled step saves, by precision: ResNet-20 on CPU in bf16 12 to 24%.
The others were not measured; what is saved is passes over memory, a smaller share of a step in fp32."""
MARGIN = 2.0
"""Compiling is worth it where it saves so many times what it costs."""
KNOWN = ("ablate", "torch")
"""Packages whose modules torch is known to compile without a change of what they do."""

Backend = str | Callable[[fx.GraphModule, list[Tensor]], Callable[..., Any]]
"""What compiles, as ``torch.compile`` takes it."""


@dataclass(frozen=True)
class Estimate:
    """What compiling would cost and save in a study, in seconds over all trials, and what follows, in words."""

    worth: bool
    why: str
    costs: float = 0.0
    saves: float = 0.0


def why_not(device: str) -> str | None:
    """Why nothing can be compiled on this machine; None where it can."""
    if device == "cuda" and importlib.util.find_spec("triton") is None:
        return "triton is not installed"
    # the one that torch takes: CXX, or the platform's own
    default = {"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++")
    compiler = next(iter(shlex.split(os.environ.get("CXX", ""))), default)
    if shutil.which(compiler) is None:
        return f"no C++ compiler ({compiler}) is on the PATH"
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        return "Python's headers (Python.h, of a package such as python3-dev) are not installed"
    return None


def estimate(
    *,
    device: str,
    deterministic: bool,
    nodes: Sequence[int],
    precision: str,
    trials: int,
    concurrent: int,
    seconds: float | str,
) -> Estimate:
    """Whether compiling pays in a study of ``trials`` trials, ``concurrent`` at once.

    ``nodes``: of each distinct architecture, how many it has. ``seconds``: how long all train without it, as they are
    placed; or, in words, why that is not known.
    """
    missing = "deterministic: true is eager" if deterministic else why_not(device)
    if missing:
        return Estimate(False, missing)
    if isinstance(seconds, str):
        return Estimate(False, seconds)
    cold, warm = len(nodes) * COLD + sum(nodes) * COLD_NODE, trials * WARM
    costs, saves = (cold + warm) / concurrent, SAVED[precision] * seconds
    why = f"saves about {_in_words(saves)} in {trials} trials, costs about {_in_words(costs)}"
    return Estimate(saves > MARGIN * costs, why, costs, saves)


def _in_words(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


class CompileError(RuntimeError):
    """A network that can't be compiled, or not once for all steps."""


class Compiled(nn.Module):
    """A network whose batches of one shape run through compiled pieces, forward and backward.

    It acts on the network's own parameters and buffers. The first batch's shape is the one that is compiled for, with
    so many ``threads``; others, such as a last short batch, run eagerly. Processes that compile what has the same
    ``identity`` do so one after another, and the second finds what the first has left. Raises ``CompileError``: in the
    first call where the network can't be compiled, in a later one where it would have to be compiled anew.
    """

    def __init__(
        self, network: fx.GraphModule, identity: str = "", *, threads: int = 1, backend: Backend = "inductor"
    ) -> None:
        super().__init__()
        self.network, self.identity, self.threads = network, identity, threads
        self.shape: torch.Size | None = None
        pieces = _pieces(network)
        for name, piece in list(pieces.named_children()):
            if not any(map(_stays_eager, piece.modules())):
                delattr(pieces, name)  # a function can't take the place of a module
                setattr(pieces, name, _once(piece, backend))
        # not as a module: it shares its parameters with the network, and would give them second names
        self.compiled: Callable[[Tensor], Tensor] = pieces.__call__

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → scores (B, classes), as the network gives them."""
        if self.shape is not None and x.shape != self.shape:
            scores: Tensor = self.network(x)
            return scores
        try:
            if self.shape is not None:
                return self.compiled(x)
            with _settings(self.threads), _alone(self.identity):
                scores = self.compiled(x)
        except torch._dynamo.exc.TorchDynamoException as error:
            what = "can't be compiled" if self.shape is None else "was to be compiled once more, in mid-training"
            raise CompileError(f"the network {what}; compile: false trains it without. {error}") from error
        self.shape = x.shape
        return scores


def why_not_captured(network: fx.GraphModule, x: Tensor) -> str | None:
    """Why a network can't be compiled, tried with a batch and without the compiler itself; None where it can."""
    try:
        Compiled(network, backend="eager")(x)
    except CompileError as error:
        return str(error).splitlines()[0]
    finally:
        torch._dynamo.reset()
    return None


def _once(piece: nn.Module, backend: Backend) -> Callable[..., Any]:
    """Compiled whole, in the first call; what would have to be compiled for a second time is an error."""
    forward = torch.compile(piece, fullgraph=True, dynamic=False, backend=backend)

    def call(*args: Tensor) -> Any:
        with torch._dynamo.config.patch(error_on_recompile=True):
            return forward(*args)

    return call


def _stays_eager(module: nn.Module) -> bool:
    """Whether it runs as written: it draws random numbers, by a seed of each step, or is a third party's."""
    return bool(getattr(module, "noisy", False)) or type(module).__module__.partition(".")[0] not in KNOWN


def _pieces(network: fx.GraphModule) -> fx.GraphModule:
    """The network as a chain of modules: what stays eager, and what lies between. All share the network's tensors."""
    from torch.fx.passes.split_module import split_module

    numbers, number = {}, 0
    for node in network.graph.nodes:
        if node.op == "call_module" and any(map(_stays_eager, network.get_submodule(node.target).modules())):
            numbers[node] = number + 1
            number += 2
        else:
            numbers[node] = number
    return split_module(network, network, numbers.__getitem__, keep_original_order=True)


@contextmanager
def _settings(threads: int) -> Iterator[None]:
    """Of torch's compiler, while it compiles: everything is kept on the disk, and nothing is left for later."""
    import torch._functorch.config as autograd
    import torch._inductor.config as inductor

    _cache()
    for_autograd = {
        "enable_autograd_cache": True,
        "force_non_lazy_backward_lowering": True,  # else the backward pass is compiled in the first backward
    }
    # random numbers of torch's own stream as in eager mode; threads: a trial's, or it would take those of others
    for_inductor = {"fx_graph_cache": True, "fallback_random": True, "compile_threads": threads}
    # what is compiled has its threads in it; older torch's keys see them only where they are set
    named = _known(inductor, for_inductor) | {"cpp.threads": threads}
    with autograd.patch(_known(autograd, for_autograd)), inductor.patch(named):
        yield


def _known(config: Any, values: dict[str, Any]) -> dict[str, Any]:
    """Those of the settings that this version of torch has."""
    return {name: value for name, value in values.items() if hasattr(config, name)}


def _cache() -> Path | None:
    """Where compiled code is kept: as ``TORCHINDUCTOR_CACHE_DIR`` says, else in the user's cache folder."""
    folder = Path(os.environ.get("TORCHINDUCTOR_CACHE_DIR") or cache_folder("compiled"))
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)  # what lies there is run
    except OSError:
        return None
    if not os.access(folder, os.W_OK) or folder.stat().st_uid != os.geteuid():
        return None  # torch then takes a temporary one
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder)
    return folder


@contextmanager
def _alone(identity: str) -> Iterator[None]:
    """No other process compiles what has this identity meanwhile: it would do the same work at half the speed."""
    folder, file = _cache(), None
    with suppress(OSError):  # a folder that can't be locked: work is done twice at worst
        if folder is not None:
            name = hashlib.sha256(identity.encode()).hexdigest()[:32]
            file = os.open(folder / f"{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            fcntl.flock(file, fcntl.LOCK_EX)
    try:
        yield
    finally:
        if file is not None:
            os.close(file)
