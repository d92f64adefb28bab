"""Static search: what is counted, merged, kept and ranked, and what is said of published numbers."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from itertools import combinations, pairwise, product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import ablate
from ablate import yamlfile
from ablate.cli import main
from ablate.errors import UserError
from ablate.space.grammar import Space, read_space
from ablate.spec import Spec, load
from ablate.static_search import Found, StaticSearch, networks_table, record, static_search
from ablate.static_search.ranking import ranked
from ablate.static_search.values import Totals
from tests.conftest import REPOSITORY

NETWORK = """\
name: network
data: {name: fake, shape: [3, 11, 13], classes: 5, count: {train: 10, test: 10}}
train: {epochs: 1, batch_size: 5, optimizer: {name: sgd, lr: 0.1}}
network:
  graph:
    stem:   {block: conv_bn_act, width: 16, kernel: 3}
    stage1: {block: basic, width: 16, repeat: 2}
    stage2: {block: basic, width: 32, repeat: 2, stride: 2}
    head:   {block: classifier}
  insert:
    gate: {block: se, reduction: 4, at: after stage1.*}
"""
BLOCKS_AND_PLACES = """\
space:
  network.insert.gate: {choice: [null, {block: se}, {block: simam}]}
  network.insert.gate.at: {text: after stage$n, with: {n: {subset: [1, 2]}}}
  network.insert.gate.reduction: {choice: [2, 8], when: {network.insert.gate: {block: se}}}
"""

Search = Callable[..., StaticSearch]


@pytest.fixture
def network(tmp_path: Path) -> Path:
    path = tmp_path / "network.yaml"
    path.write_text(NETWORK)
    return path


@pytest.fixture
def search(network: Path) -> Search:
    def run(text: str, **options: Any) -> StaticSearch:
        return static_search(space(text), load(network), **options)

    return run


def space(text: str) -> Space:
    return read_space(yamlfile.loads(text, "space.yaml"), "space.yaml")


# ---- what is counted ----


def test_each_network_costs_what_its_module_has(search: Search, network: Path) -> None:
    """Against the parameters of the built module, and against a count that looks at its modules only."""
    found = search(BLOCKS_AND_PLACES)
    assert found.points == len(found.networks) == 1 + 3 * 2 + 3
    for each in found.networks:
        module = ablate.build(ablate.load(network, set=dict(each.point)))
        assert each.totals.params == sum(parameter.numel() for parameter in module.parameters())
        assert each.totals.flops == ablate.cost(module, input_shape=(1, 3, 11, 13)).flops


def test_networks_that_round_to_one_are_one(search: Search) -> None:
    """On 16 channels reductions of 16 and more are all a hidden width of 1."""
    found = search("space:\n  network.insert.gate.reduction: {choice: [8, 16, 17, 32]}\n")
    assert [each.point["network.insert.gate.reduction"] for each in found.networks] == [8, 16]
    assert found.networks[1].same == [{"network.insert.gate.reduction": "17"}, {"network.insert.gate.reduction": "32"}]
    assert (found.points, found.duplicates) == (4, 2)


def test_two_ways_to_write_one_place_are_one(search: Search) -> None:
    found = search("space:\n  network.insert.gate.at: {choice: [after stage1, before stage2, after stage1.1]}\n")
    assert [len(each.same) for each in found.networks] == [2]


def test_a_point_that_cannot_be_built_is_counted_with_its_reason(search: Search) -> None:
    """A channel gate needs an image; an activation stands anywhere."""
    found = search("""\
space:
  network.insert.gate.block: {choice: [se, act]}
  network.insert.gate.at: {choice: [after stage1, before head.fc]}
""")
    (reason,) = found.impossible
    assert found.impossible[reason] == 1
    assert "'se' reads an input of shape (C, H, W) and was given (32,)" in reason
    assert (found.points, len(found.networks)) == (4, 3)
    assert f"1 point can't be built: {reason}" in networks_table(found).footnotes


def test_a_path_without_any_difference_is_named(search: Search) -> None:
    text = (
        "space:\n  network.insert.gate.reduction: {choice: [16, 32]}\n  network.graph.stem.kernel: {choice: [1, 3]}\n"
    )
    found = search(text)
    assert found.alike == ("network.insert.gate.reduction",)
    assert "network.insert.gate.reduction changes no network" in " ".join(networks_table(found).footnotes)


def test_a_path_that_acts_with_one_block_and_not_with_the_other_is_no_mistake(search: Search) -> None:
    """As in a study, what another level orphans is dropped; here the points merge."""
    found = search("""\
space:
  network.insert.gate.block: {choice: [se, simam]}
  network.insert.gate.reduction: {choice: [2, 4]}
""")
    assert (found.points, len(found.networks), found.duplicates) == (4, 3, 1)


def test_images_of_another_size_cost_more(search: Search) -> None:
    found = search("space:\n  data.size: {choice: [11, 23]}\n")
    small, large = found.networks
    assert small.totals.params == large.totals.params
    assert 3 * small.totals.flops < large.totals.flops


def test_nothing_is_built_beyond_the_limit(search: Search) -> None:
    def fail(done: int, points: int) -> None:
        raise AssertionError("started")

    with pytest.raises(UserError, match=r"30 points, and at most 29 are built .*; leave values out"):
        search("space:\n  network.insert.gate.reduction: {int: [1, 30]}\n", limit=29, progress=fail)


def test_progress_begins_with_the_number_of_points_and_ends_with_all(search: Search) -> None:
    told: list[tuple[int, int]] = []
    search(BLOCKS_AND_PLACES, progress=lambda done, points: told.append((done, points)))
    assert told == [(done, 10) for done in range(11)]


# ---- what is kept, and in which order ----


def test_constraints_keep_what_they_allow_and_count_what_they_do_not(search: Search) -> None:
    kernels = "space:\n  network.graph.stem.kernel: {choice: [1, 3, 5, 7]}\n"
    params = [each.totals.params for each in search(kernels).kept]
    assert params == sorted(params)

    def kept(bound: str) -> list[int]:
        found = search(f"{kernels}constraints: {{params: {bound}}}\n")
        assert found.rejected["params"] == 4 - len(found.kept)
        return [each.totals.params for each in found.kept]

    assert kept(f"{{max: {params[1]}}}") == params[:2]
    assert kept(f"{{min: {params[1]}}}") == params[1:]
    assert kept(f"{{min: {params[1]}, max: {params[2]}}}") == params[1:3]
    assert kept(f"{{near: {params[2] + 3}, within: 3}}") == params[2:3]
    assert kept(f"{{near: {params[2] + 3}, within: 2}}") == []


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 5)), max_size=12))
def test_the_front_is_what_nothing_else_beats(costs: list[tuple[int, int, int]]) -> None:
    """Against the definition: no other is at least as good in all objectives and better in one."""
    networks = [Found({}, {}, Totals(*cost), str(index)) for index, cost in enumerate(costs)]
    ordered = ranked(networks, {"flops": "minimize", "params": "maximize"})

    def beats(one: Totals, other: Totals) -> bool:
        return (
            one.flops <= other.flops
            and one.params >= other.params
            and (one.flops, one.params)
            != (
                other.flops,
                other.params,
            )
        )

    for each in networks:
        assert each.on_front != any(beats(other.totals, each.totals) for other in networks)
    assert sorted(ordered, key=lambda each: int(each.fingerprint)) == networks
    fronts = [each.on_front for each in ordered]
    assert fronts == sorted(fronts, reverse=True)
    for one, other in pairwise(ordered):
        assert one.on_front != other.on_front or one.totals.flops <= other.totals.flops


def test_what_only_training_tells_ranks_nothing_and_is_said(search: Search) -> None:
    found = search(f"{BLOCKS_AND_PLACES}objectives: {{val.accuracy: maximize, params: minimize}}\n")
    assert dict(found.objectives) == {"params": "minimize"}
    params = [each.totals.params for each in found.kept]
    assert params == sorted(params)
    assert "Known after training only, and so no part of this ranking: val.accuracy." in networks_table(found).footnotes


def test_two_searches_agree_in_every_value(search: Search) -> None:
    text = f"{BLOCKS_AND_PLACES}objectives: {{flops: minimize, activations: minimize}}\n"
    assert record(search(text)) == record(search(text))


# ---- what a paper claims ----


def notes(found: StaticSearch) -> str:
    return " ".join(networks_table(found).footnotes)


def test_a_number_that_is_reached_names_the_nearest_network(search: Search) -> None:
    kernels = "space:\n  network.graph.stem.kernel: {choice: [1, 3, 5]}\n"
    params = [each.totals.params for each in search(kernels).networks]
    target = f"{{title: A Paper, table: 2, metric: params, near: {params[1] + 1}, within: 2}}"
    found = search(f"{kernels}targets: [{target}]\n")
    assert found.targets[0].reached == 1
    assert found.targets[0].misses_by == 1
    assert f"1 network comes to it; the nearest has {params[1]:,} (kernel: 3)" in notes(found)


def test_a_number_below_the_network_without_insertions_is_out_of_reach_of_any(search: Search) -> None:
    found = search("""\
space: {network.insert.gate.reduction: {choice: [2, 4]}}
targets: [{title: A Paper, metric: params, near: 2000, within: 50}]
""")
    plain = found.targets[0].plain
    assert plain < found.targets[0].lowest
    assert "A Paper: 2 k ± 50 params: no network comes to it. The smallest of all" in notes(found)
    assert f"without any insertion it is {plain:,} already, and no network here has less" in notes(found)


def test_where_nothing_varies_no_network_is_described_by_it(search: Search) -> None:
    found = search("""\
space: {network.graph.stem.kernel: {choice: [3]}}
targets: [{title: A Paper, metric: params, near: 2000, within: 50}]
""")
    assert "()" not in notes(found)


def test_numbers_that_are_reached_each_but_not_together(search: Search) -> None:
    kernels = "space:\n  network.graph.stem.kernel: {choice: [1, 3, 5]}\n"
    first, _, last = search(kernels).networks
    found = search(f"""\
{kernels}targets:
  - {{title: A, metric: params, near: {first.totals.params}, within: 1}}
  - {{title: A, metric: flops, near: {last.totals.flops}, within: 1}}
""")
    assert [result.reached for result in found.targets] == [1, 1]
    assert found.on_target == ()
    assert "No network comes to all of these numbers at once." in notes(found)


# ---- the command ----


def test_the_command_prints_the_table_and_what_to_type_next(
    network: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command that it prints shows the network of the first row."""
    file = tmp_path / "space.yaml"
    file.write_text(f"{BLOCKS_AND_PLACES}objectives: {{params: maximize}}\n")
    assert main(["search", str(network), "--space", str(file), "--static", "--top", "2"]) == 0
    said = capsys.readouterr()
    assert "10 networks, the first 2" in said.out
    assert said.err.splitlines()[0] == "10 points; building and counting each"
    assert said.err.splitlines()[-1] == "10 of 10"
    last = said.out.splitlines()[-1]
    words = shlex.split(last.removeprefix("next: ablate "))
    assert main([*words, "--json"]) == 0
    layers = json.loads(capsys.readouterr().out)["layers"]
    best = static_search(space(file.read_text()), load(network)).kept[0]
    assert layers[-1]["params"]["value"] == best.totals.params


def test_json_holds_every_network_that_is_kept(
    network: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "space.yaml"
    file.write_text(f"{BLOCKS_AND_PLACES}constraints: {{params: {{max: 100000}}}}\n")
    arguments = ["search", str(network), "--space", str(file), "--static", "--json", "--quiet", "--top", "1"]
    assert main(arguments) == 0
    said = capsys.readouterr()
    values = json.loads(said.out)
    assert said.err == ""
    assert len(values["kept"]) == values["networks"] == 10
    assert values["kept"][0]["point"] == {"network.insert.gate": None}


# ---- Table 5 of AICNN ----

SHIPPED = REPOSITORY / "search_spaces" / "aicnn_table5.yaml"
RESNET50_PARAMS = 25_557_032
"""torchvision.models.resnet50()."""


def convolutions() -> list[tuple[int, int, int, int, int]]:
    """(stage, conv, channels read, side of what is read, multiply-accumulates) of ResNet-50's blocks at 224 × 224.

    The stride is in the 3 × 3 convolution of a stage's first block.
    """
    found, channels, side = [], 64, 56
    for stage, (width, depth) in enumerate(zip((64, 128, 256, 512), (3, 4, 6, 3), strict=True), 1):
        for block in range(depth):
            out = side // 2 if block == 0 and stage > 1 else side
            shortcut = channels * 4 * width * out**2 if block == 0 else 0
            found += [
                (stage, 1, channels, side, channels * width * side**2 + shortcut),
                (stage, 2, width, side, width * width * 9 * out**2),
                (stage, 3, width, out, width * 4 * width * out**2),
            ]
            channels, side = 4 * width, out
    return found


CONVOLUTIONS = convolutions()
RESNET50_FLOPS = 3 * 64 * 49 * 112**2 + sum(flops for *_, flops in CONVOLUTIONS) + 2048 * 1000


def with_gates(
    stages: tuple[int, ...], convs: tuple[int, ...], mode: str, reduction: int, kernel: int
) -> tuple[int, int]:
    """(params, FLOPs) of ResNet-50 with AICNN's gate before these convolutions, by hand."""
    params, flops = RESNET50_PARAMS, RESNET50_FLOPS
    for stage, conv, channels, side, _ in CONVOLUTIONS:
        if stage in stages and conv in convs:
            if mode != "spatial":  # two matrices without biases, on one pixel
                params += 2 * channels * (channels // reduction)
                flops += 2 * channels * (channels // reduction)
            if mode != "channel":  # a convolution to one channel, with a bias
                params += channels * kernel**2 + 1
                flops += channels * kernel**2 * side**2
    return params, flops


def numbers(pattern: str) -> tuple[int, ...]:
    return tuple(int(character) for character in pattern if character.isdigit())


def by_hand(point: dict[str, Any]) -> tuple[int, int]:
    """What a point of the shipped space costs. The patterns are those of ``before stage(1|2).*.conv3``."""
    insertion = "network.insert.attention"
    stages, convs = map(numbers, point[f"{insertion}.at"].removeprefix("before ").split(".*."))
    mode = point[f"{insertion}.mode"]
    return with_gates(stages, convs, mode, point.get(f"{insertion}.reduction", 0), point.get(f"{insertion}.kernel", 0))


@pytest.fixture
def imagenet() -> Spec:
    return load(REPOSITORY / "specs" / "gallery" / "imagenet.yaml")


def test_the_count_by_hand_of_resnet50_is_the_published_one() -> None:
    assert f"{RESNET50_FLOPS / 1e9:.2f}" == "4.09"


def test_the_placements_of_aicnn_that_have_27_5_million_parameters_are_found(imagenet: Spec) -> None:
    """Before every conv1 with r = 16; before all convolutions of stages 1 to 3 with r = 8. And none has 4.0 G FLOPs."""
    tree = yamlfile.load(SHIPPED)
    places = ["before stage(1|2|3|4).*.conv1", "before stage(1|2|3).*.conv(1|2|3)"]
    paths = tree["space"]
    paths["network.insert.attention.at"] = yamlfile.loads(f"choice: {places}", "places")
    paths["network.insert.attention.reduction"] = {"choice": [8, 16]}
    paths["network.insert.attention.kernel"]["choice"] = [3]
    found = static_search(read_space(tree, "space.yaml"), imagenet)
    assert len(found.networks) == 2 * (2 + 1 + 2)
    for each in found.networks:
        assert (each.totals.params, each.totals.flops) == by_hand(dict(each.point))
    kept = [tuple(each.labels.values())[1:] for each in found.kept]
    assert kept == [(places[0], "channel", "16"), (places[1], "combined", "8", "3")]
    params, flops = found.targets
    assert (params.reached, flops.reached) == (2, 0)
    assert flops.plain == RESNET50_FLOPS
    assert f"without any insertion it is {RESNET50_FLOPS:,} already" in notes(found)


@pytest.mark.slow
def test_the_whole_space_of_table_5_is_what_a_count_by_hand_says(imagenet: Spec) -> None:
    found = static_search(read_space(yamlfile.load(SHIPPED), "space.yaml"), imagenet)
    some = [
        [chosen for size in range(1, most + 1) for chosen in combinations(range(1, most + 1), size)] for most in (4, 3)
    ]
    parts = [("channel", r, 0) for r in (4, 8, 16, 32)] + [("spatial", 0, k) for k in (3, 5, 7)]
    parts += [("combined", r, k) for r in (4, 8, 16, 32) for k in (3, 5, 7)]
    expected = [with_gates(*places, *part) for places in product(*some) for part in parts]
    assert sorted((each.totals.params, each.totals.flops) for each in found.networks) == sorted(expected)
    near = sorted(cost for cost in expected if abs(cost[0] - 27.5e6) <= 0.05e6)
    assert sorted((each.totals.params, each.totals.flops) for each in found.kept) == near
    assert len(near) == 15
    assert min(flops for _, flops in expected) > 4.05e9


def test_what_acts_nowhere_at_a_point_is_in_no_command(search: Search) -> None:
    """``reduction`` is no parameter of ``simam``: to set it there would be refused as an unknown key."""
    found = search("""\
space:
  network.insert.gate.block: {choice: [simam, se]}
  network.insert.gate.reduction: {choice: [2, 8]}
""")
    simam = next(each for each in found.networks if each.labels["network.insert.gate.block"] == "simam")
    assert set(simam.point) == set(simam.labels) == {"network.insert.gate.block"}
