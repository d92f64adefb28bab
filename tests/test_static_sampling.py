"""Samples of a space by cost alone: which points, what is said of them, and what networks are built for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ablate.costing import memory_of
from ablate.design import Level, variant_at
from ablate.errors import UserError
from ablate.known import Known
from ablate.spec import load
from ablate.static_search import StaticSearch, networks_table, record, static_search
from tests.test_static_search import NETWORK, space

Search = Callable[..., StaticSearch]

PLACES = """\
space:
  network.insert.gate.block: {choice: [se, simam, eca]}
  network.insert.gate.at: {text: after stage$n.*, with: {n: {subset: [1, 2]}}}
  network.insert.gate.reduction: {int: [1, 6], when: {network.insert.gate.block: se}}
  network.graph.stem.kernel: {choice: [1, 3]}
"""
COUNT = 2 * 3 * (6 + 1 + 1)


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


def labels(found: StaticSearch) -> set[tuple[tuple[str, str], ...]]:
    """Every point that was built, as its labels."""
    return {tuple(sorted(one.items())) for each in found.networks for one in (each.labels, *each.same)}


def footnotes(found: StaticSearch) -> str:
    return " ".join(networks_table(found).footnotes)


# ---- at random ----


def test_a_sample_has_so_many_points_and_no_point_twice(search: Search) -> None:
    every, some = search(PLACES), search(PLACES, trials=20)
    assert (every.points, some.points, len(labels(some))) == (COUNT, 20, 20)
    assert labels(some) < labels(every)
    known = {each.fingerprint: each.totals for each in every.networks}
    assert {each.fingerprint: each.totals for each in some.networks}.items() <= known.items()


def test_the_seed_decides_which(search: Search) -> None:
    one, same, other = (search(PLACES, trials=15, seed=seed) for seed in (0, 0, 1))
    assert record(one) == record(same)
    assert labels(one) != labels(other)


def test_whoever_asks_for_as_many_as_there_are_gets_them_all(search: Search) -> None:
    text = "space: {network.insert.gate.reduction: {choice: [1, 2, 4]}}\n"
    assert record(search(text, trials=3)) == record(search(text))
    nearly = search(text, trials=2)
    assert nearly.sample is not None
    assert (nearly.points, nearly.sample.of) == (2, 3)


def test_a_range_without_steps_can_be_sampled_and_not_listed(search: Search) -> None:
    text = "space:\n  network.params.k: {float: [0.5, 2.0]}\n  network.graph.stem.width: {choice: [round(16*$k)]}\n"
    with pytest.raises(UserError, match="a range without steps has no end of values"):
        search(text)
    found = search(text, trials=9)
    assert found.sample is not None
    assert (found.points, found.sample.of) == (9, None)
    assert all(0.5 <= each.point["network.params.k"] <= 2.0 for each in found.networks)
    assert "A sample: 9 points of a space without end, drawn at random (seed 0)" in footnotes(found)


def test_a_sample_says_that_it_is_one(search: Search) -> None:
    found = search(PLACES, trials=10, seed=3)
    assert f"A sample: 10 points of {COUNT}, drawn at random (seed 3); what was not built may be better" in footnotes(
        found
    )
    assert networks_table(found).caption.startswith("A sample of 10 points: ")
    assert record(found)["sample"] == {"of": COUNT, "sampler": "random", "seed": 3, "asked": 10}
    assert record(search("space: {network.graph.stem.kernel: {choice: [1, 3]}}"))["sample"] is None


def test_too_many_points_to_list_name_the_way_to_a_sample(search: Search) -> None:
    with pytest.raises(UserError, match=r"say --limit 48, or --trials 47 for a sample"):
        search(PLACES, limit=47)


# ---- mistakes ----


def test_a_value_with_which_nothing_can_be_built_is_a_mistake_of_a_sample_too(search: Search) -> None:
    text = PLACES.replace("[1, 3]", "[1, big]")
    with pytest.raises(UserError, match=r"space.yaml:5:43: network.graph.stem.kernel: "):
        search(text, trials=5)


def test_a_value_that_few_others_allow_is_none(search: Search) -> None:
    """A channel gate needs an image: before the head's last layer an activation can stand, and no other of these."""
    blocks = ", ".join(["act", *["se", "simam", "eca", "cbam", "bam"]])
    found = search(
        f"space:\n  network.insert.gate.block: {{choice: [{blocks}]}}\n"
        "  network.insert.gate.at: {choice: [after stage1, before head.fc]}\n",
        trials=11,
    )
    assert found.impossible.total() >= 4


def test_a_path_that_acts_at_no_point_that_was_tried_is_a_mistake(search: Search) -> None:
    text = "space:\n  network.insert.gate.block: {choice: [se, eca]}\n  network.insert.gate.reductoin: {int: [1, 99]}\n"
    with pytest.raises(UserError, match=r"has no effect at any point.*; did you mean 'reduction'"):
        search(text, trials=7)


# ---- by a sampler ----

COSTS = f"{PLACES}objectives: {{flops: minimize, params: minimize}}\nconstraints: {{params: {{max: 43600}}}}\n"


def test_an_evolution_proposes_by_what_it_is_told(search: Search, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each point is told before the next is asked for; what breaks a constraint is refused with its reason."""
    from ablate.proposing import Proposer

    told: list[tuple[int, str]] = []

    def noting(method: Any) -> Any:
        def noted(self: Proposer, number: int, what: Any, *rest: Any) -> None:
            told.append((number, what if isinstance(what, str) else ""))
            method(self, number, what, *rest)

        return noted

    monkeypatch.setattr(Proposer, "tell", noting(Proposer.tell))
    monkeypatch.setattr(Proposer, "refuse", noting(Proposer.refuse))
    found = search(COSTS, trials=12, sampler="nsga2", seed=1)
    assert found.points == 12
    assert [number for number, _ in told] == list(range(12))
    points = {each.fingerprint: 1 + len(each.same) for each in found.networks}
    kept = {each.fingerprint for each in found.kept}
    broken = sum(count for fingerprint, count in points.items() if fingerprint not in kept)
    assert 0 < [why for _, why in told].count("breaks the constraint on params") == broken < 12
    assert "proposed by nsga2 (seed 1)" in footnotes(found)


def test_a_sampler_goes_by_objectives_that_are_known(search: Search) -> None:
    with pytest.raises(UserError, match="tpe goes by objectives, and the space has none that is known"):
        search(f"{PLACES}objectives: {{val.accuracy: maximize}}\n", trials=3, sampler="tpe")
    with pytest.raises(UserError, match="unknown sampler 'nsga'; did you mean 'nsga3'"):
        search(COSTS, trials=3, sampler="nsga")


def test_of_the_spaces_own_sampler_the_keys_are_taken_and_the_seed(search: Search) -> None:
    found = search(f"{COSTS}sampler: {{name: nsga2, population: 3, seed: 8}}\n", trials=4, sampler="nsga2")
    drawn = search(f"{COSTS}sampler: {{name: nsga2, population: 3, seed: 8}}\n", trials=4)
    assert [each.sample and (each.sample.sampler, each.sample.seed) for each in (found, drawn)] == [
        ("nsga2", 8),
        ("random", 8),
    ]


# ---- what networks are built for ----

KERNELS = "space: {network.graph.stem.kernel: {choice: [1, 3, 5, 7]}}\n"


def test_what_only_a_built_network_tells_ranks_and_bounds(search: Search, network: Path) -> None:
    params = [each.totals.params for each in search(KERNELS).networks]
    asked = f"objectives: {{synflow: maximize, memory: minimize}}\nconstraints: {{params: {{max: {params[2]}}}}}\n"
    found = search(KERNELS + asked)
    assert len(found.kept) == 3
    scores = [each["synflow"] for each in found.kept]
    assert scores == sorted(scores, reverse=True)
    for each in found.kept:
        level = Level("", "", tuple(load(network, sets=[f"network.graph.stem.kernel={each.labels[KERNEL]}"]).sets))
        graph = variant_at(load(network), "one", [level]).network.graph
        assert each["memory"] == memory_of(graph, 5, channels_last=True).saved
    assert [column.name for column in networks_table(found).columns][1:5] == ["params", "FLOPs", "synflow", "memory"]
    assert record(found)["kept"][0]["synflow"] == scores[0]


KERNEL = "network.graph.stem.kernel"


def test_only_networks_that_keep_what_their_graph_tells_are_built(
    search: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = [each.totals.params for each in search(KERNELS).networks]
    built: list[str] = []

    def values(self: Known, variant: Any, metrics: Any) -> dict[str, float]:
        built.append(variant.tree["network"]["graph"]["stem"]["kernel"])
        if built[-1] == 1:
            raise UserError("no naswot: nothing in it has a kink")
        return dict.fromkeys(metrics, float(built[-1]))

    monkeypatch.setattr(Known, "values", values)
    bounds = f"constraints: {{params: {{max: {params[2]}}}, naswot: {{max: 4}}}}\n"
    found = search(KERNELS + bounds)
    assert built == [1, 3, 5]
    assert [each.labels[KERNEL] for each in found.kept] == ["3"]
    assert dict(found.rejected) == {"params": 1, "naswot": 1}
    assert dict(found.unmeasured) == {"no naswot: nothing in it has a kink": 1}
    assert "1 network can't be measured: no naswot: nothing in it has a kink" in footnotes(found)
