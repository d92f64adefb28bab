"""The executor that runs trials through Ray Tune. ``sweep`` imports this file when it is asked for Ray.

The driver decides what runs; Tune has workers for it, places them, and tells what came of them. Each attempt at a trial
is a trial of Tune's, each result of Tune's an epoch; the last carries the trial's result. Nothing is built on Tune's
own snapshots, nor on its repeating of what failed.
"""

from __future__ import annotations

import gc
import shutil
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ablate.raysession import session, signals_kept, temporary_folder  # before ray, which it quietens

# isort: split
import ray
import torch
from ray import cloudpickle, tune
from ray.air.execution._internal import actor_manager
from ray.exceptions import RayTaskError
from ray.tune.execution import tune_controller
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.experiment import trial as tune_trial
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from ablate.actors import bundles, epochs_by_actors
from ablate.cluster import DEATHS, Nodes, died_because, not_begun_because
from ablate.code import code_digest, outside_digests
from ablate.data.loading import give_cores
from ablate.disk import InUseError
from ablate.driving import Attempt, Driver
from ablate.errors import UserError
from ablate.execute import Work, ended_by_sigterm, run_trial
from ablate.nodes import unfit
from ablate.numerics import Numerics, set_process
from ablate.placing import Placement
from ablate.prepare import data_key
from ablate.store import Study
from ablate.train import Row, Trial, crashed, epochs
from ablate.workers import Use, keep_memory


class Proposals(Searcher):
    """Hands Tune the driver's attempts, as many at once as there is room for."""

    def __init__(self, driver: Driver, given: Callable[[str], Given], room: Callable[[], int]) -> None:
        super().__init__()
        self.driver, self.room = driver, room
        self._given = given
        self.given: dict[str, str] = {}
        """By hash: the trial of Tune's that its last attempt was given to."""
        self.hash_of: dict[str, str] = {}
        """By trial of Tune's."""

    def __reduce__(self) -> tuple[type[Searcher], tuple[()]]:
        return Searcher, ()  # as of ``Recorder``

    def suggest(self, trial_id: str) -> Any:
        if self.driver.over:
            return Searcher.FINISHED
        attempt = self.driver.next() if len(self.driver.running) < self.room() else None
        if attempt is None:
            return None
        hash = attempt.trial.hash
        self.given[hash], self.hash_of[trial_id] = trial_id, hash
        # by reference: Tune writes what is in a configuration into each of its snapshots
        given = [ray.put(self._given(hash))]
        return {"hash": hash, "attempt": attempt.number, "alone": attempt.alone, "given": given}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None: ...

    def save(self, checkpoint_path: str) -> None: ...

    def restore(self, checkpoint_path: str) -> None: ...


class Unhurried(FIFOScheduler):
    """Leaves a trial whose worker is starting to that worker.

    Tune would otherwise give it the first worker that comes free, end the one that starts, and start another then.
    """

    def choose_trial_to_run(self, tune_controller: Any) -> None:
        return None


class Stopped(tune.Stopper):
    """Is the first to see a step of a trial, which ends if the driver has pruned it; and ends all when that says so."""

    def __init__(self, driver: Driver, heard: Callable[[str, dict[str, Any]], bool]) -> None:
        self.driver, self._heard = driver, heard

    def __reduce__(self) -> tuple[type[tune.stopper.NoopStopper], tuple[()]]:
        return tune.stopper.NoopStopper, ()  # as of ``Recorder``

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return not self._heard(trial_id, result)

    def stop_all(self) -> bool:
        return self.driver.over and self.driver.stopping is not None


for _module in (actor_manager, tune_controller, tune_trial):
    # Tune knows one kind of a worker's death; of the others (want of memory is one) it would die itself.
    setattr(_module, "RayActorError", DEATHS)  # noqa: B010


class SpentError(Exception):
    """Ends a worker's process after a trial that may have left it in a bad state."""


@dataclass(frozen=True)
class Given:
    """What a worker is given of a trial."""

    trial: Trial
    images: Any
    """A reference to them: each node has them once, in shared memory."""
    kinds: tuple[type, ...] = ()
    """Blocks, data sets and augmentations that it uses."""
    outside: Mapping[str, str] = field(default_factory=dict)
    """The digests of those from outside this package, as the driver has them."""

    def unfit(self) -> str | None:
        """Why this process can't run the trial: it has imported other code of the user's."""
        here = outside_digests(self.kinds)
        others = [name for name, digest in self.outside.items() if here.get(name, digest) != digest]
        return f"it has other code of {', '.join(others)}" if others else None


class Worker(tune.Trainable):
    """Runs one attempt after another in one process; each step is an epoch."""

    def setup(self, config: dict[str, Any], given: Any = None) -> None:
        numerics, cores, folder, code = given
        set_process(numerics)  # before the trials are unpickled: nothing has started threads yet
        keep_memory()  # of a Ray that we did not start: its environment is not ours
        self._cores = cores
        give_cores(cores)
        self._use = Use(numerics.device)
        self._folder = folder
        self._free_since: float | None = None
        self._spent = False
        self._unfit = unfit(numerics, folder, code)
        self._running: Generator[Any, None, dict[str, Any]] | None = None
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._begin(new_config)
        return True

    def _begin(self, config: dict[str, Any]) -> None:
        self.cleanup()  # of a trial that was pruned
        if self._unfit:
            return
        self._begun = time.monotonic()
        self._spent = False
        self._use.since_last()
        try:
            given: Given = ray.get(config["given"][0])
        except (ImportError, AttributeError) as error:  # of a module of the user's, which is not here
            self._unfit = f"it lacks code that the trial needs: {error}"
            return
        self._unfit = given.unfit()
        if self._unfit:
            return
        trial, images = given.trial, given.images
        if trial.numerics.compile:
            gc.collect()  # a compiled network is in cycles, and holds its memory until they are found

        def training(checkpoints: Any) -> Any:
            if trial.numerics.devices > 1:
                return epochs_by_actors(trial, images, self._cores, checkpoints)
            return epochs(trial, ray.get(images), checkpoints=checkpoints)

        self._running = run_trial(Study(self._folder, {}, [], {}), trial, config["attempt"], training)

    def step(self) -> dict[str, Any]:
        if self._spent:
            raise SpentError
        if self._unfit:
            self._spent = True  # not to be used for another
            return {"unfit": self._unfit, "node": ray.get_runtime_context().get_node_id()}
        assert self._running is not None
        try:
            row = next(self._running)
            return {"row": row, "use": self._use.since_last() | self._idled(row)}
        except StopIteration as end:
            self._free_since = time.monotonic()
            status = end.value["status"]
            # what did not fit may still be held by somebody; a kernel that failed leaves a CUDA device unusable
            self._spent = status == "out_of_memory" or (status == "crashed" and torch.cuda.is_initialized())  # type: ignore[no-untyped-call]
            return {"result": end.value, "done": not self._spent}
        except InUseError as error:  # an earlier attempt still runs, somewhere
            return {"busy": str(error), "done": True}
        except UserError as error:  # a full disk: no retry helps
            return {"refused": error.problems, "done": True}

    def _idled(self, row: Row) -> dict[str, float]:
        """Seconds, with the first row after another trial: ``waited`` for this one, ``built`` until its first step."""
        if self._free_since is None:
            return {}
        first_step = time.monotonic() - row["seconds"]
        idled = {"waited": self._begun - self._free_since, "built": first_step - self._begun}
        self._free_since = None
        return {key: round(seconds, 4) for key, seconds in idled.items()}

    def cleanup(self) -> None:
        if self._running is not None:
            self._running.close()
            self._running = None

    def save_checkpoint(self, checkpoint_dir: str) -> None: ...

    def load_checkpoint(self, checkpoint: Any) -> None: ...


class Recorder(tune.Callback):
    """Tells the driver what became of its attempts, and ends those that take too long."""

    def __init__(self, driver: Driver, nodes: Nodes, proposals: Proposals) -> None:
        self.driver, self.nodes, self.proposals = driver, nodes, proposals
        self._actors: dict[str, Any] = {}
        """By hash, of what runs."""
        self._overdue: set[Attempt] = set()
        self._places: dict[str, dict[str, Any]] = {}
        """By actor: node and process, once it has told."""

    def __reduce__(self) -> tuple[type[tune.Callback], tuple[()]]:
        # Tune pickles its callbacks for a restore that we never do; a live display holds locks, which can't be.
        return tune.Callback, ()

    def on_step_begin(self, iteration: int, trials: list[TuneTrial], **info: Any) -> None:
        for attempt in self.driver.overdue():
            actor = self._actors.pop(attempt.trial.hash, None)
            if actor is not None:  # it is recorded when its worker is gone, and writes no more
                self._overdue.add(attempt)
                ray.kill(actor)
        self.nodes.look(self.driver)

    def on_trial_start(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        attempt = self._attempt(trial.trial_id)
        if attempt is not None:
            actor = trial.temporary_state.ray_actor
            self._actors[attempt.trial.hash] = actor
            self.driver.started(attempt, **self._places.get(_id(actor), {}))

    def heard(self, trial_id: str, result: dict[str, Any]) -> bool:
        """A step of a trial: whether it goes on."""
        attempt = self._attempt(trial_id)
        if attempt is None:
            return True
        if "row" in result:
            use = result["use"]
            self._places[_id(self._actors.get(attempt.trial.hash))] = {key: use[key] for key in ("node", "pid")}
            goes_on = self.driver.epoch(attempt, result["row"], use)
            if not goes_on:
                self._actors.pop(attempt.trial.hash, None)
                self.driver.pruned(attempt)
            return goes_on
        self._actors.pop(attempt.trial.hash, None)
        if "result" in result:
            self.driver.ended(attempt, result["result"])
        elif "busy" in result:
            self.driver.lost(attempt, result["busy"])
        elif "refused" in result:
            self.driver.refused(result["refused"])
        elif "unfit" in result:
            self.driver.put_back(attempt)
            self.nodes.exclude(result["node"], result["unfit"], self.driver)
        return True

    def on_trial_error(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        attempt = self._attempt(trial.trial_id)
        if attempt is None:  # its end has been told already
            return
        self._actors.pop(attempt.trial.hash, None)
        error = _error_of(trial)
        cause = error.cause if isinstance(error, RayTaskError) else error
        not_begun = not_begun_because(cause)
        if attempt in self._overdue:
            self.driver.timed_out(attempt)
        elif not_begun is not None:
            self.driver.put_back(attempt)
            self.nodes.exclude_at(*not_begun, self.driver)
        elif not isinstance(cause, DEATHS):
            self.driver.ended(attempt, crashed(error).result)  # not the trial's block, which is caught in training: us
        else:
            of_memory, why = died_because(cause)
            if of_memory:
                self.driver.ended(attempt, crashed(MemoryError(why)).result)
            else:
                self.driver.lost(attempt, why)

    def _attempt(self, trial_id: str) -> Attempt | None:
        """What the driver waits for, and not an attempt whose end it knows."""
        hash = self.proposals.hash_of.get(trial_id, "")
        return self.driver.running.get(hash) if self.proposals.given.get(hash) == trial_id else None


def _error_of(trial: TuneTrial) -> Exception:
    """What ended it, as Tune has just written it."""
    try:
        error: Exception = cloudpickle.loads(Path(trial.pickled_error_file).read_bytes())
    except Exception:  # none was written, or it is of a module that only the worker has
        text = Path(trial.error_file).read_text() if trial.error_file else ""
        return RuntimeError(text.strip() or "its worker failed, and nothing says why")
    return error


def _id(actor: Any) -> str:
    return actor._actor_id.hex() if actor is not None else ""


def run(driver: Driver, given: Callable[[str], Given], numerics: Numerics, placement: Placement, nodes: Nodes) -> None:
    """Run what the driver gives out, on the Ray session that there is. ``given`` is asked for a trial, by its hash."""
    folder = driver.study.folder.resolve()
    worker = tune.with_parameters(Worker, given=(numerics, nodes.cores, folder, code_digest()))
    proposals = Proposals(driver, given, nodes.room)
    recorder = Recorder(driver, nodes, proposals)
    storage = temporary_folder()
    try:
        tuner = tune.Tuner(
            tune.with_resources(worker, lambda config: _resources(placement, nodes, config["alone"])),
            tune_config=tune.TuneConfig(
                search_alg=proposals,
                scheduler=Unhurried(),  # type: ignore[no-untyped-call]
                num_samples=-1,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name="sweep",
                storage_path=storage,
                verbose=0,
                stop=Stopped(driver, recorder.heard),
                failure_config=tune.FailureConfig(max_failures=0),
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                callbacks=[recorder],
            ),
        )
        with signals_kept():
            tuner.fit()
    finally:
        nodes.release()
        shutil.rmtree(storage, ignore_errors=True)
    if not driver.over:
        driver.stop("interrupted")  # Tune catches it, stops its trials and returns as if all were done


def _resources(placement: Placement, nodes: Nodes, alone: bool) -> tune.PlacementGroupFactory:
    if placement.devices > 1:
        return bundles(placement)
    wanted = {"CPU": placement.cpus, "GPU": placement.gpus, "memory": placement.memory}
    if alone:
        wanted |= nodes.whole(on_gpu=placement.gpus > 0)
    return tune.PlacementGroupFactory([{key: value for key, value in wanted.items() if value}])


def run_with_ray(driver: Driver, work: Work) -> None:
    """Run what the driver gives out through Ray Tune, in the session that there is or in one of its own."""
    with session():
        references: dict[str, Any] = {}

        def given(hash: str) -> Given:
            trial, variant = work.trials[hash], work.variants[hash]
            key = data_key(variant.data)
            if key not in references:
                references[key] = ray.put(work.data_of(variant.data))
            kinds = tuple(set(variant.kinds.values()))
            return Given(trial, references[key], kinds, outside_digests(kinds))

        with ended_by_sigterm(driver):  # Ray has just set a handler of its own
            run(
                driver,
                given,
                work.settled.numerics,
                work.settled.placement,
                Nodes(work.settled.placement, work.at_once),
            )
