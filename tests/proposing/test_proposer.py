"""What is proposed: by Optuna's samplers as Optuna itself would, no point twice, until none is left."""

from __future__ import annotations

import random
from collections import Counter

import optuna
import pytest
from grids import (
    AT,
    BLOCK,
    LISTED,
    MIXED,
    ONE,
    RANGES,
    TWO,
    answer,
    choice,
    grid_of,
    proposer,
    searched,
    span,
    whole,
    worth,
)

from ablate.errors import UserError
from ablate.proposing.parameters import Parameters
from ablate.proposing.samplers import draws, sampler_of
from ablate.space import Bound, SamplerSpec

SAMPLERS = ("random", "tpe", "nsga2", "nsga3")


def test_a_grid_with_conditions_has_every_point_once_and_ends() -> None:
    given = proposer("grid", LISTED)
    points = searched(given, 1000)
    assert sorted(points, key=repr) == sorted(LISTED, key=repr)
    assert len(points) == LISTED.count == (2 * 3 + 1) * 6
    assert points != list(LISTED), "in an order of its own"
    assert points != searched(proposer("grid", LISTED, seed=1), 1000)
    assert given.propose() is None


@pytest.mark.parametrize("name", SAMPLERS)
def test_no_point_is_proposed_twice_and_none_is_left_out(name: str) -> None:
    points = searched(proposer(name, LISTED, objectives=TWO), 1000)
    assert sorted(points, key=repr) == sorted(LISTED, key=repr)


def test_a_point_and_its_parameters_say_the_same() -> None:
    parameters = Parameters(MIXED)
    draws = random.Random(1)
    for _ in range(50):
        point = MIXED.settled(lambda dimension: dimension.drawn(draws))
        values = parameters.values(point)
        assert parameters.point(values.__getitem__) == point
        labels = MIXED.labels(point)
        assert values["block"] == labels["block"]
        assert f"-{values['at$stages']}-{values['at$convs']}" == labels["at"]
        assert ("reduction" in values) == ("reduction" in labels)


def test_every_value_is_drawn_as_often_as_chance_has_it() -> None:
    grid = grid_of(BLOCK, span("lr", 1e-3, 1.0, log=True))
    points = searched(proposer("random", grid), 300)
    counts = Counter(block for block, _ in points)
    assert all(abs(count - 100) < 4 * (300 * 2 / 9) ** 0.5 for count in counts.values())
    below = sum(rate < 10**-1.5 for _, rate in points)  # the middle, of the logarithm
    assert abs(below - 150) < 4 * 75**0.5


@pytest.mark.parametrize("name", ["random", "tpe", "gp", "nsga2"])
def test_a_draw_is_what_optuna_draws_itself(name: str) -> None:
    """In its own loop, with a sampler of the same seed that knows the same trials."""
    grid = LISTED if name == "tpe" else grid_of(BLOCK, AT, whole("k", 1, 9), span("lr", 1e-3, 1.0, log=True))
    parameters = Parameters(grid)

    def begun() -> tuple[optuna.Study, optuna.samplers.BaseSampler]:
        sampler = sampler_of(name, SamplerSpec(name=name), parameters, 7)
        study = optuna.create_study(direction="maximize", sampler=sampler)
        draws = random.Random(3)
        for _ in range(30):
            point = grid.settled(lambda dimension: dimension.drawn(draws))
            values = parameters.values(point)
            known = {key: parameters.all[key] for key in values}
            study.add_trial(
                optuna.create_trial(params=values, distributions=known, value=worth(grid, point)["val.accuracy"])
            )
        return study, sampler

    study, sampler = begun()
    draft = study._storage.get_trial(study._storage.create_new_trial(study._study_id))
    ours, _ = next(draws(sampler, study, lambda: draft, parameters, name in ("gp", "nsga2")))
    trial = begun()[0].ask()
    theirs = parameters.point(lambda key: trial._suggest(key, parameters.all[key]))
    assert ours == theirs


def test_tpe_and_cma_es_find_what_random_search_does_not() -> None:
    def best(name: str, grid, budget: int) -> float:
        given = proposer(name, grid, seed=1)
        found = []
        for _ in range(budget):
            proposal = given.propose()
            assert proposal is not None
            found.append(worth(grid, proposal.point)["val.accuracy"])
            given.tell(proposal.number, {"val.accuracy": found[-1]})
        return max(found)

    assert best("tpe", MIXED, 40) > best("random", MIXED, 40)
    ranges = grid_of(
        choice("block", "cbam"), whole("k", 1, 9), span("lr", 1e-3, 1.0, log=True), span("decay", 0.0, 1.0)
    )
    assert best("cmaes", ranges, 120) > 89.97, "the peak is 90"
    assert best("random", ranges, 120) < 89.9


def test_cma_es_draws_at_random_what_is_no_range_and_waits_for_its_startup() -> None:
    given = proposer("cmaes", RANGES, startup=50)
    at_random = [point[0] for point in searched(given, 40)]
    assert set(at_random) == {0, 1, 2}
    assert {len(set(column)) > 5 for column in list(zip(*searched(proposer("cmaes", RANGES), 40), strict=True))[1:]}


def test_nsga_finds_more_of_the_front_and_hands_on_what_is_not_active() -> None:
    """A front of 20 points among 800: the reduction is there of two blocks in four, and must be learnt beside these."""
    ways = [choice(f"way{index}", *range(5)) for index in range(3)]
    deep = choice("deep", *range(12), when=("way0", {0, 1}))
    grid = grid_of(*ways, deep)

    def share(name: str) -> float:
        given = proposer(name, grid, objectives=TWO, seed=2, **({} if name == "random" else {"population": 12}))
        reached = []
        for _ in range(100):
            proposal = given.propose()
            assert proposal is not None
            values = grid.values(proposal.point)
            size = sum(values[f"way{index}"] for index in range(3))
            lost = abs(values.get("deep", 11) - 3)
            given.tell(proposal.number, {"val.accuracy": size - lost, "flops": size + lost})
            reached.append(lost)
        return sum(lost <= 1 for lost in reached[60:])

    at_random = share("random")
    assert share("nsga2") > 2 * at_random
    assert share("nsga3") > 2 * at_random


def test_tpe_and_gp_learn_from_what_was_refused() -> None:
    """Three in four break the bound. No accuracy is known of these, and where it is known it says nothing of k."""
    grid = grid_of(whole("k", 1, 60), span("lr", 1e-3, 1.0, log=True))

    def broken(name: str, points: int, **keys: int) -> list[bool]:
        given = proposer(name, grid, constraints={"params": Bound(max=15_000)}, seed=3, **keys)
        found = []
        for _ in range(points):
            proposal = given.propose()
            assert proposal is not None
            values = grid.values(proposal.point)
            found.append(values["k"] > 15)
            if found[-1]:
                given.refuse(proposal.number, "too large", {"params": 1000 * values["k"]})
            else:
                given.tell(proposal.number, {"val.accuracy": -abs(values["lr"] - 0.1), "params": 1000 * values["k"]})
        return found

    assert sum(broken("tpe", 40)[20:]) < 0.7 * sum(broken("random", 40)[20:])
    assert not any(broken("gp", 9, startup=6)[6:])


def test_what_ended_is_not_changed() -> None:
    given = proposer("tpe")
    first, second = given.propose(), given.propose()
    assert first is not None
    assert second is not None
    assert given.open == [first, second]
    given.tell(first.number, {"val.accuracy": 1.0})
    for late in (given.tell, given.refuse, given.fail):
        late(first.number, {"val.accuracy": 2.0} if late == given.tell else "too late")
    given.prune(first.number, 1, 0.0)
    given.note(first.number, why="too late")
    assert given.open == [second]
    answer(given, second)
    assert given.open == []


def test_an_objective_that_is_not_finite_is_a_failure() -> None:
    given = proposer("tpe")
    proposal = given.propose()
    assert proposal is not None
    given.tell(proposal.number, {"val.accuracy": float("nan")})
    assert given.open == []


@pytest.mark.parametrize(
    ("name", "grid", "objectives", "said"),
    [
        (
            "cmaes",
            LISTED,
            ONE,
            "two ranges of numbers (int, float) that vary at every point; this space has none; use tpe",
        ),
        ("cmaes", grid_of(BLOCK, whole("k", 1, 3)), ONE, "this space has k; use tpe"),
        ("cmaes", RANGES, TWO, "one objective, and here are 2: val.accuracy, flops; use nsga2"),
        ("grid", RANGES, ONE, "no end where a float has no step: lr, decay; give it a step, or use random"),
        ("grid", grid_of(*(whole(f"k{i}", 1, 200) for i in range(3))), ONE, "a grid of 8,000,000 points; at most"),
    ],
)
def test_a_sampler_that_can_not_says_which_one_can(name, grid, objectives, said) -> None:
    with pytest.raises(UserError) as caught:
        proposer(name, grid, objectives=objectives)
    assert said in str(caught.value)
    assert str(caught.value).startswith("sampler.name: ")
