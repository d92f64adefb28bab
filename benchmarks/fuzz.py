"""Feeds readers what nobody would write, until the time is over, and keeps what ends otherwise than in words.

python benchmarks/fuzz.py [TARGET …] [--minutes 2] [--into build/fuzz] [--atheris]

Without ``--atheris``: random mutations of sound inputs. With it (``pip install atheris``): guided by what is reached of
our code; the process ends at the first finding, as libFuzzer does.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))


LONGEST = 20
"""Seconds that a reader may take."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", metavar="TARGET")
    parser.add_argument("--minutes", type=float, default=2.0, help="for each target")
    parser.add_argument("--into", type=Path, default=Path("build/fuzz"), help="where findings are kept")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--atheris", action="store_true")
    options = parser.parse_args()
    if options.atheris:
        return guided(options)
    from tests.fuzzing import TARGETS

    print("| target | cases | minutes | cases a second | findings |\n| --- | ---: | ---: | ---: | ---: |")
    return max(mutate(target, options) for target in options.targets or TARGETS)


def mutate(target: str, options: argparse.Namespace) -> int:
    """Mutations of sound inputs, and of what they became; 1 where something was found."""
    from tests.fuzzing import TARGETS, seeds
    from tests.mutations import mutated

    signal.signal(signal.SIGALRM, _too_long)
    choice = random.Random(f"{target} {options.seed}")
    began, cases, found = time.monotonic(), 0, {}
    while time.monotonic() - began < 60 * options.minutes:
        data = choice.choice(seeds(target))
        for _ in range(choice.randint(1, 6)):
            data = mutated(data, choice)
        cases += 1
        signal.alarm(LONGEST)
        try:
            TARGETS[target](data)
        except Exception as error:
            keep(target, data, error, found, options.into)
        finally:
            signal.alarm(0)
    minutes = (time.monotonic() - began) / 60
    print(f"| {target} | {cases:,} | {minutes:.1f} | {cases / minutes / 60:,.0f} | {len(found)} |", flush=True)
    return int(bool(found))


def _too_long(*_: object) -> None:
    raise TimeoutError(f"longer than {LONGEST} s")


def keep(target: str, data: bytes, error: Exception, found: dict[str, bytes], folder: Path) -> None:
    """The first input for each kind of error and line that raised it."""
    trace = error.__traceback__
    lines = []
    while trace is not None:
        lines.append(f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}")
        trace = trace.tb_next
    ours = [line for line in lines if "/ablate/" in line or "/tests/" in line]
    kind = f"{type(error).__name__} at {(ours or lines or ['?'])[-1]}"
    if kind in found:
        return
    found[kind] = data
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{target}-{hashlib.sha256(data).hexdigest()[:12]}"
    file.write_bytes(data)
    print(f"{target}: {kind}: {str(error)[:200]}\n    {file}", file=sys.stderr, flush=True)


def guided(options: argparse.Namespace) -> int:
    """One target, by atheris: libFuzzer's own lines say what it did."""
    import atheris

    with atheris.instrument_imports(include=["ablate"]):
        from tests.fuzzing import TARGETS, seeds
    (target,) = options.targets
    corpus = options.into / f"{target}-corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for index, data in enumerate(seeds(target)):
        (corpus / f"seed{index}").write_bytes(data)
    limits = [f"-max_total_time={int(60 * options.minutes)}", "-timeout=30", "-rss_limit_mb=4096", "-max_len=4096"]
    atheris.Setup([sys.argv[0], str(corpus), f"-artifact_prefix={options.into}/{target}-", *limits], TARGETS[target])
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
