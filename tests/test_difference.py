"""Two networks side by side: matched by name and by structure, their difference as values, tables and a picture."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from safetensors.torch import save_file

from ablate.beside import drawing_of_comparison, said, sentences, tables
from ablate.cli import main
from ablate.design import Variant, as_written, study_plan
from ablate.diagram import fold, mermaid_of, svg
from ablate.diagram.folding import Box, Frame, Picture, boxes
from ablate.diagram.labels import texts
from ablate.diagram.layout import CHARACTER, Placed, layout
from ablate.difference import Comparison, compare
from ablate.report.render import FORMATS, render
from ablate.spec import load

DATA = {"name": "fake", "shape": [3, 11, 13], "classes": 5, "count": {"train": 29, "test": 7}}
TRAIN = {"epochs": 1, "batch_size": 5, "optimizer": {"name": "sgd", "lr": 0.1}}
GRAPH: dict[str, Any] = {
    "stem": {"block": "conv_bn_act", "width": 8, "kernel": 3},
    "body": {"block": "basic", "width": 8, "repeat": 3},
    "late": {"block": "basic", "width": 8, "repeat": 2},
    "head": {"block": "classifier"},
}
SVG = "{http://www.w3.org/2000/svg}"
Captured = pytest.CaptureFixture[str]


def variants(levels: dict[str, Any], **more: Any) -> list[Variant]:
    """The variants of a study with one factor."""
    spec: dict[str, Any] = {"name": "t", "data": DATA, "train": TRAIN, "network": {"graph": GRAPH}, **more}
    spec["ablation"] = {"seeds": 1, "factors": {"x": levels}}
    return study_plan(load(spec)).variants


def compared(patch: dict[str, Any], **more: Any) -> Comparison:
    """The network as written beside the one that ``patch`` makes of it."""
    return compare(*variants({"a": {}, "b": patch}, **more))


def pictured(a: Variant, b: Variant) -> Picture:
    return fold(drawing_of_comparison(compare(a, b), a, b), unchanged=True)


def box(picture: Picture, title: str) -> Box:
    return next(each for each in boxes(picture.units) if each.title == title)


SE = {"block": "se", "reduction": 2, "at": "after body.*"}


def test_a_variant_beside_itself_is_equal_and_is_trained_once() -> None:
    found = compared({})
    assert (found.verdict, found.same_identity, found.nodes, found.recipe) == ("equal", True, (), ())
    assert found.total[0] == found.total[1]


def test_what_is_inserted_is_added_and_costs_what_it_costs() -> None:
    found = compared({"network.insert.gate": SE})
    assert [change.name for change in found.nodes] == ["body.0_gate", "body.1_gate", "body.2_gate"]
    assert {change.kind for change in found.nodes} == {"added"}
    one = 8 * 4 + 4 + 4 * 8 + 8
    assert found.stages["body"][1][0] - found.stages["body"][0][0] == 3 * one == found.total[1][0] - found.total[0][0]
    assert found.stages["stem"][0] == found.stages["stem"][1]


def test_the_other_way_round_it_is_removed() -> None:
    a, b = variants({"a": {}, "b": {"network.insert.gate": SE}})
    found = compare(b, a)
    assert [change.kind for change in found.nodes] == ["removed"] * 3
    assert sum(change.params for change in found.nodes) == found.total[1][0] - found.total[0][0] < 0


def test_a_parameter_is_said_as_written_and_as_what_it_comes_to() -> None:
    found = compared({"network.insert.gate.reduction": 4}, network={"graph": GRAPH, "insert": {"gate": SE}})
    change = found.nodes[0]
    assert change.parameters == {"reduction": [2, 4]}
    assert change.effective["hidden"] == [4, 2]
    assert "reduction 2 → 4" in said(change)
    assert found.without_effect == {}


def test_a_parameter_that_comes_to_the_same_is_no_difference_and_is_named() -> None:
    network = {"graph": GRAPH, "insert": {"gate": {**SE, "reduction": 8}}}
    levels = {"a": {}, "b": {"network.insert.gate.reduction": 16, "train.optimizer.lr": 0.2}}
    found = compare(*variants(levels, network=network))
    assert (found.verdict, found.nodes) == ("equal", ())
    assert found.without_effect["body.0_gate"] == {"reduction": [8, 16]}
    assert found.recipe == ({"path": "train.optimizer.lr", "a": 0.1, "b": 0.2},)


def test_another_wiring_another_start_and_what_is_frozen_are_said() -> None:
    graph = {
        "stem": {"block": "conv_bn_act", "width": 8, "kernel": 3},
        "one": {"block": "conv", "width": 8, "kernel": 3},
        "two": {"block": "conv", "width": 8, "kernel": 3},
        "head": {"block": "classifier"},
    }
    patch = {
        "network.graph.two.from": "stem",
        "network.init.set.one": {"normal": 0.5},
        "train.freeze": ["stem"],
    }
    wired = compared({**patch, "network.graph.sum": {"block": "add", "from": ["one", "two"]}}, network={"graph": graph})
    by_name = {change.name: change for change in wired.nodes}
    assert by_name["two"].wiring == {"from": [[["one"]], [["stem.act"]]]}
    assert by_name["one"].start == ["recipe", ["normal", 0.5]]
    assert by_name["stem.conv"].training == {"frozen": [None, True]}
    assert "frozen" in said(by_name["stem.conv"])
    assert {"path": "train.freeze", "a": [], "b": ["stem"]} in wired.recipe


def renamed(graph: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    return {names.get(name, name): node for name, node in graph.items()}


def test_a_network_under_other_names_is_equal_up_to_names() -> None:
    (a,) = variants({"a": {}})
    (b,) = variants({"a": {}}, network={"graph": renamed(GRAPH, {"stem": "root", "late": "top"})})
    found = compare(a, b)
    assert (found.verdict, found.same_identity) == ("equal up to names", True)
    assert {change.kind for change in found.nodes} == {"renamed"}
    assert found.match["late.1.conv2"] == "top.1.conv2"
    assert "up to names" in sentences(found)


def test_two_nodes_that_swap_their_names_are_told_apart_by_structure() -> None:
    graph = {
        "p": {"block": "conv", "width": 7, "kernel": 3},
        "q": {"block": "conv", "width": 7, "kernel": 5},
        "head": {"block": "classifier"},
    }
    swapped = renamed(graph, {"p": "q", "q": "p"})
    (a,), (b,) = (variants({"a": {}}, network={"graph": each}) for each in (graph, swapped))
    found = compare(a, b)
    assert (found.verdict, found.match["p"], found.match["q"]) == ("equal up to names", "q", "p")


def test_what_is_left_over_by_name_is_matched_by_structure_where_it_reads_the_same() -> None:
    other = renamed(GRAPH, {"late": "top"})
    (a,) = variants({"a": {}})
    (b,) = variants({"a": {}}, network={"graph": other, "insert": {"gate": {**SE, "at": "after top"}}})
    found = compare(a, b)
    assert found.verdict == "different"
    assert [change.name for change in found.of("added")] == ["top_gate"]
    assert found.of("removed") == []
    assert {change.was for change in found.of("renamed")} >= {"late.0.conv1", "late.1.act"}


def test_an_equal_block_at_another_place_is_not_the_same_node() -> None:
    a, b = variants(
        {"a": {}, "b": {"network.insert.gate.at": "after late.0.act1"}},
        network={"graph": GRAPH, "insert": {"gate": {**SE, "at": "after body.0.act1"}}},
    )
    found = compare(a, b)
    assert [(change.kind, change.name) for change in found.nodes] == [
        ("added", "late.0.act1_gate"),
        ("removed", "body.0.act1_gate"),
    ]


def test_a_node_without_effect_hides_no_wiring() -> None:
    graph = {**GRAPH, "drop": {"block": "dropout", "rate": 0.0, "from": "late"}}
    graph = {name: graph[name] for name in ("stem", "body", "late", "drop", "head")}
    found = compared({"network.graph.drop.rate": 0.25}, network={"graph": graph})
    assert [(change.name, change.kind) for change in found.nodes] == [("drop", "changed")]


@pytest.mark.parametrize("format", FORMATS)
def test_the_tables_are_rendered_in_every_format(format: str) -> None:
    found = compared({"network.insert.gate": SE, "train.epochs": 2})
    text = "".join(render(table, format) for table in tables(found))
    assert "train.epochs" in text
    assert "gate" in text


def test_rows_of_nodes_that_differ_in_a_number_alone_are_one_row_with_their_sum() -> None:
    found = compared({"network.insert.gate": SE})
    (row,) = tables(found)[1].rows
    assert [cell.text for cell in row][:4] == ["+ added", "body.*_gate", "3", "se"]
    assert row[5].value == sum(change.params for change in found.nodes)


# ---- the picture ----


def test_what_did_not_change_is_folded_and_equal_repeats_stand_once() -> None:
    picture = pictured(*variants({"a": {}, "b": {"network.insert.gate": SE}}))
    assert box(picture, "late").lines[-1] == "16 nodes, unchanged"
    (frame,) = [unit for unit in picture.units if isinstance(unit, Frame)]
    (repeat,) = frame.children
    assert (repeat.title, repeat.times) == ("0 … 2_gate", 3)
    assert [each.title for each in boxes([repeat])] == ["0", "0_gate"]
    assert picture.counts == {"added": 3, "removed": 0, "changed": 0, "same": 45}


def test_repeats_that_are_not_equal_stay_apart() -> None:
    levels = {"a": {}, "b": {"network.set": {"body.1.conv2": {"kernel": 5}}}}
    picture = pictured(*variants(levels))
    assert {each.title for each in boxes(picture.units)} >= {"0", "2", "conv2"}
    assert box(picture, "conv2").state == "changed"
    assert box(picture, "0").times == 1


def test_the_line_past_an_insertion_is_not_drawn_and_that_of_a_removal_is_dashed() -> None:
    a, b = variants({"a": {}, "b": {"network.insert.gate": {**SE, "at": "after stem"}}})
    into = {(link.source, link.target): link.state for link in pictured(a, b).links}
    assert into["stem", "stem_gate"] == "added"
    assert not any(target.startswith("body") and source == "stem" for source, target in into)
    back = {(link.source, link.target): link.state for link in pictured(b, a).links}
    assert back["stem", "stem_gate"] == "removed"
    assert {state for (source, target), state in back.items() if source == "stem" and target != "stem_gate"} == {"same"}


def placed(picture: Picture) -> list[Placed]:
    return layout(picture).placed


def inside(one: Placed, other: Placed) -> bool:
    return (
        other.x <= one.x
        and other.y <= one.y
        and one.x + one.width <= other.x + other.width + 0.01
        and one.y + one.height <= other.y + other.height + 0.01
    )


def apart(one: Placed, other: Placed) -> bool:
    return (
        one.x + one.width <= other.x
        or other.x + other.width <= one.x
        or one.y + one.height <= other.y
        or other.y + other.height <= one.y
    )


PATCHES: dict[str, dict[str, Any]] = {
    "inserted": {"network.insert.gate": {**SE, "at": "after *.*.bn2"}},
    "a plain residual": {"network.insert.gate": {**SE, "residual": "plain"}},
    "before": {"network.insert.gate": {**SE, "at": "before *.*.conv*"}},
    "changed": {"network.set": {"(body|late).*.conv1": {"kernel": 5}}},
    "removed": {"network.graph.late": None},
}


@pytest.mark.parametrize("patch", PATCHES.values(), ids=PATCHES)
def test_no_two_boxes_overlap_frames_hold_theirs_and_text_fits(patch: dict[str, Any]) -> None:
    picture = pictured(*variants({"a": {}, "b": patch}))
    everything = placed(picture)
    for one in everything:
        for other in everything:
            if one is not other:
                assert apart(one, other) or inside(one, other) or inside(other, one)
    for each in everything:
        if isinstance(each.unit, Box):
            assert max(len(text) for text in texts(each.unit)) * CHARACTER < each.width
        else:
            held = [other for other in everything if other.unit in each.unit.children]
            assert len(held) == len(each.unit.children)
            assert all(inside(other, each) for other in held)


@pytest.mark.parametrize("patch", PATCHES.values(), ids=PATCHES)
def test_no_line_crosses_a_box_that_it_does_not_belong_to(patch: dict[str, Any]) -> None:
    plan = layout(pictured(*variants({"a": {}, "b": patch})))
    leaves = {each.unit.key: each for each in plan.placed if isinstance(each.unit, Box)}
    for link, points in plan.lines:
        others = [each for key, each in leaves.items() if key not in (link.source, link.target)]
        for x, y in (spot for ends in pairwise(points) for spot in drawn(*ends)):
            assert not any(each.x < x < each.x + each.width and each.y < y < each.y + each.height for each in others)
        assert points[0][1] == pytest.approx(leaves[link.source].y + leaves[link.source].height)
        assert points[-1][1] == pytest.approx(leaves[link.target].y)


def drawn(start: tuple[float, float], end: tuple[float, float]) -> list[tuple[float, float]]:
    """Spots on the line from a point to the next: upright at both, as the SVG draws it."""
    (x0, y0), (x1, y1) = start, end
    middle = (y0 + y1) / 2
    steps = [index / 24 for index in range(25)]
    return [
        (
            x0 + (x1 - x0) * (3 * t**2 - 2 * t**3),
            y0 * (1 - t) ** 3 + 3 * middle * t * (1 - t) + y1 * t**3,
        )
        for t in steps
    ]


def test_the_svg_is_sound_xml_whose_every_text_is_escaped() -> None:
    a, b = variants({"a": {}, "b": {"network.insert.gate": SE}})
    drawing = drawing_of_comparison(compare(a, b, ('<script>"x"</script>', "b&\x1b[1m\u202e")), a, b)
    text = svg(fold(drawing, unchanged=True))
    root = ElementTree.fromstring(text)
    assert not root.findall(f".//{SVG}script")
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert root.find(f"{SVG}title").text == '<script>"x"</script> → b&\ufffd[1m\ufffd'  # type: ignore[union-attr]
    assert all(name not in text for name in ("href", "onload", "<style"))


def test_mermaid_escapes_what_it_would_read() -> None:
    a, b = variants({"a": {}, "b": {"network.insert.gate": SE}})
    text = mermaid_of(pictured(a, b))
    assert text.startswith("flowchart TD\n")
    assert text.count("subgraph") == len(re.findall(r"^\s*end$", text, re.MULTILINE))
    assert "classDef added" in text
    from ablate.diagram.mermaid import escaped

    assert escaped('"]; click x#2 <b>') == "#34;#93;#59; click x#35;2 #60;b#62;"


# ---- weights that they start from ----


def from_weights(folder: Path, *inits: dict[str, Any]) -> list[Variant]:
    """Variants of one network that differ in ``init`` alone."""
    found = []
    for init in inits:
        spec = {"name": "t", "data": DATA, "train": TRAIN, "network": {"graph": GRAPH, "init": init}}
        (folder / "t.yaml").write_text(json.dumps(spec))
        found.append(as_written(load(folder / "t.yaml")))
    return found


def test_what_is_loaded_elsewhere_is_said_to_start_otherwise(tmp_path: Path) -> None:
    state = from_weights(tmp_path, {})[0].network.built(3).state_dict()
    save_file({name: tensor.clone() for name, tensor in state.items()}, tmp_path / "w.safetensors")
    swap = {r"body\.0\.conv1\.(.*)": r"body.0.conv2.\1", r"body\.0\.conv2\.(.*)": r"body.0.conv1.\1"}
    init = {"from": "w.safetensors"}
    found = compare(*from_weights(tmp_path, init, init | {"rename": swap}))
    assert (found.verdict, found.same_identity) == ("equal", False)
    assert [each["path"] for each in found.recipe] == ["init.weights", "init.rename"]
    assert sentences(found) == "The networks are equal, names included. What differs is how they start."
    beside_none = compare(*from_weights(tmp_path, {}, init))
    assert [each["path"] for each in beside_none.recipe] == ["init.from", "init.weights"]
    recipes = compare(*from_weights(tmp_path, init, init | {"recipe": "trunc_normal"}))
    assert (recipes.same_identity, recipes.recipe) == (True, ())


# ---- the command ----


def test_two_variants_of_one_spec_by_name_or_by_colon(tiny: Path, capsys: Captured) -> None:
    assert main(["diff", str(tiny), "none", "se"]) == 0
    by_name = capsys.readouterr().out
    assert main(["diff", f"{tiny}:none", f"{tiny}:se"]) == 0
    assert capsys.readouterr().out == by_name
    assert "none (A) → se (B)" in by_name
    assert "stage*.*_attention" in by_name


def test_two_specs_as_written_and_everything_as_json(tiny: Path, tmp_path: Path, capsys: Captured) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(tiny.read_text().replace("reduction: 2", "reduction: 4").replace("lr: 0.05", "lr: 0.1"))
    assert main(["diff", str(tiny), str(other), "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert {change["name"] for change in values["nodes"]} == {"stage1.0_attention", "stage1.1_attention"}
    assert values["recipe"] == [{"path": "train.optimizer.lr", "a": 0.05, "b": 0.1}]


def test_network_files_without_data_are_given_a_shape(tmp_path: Path, capsys: Captured) -> None:
    text = "network: {graph: {c: {block: conv, width: %d, kernel: 3}, h: {block: classifier}}}\n"
    for name, width in (("a", 7), ("b", 11)):
        (tmp_path / f"{name}.yaml").write_text(text % width)
    files = [str(tmp_path / f"{name}.yaml") for name in "ab"]
    assert main(["diff", *files, "--shape", "3x13x17", "--classes", "5", "--format", "csv"]) == 0
    assert f"c,{3 * 9 * 7},{3 * 9 * 11},{3 * 9 * 4}" in capsys.readouterr().out


def test_values_and_a_picture_at_once_are_refused(tiny: Path, capsys: Captured) -> None:
    with pytest.raises(SystemExit):
        main(["diff", str(tiny), "none", "se", "--json", "--mermaid"])
    assert "not allowed with argument --json" in capsys.readouterr().err


def test_a_picture_is_written_and_a_mistake_is_said(tiny: Path, tmp_path: Path, capsys: Captured) -> None:
    file = tmp_path / "d.svg"
    assert main(["diff", str(tiny), "none", "between", "--svg", str(file)]) == 0
    assert ElementTree.parse(file).getroot().tag == f"{SVG}svg"
    assert main(["show", str(tiny), "--svg", str(file)]) == 0
    assert "se 8×11×13" in file.read_text()
    capsys.readouterr()
    assert main(["diff", str(tiny), "between"]) == 2
    assert "compares two variants of one spec" in capsys.readouterr().err
    assert main(["diff", f"{tiny}:none", f"{tiny}:betwen"]) == 2
    assert "did you mean 'between'?" in capsys.readouterr().err
    assert main(["diff", str(tiny), "none", "se", "--svg", str(tmp_path / "no" / "d.svg")]) == 2
    assert "No such file" in capsys.readouterr().err
