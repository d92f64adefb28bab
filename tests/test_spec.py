"""How a spec becomes a tree: files and mappings, ``extends``, nulls, patches and ``--set``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ablate.collect import Collector
from ablate.design import as_written, study_plan
from ablate.errors import Place, UserError
from ablate.spec import Assignment, Spec, apply, load, null_problem, read_data, read_train
from ablate.yamlfile import Mapping, parse_value

BASE = """\
name: base
data: {name: fake, shape: [3, 11, 11], classes: 5, count: {train: 23, test: 7}}
train:
  epochs: 2
  optimizer: {name: sgd, lr: 0.1, momentum: 0.9, weight_decay: 1.0e-4}
  schedule: {name: multi_step, milestones: [1]}
network:
  graph:
    stem: {block: conv_bn_act, width: 7, kernel: 3}
    body: {block: conv_bn_act, width: 7, kernel: 5}
    head: {block: classifier}
  insert:
    attention: {block: cbam, reduction: 3, at: after stem}
"""

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def written(text: str, name: str = "spec.yaml") -> Path:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    return written


def child_of_base(write: Write, text: str) -> Spec:
    write(BASE, "models/base.yaml")
    return load(write(f"name: child\nextends: models/base.yaml\n{text}"))


def refusal(action: Callable[[], object]) -> str:
    with pytest.raises(UserError) as caught:
        action()
    return str(caught.value)


def level(path: str, value: Any, layer: str = "factor=level") -> Assignment:
    return Assignment(tuple(path.split(".")), value, Place("spec.yaml", 3, 5), layer)


# ---- extends ----


def test_a_child_keeps_what_it_does_not_mention_and_wins_where_it_does(write: Write) -> None:
    tree = child_of_base(write, "train: {epochs: 3}\n").tree
    assert tree["train"]["epochs"] == 3
    assert tree["train"]["optimizer"]["momentum"] == 0.9
    assert tree["name"] == "child"
    assert "extends" not in tree


@pytest.mark.parametrize(
    ("text", "path", "whole"),
    [
        (
            "network: {insert: {attention: {block: se, at: after body}}}",
            "network.insert.attention",
            {"block": "se", "at": "after body"},
        ),
        ("network: {graph: {body: {block: conv, width: 13}}}", "network.graph.body", {"block": "conv", "width": 13}),
        ("train: {optimizer: {name: adam, lr: 0.01}}", "train.optimizer", {"name": "adam", "lr": 0.01}),
        ("train: {schedule: {name: cosine}}", "train.schedule", {"name": "cosine"}),
        ("data: {name: mnist5k}", "data", {"name": "mnist5k"}),
    ],
)
def test_a_child_that_changes_block_or_name_replaces_the_whole(write: Write, text: str, path: str, whole: Any) -> None:
    found: Any = child_of_base(write, text + "\n").tree
    for part in path.split("."):
        found = found[part]
    assert found == whole


def test_a_child_that_repeats_the_block_merges(write: Write) -> None:
    text = "network: {insert: {attention: {block: cbam, kernel: 5}}}\n"
    merged = child_of_base(write, text).tree["network"]["insert"]["attention"]
    assert merged == {"block": "cbam", "reduction": 3, "at": "after stem", "kernel": 5}


def test_a_node_that_is_called_block_is_a_node_and_replaces_nothing(write: Write) -> None:
    write(BASE.replace("body:", "block:"), "models/base.yaml")
    spec = load(write("extends: models/base.yaml\nnetwork: {graph: {block: {kernel: 3}}}\n"))
    assert list(spec.tree["network"]["graph"]) == ["stem", "block", "head"]
    assert spec.tree["network"]["graph"]["block"] == {"block": "conv_bn_act", "width": 7, "kernel": 3}


def test_lists_replace(write: Write) -> None:
    assert child_of_base(write, "train: {schedule: {milestones: [5, 7]}}\n").tree["train"]["schedule"] == {
        "name": "multi_step",
        "milestones": [5, 7],
    }


def test_factors_are_replaced_whole_and_the_rest_of_ablation_merges(write: Write) -> None:
    write("ablation: {seeds: 3, factors: {a: {x: {}}}, baseline: {a: x}}\n", "parent.yaml")
    spec = load(write("extends: parent.yaml\nablation: {factors: {b: {y: {}}}, baseline: null}\n"))
    assert spec.tree["ablation"] == {"seeds": 3, "factors": {"b": {"y": {}}}}


def test_a_chain_of_files_merges_from_the_first_to_the_last(write: Write) -> None:
    write("train: {epochs: 1, batch_size: 2}\n", "a.yaml")
    write("extends: a.yaml\ntrain: {epochs: 3}\n", "b.yaml")
    spec = load(write("extends: b.yaml\ntrain: {batch_size: 5}\n", "c.yaml"))
    assert spec.tree == {"train": {"epochs": 3, "batch_size": 5}}


def test_places_survive_the_merge_and_name_the_file_that_wrote_the_key(write: Write) -> None:
    tree = child_of_base(write, "train: {epochs: 3}\n").tree
    assert tree["train"].values_at["epochs"].file.endswith("spec.yaml")
    assert tree["train"].values_at["epochs"].line == 3
    assert tree["train"].keys_at["optimizer"].file.endswith("models/base.yaml")
    assert tree["train"].keys_at["optimizer"].line == 5


def test_extends_reaches_no_file_outside_the_specs_folder(write: Write) -> None:
    write(BASE, "outside.yaml")
    spec = write("extends: ../outside.yaml\n", "study/spec.yaml")
    assert "'../outside.yaml' is outside" in refusal(lambda: load(spec))
    assert f"{spec}:1:10: extends" in refusal(lambda: load(spec))


def test_extends_reaches_no_file_outside_by_an_absolute_path_or_a_link(write: Write, tmp_path: Path) -> None:
    outside = write(BASE, "outside.yaml")
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "link.yaml").symlink_to(outside)
    for name in (str(outside), "link.yaml"):
        assert "is outside" in refusal(lambda name=name: load(write(f"extends: {name}\n", "study/spec.yaml")))  # type: ignore[misc]


def test_a_parent_reaches_no_file_outside_the_childs_folder(write: Write) -> None:
    write("extends: ../../outside.yaml\n", "study/models/base.yaml")
    write(BASE, "outside.yaml")
    assert "is outside" in refusal(lambda: load(write("extends: models/base.yaml\n", "study/spec.yaml")))


def test_specs_in_folders_of_a_specs_folder_reach_one_another(write: Write) -> None:
    write(BASE, "specs/models/base.yaml")
    spec = load(write("name: child\nextends: ../models/base.yaml\n", "specs/paper/table.yaml"))
    assert spec.tree["train"]["epochs"] == 2


@pytest.mark.parametrize("files", [["spec.yaml"], ["a.yaml", "spec.yaml"], ["a.yaml", "b.yaml", "spec.yaml"]])
def test_extends_in_a_circle_is_refused(write: Write, files: list[str]) -> None:
    for name, parent in zip(["spec.yaml", *files], files, strict=False):
        write(f"extends: {parent}\n", name)
    assert "extends itself" in refusal(lambda: load(write(f"extends: {files[0]}\n")))


def test_a_parent_that_is_not_there_is_named_with_the_place_that_was_searched(write: Write, tmp_path: Path) -> None:
    said = refusal(lambda: load(write("extends: models/resnet.yaml\n")))
    assert "no file 'models/resnet.yaml'" in said
    assert str(tmp_path / "models" / "resnet.yaml") in said


@pytest.mark.parametrize(
    "name", ["3", "[a.yaml]", "''", '"a\\u001b[31m"', '"a\\nb"', "a" * 5000, "/".join(["a"] * 3000)]
)
def test_what_can_not_be_a_files_name_is_refused_and_not_searched(write: Write, name: str) -> None:
    said = refusal(lambda: load(write(f"extends: {name}\n")))
    assert "extends" in said
    assert "\x1b" not in said


def test_very_long_chains_of_files_are_refused(write: Write) -> None:
    write("name: a\n", "0.yaml")
    for index in range(1, 17):
        write(f"extends: {index - 1}.yaml\n", f"{index}.yaml")
    assert "files extend one another" in refusal(lambda: load(write("extends: 16.yaml\n")))


def test_a_node_that_a_child_adds_says_what_it_reads_and_those_after_it_are_a_chain(write: Write) -> None:
    """Otherwise ``norm`` would normalise the parent's class scores, and be the network's output."""
    message = refusal(lambda: child_of_base(write, "network:\n  graph:\n    norm: {block: batch_norm}\n"))
    assert "spec.yaml:5:5: network.graph.norm: a node that is added to the graph of" in message
    assert "add from: NAME" in message
    text = "network: {graph: {norm: {block: batch_norm, from: body}, end: {block: classifier}}}\n"
    assert list(child_of_base(write, text).tree["network"]["graph"]) == ["stem", "body", "head", "norm", "end"]


# ---- null ----


def test_null_removes_a_node_an_insertion_and_a_section_of_what_is_extended(write: Write) -> None:
    text = "network: {graph: {body: null}, insert: {attention: ~}}\ntrain: {schedule: null}\n"
    tree = child_of_base(write, text).tree
    assert list(tree["network"]["graph"]) == ["stem", "head"]
    assert tree["network"]["insert"] == {}
    assert "schedule" not in tree["train"]


def test_a_node_that_a_child_removed_is_known_as_removed_unless_it_comes_back(write: Write) -> None:
    assert apply(child_of_base(write, "network: {graph: {body: null}}\n"), ()).removed_nodes == {"body"}
    write("extends: models/base.yaml\nnetwork: {graph: {body: null}}\n", "without.yaml")
    again = load(
        write("extends: without.yaml\nnetwork: {graph: {body: {block: identity, from: stem}}}\n", "again.yaml")
    )
    assert apply(again, ()).removed_nodes == frozenset()


SUM = """network:
  graph:
    side: {block: conv, width: 7, kernel: 3, from: stem}
    mix: {block: JOIN, from: READ}
    end: {block: classifier, from: mix}
"""


@pytest.mark.parametrize("join", ["add", "concat"])
@pytest.mark.parametrize("read", ["[body, side, body]", "[body, side]"])
@pytest.mark.parametrize("how", ["child", "level", "set"])
def test_a_resolved_spec_without_a_node_that_a_join_read_can_be_read_again(
    write: Write, join: str, read: str, how: str
) -> None:
    """What a study writes down as its own spec knows of no files, and of nothing that was removed from them."""
    write(BASE, "models/base.yaml")
    joined = write(f"extends: models/base.yaml\n{SUM.replace('JOIN', join).replace('READ', read)}", "joined.yaml")
    if how == "child":
        spec = load(write("extends: joined.yaml\nnetwork: {graph: {side: null}}\n", "without.yaml"))
    elif how == "set":
        spec = load(joined, sets=["network.graph.side=null"])
    else:
        level = "{network: {extends: joined.yaml, graph: {side: null}}}"
        ablation = f"ablation: {{seeds: 1, design: variants, baseline: null, variants: {{w: {level}}}}}\n"
        spec = load(write(f"extends: models/base.yaml\n{ablation}", "levels.yaml"))
    written = apply(spec, ()).tree
    again = load(dict(written))
    if how == "level":
        graphs = [study_plan(each).variant("w").network.graph for each in (spec, again)]
    else:
        graphs = [as_written(each).network.graph for each in (spec, again)]
    assert graphs[0].fingerprint == graphs[1].fingerprint
    assert [node.name for node in graphs[0].nodes] == [node.name for node in graphs[1].nodes]
    assert "side" not in str(written["network"]) + str(written.get("ablation"))


def test_what_one_levels_file_removes_excuses_no_misspelt_name_in_another(write: Write) -> None:
    write(BASE, "models/base.yaml")
    joined = SUM.replace("JOIN", "add").replace("READ", "[body, side]")
    write(f"extends: models/base.yaml\n{joined}", "joined.yaml")
    variants = "{network: {extends: joined.yaml, graph: {side: null}}}, b: {network.graph.stem.width: 5}"
    ablation = f"ablation: {{seeds: 1, design: variants, baseline: null, variants: {{a: {variants}}}}}\n"
    text = f"extends: models/base.yaml\n{ablation}"
    misspelt = "network: {graph: {more: {block: add, from: [body, side]}}}\n"
    with pytest.raises(UserError, match="no node 'side'"):
        study_plan(load(write(text + misspelt, "levels.yaml")))


@pytest.mark.parametrize(
    ("text", "line", "path"),
    [
        ("train: {epochs: null}", 3, "train.epochs"),
        ("train:\n  optimizer: {lr: ~}", 4, "train.optimizer.lr"),
        ("network: {graph: {stem: {width: }}}", 3, "network.graph.stem.width"),
        ("network: {insert: {attention: {reduction: null}}}", 3, "network.insert.attention.reduction"),
        ("data: {classes: null}", 3, "data.classes"),
    ],
)
def test_null_is_no_value_of_a_parameter(write: Write, text: str, line: int, path: str) -> None:
    said = refusal(lambda: child_of_base(write, text + "\n"))
    assert f"spec.yaml:{line}:" in said
    assert f"{path}: null removes" in said


@pytest.mark.parametrize("text", ["network: {insert: {atention: null}}", "network: {graph: {bodi: null}}"])
def test_null_that_removes_nothing_is_an_error_with_the_nearest_name(write: Write, text: str) -> None:
    said = refusal(lambda: child_of_base(write, text + "\n"))
    assert "there is nothing to remove; did you mean" in said


def test_every_null_that_is_wrong_is_said_at_once(write: Write) -> None:
    said = refusal(lambda: child_of_base(write, "train: {epochs: null, batch_size: null}\ndata: {name: null}\n"))
    assert said.count("null removes") == 3


def test_a_levels_null_waits_until_the_level_is_applied(write: Write) -> None:
    spec = load(write(BASE + "ablation: {seeds: 1, factors: {a: {none: {network.insert.attention: null}}}}\n"))
    assert spec.tree["ablation"]["factors"]["a"]["none"] == {"network.insert.attention": None}


def test_no_path_of_a_parameter_takes_null() -> None:
    assert null_problem(("network", "graph", "stem")) is None
    assert null_problem(("train", "early_stopping")) is None
    assert null_problem(("train", "optimizer", "lr")) is not None
    assert null_problem(("network", "graph", "stem", "act")) is not None


# ---- patches ----


def test_a_level_assigns_what_is_at_its_path_and_leaves_the_spec_as_it_was(write: Write) -> None:
    spec = load(write(BASE))
    tree = apply(spec, [level("train.optimizer.lr", 0.5)]).tree
    assert tree["train"]["optimizer"] == {"name": "sgd", "lr": 0.5, "momentum": 0.9, "weight_decay": 1e-4}
    assert spec.tree["train"]["optimizer"]["lr"] == 0.1


def test_a_level_that_assigns_a_mapping_replaces_what_was_there(write: Write) -> None:
    value = parse_value("{name: sgd, lr: 0.5}")
    assert apply(load(write(BASE)), [level("train.optimizer", value)]).tree["train"]["optimizer"] == {
        "name": "sgd",
        "lr": 0.5,
    }


def test_set_wins_over_a_level_and_a_level_over_the_spec(write: Write) -> None:
    spec = load(write(BASE), sets=["train.optimizer.lr=0.7"])
    applied = apply(spec, [level("train.optimizer.lr", 0.5), level("train.optimizer.momentum", 0.3)])
    assert applied.tree["train"]["optimizer"]["lr"] == 0.7
    assert applied.tree["train"]["optimizer"]["momentum"] == 0.3


def test_a_longer_path_acts_within_what_a_shorter_one_assigns_whichever_is_written_first(write: Write) -> None:
    short = level("network.insert.attention", parse_value("{block: se, at: after body}"), "a=x")
    long = level("network.insert.attention.reduction", 2, "b=y")
    for order in ([short, long], [long, short]):
        inserted = apply(load(write(BASE)), order).tree["network"]["insert"]["attention"]
        assert inserted == {"block": "se", "at": "after body", "reduction": 2}


def test_what_changes_something_removed_is_inactive(write: Write) -> None:
    inner = level("network.insert.attention.reduction", 2, "b=y")
    applied = apply(load(write(BASE)), [inner, level("network.insert.attention", None, "a=none")])
    assert applied.inactive == [inner]
    assert applied.tree["network"]["insert"] == {}


def test_a_node_that_a_level_removes_is_known_as_removed(write: Write) -> None:
    assert apply(load(write(BASE)), [level("network.graph.body", None)]).removed_nodes == {"body"}


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("network.insert.atention.at", "after body", "there is no 'atention' to change; did you mean 'attention'?"),
        ("network.insert.atention", None, "there is no 'atention' to remove; did you mean 'attention'?"),
        ("network.graph.trunk.width", 3, "there is no 'trunk' to change"),
        ("train.optimizer.lr", None, "null removes a node, an insertion or a section"),
        ("train.epochs.first", 1, "'train.epochs' is 2 and has no keys"),
        ("train.epochs.first.second", 1, "'train.epochs' is 2 and holds no 'first'"),
        (
            "network.insert.attention",
            parse_value("{block: se, reduction: null}"),
            "null at 'reduction' removes nothing",
        ),
        ("data.count", parse_value("{train: 3, test: null}"), "null at 'test' removes nothing"),
    ],
)
def test_a_level_that_can_not_be_applied_says_why_and_where(write: Write, path: str, value: Any, message: str) -> None:
    said = refusal(lambda: apply(load(write(BASE)), [level(path, value)]))
    assert said.startswith(f"spec.yaml:3:5: {path}: {message}")


def test_what_a_level_wrote_carries_its_layer_at_every_depth(write: Write) -> None:
    value = parse_value("{name: adam, lr: 0.5, betas: [0.8, 0.9]}")
    optimizer = apply(load(write(BASE)), [level("train.optimizer", value)]).tree["train"]["optimizer"]
    assert {place.layer for place in [*optimizer.keys_at.values(), *optimizer["betas"].values_at]} == {"factor=level"}


# ---- --set ----


def test_set_reads_values_as_yaml_does(write: Write) -> None:
    sets = ["train.epochs=7", "train.optimizer.lr=1e-3", "train.optimizer={name: adam, lr: 1e-3}", "data.classes=0x11"]
    tree = apply(load(write(BASE), sets=sets[:2] + sets[3:]), ()).tree
    assert (tree["train"]["epochs"], tree["train"]["optimizer"]["lr"], tree["data"]["classes"]) == (7, 1e-3, 17)
    assert apply(load(write(BASE), sets=sets[2:3]), ()).tree["train"]["optimizer"] == {"name": "adam", "lr": 1e-3}


def test_set_of_a_value_with_an_equals_sign_splits_at_the_first(write: Write) -> None:
    assert apply(load(write(BASE), sets=["data.name=a=b"]), ()).tree["data"]["name"] == "a=b"


def test_sets_as_a_mapping_are_those_as_texts(write: Write) -> None:
    texts = ["train.epochs=7", "ablation.seeds=[2, 3]", "train.optimizer={name: adam, lr: 0.001}"]
    values = {"train.epochs": 7, "ablation.seeds": (2, 3), "train.optimizer": {"name": "adam", "lr": 0.001}}
    by_text, by_value = (apply(load(write(BASE), sets=sets), ()).tree for sets in (texts, values))
    assert by_text == by_value
    assert by_value["train"]["optimizer"].values_at["lr"].layer == "--set"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train.epochs", "--set train.epochs: write --set path=value"),
        ("trian.epochs=3", "'trian.epochs' is not a path of a spec; did you mean 'train'?"),
        ("extends=other.yaml", "'extends=other.yaml' is not a path of a spec"),
        ("train..epochs=3", "has an empty part"),
        ("train.epochs=[1", "--set:1:"),
        ("train=3", "--set train: 3 is not a mapping"),
        ("network=[]", "--set network: a list is not a mapping"),
        ("name=../up", "can't name a folder"),
        ("name=3", "3 is not text"),
        ("train.epochs=yes", "may mean true or the word"),
    ],
)
def test_a_set_that_is_wrong_says_so(write: Write, text: str, message: str) -> None:
    said = refusal(lambda: load(write(BASE), sets=[text]))
    assert message.replace("extends=other.yaml' is", "extends' is") in said


def test_every_wrong_set_is_said_at_once(write: Write) -> None:
    sets = ["train.epochs", "trian.epochs=3", "train=3", "data.val=0.1", "data.val=0.2"]
    said = refusal(lambda: load(write(BASE), sets=sets))
    assert len(said.splitlines()) == 4
    assert "--set data.val: given twice" in said


def test_a_set_with_terminal_codes_is_told_without_them(write: Write) -> None:
    assert "\x1b" not in refusal(lambda: load(write(BASE), sets={"\x1b[31mtrain": 1})).partition(": ")[2]


# ---- the Python way in ----


def test_a_mapping_is_read_as_the_file_of_the_same_words(write: Write) -> None:
    assert load(load(write(BASE)).tree).tree == load(write(BASE)).tree


def test_a_mappings_mistakes_have_places_in_the_text_that_it_stands_for() -> None:
    said = refusal(lambda: load({"name": "x", "trian": {}}))
    assert said == "<mapping>:2:1: trian: unknown key; did you mean 'train'?"


@pytest.mark.parametrize("value", [object(), {1: 2}, {"a": "\x00"}, {3.5}])
def test_a_mapping_that_no_file_could_say_is_refused(value: Any) -> None:
    assert "<mapping>" in refusal(lambda: load({"name": "x", "data": value}))


def test_a_mapping_is_left_as_it_was(write: Write) -> None:
    given: dict[str, Any] = {"name": "x", "train": {"epochs": 2, "schedule": None}, "network": {"insert": {}}}
    load(given, sets={"train.epochs": 3})
    assert given == {"name": "x", "train": {"epochs": 2, "schedule": None}, "network": {"insert": {}}}


# ---- the outline ----


@pytest.mark.parametrize("name", ["..", ".hidden", "-v", "a/b", "a b", "", '"a\\u0007"', "ü", "x" * 101, "3", "[a]"])
def test_a_name_that_can_not_be_a_folder_is_refused(write: Write, name: str) -> None:
    said = refusal(lambda: load(write(f"name: {name or repr('')}\n")))
    assert "spec.yaml:1:7: name:" in said
    assert "\x07" not in said


def test_sections_that_are_no_mappings_and_unknown_sections_are_all_said(write: Write) -> None:
    said = refusal(lambda: load(write("name: x\ntrain: 3\nnetwork: [a]\ndate: {}\nablation: none\n")))
    assert [line.split(":")[1] for line in said.splitlines()] == ["2", "3", "4", "5"]
    assert "date: unknown key; did you mean 'data'?" in said


# ---- recipes and data: keys that a later change of a name orphans ----


def recipe(write: Write, *assignments: Assignment) -> tuple[Any, Collector]:
    applied = apply(load(write(BASE)), assignments)
    collector = Collector(applied.tree)
    return read_train(applied.tree, collector), collector


def test_what_a_level_orphans_by_another_optimizer_is_dropped_and_listed(write: Write) -> None:
    train, collector = recipe(write, level("train.optimizer.name", "adam"))
    assert train.optimizer.model_dump(include={"name", "lr", "weight_decay"}) == {
        "name": "adam",
        "lr": 0.1,
        "weight_decay": 1e-4,
    }
    assert [(orphan.path, orphan.value, orphan.layer) for orphan in collector.orphans] == [
        ("train.optimizer.momentum", 0.9, "spec")
    ]


def test_what_a_level_orphans_by_another_schedule_is_dropped_and_listed(write: Write) -> None:
    train, collector = recipe(write, level("train.schedule.name", "cosine"))
    assert train.schedule.name == "cosine"
    assert [orphan.path for orphan in collector.orphans] == ["train.schedule.milestones"]


def test_a_key_that_the_layer_of_the_name_wrote_wrongly_is_an_error(write: Write) -> None:
    value = parse_value("{name: adam, lr: 0.1, momentum: 0.9}")
    train, collector = recipe(write, level("train.optimizer", value))
    assert train is None
    assert [str(problem.path) for problem in collector.problems] == ["train.optimizer.momentum"]
    assert collector.orphans == []


def data_of(write: Write, *assignments: Assignment) -> tuple[Any, Collector]:
    applied = apply(load(write(BASE)), assignments)
    collector = Collector(applied.tree)
    return read_data(applied.tree, collector), collector


def test_what_a_level_orphans_by_another_data_set_is_dropped_and_listed(write: Write) -> None:
    data, collector = data_of(write, level("data.name", "mnist5k"))
    assert data.name == "mnist5k"
    assert [orphan.path for orphan in collector.orphans] == ["data.shape", "data.classes", "data.count"]


def test_a_root_and_a_download_that_another_data_set_has_no_use_for_are_orphans(write: Write) -> None:
    applied = apply(
        load(write("name: x\ndata: {name: cifar10, root: data, download: true}\n")), [level("data.name", "fake")]
    )
    collector = Collector(applied.tree)
    assert read_data(applied.tree, collector) is not None
    assert [orphan.path for orphan in collector.orphans] == ["data.root", "data.download"]


def test_an_unknown_key_of_data_is_an_error_where_one_layer_wrote_both(write: Write) -> None:
    applied = apply(load(write("name: x\ndata: {name: fake, clases: 5}\n")), ())
    collector = Collector(applied.tree)
    assert read_data(applied.tree, collector) is None
    assert "did you mean 'classes'?" in str(collector.problems[0])


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("train.optimizer.name", "sdg", "unknown optimizer 'sdg'; did you mean 'sgd'?"),
        ("train.optimizer.lr", float("inf"), "not a finite number"),
        ("train.optimizer.lr", 0, "0 is too small"),
        ("train.optimizer", parse_value("{name: adam, lr: 0.1, betas: [0.9, 1.0]}"), "1.0 is too large"),
        ("train.schedule.milestones", parse_value("[0]"), "0 is too small"),
        ("train.epochs", 3.7, "3.7 is not a whole number"),
        ("train.epochs", "8", "remove the quotes"),
        ("train.batch_size", 1, "1 is too small; at least 2"),
        ("train.select", "bset", "did you mean 'best'?"),
    ],
)
def test_a_recipe_that_is_wrong_is_refused_before_anything_is_trained(
    write: Write, path: str, value: Any, message: str
) -> None:
    train, collector = recipe(write, level(path, value))
    assert train is None
    assert message in "\n".join(str(problem) for problem in collector.problems)


def test_a_spec_without_recipe_or_data_says_what_to_write() -> None:
    tree = Mapping()
    collector = Collector(tree)
    assert read_train(tree, collector) is None
    assert read_data(tree, collector) is None
    assert [problem.path for problem in collector.problems] == ["train", "data"]
    assert all(problem.hint for problem in collector.problems)
