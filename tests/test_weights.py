"""Weights that a network starts from: renaming, reading files that may be hostile, matching, and what comes of it."""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn

from ablate.certify import Certifier
from ablate.data.dataset import load as load_data
from ablate.design import StudyPlan, as_written, study_plan
from ablate.design.variant import Variant, trial_hash
from ablate.errors import UserError
from ablate.numerics import Numerics
from ablate.spec import load
from ablate.store import Study
from ablate.train import train, trial_of
from ablate.weights import WeightsChanged, checkpoint, rename_keys, sources
from tests.conftest import REPOSITORY
from tests.networks import RESNET20, HandResNet20

DATA = {"name": "fake", "shape": [3, 11, 13], "classes": 5, "count": {"train": 29, "test": 7}, "val": 0.3}
TRAIN = {"epochs": 1, "batch_size": 7, "optimizer": {"name": "sgd", "lr": 0.1}}
GRAPH = {
    "stem": {"block": "conv_bn_act", "width": 7, "kernel": 3},
    "body": {"block": "basic", "width": 7},
    "head": {"block": "classifier"},
}
State = dict[str, Tensor]


# ---- renaming ----


def test_the_first_rule_that_matches_a_whole_name_acts_and_others_keep_theirs() -> None:
    state = {"module.fc.weight": 2, "module.conv.weight": 3, "module": 5, "my.module.x": 7}
    rules = {r"module\.fc\.(?P<kind>.*)": r"head.\g<kind>", r"module\.(.*)": r"\1"}
    assert rename_keys(state, rules) == {"head.weight": 2, "conv.weight": 3, "module": 5, "my.module.x": 7}


def test_what_is_renamed_once_is_not_renamed_again() -> None:
    assert rename_keys({"a": 1, "b": 2}, {"a": "b", "b": "a"}) == {"b": 1, "a": 2}


@given(st.sets(st.from_regex(r"[a-z]{1,3}(\.[a-z0-9]{1,3}){0,3}", fullmatch=True), min_size=1, max_size=7))
def test_a_prefix_that_is_put_before_all_names_and_taken_off_leaves_them(names: set[str]) -> None:
    state = {name: index for index, name in enumerate(sorted(names))}
    there = rename_keys(state, {"(.*)": r"module.\1"})
    assert all(name.startswith("module.") for name in there)
    assert rename_keys(there, {r"module\.(.*)": r"\1"}) == state


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ({"a|b": "c"}, "'a' and 'b' both become 'c'"),
        ({"a": "b"}, "'a' and 'b' both become 'b'"),
        ({"layer1.conv3.weight": "x"}, "matches no name in the file; nearest: 'layer1.conv1.weight'"),
        ({"[ab].*": r"x\g<0>", "a": "y"}, "acts on nothing: '[ab].*', which comes first, takes 'a'"),
        ({"a(": "x"}, "'a(' is no regular expression: missing ), unterminated subpattern"),
        ({"a": r"\1"}, "is no replacement: invalid group reference 1"),
        ({"(a)": r"\g<kind>"}, "unknown group name 'kind'"),
        ({"(a)": "x$1"}, r"names no group; write \1"),
        ({"a" * 201: "x"}, "a rule of more than 200 characters"),
    ],
)
def test_a_wrong_rule_is_an_error_that_says_why(rules: dict[str, str], words: str) -> None:
    with pytest.raises(UserError) as error:
        rename_keys({"a": 1, "b": 2, "layer1.conv1.weight": 3}, rules)
    assert words in str(error.value)


@pytest.mark.parametrize(
    "pattern", ["(a+)+b", "(a|a)*b", "(a|aa)+b", "((a?)b?){9}", "(.*a){11}", ".*" * 12 + "b", "(a?)" * 45 + "b"]
)
def test_an_expression_that_could_take_for_ever_is_refused(pattern: str) -> None:
    with pytest.raises(UserError, match=r"repeat within a repeat|may take too long"):
        rename_keys({"a" * 300: 1, "x": 2}, {pattern: "c"})


@pytest.mark.parametrize(
    "pattern",
    [
        "(?:(?=a){9000}){90000}.*",
        "((()){9000}){900000}.*",
        "(?:(?:a{0}){60000}){60000}.*",
        r"(?:(?:\b){9000}){90000}.*",
        r"(a{0})(?:\1{9000}){90000}.*",
        "(?:(?=(?:(?=(?:(?=a{300})a){300})a){300})a){300}.*",
    ],
)
def test_repeats_of_what_takes_no_character_are_refused(pattern: str) -> None:
    with pytest.raises(UserError, match=r"takes no character may take for ever|may take too long"):
        rename_keys({"a" * 300: 1, "x": 2}, {pattern: "c"})


def test_repeats_within_one_another_are_looked_through_once() -> None:
    """Each level looked at twice takes 2²⁷ looks."""
    assert rename_keys({"x": 2, "a": 3}, {"(?:" * 27 + "a" + "){2}" * 27 + "|a": "c"}) == {"x": 2, "c": 3}


def test_a_lookahead_before_each_character_is_no_slow_expression() -> None:
    names = {f"layer{i}.conv.weight": i for i in range(101)}
    renamed = rename_keys(names, {r"((?:(?!bn).)*)\.conv\.(.*)": r"\1.c.\2"})
    assert renamed == {f"layer{i}.c.weight": i for i in range(101)}


def test_expressions_that_names_need_are_not_taken_for_slow_ones() -> None:
    rule = r"(?:module\.)?layer(\d+)\.(\d+)\.(?!fc)(conv|bn)(\d)\.(.+)"
    names = [f"module.layer{i}.{j}.{k}1.weight" for i in range(1, 5) for j in range(23) for k in ("conv", "bn")]
    renamed = rename_keys(dict.fromkeys(names, 0), {rule: r"stage\1.\2.\3\4.\5"})
    assert "stage4.22.bn1.weight" in renamed


# ---- files ----


class RunsCode:
    """Unpickled, it writes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return (exec, (f"open({str(self.marker)!r}, 'w').close()",))


def small() -> State:
    return {"a.weight": torch.randn(3, 5), "a.count": torch.tensor(7)}


def same(one: Any, other: Any) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as error:
        checkpoint.read(path)
    return str(error.value)


@pytest.mark.parametrize("kind", ["safetensors", "pt", "pth"])
def test_tensors_come_back_from_each_kind_of_file(tmp_path: Path, kind: str) -> None:
    state, path = small(), tmp_path / f"a.{kind}"
    if kind == "safetensors":
        save_file(state, path)
    else:  # .pth as torch wrote it before 1.6
        torch.save(state, path, _use_new_zipfile_serialization=kind == "pt")
    found = checkpoint.read(path)
    assert same(found.tensors, state)
    assert found.taken == ""


@pytest.mark.parametrize("holder", ["state_dict", "model", "model_state_dict"])
def test_weights_within_a_checkpoint_are_found_and_where_is_said(tmp_path: Path, holder: str) -> None:
    state, path = small(), tmp_path / "a.pt"
    torch.save({"epoch": 3, holder: state, "optimizer": {"lr": 0.1}}, path)
    found = checkpoint.read(path)
    assert same(found.tensors, state)
    assert (found.taken, found.beside) == (holder, ("epoch", "optimizer"))


def test_a_tensor_beside_the_weights_is_not_taken_for_them(tmp_path: Path) -> None:
    state, path = small(), tmp_path / "a.pt"
    torch.save({"step": torch.tensor(3), "state_dict": state}, path)
    found = checkpoint.read(path)
    assert same(found.tensors, state)
    assert (found.taken, found.beside) == ("state_dict", ("step",))


def test_a_file_that_changed_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    for value in (2.0, 3.0):
        save_file({"a": torch.full((5,), value)}, path)
        assert checkpoint.read(path).tensors["a"][0] == value


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(tmp_path: Path, zipped: bool) -> None:
    path, marker = tmp_path / "a.pt", tmp_path / "ran"
    torch.save({"a": torch.ones(3), "b": RunsCode(marker)}, path, _use_new_zipfile_serialization=zipped)
    said = refusal(path)
    assert "would run code when it is read: it names 'exec', which would run" in said
    assert "torch.save(model.state_dict()" in said
    path.write_bytes(pickle.dumps(RunsCode(marker)))
    refusal(path)
    assert not marker.exists()
    pickle.loads(path.read_bytes())
    assert marker.exists(), "the file that was refused would have run"


def test_a_whole_module_is_refused_with_its_class(tmp_path: Path) -> None:
    torch.save(nn.Linear(3, 5), tmp_path / "a.pt")
    assert "it names 'torch.nn.modules.linear.Linear', which would run" in refusal(tmp_path / "a.pt")


def test_files_that_are_no_checkpoints_are_refused_with_what_they_look_like(tmp_path: Path) -> None:
    torch.save(small(), tmp_path / "good.pt")
    save_file(small(), tmp_path / "good.safetensors")
    good, safe = (tmp_path / "good.pt").read_bytes(), (tmp_path / "good.safetensors").read_bytes()
    cases: dict[str, tuple[bytes, str]] = {
        "json.pt": (b'{"a": [1, 2]}', "looks like JSON"),
        "json.safetensors": (b'{"a": [1, 2]}', "looks like JSON"),
        "page.pth": (b"<!DOCTYPE html><html>", "looks like a web page"),
        "pointer.pt": (b"version https://git-lfs.github.com/spec/v1", "pointer of Git LFS"),
        "empty.pt": (b"", "it is empty"),
        "cut.pt": (good[: len(good) // 2], "cut short"),
        "cut.safetensors": (safe[:-3], "cut short"),
        "torch.safetensors": (good, "looks like a torch file"),
        "safe.pt": (safe, "looks like a safetensors file"),
        "damaged.pt": (good.replace(b"ctorch._utils", b"ctorch._xtils"), "would run code"),
    }
    for name, (content, words) in cases.items():
        (tmp_path / name).write_bytes(content)
        said = refusal(tmp_path / name)
        assert words in said, (name, said)
        assert str(tmp_path / name) in said


def doubled(times: int) -> Any:
    value: Any = (1, 2)
    for _ in range(times):
        value = (value, value)
    return value


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("where", ["value", "set"])
def test_tuples_that_would_take_for_ever_to_hash_are_refused(tmp_path: Path, zipped: bool, where: str) -> None:
    class Hashed:
        def __reduce__(self) -> Any:
            return (set, ([doubled(45)],))

    path = tmp_path / "a.pt"
    content = {"a": torch.ones(3), "b": Hashed() if where == "set" else doubled(45)}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    assert "tuples within tuples that would take for ever to read" in refusal(path)


@pytest.mark.parametrize("zipped", [True, False])
def test_what_checkpoints_hold_beside_weights_is_not_refused(tmp_path: Path, zipped: bool) -> None:
    network = nn.Sequential(nn.Conv2d(3, 7, 3), nn.BatchNorm2d(7), nn.Conv2d(7, 5, 1))
    optimizer = torch.optim.AdamW(network.parameters(), betas=(0.9, 0.95))
    network(torch.randn(2, 3, 11, 11)).sum().backward()
    optimizer.step()
    beside = {"size": torch.Size([3, 5]), "names": tuple(f"class {i}" for i in range(1000)), ("a", (2, 3)): {5: None}}
    content = {"model": network.state_dict(), "optimizer": optimizer.state_dict(), "shape": ((2, 3), (5,)), **beside}
    torch.save(content, tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
    assert same(checkpoint.read(tmp_path / "a.pt").tensors, network.state_dict())


def test_a_key_of_tuples_is_refused_before_it_is_hashed(tmp_path: Path) -> None:
    """{(…): 1} behind the magic number and the protocol, as files were before torch 1.6."""
    head = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}."
    key = b"K\x01" + b"q\x00h\x00\x86" * 45
    (tmp_path / "a.pt").write_bytes(head + b"\x80\x02}" + key + b"K\x01s.")
    assert "tuples within tuples that would take for ever to read" in refusal(tmp_path / "a.pt")


def test_a_compressed_archive_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", b"\0" * 10_000_000)
    assert "is a compressed archive" in refusal(tmp_path / "bomb.pt")


def test_limits_of_size_and_of_names_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_file({"a" * 301: torch.ones(2)}, tmp_path / "long.safetensors")
    assert "a name of 301 characters, at most 300" in refusal(tmp_path / "long.safetensors")
    save_file(small(), tmp_path / "big.safetensors")
    monkeypatch.setattr(checkpoint, "MOST_BYTES", 50)
    assert "bytes; at most 50" in refusal(tmp_path / "big.safetensors")


def test_a_file_without_tensors_says_what_it_holds(tmp_path: Path) -> None:
    torch.save({"epoch": 3, "weights": {"x": 1}}, tmp_path / "a.pt")
    assert "holds no weights: it is a mapping with 'epoch', 'weights'" in refusal(tmp_path / "a.pt")
    torch.save([torch.ones(2)], tmp_path / "b.pt")
    assert "holds no weights: it is a list" in refusal(tmp_path / "b.pt")


# ---- a network that starts from them ----


def variant(folder: Path, init: dict[str, Any], sets: list[str] | None = None, **network: Any) -> Variant:
    """The spec of a small network in ``folder``, as written."""
    section = {"graph": GRAPH, **network, "init": init}
    path = folder / "spec.yaml"
    path.write_text(json.dumps({"name": "small", "data": DATA, "train": TRAIN, "network": section}))
    return as_written(load(path, sets=sets or []))


def said(folder: Path, init: dict[str, Any], **network: Any) -> list[str]:
    with pytest.raises(UserError) as error:
        variant(folder, init, **network)
    return [str(problem) for problem in error.value.problems]


@pytest.fixture
def other(tmp_path: Path) -> State:
    """Weights of the same network with another seed, in ``w.safetensors``."""
    state: State = {k: v.clone() for k, v in variant(tmp_path, {}).network.built(41).state_dict().items()}
    save_file(state, tmp_path / "w.safetensors")
    return state


def test_a_network_starts_from_the_weights_that_it_names(tmp_path: Path, other: State) -> None:
    found = variant(tmp_path, {"from": "w.safetensors"})
    assert same(found.network.built(2).state_dict(), other)
    assert same(found.network.built(3).state_dict(), other)


def test_a_resnet_written_by_hand_gives_its_outputs_through_renamed_weights(tmp_path: Path) -> None:
    """Names of another program, and an implementation that is not ours."""
    torch.manual_seed(3)
    hand = HandResNet20(classes=5)
    with torch.no_grad():
        for parameter in hand.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    torch.save({"state_dict": {f"module.{k}": v for k, v in hand.state_dict().items()}, "epoch": 2}, tmp_path / "h.pt")
    rename = {
        r"module\.(conv|bn)\.(.*)": r"stem.\1.\2",
        r"module\.stages\.0\.(.*)": r"stage1.\1",
        r"module\.stages\.1\.(.*)": r"stage2.\1",
        r"module\.stages\.2\.(.*)": r"stage3.\1",
        r"module\.(fc\..*)": r"head.\1",
    }
    network = json.loads(json.dumps(yaml_of(RESNET20)))
    built = variant(tmp_path, {"from": "h.pt", "rename": rename}, **network).network.built(0)
    x = torch.randn(3, 3, 11, 13)
    for mode in (True, False):
        assert torch.equal(built.train(mode)(x), hand.train(mode)(x))


def yaml_of(text: str) -> Any:
    from ablate import yamlfile

    return yamlfile.loads(text, "text")


def test_a_missing_an_extra_and_an_unfit_weight_are_all_said_with_place_and_nearest_name(
    tmp_path: Path, other: State
) -> None:
    other["head.fc.weigth"] = other.pop("head.fc.weight")
    other["stem.conv.weight"] = torch.zeros(7, 3, 5, 5)
    save_file(other, tmp_path / "w.safetensors")
    lines = said(tmp_path, {"from": "w.safetensors"})
    assert all(line.startswith(str(tmp_path / "spec.yaml:1:")) and "network.init.from: " in line for line in lines)
    text = "\n".join(lines)
    assert "the file has no weight for 'head.fc.weight'; nearest in the file: 'head.fc.weigth'" in text
    assert "'head.fc.weigth' belongs to no weight of the network; nearest that lacks one: 'head.fc.weight'" in text
    assert "'stem.conv.weight' has shape (7, 3, 5, 5), and the network's is (7, 3, 3, 3)" in text
    assert len(lines) == 3


def test_what_strict_false_leaves_out_is_as_initialised_and_listed(tmp_path: Path, other: State) -> None:
    other["head.fc.weigth"] = other.pop("head.fc.weight")
    save_file(other, tmp_path / "w.safetensors")
    found = variant(tmp_path, {"from": "w.safetensors", "strict": False})
    own = variant(tmp_path, {}).network.built(5).state_dict()
    built = found.network.built(5).state_dict()
    assert torch.equal(built["head.fc.weight"], own["head.fc.weight"])
    assert torch.equal(built["stem.conv.weight"], other["stem.conv.weight"])
    weights = found.network.weights
    assert weights is not None
    facts = weights.facts(0)
    assert (facts["as_initialised"], facts["left_over"]) == (["head.fc.weight"], ["head.fc.weigth"])
    assert weights.in_words() == (
        f"Training starts from w.safetensors: {len(own) - 1} of {len(own)} parameters and buffers, and 1 of the file's "
        "are not used."
    )


def test_a_file_from_before_batch_norm_counted_batches_loads_and_the_counts_are_listed(
    tmp_path: Path, other: State
) -> None:
    """torch reads such files too, also strictly: its own ResNet-18's weights were one."""
    old = {name: value for name, value in other.items() if not name.endswith("num_batches_tracked")}
    counts = sorted(other.keys() - old.keys())
    save_file(old, tmp_path / "w.safetensors")
    weights = variant(tmp_path, {"from": "w.safetensors"}).network.weights
    assert counts
    assert weights is not None
    assert sorted(weights.facts(0)["as_initialised"]) == counts


def test_one_count_that_is_missing_beside_others_is_a_mistake(tmp_path: Path, other: State) -> None:
    name = next(name for name in other if name.endswith("num_batches_tracked"))
    save_file({key: value for key, value in other.items() if key != name}, tmp_path / "w.safetensors")
    assert f"the file has no weight for '{name}'" in said(tmp_path, {"from": "w.safetensors"})[0]


def test_a_file_of_which_nothing_fits_is_an_error_even_when_not_strict(tmp_path: Path) -> None:
    save_file({"x": torch.ones(2)}, tmp_path / "w.safetensors")
    assert "no weight of the file has a name" in said(tmp_path, {"from": "w.safetensors", "strict": False})[0]


def test_counts_of_batches_alone_are_no_weights_to_start_from(tmp_path: Path, other: State) -> None:
    counts = {name: value for name, value in other.items() if name.endswith("num_batches_tracked")}
    assert counts
    save_file(counts, tmp_path / "w.safetensors")
    assert "of a parameter's; the file has " in said(tmp_path, {"from": "w.safetensors", "strict": False})[0]


def test_a_rule_that_is_there_is_not_advised_again(tmp_path: Path, other: State) -> None:
    there = {f"module.{name}": tensor for name, tensor in (other | {"x": torch.ones(2)}).items()}
    save_file(there, tmp_path / "w.safetensors")
    lines = said(tmp_path, {"from": "w.safetensors", "rename": {r"module\.(.*)": r"\1"}})
    assert len(lines) == 1
    assert "DataParallel" not in lines[0]
    assert "init.rename maps names" in lines[0]


def test_the_prefix_of_data_parallel_is_named_and_not_taken_off(tmp_path: Path, other: State) -> None:
    torch.save({f"module.{name}": tensor for name, tensor in other.items()}, tmp_path / "w.pt")
    assert r"rename: {'module\.(.*)': '\1'}" in said(tmp_path, {"from": "w.pt"})[-1]
    found = variant(tmp_path, {"from": "w.pt", "rename": {r"module\.(.*)": r"\1"}})
    assert same(found.network.built(0).state_dict(), other)


def test_a_wrong_rule_is_said_at_its_place(tmp_path: Path, other: State) -> None:
    lines = said(tmp_path, {"from": "w.safetensors", "rename": {"stem.cnv.weight": "x"}})
    assert "network.init.rename.stem.cnv.weight: matches no name in the file; nearest: 'stem.conv.weight'" in lines[0]
    line = said(tmp_path, {"from": "w.safetensors", "rename": {"stem.*weight": "x"}})[0]
    assert "network.init.rename: 'stem." in line
    assert "both become 'x'" in line


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("stem.conv.weight", float("nan"), "holds values that are not finite: 'stem.conv.weight'"),
        ("head.fc.bias", float("-inf"), "holds values that are not finite: 'head.fc.bias'"),
        ("body.bn1.running_mean", float("inf"), "holds values that are not finite: 'body.bn1.running_mean'"),
        ("body.bn2.running_var", -0.5, "holds a variance below 0 (-0.5): 'body.bn2.running_var'"),
    ],
)
def test_values_that_no_training_leaves_are_refused(
    tmp_path: Path, other: State, name: str, value: float, words: str
) -> None:
    other[name].view(-1)[2] = value
    save_file(other, tmp_path / "w.safetensors")
    assert words in said(tmp_path, {"from": "w.safetensors"})[0]


def test_values_beyond_the_networks_precision_are_refused(tmp_path: Path, other: State) -> None:
    save_file(other | {"head.fc.bias": other["head.fc.bias"].double() + 1e300}, tmp_path / "w.safetensors")
    assert "holds values that are not finite as float32" in said(tmp_path, {"from": "w.safetensors"})[0]


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("rename", [{}, {r"(head\.fc\.)weight": [r"\1a", r"\1b"]}])
def test_tensors_without_a_shape_are_refused(tmp_path: Path, other: State, rename: dict[str, Any]) -> None:
    other["head.fc.weight"] = torch.nested.nested_tensor([torch.ones(2, 3), torch.ones(3, 3)])
    torch.save(other, tmp_path / "n.pt")
    lines = "\n".join(said(tmp_path, {"from": "n.pt", "rename": rename}))
    assert "'head.fc.weight' " in lines
    assert "nested, sparse, quantised, or without values" in lines


def test_another_precision_is_converted_and_listed_and_another_kind_is_refused(tmp_path: Path, other: State) -> None:
    half = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in other.items()}
    save_file(half, tmp_path / "w.safetensors")
    found = variant(tmp_path, {"from": "w.safetensors"})
    weights = found.network.weights
    assert weights is not None
    assert weights.facts(0)["converted"] == [name for name in other if other[name].is_floating_point()]
    assert torch.equal(found.network.built(0).state_dict()["head.fc.bias"], half["head.fc.bias"].float())
    half["head.fc.bias"] = torch.ones(5, dtype=torch.int64)
    save_file(half, tmp_path / "w.safetensors")
    assert "'head.fc.bias' holds int64, and the network's float32" in said(tmp_path, {"from": "w.safetensors"})[0]


def test_what_init_set_states_goes_over_what_is_loaded(tmp_path: Path, other: State) -> None:
    other["head.fc.weight"] = torch.zeros(11, 7)  # of another number of classes
    other["body.bn2.running_mean"] += 2
    save_file(other, tmp_path / "w.safetensors")
    starts = {"head": "kaiming_fan_out", "body.bn2": "zero"}
    built = variant(tmp_path, {"from": "w.safetensors", "set": starts}).network.built(5).state_dict()
    own = variant(tmp_path, {}).network.built(5).state_dict()
    assert torch.equal(built["head.fc.weight"], own["head.fc.weight"])
    assert torch.equal(built["body.bn2.weight"], torch.zeros(7))
    assert torch.equal(built["body.bn2.running_mean"], other["body.bn2.running_mean"])
    assert torch.equal(built["body.conv1.weight"], other["body.conv1.weight"])


@pytest.mark.parametrize("key", ["rename", "strict", "download"])
def test_a_key_about_weights_without_any_is_an_error(tmp_path: Path, key: str) -> None:
    value: Any = {"a": "b"} if key == "rename" else key == "download"
    assert f"network.init.{key}: has no use without init.from" in said(tmp_path, {key: value})[0]


def test_a_pattern_that_would_steer_a_terminal_is_escaped_where_it_is_wrong(tmp_path: Path, other: State) -> None:
    line = said(tmp_path, {"from": "w.safetensors", "rename": {"x\u202e\u009b2J": "y"}})[0]
    assert line.isprintable()
    assert r"network.init.rename.x\u202e\x9b2J" in line


# ---- identity ----


def test_the_identity_has_what_is_loaded_and_neither_the_file_nor_its_names(tmp_path: Path, other: State) -> None:
    plain = variant(tmp_path, {})
    found = variant(tmp_path, {"from": "w.safetensors"})
    torch.save({f"m.{name}": tensor for name, tensor in other.items()}, tmp_path / "elsewhere.pt")
    moved = variant(tmp_path, {"from": "elsewhere.pt", "rename": {r"m\.(.*)": r"\1"}})
    assert found.identity == moved.identity != plain.identity
    assert found.identity_parts.keys() == plain.identity_parts.keys()
    assert "weights" not in plain.identity_parts["init"]
    other["stem.conv.weight"][0, 0, 0, 0] += 1e-6
    save_file(other, tmp_path / "w.safetensors")
    assert variant(tmp_path, {"from": "w.safetensors"}).identity != found.identity


def test_what_is_not_loaded_is_no_part_of_the_identity(tmp_path: Path, other: State) -> None:
    one = variant(tmp_path, {"from": "w.safetensors", "strict": False}).identity
    save_file(other | {"more": torch.ones(2)}, tmp_path / "w.safetensors")
    assert variant(tmp_path, {"from": "w.safetensors", "strict": False}).identity == one


def test_the_same_weights_at_other_places_are_another_network(tmp_path: Path, other: State) -> None:
    """A digest over the values alone would take them for one."""
    one = variant(tmp_path, {"from": "w.safetensors"}).identity
    rename = {r"body\.conv1\.(.*)": r"body.conv2.\1", r"body\.conv2\.(.*)": r"body.conv1.\1"}
    assert variant(tmp_path, {"from": "w.safetensors", "rename": rename}).identity != one


def test_a_recipe_that_starts_nothing_is_no_part_of_the_identity(tmp_path: Path, other: State) -> None:
    init: dict[str, Any] = {"from": "w.safetensors"}
    recipes = [{"recipe": name} for name in ("torch_default", "trunc_normal")]
    assert len({variant(tmp_path, init | each).identity for each in recipes}) == 1
    anew = init | {"set": {"head": {"normal": 0.3}}}
    assert len({variant(tmp_path, anew | each).identity for each in recipes}) == 1
    del other["head.fc.weight"]
    save_file(other, tmp_path / "w.safetensors")
    assert len({variant(tmp_path, init | each | {"strict": False}).identity for each in recipes}) == 2
    assert len({variant(tmp_path, each).identity for each in recipes}) == 2


def test_levels_of_a_recipe_that_starts_nothing_are_refused(tmp_path: Path, other: State) -> None:
    network = {"graph": GRAPH, "init": {"from": "w.safetensors"}}
    levels = {"as is": {}, "other": {"network.init.recipe": "trunc_normal"}}
    ablation = {"seeds": 1, "factors": {"start": levels}, "baseline": {"start": "as is"}}
    path = tmp_path / "spec.yaml"
    path.write_text(json.dumps({"name": "s", "data": DATA, "train": TRAIN, "network": network, "ablation": ablation}))
    with pytest.raises(UserError, match=r"setting network\.init\.recipe changes nothing"):
        study_plan(load(path))


def test_axes_of_size_one_at_the_end_of_a_weight_change_no_identity(tmp_path: Path, other: State) -> None:
    one = variant(tmp_path, {"from": "w.safetensors"}).identity
    other["head.fc.weight"] = other["head.fc.weight"][..., None, None]
    save_file(other, tmp_path / "w.safetensors")
    found = variant(tmp_path, {"from": "w.safetensors"})
    assert torch.equal(found.network.built(0).get_parameter("head.fc.weight"), other["head.fc.weight"][..., 0, 0])
    assert found.identity == one


# ---- what a spec may reach ----


def test_a_file_outside_the_specs_folder_is_refused_unless_the_command_line_names_it(
    tmp_path: Path, other: State
) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    (inner / "link.safetensors").symlink_to(tmp_path / "w.safetensors")
    for name in ("../w.safetensors", str(tmp_path / "w.safetensors"), "link.safetensors", "study:../runs/x/none"):
        line = said(inner, {"from": name})[0]
        assert "is outside the spec's folder; a spec may read only beneath itself" in line
        assert "--set network.init.from=…" in line
    found = variant(inner, {}, sets=[f"network.init.from={tmp_path / 'w.safetensors'}"])
    assert same(found.network.built(0).state_dict(), other)


def test_a_path_on_the_command_line_starts_where_the_user_is(
    tmp_path: Path, other: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "inner").mkdir()
    monkeypatch.chdir(tmp_path)
    found = variant(tmp_path / "inner", {}, sets=["network.init.from=w.safetensors"])
    assert same(found.network.built(0).state_dict(), other)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("v.safetensors", "no file 'v.safetensors'; did you mean 'w.safetensors'?"),
        ("spec.yaml", "is no file of weights, which end in .safetensors, .pt, .pth"),
        ("study:nowhere/none", "no study at 'nowhere/none'"),
        ("torchvision:ResNet50_Weights.IMAGENET1K_V3", "did you mean 'ResNet50_Weights.IMAGENET1K_V"),
        ("torchvision:ResNet50_Weights", "has several weights; one of: ResNet50_Weights.IMAGENET1K_V1"),
        ("torchvision:resnet50", "'resnet50' is a model; its weights: ResNet50_Weights.IMAGENET1K_V1"),
        ("folder.pt", "'folder.pt' is a folder"),
        ("pipe.pt", "'pipe.pt' is no plain file that can be read"),
        ("", "names no weights"),
    ],
)
def test_a_source_that_is_not_there_is_an_error_with_the_nearest(
    tmp_path: Path, other: State, name: str, words: str
) -> None:
    (tmp_path / "folder.pt").mkdir()
    os.mkfifo(tmp_path / "pipe.pt")
    assert words in said(tmp_path, {"from": name})[0]


def test_torchvisions_weights_come_from_its_cache_and_are_held_against_their_hash(
    tmp_path: Path, other: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    name = "torchvision:ResNet18_Weights.IMAGENET1K_V1"
    line = said(tmp_path, {"from": name})[0]
    place = tmp_path / "cache" / "hub" / "checkpoints" / "resnet18-f37072fd.pth"
    assert f"no file '{place}'; put https://download.pytorch.org/models/resnet18-f37072fd.pth there" in line
    place.parent.mkdir(parents=True)
    torch.save(other, place)
    assert "is damaged: its SHA-256 does not begin with f37072fd" in said(tmp_path, {"from": name})[0]
    monkeypatch.setattr(sources, "_check_hash", lambda path, expected: None)
    assert same(variant(tmp_path, {"from": name}).network.built(0).state_dict(), other)


# ---- from a study, and into one ----

BASE = """\
data: {name: fake, shape: [3, 11, 13], classes: 5, count: {train: 29, test: 7}, val: 0.3}
train: {epochs: 1, batch_size: 7, optimizer: {name: sgd, lr: 0.1}}
network:
  graph:
    stem: {block: conv_bn_act, width: 7, kernel: 3}
    body: {block: basic, width: 7}
    head: {block: classifier}
"""
TRUNK = """\
name: trunk
extends: base.yaml
ablation:
  seeds: 2
  factors:
    rate: {high: {train.optimizer.lr: 0.1}, low: {train.optimizer.lr: 0.01}}
    length: {short: {train.epochs: 1}}
"""
ATTENTION = """\
name: attention-only
extends: base.yaml
network:
  init: {from: study:runs/trunk/high/short, strict: false}
  insert:
    attention: {block: self_attention, at: after body, residual: weighted}
train: {only: [insert.attention]}
ablation:
  seeds: 2
  design: variants
  baseline: scratch
  variants:
    scratch: {network.init.from: null}
    trained: {}
"""


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a trained study and a spec that starts from it."""
    from ablate.prepare import prepare
    from ablate.sweeping import sweep

    folder = tmp_path_factory.mktemp("studies")
    (folder / "base.yaml").write_text(BASE)
    (folder / "trunk.yaml").write_text(TRUNK)
    (folder / "attention.yaml").write_text(ATTENTION)
    sweep(prepare(study_plan(load(folder / "trunk.yaml")), folder=folder / "runs" / "trunk"), executor="local")
    return folder


def planned(studies: Path, text: str = ATTENTION) -> StudyPlan:
    path = studies / "attention.yaml"
    path.write_text(text)
    return study_plan(load(path))


def trained_trunk(studies: Path, seed: int) -> State:
    study = Study.open(studies / "runs" / "trunk")
    record = next(record for record in study.variants if record["name"] == "high/short")
    state: State = torch.load(study.weights(record["trials"][str(seed)]), weights_only=True)
    return state


def test_training_attention_only_starts_from_the_trunk_of_its_own_seed_and_leaves_it(studies: Path) -> None:
    plan = planned(studies)
    chosen = plan.variant("trained")
    data = load_data(chosen.data, base=studies)
    for seed in plan.seeds:
        trunk = trained_trunk(studies, seed)
        start = chosen.network.built(seed).state_dict()
        assert all(torch.equal(start[name], trunk[name]) for name in trunk)
        outcome = train(trial_of(chosen, seed, Numerics()), data)
        assert outcome.weights is not None
        assert all(torch.equal(outcome.weights[name], trunk[name]) for name in trunk)
        moved = {name for name in start if not torch.equal(outcome.weights[name], start[name])}
        assert moved
        assert all("attention" in name for name in moved)
    assert not torch.equal(trained_trunk(studies, 0)["stem.conv.weight"], trained_trunk(studies, 1)["stem.conv.weight"])


def test_each_seeds_trial_has_a_hash_of_its_own_weights(studies: Path) -> None:
    chosen = planned(studies).variant("trained")
    weights = chosen.network.weights
    assert weights is not None
    digests = [weights.loading(seed).digest for seed in (0, 1)]
    assert digests[0] != digests[1]
    assert chosen.identity_parts["init"]["weights"] == digests[0]
    hashes = {trial_hash(chosen, seed, "content", {}) for seed in (0, 1)}
    assert len(hashes) == 2


def test_the_certificate_says_what_starts_from_where_and_why_shared_weights_differ(studies: Path) -> None:
    plan = planned(studies)
    certifier = Certifier(lambda spec: load_data(spec, base=studies), Numerics(), 0)
    found = certifier.certify(plan.variant("trained"), plan.variant("scratch"))
    assert found.failures == []
    assert found.weights is not None
    assert found.weights["from"] == "study:runs/trunk/high/short"
    assert all("attention" in name for name in found.weights["as_initialised"])
    assert found.shared is not None
    assert found.shared["unequal_by_weights"] == found.shared["unequal_by_difference"] != []
    assert not any("attention" in name for name in found.shared["unequal_by_weights"])
    loaded, whole = found.weights["loaded"], found.weights["of"]
    assert (
        f"Training starts from study:runs/trunk/high/short: {loaded} of {whole} parameters and buffers."
        in found.protocol
    )


def test_what_is_not_loaded_must_still_start_as_in_the_baseline(studies: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights that differ explain what they hold, and not the attention beside it."""
    from ablate.weights import loading

    def faulty(graph: Any, *, seed: int, recipe: str) -> Any:
        network = genuine(graph, seed=seed, recipe=recipe)
        drawn = torch.rand(1, generator=torch.Generator().manual_seed(next(calls)))
        with torch.no_grad():
            network.get_parameter("body_attention.query.weight").add_(drawn)
        return network

    genuine, calls = loading.build, iter(range(10**6))
    monkeypatch.setattr(loading, "build", faulty)
    plan = planned(studies)
    certifier = Certifier(lambda spec: load_data(spec, base=studies), Numerics(), 0)
    failures = certifier.certify(plan.variant("trained"), plan.variant("scratch")).failures
    assert [failure for failure in failures if "'body_attention.query.weight' starts with other values" in failure]
    assert not [failure for failure in failures if "'stem.conv.weight' starts with other values" in failure]


def test_a_seed_that_the_study_lacks_is_said_before_anything_is_trained(studies: Path) -> None:
    with pytest.raises(
        UserError, match=r"network\.init\.from: there are no weights of seed 2: the study's seeds are 0, 1"
    ):
        planned(studies, ATTENTION.replace("seeds: 2", "seeds: 3"))


@pytest.mark.parametrize(
    ("name", "words"),
    [("high/shrt", "has no variant 'high/shrt'; did you mean 'high/short'?"), ("", "which variant of the study?")],
)
def test_a_variant_that_the_study_lacks_is_an_error(studies: Path, name: str, words: str) -> None:
    with pytest.raises(UserError) as error:
        planned(studies, ATTENTION.replace("runs/trunk/high/short", f"runs/trunk/{name}"))
    assert words in str(error.value)


def test_weights_that_changed_since_the_plan_are_refused_where_they_are_read(tmp_path: Path, other: State) -> None:
    found = variant(tmp_path, {"from": "w.safetensors"})
    trial = trial_of(found, 0, Numerics())
    other["head.fc.bias"] += 1
    save_file(other, tmp_path / "w.safetensors")
    data = load_data(found.data, base=tmp_path)
    with pytest.raises(WeightsChanged, match="holds other weights than when the study was planned"):
        train(trial, data)
    (tmp_path / "w.safetensors").unlink()
    with pytest.raises(WeightsChanged, match="cannot be read"):
        train(trial, data)


def test_a_network_is_not_built_from_a_file_that_changed_since_the_spec_was_read(tmp_path: Path, other: State) -> None:
    found = variant(tmp_path, {"from": "w.safetensors"})
    other["head.fc.bias"] += 1
    save_file(other, tmp_path / "w.safetensors")
    with pytest.raises(WeightsChanged, match="holds other weights than when the study was planned"):
        found.network.built(0)


def test_a_trial_with_weights_crosses_to_a_worker(tmp_path: Path, other: State) -> None:
    found = variant(tmp_path, {"from": "w.safetensors"})
    trial = pickle.loads(pickle.dumps(trial_of(found, 0, Numerics())))
    assert trial.loading == trial_of(found, 0, Numerics()).loading


def test_weights_that_hold_a_silent_unit_are_no_failure(tmp_path: Path, other: State) -> None:
    """A ReLU that training silenced: what stands before it receives no gradient, and that is where this one starts."""
    other["body.bn1.weight"][:], other["body.bn1.bias"][:] = 0.0, -1.0
    save_file(other, tmp_path / "w.safetensors")
    chosen = variant(tmp_path, {"from": "w.safetensors"})
    certifier: Callable[..., Any] = Certifier(lambda spec: load_data(spec, base=tmp_path), Numerics()).certify
    assert certifier(chosen, None).failures == []


def test_the_gallerys_attention_only_starts_from_a_trained_baseline(tmp_path: Path) -> None:
    """As its head says: the trunk's weights are loaded, attention is not among them, and the rest is frozen."""
    spec = REPOSITORY / "specs" / "gallery" / "train_attention_only.yaml"
    without = {"network.insert": {}, "ablation": {"seeds": 1}}
    trunk = as_written(load(spec, sets=without, profile="tiny")).network.built(41).state_dict()
    save_file(trunk, tmp_path / "baseline.safetensors")
    sets = [f"network.init.from={tmp_path / 'baseline.safetensors'}", "network.init.strict=false"]
    chosen = study_plan(load(spec, sets=sets, profile="tiny")).variant("attention and head")
    started = chosen.network.built(0).state_dict()
    assert all(torch.equal(started[name], trunk[name]) for name in trunk)
    assert all("attention" in name for name in started.keys() - trunk.keys())
    own = {node.module for node in chosen.network.graph.nodes if node.insertion == "attention"}
    assert own
    assert not own & set(chosen.trainable.frozen)
