"""Networks that leave for other programs come back equal: weights alone, ``torch.export``, ONNX."""

from __future__ import annotations

import ast
import io
import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

import ablate
from ablate import exporting
from ablate.cli import main
from ablate.design import as_written, study_plan
from ablate.errors import UserError
from ablate.exporting import Trained, as_started, as_trained, export
from ablate.spec import load
from tests.conftest import REPOSITORY

DATA = {"name": "fake", "shape": [3, 16, 16], "classes": 7, "count": {"train": 29, "test": 11}}
TRAIN = {"epochs": 1, "batch_size": 7, "optimizer": {"name": "sgd", "lr": 0.1}}
MODELS = REPOSITORY / "specs" / "models"
SMALL = {
    "graph": {
        "stem": {"block": "conv_bn_act", "width": 11, "kernel": 3},
        "gate": {"block": "cbam", "reduction": 2},
        "down": {"block": "basic", "width": 16, "stride": 4},
        "mix": {"block": "multi_head_attention", "heads": 4},
        "head": {"block": "classifier"},
    }
}
CBAM = {"block": "cbam", "reduction": 4, "at": "after stage*.*.bn2"}
ATTENTION = {"block": "multi_head_attention", "heads": 4, "at": "after stage3", "residual": "plain"}
NETWORKS: dict[str, tuple[str | dict[str, Any], dict[str, Any]]] = {
    "small": ({"network": SMALL}, {}),
    "vit": ("vit_b_16.yaml", {"network.params.dim": 24, "network.params.depth": 2, "data.size": 32}),
    "resnet20 with cbam": ("resnet20.yaml", {"network.insert.gate": CBAM}),
    "resnet20 with attention": ("resnet20.yaml", {"network.insert.mix": ATTENTION}),
}


def marked(*quick: str) -> list[Any]:
    return [name if name in quick else pytest.param(name, marks=pytest.mark.slow) for name in NETWORKS]


def network(name: str, seed: int = 3) -> Trained:
    """Its batch norms have running statistics of their own, so that evaluation is no accident."""
    source, sets = NETWORKS[name]
    spec = load(MODELS / source if isinstance(source, str) else source, sets={"data": DATA, "train": TRAIN, **sets})
    trained = as_started(as_written(spec), seed)
    with torch.no_grad():
        trained.network.train()(torch.randn(13, *trained.variant.shape))
    trained.network.eval()
    return trained


def images(trained: Trained, count: int) -> Tensor:
    return torch.randn(count, *trained.variant.shape)


@pytest.mark.parametrize("name", NETWORKS)
def test_weights_come_back_bit_equal_with_what_they_are(tmp_path: Path, name: str) -> None:
    trained = network(name)
    done = export(trained, "safetensors", tmp_path / "a.safetensors")
    with safe_open(done.file, "pt") as file:
        facts, found = file.metadata(), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    wanted = trained.network.state_dict()
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[key], wanted[key]) for key in wanted)
    assert facts["identity"] == trained.variant.identity
    assert (facts["seed"], facts["weights"]) == ("3", "as started")
    assert done.checked == (
        f"{len(wanted)} weights read back: equal bit for bit; outputs for batches of 1, 2, 5 equal bit for bit"
    )


@pytest.mark.parametrize("name", marked("small", "vit"))
def test_an_exported_program_gives_bit_equal_outputs_for_any_batch(tmp_path: Path, name: str) -> None:
    trained = network(name)
    done = export(trained, "torch-export", tmp_path / "a.pt2")
    extra = {"ablate.json": ""}
    program = torch.export.load(done.file, extra_files=extra).module()
    assert json.loads(extra["ablate.json"])["fingerprint"] == trained.variant.network.graph.fingerprint
    for count in (1, 3, 11):
        x = images(trained, count)
        assert torch.equal(program(x), trained.network(x))


def by_onnxruntime(file: Path, x: Tensor) -> Tensor:
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    assert [value.name for value in (*session.get_inputs(), *session.get_outputs())] == ["images", "scores"]
    return torch.from_numpy(session.run(["scores"], {"images": x.numpy()})[0])


@pytest.mark.parametrize("name", marked("small"))
def test_onnxruntime_gives_the_networks_outputs(tmp_path: Path, name: str) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    trained = network(name)
    done = export(trained, "onnx", tmp_path / "a.onnx")
    assert done.checked.startswith("by onnxruntime: outputs for batches of 1, 2, 5 equal")
    for count in (1, 3):
        x = images(trained, count)
        wanted = trained.network(x).detach()
        assert (by_onnxruntime(done.file, x) - wanted).abs().max() <= 1e-5 * max(1.0, float(wanted.abs().max()))
    facts = {entry.key: entry.value for entry in onnx.load(done.file).metadata_props}
    assert facts["identity"] == trained.variant.identity


# ---- weights as trained ----

STUDY = """\
name: small
data: {name: fake, shape: [3, 11, 13], classes: 5, count: {train: 29, test: 7}}
train: {epochs: 1, batch_size: 7, optimizer: {name: sgd, lr: 0.1}}
network:
  graph:
    stem: {block: conv_bn_act, width: 7, kernel: 3}
    head: {block: classifier}
  insert:
    gate: {block: se, at: after stem}
ablation:
  seeds: 2
  design: variants
  variants:
    after:  {}
    before: {network.insert.gate.at: before head}
    wide:   {network.graph.stem.width: 11}
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a trained study, beside its spec, ``small.yaml``."""
    from ablate.prepare import prepare
    from ablate.sweeping import sweep

    folder = tmp_path_factory.mktemp("export")
    (folder / "small.yaml").write_text(STUDY)
    sweep(prepare(study_plan(load(folder / "small.yaml")), folder=folder / "run"), executor="local")
    return folder


def weights_of(folder: Path, variant: str, seed: int) -> dict[str, Tensor]:
    """What the variant's trial ended with."""
    record = next(record for record in ablate.Study(folder).variants if record["name"] == variant)
    path = folder / "trials" / record["trials"][str(seed)] / "checkpoint.pt"
    state: dict[str, Tensor] = torch.load(path, weights_only=True)
    return state


def test_a_study_gives_the_weights_that_the_trial_of_that_seed_ended_with(study: Path) -> None:
    spec = ablate.load(study / "small.yaml")
    for seed in (0, 1):
        target = study / f"wide{seed}.safetensors"
        done = ablate.export(spec, variant="wide", seed=seed, study=study / "run", to="safetensors", file=target)
        wanted = weights_of(study / "run", "wide", seed)
        with safe_open(target, "pt") as file:
            assert dict.fromkeys(wanted, True) == {
                key: torch.equal(file.get_tensor(key), wanted[key]) for key in wanted
            }
        assert done.origin.startswith(f"trained in {study / 'run'}, trial ")
    assert not torch.equal(weights_of(study / "run", "wide", 0)["stem.conv.weight"], wanted["stem.conv.weight"])


def test_a_duplicate_has_the_weights_of_its_original_under_its_own_names(study: Path) -> None:
    plan = study_plan(load(study / "small.yaml"))
    assert plan.variant("before").duplicate_of == "after"
    trained = as_trained(plan, study / "run", "before", 1)
    found, wanted = trained.network.state_dict(), weights_of(study / "run", "after", 1)
    assert found.keys() != wanted.keys()
    assert torch.equal(found["head_in_gate.fc1.weight"], wanted["stem_gate.fc1.weight"])
    original = as_trained(plan, study / "run", "after", 1).network
    x = torch.randn(3, 3, 11, 13)
    assert torch.equal(trained.network(x), original(x))


@pytest.mark.parametrize(
    ("variant", "seed", "sets", "words"),
    [
        ("wide", 7, {}, "has no trial of seed 7; its seeds: 0, 1"),
        ("wider", 0, {}, "has no variant 'wider'; did you mean 'wide'?"),
        (None, None, {}, "which variant of the study?"),
        ("wide", 0, {"train.epochs": 2}, "'wide' of RUN is another network, recipe or data than this spec's"),
    ],
)
def test_what_the_study_has_not_is_an_error(
    study: Path, variant: str | None, seed: int | None, sets: dict[str, Any], words: str
) -> None:
    with pytest.raises(UserError) as error:
        as_trained(study_plan(load(study / "small.yaml", sets=sets)), study / "run", variant, seed)
    assert words.replace("RUN", str(study / "run")) in str(error.value)


# ---- refusals ----


def test_an_export_that_comes_back_as_another_network_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    genuine = torch.export.load

    def faulty(file: io.BytesIO) -> Any:
        program = genuine(file)
        with torch.no_grad():
            program.state_dict["head.fc.bias"][2] += 1e-3
        return program

    monkeypatch.setattr(torch.export, "load", faulty)
    with pytest.raises(UserError, match="gives other outputs than the network: they differ by"):
        export(network("small"), "torch-export", tmp_path / "a.pt2")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("to", "file", "words"),
    [
        ("onxx", "a.onnx", "no format 'onxx'; did you mean 'onnx'?"),
        ("onnx", "a.pt2", "'a.pt2' is no name for onnx; it ends in .onnx"),
        ("safetensors", "nowhere/a.safetensors", "'nowhere' is no folder"),
    ],
)
def test_a_format_or_a_file_that_is_none_is_an_error(to: Any, file: str, words: str) -> None:
    with pytest.raises(UserError) as error:
        export(network("small"), to, Path(file))
    assert words in str(error.value)


def test_missing_packages_are_named_with_the_line_that_installs_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "find_spec", lambda name: None)
    with pytest.raises(UserError) as error:
        export(network("small"), "onnx", tmp_path / "a.onnx")
    assert str(error.value) == "ONNX needs the packages onnx and onnxscript; pip install 'ablate-harness[export]'"


@pytest.mark.parametrize("to", ["safetensors", "torch-export"])
def test_weights_that_are_not_finite_leave_as_they_are_and_that_is_said(tmp_path: Path, to: Any) -> None:
    trained = network("small")
    with torch.no_grad():
        trained.network.get_parameter("head.fc.weight")[2] = float("nan")
        trained.network.get_parameter("head.fc.bias")[3] = float("inf")
    done = export(trained, to, tmp_path / f"a{exporting.SUFFIXES[to]}")
    assert "equal bit for bit, and not finite, as the network gives them" in done.checked


@pytest.mark.parametrize("value", [float("nan"), float("-inf"), 0.0])
def test_other_outputs_than_the_networks_infinities_are_found(value: float) -> None:
    trained = network("small")
    with torch.no_grad():
        trained.network.get_parameter("head.fc.bias")[3] = float("inf")

    def run(x: Tensor) -> Tensor:
        return trained.network(x).masked_fill(torch.arange(7) == 3, value)

    with pytest.raises(UserError, match="gives other outputs"):
        exporting._compared(run, trained)


def test_a_file_that_nobody_named_has_a_name_of_its_own_and_overwrites_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    trained = network("small")
    names: list[str] = []
    for index, name in enumerate(["a" * 200, "a" * 200 + "b", "se/2", "se 2", "…"]):
        trained.variant.name = name
        trained.variant.__dict__["identity"] = f"{index:08x}"  # theirs is of networks that differ
        names.append(exporting._file_name(trained, "safetensors"))
    assert len(set(names)) == len(names)
    assert all(name.endswith("-seed3.safetensors") and len(name) < 200 for name in names)
    trained.variant.name = "plain.2"
    file = export(trained, "safetensors").file
    assert str(file) == "plain.2-seed3.safetensors"
    with pytest.raises(UserError, match=r"is there already; -o plain\S+ overwrites it"):
        export(trained, "safetensors")
    export(trained, "safetensors", file)
    with pytest.raises(UserError, match="is a folder; name the file in it: "):
        export(trained, "safetensors", tmp_path)


# ---- the command ----


def test_the_command_writes_a_file_that_a_spec_can_start_from(
    study: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(study)
    assert (
        main(["export", "small.yaml", "--variant", "wide", "--seed", "1", "--study", "run", "--to", "safetensors"]) == 0
    )
    wrote, checked, following = capsys.readouterr().out.splitlines()
    assert wrote.startswith("wrote wide-seed1.safetensors: wide, seed 1, trained in run, trial ")
    assert "equal bit for bit" in checked
    arguments = following.removeprefix("next: ablate plan small.yaml ").split()
    assert arguments == ["--set", "network.init.from=wide-seed1.safetensors", "--set", "network.init.strict=false"]
    spec = load("small.yaml", sets=arguments[1::2])
    started = study_plan(spec).variant("wide").network.built(5).state_dict()
    assert torch.equal(started["stem.conv.weight"], weights_of(study / "run", "wide", 1)["stem.conv.weight"])


def test_without_a_study_the_command_writes_what_training_would_start_from(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "w.safetensors"
    assert main(["export", str(study / "small.yaml"), "--seed", "2", "--to", "safetensors", "-o", str(target)]) == 0
    assert "seed 2, as started" in capsys.readouterr().out
    wanted = ablate.build(ablate.load(study / "small.yaml"), seed=2).state_dict()
    with safe_open(target, "pt") as file:
        assert all(torch.equal(file.get_tensor(key), wanted[key]) for key in wanted)


def test_the_next_command_can_be_typed_whatever_the_file_is_called(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / """it's "$HOME".pt2"""
    assert main(["export", str(study / "small.yaml"), "--to", "torch-export", "-o", str(target)]) == 0
    following = capsys.readouterr().out.splitlines()[-1]
    python, option, code = shlex.split(following.removeprefix("next: "))
    assert (python, option) == ("python", "-c")
    assert str(target) in [node.value for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Constant)]


def test_a_wrong_seed_ends_the_command_with_2(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(study / "small.yaml"), "--seed", "-2", "--to", "onnx"]) == 2
    assert "--seed -2: a seed is at least 0" in capsys.readouterr().err
