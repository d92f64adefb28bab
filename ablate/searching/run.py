"""Searches run: by the executors of a sweep, in the study that they are kept in."""

from __future__ import annotations

import os
import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from ablate.beforehand import RayBeforehand
from ablate.cache import Cache
from ablate.certify import Certifier
from ablate.driving import Driver, Listed, Policy
from ablate.errors import UserError
from ablate.events import Event
from ablate.execute import Work
from ablate.known import Known
from ablate.outcomes import FAILED
from ablate.prepare import environment
from ablate.progress import Progress
from ablate.proposing import Proposer
from ablate.searching.candidates import Candidates
from ablate.searching.setup import Searchable, pruner_of, search_policy
from ablate.searching.source import ENDED, Search
from ablate.store import Study
from ablate.sweeping import ExecutorName, run

JOURNAL = "optuna.jsonl"
"""In the study's folder: what Optuna was asked and told."""


def search(
    prepared: Searchable,
    *,
    executor: ExecutorName = "ray",
    progress: Progress | None = None,
    retry_failed: bool = False,
    cache: Cache | None = None,
    beforehand: RayBeforehand | None = None,
) -> Study:
    """Propose, check and train until the budget is spent. What was finished is kept, and the same call goes on.

    ``UserError``: the study is in use or of another space, or nothing can go on; ``KeyboardInterrupt``: interrupted.
    """
    plan, settled = prepared.plan, prepared.settled
    study = Study.create(prepared.folder, {**plan.tree, "numerics": settled.numerics.as_dict()}, [], environment())
    progress = progress or Progress()
    policy = search_policy(prepared)
    with study.hold():
        work = Work({}, {}, prepared.data_of, settled, prepared.at_once)
        found = search_in(
            study, prepared, work, cache=cache, retry_failed=retry_failed, trial_timeout=policy.trial_timeout
        )
        spent = {"trials": prepared.aims.budget.trials, "epochs": prepared.baseline.train.epochs}
        drive(study, [found], work, policy, executor, progress, cache, beforehand, **spent)
    return study


def search_in(
    study: Study,
    prepared: Searchable,
    work: Work,
    *,
    cache: Cache | None,
    retry_failed: bool,
    trial_timeout: float | None,
) -> Search:
    """The search of a study that this process holds, as far as it has come."""
    plan, space, aims = prepared.plan, prepared.space, prepared.aims
    numerics, seed = prepared.settled.numerics, plan.seeds[0]
    candidates = Candidates(
        plan.spec,
        prepared.grid,
        prepared.baseline,
        seed=seed,
        numerics=numerics,
        data_of=prepared.data_of,
        certifier=Certifier(prepared.data_of, numerics, seed),
        known=Known(prepared.data_of, numerics, seed),
    )
    journal = study.folder / JOURNAL
    proposer = Proposer(
        prepared.grid, aims.objectives, space.model.chosen_sampler, constraints=aims.constraints, journal=journal
    )
    return Search(
        study,
        candidates,
        proposer,
        aims,
        pruner=pruner_of(space, plan),
        cache=cache,
        trials=work.trials,
        variants=work.variants,
        retry_failed=retry_failed,
        trial_timeout=trial_timeout,
    )


class Together:
    """Several searches as one source of trials, which come of each in turn."""

    def __init__(self, searches: Sequence[Search]) -> None:
        self._searches = list(searches)
        self._of: dict[str, Search] = {}
        """By trial."""
        self._turn = 0

    @property
    def exhausted(self) -> bool:
        return all(search.exhausted for search in self._searches)

    def propose(self) -> Listed | None:
        for _ in self._searches:
            search = self._searches[self._turn % len(self._searches)]
            self._turn += 1
            listed = search.propose() if not search.exhausted else None
            if listed is not None:
                self._of[listed.hash] = search
                return listed
        return None

    def goes_on(self, trial: Listed, row: Mapping[str, Any]) -> bool:
        return self._of[trial.hash].goes_on(trial, row)

    def ended(self, trial: Listed, result: Mapping[str, Any]) -> None:
        self._of[trial.hash].ended(trial, result)


def drive(
    study: Study,
    searches: Sequence[Search],
    work: Work,
    policy: Policy,
    executor: ExecutorName,
    progress: Progress,
    cache: Cache | None,
    beforehand: RayBeforehand | None,
    *,
    trials: int,
    epochs: int,
) -> None:
    """Run searches in one study until all are over. ``trials``: how many they may come to, of ``epochs`` each."""

    def tell(event: Event) -> None:
        progress.tell(event)
        if cache and event["event"] == "ended" and event["status"] == "finished":
            cache.give(study, event["trial"])

    source = Together(searches)
    driver = Driver([], study, tell, policy, source=source)
    kept = [result for search in searches for result in search.results.values()]
    for search in searches:
        search.tell = driver.tell
    statuses = Counter(result["status"] for result in kept)
    outcomes = Counter(record["outcome"] for record in study.proposals() if record["outcome"] != "trained")
    driver.tell(
        "sweep",
        pid=os.getpid(),
        host=platform.node(),
        executor=executor,
        trials=trials,
        kept=len(kept),
        kept_failed=sum(count for status, count in statuses.items() if status in FAILED),
        kept_pruned=statuses["pruned"],
        cached=0,
        slots=work.settled.placement.concurrent,
        to_do=max(0, trials - len(kept)) * epochs,
        search={"budget": trials, "proposed": dict(outcomes)},
    )
    for search in searches:
        search.tell_best()
    try:
        if not driver.over:
            run(driver, work, executor, beforehand)
    except KeyboardInterrupt:
        driver.stop("interrupted")
    except BaseException:
        driver.stop("refused")
        raise
    finally:
        said = list(map(str, driver.problems)) if driver.stopping else _reasons(searches)
        driver.tell("over", why=driver.stopping or "done", message="; ".join(said))
        progress.close()
    if driver.problems:
        raise UserError(driver.problems)
    if driver.stopping == "interrupted":
        raise KeyboardInterrupt


def _reasons(searches: Sequence[Search]) -> list[str]:
    """Why searches ended that did not come to as many trials as they may."""
    early = [(search.name, ENDED[search.why_over]) for search in searches if search.why_over in ENDED]
    return [f"{name}: {why}" if name else why for name, why in early]
