"""CNNtention's pipeline: a skorch NeuralNetClassifier, PIL transforms sample by sample, DataLoader, errors each epoch.

As the paper's repository (AttentionSeekers/CNNtention, ``pipeline_template.py``) has it: float32, no loader workers,
skorch's own callbacks and its log, MultiStepLR; after each epoch the error of train by a second pass over it, with its
random transforms, and that of valid, a tenth of the data, from the predictions of skorch's own pass. Left out: mlflow.
"""

from __future__ import annotations

import contextlib
import sys
from typing import Any

import numpy as np
import torch
from sklearn.metrics import accuracy_score
from skorch import NeuralNetClassifier
from skorch.callbacks import Callback, EpochScoring, LRScheduler
from skorch.helper import predefined_split
from torch.optim.lr_scheduler import MultiStepLR

from peers.common import BATCH, LR, MOMENTUM, WEIGHT_DECAY, Laps, arguments, network, say, seen, split
from peers.handwritten import PlainDataset


class Clock(Callback):  # type: ignore[misc]
    """An epoch lasts until the next one begins: its errors are part of it."""

    def __init__(self) -> None:
        self.laps = Laps()

    def on_epoch_begin(self, net: Any, **_: Any) -> None:
        if len(net.history) > 1:
            self.laps.lap()
        else:
            self.laps.start()

    def on_train_end(self, net: Any, **_: Any) -> None:
        self.laps.lap()


def main() -> None:
    given = arguments(__doc__)
    torch.set_num_threads(given.threads)
    images, labels = split(given.data, "train")
    valid, clock = PlainDataset(*split(given.data, "test")), Clock()

    def valid_err(net: Any, X: Any, y: Any) -> float:
        return float(1 - accuracy_score(y, net.predict(X)))

    def train_err(net: Any, X: Any, y: Any) -> float:
        return float(100 - accuracy_score(X.labels, net.predict(X)) * 100)

    network_ = NeuralNetClassifier(
        network(given.model),
        lr=LR,
        optimizer=torch.optim.SGD,
        batch_size=BATCH,
        max_epochs=given.epochs,
        optimizer__weight_decay=WEIGHT_DECAY,
        optimizer__momentum=MOMENTUM,
        iterator_train__shuffle=True,
        iterator_valid__shuffle=False,
        train_split=predefined_split(valid),
        device="cpu",
        criterion=torch.nn.CrossEntropyLoss,
        callbacks=[
            ("clock", clock),
            ("lr", LRScheduler(policy=MultiStepLR, milestones=[91, 136], gamma=0.1)),
            ("valid_err", EpochScoring(valid_err, name="valid_err")),
            ("train_err", EpochScoring(train_err, name="train_err", on_train=True, use_caching=False)),
        ],
    )
    with contextlib.redirect_stdout(sys.stderr):  # its log
        network_.fit(PlainDataset(images, labels), np.array(labels))
    history = network_.history
    fit = history[:, "dur"][1:] or history[:, "dur"]
    say(
        seen(
            clock.laps.seconds,
            len(images),
            float(history[-1, "train_loss"]),
            without_train_error=len(images) * len(fit) / sum(fit),
        )
    )


if __name__ == "__main__":
    main()
