"""This package: a trial of a spec, trained as a worker of a sweep trains it, in a process with a worker's settings."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from peers.common import Laps, say, seen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("spec", type=Path)
    parser.add_argument("--environment", action="store_true", help="print a worker's environment, as JSON, and end")
    given = parser.parse_args()

    from ablate.design import study_plan
    from ablate.resolving import on_this_machine
    from ablate.spec import load
    from ablate.workers import worker_environment

    plan = study_plan(load(given.spec))
    numerics = on_this_machine(plan)
    if given.environment:
        print(json.dumps(worker_environment(numerics)))
        return

    from ablate.data.dataset import load as load_data
    from ablate.numerics import set_process
    from ablate.train import train, trial_of

    set_process(numerics)
    variant = plan.distinct[0]
    data = load_data(variant.data, base=plan.spec.folder)
    laps, losses = Laps(), []
    laps.start()

    def on_epoch(row: dict[str, float]) -> None:
        laps.lap()
        losses.append(row["train.loss"])

    outcome = train(trial_of(variant, plan.seeds[0], numerics), data, on_epoch)
    if outcome.result["status"] != "finished":
        sys.exit(str(outcome.result))
    say(seen(laps.seconds, len(data.train), losses[-1]))


if __name__ == "__main__":
    main()
