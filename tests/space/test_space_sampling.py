"""What a space says of the search itself: sampler, pruner, budget, filter; read from a file, and by an editor."""

from __future__ import annotations

import inspect
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ablate import yamlfile
from ablate.errors import UserError
from ablate.schema import space_schema
from ablate.space import KNOWN_METRICS, BudgetSpec, FilterSpec, PrunerSpec, SamplerSpec, SearchSpace
from ablate.space.grammar import read_space
from ablate.space.sampling import PRUNES, TAKES

VALIDATOR = jsonschema.Draft202012Validator(space_schema())


def model(text: str) -> SearchSpace:
    whole = f"space:\n  train.optimizer.lr: {{float: [0.1, 0.5]}}\n{text}"
    return read_space(yamlfile.loads(whole, "space.yaml"), "space.yaml").model


def test_what_is_said_is_read() -> None:
    found = model("""\
objectives: {val.accuracy: maximize, memory: minimize}
constraints: {latency: {max: 0.5}, naswot: {min: 3}}
sampler: {name: nsga2, population: 24, seed: 7}
pruner: {name: hyperband, grace: 2, brackets: 4}
budget: {trials: 9, epochs: 100, time: 1h30m}
filter: {by: synflow, keep: 0.25, after: 5}
""")
    assert found.sampler == SamplerSpec(name="nsga2", population=24, seed=7)
    assert found.pruner == PrunerSpec(name="hyperband", grace=2, brackets=4)
    assert found.budget.model_dump() == {"trials": 9, "epochs": 100, "time": 5400.0}
    assert found.filter == FilterSpec(by="synflow", keep=0.25, after=5)
    assert found.pruned_on == "val.accuracy"


def test_what_is_not_said_is_one_sampler_fifty_trials_and_no_other_limit() -> None:
    found = model("")
    assert (found.sampler, found.pruner, found.filter, found.pruned_on) == (None, None, None, None)
    assert found.budget.model_dump() == {"trials": 50, "epochs": None, "time": None}
    assert found.budget == model("budget: {epochs: none, time: none}").budget == BudgetSpec()


def test_the_sampler_that_is_not_stated_goes_by_the_number_of_objectives() -> None:
    assert model("objectives: {val.loss: minimize}").chosen_sampler == SamplerSpec(name="tpe")
    assert model("objectives: {val.loss: minimize, flops: minimize}").chosen_sampler == SamplerSpec(name="nsga2")
    assert model("objectives: {val.loss: minimize}\nsampler: {name: gp}").chosen_sampler.name == "gp"


@pytest.mark.parametrize("metric", KNOWN_METRICS)
def test_what_is_known_before_training_may_be_bounded(metric: str) -> None:
    assert model(f"constraints: {{{metric}: {{max: 1}}}}").constraints[metric].max == 1


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("pruner: {name: asha, grace: 0, samples: 3, brackets: 2}", ["grace", "samples", "brackets"]),
        ("sampler: {name: random, seed: -1, startup: 0, population: 3}", ["seed", "startup", "population"]),
        ("sampler: {name: rndom, startup: 0, population: 3}", ["name", "startup"]),
    ],
)
def test_all_that_is_wrong_with_a_sampler_or_a_pruner_is_said_at_once(text: str, places: list[str]) -> None:
    with pytest.raises(UserError) as refused:
        model(f"objectives: {{val.loss: minimize}}\n{text}")
    assert [problem.path.split(".")[-1] for problem in refused.value.problems] == places


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sampler: {name: tpe, population: 3}", "tpe takes no population, which is for cmaes, nsga2, nsga3"),
        ("sampler: {name: random, startup: 3}", "random takes no startup"),
        ("sampler: {seed: 3}", "sampler.name: missing"),
        ("pruner: {name: median, reduction: 3}\nobjectives: {val.loss: minimize}", "median takes no reduction"),
        ("pruner: {name: asha}\nobjectives: {flops: minimize}", "told epoch by epoch, and here are 0"),
        ("pruner: {name: asha}\nobjectives: {test.loss: minimize}", "told epoch by epoch, and here are 0"),
        ("pruner: {name: asha}\nobjectives: {val.loss: minimize, train.loss: minimize}", "and here are 2"),
        ("sampler: {name: cmaes}\nobjectives: {val.loss: minimize, flops: minimize}", "cmaes has one objective"),
        ("budget: {time: 30}", "has no unit"),
        ("budget: {epochs: 0}", "too small"),
        ("budget: {trials: none}", "a whole number was expected"),
        ("filter: {by: val.loss}", "is not one of: synflow"),
        ("filter: {by: synflow, keep: 1.0}", "too large"),
        ("constraints: {val.loss: {max: 1}}", "only training tells"),
    ],
)
def test_what_would_act_nowhere_or_not_as_said_is_an_error(text: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        model(text)


@given(
    st.sampled_from(["sampler", "pruner"]),
    st.sampled_from([*TAKES, *PRUNES]),
    st.dictionaries(
        st.sampled_from(["seed", "population", "startup", "grace", "reduction", "brackets", "samples"]),
        st.integers(0, 3),
        max_size=2,
    ),
)
@settings(max_examples=150)
def test_an_editor_takes_and_refuses_what_the_tool_does(section: str, name: str, keys: dict[str, Any]) -> None:
    tree = {
        "space": {"train.epochs": {"choice": [1]}},
        "objectives": {"val.loss": "minimize"},
        section: {"name": name, **keys},
    }
    try:
        read_space(yamlfile.loads(yamlfile.dump(tree), "space.yaml"), "space.yaml")
        taken = True
    except UserError:
        taken = False
    assert VALIDATOR.is_valid(tree) is taken


def test_samplers_take_what_optunas_do() -> None:
    """Held against the signatures of the samplers themselves."""
    import optuna

    theirs = {
        "tpe": optuna.samplers.TPESampler,
        "cmaes": optuna.samplers.CmaEsSampler,
        "gp": optuna.samplers.GPSampler,
        "nsga2": optuna.samplers.NSGAIISampler,
        "nsga3": optuna.samplers.NSGAIIISampler,
        "random": optuna.samplers.RandomSampler,
    }
    names = {"startup": {"n_startup_trials"}, "population": {"population_size", "popsize"}}
    for name, sampler in theirs.items():
        parameters = set(inspect.signature(sampler.__init__).parameters)
        assert set(TAKES[name]) == {key for key, known in names.items() if known & parameters}
