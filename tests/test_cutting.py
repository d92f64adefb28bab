"""Rules of ``init.rename`` with a list of names: one tensor of theirs is several of ours."""

from __future__ import annotations

import re

import pytest
import torch

from ablate.weights.cutting import cut, cuts

PACKED = {r"(\w+)\.in_proj_(.+)": [r"\1.query.\2", r"\1.key.\2", r"\1.value.\2"]}


def test_a_list_cuts_along_the_first_axis_in_its_order() -> None:
    state = {
        "a.in_proj_weight": torch.arange(6 * 5).reshape(6, 5),
        "a.in_proj_bias": torch.arange(6),
        "b": torch.ones(7),
    }
    found, wrong = cut(state, {**PACKED, "b": "c"})
    assert not wrong
    assert {name: tuple(part.shape) for name, part in found.items()} == {
        **{f"a.{part}.weight": (2, 5) for part in ("query", "key", "value")},
        **{f"a.{part}.bias": (2,) for part in ("query", "key", "value")},
        "c": (7,),
    }
    assert found["a.key.bias"].tolist() == [2, 3]
    assert torch.equal(
        torch.cat([found[f"a.{part}.weight"] for part in ("query", "key", "value")]), state["a.in_proj_weight"]
    )


def test_only_a_list_cuts_and_the_first_rule_that_matches_acts() -> None:
    assert cuts(PACKED)
    assert not cuts({"a": "b"})
    state = {"a.in_proj_weight": torch.ones(6), "b.in_proj_weight": torch.ones(6)}
    found, wrong = cut(state, {r"b\.in_proj_weight": "whole", **PACKED})
    assert not wrong
    assert sorted(found) == ["a.key.weight", "a.query.weight", "a.value.weight", "whole"]
    one, wrong = cut({"a": torch.ones(5)}, {"a": ["b"]})
    assert (list(one), wrong) == (["b"], [])


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ({"x": ["a", "b"]}, r"'x' of shape \(5, 2\) can't be cut into 2 along its first axis"),
        ({"y": ["a", "b"]}, r"'y' of shape \(\) can't be cut into 2 along its first axis"),
        ({"x": []}, "names nothing"),
        ({"z": ["a", "b"]}, "matches no name in the file"),
        ({"x": ["a", r"\2"]}, "is no replacement"),
        ({"w": ["a", "x"]}, "'w' and 'x' both become 'x'"),
        ({"w": ["a", "b"], "x": "b"}, "both become 'b'"),
        ({"w": ["a", "b"], "x": "a"}, "both become 'a'"),
    ],
)
def test_a_wrong_list_is_an_error_that_says_why(rules: dict[str, str | list[str]], words: str) -> None:
    state = {"w": torch.ones(4, 2), "x": torch.ones(5, 2), "y": torch.tensor(3.0)}
    _, wrong = cut(state, rules)
    assert [each.message for each in wrong if re.search(words, each.message)]
