"""The examples of a folder of image files, read and decoded when a batch asks for them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ablate.data.checks import Images, Labels, Rows, Shape, user_error
from ablate.data.images import centre, cut, decoded, first_line, opened
from ablate.errors import UserError

if TYPE_CHECKING:
    import torch

    from ablate.data.splits import Crop

Names = np.ndarray[Any, np.dtype[np.bytes_]]


@dataclass(frozen=True, eq=False)
class FolderSplit:
    """RGB images of ``size`` (height, width), in pixels, from the files ``names`` (N,) beneath ``folder``.

    ``digest`` stands for the content of all files. As many processes as ``workers`` decode; with 0 it is this one.
    The names are one array of bytes, and not a million objects, so that the whole crosses to other processes cheaply.
    """

    folder: str
    names: Names
    labels: Labels
    digest: str
    workers: int = 0
    size: tuple[int, int] = (0, 0)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> Shape:
        return 3, self.size[0], self.size[1]

    @property
    def nbytes(self) -> int:
        return self.names.nbytes + self.labels.nbytes

    def take(self, rows: Rows) -> FolderSplit:
        return replace(self, names=self.names[rows], labels=self.labels[rows])

    def resized(self, size: tuple[int, int]) -> FolderSplit:
        return replace(self, size=size)

    def batch(self, rows: Rows) -> Images:
        """The centres of the images, as evaluation sees them. ``UserError`` names a file that is damaged."""
        return _fetched(_Parts(self)[rows])

    def stream(
        self, parts: Sequence[Rows], crop: Crop | None = None, draws: torch.Tensor | None = None
    ) -> Iterator[Images]:
        import torch
        from torch.utils.data import DataLoader

        # A generator of its own: the loader would draw from torch's global stream otherwise.
        loader: DataLoader[Any] = DataLoader(
            _Parts(self, crop, draws),  # type: ignore[arg-type]
            batch_size=None,
            sampler=list(parts),
            num_workers=min(self.workers, len(parts)),
            collate_fn=_as_it_is,
            generator=torch.Generator(),
        )
        yield from map(_fetched, loader)

    def feed(self, digest: hashlib._Hash) -> None:
        digest.update(self.digest.encode())
        digest.update(b"\0".join(self.names.tolist()))
        digest.update(self.labels.astype("<i8").data)


class _Parts:
    """What the loader's workers do: rows → images, or the error that says why not.

    An error is returned and not raised: the loader would wrap it in a traceback of its own.
    """

    def __init__(self, split: FolderSplit, crop: Crop | None = None, draws: torch.Tensor | None = None) -> None:
        self.split, self.crop, self.draws = split, crop, draws

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, rows: Rows) -> Images | UserError:
        images = np.empty((len(rows), *self.split.shape), dtype=np.uint8)
        try:
            for i, row in enumerate(rows):
                images[i] = self._image(int(row))
        except UserError as error:
            return error
        return images

    def _image(self, row: int) -> Images:
        name = os.fsdecode(self.split.names[row])
        image = decoded(opened(read(self.split.folder, name), name), "RGB", name)
        if self.crop is None or self.draws is None:
            return centre(image, self.split.size)
        box = self.crop.boxes(self.draws[row : row + 1], image.height, image.width)[0].tolist()
        return cut(image, (box[0], box[1], box[2], box[3]), self.split.size)


def read(folder: str, name: str) -> bytes:
    """The bytes of a file; ``UserError`` names it."""
    try:
        with open(os.path.join(folder, name), "rb") as file:
            return file.read()
    except OSError as error:
        raise user_error(f"{name}: cannot be read: {first_line(error)}", "root") from error


def _fetched(images: Images | UserError) -> Images:
    if isinstance(images, UserError):
        raise images
    return images


def _as_it_is(images: Any) -> Any:
    return images
