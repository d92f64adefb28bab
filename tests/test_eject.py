"""An ejected file: a network's own code in plain PyTorch, readable, equal to the last bit, and safe to have written."""

from __future__ import annotations

import ast
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from textwrap import indent
from typing import Any

import networks
import pytest
import torch
from ejected import assert_same_network, ejected, plain_network, run

import ablate
from ablate.block import find
from ablate.builder import build, noisy_modules, seed_noise
from ablate.design import as_written
from ablate.ejecting import About, CannotEject, check, eject, written
from ablate.graph import INPUT, Graph, GraphBuilder
from ablate.network import InitSpec, Network
from ablate.spec import load
from tests.conftest import REPOSITORY

MODELS = sorted(path.stem for path in (REPOSITORY / "specs" / "models").glob("*.yaml"))
QUICK = ("resnet20", "mobilenet_v2")
"""Of the models, those that are tried on every run."""
RUFF = [sys.executable, "-m", "ruff"]
RULES = ["--isolated", "--line-length", "120"]
LINT = ["--target-version", "py311", "--select", "E,F,W,I,UP,B,SIM,RUF,C4", "--ignore", "RUF001,RUF002,RUF003,UP018"]
"""UP018: torchvision writes ``float(-100.0)``, and its functions are brought along as they are."""


def network_of(text: str, shape: tuple[int, ...] = (3, 13, 17)) -> Network:
    return networks.network(text, shape)


def same(network: Network, size: int = 3) -> str:
    """The file of a network, after it was held against the network."""
    text = ejected(network.graph, calls=network.written.calls)
    ours = network.built(1)
    assert_same_network(ours, plain_network(text), network.graph.input_shape, size)
    return text


def in_ruffs_eyes(text: str, tmp_path: Path) -> str:
    """What ``ruff`` would change or complain about; empty where the file is clean."""
    file = tmp_path / "network.py"
    file.write_text(text, encoding="utf-8")
    shape = subprocess.run([*RUFF, "format", "--diff", *RULES, file], capture_output=True, text=True, check=False)
    lint = subprocess.run([*RUFF, "check", "-q", *RULES, *LINT, file], capture_output=True, text=True, check=False)
    return shape.stdout + lint.stdout


def model(name: str) -> Network:
    """A model of ``specs/models``, for small images."""
    section = load(REPOSITORY / "specs" / "models" / f"{name}.yaml").tree["network"]
    return networks.network(section, (1, 28, 28) if name.endswith("mnist") else (3, 64, 64))


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in MODELS]
)
def test_every_model_ejected_is_the_model(name: str, tmp_path: Path) -> None:
    text = same(model(name), size=2)
    assert in_ruffs_eyes(text, tmp_path) == ""
    assert "ablate" not in "\n".join(line for line in text.split('"""', 2)[2].split("\n"))


ATTENTIONS = """
attention: {block: cbam, reduction: 8, at: after stage*, residual: plain}
gate: {block: ai_gate, reduction: 4, at: before stage*.*.conv*, residual: none}
look: {block: self_attention, at: after stage3.*.bn2, residual: weighted}
"""


def test_a_resnet20_with_cbam_reads_like_a_persons() -> None:
    insert = "attention: {block: cbam, reduction: 8, at: after stage*, residual: none}"
    network = network_of(f"{networks.RESNET20}insert:\n  {insert}\n", (3, 32, 32))
    text = same(network)
    assert 100 <= text.count("\n") <= 200
    assert [line for line in text.split("\n") if line.startswith("class ")] == [
        "class ChannelAttention(nn.Module):",
        "class SpatialAttention(nn.Module):",
        "class PadShortcut(nn.Module):",
        "class Cbam(nn.Module):",
        "class Basic(nn.Module):",
        "class Classifier(nn.Module):",
        "class Network(nn.Module):",
    ]
    for line in (
        "        y = F.relu(self.bn1(self.conv1(x)))",
        "        return F.relu(y + self.shortcut(x))",
        "        self.stage1 = nn.Sequential(*(Basic(16, 16) for _ in range(3)))",
        "        self.stage1_attention = Cbam(16, hidden=2)",
        "        x = self.stage1_attention(x)  # (16, 32, 32)",
    ):
        assert line in text.split("\n")


def test_a_docstring_promises_nothing_that_the_code_has_not() -> None:
    graph = (
        "graph:\n  stem: {block: conv, width: 8}\n  gate: {block: cbam, reduction: 2}\n  head: {block: classifier%s}\n"
    )
    plain, noisy = (ejected(network_of(graph % more).graph) for more in ("", ", dropout: 0.3"))
    assert "dropout" not in plain.split("import torch", 1)[1]
    assert '"""Global pooling (of an image), dropout, and a linear layer' not in plain
    assert "at hidden width 0" not in plain
    assert '"""Mc(F) ⊙ F."""' in plain
    assert "self.drop" in noisy


def test_a_docstring_speaks_of_no_choice() -> None:
    from ablate.ejecting.docs import of_composite

    assert of_composite("The class token or the mean of all, dropout, and a linear layer.", {"linear"}) == ""
    assert of_composite("Layers, normalised first or last: He et al., 2016 (arXiv:1603.05027).", {"conv"}) == (
        "After He et al., 2016 (arXiv:1603.05027)."
    )
    whole = "Two layers with an activation between: Vaswani et al., 2017 (arXiv:1706.03762)."
    assert of_composite(f"{whole} Biases are optional.", {"linear", "act"}) == whole


def test_a_class_that_is_used_at_several_shapes_says_so_in_its_docstring() -> None:
    text = same(network_of(networks.RESNET20))
    assert "    (16, 13, 17) -> (16, 13, 17)\n    (16, 13, 17) -> (32, 7, 9)\n" in text
    assert "# (16, 13, 17) -> " not in text


def test_a_default_is_what_several_calls_have() -> None:
    text = same(network_of(networks.RESNET20))
    assert "PadShortcut(before=8)" in text
    assert "PadShortcut(before=16)" in text


def test_the_attention_of_tokens_without_positions_has_none_of_their_code() -> None:
    tokens = "graph:\n  patch: {block: patch_embed, width: 12, patch: 4}\n  attn: {block: token_attention, heads: 3}\n"
    text = same(network_of(f"{tokens}  head: {{block: token_classifier, pool: mean}}\n", (3, 8, 8)))
    assert "attend(query, key, value, self.scale, None)" in text
    assert "relative" not in text


def test_the_head_warns_that_the_first_values_are_not_the_studys() -> None:
    head = ast.get_docstring(ast.parse(written(network_of(networks.RESNET20).graph, About("t", "EJECT", "EXPORT"))))
    assert head is not None
    warning = head.index("WARNING: training from this file alone does not repeat the study.")
    assert head.index("    EJECT") < warning < head.index("    EXPORT") < head.index("load_state_dict(load_file(")


def test_insertions_with_every_residual_come_out_the_same(tmp_path: Path) -> None:
    network = network_of(f"{networks.RESNET20}insert:\n{indent(ATTENTIONS.strip(), '  ')}\n")
    assert in_ruffs_eyes(same(network), tmp_path) == ""


def test_composites_that_a_spec_declares_are_classes_of_their_own() -> None:
    text = same(
        network_of(
            r'''
blocks:
  my_block:
    description: 'A block """ of mine\'
    params: {width: 16, stride: {default: 1, repeat: first}}
    graph:
      conv1: {block: conv_bn_act, width: $width, stride: $stride, kernel: 3}
      conv2: {block: conv_bn_act, width: $width, kernel: 3, act: none}
      fit:   {block: conv, width: $width, stride: $stride, kernel: 1, from: $input}
      out:   {block: add, from: [conv2, fit]}
graph:
  one: {block: my_block, width: 5}
  two: {block: my_block, width: 11, repeat: 2, stride: 2}
  head: {block: classifier}
'''
        )
    )
    assert text.count("class MyBlock") == 1
    assert "self.two = nn.Sequential(MyBlock(5, 11, stride=2), MyBlock(11, 11))" in text


def test_branches_and_a_value_that_is_read_thrice_keep_the_order_of_the_gradients() -> None:
    same(
        network_of(
            """
graph:
  stem: {block: conv, width: 6}
  a: {block: cbam, reduction: 2, from: stem}
  b: {block: self_attention, from: stem}
  c: {block: conv, width: 5, kernel: 1, from: stem}
  mix: {block: concat, from: [a, b, c, stem]}
  fit: {block: conv_bn_act, width: 8, kernel: 1}
  sum: {block: add, from: [fit, fit]}
  head: {block: classifier}
"""
        )
    )


def test_what_has_no_effect_is_left_out() -> None:
    text = same(
        network_of(
            """
graph:
  stem: {block: conv, width: 6}
  none: {block: identity}
  scale: {block: scale, factor: 1.0}
  drop: {block: dropout, rate: 0.0}
  act: {block: act, kind: none}
  head: {block: classifier}
"""
        )
    )
    for name in ("none", "scale", "drop", "act"):
        assert f"self.{name}" not in text


AWKWARD = (
    "torch",
    "nn",
    "F",
    "Tensor",
    "Network",
    "match",
    "x",
    "y",
    "z",
    "x0",
    "_",
    "__dunder",
    "OrderedDict",
    "super",
)


def test_names_that_mean_something_in_python_are_names_still(tmp_path: Path) -> None:
    nodes = "".join(f"  {name}: {{block: conv_bn_act, width: {3 + i % 2}}}\n" for i, name in enumerate(AWKWARD))
    uses = "  keys: {block: concat, from: [torch, nn, F, Tensor, __dunder]}\n  pop: {block: conv, width: 3}\n"
    text = same(network_of(f"graph:\n{nodes}{uses}  head: {{block: classifier}}\n"))
    assert in_ruffs_eyes(text, tmp_path) == ""


@pytest.mark.parametrize("name", ["keys", "update", "conv"])
def test_a_scope_that_is_no_single_call_holds_its_modules_by_their_names(name: str) -> None:
    """``two`` reads what lies inside of ``one``, and calls its module: neither is a call of its own."""
    conv, act = find("conv"), find("act")
    builder = GraphBuilder((3, 7, 11), 5)
    first = builder.place(f"one.{name}", conv, conv.Params(width=3), (INPUT,))
    second = builder.place("one.0", conv, conv.Params(width=3), (first,))
    again = builder.place("two.again", conv, conv.Params(width=3), (second,), module=f"one.{name}")
    last = builder.place("two.act", act, act.Params(kind="gelu"), (again,))
    add = find("add")
    graph = builder.finish(builder.place("sum", add, add.Params(), (last, first, second)))
    text = ejected(graph)
    assert_same_network(build(graph), plain_network(text), (3, 7, 11))
    assert f"one.{name}.weight" in plain_network(text).state_dict()


def test_a_scope_that_waits_for_a_node_outside_is_no_single_call() -> None:
    """``a.left``, then ``side``, then ``a.join``: calling the scope at once would call in another order."""
    conv, add = find("conv"), find("add")
    builder = GraphBuilder((3, 7, 11), 5)
    left = builder.place("a.left", conv, conv.Params(width=3), (INPUT,))
    side = builder.place("side", conv, conv.Params(width=3), (INPUT,))
    graph = builder.finish(builder.place("a.join", add, add.Params(), (left, side)))
    assert_same_network(build(graph), plain_network(ejected(graph)), (3, 7, 11))


def test_a_node_that_nobody_reads_still_moves_its_statistics() -> None:
    conv, norm = find("conv"), find("batch_norm")
    builder = GraphBuilder((3, 7, 11), 5)
    first = builder.place("conv", conv, conv.Params(width=5), (INPUT,))
    builder.place("side.norm", norm, norm.Params(), (first,))
    graph = builder.finish(first)
    assert_same_network(build(graph), plain_network(ejected(graph)), (3, 7, 11))


def test_with_the_same_draws_a_noisy_network_trains_the_same() -> None:
    network = network_of(
        f"{networks.RESNET20}insert:\n  drop: {{block: drop_path, rate: {{linear: [0.1, 0.6]}}, at: 'after *.*.bn2'}}\n"
    )
    ours, theirs = network.built(1).train(), plain_network(same(network)).train()
    theirs.load_state_dict(ours.state_dict())
    seed_noise(ours, 3, 5)
    for name, module in noisy_modules(ours):
        part = theirs.get_submodule(name)
        part.__class__ = type("Seeded", (type(part),), {"noise_seed": module.noise_seed})
    images = torch.randn(5, 3, 13, 17)
    one, other = run(ours, images), run(theirs, images)
    assert all(torch.equal(one[key], other[key]) for key in one)
    torch.manual_seed(7)
    for name, _ in noisy_modules(ours):
        theirs.get_submodule(name).__class__ = type(theirs.get_submodule(name)).__mro__[1]
    first, second = run(theirs, images), run(theirs, images)
    assert not torch.equal(first["output"], second["output"]), "each pass draws anew"


def test_the_head_of_a_noisy_file_says_where_the_draws_come_from() -> None:
    noisy = "graph:\n  head: {block: classifier, dropout: 0.3}\n"
    assert "torch.manual_seed" in ejected(network_of(noisy).graph)
    assert "torch.manual_seed" not in ejected(network_of(noisy.replace("0.3", "0.0")).graph)


def test_two_modules_of_a_class_that_come_from_outside_are_two() -> None:
    text = same(
        network_of(
            """
graph:
  stem: {block: conv, width: 8}
  one: {block: basic, width: 8}
  two: {block: basic, width: 8, norm: none}
  head: {block: classifier}
"""
        )
    )
    assert "self.one = Basic(bn1=nn.BatchNorm2d(8), bn2=nn.BatchNorm2d(8))" in text
    assert "self.two = Basic()" in text


def test_what_starts_as_a_constant_starts_so_without_the_weights() -> None:
    network = network_of(
        """
graph:
  patch: {block: patch_embed, width: 12, patch: 4}
  token: {block: class_token}
  where: {block: position_embedding, kind: sincos_2d}
  scale: {block: layer_scale, init: 0.25}
  learnt: {block: position_embedding}
  pool: {block: token_pool}
  head: {block: classifier}
insert:
  gate: {block: layer_scale, at: after scale, residual: {kind: weighted, init: 0.5}}
""",
        (3, 16, 16),
    )
    theirs, ours = plain_network(same(network)).state_dict(), network.built(0).state_dict()
    for name in ("token.token", "where.table", "scale.weight", "scale_gate.weight", "scale_gate_residual.weight"):
        assert torch.equal(theirs[name], ours[name]), name
    assert theirs["learnt.embedding"].std() < 0.1


# Blocks of other people.

THIRD = '''
"""Somebody's blocks."""
import math
from functools import lru_cache

import torch
import torch.nn.functional as func
from torch import nn

from ablate import Block, BlockParams

SLOPE = 0.25
KINDS = {"soft": func.softplus, "tanh": torch.tanh}


def scaled(x, by: float = math.sqrt(2)):
    # a comment that stays
    return x * by


class Inner(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.mix = nn.Sequential(nn.Conv2d(width, width, (3, 1), padding=(1, 0)), nn.PReLU(width))

    def forward(self, x):
        return self.mix(x)


class Base(Block):
    def shared(self, x):
        return func.leaky_relu(x, SLOPE)


class Middle(Base):
    def shared(self, x):
        return scaled(super().shared(x))


class Theirs(Middle, name="theirs"):
    class Params(BlockParams):
        kind: str = "soft"
        depth: int = 2

    def __init__(self, params, shape):
        super().__init__()
        self.kind, self.depth, self.shape = params.kind, params.depth, shape
        self.inner = nn.ModuleList([Inner(shape[0]) for _ in range(params.depth)])
        self.gain = nn.Parameter(torch.full((shape[0], 1, 1), 1.5))
        self.register_buffer("ramp", torch.arange(float(shape[2])), persistent=False)

    @property
    def half(self):
        return self.depth / 2

    @staticmethod
    def twice(x):
        return 2 * x

    def forward(self, x):
        for layer in self.inner:
            x = layer(x)
        if self.kind == "soft":
            x = KINDS[self.kind](x)  # soft
        elif self.kind == "tanh":
            x = KINDS[self.kind](x)
        else:
            raise ValueError(self.kind)
        return self.twice(self.shared(x) * self.gain + self.ramp) / self.half


class Counting(Block, name="counting"):
    def __init__(self, params, shape):
        super().__init__()
        self.calls = 0

    def forward(self, x):
        self.calls = self.calls + 1
        return x * 2 if self.calls > 0 else x


class Numpys(Block, name="numpys"):
    def __init__(self, params, shape):
        super().__init__()

    def forward(self, x):
        import numpy
        return x * float(numpy.float32(2.0)) * TABLE[0]


TABLE = torch.ones(3)
'''


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> None:
    import importlib.util

    file = tmp_path_factory.mktemp("blocks") / "somebodys_blocks.py"
    file.write_text(THIRD, encoding="utf-8")
    spec = importlib.util.spec_from_file_location("somebodys_blocks", file)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["somebodys_blocks"] = module
    spec.loader.exec_module(module)


def one_block(name: str, **params: object) -> Graph:
    block, norm = find(name), find("batch_norm")
    builder = GraphBuilder((5, 7, 11), 3)
    first = builder.place("first", block, block.Params(**params), (INPUT,))
    return builder.finish(builder.place("norm", norm, norm.Params(), (first,)))


@pytest.mark.usefixtures("theirs")
@pytest.mark.parametrize("kind", ["soft", "tanh"])
def test_somebodys_block_brings_along_what_it_uses(kind: str, tmp_path: Path) -> None:
    graph = one_block("theirs", kind=kind, depth=3)
    text = ejected(graph)
    assert_same_network(build(graph), plain_network(text), graph.input_shape)
    code = text.split('"""', 2)[2]
    assert "# a comment that stays" in code
    assert "KINDS" not in code
    assert ("softplus" in code, "tanh" in code) == (kind == "soft", kind == "tanh")
    assert "ValueError" not in code


@pytest.mark.usefixtures("theirs")
def test_an_attribute_that_changes_is_not_folded() -> None:
    graph = one_block("counting")
    text = ejected(graph)
    assert "self.calls = self.calls + 1" in text
    assert_same_network(build(graph), plain_network(text), graph.input_shape)


@pytest.mark.usefixtures("theirs")
def test_a_block_that_can_not_stand_alone_is_named() -> None:
    with pytest.raises(CannotEject, match=r"block 'numpys' \(node 'first'\) needs 'TABLE'"):
        ejected(one_block("numpys"))


@pytest.fixture(scope="module")
def typed() -> None:
    code = """
from ablate import Block
class Typed(Block, name="typed_at_a_prompt"):
    def __init__(self, params, shape):
        super().__init__()
    def forward(self, x):
        return x + 1
"""
    exec(compile(code, "<prompt>", "exec"), {"__name__": "prompt"})


@pytest.mark.usefixtures("typed")
def test_a_block_whose_source_is_in_no_file_is_named() -> None:
    with pytest.raises(CannotEject, match=r"block 'typed_at_a_prompt' .* whose source is not in a file"):
        ejected(one_block("typed_at_a_prompt"))


# What a stranger's spec may do.

HOSTILE = 'a"""\nimport os; os.abort()\n\\'


def test_text_of_a_spec_is_never_code() -> None:
    network = network_of(networks.RESNET20)
    text = written(network.graph, About(HOSTILE, HOSTILE, HOSTILE), network.written.calls)
    tree = ast.parse(text)
    head = ast.get_docstring(tree)
    assert head is not None
    assert "os.abort" in head
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id == "os"]
    roots = {
        alias.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names
    }
    roots |= {(node.module or "").split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert roots <= {"torch", "collections"}


def test_the_file_runs_where_there_is_no_ablate(tmp_path: Path) -> None:
    network = network_of(f"{networks.RESNET20}insert:\n{indent(ATTENTIONS.strip(), '  ')}\n")
    file = tmp_path / "network.py"
    file.write_text(ejected(network.graph, calls=network.written.calls), encoding="utf-8")
    code = f"""
import runpy, sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("ablate", "pydantic", "yaml"):
            raise ImportError(f"{{name}} is not here")
sys.meta_path.insert(0, Refuse())
try:
    import ablate
except ImportError:
    runpy.run_path({str(file)!r}, run_name="__main__")
"""
    done = subprocess.run(
        [sys.executable, "-I", "-P", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    count = sum(parameter.numel() for parameter in network.built(0).parameters())
    assert done.stderr == ""
    assert done.stdout == f"output (2, 7), {count:,} parameters\n"


# The file is held against the network before anybody gets it.


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        ("F.relu(y + self.shortcut(x))", "F.relu(y - self.shortcut(x))", "other outputs"),
        ("self.bn2 = ", "self.norm2 = ", "other weights"),
        ("Basic(16, 16) for _ in range(3)", "Basic(16, 16) for _ in range(2)", "other weights"),
    ],
)
def test_a_file_that_came_out_different_is_never_given(right: str, wrong: str, said: str) -> None:
    network = network_of(networks.RESNET20)
    text = ejected(network.graph, calls=network.written.calls)
    assert right in text
    broken = text.replace(right, wrong).replace("self.bn2(", "self.norm2(" if "norm2" in wrong else "self.bn2(")
    with pytest.raises(CannotEject, match=said):
        check(broken, network.graph)


def test_eject_names_the_variant_and_the_command(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from ablate.cli import main

    file = tmp_path / "network.py"
    assert main(["eject", str(tiny), "--variant", "between", "-o", str(file)]) == 0
    text = file.read_text(encoding="utf-8")
    assert f"wrote {file}" in capsys.readouterr().out
    assert "tiny, variant 'between'" in text
    assert f"ablate eject {tiny} --variant between -o {file}" in text
    assert main(["eject", str(tiny), "--variant", "between"]) == 0
    assert capsys.readouterr().out.split('"""', 2)[2] == text.split('"""', 2)[2]
    assert main(["eject", str(tiny), "--variant", "betwen"]) == 2
    assert "between" in capsys.readouterr().err
    spec = ablate.load(tiny)
    ours = ablate.build(spec, variant="between", seed=3)
    assert_same_network(ours, plain_network(ablate.eject(spec, variant="between")), (3, 11, 13))


@pytest.mark.usefixtures("typed")
def test_a_spec_whose_block_can_not_be_ejected_is_the_users_error(tiny: Path) -> None:
    network = Network(*[one_block("typed_at_a_prompt")] * 2, (), InitSpec())
    with pytest.raises(ablate.UserError, match="s can't be ejected: block 'typed_at_a_prompt'"):
        eject(replace(as_written(ablate.load(tiny)), network=network), "s")


# Imported models.


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("resnet18", (3, 33, 37)),
        pytest.param("mobilenet_v3_small", (3, 33, 37), marks=pytest.mark.slow),
        pytest.param("shufflenet_v2_x0_5", (3, 65, 65), marks=pytest.mark.slow),
        pytest.param("densenet121", (3, 33, 37), marks=pytest.mark.slow),
        pytest.param("convnext_tiny", (3, 65, 65), marks=pytest.mark.slow),
        pytest.param("swin_t", (3, 64, 64), marks=pytest.mark.slow),
        pytest.param("efficientnet_b0", (3, 65, 65), marks=pytest.mark.slow),
    ],
)
def test_an_imported_model_ejected_is_the_model(name: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    section: dict[str, Any] = {"import": f"torchvision.models:{name}", "args": {"num_classes": 7}}
    if name == "resnet18":
        section["insert"] = {"gate": {"block": "se", "reduction": 4, "at": "after layer*.*.bn2", "residual": "none"}}
    text = same(networks.network(section, shape))
    assert in_ruffs_eyes(text, tmp_path) == ""
