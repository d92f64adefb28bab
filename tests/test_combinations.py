"""Designs against what they are by definition: products, sums and brute-force lists."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ablate import yamlfile
from ablate.collect import Collector
from ablate.design.combinations import AS_WRITTEN, Combination, Combined, combine
from ablate.design.levels import read_ablation, read_factors
from ablate.errors import UserError

SPEC = {"data": {"val": 0.3}, "train": {"epochs": 7, "optimizer": {"lr": 0.1}}}


def combined(ablation: dict[str, Any], spec: dict[str, Any] = SPEC) -> Combined:
    """What a design makes of its factors or components; ``UserError`` with all that is wrong."""
    tree = yamlfile.loads(yamlfile.dump(spec | {"ablation": {"seeds": 1} | ablation}), "spec.yaml")
    collector = Collector(tree)
    section = read_ablation(tree, collector)
    collector.raise_if_any()
    assert section is not None
    found = combine(section, read_factors(section, collector), collector)
    collector.raise_if_any()
    return found


def refused(ablation: dict[str, Any]) -> str:
    with pytest.raises(UserError) as caught:
        combined(ablation)
    return str(caught.value)


def names(found: Combined) -> list[str]:
    return [each.name for each in found.kept]


def patches(each: Combination) -> list[str]:
    return [level.layer for level in each.patches]


def factor(index: int, levels: int) -> dict[str, Any]:
    """A factor of a path of its own, of which no level is what the spec says."""
    return {"path": f"train.extra{index}", "levels": [f"v{level}" for level in range(levels)]}


sizes = st.lists(st.integers(1, 4), min_size=1, max_size=4)


@st.composite
def factor_sets(draw: st.DrawFn) -> dict[str, Any]:
    return {f"f{index}": factor(index, count) for index, count in enumerate(draw(sizes))}


def levels_of(factors: dict[str, Any]) -> dict[str, list[str]]:
    return {name: value["levels"] for name, value in factors.items()}


# ---- grid ----


@given(factor_sets())
def test_a_grid_is_the_product_of_its_levels_in_the_order_of_writing(factors: dict[str, Any]) -> None:
    wanted = ["/".join(levels) for levels in product(*levels_of(factors).values())]
    assert names(combined({"factors": factors})) == wanted


@given(factor_sets(), st.randoms(use_true_random=False))
def test_the_order_of_the_factors_changes_names_and_no_combination(factors: dict[str, Any], random: Any) -> None:
    order = list(factors)
    random.shuffle(order)

    def sets(ablation: dict[str, Any]) -> set[frozenset[str]]:
        return {frozenset(patches(each)) for each in combined(ablation).kept}

    assert sets({"factors": factors}) == sets({"factors": {name: factors[name] for name in order}})


# ---- one at a time ----


@given(factor_sets())
def test_one_at_a_time_has_one_variant_and_each_other_level_alone(factors: dict[str, Any]) -> None:
    reference = {name: value["levels"][-1] for name, value in factors.items()}
    found = combined({"design": "one_at_a_time", "factors": factors, "reference": reference})
    assert len(found.kept) == 1 + sum(len(levels) - 1 for levels in levels_of(factors).values())
    assert found.kept[0].name == "reference"
    assert found.kept[0].levels == reference
    for each in found.kept[1:]:
        differing = {name for name, level in each.levels.items() if reference[name] != level}
        assert [f"{name}={each.levels[name]}" for name in differing] == [each.name]
    assert found.baselines == {each.name: "reference" for each in found.kept[1:]}


def test_without_a_reference_it_is_the_spec_as_written_whose_levels_are_not_listed_twice() -> None:
    factors = {
        "epochs": {"path": "train.epochs", "levels": [3, 7, 11]},
        "rate": {"slow": {"train.optimizer.lr": 0.01}, "fast": {"train.optimizer.lr": 0.3}},
        "data": {"all": {}, "half": {"data.val": 0.5}},
    }
    found = combined({"design": "one_at_a_time", "factors": factors})
    assert names(found) == ["reference", "epochs=3", "epochs=11", "rate=slow", "rate=fast", "data=half"]
    assert found.kept[0].levels == {"epochs": "7", "rate": AS_WRITTEN, "data": "all"}
    assert found.kept[-1].levels == {"epochs": "7", "rate": AS_WRITTEN, "data": "half"}


def test_a_partial_reference_leaves_the_other_factors_as_written() -> None:
    factors = {"epochs": {"path": "train.epochs", "levels": [3, 7]}, "rate": factor(1, 3)}
    found = combined({"design": "one_at_a_time", "factors": factors, "reference": {"rate": "v1"}})
    assert names(found) == ["reference", "epochs=3", "rate=v0", "rate=v2"]
    assert patches(found.kept[1]) == ["rate=v1", "epochs=3"]
    assert found.kept[0].levels == {"epochs": "7", "rate": "v1"}


def test_true_is_not_taken_for_the_1_that_the_spec_says() -> None:
    factors = {"f": {"path": "train.epochs", "levels": [True, 1]}}
    found = combined({"design": "one_at_a_time", "factors": factors}, {"train": {"epochs": 1}})
    assert names(found) == ["reference", "f=true"]


# ---- components ----

COMPONENTS = [f"c{index}" for index in range(5)]
component_sets = st.lists(st.sampled_from(COMPONENTS), min_size=1, max_size=5, unique=True)


def patched(components: list[str]) -> dict[str, Any]:
    return {name: {f"train.{name}": 1} for name in components}


@given(component_sets)
def test_row_k_of_a_ladder_has_exactly_the_first_k_patches_in_order(components: list[str]) -> None:
    found = combined({"design": "ladder", "components": patched(components)})
    assert names(found) == ["bare", *(f"+{name}" for name in components)]
    for k, each in enumerate(found.kept):
        assert patches(each) == [f"{name}=with" for name in components[:k]]
        assert [name for name, state in each.levels.items() if state == "with"] == components[:k]
        assert each.row_before == (found.kept[k - 1].name if k else None)


@given(component_sets)
def test_leave_one_out_and_add_one_in_have_one_patch_each(components: list[str]) -> None:
    out = combined({"design": "leave_one_out", "components": patched(components)})
    assert names(out) == ["full", *(f"without_{name}" for name in components)]
    assert [patches(each) for each in out.kept] == [[], *([f"{name}=without"] for name in components)]
    assert out.kept[0].levels == dict.fromkeys(components, "with")
    added = combined({"design": "add_one_in", "components": patched(components)})
    assert names(added) == ["bare", *(f"+{name}" for name in components)]
    assert [patches(each) for each in added.kept] == [[], *([f"{name}=with"] for name in components)]
    assert added.baselines == {f"+{name}": "bare" for name in components}


# ---- zip and exclude ----


@given(sizes, st.integers(2, 4))
def test_zipped_factors_move_together_in_the_place_of_the_first(counts: list[int], together: int) -> None:
    others = {f"f{index}": factor(index, count) for index, count in enumerate(counts)}
    factors = {"a": factor(11, together), **others, "b": factor(13, together)}
    found = combined({"factors": factors, "zip": [["a", "b"]]})
    rows = [
        ("/".join((a, b, *rest)))
        for a, b in zip(levels_of(factors)["a"], levels_of(factors)["b"], strict=True)
        for rest in product(*levels_of(others).values())
    ]
    assert names(found) == rows


def test_zipped_factors_are_one_at_a_time_together() -> None:
    factors = {"a": factor(1, 3), "b": factor(2, 3), "c": factor(3, 2)}
    ablation = {"design": "one_at_a_time", "factors": factors, "zip": [["a", "b"]], "reference": {"b": "v1", "c": "v0"}}
    assert names(combined(ablation)) == ["reference", "a=v0/b=v0", "a=v2/b=v2", "c=v1"]
    said = refused(ablation | {"reference": {"a": "v0", "b": "v1"}})
    assert "ablation.reference: a, b are zipped, and these levels don't stand side by side" in said


@given(factor_sets(), st.data())
def test_exclude_leaves_what_a_list_by_hand_leaves(factors: dict[str, Any], data: st.DataObject) -> None:
    levels = levels_of(factors)
    everything = [dict(zip(levels, chosen, strict=True)) for chosen in product(*levels.values())]
    entry = st.sampled_from(everything).flatmap(
        lambda whole: st.lists(st.sampled_from(sorted(whole)), min_size=1, unique=True).map(
            lambda kept: {name: whole[name] for name in kept}
        )
    )
    exclude = data.draw(st.lists(entry, min_size=1, max_size=3))
    left = [levels for levels in everything if not any(entry.items() <= levels.items() for entry in exclude)]
    ablation = {"factors": factors, "exclude": exclude}
    if left:
        assert [each.levels for each in combined(ablation).kept] == left
    else:
        assert "ablation.exclude: leaves no variant" in refused(ablation)


GRID = {"factors": {"a": factor(1, 2), "b": factor(2, 3)}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"zip": [["a", "b"]]}, "zip.0: zipped factors have equally many levels, and 'a' has 2, 'b' has 3"),
        ({"zip": [["a"]]}, "zip.0: fewer than two factors"),
        ({"zip": [["a", "bb"]]}, "zip.0.1: no factor 'bb'; did you mean 'b'?"),
        ({"zip": [["a", "a"]]}, "zip.0.1: factor 'a' is zipped twice"),
        ({"exclude": [{"a": "v0", "b": "v7"}]}, "exclude.0.b: factor 'b' has no level 'v7'; one of: v0, v1, v2"),
        ({"exclude": [{"c": "v0"}]}, "exclude.0.c: no factor 'c'"),
        ({"exclude": [{}]}, "exclude.0: an empty combination"),
        ({"exclude": [{"a": "v0"}, {"a": "v1"}]}, "exclude: leaves no variant"),
        ({"exclude": [{"a": "v0"}], "baseline": "v0/v1"}, "baseline: the baseline 'v0/v1' is excluded"),
        ({"exclude": [{"a": "v0", "b": "v1"}], "baseline": {"a": "v0"}}, "excluded for v1/v1"),
        ({"reference": {"a": "v0"}}, "reference: unused: design 'grid' has no reference"),
        ({"components": patched(["c1"])}, "components are for design: leave_one_out, add_one_in, ladder"),
        ({"design": "one_at_a_time", "reference": {"a": "v2"}}, "reference.a: factor 'a' has no level 'v2'"),
        ({"design": "one_at_a_time", "baseline": {"a": "v0", "b": "v0"}}, "no variant with a=v0, b=v0 alone"),
    ],
)
def test_what_would_be_dropped_or_has_no_meaning_is_an_error_with_its_place(
    changes: dict[str, Any], message: str
) -> None:
    assert message in refused(GRID | changes)


def test_an_exclusion_that_two_zipped_factors_never_have_excludes_nothing() -> None:
    factors = {"a": factor(1, 2), "b": factor(2, 2)}
    said = refused({"factors": factors, "zip": [["a", "b"]], "exclude": [{"a": "v0", "b": "v1"}]})
    assert "ablation.exclude.0: excludes nothing: no combination has a=v0, b=v1" in said


@pytest.mark.parametrize("key", ["zip", "exclude"])
@pytest.mark.parametrize("design", ["leave_one_out", "add_one_in", "ladder"])
def test_components_are_neither_zipped_nor_excluded(design: str, key: str) -> None:
    value = {"zip": [["c1", "c2"]], "exclude": [{"c1": "with"}]}[key]
    said = refused({"design": design, "components": patched(["c1", "c2"]), key: value})
    assert f"ablation.{key}: unused: design '{design}' has no factors" in said


@pytest.mark.parametrize("baseline", ["reference", "a=v2", {"a": "v2"}])
def test_a_baseline_by_name_or_level_is_one_variant_where_one_thing_varies_at_a_time(baseline: Any) -> None:
    factors = {"a": factor(1, 3), "b": factor(2, 2)}
    reference = {"a": "v0", "b": "v0"}
    ablation = {"design": "one_at_a_time", "factors": factors, "reference": reference, "baseline": baseline}
    name = "reference" if baseline == "reference" else "a=v2"
    found = combined(ablation)
    assert found.baselines == {each: name for each in names(found) if each != name}


@pytest.mark.parametrize(
    ("design", "baseline", "name"),
    [
        ("leave_one_out", "without_c1", "without_c1"),
        ("leave_one_out", {"c1": "without"}, "without_c1"),
        ("ladder", {"c1": "with"}, "+c1"),
        ("ladder", {"c1": "with", "c2": "with"}, "+c2"),
        ("add_one_in", {"c1": "without", "c2": "without"}, "bare"),
    ],
)
def test_a_baseline_of_components_is_by_name_or_by_what_is_in_it(design: str, baseline: Any, name: str) -> None:
    found = combined({"design": design, "components": patched(["c1", "c2"]), "baseline": baseline})
    assert set(found.baselines.values()) == {name}
    assert len(found.baselines) == 2


def test_a_partial_baseline_of_a_zipped_factor_brings_the_level_beside_it() -> None:
    factors = {"a": factor(1, 2), "b": factor(2, 2), "c": factor(3, 2)}
    found = combined({"factors": factors, "zip": [["a", "b"]], "baseline": {"a": "v0"}})
    assert found.baselines == {"v1/v1/v0": "v0/v0/v0", "v1/v1/v1": "v0/v0/v1"}


@pytest.mark.parametrize(
    ("ablation", "count"),
    [
        ({"factors": {"a": factor(1, 101), "b": factor(2, 101)}}, "10,201"),
        ({"factors": {"a": factor(1, 101), "b": factor(2, 101)}, "exclude": [{"a": "v3"}]}, "10,201"),
        ({"design": "ladder", "components": patched([f"c{index}" for index in range(10_000)])}, "10,001"),
    ],
)
def test_too_many_variants_are_refused_before_they_are_expanded(ablation: dict[str, Any], count: str) -> None:
    assert f"ablation: {count} variants; at most 10,000" in refused(ablation)


def test_mistakes_of_factors_levels_baseline_zip_and_exclude_are_said_at_once_with_their_places() -> None:
    said = refused(
        {
            "factors": {"a": {"x/y": {}, "z": {"train.epochs": 3}}, "b": 3, "c": {"path": "trian.lr", "levels": [1]}},
            "zip": [["a", "d"]],
            "exclude": [{"a": "zz"}],
            "baseline": {"e": 1},
        }
    ).splitlines()
    assert len(said) == 6
    assert all(line.startswith("spec.yaml:") for line in said)


def test_an_empty_patch_is_no_component() -> None:
    said = refused({"design": "leave_one_out", "components": {"c1": {}, "c2": {"train.epochs": 3}}})
    assert "ablation.components.c1: an empty patch" in said


def test_an_empty_baseline_is_refused() -> None:
    said = refused({"factors": {"f": factor(0, 2)}, "baseline": {}})
    assert "ablation.baseline: an empty combination; name levels: {factor: level}" in said


def test_a_baseline_of_zipped_levels_that_dont_stand_side_by_side_is_refused() -> None:
    factors = {"a": factor(0, 2), "b": factor(1, 2), "c": factor(2, 3)}
    for design in ("grid", "one_at_a_time"):
        ablation = {"design": design, "factors": factors, "zip": [["a", "b"]], "baseline": {"a": "v0", "b": "v1"}}
        wanted = "ablation.baseline: a, b are zipped, and these levels don't stand side by side"
        assert refused(ablation).splitlines()[0].endswith(wanted)
