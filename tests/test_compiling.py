"""Compiled training steps against eager ones, what is never compiled, the folder that is shared, and the estimate.

Compiling for real takes minutes: but for the tests marked slow, torch captures the network and then runs it eagerly.
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from ablate import block as blocks
from ablate import compiling
from ablate import train as training
from ablate.block import Block, BlockParams, Shape
from ablate.builder import seed_noise
from ablate.collect import Collector
from ablate.compiling import COLD, COLD_NODE, MARGIN, SAVED, WARM, Compiled, CompileError, Estimate, estimate, why_not
from ablate.data.dataset import DataSpec, ImageData
from ablate.data.dataset import load as load_data
from ablate.network import read_network
from ablate.numerics import Numerics
from ablate.recipe import TrainSpec
from ablate.train import Run, Trial, epochs
from ablate.trainable import Trainable, training_mode

SHAPE, CLASSES, BATCH = (3, 7, 11), 5, 13
GRAPH = {
    "stem": {"block": "conv_bn_act", "width": 6, "kernel": 3},
    "stage": {"block": "basic", "width": 6, "repeat": 1, "shortcut": "pad"},
    "head": {"block": "classifier"},
}


class Stranger(Block):
    """As a third party may write one: counts its calls, branches on values, draws from torch's own stream."""

    name = "test_stranger"

    def __init__(self, params: BlockParams, shape: Shape) -> None:
        super().__init__()
        self.calls = 0
        self.seen: list[float] = []

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        if x.is_meta:
            return x
        self.seen.append(float(x.detach().double().sum()))
        return F.dropout(x, 0.3, self.training) if x.mean() > self.calls else 2 * x


@pytest.fixture(autouse=True, scope="module")
def a_third_partys_block() -> Iterator[None]:
    """Registered while these tests run, and unknown to the tests of all registered blocks."""
    blocks.register(Stranger)
    yield
    del blocks._registry[Stranger.name]


@dataclass
class Captured:
    """In the place of a compiler: it keeps what it is given, and gives back what runs eagerly."""

    graphs: list[fx.GraphModule] = field(default_factory=list)

    def __call__(self, graph: fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
        self.graphs.append(graph)
        return graph.forward

    @property
    def calls(self) -> int:
        """Operations that would be compiled."""
        return sum(node.op.startswith("call") for graph in self.graphs for node in graph.graph.nodes)


@lru_cache(maxsize=1)
def arrays() -> ImageData:
    section = {"name": "fake", "shape": list(SHAPE), "classes": CLASSES, "count": {"train": 57, "test": 17}}
    return load_data(DataSpec.model_validate(section | {"val": 0.25}), base=Path())


def trial(
    insert: dict[str, Any] | None = None, seed: int = 3, trainable: Trainable | None = None, **recipe: Any
) -> Trial:
    section = {"graph": GRAPH, "insert": {"new": insert}} if insert else {"graph": GRAPH}
    collector = Collector(section)
    network = read_network(section, SHAPE, CLASSES, collector)
    assert network is not None, collector.problems
    written = {"epochs": 1, "batch_size": BATCH, "optimizer": {"name": "sgd", "lr": 0.05}} | recipe
    spec, numerics = TrainSpec.model_validate(written), Numerics(compile=True)
    init = network.init.recipe
    return Trial("", "variant", seed, network.graph, init, spec, (), numerics, trainable or Trainable())


def eager(of: Trial) -> Trial:
    return replace(of, numerics=replace(of.numerics, compile=False))


def stepped(of: Trial) -> tuple[list[float], dict[str, Tensor], Run]:
    """(losses, weights and statistics, the run) of an epoch."""
    run = Run(of, arrays())
    training_mode(run.network, of.trainable)
    losses = [float(run.one_step(x, y)[0]) for x, y in run.batches.epoch(0)]
    return losses, run.network.state_dict(), run


@pytest.fixture
def captured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Captured:
    """Trials are captured and not compiled."""
    backend = Captured()
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "compiled"))
    monkeypatch.setattr(training, "Compiled", partial(Compiled, backend=backend))
    return backend


# ---- the same training ----

INSERTED: dict[str, dict[str, Any] | None] = {
    "plain": None,
    "cbam": {"block": "cbam", "reduction": 2, "at": "after stage.*"},
    "attention": {"block": "self_attention", "at": "after stage", "residual": {"kind": "weighted", "init": 0.5}},
    "dropout": {"block": "dropout", "rate": 0.3, "at": "after stage.0"},
    "drop_path": {"block": "drop_path", "rate": 0.4, "at": "before stage.*.add:branch"},
    "stranger": {"block": "test_stranger", "at": "before stage.*.conv2"},
}
PIECES = {"dropout": 2, "drop_path": 2, "stranger": 2}


@pytest.mark.parametrize("name", ["attention", "dropout", "drop_path", "stranger"])
def test_captured_steps_give_the_bits_of_eager_ones(name: str, captured: Captured) -> None:
    of = trial(INSERTED[name])
    losses, state, _ = stepped(of)
    expected, expected_state, _ = stepped(eager(of))
    assert losses == expected
    assert len(set(losses)) == len(losses) > 2
    assert all(torch.equal(state[key], value) for key, value in expected_state.items())
    assert len(state) > 10
    assert len(captured.graphs) == PIECES.get(name, 1)


def test_noise_is_drawn_anew_in_each_step_and_never_captured(captured: Captured) -> None:
    of = trial(INSERTED["dropout"])
    run = Run(of, arrays())
    training_mode(run.network, of.trainable)
    x = torch.randn(BATCH, *SHAPE)
    scores = []
    for step in (0, 1, 2, 1):
        seed_noise(run.network, of.seed, step)
        scores.append(run.in_training(x).detach())
    assert not torch.equal(scores[0], scores[1])
    assert not torch.equal(scores[1], scores[2])
    assert torch.equal(scores[1], scores[3])
    called = [str(node.target) for graph in captured.graphs for node in graph.graph.nodes]
    assert len(called) > 20
    assert not [target for target in called if "rand" in target or "Generator" in target]


def test_frozen_norms_keep_their_statistics(captured: Captured) -> None:
    frozen = Trainable(frozen=("stem.bn", "stem.conv"))
    of = trial(trainable=frozen)
    start = Run(of, arrays()).network.state_dict()
    names = [name for name in start if name.startswith("stem.")]
    losses, state, _ = stepped(of)
    assert losses == stepped(eager(of))[0]
    assert len(names) >= 5
    assert all(torch.equal(state[name], start[name]) for name in names)


def test_other_shapes_run_eagerly_and_a_whole_training_compiles_once(captured: Captured) -> None:
    of = trial(epochs=3, ema={"decay": 0.9}, evaluate={"every": 1})
    assert len(arrays().train) % BATCH
    assert arrays().val is not None

    def outcome(of: Trial) -> tuple[list[dict[str, float]], Any]:
        rows, running = [], epochs(of, arrays())
        while True:
            try:
                rows.append({key: value for key, value in next(running).items() if "second" not in key})
            except StopIteration as end:
                return rows, end.value

    rows, result = outcome(of)
    expected, expected_result = outcome(eager(of))
    assert result.result["error"] is None
    assert rows == expected
    assert len(rows) == 3
    assert result.result["metrics"] == expected_result.result["metrics"]
    assert result.weights is not None
    assert result.weights.keys() == expected_result.weights.keys()
    assert len(captured.graphs) == 1


def test_it_acts_on_the_networks_own_tensors_and_names(captured: Captured) -> None:
    network = Run(eager(trial(INSERTED["dropout"])), arrays()).network
    wrapped = Compiled(network, backend=captured)
    assert dict(wrapped.named_parameters()) == {f"network.{key}": value for key, value in network.named_parameters()}
    assert list(wrapped.state_dict()) == [f"network.{key}" for key in network.state_dict()]
    assert not [module for module in network.modules() if getattr(module, "_compiled_call_impl", None)]


# ---- what can't be compiled ----


def test_what_would_be_compiled_anew_is_an_error(captured: Captured) -> None:
    network = Run(eager(trial()), arrays()).network.train()
    wrapped, x = Compiled(network, backend=captured), torch.randn(BATCH, *SHAPE)
    wrapped(x)
    wrapped(x)
    network.eval()
    with pytest.raises(CompileError, match=r"once more.*compile: false"):
        wrapped(x)


def test_a_trial_that_can_not_be_compiled_says_so(captured: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "KNOWN", (*compiling.KNOWN, __name__))
    of = trial(INSERTED["stranger"])
    with pytest.raises(StopIteration) as end:
        next(epochs(of, arrays()))
    error = end.value.value.result["error"]
    assert error["type"] == "CompileError"
    assert "can't be compiled; compile: false" in error["message"]


def calling(module: nn.Module, count: int) -> fx.GraphModule:
    """A network of one node."""
    graph = fx.Graph()
    inputs = tuple(graph.placeholder(f"x{index}") for index in range(count))
    graph.output(graph.call_module("block", inputs))
    return fx.GraphModule({"block": module}, graph)


@pytest.mark.slow
def test_every_block_of_ours_is_captured_whole_and_once(captured: Captured) -> None:
    """But for those that draw: the two calls see other values, and the second compiles nothing."""
    from tests.blocks.test_block_contract import CASES, IMAGE, LEAVES

    broken = []
    for name, block in LEAVES.items():
        for params, shapes in CASES.get(name, [({}, (IMAGE,) * len(block.ports))]):
            module = block.make(block.Params(**params), *shapes)
            if block.noisy or block is Stranger:
                continue
            call = compiling._once(calling(module.train(), len(shapes)), captured)
            try:
                for _ in range(2):
                    inputs = [torch.randn(BATCH, *shape, requires_grad=True) for shape in shapes]
                    torch.testing.assert_close(call(*inputs), module(*inputs))
            except torch._dynamo.exc.TorchDynamoException as error:
                broken.append(f"{name} {params}: {str(error)[:300]}")
    assert not broken, "\n".join(broken)


# ---- the shared folder ----


def is_locked(path: Path) -> bool:
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def test_the_first_step_alone_is_locked_by_identity_and_settled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch._functorch.config as autograd
    import torch._inductor.config as inductor

    folder = tmp_path / "compiled"
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(folder))
    before = (inductor.compile_threads, inductor.fallback_random, autograd.force_non_lazy_backward_lowering)
    seen = []

    def backend(graph: fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
        held = [path for path in folder.glob("*.lock") if is_locked(path)]
        settings = (inductor.compile_threads, inductor.fallback_random, autograd.force_non_lazy_backward_lowering)
        seen.append((len(held), settings, inductor.fx_graph_cache, autograd.enable_autograd_cache))
        return graph.forward

    network = Run(eager(trial()), arrays()).network
    for identity in ("one", "one", "other"):
        Compiled(network, identity, threads=7, backend=backend)(torch.randn(BATCH, *SHAPE))
    assert seen == [(1, (7, True, True), True, True)] * 3
    locks = list(folder.glob("*.lock"))
    assert len(locks) == 2
    assert not any(map(is_locked, locks))
    assert before == (inductor.compile_threads, inductor.fallback_random, autograd.force_non_lazy_backward_lowering)


def test_identities_differ_where_the_compiled_code_may() -> None:
    def identity(of: Trial) -> str:
        return Run(of, arrays())._compiled().identity

    one = trial()
    assert identity(one) == identity(trial(seed=5)) == identity(trial(epochs=7))
    others = [
        trial(INSERTED["cbam"]),
        trial(batch_size=BATCH - 2),
        trial(trainable=Trainable(frozen=("stem.bn",))),
        trial(precision="bf16"),
        replace(one, numerics=replace(one.numerics, threads=2)),
    ]
    assert len({identity(one), *map(identity, others)}) == 1 + len(others)


def test_the_folder_is_the_users_own_unless_the_environment_names_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "")
    folder = compiling._cache()
    assert folder == tmp_path / "home" / "ablate" / "compiled"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(folder)
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "own"))
    assert compiling._cache() == tmp_path / "own"


def test_where_nothing_can_be_kept_it_compiles_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "")
    with compiling._alone("anything"):
        assert compiling._cache() is None
    assert not os.environ["TORCHINDUCTOR_CACHE_DIR"]


# ---- whether it pays ----


def estimated(seconds: float | str = 1e5, **changed: Any) -> Estimate:
    given: dict[str, Any] = {"device": "cpu", "deterministic": False, "nodes": [71, 89], "precision": "bf16"}
    return estimate(**(given | {"trials": 15, "concurrent": 2, "seconds": seconds} | changed))


@pytest.fixture
def compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine on which everything is there that torch needs."""
    compiler, header = tmp_path / "my-c++", tmp_path / "Python.h"
    compiler.write_text("#!/bin/sh\n")
    compiler.chmod(0o755)
    header.touch()
    monkeypatch.setenv("CXX", f"{compiler} -std=c++17")
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))
    return tmp_path


@pytest.mark.usefixtures("compiler")
def test_it_costs_by_architecture_node_and_trial_and_saves_a_share_of_all_steps() -> None:
    found = estimated()
    assert found.costs == pytest.approx((2 * COLD + (71 + 89) * COLD_NODE + 15 * WARM) / 2)
    assert found.saves == pytest.approx(1e5 * SAVED["bf16"])
    assert found.worth
    assert found.why.startswith("saves about 3.3 h in 15 trials, costs about ")


@pytest.mark.usefixtures("compiler")
def test_it_is_worth_it_from_twice_the_cost_on() -> None:
    enough = MARGIN * estimated().costs / SAVED["bf16"]
    assert estimated(1.01 * enough).worth
    assert not estimated(0.99 * enough).worth
    assert not estimated(1.01 * enough, precision="fp32").worth
    assert estimated("the study is short") == Estimate(False, "the study is short")
    assert not estimated(deterministic=True).worth
    assert "eager" in estimated(deterministic=True).why


def test_what_is_missing_is_named(compiler: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert why_not("cpu") is None
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert why_not("cpu") is None
    assert "triton" in str(why_not("cuda"))
    (compiler / "Python.h").unlink()
    assert "Python.h" in str(why_not("cpu"))
    assert "Python.h" in estimated().why
    assert not estimated().worth
    monkeypatch.setenv("CXX", "")
    monkeypatch.setenv("PATH", str(compiler))
    default = "clang++" if sys.platform == "darwin" else "g++"
    assert f"({default})" in str(why_not("cpu"))


# ---- compiled for real ----

FOR_REAL = """
import json, sys, torch
sys.path.insert(0, {tests!r})
import test_compiling as here
from torch._dynamo.utils import counters
here.blocks.register(here.Stranger)
of = here.trial(here.INSERTED[{name!r}], seed={seed}, precision={precision!r})
losses, state, run = here.stepped(of)
expected, expected_state, _ = here.stepped(here.eager(of))
far = {{k: (state[k].double() - v.double()).abs().max() for k, v in expected_state.items()}}
worst = max(float(far[k] / (1e-3 + v.double().abs().max())) for k, v in expected_state.items())
counts = {{k: v for group in ("inductor", "aot_autograd") for k, v in counters[group].items() if "cache" in k}}
print(json.dumps([losses, expected, worst, counts]))
"""


def compiled_for_real(cache: Path, name: str, seed: int, precision: str) -> tuple[list[float], list[float], float, Any]:
    code = FOR_REAL.format(tests=str(Path(__file__).parent), name=name, seed=seed, precision=precision)
    environment = os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(cache)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True, check=True)
    found: tuple[list[float], list[float], float, Any] = tuple(json.loads(done.stdout.splitlines()[-1]))
    return found


@pytest.mark.slow
@pytest.mark.skipif(why_not("cpu") is not None, reason=str(why_not("cpu")))
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", ["plain", "cbam", "attention", "drop_path", "stranger"])
def test_compiled_steps_equal_eager_ones_and_are_compiled_once_a_machine(
    name: str, precision: str, tmp_path: Path
) -> None:
    pieces = PIECES.get(name, 1)
    losses, expected, worst, counts = compiled_for_real(tmp_path, name, 3, precision)
    tolerance = 1e-4 if precision == "fp32" else 5e-2
    assert losses == pytest.approx(expected, rel=tolerance)
    assert worst < tolerance
    assert counts["autograd_cache_miss"] == pieces
    assert "autograd_cache_hit" not in counts
    losses, expected, worst, counts = compiled_for_real(tmp_path, name, 5, precision)
    assert losses == pytest.approx(expected, rel=tolerance)
    assert worst < tolerance
    assert counts["autograd_cache_hit"] == pieces
    assert "autograd_cache_miss" not in counts
    assert "fxgraph_cache_miss" not in counts
