"""A loop without a framework: ``--loop fast`` is the hand-written one, ``plain`` the one with per-sample transforms.

With ``--trials N`` it trains N networks one after another and evaluates each on the test images, as a study does.
"""

from __future__ import annotations

import time

import torch

from peers import handwritten
from peers.common import BATCH, LR, Laps, Seen, arguments, network, say, seen, split


def main() -> None:
    given = arguments(
        __doc__,
        loop={"choices": ("fast", "plain"), "default": "fast"},
        trials={"type": int, "default": 1},
        compile={"action": "store_true"},
        bf16={"type": int, "choices": (0, 1), "default": 1},
    )
    if given.loop == "fast":
        handwritten.tune_process(given.threads)  # denormals are flushed where this comes before any other work
    else:
        torch.set_num_threads(given.threads)
    images, labels = split(given.data, "train")
    test = split(given.data, "test")
    fast, laps = given.loop == "fast", Laps()
    measured: Seen | None = None
    began = time.perf_counter()
    for seed in range(given.trials):
        model, options = (
            network(given.model, seed),
            {"epochs": given.epochs, "batch_size": BATCH, "lr": LR, "seed": seed},
        )
        laps.start()
        if fast:
            options |= {"bf16": bool(given.bf16), "compile": given.compile}
        loop = handwritten.train if fast else handwritten.plain
        result = loop(images, labels, model=model, on_epoch=lambda *_: laps.lap(), **options)
        if given.trials > 1:
            handwritten.evaluate(model, *test, bf16=fast and bool(given.bf16))
        measured = seen(laps.seconds, len(images), result["loss"], trials_seconds=time.perf_counter() - began)
    assert measured is not None
    say(measured)


if __name__ == "__main__":
    main()
