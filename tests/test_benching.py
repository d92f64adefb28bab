"""``ablate bench``: readings by a clock of our own, what follows from them as functions of numbers, and the command."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jsonschema
import pytest
import yaml
from pydantic import BaseModel

from ablate import compiling
from ablate.benching import Cost, Effect, Report, Stage, Timing, bench, options, recommended, said, tables, winners
from ablate.benching import report as reporting
from ablate.benching.options import PRELOAD, Change, Subject, allocators, changes, powers_of_two
from ablate.benching.readings import LEAST, MOST, Spread, Training, evaluation_of, in_turn, peak, spread, stages_of
from ablate.benching.recommending import best_placement
from ablate.cli import main
from ablate.costing import cost_of
from ablate.data import loading
from ablate.data.dataset import ImageData
from ablate.data.dataset import load as load_data
from ablate.design import StudyPlan, study_plan
from ablate.evaluating import evaluate
from ablate.grammar import ExecutionSpec
from ablate.numerics import Numerics, process_settings
from ablate.placing import Measured, Placement
from ablate.prepare import create_study, prepare
from ablate.recipe import TrainSpec
from ablate.resolving import Resolved
from ablate.schema import spec_schema
from ablate.spec import load
from ablate.train import Run, trial_of
from tests.conftest import REPOSITORY, TINY


class Watch:
    """A clock that only moves when it is told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now

    def takes(self, seconds: float, call: Callable[..., Any]) -> Callable[..., Any]:
        def slowed(*arguments: Any) -> Any:
            self.now += seconds
            return call(*arguments)

        return slowed


@pytest.fixture(autouse=True)
def this_process_stays_as_it_was() -> Iterator[None]:
    with process_settings(Numerics()):
        yield


@pytest.fixture
def plan(tiny: Path) -> StudyPlan:
    return study_plan(load(tiny))


def subject_of(plan: StudyPlan, variant: str = "none", **numerics: Any) -> Subject:
    chosen = plan.variant(variant)
    data = load_data(chosen.data, base=plan.spec.folder)
    return Subject(trial_of(chosen, 0, Numerics(**numerics)), data)


def slowed(subject: Subject, watch: Watch, **stages: float) -> Training:
    """Its forward pass and so on take so many seconds, and nothing else takes any."""
    training = Training(subject.trial, subject.data, watch)
    for name, seconds in stages.items():
        setattr(training.run, name, watch.takes(seconds, getattr(training.run, name)))
    return training


# ── readings ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_stages_of_a_step_are_told_apart_and_sum_to_the_step(plan: StudyPlan) -> None:
    watch = Watch()
    training = slowed(subject_of(plan), watch, forward=5, backward=11, move=3)
    training.batches = _slow(training.batches, watch, 2)
    found = stages_of(training, Timing(steps=7, clock=watch))
    assert {name: set(seconds) for name, seconds in found.items()} == {
        "data": {2},
        "forward": {5},
        "backward": {11},
        "optimiser": {3},
        "step": {2 + 5 + 11 + 3},
    }
    assert [len(seconds) for seconds in found.values()] == [7] * 5


def test_the_stages_of_a_batch_in_parts_are_those_of_all_parts(tiny: Path) -> None:
    plan, watch = study_plan(load(tiny, sets={"train.micro_batch": 6})), Watch()
    training = slowed(subject_of(plan), watch, _scored=5, _add_gradients=11, move=3)
    found = stages_of(training, Timing(steps=2, clock=watch))
    assert training.batch_size == 16  # 6, 6 and 4
    assert {name: set(seconds) for name, seconds in found.items()} == {
        "data": {0},
        "forward": {3 * 5},
        "backward": {3 * 11},
        "optimiser": {3},
        "step": {3 * 5 + 3 * 11 + 3},
    }


def _slow(batches: Iterator[Any], watch: Watch, seconds: float) -> Iterator[Any]:
    for batch in batches:
        watch.now += seconds
        yield batch


def test_a_schedule_does_not_end_while_steps_are_timed(tiny: Path) -> None:
    """One-cycle of torch raises an error one step after its last: here after six."""
    plan = study_plan(load(tiny, sets={"train.schedule.name": "one_cycle"}))
    stages_of(Training(subject_of(plan).trial, subject_of(plan).data), Timing(steps=9))


@pytest.mark.parametrize(
    ("count", "size"),
    # of 45 the last 13 are left out; the 17th of 17 would be alone in its batch, and joins the sixteen
    [(45, 16), (32, 16), (33, 16), (17, 17), (7, 7)],
)
def test_every_timed_step_has_a_batch_of_one_size(tiny: Path, count: int, size: int) -> None:
    plan = study_plan(load(tiny, sets={"data.val": None, "data.count": {"train": count, "test": 5}}))
    training = Training(subject_of(plan).trial, subject_of(plan).data)
    assert [len(next(training.batches)[1]) for _ in range(5)] == [size] * 5
    assert training.batch_size == size


def test_a_reading_of_several_steps_is_of_one_on_average(plan: StudyPlan) -> None:
    watch = Watch()
    training = slowed(subject_of(plan), watch, one_step=3)
    training.burst = 7
    assert training.step() == 3
    assert watch.now == 21


def test_evaluation_reads_val_or_else_train_and_training_goes_on_afterwards(
    plan: StudyPlan, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = []

    def kept(network: Any, split: Any, data: Any, *others: Any) -> Any:
        read.append(split.labels.tolist())
        return evaluate(network, split, data, *others)

    monkeypatch.setattr("ablate.benching.readings.evaluate", kept)
    for where in (plan, study_plan(load(tiny, sets={"data.val": None}))):
        subject = subject_of(where)
        training = Training(subject.trial, subject.data)
        _, images = evaluation_of(training, Timing(steps=1))
        split = subject.data.val or subject.data.train
        assert read[-1] == split.labels.tolist()
        assert images == len(split)
        assert training.run.network.training


def test_what_is_compared_takes_turns_so_that_a_drift_of_the_machine_cancels() -> None:
    """Each reading is a tenth slower than the one before: of A B A B … one would seem the faster."""
    order, slowness = [], [1.0]

    def reading(name: str) -> Callable[[], float]:
        def take() -> float:
            order.append(name)
            slowness[0] *= 1.1
            return slowness[0]

        return take

    now, instead = in_turn(reading("a"), reading("b"), Timing(steps=8))
    assert "".join(order[2:]) == "abba" * 4
    ratios = [one / other for one, other in zip(now, instead, strict=True)]
    assert spread(ratios).median == pytest.approx((1.1 + 1 / 1.1) / 2)


@pytest.mark.parametrize(("seconds", "takes", "turns"), [(10, 1, 10), (10, 100, LEAST), (10, 1e-6, 200)])
def test_it_is_measured_for_so_many_seconds_but_never_too_little(seconds: float, takes: float, turns: int) -> None:
    watch = Watch()
    reading = watch.takes(takes, lambda: takes)
    found = 0
    for _ in Timing(seconds, clock=watch).turns():
        reading()
        found += 1
    assert found == turns


def test_the_peak_is_that_of_the_best_product_in_flops() -> None:
    lasts = [7, 3, 5, 9, 7, 11, 5, 13]
    times = iter([time for turn, seconds in enumerate(lasts) for time in (20 * turn, 20 * turn + seconds)])
    assert peak("fp32", "cpu", lambda: next(times), size=11) == 2 * 11**3 / 3


@pytest.mark.parametrize("count", [LEAST, 11, 29, 53, MOST])
def test_the_interval_is_the_shortest_that_holds_the_median_99_times_of_a_hundred(count: int) -> None:
    """It is between the k-th reading from either end: it fails where fewer than k of them are on one side."""
    found = spread([(17 * number) % count + 1 if count % 17 else number + 1 for number in range(count)])
    k = int(found.low)
    assert (found.median, found.low, found.high) == ((count + 1) / 2, k, count + 1 - k)
    fails = [2 * sum(math.comb(count, below) for below in range(k + more)) / 2**count for more in (0, 1)]
    assert fails[0] <= 0.01 < fails[1]


def test_fewer_readings_than_any_interval_is_sure_of_show_their_range() -> None:
    assert 2 / 2**LEAST <= 0.01 < 2 / 2 ** (LEAST - 1)
    assert spread([5, 1, 4, 2, 3]) == Spread(3, 1, 5, 5)
    assert spread([7]) == Spread(7, 7, 7, 1)


# ── options ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def named(subject: Subject, **given: Any) -> dict[tuple[str, str], Change]:
    given = {"compile": False} | given
    return {(change.option, change.instead): change for change in changes(subject, **given)}


def test_each_option_changes_itself_alone(plan: StudyPlan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ablate.benching.options.fastest_precision", lambda device: "bf16")
    monkeypatch.setattr("ablate.benching.options.available_cpus", lambda: 6)
    monkeypatch.setattr("ablate.benching.options.why_not", lambda device: None)
    subject = subject_of(plan, threads=2)
    found = named(subject, compile=True)
    assert list(found) == [
        ("precision", "bf16"),
        ("channels_last", "off"),
        ("fused optimiser", "off"),
        ("threads, one trial", "1"),
        ("threads, one trial", "4"),
        ("threads, one trial", "6"),
        ("compile", "on"),
    ]
    numerics = subject.trial.numerics
    changed = {key: change.of(subject).trial for key, change in found.items()}
    assert changed["channels_last", "off"].numerics == replace(numerics, channels_last=False)
    assert changed["fused optimiser", "off"].numerics == replace(numerics, fused=False)
    assert changed["threads, one trial", "4"].numerics == replace(numerics, threads=4)
    assert changed["compile", "on"].numerics == replace(numerics, compile=True)
    assert changed["precision", "bf16"].numerics == numerics
    assert changed["precision", "bf16"].precision == "bf16"
    for change in found.values():
        assert change.of(subject).data is subject.data


def test_what_is_set_together_is_all_set(plan: StudyPlan) -> None:
    subject = subject_of(plan)
    chosen = [
        named(subject)["channels_last", "off"],
        Change("precision", "fp32", "fp16", options._with_precision("fp16"), burst=3),
    ]
    together = reporting._all(chosen)
    trial = together.of(subject).trial
    assert (trial.numerics.channels_last, trial.train.precision) == (False, "fp16")
    assert (together.instead, together.burst) == ("channels_last off, precision fp16", 3)


def test_workers_are_recommended_where_the_trials_of_the_study_leave_them_cores(
    plan: StudyPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of eight cores, two trials at once with a thread each leave three to each trial."""
    monkeypatch.setattr("ablate.benching.options.available_cpus", lambda: 8)
    monkeypatch.setattr("ablate.benching.options.FolderSplit", SimpleNamespace)
    subject = subject_of(plan, threads=1)
    folder: Any = replace(subject.data, train=SimpleNamespace(workers=1))
    for cores, settable in ((4, [0, 2]), (8, [0, 2, 4]), (1, [0])):
        found = list(options._workers(Subject(subject.trial, folder, cores)))
        assert [change.value for change in found] == [0, 2, 4, 8]
        assert [change.value for change in found if change.path] == settable


def test_what_can_be_recommended_is_a_key_of_the_spec(plan: StudyPlan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ablate.benching.options.why_not", lambda device: None)
    sections: dict[str, type[BaseModel]] = {"train": TrainSpec, "execution": ExecutionSpec}
    for change in named(subject_of(plan), compile=True).values():
        if change.path:
            section, key = change.path
            assert key in sections[section].model_fields


def test_a_deterministic_study_is_offered_nothing_that_contradicts_it(plan: StudyPlan) -> None:
    found = {option for option, _ in named(subject_of(plan, deterministic=True), compile=True)}
    assert not found & {"precision", "compile"}
    assert "channels_last" in found


def test_an_emulated_precision_and_one_that_variants_differ_in_are_left_out(
    plan: StudyPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ablate.benching.options.fastest_precision", lambda device: "fp32")
    assert "precision" not in {option for option, _ in named(subject_of(plan))}
    monkeypatch.setattr("ablate.benching.options.fastest_precision", lambda device: "bf16")
    assert "precision" not in {option for option, _ in named(subject_of(plan), stated_alike=False)}


def test_threads_are_tried_up_to_the_cores() -> None:
    assert [powers_of_two(most) for most in (1, 2, 3, 8, 12)] == [
        [1],
        [1, 2],
        [1, 2, 3],
        [1, 2, 4, 8],
        [1, 2, 4, 8, 12],
    ]


def test_an_allocator_that_the_user_has_chosen_is_left_alone(plan: StudyPlan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ablate.benching.options.platform.libc_ver", lambda: ("glibc", "2.36"))
    monkeypatch.setattr("ablate.benching.options.find_library", lambda name: f"lib{name}.so")
    monkeypatch.delenv(PRELOAD, raising=False)
    trial = subject_of(plan).trial
    found = {change.instead: change for change in allocators(trial)}
    assert list(found) == ["glibc", "tcmalloc"]
    assert found["tcmalloc"].environment == {PRELOAD: "libtcmalloc_minimal.so"}
    assert (found["glibc"].is_advice, found["tcmalloc"].is_advice) == (False, True)
    assert not list(allocators(replace(trial, numerics=replace(trial.numerics, device="cuda"))))
    monkeypatch.setenv(PRELOAD, "/usr/lib/libjemalloc.so.2")
    assert not list(allocators(trial))


# ── what follows ─────────────────────────────────────────────────────────────────────────────────────────────────────

HOUR = Cost(trials=30, seconds=3600, compiling=300)


def effect(option: str, low: float, median: float, high: float, **others: Any) -> Effect:
    settings: dict[str, Any] = {"path": ("execution", option), "value": True} | others
    return Effect(Change(option, "off", "on", **settings), Spread(median, low, high, 11))


@pytest.mark.parametrize(
    ("low", "median", "high", "verdict"),
    [(1.5, 1.6, 1.7, "faster"), (0.9, 1.6, 1.7, ""), (1.01, 1.01, 1.01, ""), (0.5, 0.6, 0.7, "slower"), (1, 1, 1, "")],
)
def test_what_the_interval_does_not_show_is_no_difference(low: float, median: float, high: float, verdict: str) -> None:
    found = effect("channels_last", low, median, high)
    assert found.verdict == verdict
    assert found.can_be_recommended is (verdict == "faster")
    assert replace(found, ratio=Spread(median, low, high, LEAST - 1)).verdict == ""  # of so few there is none


def test_nothing_is_recommended_that_a_user_cannot_set() -> None:
    assert winners([effect("fused optimiser", 1.4, 1.5, 1.6, path=())], HOUR) == []


def test_of_several_settings_of_an_option_the_fastest_is_recommended() -> None:
    found = [effect("workers", 1.4, 1.4 + gain, 2.5, value=value) for value, gain in ((1, 0.3), (2, 0.9), (4, 0.5))]
    assert [each.change.value for each in winners(found, HOUR)] == [2]


def test_compiling_is_recommended_where_it_saves_more_than_it_takes() -> None:
    compiled = effect("compile", 1.2, 1.25, 1.3)
    # a fifth of the hour is saved, 720 s, and compiling takes 300 s
    assert winners([compiled], HOUR) == [compiled]
    found = recommended([compiled], None, (1, 2), (), HOUR)
    assert found.seconds == pytest.approx(3600 - 720 + 300)
    assert found.gain == pytest.approx(3600 / 3180)
    assert winners([compiled], replace(HOUR, seconds=1400)) == []
    eager = effect("compile", 1.2, 1.25, 1.3, value=False)
    assert recommended(winners([eager], HOUR), None, (1, 2), (), HOUR).seconds == pytest.approx(3600 / 1.25)


def test_several_settings_are_recommended_if_they_are_faster_together_and_else_the_best_alone() -> None:
    best = [
        effect("precision", 1.5, 1.6, 1.7, path=("train", "precision"), value="bf16"),
        effect("channels_last", 1.2, 1.3, 1.4),
    ]
    together = recommended(best, effect("together", 1.8, 1.9, 2.0), (1, 2), (), HOUR)
    assert yaml.safe_load(together.yaml) == {"train": {"precision": "bf16"}, "execution": {"channels_last": True}}
    assert together.gain == pytest.approx(1.9)
    alone = recommended(best, effect("together", 1.4, 1.5, 1.6), (1, 2), (), HOUR)
    assert yaml.safe_load(alone.yaml) == {"train": {"precision": "bf16"}}
    assert alone.seconds == pytest.approx(3600 / 1.6)


def test_another_placement_is_recommended_where_all_trials_are_clearly_sooner_done() -> None:
    two, one = Measured(1, 2, 100.0), Measured(2, 1, 110.0)
    assert best_placement((1, 2), (two, one), trials=30)[0] == one
    found = recommended([], None, (1, 2), (two, one), HOUR)
    assert yaml.safe_load(found.yaml) == {"execution": {"threads": 2, "max_concurrent": 1}}
    assert found.gain == pytest.approx(1.1)
    assert best_placement((2, 1), (two, one), trials=30) == (None, 1.0)
    assert best_placement((1, 2), (two, replace(one, images_per_second=103.0)), trials=30) == (None, 1.0)
    # the study's own was not measured: nothing is known about it
    assert best_placement((4, 1), (two, one), trials=30) == (None, 1.0)
    # of three trials two at once leave a place idle in the second round: 75 images/s are less than 80
    assert best_placement((1, 2), (two, replace(one, images_per_second=80.0)), trials=3)[0] is not None


def test_an_allocator_is_recommended_as_an_environment() -> None:
    found = recommended(
        winners(
            [effect("allocator", 1.1, 1.2, 1.3, path=(), environment={"LD_PRELOAD": "x.so"}, is_advice=True)], HOUR
        ),
        None,
        (1, 2),
        (),
        HOUR,
    )
    assert found.environment == {"LD_PRELOAD": "x.so"}
    assert found.yaml == ""
    assert found.gain == pytest.approx(1.2)


def test_where_nothing_is_faster_that_is_said() -> None:
    found = recommended([], None, (1, 2), (), HOUR)
    assert found.is_empty
    assert (found.gain, found.seconds) == (1.0, 3600)


def test_what_compiling_costs_is_estimated_for_the_study_as_it_is_placed(plan: StudyPlan) -> None:
    nodes = {variant.network.graph.fingerprint: len(variant.network.graph.nodes) for variant in plan.variants}
    cold = compiling.COLD * len(nodes) + compiling.COLD_NODE * sum(nodes.values())
    settled = Resolved(Numerics(), Placement(1, 2, ""), compiling.Estimate(False, "the study is short"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiling, "why_not", lambda device: None)
        costs = reporting._compiling(plan, settled, "fp32", seconds=7)
    assert costs == pytest.approx((cold + 6 * compiling.WARM) / 2)


def test_the_placement_of_the_study_is_timed_although_it_fills_no_cores(
    plan: StudyPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def measured(trial: Any, data: ImageData, ways: list[tuple[int, int]], gpus: int) -> list[Measured]:
        asked.append((trial.numerics.devices, ways))
        return [Measured(*way, 7.0) for way in ways]

    monkeypatch.setattr(reporting, "measured", measured)
    monkeypatch.setattr(reporting, "available_cpus", lambda: 4)
    monkeypatch.setattr("ablate.placing.available_cpus", lambda: 4)
    for devices, own, ways in ((1, (1, 3), [(1, 4), (2, 2), (4, 1), (1, 3)]), (2, (2, 1), [(1, 2), (2, 1)])):
        settled = Resolved(Numerics(devices=devices), Placement(*own, ""), compiling.Estimate(False, ""))
        found = reporting._placements(subject_of(plan), settled, trials=6)
        assert [(each.threads, each.concurrent) for each in found] == ways
        assert asked[-1] == (devices, ways)


# ── the whole ────────────────────────────────────────────────────────────────────────────────────────────────────────


def quickly(plan: StudyPlan, **options: Any) -> Report:
    return bench(plan, timing=Timing(steps=LEAST), quick=True, **options)


def on_one_core(patch: pytest.MonkeyPatch) -> None:
    """More threads than cores are free take their time; and the product that is the peak is small."""
    patch.setattr("ablate.benching.readings.SIZES", {"cpu": 97, "cuda": 97})
    patch.setattr("ablate.benching.options.available_cpus", lambda: 1)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    path = tmp_path_factory.mktemp("specs") / "tiny.yaml"
    path.write_text(TINY)
    with pytest.MonkeyPatch.context() as patch:
        on_one_core(patch)
        return quickly(study_plan(load(path)))


def test_the_report_is_of_the_variant_whose_step_costs_most(report: Report, plan: StudyPlan) -> None:
    costs = {variant.name: cost_of(variant.network.graph).flops for variant in plan.variants}
    assert report.variant == "se" == max(costs, key=lambda name: costs[name])
    step = report.stage("step")
    assert step.images == 16
    assert step.flops == 16 * 3 * 2 * costs["se"]
    assert step.images_per_second == 16 / step.seconds.median
    assert [stage.name for stage in report.stages] == [
        "data",
        "forward",
        "backward",
        "optimiser",
        "step",
        "evaluation",
    ]
    assert report.stage("evaluation").images == 15
    assert {effect.change.option for effect in report.effects} >= {"channels_last", "fused optimiser"}


def test_a_backward_pass_of_a_frozen_network_has_no_share_of_the_peak(tiny: Path) -> None:
    stages = reporting._flops(subject_of(study_plan(load(tiny, sets={"train.freeze": ["stem"]}))).trial)
    assert list(stages) == ["forward"]


def test_the_tables_and_the_words_hold_what_was_measured(report: Report) -> None:
    stages, effects = tables(report)
    rows = {row[0].text: row for row in stages.rows}
    assert rows["step"][4].value == 100
    assert rows["evaluation"][4].text == ""
    for name in ("forward", "step", "evaluation"):
        rate = report.stage(name).flops_per_second
        assert rate is not None
        assert rows[name][6].value == pytest.approx(100 * rate / report.peak[report.settings["precision"]])
    assert rows["data"][5].text == rows["optimiser"][6].text == ""
    assert [row[0].text for row in effects.rows] == [effect.change.option for effect in report.effects]
    assert "6 trials" in said(report)


def test_an_option_that_fails_is_said_to_and_the_others_are_measured(
    plan: StudyPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    init = Run.__init__

    def fails(self: Run, trial: Any, data: ImageData, *others: Any) -> None:
        if not trial.numerics.channels_last:
            raise RuntimeError("out of memory\nand more")
        init(self, trial, data, *others)

    monkeypatch.setattr(Run, "__init__", fails)
    on_one_core(monkeypatch)
    report = quickly(plan)
    failed = {effect.change.option: effect.failed for effect in report.effects if effect.ratio is None}
    assert failed == {"channels_last": "out of memory"}
    assert "could not be measured: out of memory" in {cell.note for row in tables(report)[1].rows for cell in row}


def test_a_begun_study_is_timed_as_it_was_begun_and_with_the_cores_that_its_trials_have(
    plan: StudyPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ablate.resolving.fastest_precision", lambda device: "fp32")
    create_study(prepare(plan))
    monkeypatch.setattr("ablate.resolving.fastest_precision", lambda device: "bf16")
    on_one_core(monkeypatch)
    monkeypatch.setattr(reporting, "available_cpus", lambda: 7)
    cores = []
    report = quickly(plan, say=lambda text: cores.append(loading._cores))
    assert report.settings["precision"] == "fp32"
    assert set(cores[1:]) == {max(1, 7 // report.placement.concurrent)}
    assert loading._cores is None


def test_the_time_of_a_study_is_that_of_its_images(plan: StudyPlan) -> None:
    stages = {
        "step": Stage("step", Spread(4.0, 4, 4, 9), 16),
        "evaluation": Stage("evaluation", Spread(1.0, 1, 1, 9), 16),
    }
    timed, costs = plan.variant("none"), [cost_of(variant.network.graph).flops for variant in plan.variants]
    data = {0: load_data(timed.data, base=plan.spec.folder)}

    def seconds(placement: Placement, *measured: Measured) -> float:
        return reporting._seconds(plan, timed, stages, placement, measured, lambda spec: data[0])

    # two seeds of 2 epochs of 45 images at 4 a second, and of val (15) and test (20) once, at 16 a second
    alone = 2 * (2 * 45 / 4 + 35 / 16) * sum(costs) / costs[0]
    assert seconds(Placement(1, 1, "")) == pytest.approx(alone)
    assert seconds(Placement(1, 3, "")) == pytest.approx(alone / 3)
    # two at once get 5 images a second between them, where one alone has 4
    assert seconds(Placement(1, 2, ""), Measured(1, 2, 5.0)) == pytest.approx(alone * 4 / 5)


# ── the command ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    on_one_core(monkeypatch)
    monkeypatch.setattr("ablate.workers.keep_memory", lambda: None)


def test_the_command_prints_tables_the_recommendation_and_the_next_command(
    small: None, tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", str(tiny), "--quick", "--steps", "5", "--variant", "none"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("tiny: stages of a step of none\n")
    assert "what each option changes" in out
    assert "The study: 6 trials" in out
    assert out.splitlines()[-1] == f"next: ablate plan {tiny}"
    assert all(line.startswith("measuring: ") for line in err.splitlines())
    assert not list(tiny.parent.glob("runs*"))


def test_json_has_everything_that_was_measured(small: None, tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", str(tiny), "--quick", "--steps", "2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found) == set(Report.__dataclass_fields__)
    step = next(stage for stage in found["stages"] if stage["name"] == "step")
    assert step["images_per_second"] == step["images"] / step["seconds"]["median"]
    assert found["settings"]["threads"] == 1
    assert {"option", "now", "instead", "path", "value", "ratio", "verdict"} <= set(found["effects"][0])
    assert all(effect["verdict"] == "" for effect in found["effects"])  # two readings show nothing
    assert found["recommendation"]["yaml"] == ""
    assert found["recommendation"]["now"]["trials"] == 6


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--variant", "sa"), "no variant 'sa'; one of: between, none, se"),
        (("--profile", "tiny"), "no profile"),
        (("--set", "execution.threads=1024"), "cores"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    capsys: pytest.CaptureFixture[str], tiny: Path, arguments: tuple[str, ...], said: str
) -> None:
    assert main(["bench", str(tiny), *arguments]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--seconds", "0"), "'0' is not between 0 and 3600 seconds"),
        (("--seconds", "abc"), "'abc' is not between 0 and 3600 seconds"),
        (("--steps", "0"), "0 is not at least 1"),
        (("--seconds", "1", "--steps", "3"), "not allowed with"),
    ],
)
def test_how_long_it_takes_is_said_once_and_is_more_than_nothing(
    capsys: pytest.CaptureFixture[str], tiny: Path, arguments: tuple[str, ...], said: str
) -> None:
    with pytest.raises(SystemExit):
        main(["bench", str(tiny), *arguments])
    assert said in capsys.readouterr().err


@pytest.mark.slow
def test_other_processes_are_timed_with_the_allocators_and_the_placements(small: None, plan: StudyPlan) -> None:
    report = bench(plan, timing=Timing(seconds=0.1))
    assert {effect.failed for effect in report.effects} == {""}
    assert report.placements or report.cores == 1


# ── the page ─────────────────────────────────────────────────────────────────────────────────────────────────────────

PAGE = (REPOSITORY / "docs" / "speed.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("example", re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
def test_an_example_of_the_page_is_sound(tiny: Path, example: str) -> None:
    validator = jsonschema.Draft202012Validator(spec_schema())
    assert [error.message for error in validator.iter_errors(yaml.safe_load(example))] == []
    sets = {
        f"{section}.{key}": value for section, keys in yaml.safe_load(example).items() for key, value in keys.items()
    }
    assert study_plan(load(tiny, sets={"train.epochs": 7} | sets)).variants


def test_the_page_has_every_key_of_execution_and_every_flag(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["bench", "--help"])
    help = capsys.readouterr().out
    assert f"{LEAST} to {MOST} readings" in " ".join(help.split())
    assert f"{LEAST} to {MOST} readings" in PAGE
    flags = set(re.findall(r"--[a-z]+", help)) - {"--help", "--set", "--trust", "--profile"}
    assert {flag for flag in flags if flag not in PAGE} == set()
    assert [key for key in ExecutionSpec.model_fields if key not in PAGE] == []
