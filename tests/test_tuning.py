"""Fair tuning: each variant gets the same search of its recipe, and its seeds are run with what was found."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ablate import describe
from ablate.design import StudyPlan, study_plan
from ablate.errors import UserError
from ablate.events import Event
from ablate.prepare import prepare
from ablate.progress import Progress
from ablate.report import ablation_table
from ablate.spec import load
from ablate.store import Study
from ablate.sweeping import sweep
from ablate.tuning import as_far_as_tuned, planned, tuned
from ablate.tuning.winners import variant_with
from tests.conftest import REPOSITORY

SPEC = """\
name: tiny
data: {name: fake, shape: [3, 8, 8], classes: 3, count: {train: 48, test: 11}, val: 0.25}
train: {epochs: 1, batch_size: 12, precision: fp32, optimizer: {name: sgd, lr: 0.05, momentum: 0.9}}
network:
  graph:
    stem: {block: conv_bn_act, width: 4, kernel: 3}
    body: {block: basic, width: 4, repeat: 1, shortcut: pad}
    head: {block: classifier}
  insert:
    attention: {block: se, reduction: 2, at: after body}
execution: {threads: 1}
tune: {space: ../search_spaces/rate.yaml, trials: 2}
"""
ATTENTION = """\
ablation:
  seeds: 1
  baseline: {attention: none}
  factors: {attention: {none: {network.insert.attention: null}, se: {}}}
"""
LR = "train.optimizer.lr"
SPACE = f"""\
space:
  {LR}: {{float: [1.0e-3, 0.5], log: true}}
  data.augment: {{choice: [null, [{{random_crop: {{padding: 1}}}}]]}}
objectives: {{val.accuracy: maximize}}
sampler: {{name: random}}
"""
Written = Callable[..., Path]


@pytest.fixture
def written(tmp_path: Path) -> Written:
    """Writes a project of one spec and one space, and gives the spec's path."""

    def write(ablation: str = ATTENTION, *, spec: str = SPEC, space: str = SPACE) -> Path:
        for name, text in {"specs/tiny.yaml": spec + ablation, "search_spaces/rate.yaml": space}.items():
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(text)
        return tmp_path / "specs" / "tiny.yaml"

    return write


def tune(spec: Path, folder: Path, *sets: str, **options: Any) -> StudyPlan:
    return tuned(planned(load(spec, sets=sets)), folder, executor="local", concurrent=1, **options)


def refused(what: Callable[[], Any]) -> str:
    with pytest.raises(UserError) as caught:
        what()
    return str(caught.value)


def proposed(folder: Path, variant: str) -> list[dict[str, Any]]:
    """What a variant was tuned by, in order."""
    return [record for record in Study.open(folder / "tuning").proposals() if record["name"].startswith(f"{variant}/")]


def everything(folder: Path) -> tuple[Any, ...]:
    """All that a tuning decided and measured; how long things took is no part of it."""
    study = Study.open(folder / "tuning")
    records = {record["name"]: [record[key] for key in ("outcome", "trial", "values")] for record in study.proposals()}
    return records, {hash: (result["status"], result["metrics"]) for hash, result in study.results().items()}


class CutOff(BaseException):
    """A process that ends here, whatever would catch it."""


class CutAfter(Progress):
    def __init__(self, events: int) -> None:
        self.left = events

    def tell(self, event: Event) -> None:
        self.left -= 1
        if not self.left:
            raise CutOff


def test_every_variant_is_tuned_alike_and_its_seeds_run_with_what_was_found(written: Written, tmp_path: Path) -> None:
    plan, folder = planned(load(written())), tmp_path / "study"
    assert as_far_as_tuned(plan, folder) is plan
    before = describe.plan(prepare(plan, folder=folder, concurrent=1, measure=False))
    said = "each variant will be tuned by 2 trials over ../search_spaces/rate.yaml: 4 trials more"
    assert any(said in note for note in before.footnotes)

    found = tuned(plan, folder, executor="local", concurrent=1)
    tuning = Study.open(folder / "tuning")
    results = tuning.results()
    assert [len(proposed(folder, name)) for name in ("none", "se")] == [2, 2]
    assert [r["values"] for r in proposed(folder, "none")] == [r["values"] for r in proposed(folder, "se")]
    assert {record["variant"]["trials"].keys() == {"9973"} for record in tuning.proposals()} == {True}
    assert tuning.exposures() == []
    assert not any(name.startswith("test.") for result in results.values() for name in result["metrics"])

    for variant in found.variants:
        records = proposed(folder, variant.name)
        values = [results[record["trial"]]["metrics"]["val.accuracy"] for record in records]
        best = records[values.index(max(values))]
        assert variant.train.optimizer.lr == best["values"][LR] != plan.variant(variant.name).train.optimizer.lr
        assert bool(variant.data.augment) == bool(best["values"]["data.augment"])
        assert variant.levels == plan.variant(variant.name).levels
        assert variant.baseline == plan.variant(variant.name).baseline

    prepared = prepare(found, folder=folder, concurrent=1, measure=False)
    assert prepared.failures == []
    assert not any("will be tuned" in note for note in describe.plan(prepared).footnotes)
    study = sweep(prepared, executor="local")
    assert {trial.train.optimizer.lr for trial in prepared.trials} == {v.train.optimizer.lr for v in found.variants}
    certificate = study.variants[1]["certificate"]
    assert certificate["tuning"]["values"][LR] == str(found.variant("se").train.optimizer.lr)
    notes = ablation_table(study).footnotes
    alike = "The recipe was tuned beforehand: the best of 2 trials on val.accuracy over rate.yaml, seed 9973; every "
    assert alike + "variant had as many." in notes
    assert [note for note in notes if note.startswith("It was tuned to train.optimizer.lr 0.") and "(se)" in note]

    # what was begun stays so; of a study that grows the new variant alone is tuned
    again = [variant.identity for variant in found.variants]
    assert [variant.identity for variant in as_far_as_tuned(plan, folder).variants] == again
    (folder / "tuning" / "optuna.jsonl").unlink()
    grown = ATTENTION.replace("se: {}}", "se: {}, simam: {network.insert.attention.block: simam}}")
    wider = tune(written(grown), folder)
    assert [variant.identity for variant in wider.variants[:2]] == again
    assert [len(proposed(folder, variant.name)) for variant in wider.variants] == [2, 2, 2]
    assert prepare(wider, folder=folder, concurrent=1, measure=False).failures == []
    message = refused(lambda: tune(written(), folder, "tune.trials=3"))
    assert "tuned otherwise: they differ in tune.trials" in message


def test_cut_off_anywhere_it_ends_as_if_nothing_had_happened(written: Written, tmp_path: Path) -> None:
    spec = written(
        space=SPACE.replace("val.accuracy: maximize", "val.loss: minimize").replace(
            "{name: random}", "{name: tpe, startup: 1}"
        )
    )
    whole = tune(spec, tmp_path / "whole")
    cuts = 0
    for events in (3, 5, 1000):
        try:
            cut = tune(spec, tmp_path / "cut", progress=CutAfter(events))
        except CutOff:
            cuts += 1
            part = as_far_as_tuned(planned(load(spec)), tmp_path / "cut")
            assert any(variant.tuning is None for variant in part.variants)
    assert cuts == 2
    assert everything(tmp_path / "cut") == everything(tmp_path / "whole")
    assert [variant.tuning for variant in cut.variants] == [variant.tuning for variant in whole.variants]
    losses = [result["metrics"]["val.loss"] for result in Study.open(tmp_path / "whole" / "tuning").results().values()]
    assert min(variant.tuning["value"] for variant in whole.variants if variant.tuning) == min(losses)


def test_a_variant_that_was_tuned_by_fewer_trials_is_not_certified(written: Written) -> None:
    plan = planned(load(written()))
    record = {
        "space": "s.yaml",
        "most": 2,
        "seed": 9973,
        "objective": "val.accuracy",
        "value": 41.0,
        "values": {LR: "1"},
    }
    for variant, trained in zip(plan.variants, (1, 2), strict=True):
        variant.tuning = {**record, "trained": trained}
    failures = prepare(plan, concurrent=1, measure=False).failures
    assert failures == ["none: its recipe was tuned by 1 trial, and that of another variant by 2"]


def test_without_a_trial_that_finished_there_is_no_recipe(written: Written, tmp_path: Path) -> None:
    space = SPACE.replace("{float: [1.0e-3, 0.5], log: true}", "{choice: [1.0e+30]}").replace(
        "name: random", "name: grid"
    )
    message = refused(lambda: tune(written("ablation: {seeds: 1}\n", space=space), tmp_path / "study"))
    assert "'tiny' has no recipe: none of the trials that were to tune it finished (2 diverged)" in message


def test_what_was_tuned_is_what_is_swept(written: Written, tmp_path: Path) -> None:
    """A tuning that is over, and a spec or a space that was changed before the study itself was begun."""
    one = "ablation: {seeds: 1}\n"
    tune(written(one), tmp_path / "study")
    space = SPACE.replace("0.5]", "0.4]")
    plan = planned(load(written(one, space=space)))
    assert "over another space" in refused(lambda: as_far_as_tuned(plan, tmp_path / "study"))
    assert "differ in search.space" in refused(lambda: tune(written(one, space=space), tmp_path / "study"))
    changed = SPEC.replace("width: 4, repeat", "width: 5, repeat")
    assert "study of another spec" in refused(lambda: tune(written(one, spec=changed), tmp_path / "study"))
    level = "ablation: {seeds: 1, design: variants, variants: {tiny: {network.insert.attention.reduction: 1}}}\n"
    plan = planned(load(written(level)))
    assert "'tiny' was tuned as another network" in refused(lambda: as_far_as_tuned(plan, tmp_path / "study"))
    assert "'tiny' was tuned as another network" in refused(lambda: tune(written(level), tmp_path / "study"))
    assert len(proposed(tmp_path / "study", "tiny")) == 2
    fewer = refused(lambda: tune(written(one), tmp_path / "study", "tune.trials=1"))
    assert "was tuned by 2 trials" in fewer


def test_equal_variants_are_tuned_once(written: Written, tmp_path: Path) -> None:
    """SE on 4 channels has one hidden unit with a reduction of 4, and of 8."""
    levels = "{four: {network.insert.attention.reduction: 4}, eight: {network.insert.attention.reduction: 8}}"
    spec = written(f"ablation: {{seeds: 1, design: variants, variants: {levels}}}\n")
    four, eight = tune(spec, tmp_path / "study", "tune.trials=1").variants
    assert (four.duplicate_of, eight.duplicate_of) == (None, "four")
    assert four.tuning == eight.tuning
    assert four.identity == eight.identity
    assert len(Study.open(tmp_path / "study" / "tuning").proposals()) == 1


def test_a_row_of_a_ladder_keeps_what_the_rows_before_it_have_changed(written: Written) -> None:
    """Its patches act one after the other, however long their paths; the tuned values after all of them."""
    whole = "{block: se, reduction: 1, at: after stem}"
    rows = f"{{a: {{network.insert.attention.reduction: 4}}, b: {{network.insert.attention: {whole}}}}}"
    plan = planned(load(written(f"ablation: {{seeds: 1, design: ladder, components: {rows}}}\n")))
    last = plan.variants[-1]
    assert len(last.patched) == 2
    assert variant_with(plan.spec, plan, last, last.name, []).identity == last.identity


def test_the_section_can_be_set_and_left_out(written: Written, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = written()
    assert planned(load(spec, sets=["tune.trials=7"])).tree["tune"]["trials"] == 7
    without = planned(load(spec, sets=["tune=null"]))
    assert "tune" not in without.tree
    assert tuned(without, tmp_path / "study") is without
    assert not (tmp_path / "study").exists()
    child = tmp_path / "specs" / "child.yaml"
    child.write_text("extends: tiny.yaml\nname: child\ntune: null\nprofiles: {p: {tune: {space: x.yaml, trials: 1}}}\n")
    assert "tune" not in planned(load(child)).tree
    assert "no file 'x.yaml'" in refused(lambda: planned(load(child, profile="p")))
    # the command line may name any file, from where the user is; a spec may not
    other = tmp_path / "elsewhere" / "rate.yaml"
    other.parent.mkdir()
    other.write_text(SPACE)
    monkeypatch.chdir(other.parent)
    assert planned(load(spec, sets=["tune.space=rate.yaml"])).tree["tune"]["space"] == str(other)
    spec.write_text(spec.read_text().replace("../search_spaces/rate", "../elsewhere/rate"))
    assert "'../elsewhere/rate.yaml' is outside" in refused(lambda: planned(load(spec)))


def test_everything_that_is_wrong_is_said_at_once(written: Written) -> None:
    """In the network, in the section's seed's place, and in the space; elsewhere in ``wrong_specs``."""
    spec = written(spec=SPEC.replace("repeat: 1", "repaet: 1"), space=SPACE + "budget: {epochs: 5}\n")
    message = refused(lambda: planned(load(spec)))
    assert "repaet" in message
    assert "budget.epochs: would give one variant more trials than another" in message
    spec = written(space=SPACE.replace("name: random", "name: cmaes"))
    assert "rate.yaml:5:17" in refused(lambda: planned(load(spec)))


def test_the_shipped_spec_is_sound() -> None:
    plan = planned(load(REPOSITORY / "specs" / "placement_tuned.yaml", profile="tiny"))
    assert plan.tree["tune"] == {"space": "../search_spaces/training.yaml", "trials": 2}


def test_a_plan_that_is_not_tuned_has_the_trials_of_the_spec_as_written(written: Written) -> None:
    """The section itself is no part of what a variant is: two studies that come to one recipe share its trials."""
    plan, without = (study_plan(load(written(), sets=sets)) for sets in ((), ["tune=null"]))
    assert [variant.identity for variant in plan.variants] == [variant.identity for variant in without.variants]
    variant = replace(plan.variants[0], tuning={"number": 3})
    assert variant.identity == plan.variants[0].identity
    assert "tune" in json.dumps(plan.tree)
