"""A trial that was interrupted ends as one that was not: the same weights, rows and predictions, bit for bit."""

from __future__ import annotations

import io
import pickle
import random
from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import cycle, islice
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pytest
import torch
from torch import Tensor

from ablate import block as blocks
from ablate.block import Block, BlockParams, Shape
from ablate.checkpoints import Checkpoints, NotKept, State
from ablate.data.dataset import DataSpec, ImageData
from ablate.data.dataset import load as load_data
from ablate.design import as_written
from ablate.errors import UserError
from ablate.numerics import Numerics, process_settings
from ablate.parallel import Ranks
from ablate.processes import epochs_together
from ablate.spec import load
from ablate.store import Study
from ablate.train import Outcome, Run, Trial, epochs, train, trial_of
from ablate.training_state import restore, state_of

HASH, CODE = "0123456789abcdef" * 2, "of this code"
EPOCHS = 4
Row = dict[str, Any]


class Gambler(Block):
    """Draws from every stream of the process, in training and in evaluation."""

    name = "test_gambler"

    def __init__(self, params: BlockParams, shape: Shape) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        if x.is_meta:
            return x * 1
        return x * (0.7 + 0.2 * torch.rand(()) + 0.2 * random.random() + 0.2 * float(np.random.rand()))


class Warming(Block):
    """Scales by how many steps it has seen, which it keeps in a buffer that no ``state_dict`` has."""

    name = "test_warming"
    steps: Tensor

    def __init__(self, params: BlockParams, shape: Shape) -> None:
        super().__init__()
        self.register_buffer("steps", torch.zeros(()), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.training and not x.is_meta:
            self.steps += 1
        return x * (1 + 0.03 * self.steps)


class Counting(Block):
    """The same, in an attribute, a stream of its own or a function that was begun: no checkpoint has these."""

    name = "test_counting"

    class Params(BlockParams):
        by: Literal["attribute", "stream", "function"] = "attribute"

    def __init__(self, params: Params, shape: Shape) -> None:
        super().__init__()
        self.by, self.steps, self.generator = params.by, 0.0, torch.Generator().manual_seed(3)
        if self.by == "function":
            self.counter = (float(step) for step in range(1000))

    def forward(self, x: Tensor) -> Tensor:
        if self.training and not x.is_meta:
            if self.by == "stream":
                return x * (1 + 0.5 * torch.rand((), generator=self.generator))
            if self.by == "function":
                return x * (1 + 0.03 * next(self.counter))
            self.steps += 1
        return x * (1 + 0.03 * self.steps)


class Bomb(Block):
    """Raises in the training step of that number, as often as there are ``Bomb.errors``."""

    name = "test_bomb"
    errors: ClassVar[list[Exception]] = []

    class Params(BlockParams):
        step: int

    def __init__(self, params: Params, shape: Shape) -> None:
        super().__init__()
        self.register_buffer("left", torch.tensor(params.step))

    def forward(self, x: Tensor) -> Tensor:
        if self.training and not x.is_meta:
            left: Any = self.left
            left -= 1
            if left == 0 and Bomb.errors:
                raise Bomb.errors.pop()
        return x * 1


@pytest.fixture(autouse=True, scope="module")
def blocks_of_this_file() -> Iterator[None]:
    kinds = (Gambler, Warming, Counting, Bomb)
    for kind in kinds:
        blocks.register(kind)
    yield
    for kind in kinds:
        del blocks._registry[kind.name]


@pytest.fixture
def study(tmp_path: Path) -> Study:
    found = Study(tmp_path / "study", {}, [], {})
    found.begin({"hash": HASH}, resume=True)
    return found


DATA: Row = {"name": "fake", "shape": [3, 9, 11], "classes": 5, "count": {"train": 37, "test": 13}, "val": 0.3}


@lru_cache(maxsize=1)
def arrays() -> ImageData:
    return load_data(DataSpec.model_validate(DATA), base=Path())


def trial(
    nodes: Row | None = None,
    data: Row | None = None,
    weights: Path | None = None,
    norm: str = "batch_norm",
    numerics: Numerics | None = None,
    **recipe: Any,
) -> Trial:
    graph = {
        "stem": {"block": "conv", "width": 6, "kernel": 3},
        "norm": {"block": norm},
        "act": {"block": "act"},
        **(nodes or {}),
        "head": {"block": "classifier"},
    }
    optimizer = {"name": "sgd", "lr": 0.05, "momentum": 0.9}
    spec = {
        "name": "study",
        "data": DATA | {"augment": ["horizontal_flip", {"random_crop": {"padding": 2}}]} | (data or {}),
        "train": {"epochs": EPOCHS, "batch_size": 7, "optimizer": optimizer, "precision": "fp32"} | recipe,
        "network": {"graph": graph},
    }
    sets = {"network.init.from": str(weights)} if weights else {}
    return trial_of(as_written(load(spec, sets=sets)), 11, numerics or Numerics(), HASH)


def always(study: Study, code: str = CODE) -> Checkpoints:
    """Keeps the state after every epoch; sent to another process, as it always is."""
    found: Checkpoints = pickle.loads(pickle.dumps(Checkpoints(study.folder, HASH, code, share=float("inf"))))
    return found


def disturb() -> None:
    """What other trials of a process leave behind: its streams are anywhere."""
    for draw in (torch.seed, random.seed, np.random.seed):
        draw()


def to_the_end(running: Any, rows: list[Row]) -> Outcome:
    while True:
        try:
            rows.append(next(running))
        except StopIteration as end:
            outcome: Outcome = end.value
            return outcome


def straight(of: Trial) -> tuple[Outcome, list[Row]]:
    rows: list[Row] = []
    return train(of, arrays(), rows.append), rows


def interrupted_after_each_epoch(of: Trial, study: Study) -> tuple[Outcome, list[Row]]:
    """Each epoch by a run of its own, from what the one before has kept."""
    rows: list[Row] = []
    with process_settings(of.numerics):
        for _ in range(of.train.epochs):
            disturb()
            running = epochs(of, arrays(), checkpoints=always(study))
            before = study.state(HASH)
            rows.append(next(running))
            if study.state(HASH) == before:
                return to_the_end(running, rows), rows  # it was the last epoch: nothing is kept of it
            running.close()
    raise AssertionError("more epochs than the trial has")


CLOCKS = ("seconds", "images_per_second")


def timeless(row: Row) -> Row:
    return {key: value for key, value in row.items() if key not in CLOCKS}


def same(one: tuple[Outcome, list[Row]], other: tuple[Outcome, list[Row]]) -> bool:
    (first, rows), (second, other_rows) = one, other
    if first.result["status"] != "finished" or timeless(first.result) != timeless(second.result):
        return False
    assert first.weights is not None
    assert second.weights is not None
    assert first.predictions is not None
    assert second.predictions is not None
    return (
        list(map(timeless, rows)) == list(map(timeless, other_rows))
        and first.weights.keys() == second.weights.keys()
        and all(torch.equal(tensor, second.weights[name]) for name, tensor in first.weights.items())
        and all((array == second.predictions[name]).all() for name, array in first.predictions.items())
    )


STOPPING = {"monitor": "val.loss", "patience": 2, "threshold": 0.3, "mode": "absolute"}
DROPS = {"drop": {"block": "dropout", "rate": 0.3}, "path": {"block": "drop_path", "rate": 0.2}}
OPTIMIZERS: dict[str, Row] = {
    "sgd": {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01},
    "adam": {},
    "adamw": {},
    "nadam": {},
    "radam": {},
    "rmsprop": {"momentum": 0.5, "centered": True},
    "adagrad": {"lr_decay": 0.1, "initial_accumulator_value": 0.1},
}
SCHEDULES: tuple[Row, ...] = (
    {"name": "constant", "warmup_epochs": 2.5},
    {"name": "multi_step", "milestones": [1, 3], "gamma": 0.3},
    {"name": "multi_step", "milestones": [2, 3], "gamma": 0.3, "warmup_epochs": 1.5},
    {"name": "step", "every": 2, "gamma": 0.5},
    {"name": "exponential", "gamma": 0.7, "warmup_epochs": 1},
    {"name": "polynomial", "power": 2.0},
    {"name": "cosine", "floor": 0.001},
    {"name": "cosine", "warmup_epochs": 2},
    {"name": "cosine_restarts", "period": 1, "growth": 2},
    {"name": "cosine_restarts", "period": 2, "warmup_epochs": 1},
    {"name": "one_cycle", "warmup": 0.4},
)
EVERYTHING: Row = {
    "ema": {"decay": 0.8},
    "select": "ema",
    "early_stopping": STOPPING | {"monitor": "test.loss"},
    "schedule": {"name": "cosine", "warmup_epochs": 1.5},
    "clip_norm": 0.5,
    "epochs": 7,
}
BEST: Row = {"select": "best", "optimizer": {"name": "sgd", "lr": 0.5}, "epochs": 5}
FP16: Row = {"precision": "fp16", "clip_norm": 1.0, "epochs": 3}
CASES: dict[str, Row] = {
    **{
        f"{name}, {schedule['name']}{' warmed' if 'warmup_epochs' in schedule else ''}": {
            "optimizer": {"name": name, "lr": 0.003, **OPTIMIZERS[name]},
            "schedule": schedule,
        }
        for name, schedule in zip(islice(cycle(OPTIMIZERS), len(SCHEDULES)), SCHEDULES, strict=True)
    },
    "everything": EVERYTHING,
    "stopping": {"early_stopping": STOPPING, "epochs": 11},
    "best": BEST,
    "best, seldom looked at": BEST | {"evaluate": {"every": 2}},
    "mixup": {"data": {"mix": {"name": "mixup", "alpha": 0.4}}},
    "cutmix": {"data": {"mix": {"name": "cutmix", "alpha": 0.4}}, "loss": {"label_smoothing": 0.1}},
    "frozen and groups": {
        "freeze": ["norm"],
        "groups": [{"of": "bias", "weight_decay": 0, "lr_factor": 3}, {"of": "head", "lr": 0.01}],
        "optimizer": {"name": "adamw", "lr": 0.003},
        "schedule": {"name": "one_cycle"},
    },
    "contiguous, deterministic": {"numerics": Numerics(channels_last=False, deterministic=True)},
    "bf16": {"precision": "bf16"},
    "fp16": FP16,
    "parts of batches": {"micro_batch": 3, "nodes": DROPS},
    "streams of the process": {"nodes": {"luck": {"block": "test_gambler"}}, "select": "best"},
    "streams and parts": {"nodes": {"luck": {"block": "test_gambler"}}, "micro_batch": 2},
    "a buffer in no state_dict": {"nodes": {"warm": {"block": "test_warming"}}, "ema": {"decay": 0.9}, "select": "ema"},
}


@pytest.mark.parametrize("case", CASES)
def test_a_trial_interrupted_after_each_epoch_ends_as_one_that_never_was(case: str, study: Study) -> None:
    of = trial(**CASES[case])
    wanted = straight(of)
    assert same(wanted, interrupted_after_each_epoch(of, study)), case
    if "stopping" in case:
        assert 1 < len(wanted[1]) < of.train.epochs
    if case == "best":
        assert wanted[0].result["selected_epoch"] < of.train.epochs, "choose another rate: the last epoch is the best"


def test_a_trial_that_starts_from_weights_goes_on_from_its_own(study: Study, tmp_path: Path) -> None:
    trained, _ = straight(trial())
    torch.save(trained.weights, tmp_path / "weights.pt")
    of = trial(weights=tmp_path / "weights.pt")
    assert same(straight(of), interrupted_after_each_epoch(of, study))


# ---- each part of the state is needed, and these tests would see it missing ----

PARTS = {
    "network": EVERYTHING,
    "average": EVERYTHING,
    "optimizer": EVERYTHING,
    "schedule": EVERYTHING,
    "scaler": FP16,
    "stopping": EVERYTHING,
    "best": BEST,
    "step": {"nodes": DROPS},
    "lr": None,
    "rows": EVERYTHING,
    "test_readings": EVERYTHING,
    "train_seconds": None,
    "seconds": None,
}


@pytest.mark.parametrize("part", [part for part, recipe in PARTS.items() if recipe is not None])
def test_a_part_of_the_state_that_is_lost_is_seen(part: str, study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    def lossy(run: Run, state: State) -> None:
        fresh = state_of(run)
        assert fresh is not None
        assert state.keys() == fresh.keys() == PARTS.keys()
        restore(run, state | {part: fresh[part]})

    if part == "scaler":  # which halves its scale when a gradient overflows, as the first do at such a scale
        init = torch.amp.GradScaler.__init__
        monkeypatch.setattr(torch.amp.GradScaler, "__init__", lambda *a, **k: init(*a, **k, init_scale=2.0**20))
    of = trial(**(PARTS[part] or {}))
    with process_settings(of.numerics):
        running = epochs(of, arrays(), checkpoints=always(study))
        kept = [next(running), next(running)]
        state = study.state(HASH)
        assert state is not None
        wanted = to_the_end(running, whole := kept[:])
        study.save_state(HASH, state)
        disturb()
        monkeypatch.setattr("ablate.train.restore", lossy)
        found = to_the_end(epochs(of, arrays(), checkpoints=always(study)), rows := kept[:])
    assert not same((wanted, whole), (found, rows))


def test_the_time_that_a_trial_took_is_that_of_all_its_attempts(study: Study) -> None:
    of = trial()
    running = epochs(of, arrays(), checkpoints=always(study))
    next(running)
    state = torch.load(io.BytesIO(study.state(HASH) or b""))
    state["state"] |= {"seconds": 1000.0, "train_seconds": 500.0}
    buffer = io.BytesIO()
    torch.save(state, buffer)
    study.save_state(HASH, buffer.getvalue())
    result = to_the_end(epochs(of, arrays(), checkpoints=always(study)), []).result
    assert 1000 < result["seconds"] < 1100
    assert result["images_per_second"] == pytest.approx(EPOCHS * len(arrays().train) / 500, rel=0.2)


# ---- what is no checkpoint of this trial ----


def kept_after_two(of: Trial, study: Study) -> None:
    running = epochs(of, arrays(), checkpoints=always(study))
    for row in (next(running), next(running)):
        study.append_metrics(HASH, row)
    running.close()


def test_a_checkpoint_is_read_by_who_runs_nothing_that_a_file_says(study: Study) -> None:
    kept_after_two(trial(**EVERYTHING), study)
    content = study.state(HASH)
    assert content is not None
    assert torch.load(io.BytesIO(content), weights_only=True)["state"].keys() == PARTS.keys()


@pytest.mark.parametrize("change", ["code", "trial", "format", "none", "not torch's", "no dict"])
def test_what_is_no_checkpoint_of_this_trial_by_this_code_is_none(study: Study, change: str) -> None:
    of = trial()
    kept_after_two(of, study)
    assert always(study).load() is not None
    content = study.state(HASH)
    assert content is not None
    record = torch.load(io.BytesIO(content))
    if change == "none":
        study.drop_state(HASH)
    elif change == "not torch's":
        study.save_state(HASH, b"nothing of torch's")
    else:
        buffer = io.BytesIO()
        torch.save([1, 2] if change == "no dict" else record | {change: "another"}, buffer)
        study.save_state(HASH, buffer.getvalue())
    assert always(study).load() is None
    rows: list[Row] = []
    assert same(straight(of), (to_the_end(epochs(of, arrays(), checkpoints=always(study)), rows), rows))


def test_a_damaged_checkpoint_is_none(study: Study) -> None:
    kept_after_two(trial(), study)
    path = study.trial_folder(HASH) / "state.pt"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    assert always(study).load() is None


# ---- when one is kept ----


def test_the_metrics_are_cut_back_to_the_checkpoint(study: Study) -> None:
    of = trial()
    kept_after_two(of, study)
    study.append_metrics(HASH, {"epoch": 3, "train.loss": 7.0})  # of an epoch that was not kept
    assert len(study.metrics(HASH)) == 3
    running = epochs(of, arrays(), checkpoints=always(study))
    assert next(running)["epoch"] == 3
    assert [row["epoch"] for row in study.metrics(HASH)] == [1, 2]


def test_nothing_is_kept_after_the_last_epoch_nor_after_one_that_stops_or_diverges(study: Study) -> None:
    def last(of: Trial) -> int:
        study.drop_state(HASH)
        rows: list[Row] = []
        with process_settings(of.numerics):
            to_the_end(epochs(of, arrays(), checkpoints=always(study)), rows)
        state = always(study).load()
        return len(rows) - (len(state["rows"]) if state else 0)

    assert last(trial()) == 1
    assert last(trial(early_stopping=STOPPING, epochs=11)) == 1
    assert last(trial(epochs=1)) == 1
    assert last(trial(optimizer={"name": "sgd", "lr": 1e30})) == 1


def test_keeping_takes_a_share_of_the_time_that_training_takes(study: Study) -> None:
    now = 100.0

    def make() -> State:  # two seconds to keep
        nonlocal now
        now += 2
        return {"rows": []}

    checkpoints = Checkpoints(study.folder, HASH, CODE, share=0.1, clock=lambda: now)
    kept = []
    for _ in range(60):  # epochs of one second
        now += 1
        if checkpoints.keep(make):
            kept.append(now)
    # the first, of which it is not known yet how long it takes; then after 2 s / 0.1, not counting what keeping took
    assert kept == [103.0, 125.0, 147.0]


@pytest.mark.parametrize("by", ["attribute", "stream", "function"])
def test_a_network_that_remembers_what_no_checkpoint_has_starts_again(study: Study, by: str) -> None:
    of = trial({"count": {"block": "test_counting", "by": by}})
    wanted = straight(of)
    running = epochs(of, arrays(), checkpoints=always(study))
    assert [next(running)["epoch"], next(running)["epoch"]] == [1, 2]
    running.close()
    assert study.state(HASH) is None
    rows: list[Row] = []
    assert same(wanted, (to_the_end(epochs(of, arrays(), checkpoints=always(study)), rows), rows))


def test_a_checkpoint_that_can_not_be_written_is_no_result(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any) -> None:
        raise UserError("no space left")

    monkeypatch.setattr(Study, "save_state", full)
    with pytest.raises(NotKept, match="no space left"):
        next(epochs(trial(), arrays(), checkpoints=Checkpoints(study.folder, HASH, CODE)))


def test_best_weights_are_those_of_their_epoch_though_training_goes_on(study: Study) -> None:
    of = trial(**BEST)
    running = epochs(of, arrays(), checkpoints=always(study))
    seen: dict[int, Row] = {}
    for row in running:
        if row["epoch"] < of.train.epochs:
            seen[row["epoch"]] = torch.load(io.BytesIO(study.state(HASH) or b""))["state"]
    best = seen[max(seen)]["best"]
    assert best["epoch"] < max(seen), "choose another rate"
    then = seen[best["epoch"]]["network"]
    assert all(torch.equal(tensor, then[name]) for name, tensor in best["weights"].items())


# ---- what was wrong with an attempt ----


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), "out_of_memory"),
        (KeyError(7), "crashed"),
    ],
)
def test_an_attempt_that_failed_goes_on_from_its_checkpoint(study: Study, error: Exception, status: str) -> None:
    of = trial({"bomb": {"block": "test_bomb", "step": 9}})
    Bomb.errors[:] = [error]
    rows: list[Row] = []
    first = to_the_end(epochs(of, arrays(), checkpoints=always(study)), rows)
    assert (first.result["status"], first.result["error"]["type"]) == (status, type(error).__name__)
    assert "Bomb.errors.pop()" in first.result["error"]["traceback"]
    assert Bomb.errors == []
    assert same(straight(of), (to_the_end(epochs(of, arrays(), checkpoints=always(study)), rows), rows))


# ---- several ranks ----


class Second(Ranks):
    """Rank 1, told what rank 0 has loaded."""

    told: ClassVar[Any] = None

    def first(self, make: Callable[[], Any]) -> Any:
        return Second.told if make.__name__ == "load" else make()

    def wrap(self, network: Any) -> Any:
        return network

    def add_up(self, *tensors: Tensor) -> None: ...


def test_the_first_rank_keeps_and_all_go_on_from_what_it_read(study: Study) -> None:
    of = trial(norm="identity", numerics=Numerics(devices=2))
    kept_after_two(of, study)
    state = always(study).load()
    Second.told = state
    before = study.state(HASH)
    running = epochs(of, arrays(), Second(1, 2), always(study))
    assert next(running)["epoch"] == 3
    assert study.state(HASH) == before


@pytest.mark.slow
def test_two_processes_go_on_from_where_two_processes_were(study: Study) -> None:
    nodes = {"luck": {"block": "dropout", "rate": 0.3}}
    of = trial(nodes, ema={"decay": 0.8}, select="ema", micro_batch=2, numerics=Numerics(devices=2), epochs=3)
    rows: list[Row] = []
    whole = to_the_end(epochs_together(of, arrays(), always(study)), rows)
    state = always(study).load()
    assert state is not None
    assert list(map(timeless, state["rows"])) == list(map(timeless, rows[:2]))
    assert same((whole, rows), (to_the_end(epochs_together(of, arrays(), always(study)), rest := rows[:2]), rest))
