"""Lightning, with the loader and the transforms of CNNtention: PIL sample by sample, no loader workers, float32.

No logger, checkpoints, progress bar or summary: what is timed is its loop.
"""

from __future__ import annotations

import logging
import warnings

import lightning
import torch
from torch import Tensor, nn

from peers.common import BATCH, LR, MOMENTUM, WEIGHT_DECAY, Laps, arguments, network, say, seen, split
from peers.handwritten import PlainDataset


class Classifier(lightning.LightningModule):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.laps, self.loss = model, Laps(), float("nan")

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        images, labels = batch
        loss = nn.functional.cross_entropy(self.model(images), labels)
        self.log("train_loss", loss, on_step=False, on_epoch=True)
        return loss

    def on_train_epoch_start(self) -> None:
        if self.current_epoch == 0:
            self.laps.start()

    def on_train_epoch_end(self) -> None:
        self.laps.lap()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=LR, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)


def main() -> None:
    given = arguments(__doc__)
    warnings.filterwarnings("ignore")  # it advises loader workers, which cost on a small machine
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.set_num_threads(given.threads)
    images, labels = split(given.data, "train")
    loader = torch.utils.data.DataLoader(PlainDataset(images, labels), batch_size=BATCH, shuffle=True)
    classifier = Classifier(network(given.model))
    trainer = lightning.Trainer(
        max_epochs=given.epochs,
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(classifier, loader)
    say(seen(classifier.laps.seconds, len(images), float(trainer.callback_metrics["train_loss"])))


if __name__ == "__main__":
    main()
