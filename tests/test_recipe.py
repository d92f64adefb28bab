"""The grammar of ``train:``, and what no single key of it shows."""

from __future__ import annotations

from typing import Any, get_args

import jsonschema
import pytest
from pydantic import TypeAdapter

from ablate import recipe as grammar
from ablate.design import StudyPlan, as_written, study_plan
from ablate.design.variant import Variant
from ablate.errors import UserError
from ablate.optimizing import OPTIMIZERS
from ablate.recipe import Loss, Optimizer, Schedule, Section, TrainSpec, by_name
from ablate.spec import load

DATA: dict[str, Any] = {"name": "fake", "shape": [3, 5, 7], "classes": 5, "count": {"train": 7, "test": 3}}
TRAIN: dict[str, Any] = {"epochs": 11, "optimizer": {"name": "sgd", "lr": 0.1}}
NETWORK = {"graph": {"stem": {"block": "conv_bn_act", "width": 7}, "head": {"block": "classifier"}}}


def spec(data: dict[str, Any] | None = None, **recipe: Any) -> dict[str, Any]:
    return {"name": "study", "data": DATA | (data or {}), "train": TRAIN | recipe, "network": NETWORK}


def written(data: dict[str, Any] | None = None, **recipe: Any) -> Variant:
    return as_written(load(spec(data, **recipe)))


def planned(variants: dict[str, Any], **recipe: Any) -> StudyPlan:
    ablation = {"seeds": 1, "design": "variants", "variants": variants}
    return study_plan(load(spec(None, **recipe) | {"ablation": ablation}))


def refused(data: dict[str, Any] | None = None, **recipe: Any) -> str:
    with pytest.raises(UserError) as error:
        written(data, **recipe)
    return str(error.value)


MIXUP = {"mix": {"name": "mixup", "alpha": 0.2}}


@pytest.mark.parametrize(
    ("data", "recipe", "said"),
    [
        ({}, {"schedule": {"name": "cosine", "warmup_epochs": 11}}, "a warm-up of 11 epochs leaves nothing of 11"),
        ({}, {"schedule": {"name": "cosine", "warmup_start": 0.1}}, "unused: there is no warm-up; add warmup_epochs"),
        (
            {},
            {"schedule": {"name": "multi_step", "milestones": [3, 7], "warmup_epochs": 3}},
            "train.schedule.milestones.0: epoch 3 lies in the warm-up of 3",
        ),
        ({}, {"schedule": {"name": "one_cycle", "warmup_epochs": 2}}, "warmup_epochs: unknown key"),
        ({}, {"schedule": {"name": "cosine", "warmup_epochs": -1}}, "warmup_epochs"),
        ({}, {"loss": {"name": "cross_entropy", "weights": [1.0, 2.0]}}, "train.loss.weights: 2 weights for 5 classes"),
        ({}, {"loss": {"name": "cross_entropy", "weights": [1.0, 2.0, 0.0, 1.0, 1.0]}}, "train.loss.weights.2"),
        ({}, {"loss": {"name": "focal"}}, "focal"),
        ({}, {"loss": {"label_smoothin": 0.1}}, "did you mean 'label_smoothing'?"),
        ({}, {"loss": {"name": "mse", "label_smoothing": 0.1}}, "train.loss.label_smoothing: unknown key"),
        (MIXUP, {"loss": {"name": "multi_margin"}}, "'multi_margin' takes no soft labels, and data.mix makes them"),
    ],
)
def test_what_can_not_be_meant_is_one_error(data: dict[str, Any], recipe: dict[str, Any], said: str) -> None:
    message = refused(data, **recipe)
    assert said in message
    assert "\n" not in message


def test_what_a_hint_of_another_loss_names_takes_mixed_labels() -> None:
    message = refused(MIXUP, loss={"name": "multi_margin"})
    assert "one of: cross_entropy, bce, mse" in message
    for name in ("cross_entropy", "bce", "mse"):
        assert written(MIXUP, loss={"name": name}).train.loss.name == name


def test_without_mixing_every_loss_will_do() -> None:
    for name in by_name(Loss):
        assert written(loss={"name": name}).train.loss.name == name


def test_a_warm_up_of_no_epochs_may_have_a_start_and_is_no_other_variant() -> None:
    cosine = {"name": "cosine"}
    plain = written(schedule=cosine).identity
    assert written(schedule=cosine | {"warmup_epochs": 0, "warmup_start": 0.3}).identity == plain
    assert written(schedule=cosine | {"warmup_epochs": 2}).identity != plain


def test_a_level_may_smooth_labels_where_the_spec_names_no_loss() -> None:
    plan = planned({"hard": {}, "soft": {"train.loss.label_smoothing": 0.1}})
    assert plan.variant("soft").train.loss.name == "cross_entropy"
    assert plan.variant("soft").identity != plan.variant("hard").identity


def test_what_a_level_orphans_by_another_loss_is_dropped_and_listed() -> None:
    spec_loss = {"name": "cross_entropy", "weights": [1.0, 2.0, 1.0, 1.0, 1.0], "label_smoothing": 0.1}
    plan = planned({"nats": {}, "binary": {"train.loss.name": "bce"}}, loss=spec_loss)
    binary = plan.variant("binary")
    assert binary.train.loss.model_dump() == {"name": "bce", "label_smoothing": 0.1}
    assert [(orphan.path, orphan.layer) for orphan in binary.orphans] == [("train.loss.weights", "spec")]


def test_a_level_may_change_from_one_schedule_to_any_other() -> None:
    needed = {"multi_step": {"milestones": [5]}, "step": {"every": 3}, "exponential": {"gamma": 0.9}}
    needed["cosine_restarts"] = {"period": 3}
    start = {"name": "cosine", "floor": 0.01, "warmup_epochs": 2}
    for name in by_name(Schedule):
        patch: dict[str, Any] = {f"train.schedule.{key}": value for key, value in needed.get(name, {}).items()}
        plan = planned({"cosine": {}, "other": {"train.schedule.name": name} | patch}, schedule=start)
        orphans = {orphan.path.rpartition(".")[2] for orphan in plan.variants[-1].orphans}
        fields = by_name(Schedule)[name].model_fields
        assert orphans == {key for key in ("floor", "warmup_epochs") if key not in fields}


def test_every_optimizer_has_its_class() -> None:
    assert OPTIMIZERS.keys() == by_name(Optimizer).keys()


def test_every_field_of_a_recipe_is_described() -> None:
    for union in (Optimizer, Schedule, Loss):
        assert {kind.__name__ for kind in by_name(union).values()} == {k.__name__ for k in get_args(get_args(union)[0])}
    kinds = [kind for kind in vars(grammar).values() if isinstance(kind, type) and issubclass(kind, Section)]
    assert TrainSpec in kinds
    for kind in kinds:
        assert (kind.__doc__ or "").strip(), kind
        for name, field in kind.model_fields.items():
            assert field.description or name == "name", f"{kind.__name__}.{name}"


# ---- milestones as shares of the epochs ----


def stepped(*milestones: Any, epochs: int = 11, **more: Any) -> dict[str, Any]:
    return {"epochs": epochs, "schedule": {"name": "multi_step", "milestones": list(milestones), **more}}


@pytest.mark.parametrize(
    ("shares", "epochs", "whole"),
    [
        (["91/182", "136/182"], 182, [91, 136]),
        (["91/182", "136/182"], 12, [6, 9]),
        ([0.5, 0.75], 200, [100, 150]),
        (["45/182", 0.5, 9], 12, [3, 6, 9]),
        (["1/182", "1/3"], 3, [1, 1]),  # never before the first epoch
        ([0.3], 5, [2]),  # 1.5: to the even one, as Python rounds
    ],
)
def test_a_share_of_the_epochs_is_the_nearest_epoch(shares: list[Any], epochs: int, whole: list[int]) -> None:
    schedule = written(**stepped(*shares, epochs=epochs)).train.schedule
    assert isinstance(schedule, grammar.MultiStep)
    assert schedule.milestones == whole
    assert all(type(milestone) is int for milestone in schedule.milestones)


def test_a_share_is_the_variant_that_the_whole_epoch_is() -> None:
    shares, whole = (written(**stepped(*given, epochs=20)) for given in (["5/10", 0.75], [10, 15]))
    assert shares.identity == whole.identity
    assert shares.train == whole.train
    assert written(**stepped("5/10", 0.7, epochs=20)).identity != whole.identity


@pytest.mark.parametrize("wrong", ["182/182", "0/182", "200/182", 1.5, -0.5])
def test_a_share_lies_between_0_and_1(wrong: Any) -> None:
    message = refused(**stepped(wrong))
    assert f"{wrong} is no share of the epochs: above 0 and below 1, or a whole epoch" in message
    assert "train.schedule.milestones.0" in message


@pytest.mark.parametrize("wrong", [0, "half", "1 / 2", "1/0", "-1/2", True, "1/2/3"])
def test_what_is_neither_a_share_nor_an_epoch_is_refused(wrong: Any) -> None:
    assert "train.schedule.milestones.0" in refused(**stepped(wrong))


def test_a_share_within_the_warm_up_is_refused_as_its_epoch_is() -> None:
    message = refused(**stepped("2/11", warmup_epochs=3))
    assert "train.schedule.milestones.0: epoch 2 lies in the warm-up of 3" in message


def test_the_schema_takes_both_forms_of_a_share_and_no_other() -> None:
    schema = TypeAdapter(grammar.Milestone).json_schema()
    for sound in (1, 136, 0.5, "91/182"):
        jsonschema.validate(sound, schema)
    for wrong in (0, 1.5, 0.0, "91/0", "half", "91/182 ", True):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, schema)


# ---- what a profile and a level both remove ----

STOPPING = {"early_stopping": {"monitor": "test.error", "patience": 3}}


def with_profile(profile: dict[str, Any], variants: dict[str, Any], sets: Any = ()) -> StudyPlan:
    ablation = {"seeds": 1, "design": "variants", "variants": variants}
    tree = spec(None, **STOPPING) | {"ablation": ablation, "profiles": {"cpu": profile}}
    return study_plan(load(tree, profile="cpu", sets=sets))


BASE = {"base": {"train.early_stopping": None}, "wide": {"network.graph.stem.width": 11}}


def test_a_level_may_remove_what_the_profile_has_removed() -> None:
    plan = with_profile({"train.early_stopping": None}, BASE)
    assert [variant.train.early_stopping for variant in plan.variants] == [None, None]
    below = {"base": {"train.early_stopping": None}, "wide": {"network.graph.stem.width": 11}}
    assert with_profile({"train.early_stopping": None}, below, ["train.epochs=2"]).variants[0].train.epochs == 2


def test_a_removal_that_no_profile_has_made_must_act() -> None:
    with pytest.raises(UserError, match=r"network\.graph\.steam: .*remove"):
        with_profile({"train.early_stopping": None}, BASE | {"base": {"network.graph.steam": None}})


def test_a_level_that_sets_what_the_profile_has_removed_must_act_too() -> None:
    """Only a removal meets a removal: a change below what is gone changes nothing, and is an error."""
    with pytest.raises(UserError, match="has no effect in any variant"):
        with_profile({"train.early_stopping": None}, BASE | {"base": {"train.early_stopping.patience": 5}})
