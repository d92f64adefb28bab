"""From a prepared plan to a finished study: train what the store lacks, here or through Ray Tune.

The store is the truth: a sweep that was killed is started again by the same call and trains only what has no result.
"""

from __future__ import annotations

from typing import Literal

from ablate.execute import Progress, run_here
from ablate.prepare import Prepared, create_study
from ablate.store import Study

ExecutorName = Literal["ray", "local"]


def sweep(
    prepared: Prepared,
    *,
    executor: ExecutorName = "ray",
    progress: Progress | None = None,
) -> Study:
    """Train every trial that the study lacks. Finished trials are kept whatever happens to this process."""
    study = create_study(prepared)
    told = progress or Progress()
    with study.hold():
        done = study.results()
        missing = [trial for trial in prepared.trials if trial.hash not in done]
        told.begin(prepared.trials, len(prepared.trials) - len(missing))
        try:
            if missing:
                if executor == "ray":
                    from ablate.raytune import run_with_ray  # seconds of import that a local run does not need

                    run_with_ray(missing, prepared, study, told)
                else:
                    run_here(missing, prepared, study, told)
        finally:
            told.end()
        study.index()
    return study
