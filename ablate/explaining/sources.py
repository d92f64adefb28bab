"""A study's networks with their trained weights, and the images that they were trained for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from ablate.data.batches import evaluation_batches
from ablate.data.dataset import DataSpec, Examples, ImageData
from ablate.design import StudyPlan, Variant, trial_hash
from ablate.errors import Problem, UserError, listed
from ablate.explaining.choosing import SplitName, Wanted
from ablate.exporting import as_trained
from ablate.prepare import loader
from ablate.store import Study

Array = np.ndarray[Any, Any]


@dataclass
class Sources:
    """A study, its plan, and its data, loaded once; networks are made anew each time."""

    plan: StudyPlan
    study: Study
    split: SplitName
    seed: int
    data_of: Callable[[DataSpec], ImageData]

    @classmethod
    def of(cls, plan: StudyPlan, study: Study, wanted: Wanted) -> Sources:
        seeds = sorted({int(seed) for record in study.variants for seed in record["trials"]})
        if wanted.seed is not None and wanted.seed not in seeds:
            raise UserError(
                f"{study.folder} has no trial of seed {wanted.seed}; its seeds: {listed([*map(str, seeds)])}"
            )
        if not seeds:
            raise UserError(f"{study.folder} has no trials")
        return cls(plan, study, wanted.split, seeds[0] if wanted.seed is None else wanted.seed, loader(plan))

    def record(self, name: str) -> dict[str, Any]:
        return self.study.variant(name)

    def trial(self, name: str) -> str:
        return self.study.trial(name, self.seed)[1]

    def network(self, name: str) -> tuple[fx.GraphModule, Variant]:
        trained = as_trained(self.plan, self.study.folder, name, self.seed)
        return trained.network, trained.variant  # type: ignore[return-value]

    def data(self, name: str) -> ImageData:
        """The variant's; ``UserError`` where it is not what its trial was trained on."""
        original = self.plan.variant(self.record(name).get("duplicate_of") or name)
        data = self.data_of(original.data)
        numerics = self.study.spec.get("numerics") or {}
        if trial_hash(original, self.seed, data.content_hash, numerics) != self.trial(name):
            message = f"the images, or a block from outside, are others than those that '{name}' was trained with"
            raise UserError(Problem(message, hint="name the folder of its images: --set data.root=FOLDER"))
        return data

    def images(self, name: str) -> Examples:
        data = self.data(name)
        split = data.test if self.split == "test" else data.val
        if split is None:
            other = "val" if self.split == "test" else "test"
            raise UserError(Problem(f"the data of '{name}' have no {self.split} split", hint=f"--split {other}"))
        return split

    def predicted(self, name: str) -> Array:
        """The classes that its trial took the test images for, as it recorded them."""
        if self.split != "test":
            raise UserError("--disagree: predictions are on record for the test split alone")
        found = self.study.predictions(self.trial(name)).get("predicted")
        if found is None:
            raise UserError(f"'{name}', seed {self.seed}, has no predictions on record")
        return found


def normalised(split: Examples, data: ImageData, index: Sequence[int]) -> Tensor:
    """float32 (B, C, H, W), as the network is evaluated on them."""
    part = split.take(np.asarray(index))
    return torch.cat([x for x, _ in evaluation_batches(part, data, len(index))]).contiguous()


def shown_class(names: Sequence[str], number: int) -> str:
    return names[number] if number < len(names) else str(number)
