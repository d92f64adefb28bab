"""Controls: of each variant's baseline the one that costs as much, found by closed forms and by trying every width."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from typing import Any

import pytest

from ablate.costing import cost_of
from ablate.describe import plan as plan_table
from ablate.design import StudyPlan, Variant, study_plan
from ablate.design.matching import Match, Steps, UnchangedError, nearest
from ablate.errors import UserError
from ablate.facts import explain
from ablate.prepare import Prepared, prepare, variant_records
from ablate.spec import load
from ablate.words import in_words

DATA = {"name": "fake", "shape": [3, 11, 11], "classes": 5, "count": {"train": 23, "test": 7}}
TRAIN = {"epochs": 1, "batch_size": 7, "optimizer": {"name": "sgd", "lr": 0.1}}
WIDTH = "round(16*$k)"
ATTENTION = {"block": "self_attention", "at": "after body", "residual": "weighted"}
FLOPS = {"match": "flops", "by": "network.params.k", "tolerance": 0.06}
"""A channel more of 16 is 12% more FLOPs."""
KINDS = {"plain": {}, "attention": {"network.insert": {"attention": ATTENTION}}}


def spec(ablation: dict[str, Any], *, width: str = WIDTH, **network: Any) -> dict[str, Any]:
    graph = {
        "stem": {"block": "conv_bn_act", "width": width, "kernel": 3},
        "body": {"block": "conv_bn_act", "width": width, "kernel": 3},
        "head": {"block": "classifier"},
    }
    whole = {"params": {"k": 1}, "graph": graph} | network
    study = {"name": "study", "data": DATA, "train": TRAIN, "network": whole}
    return study | {"ablation": {"seeds": 2, "design": "variants", "baseline": "plain", "controls": [FLOPS]} | ablation}


def planned(ablation: dict[str, Any], sets: Any = (), **network: Any) -> StudyPlan:
    return study_plan(load(spec(ablation, **network), sets=sets))


def refused(ablation: dict[str, Any], sets: Any = (), **network: Any) -> str:
    with pytest.raises(UserError) as caught:
        planned(ablation, sets, **network)
    return str(caught.value)


def flops_at(width: int) -> int:
    """Two convolutions of 3 × 3 on 11 × 11 pixels, and a linear layer to 5 classes."""
    return 11 * 11 * 9 * (3 * width + width * width) + 5 * width


def params_at(width: int) -> int:
    """Convolutions without biases, each with a batch norm's scale and shift; a linear layer with biases."""
    return 9 * (3 * width + width * width) + 2 * 2 * width + 5 * width + 5


def closest(cost: Callable[[int], int], wanted: int) -> int:
    return min(range(1, 200), key=lambda width: abs(cost(width) - wanted))


def attention_flops() -> int:
    """Three 1 × 1 convolutions of 16 channels, and two products of N × N with N × 16."""
    pixels = 11 * 11
    return flops_at(16) + 3 * 16 * 16 * pixels + 2 * 16 * pixels * pixels


def width_of(variant: Variant) -> int:
    return variant.network.graph.shape("body.conv")[0]


@pytest.fixture(scope="module")
def both() -> Prepared:
    """One variant that costs more than the baseline, and one that costs the same."""
    variants = KINDS | {"other kernel start": {"network.init": {"recipe": "torch_default"}}}
    return prepare(planned({"variants": variants}), measure=False)


# ---- what a control is ----


@pytest.mark.parametrize(("match", "cost"), [("flops", flops_at), ("params", params_at)])
def test_the_width_is_the_closest_of_all_widths(match: str, cost: Callable[[int], int]) -> None:
    controls = [{"match": match, "by": "network.params.k", "tolerance": 0.06}]
    plan = planned({"variants": KINDS, "controls": controls})
    counted = cost_of(plan.variant("attention").network.graph)
    wanted = counted.flops if match == "flops" else counted.params
    found = plan.variant(f"plain at the {match} of attention")
    assert width_of(plan.variant("plain")) == 16
    assert width_of(found) == closest(cost, wanted)
    assert found.control is not None
    assert (found.control.wanted, found.control.reached) == (wanted, cost(width_of(found)))
    assert (found.control.of, found.control.match, found.control.by) == ("attention", match, "network.params.k")
    assert round(16 * found.control.value) == width_of(found)


def test_a_control_is_its_baseline_in_all_but_the_parameter() -> None:
    plan = planned({"variants": KINDS})
    control, baseline = plan.variant("plain at the flops of attention"), plan.variant("plain")
    assert control.levels == baseline.levels
    assert control.baseline == "plain"
    assert (control.train, control.data) == (baseline.train, baseline.data)
    tree = json.loads(json.dumps(control.tree))
    tree["network"]["params"]["k"] = 1
    assert tree == baseline.tree


def test_a_cheaper_variant_gets_a_narrower_control() -> None:
    plan = planned(
        {"variants": {"plain": {}, "small": {"network.graph.body.kernel": 1}}, "controls": [FLOPS | {"tolerance": 0.2}]}
    )
    control = plan.variant("plain at the flops of small")
    wanted = 11 * 11 * (9 * 3 * 16 + 16 * 16) + 5 * 16
    assert width_of(control) == closest(flops_at, wanted) < 16


def test_each_variant_of_a_grid_gets_its_own_baseline_widened() -> None:
    rate = {"path": "train.optimizer.lr", "levels": [0.1, 0.2]}
    plan = planned(
        {"design": "grid", "factors": {"kind": KINDS, "rate": rate}, "baseline": {"kind": "plain"}},
    )
    found = {variant.name: variant for variant in plan.variants if variant.control}
    assert list(found) == ["plain/0.1 at the flops of attention/0.1", "plain/0.2 at the flops of attention/0.2"]
    assert [variant.train.optimizer.lr for variant in found.values()] == [0.1, 0.2]
    assert [variant.baseline for variant in found.values()] == ["plain/0.1", "plain/0.2"]


def test_a_row_of_a_ladder_is_matched_too() -> None:
    components = {"kernel": {"network.graph.body.kernel": 5}, "attention": KINDS["attention"]}
    plan = planned({"design": "ladder", "baseline": None, "components": components})
    assert [variant.name for variant in plan.variants if variant.control] == [
        "bare at the flops of +kernel",
        "bare at the flops of +attention",
    ]
    assert plan.variant("bare at the flops of +attention").levels == plan.variant("bare").levels


def test_equal_controls_are_trained_once_and_shown_twice() -> None:
    """Two variants of one cost, and a baseline that somebody widened by hand."""
    later = {"network.insert": {"attention": ATTENTION | {"at": "before body"}}}
    wanted = attention_flops()
    width = closest(flops_at, wanted)
    by_hand = {"network.graph.stem.width": width, "network.graph.body.width": width}
    plan = planned({"variants": KINDS | {"later": later, "wide": by_hand}})
    assert plan.variant("plain at the flops of attention").duplicate_of == "wide"
    assert plan.variant("plain at the flops of later").duplicate_of == "wide"
    assert len(plan.distinct) == 4


def test_what_costs_the_same_needs_no_control_and_a_duplicate_of_the_baseline_gets_none() -> None:
    variants = {"plain": {}, "again": {}, "rate": {"train.optimizer.lr": 0.2}}
    plan = planned({"variants": variants})
    assert [(near.variant, near.baseline, near.match) for near in plan.near] == [("rate", "plain", "flops")]
    assert not any(variant.control for variant in plan.variants)


def test_the_tolerance_decides_who_needs_one() -> None:
    narrow = {"network.graph.stem.kernel": 1}
    share = 1 - (11 * 11 * (3 * 16 + 9 * 16 * 16) + 5 * 16) / flops_at(16)
    for tolerance, controls in ((share * 1.3, 0), (share * 0.6, 1)):
        made = planned({"variants": {"plain": {}, "less": narrow}, "controls": [FLOPS | {"tolerance": tolerance}]})
        assert sum(variant.control is not None for variant in made.variants) == controls


def test_it_is_certified_listed_and_recorded_as_any_other(both: Prepared) -> None:
    name = "plain at the flops of attention"
    assert both.failures == []
    assert {trial.variant for trial in both.trials} == {"plain", "attention", "other kernel start", name}
    records = {record["name"]: record for record in variant_records(both)}
    assert records[name]["control"] == {
        "of": "attention",
        "match": "flops",
        "by": "network.params.k",
        "value": both.plan.variant(name).control.value,  # type: ignore[union-attr]
        "wanted": both.certificates["attention"].cost["flops"],
        "reached": both.certificates[name].cost["flops"],
    }
    assert "control" not in records["attention"]


def test_what_a_wider_network_cannot_share_is_not_counted_as_unequal(both: Prepared) -> None:
    """Shared in name: all. Of one shape: the counter of each batch norm, and the classifier's biases."""
    shared = both.certificates["plain at the flops of attention"].shared
    assert shared is not None
    assert shared["shared"] == 2 * 6 + 2
    assert shared["shared"] - shared["of_another_shape"] == 3
    assert "of_another_shape" not in (both.certificates["attention"].shared or {})


def test_the_plan_and_the_explanation_say_it(both: Prepared) -> None:
    table = plan_table(both)
    name = "plain at the flops of attention"
    control = both.plan.variant(name).control
    assert control is not None
    notes = "\n".join(table.footnotes)
    assert f"{name}: a control, 'plain' with network.params.k = {control.value}" in notes
    assert f"{control.reached:,} FLOPs for the {control.wanted:,} of 'attention'" in notes
    assert "other kernel start: no control: its FLOPs are within 6% of those of 'plain'" in notes
    facts = explain(both.plan, both.plan.variant(name), both.certificates[name])
    words = " ".join(in_words(facts).split())
    assert f"flops of attention network.params.k: {control.value}" in words
    assert f"of 'attention', which has {control.wanted:,} FLOPs" in words
    assert "that both have in one shape start bit-equal" in words
    other = in_words(explain(both.plan, both.plan.variant("attention")))
    assert f"as expensive as this one: '{name}'" in other


# ---- what is refused ----


def test_without_a_baseline_there_is_nothing_to_widen() -> None:
    said = refused({"variants": KINDS, "baseline": None})
    assert "no variant is compared with a baseline that could be widened; name one: ablation.baseline" in said


@pytest.mark.parametrize(
    ("control", "words"),
    [
        (FLOPS | {"match": "latency"}, "latency"),
        (FLOPS | {"tolerance": 0}, "0 is too small; more than 0"),
        (FLOPS | {"by": "train.epochs"}, "'train.epochs' is no parameter of a network; network.params.NAME"),
        (FLOPS | {"by": "network.params.m"}, "the network of the baseline 'plain' has no parameter 'm'"),
        ({"match": "flops"}, "by"),
    ],
    ids=["match", "tolerance", "path", "unknown", "missing"],
)
def test_a_wrong_entry_is_refused(control: dict[str, Any], words: str) -> None:
    said = refused({"variants": KINDS, "controls": [control]})
    assert words in said
    assert "ablation.controls.0" in said


def test_one_cost_is_matched_once() -> None:
    assert "'flops' is matched twice" in refused({"variants": KINDS, "controls": [FLOPS, FLOPS]})


def test_a_parameter_that_a_factor_or_set_decides_is_not_solved_for() -> None:
    wide = {"wide": {"network.params.k": 2}}
    assert "'variant' varies network.params.k, which a control is solved for by" in refused({"variants": KINDS | wide})
    as_mapping = {"wide": {"network.params": {"k": 2}}}
    assert "'variant' varies network.params.k" in refused({"variants": KINDS | as_mapping})
    assert "--set network.params.k: controls are solved for by it" in refused(
        {"variants": KINDS}, ["network.params.k=2"]
    )
    left_out = planned({"variants": KINDS}, ["network.params.k=2", "ablation.controls=null"])
    assert not any(variant.control for variant in left_out.variants)


def test_a_parameter_that_changes_no_cost_is_refused_once() -> None:
    network = {"params": {"k": 1, "p": 0.5}}
    dropped = {"drop": {"block": "dropout", "rate": "0.1*$p", "at": "after body"}}
    more = {"more": {"network.graph.body.kernel": 5}}
    controls = [FLOPS | {"by": "network.params.p"}]
    said = refused({"variants": KINDS | more, "controls": controls}, **network, insert=dropped)
    assert said.count("has no effect on the flops of 'plain'") == 1


def test_steps_that_are_too_far_apart_are_named_with_their_costs() -> None:
    said = refused({"variants": KINDS, "controls": [FLOPS | {"tolerance": 0.0001}]})
    wanted = attention_flops()
    below = max(width for width in range(1, 200) if flops_at(width) < wanted)
    assert f"the flops of 'attention', {wanted:,}, within 0.01%" in said
    assert f"gives {flops_at(below):,} (−" in said
    assert f"gives {flops_at(below + 1):,} (+" in said
    assert "a larger tolerance" in said


def test_widths_that_do_not_round_leave_whole_multiples_and_the_hint_says_so() -> None:
    """Of 16 channels only sixteenths are widths, and 8 * 2 is as many."""
    exact = FLOPS | {"tolerance": 1e-6}
    network = {"width": "8*$j", "params": {"j": 2, "k": 1}, "set": {"body": {"width": "8*$k*$j"}}}
    said = refused({"variants": KINDS, "controls": [exact]}, **network)
    values = re.findall(r"([\d.]+) gives", said)
    assert len(values) == 2
    assert 16 * (float(values[1]) - float(values[0])) == 1
    assert "sizes that round, such as round(16*$k), have values between; or a larger tolerance" in said


def test_a_parameter_that_cancels_out_is_refused() -> None:
    said = refused({"variants": KINDS}, width="round(16*$k/$k)")
    assert "has no effect on the flops of 'plain'" in said


# ---- the search for a step ----


def steps_of(texts: list[str], **params: Any) -> Steps:
    return Steps({"params": params, "graph": {str(i): {"width": text} for i, text in enumerate(texts)}}, "k", {})


def costs(*coefficients: int) -> Callable[[float], int]:
    return lambda k: sum(round(c * k) ** 2 * 7 + round(c * k) * 3 for c in coefficients)


def test_every_wanted_cost_finds_the_steps_beside_it() -> None:
    """Against every step there is, at random costs."""
    coefficients = (16, 32, 64)
    steps, cost = steps_of([f"round({c}*$k)" for c in coefficients], k=1), costs(*coefficients)
    every = sorted({cost(index / 10_000) for index in range(1, 40_000)})
    draw = random.Random(0)
    for _ in range(40):
        wanted = draw.randrange(every[3], every[-3])
        found = nearest(steps, cost, wanted)
        below, above = max(c for c in every if c <= wanted), min(c for c in every if c >= wanted)
        assert {match.cost for match in found} == {below, above}
        assert abs(found[0].cost - wanted) == min(wanted - below, above - wanted)
        assert all(cost(match.value) == match.cost for match in found)


def test_few_networks_are_built() -> None:
    built: list[float] = []
    cost = costs(16, 32, 64)

    def counted(k: float) -> int:
        built.append(k)
        return cost(k)

    assert nearest(steps_of(["round(16*$k)", "round(32*$k)", "round(64*$k)"], k=1), counted, cost(1.42))
    assert len(built) < 12


def test_the_value_has_as_few_decimals_as_its_step_allows() -> None:
    assert nearest(steps_of(["round(16*$k)"], k=1), costs(16), costs(16)(2))[0] == Match(2, costs(16)(2))
    value = nearest(steps_of(["round(16*$k)"], k=1), costs(16), costs(16)(21 / 16))[0].value
    assert value == 1.3  # 1.28125 to 1.34375
    assert nearest(steps_of(["16*$k"], k=1), costs(16), costs(16)(21 / 16))[0].value == 1.3125


def test_where_sizes_do_not_round_the_values_are_those_that_are_whole() -> None:
    assert steps_of(["16*$k", "24*$k"], k=1).parts == 8
    assert steps_of(["$w*2"], k=1, w="12*$k").parts == 24
    assert steps_of(["$k"], k=3).parts == 1
    assert steps_of(["round(16*$k)", "0.1*$k"], k=1).parts == 10_000


def test_a_cost_that_falls_with_the_parameter_is_matched_too() -> None:
    cost = lambda k: round(1000 / k)  # noqa: E731
    assert nearest(steps_of(["round(1000/$k)"], k=1), cost, 700)[0].cost == 700


def test_gaps_of_values_that_make_no_network_are_stepped_over() -> None:
    """Twelve heads: widths that are no multiple of 12 can't be built."""
    cost = costs(192)
    steps = steps_of(["round(192*$k)"], k=1)
    found = nearest(steps, lambda k: cost(k) if round(192 * k) % 12 == 0 else None, cost(1.3))
    assert sorted(round(192 * match.value) for match in found) == [240, 252]


def test_out_of_reach_the_nearest_is_told_alone() -> None:
    """No width is less than one channel, and none is looked at beyond 64 times the baseline's."""
    steps = steps_of(["max(1, round(16*$k))"], k=1)
    cost = lambda k: max(1, round(16 * k)) ** 2 + 100  # noqa: E731
    assert [match.cost for match in nearest(steps, cost, 50)] == [101]
    assert [match.value for match in nearest(steps, cost, 10**9)] == [64]


def test_a_cost_that_does_not_change_is_told_from_networks_that_cannot_be_built() -> None:
    with pytest.raises(UnchangedError, match="7 whatever the value"):
        nearest(steps_of(["round(16*$k)"], k=1), lambda k: 7, 9)
    assert nearest(steps_of(["round(16*$k)"], k=1), lambda k: 7 if k == 1 else None, 9) == []
