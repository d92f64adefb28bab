"""From a prepared plan to a finished study: train what the store lacks, here or through Ray Tune, and seeds as asked.

The store is the truth: a sweep that was killed is started again by the same call and trains only what has no result,
each trial from its last checkpoint. What another study has trained is taken from the cache.
"""

from __future__ import annotations

import os
import platform
from collections import Counter
from dataclasses import dataclass, replace
from time import monotonic
from typing import Literal

from ablate.analysis.arms import arms_of
from ablate.analysis.widths import Until, look
from ablate.beforehand import RayBeforehand
from ablate.cache import Cache
from ablate.code import code_digest
from ablate.design import more_seeds
from ablate.driving import Driver, Listed, Policy
from ablate.errors import UserError
from ablate.events import Event
from ablate.execute import Work, ended_by_sigterm, run_here
from ablate.grammar import ExecutionSpec
from ablate.outcomes import FAILED, repeated
from ablate.prepare import Prepared, create_study, loader, variant_records, with_seeds
from ablate.progress import Progress
from ablate.report.seeding import look_text
from ablate.store import Study
from ablate.train import Trial

ExecutorName = Literal["ray", "local"]


def sweep(
    prepared: Prepared,
    *,
    executor: ExecutorName = "ray",
    progress: Progress | None = None,
    retry_failed: bool = False,
    cache: Cache | None = None,
    beforehand: RayBeforehand | None = None,
) -> Study:
    """Train every trial that the study lacks. Finished trials are kept whatever happens to this process.

    ``retry_failed``: those too that crashed, diverged, did not fit or ran out of time; ``cache``: finished trials of
    other studies, which are taken from it and given to it. With Ray, it is the session that this process is in, or that
    is started ``beforehand``, else one of its own.

    Where the spec has ``seeds: auto``, the variants are trained over more seeds for as long as its rule asks for them
    and ``execution.budget`` lasts.

    ``UserError``: the study is in use, or nothing can go on (a full disk); ``KeyboardInterrupt``: it was interrupted.
    """
    study = create_study(prepared)
    progress = progress or Progress()
    rounds = _Rounds(study, executor, progress, cache, beforehand)
    policy, began = policy_of(prepared.plan.execution), monotonic()
    with study.hold():
        try:
            driver = rounds.train(prepared, policy, retry_failed=retry_failed)
            while more := _seeds_to_add(study, prepared, driver, _left(policy, monotonic() - began)):
                prepared = with_seeds(prepared, more)
                study.grow(variant_records(prepared))
                # what has failed again in this call is not worth a third time
                driver = rounds.train(prepared, _left(policy, monotonic() - began), retry_failed=False)
        finally:
            progress.close()
    if driver.problems:
        raise UserError(driver.problems)
    if driver.stopping == "interrupted":
        raise KeyboardInterrupt
    return study


@dataclass(frozen=True)
class _Rounds:
    """The trials of all seeds so far, trained; again with each seed that is added."""

    study: Study
    executor: ExecutorName
    progress: Progress
    cache: Cache | None
    beforehand: RayBeforehand | None

    def train(self, prepared: Prepared, policy: Policy, *, retry_failed: bool) -> Driver:
        study, cache = self.study, self.cache
        trials = {trial.hash: trial for trial in prepared.trials}
        results = study.results(trials)
        missing = [
            trial
            for hash, trial in trials.items()
            if hash not in results
            or repeated(results[hash], retry_failed=retry_failed, trial_timeout=policy.trial_timeout)
        ]
        taken = {trial.hash for trial in missing if cache and cache.take(study, trial.hash, code_digest())}
        missing = [trial for trial in missing if trial.hash not in taken]
        still_missing = {trial.hash for trial in missing}
        _put_readings_on_record(study, {hash: trials[hash] for hash in trials.keys() - still_missing})
        kept = [results[hash] for hash in trials.keys() - taken - still_missing]
        listed = [Listed(trial.hash, trial.variant, trial.seed, trial.train.epochs) for trial in missing]
        driver = Driver(listed, study, self._tell, policy)
        driver.tell(
            "sweep",
            pid=os.getpid(),
            host=platform.node(),
            executor=self.executor,
            trials=len(trials),
            kept=len(kept),
            kept_failed=sum(result["status"] in FAILED for result in kept),
            cached=len(taken),
            slots=min(prepared.settled.placement.concurrent, max(len(missing), 1)),
            to_do=sum(trial.epochs for trial in listed),
        )
        try:
            if missing and not driver.over:
                run(driver, _work(prepared, missing), self.executor, self.beforehand)
        except KeyboardInterrupt:
            driver.stop("interrupted")
        except BaseException:
            driver.stop("refused")
            raise
        finally:
            driver.tell("over", why=driver.stopping or "done", message="; ".join(map(str, driver.problems)))
        return driver

    def _tell(self, event: Event) -> None:
        self.progress.tell(event)
        if self.cache and event["event"] == "ended" and event["status"] == "finished":
            self.cache.give(self.study, event["trial"])


def _seeds_to_add(study: Study, prepared: Prepared, driver: Driver, left: Policy) -> list[int]:
    """All seeds of the next round, where the spec leaves their number open and its rule asks for more; else none.

    ``driver`` is that of the last round, and tells what the rule sees.
    """
    until = Until.of(prepared.plan.tree)
    if until is None or driver.stopping not in (None, "budget"):
        return []
    seen = look(until, arms_of(study))
    more = 0 if driver.stopping or left.budget == 0 else seen.more
    message = look_text(seen)
    if seen.wide:
        message += f"; {more} more" if more else "; execution.budget is over" if seen.more else "; none is added"
    driver.tell("seeds", seeds=seen.seeds, more=more, message=message)
    return more_seeds(prepared.plan.seeds, len(prepared.plan.seeds) + more) if more else []


def _left(policy: Policy, spent: float) -> Policy:
    """What is left of it after so many seconds."""
    return policy if policy.budget is None else replace(policy, budget=max(0.0, policy.budget - spent))


def _put_readings_on_record(study: Study, ended: dict[str, Trial]) -> None:
    """What trials with a result have read of the test split, as far as it is not: elsewhere, for those of the cache."""
    known = Counter(exposure.get("trial") for exposure in study.exposures() if exposure.get("by") != "explain")
    for hash, result in study.results(ended).items():
        for _ in range(result["test_readings"] - known[hash]):
            study.expose(by="cache", trial=hash, variant=ended[hash].variant, seed=ended[hash].seed, epoch=None)


def _work(prepared: Prepared, trials: list[Trial]) -> Work:
    variants = {trial.hash: prepared.plan.variant(trial.variant) for trial in trials}
    data_of = loader(prepared.plan, prepared.data)
    return Work({trial.hash: trial for trial in trials}, variants, data_of, prepared.settled, prepared.at_once)


def policy_of(execution: ExecutionSpec) -> Policy:
    """What the spec says on repeating and on time."""
    return Policy(execution.retries, execution.trial_timeout, execution.budget)


def run(driver: Driver, work: Work, executor: ExecutorName, beforehand: RayBeforehand | None = None) -> None:
    """Run what the driver gives out."""
    if executor == "local":
        with ended_by_sigterm(driver):
            run_here(driver, work)
        return
    if beforehand is not None:
        beforehand.ready()
    from ablate.raytune import run_with_ray  # seconds of import that a local run does not need

    run_with_ray(driver, work)
