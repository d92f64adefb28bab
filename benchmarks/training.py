"""Training by this package against training by others, on one machine, in one run: images a second, memory, ratios.

python benchmarks/training.py [--models resnet20 self_attention cbam] [--rounds 3] [--images 1280] [--threads 2]
    [--only NAME …] [--sweep-images 2560] [--sweep-epochs 3] [--no-sweep] [--parquet FOLDER] [--json FILE]

The peers need ``pip install -e '.[bench]'``. A ResNet-20 for CIFAR, bare and with attention after each stage; SGD,
batches of 128, crop and flip. Each measurement is a process of its own, and the peers take turns, `rounds` times, every
second time in the reverse order: compare within one run only, since a machine drifts. Images a second are of training
images over whole epochs, as the user waits for them: CNNtention's pipeline counts its errors each epoch, and that time
is its own. The first epoch warms up and is left out, and with it what compiling takes, which is said apart; without a
C++ compiler no way that compiles is measured. A ratio is paired: of one round, ours over the peer's; medians and
ranges. The eight trials are timed from the start of the process to its end, with Ray's start, certificates, evaluation
and storing, and their memory is that of all processes together; "without start-up" is what a long study comes to.
``--models`` without a name leaves all but the eight trials out. On two cores the bare network took
nine minutes.

No test depends on it. A target that is missed is reported so.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))  # where it is imported, not run

from peers.running import INSERTED, Place, Ran, run, tcmalloc, write_data

TRIALS = 8


@dataclass(frozen=True)
class Way:
    """A way to train, in a process of its own."""

    label: str
    command: tuple[str, ...]
    epochs: int
    """The fast ways train more of them: an epoch is short."""
    preload: bool = False
    """With tcmalloc in the place of glibc's allocator."""


WAYS = {
    "skorch": Way("CNNtention's pipeline (skorch)", ("-m", "peers.with_skorch"), 3),
    "lightning": Way("Lightning", ("-m", "peers.with_lightning"), 3),
    "plain": Way("plain loop, per-sample transforms", ("-m", "peers.by_hand", "--loop", "plain"), 3),
    "plain_tcmalloc": Way("plain loop, tcmalloc", ("-m", "peers.by_hand", "--loop", "plain"), 3, preload=True),
    "hand": Way("hand-written loop (bf16)", ("-m", "peers.by_hand", "--loop", "fast"), 6),
    "hand_compiled": Way("hand-written loop, compiled", ("-m", "peers.by_hand", "--loop", "fast", "--compile"), 6),
    "ours": Way("ablate, eager", ("-m", "peers.ours"), 6),
    "ours_compiled": Way("ablate, compiled", ("-m", "peers.ours"), 6),
}
NOT_ASKED = ("plain_tcmalloc", "hand_compiled")
"""Only where ``--only`` names them."""
TARGETS = {
    ("skorch", "ours"): 3.2,
    ("skorch", "ours_compiled"): 4.0,
    ("lightning", "ours"): 2.3,
    ("lightning", "ours_compiled"): 3.0,
}
SWEEP_TARGETS = {("hand", "sweep"): 1.15, ("plain", "sweep"): 2.6, ("plain", "sweep_tcmalloc"): 3.5}
SWEEP_LABELS = {
    "sweep": "`ablate sweep`, trials of one thread, as many at once",
    "sweep_tcmalloc": "`ablate sweep`, tcmalloc preloaded",
    "hand": "hand-written loop, one after another",
    "plain": "plain loop, one after another",
}

Seen = dict[str, Any]
"""What a child printed: the fields of ``peers.common.Seen``."""


def main(arguments: Sequence[str]) -> int:
    given = _arguments(arguments)
    with tempfile.TemporaryDirectory(prefix="training") as folder:
        place = Place(Path(folder) / "single", given.images)
        sweeps = Place(Path(folder) / "eight", given.sweep_images)
        found: dict[str, Any] = {"machine": _machine(given.threads), "models": {}, "sweeps": []}
        names, without = ways(given.only)
        print("\n".join([found["machine"], *without, ""]), flush=True)
        for model in given.models:
            _prepared(place, given.parquet)
            found["models"][model] = rounds = measured(place, model, names, given)
            print("\n".join(tables(model, rounds, given.images)), flush=True)
        if given.sweep:
            description = _prepared(sweeps, given.parquet)
            found["sweeps"] = [eight(sweeps, given, number) for number in range(given.sweep_rounds)]
            print("\n".join(sweep_tables(found["sweeps"], given, description)), flush=True)
    if given.json:
        given.json.write_text(json.dumps(found, indent=1))
    return 0


def ways(only: Sequence[str]) -> tuple[list[str], list[str]]:
    """Those to be measured, and why another is not."""
    from ablate.compiling import why_not

    names = [name for name in WAYS if (name in only if only else name not in NOT_ASKED)]
    reason = why_not("cpu")
    found = [name for name in names if reason is None or not name.endswith("_compiled")]
    return found, [f"Without {WAYS[name].label}: {reason}." for name in names if name not in found]


def in_turn(names: Sequence[str], number: int) -> list[str]:
    """Every second round goes backwards, so that a drift of the machine is nobody's gain."""
    return list(names if number % 2 == 0 else reversed(names))


def measured(place: Place, model: str, names: Sequence[str], given: argparse.Namespace) -> list[dict[str, Seen]]:
    """What each way did in each round; the ways take turns."""
    found: list[dict[str, Seen]] = []
    for number in range(given.rounds):
        found.append({})
        for name in in_turn(names, number):
            print(f"{model}: round {number + 1} of {given.rounds}: {name}", file=sys.stderr, flush=True)
            found[-1][name] = one(place, model, name, given)
    return found


def one(place: Place, model: str, name: str, given: argparse.Namespace) -> Seen:
    """One way, once."""
    way, environment = WAYS[name], place.environment(given.threads)
    epochs = given.epochs or way.epochs
    if way.preload:
        environment["LD_PRELOAD"] = tcmalloc() or sys.exit("tcmalloc is not installed")
    if name.startswith("ours"):
        execution = {"threads": given.threads, "compile": name == "ours_compiled"}
        spec = str(place.spec(f"{model}-{name}".replace("_", "-"), model, epochs, execution=execution))
        environment |= run([*way.command, spec, "--environment"], environment).said  # as a sweep's workers have it
        return run([*way.command, spec], environment).said
    options = ["--model", model, "--data", str(place.data), "--epochs", str(epochs), "--threads", str(given.threads)]
    return run([*way.command, *options], environment).said


def tables(model: str, rounds: list[dict[str, Seen]], images: int) -> list[str]:
    """Markdown: what each way did, and the ratios of ours to the others."""
    lines = [
        f"## {_title(model)}: {images:,} images an epoch, rounds: {len(rounds)}",
        "",
        "| | images/s | range | peak memory, MiB | first epoch, s |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name in rounds[0]:
        speeds = _speeds(rounds, name)
        first = ", ".join(f"{each[name]['first_seconds']:.1f}" for each in rounds)
        peak = max(each[name]["peak_mib"] for each in rounds)
        lines.append(
            f"| {WAYS[name].label} | {median(speeds):,.0f} | {_range(speeds, ',.0f')} | {peak:,.0f} | {first} |"
        )
    lines += [
        "",
        *_notes(rounds),
        "",
        "| against | ours | ratio | range | target | |",
        "| --- | --- | ---: | ---: | --- | --- |",
    ]
    for ours in ("ours", "ours_compiled"):
        for name in (name for name in rounds[0] if not name.startswith("ours") and ours in rounds[0]):
            lines.append(_ratio_row(rounds, name, ours))
    return [*lines, ""]


def _ratio_row(rounds: list[dict[str, Seen]], name: str, ours: str) -> str:
    ratios = [median(_speeds([each], ours)) / median(_speeds([each], name)) for each in rounds]
    target, met = "", ""
    if (wanted := TARGETS.get((name, ours))) is not None:
        target, met = f"≥ {wanted:g}×", _met(median(ratios) >= wanted)
    elif (name, ours) == ("hand", "ours"):
        medians = [median(_speeds([each], name)) for each in rounds]
        own = [each / median(medians) for each in medians]
        target, met = f"its own spread, {_range(own)}", _met(median(ratios) >= min(own)) if len(own) > 1 else ""
    between = _range(ratios)
    return f"| {WAYS[name].label} | {WAYS[ours].label} | {median(ratios):.2f}× | {between} | {target} | {met} |"


def _notes(rounds: list[dict[str, Seen]]) -> list[str]:
    """What the images a second contain, or leave out."""
    notes = []
    if "skorch" in rounds[0]:
        fit = median(each["skorch"]["extra"]["without_train_error"] for each in rounds)
        notes.append(f"CNNtention's pipeline without its second pass over the training images: {fit:,.0f} images/s.")
    if "ours_compiled" in rounds[0]:
        seconds = [each["ours_compiled"]["first_seconds"] - each["ours_compiled"]["epoch_seconds"] for each in rounds]
        warm = f"; from the cache that it leaves {median(seconds[1:]):.1f} s" if len(seconds) > 1 else ""
        notes.append(f"Compiling took {seconds[0]:.1f} s from an empty cache{warm}.")
    return notes


def _speeds(rounds: list[dict[str, Seen]], name: str) -> list[float]:
    """Images a second of each epoch that is measured."""
    return [speed for each in rounds for speed in each[name]["images_per_second"]]


def eight(place: Place, given: argparse.Namespace, number: int) -> dict[str, Seen]:
    """The same eight trials in each way, once: seconds from start to finish, seconds of start-up, memory."""
    found: dict[str, Seen] = {}
    epochs, environment = given.sweep_epochs, place.environment(given.threads)
    execution = {"threads": 1, "max_concurrent": given.threads, "compile": given.sweep_compile}
    spec = place.spec("eight", given.sweep_model, epochs, ablation={"seeds": TRIALS}, execution=execution)
    names = ["sweep", *(["sweep_tcmalloc"] if tcmalloc() else []), "hand", "plain"]
    for name in in_turn(names, number):
        print(f"{TRIALS} trials: {name}", file=sys.stderr, flush=True)
        if name.startswith("sweep"):
            preload = {"LD_PRELOAD": str(tcmalloc())} if name == "sweep_tcmalloc" else {}
            # without a count of threads: that is what a user's shell has
            with tempfile.TemporaryDirectory(dir=place.folder) as folder:
                out = Path(folder) / "study"
                command = ["-m", "ablate", "sweep", str(spec), "--out", str(out), "--quiet"]
                ran = run(command, _unset(environment) | preload, watched=True)
                found[name] = _of_sweep(ran, out)
        else:
            loop = ["--loop", {"hand": "fast"}.get(name, name), "--trials", str(TRIALS)]
            options = ["--model", given.sweep_model, "--data", str(place.data), "--epochs", str(epochs)]
            threads = ["--threads", str(given.threads)]
            ran = run(["-m", "peers.by_hand", *loop, *options, *threads], environment, watched=True)
            trials = ran.said["extra"]["trials_seconds"]
            start_up = ran.seconds - trials
            found[name] = {"seconds": ran.seconds, "training": trials, "start_up": start_up, "peak_mib": ran.peak_mib}
    return found


def _of_sweep(ran: Ran, study: Path) -> Seen:
    """Training is from when the first trial is begun until the last has its result."""
    begun = [path.stat().st_mtime for path in study.glob("trials/*/trial.json")]
    ended = [path.stat().st_mtime for path in study.glob("trials/*/result.json")]
    if len(ended) != TRIALS:
        sys.exit(f"{len(ended)} of {TRIALS} trials have a result:\n{ran.log[-4000:]}")
    training, start_up = max(ended) - min(begun), min(begun) - ran.began
    return {"seconds": ran.seconds, "training": training, "start_up": start_up, "peak_mib": ran.peak_mib}


def sweep_tables(rounds: list[dict[str, Seen]], given: argparse.Namespace, description: str) -> list[str]:
    images = TRIALS * given.sweep_epochs * given.sweep_images
    lines = [
        f"## Eight trials of {_title(given.sweep_model)}: {given.sweep_epochs} epochs of {given.sweep_images:,} images",
        "",
        f"Data: {description}. Rounds: {len(rounds)}.",
        "",
        "| | seconds, start to finish | until the first trial begins | after the last | images/s | peak memory, MiB |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name in rounds[0]:
        seconds = median(each[name]["seconds"] for each in rounds)
        before = median(each[name]["start_up"] for each in rounds)
        after = median(each[name]["seconds"] - each[name]["training"] - each[name]["start_up"] for each in rounds)
        peak = max(each[name]["peak_mib"] for each in rounds)
        numbers = f"{seconds:.1f} | {before:.1f} | {after:.1f} | {images / seconds:,.0f} | {peak:,.0f}"
        lines.append(f"| {SWEEP_LABELS[name]} | {numbers} |")
    lines += [
        "",
        "| against | ours | ratio | range | without start-up | target | |",
        "| --- | --- | ---: | ---: | ---: | --- | --- |",
    ]
    for peer, ours in (("hand", "sweep"), ("hand", "sweep_tcmalloc"), ("plain", "sweep"), ("plain", "sweep_tcmalloc")):
        if ours in rounds[0]:
            lines.append(_sweep_row(rounds, peer, ours))
    return [*lines, ""]


def _sweep_row(rounds: list[dict[str, Seen]], peer: str, ours: str) -> str:
    whole, training = ([each[peer][key] / each[ours][key] for each in rounds] for key in ("seconds", "training"))
    wanted = SWEEP_TARGETS.get((peer, ours))
    target, met = (f"≥ {wanted:g}×", _met(median(whole) >= wanted)) if wanted else ("", "")
    return (
        f"| {SWEEP_LABELS[peer]} | {SWEEP_LABELS[ours]} | {median(whole):.2f}× | {_range(whole)} "
        f"| {median(training):.2f}× | {target} | {met} |"
    )


def _prepared(place: Place, parquet: Path | None) -> str:
    place.folder.mkdir(parents=True, exist_ok=True)
    return write_data(place, parquet)


def _unset(environment: dict[str, str]) -> dict[str, str]:
    return {key: value for key, value in environment.items() if key != "OMP_NUM_THREADS"}


def _title(model: str) -> str:
    assert model in INSERTED
    return {"resnet20": "ResNet-20", "self_attention": "ResNet-20 with self-attention", "cbam": "ResNet-20 with CBAM"}[
        model
    ]


def _range(values: Sequence[float], form: str = ".2f") -> str:
    return f"{min(values):{form}} to {max(values):{form}}" if len(values) > 1 else "one round: no range"


def _met(yes: bool) -> str:
    return "met" if yes else "**missed**"


def _machine(threads: int) -> str:
    import torch

    from ablate.placing import available_cpus
    from ablate.prepare import environment

    processor = environment()["processor"] or platform.machine()
    return f"{processor}, {available_cpus()} cores, {threads} threads; torch {torch.__version__}, CPU"


def _arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--models", nargs="*", choices=tuple(INSERTED), default=list(INSERTED), metavar="MODEL")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=1280, help="training images an epoch (1280)")
    parser.add_argument("--epochs", type=int, help="of every way, the first of which warms up (3 or 6)")
    parser.add_argument("--threads", type=int, default=2, help="of each process; of a sweep, trials at once (2)")
    parser.add_argument("--only", nargs="+", choices=tuple(WAYS), default=[], metavar="NAME", help=", ".join(WAYS))
    parser.add_argument("--no-sweep", dest="sweep", action="store_false", help="leave the eight trials out")
    parser.add_argument("--sweep-rounds", type=int, default=1)
    parser.add_argument("--sweep-model", choices=tuple(INSERTED), default="resnet20")
    parser.add_argument("--sweep-images", type=int, default=2560, help="training images an epoch (2560)")
    parser.add_argument("--sweep-epochs", type=int, default=3)
    parser.add_argument("--sweep-compile", action="store_true", help="the sweep's trials are compiled")
    parser.add_argument(
        "--parquet", type=Path, metavar="FOLDER", help="train.parquet and test.parquet, for made-up images"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything that was measured there")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
