"""The executor that runs trials through Ray Tune. ``sweep`` imports this file when it is asked for Ray.

A searcher of our own proposes the trials in their order; the store says what is done, so nothing is built on Tune's
own snapshots. Each Tune result is one epoch; the last one carries the trial's result.
"""

from __future__ import annotations

import gc
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

QUIET = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
    "TUNE_GLOBAL_CHECKPOINT_S": "600",
    # Ray otherwise clears CUDA_VISIBLE_DEVICES of workers that asked for no GPU, and warns that it will stop doing so.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
os.environ.update({key: value for key, value in QUIET.items() if key not in os.environ})  # read when ray is imported

import ray  # noqa: E402
import torch  # noqa: E402
from ray import tune  # noqa: E402
from ray.tune.experiment import Trial as TuneTrial  # noqa: E402
from ray.tune.search import Searcher  # noqa: E402

from ablate.actors import bundles, epochs_by_actors  # noqa: E402
from ablate.data.dataset import ImageData  # noqa: E402
from ablate.data.loading import give_cores  # noqa: E402
from ablate.errors import Problem, UserError  # noqa: E402
from ablate.execute import Progress, record, run_trial  # noqa: E402
from ablate.numerics import Numerics, set_process  # noqa: E402
from ablate.placing import cores_for_trials  # noqa: E402
from ablate.prepare import Prepared, data_key  # noqa: E402
from ablate.store import Study  # noqa: E402
from ablate.train import Row, Trial, epochs  # noqa: E402
from ablate.workers import keep_memory, worker_environment  # noqa: E402

RETRIES = 2
"""How often a trial whose worker died is repeated. A bug in a block is a result and never repeated."""


class ListedTrials(Searcher):
    """Proposes the listed trials, in their order, and then ends."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.next = 0
        self.count = count

    def suggest(self, trial_id: str) -> Any:
        if self.next >= self.count:
            return Searcher.FINISHED
        self.next += 1
        return {"trial": self.next - 1}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None: ...

    def save(self, checkpoint_path: str) -> None: ...

    def restore(self, checkpoint_path: str) -> None: ...


class Worker(tune.Trainable):
    """Runs one trial after another in one process; each step is an epoch."""

    def setup(self, config: dict[str, Any], given: Any = None) -> None:
        numerics, cores, shared = given
        set_process(numerics)  # before the trials are unpickled: nothing has started threads yet
        keep_memory()  # of a Ray that we did not start: its environment is not ours
        self._cores = cores
        give_cores(cores)
        self._shared = ray.get(shared)
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._begin(new_config)
        return True

    def _begin(self, config: dict[str, Any]) -> None:
        trials, data_keys, data, folder = self._shared
        gc.collect()  # a compiled network is in cycles, and holds its memory until they are found
        trial: Trial = trials[config["trial"]]
        images = data[data_keys[config["trial"]]]
        alone = trial.numerics.devices == 1
        self._training = epochs(trial, ray.get(images)) if alone else epochs_by_actors(trial, images, self._cores)
        self._running: Generator[Row, None, dict[str, Any]] = run_trial(Study.open(folder), trial, self._training)

    def step(self) -> dict[str, Any]:
        try:
            return {"row": next(self._running)}
        except StopIteration as end:
            return {"result": end.value, "done": True}
        except UserError as error:  # a full disk: no retry helps
            return {"refused": error.problems, "done": True}

    def cleanup(self) -> None:
        self._training.close()

    def save_checkpoint(self, checkpoint_dir: str) -> None: ...

    def load_checkpoint(self, checkpoint: Any) -> None: ...


class Recorder(tune.Callback):
    """Writes results to the store as they come, in the driver, and tells the progress."""

    def __init__(self, trials: list[Trial], study: Study, progress: Progress) -> None:
        self.trials, self.study, self.progress = trials, study, progress
        self.open = {trial.hash for trial in trials}
        self.refused: list[Problem] = []

    def __reduce__(self) -> tuple[type[tune.Callback], tuple[()]]:
        # Tune pickles its callbacks for a restore that we never do; a live display holds locks, which can't be.
        return tune.Callback, ()

    def on_trial_start(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        self.progress.started(self._ours(trial))

    def on_trial_result(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, result: dict[str, Any], **info: Any
    ) -> None:
        ours = self._ours(trial)
        if "result" in result:
            self._record(ours, result["result"])
        elif "refused" in result:
            self._refuse(ours, result["refused"])
        elif "row" in result:
            self.progress.epoch(ours, result["row"])

    def _record(self, trial: Trial, result: dict[str, Any]) -> None:
        try:
            record(self.study, trial, result)
        except UserError as error:  # what leaves a callback ends Tune with a message of its own
            self._refuse(trial, error.problems)
        else:
            self.open.discard(trial.hash)
            self.progress.ended(trial, result)

    def _refuse(self, trial: Trial, problems: list[Problem]) -> None:
        self.refused += problems
        self.progress.lost(trial, str(UserError(problems)))

    def on_trial_error(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        self.open.discard(self._ours(trial).hash)
        self.progress.lost(self._ours(trial), "its worker died")

    def _ours(self, trial: TuneTrial) -> Trial:
        index: int = trial.config["trial"]
        return self.trials[index]


def run(trials: list[Trial], prepared: Prepared, study: Study, progress: Progress, concurrent: int, cores: int) -> None:
    """Run the trials, ``concurrent`` at once with so many ``cores`` each, on the Ray session that is there."""
    data = {key: ray.put(images) for key, images in prepared.data.items()}
    keys = [data_key(prepared.plan.variant(trial.variant).data) for trial in trials]
    numerics = prepared.numerics
    given = (numerics, cores, ray.put((trials, keys, data, study.folder.resolve())))
    gpus = 1 / max(1, -(-concurrent // torch.cuda.device_count())) if numerics.device == "cuda" else 0.0
    resources = {"cpu": numerics.threads, "gpu": gpus} if numerics.devices == 1 else bundles(numerics)
    storage = tempfile.mkdtemp(prefix="abl-tune")
    recorder = Recorder(trials, study, progress)
    try:
        tuner = tune.Tuner(
            tune.with_resources(tune.with_parameters(Worker, given=given), resources),
            tune_config=tune.TuneConfig(
                search_alg=ListedTrials(len(trials)),
                num_samples=len(trials),
                max_concurrent_trials=concurrent,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name="sweep",
                storage_path=storage,
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=RETRIES),
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                callbacks=[recorder],
            ),
        )
        tuner.fit()
    finally:
        shutil.rmtree(storage, ignore_errors=True)
    if recorder.refused:
        raise UserError(recorder.refused)
    if recorder.open:
        raise KeyboardInterrupt  # Tune catches it, stops its trials and returns as if all were done


def run_with_ray(trials: list[Trial], prepared: Prepared, study: Study, progress: Progress) -> None:
    """All trials through Ray Tune. A worker that dies is replaced, and its trial repeated twice at most."""
    count = min(prepared.settled.placement.concurrent, len(trials))
    cores = max(1, cores_for_trials() // count)
    with ray_session(prepared.numerics, count, prepared.data.values()):
        run(trials, prepared, study, progress, count, cores)


@contextmanager
def ray_session(numerics: Numerics, concurrent: int, data: Iterable[ImageData]) -> Iterator[None]:
    """A Ray of our own for the sweep; one that is already running in this process is used and left running."""
    if ray.is_initialized():
        yield
        return
    logging.getLogger("ray").setLevel(logging.ERROR)
    arrays = sum(item.nbytes for item in data)
    # Sockets have names of 107 bytes at most: the folder's name must be short.
    with tempfile.TemporaryDirectory(prefix="abl", dir=_short_temporary_folder(), ignore_cleanup_errors=True) as folder:
        ray.init(
            num_cpus=concurrent * numerics.threads * numerics.devices,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            configure_logging=False,
            _temp_dir=folder,
            object_store_memory=max(128 << 20, 2 * arrays + (64 << 20)),
            runtime_env={"env_vars": worker_environment(numerics) | QUIET},
        )
        try:
            yield
        finally:
            ray.shutdown()


def _short_temporary_folder() -> str | None:
    return "/tmp" if sys.platform != "win32" and os.access("/tmp", os.W_OK) else None
