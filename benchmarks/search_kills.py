"""A search killed with ``kill -9``, three times: its suggestions, trials and best against those of one that was not.

python benchmarks/search_kills.py [--executor local] [--sampler tpe] [--trials 16] [--kills 3] [--seed 0]

The search is run as a user runs it, by `ablate search` in processes of their own: small ResNets on made-up images, two
epochs each, which attention, where, at which reduction and learning rate; accuracy on validation, under a limit on
parameters, with successive halving where one trial runs at a time. The process and all that it started are killed when
so many trials have ended and up to a second later, in the midst of the next proposal or trial; then the same command
is given again.

One trial at a time, suggestions depend on what was found before, and have to come out the same; through Ray several
run at once, whose order is chance, and only a sampler that does not learn (random, grid) proposes the same again.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SPEC = """\
name: killed
data: {name: fake, shape: [3, 12, 12], classes: 5, count: {train: 1200, test: 100}, val: 0.2}
train: {epochs: 2, batch_size: 40, precision: fp32, optimizer: {name: sgd, lr: 0.1, momentum: 0.9}}
network:
  params: {k: 1}
  graph:
    stem:   {block: conv_bn_act, width: 8*$k, kernel: 3}
    stage1: {block: basic, width: 8*$k, repeat: 2, shortcut: pad}
    stage2: {block: basic, width: 16*$k, repeat: 2, stride: 2, shortcut: pad}
    head:   {block: classifier}
  insert:
    attention: {block: se, reduction: 4, at: after stage*}
execution: {threads: 1}
"""
SPACE = """\
space:
  network.insert.attention.block: {choice: [se, cbam, simam]}
  network.insert.attention.reduction: {choice: [2, 4, 8], when: {network.insert.attention.block: [se, cbam]}}
  network.insert.attention.at: {choice: [after stage*, after stage*.*, "after stage*.*.bn2"]}
  network.params.k: {choice: [1, 2, 3]}
  train.optimizer.lr: {float: [0.003, 0.5], log: true}
objectives: {val.accuracy: maximize}
constraints: {params: {max: 60000}}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--executor", choices=("local", "ray"), default="local")
    parser.add_argument("--sampler", default="tpe")
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0, help="of the moments at which it is killed")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="kills"))
    try:
        (folder / "spec.yaml").write_text(SPEC)
        pruner = "pruner: {name: asha, reduction: 2}\n" if options.executor == "local" else ""
        (folder / "space.yaml").write_text(SPACE + pruner)
        print(_told(folder, options))
    finally:
        shutil.rmtree(folder)


def _told(folder: Path, options: argparse.Namespace) -> str:
    _run(folder, "whole", options, None)
    stream = random.Random(options.seed)
    moments = sorted(stream.sample(range(1, options.trials - 1), options.kills))
    for moment in moments:
        _run(folder, "killed", options, moment, stream.uniform(0.0, 1.0))
    _run(folder, "killed", options, None)
    whole, killed = _outcome(folder / "whole"), _outcome(folder / "killed")
    rows = [
        ("proposals", len(whole["proposals"]), len(killed["proposals"])),
        ("of them other than undisturbed", "", _differing(whole["proposals"], killed["proposals"])),
        ("distinct trials", len(whole["results"]), len(killed["results"])),
        ("of them pruned", _pruned(whole), _pruned(killed)),
        ("results other than undisturbed", "", _differing(whole["results"], killed["results"])),
        ("attempts at trials", whole["attempts"], killed["attempts"]),
        ("best val.accuracy", whole["best"], killed["best"]),
    ]
    lines = [
        f"{options.executor}, {options.sampler}; killed after {', '.join(map(str, moments))} trials had ended",
        "",
        "| | undisturbed | killed |",
        "| --- | ---: | ---: |",
        *(f"| {name} | {left} | {right} |" for name, left, right in rows),
    ]
    return "\n".join(lines)


def _run(folder: Path, name: str, options: argparse.Namespace, kill_after: int | None, delay: float = 0.0) -> None:
    """The command, to its end or until so many seconds after so many trials have ended in the study's log."""
    command = [sys.executable, "-m", "ablate", "search", "spec.yaml", "--space", "space.yaml", "--out", name]
    command += ["--executor", options.executor, "--sampler", options.sampler, "--trials", str(options.trials)]
    environment = {**os.environ, "ABLATE_CACHE": "off", "OMP_NUM_THREADS": "1"}
    log = folder / name / "events.jsonl"
    process = subprocess.Popen(
        [*command, "--quiet"], cwd=folder, env=environment, stdout=subprocess.PIPE, start_new_session=True
    )
    while kill_after is not None and process.poll() is None:
        if log.exists() and log.read_text().count('"event": "ended"') >= kill_after:
            time.sleep(delay)
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return
        time.sleep(0.01)
    process.communicate()
    if process.returncode not in (0, 1) or kill_after is not None:
        raise SystemExit(f"{name}: ended with {process.returncode} before it was to be killed")


def _outcome(folder: Path) -> dict[str, Any]:
    from ablate.store import Study

    study = Study.open(folder)
    kept = ("status", "epochs", "metrics")
    results = {hash: {key: result[key] for key in kept} for hash, result in study.results().items()}
    finished = [result["metrics"]["val.accuracy"] for result in results.values() if result["status"] == "finished"]
    return {
        "proposals": {record["name"]: [record["outcome"], record["values"]] for record in study.proposals()},
        "results": results,
        "attempts": sum(state.attempts for state in study.states().values()),
        "best": f"{max(finished):.4f}",
    }


def _pruned(outcome: dict[str, Any]) -> int:
    return sum(result["status"] == "pruned" for result in outcome["results"].values())


def _differing(one: dict[str, Any], other: dict[str, Any]) -> int:
    keys = one.keys() | other.keys()
    return sum(json.dumps(one.get(key)) != json.dumps(other.get(key)) for key in keys)


if __name__ == "__main__":
    main()
