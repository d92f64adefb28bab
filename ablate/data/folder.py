"""The examples of a folder of image files, read and decoded when a batch asks for them.

What was decoded is kept on the disk (``pixelcache``): the centres that evaluation sees, if all of them fit; and whole
images, as far as they are small enough that all would fit, for training that cuts another part out in every epoch.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ablate.data.checks import Images, Labels, Rows, Shape, user_error
from ablate.data.images import centre, cut, decoded, first_line, opened
from ablate.data.loading import Workers, rows_a_task, workers_here
from ablate.data.pixelcache import PixelCache
from ablate.errors import UserError

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from ablate.data.splits import Crop

Names = np.ndarray[Any, np.dtype[np.bytes_]]
Stamps = np.ndarray[Any, np.dtype[np.int64]]
Stamp = tuple[int, int, int, int]
"""Of a file: bytes, times of writing and of change in nanoseconds, inode. A change of the file changes it."""
Task = tuple[Rows, "Crop | None", "np.ndarray[Any, Any] | None"]
"""Rows of a split, and what to cut from their images: the crop and its draws (B, …) for these rows."""


@dataclass(frozen=True, eq=False)
class FolderSplit:
    """RGB images of ``size`` (height, width), in pixels, from the files ``names`` (N,) beneath ``folder``.

    ``digest`` stands for the content of all files of the folder, ``places`` (N,) are the files' numbers among them and
    ``stamps`` (N, 4) what their content was read by. As many processes as ``workers`` decode; with 0 it is this one,
    with None as many as the trial has cores to spare. ``cache`` is the most that decoded pixels may take, in bytes.
    The names are one array of bytes, and not a million objects, so that the whole crosses to other processes cheaply.
    """

    folder: str
    names: Names
    labels: Labels
    places: Rows
    stamps: Stamps
    digest: str
    workers: int | None = None
    cache: int = 0
    size: tuple[int, int] = (0, 0)
    _idle: list[Workers[Task]] = field(default_factory=list, init=False, repr=False)
    """Processes that wait for the next epoch, or none."""

    def __len__(self) -> int:
        return len(self.labels)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_idle": []}

    @property
    def shape(self) -> Shape:
        return 3, self.size[0], self.size[1]

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in (self.names, self.labels, self.places, self.stamps))

    def take(self, rows: Rows) -> FolderSplit:
        chosen = {key: getattr(self, key)[rows] for key in ("names", "labels", "places", "stamps")}
        return replace(self, **chosen)

    def resized(self, size: tuple[int, int]) -> FolderSplit:
        return replace(self, size=size)

    def batch(self, rows: Rows) -> Images:
        """The centres of the images, as evaluation sees them. ``UserError`` names a file that is damaged."""
        return _Decoding(self).images((rows, None, None))

    def stream(
        self,
        parts: Sequence[Rows],
        crop: Crop | None = None,
        draws: torch.Tensor | None = None,
        device: str | torch.device | None = None,
    ) -> Iterator[Images]:
        """With a ``device`` the processes are a trial's and stay for its next epoch; for CUDA the memory is pinned."""
        workers = self._workers(min(self._count(device), sum(map(len, parts))))
        drawn = draws.numpy() if draws is not None else None
        largest = rows_a_task(workers.count, 3 * self.size[0] * self.size[1]) if workers.count else len(self)
        pieces = [_pieces(part, largest) for part in parts]
        results = workers((rows, crop, drawn[rows] if drawn is not None else None) for part in pieces for rows in part)
        for part, of_part in zip(parts, pieces, strict=True):
            yield _joined(results, len(of_part), (len(part), *self.shape), device)
        assert next(results, None) is None
        if device is not None:
            self._idle.append(workers)

    def _count(self, device: str | torch.device | None) -> int:
        if self.workers is not None:
            return self.workers
        return workers_here(device) if device is not None else 0

    def _workers(self, count: int) -> Workers[Task]:
        """Those that wait, or new ones: also where another epoch of this split is under way."""
        while self._idle:
            if (waiting := self._idle.pop()).count == count:
                return waiting
        return Workers(_Decoding(replace(self)), count)

    def feed(self, digest: hashlib._Hash) -> None:
        digest.update(self.digest.encode())
        digest.update(b"\0".join(self.names.tolist()))
        digest.update(self.labels.astype("<i8").data)


def _pieces(part: Rows, largest: int) -> list[Rows]:
    """In order, as equal as they can be: what one worker decodes at a time, so that a batch is many workers' work."""
    return np.array_split(part, -(-len(part) // largest)) if len(part) > largest else [part]


def _joined(results: Iterator[Images], count: int, shape: tuple[int, ...], device: str | torch.device | None) -> Images:
    """The next ``count`` results as one batch, in memory that a CUDA device fetches while the network computes."""
    import torch

    pinned = device is not None and torch.device(device).type == "cuda"
    if count == 1 and not pinned:
        return next(results)
    images: Images = torch.empty(shape, dtype=torch.uint8, pin_memory=pinned).numpy()
    start = 0
    for _ in range(count):
        piece = next(results)
        images[start : start + len(piece)] = piece
        start += len(piece)
    return images


class _Decoding:
    """Rows → images, in whatever process."""

    def __init__(self, split: FolderSplit) -> None:
        self.split = split
        height, width = split.size
        shown = 3 * height * width
        fits = split.cache if len(split) * shown <= split.cache else 0
        self.centres = PixelCache(f"{split.digest} centre {height}×{width}", shown, fits)
        # An equal part for each, of half of the room: the other half is for what evaluation reads.
        self.wholes = PixelCache(f"{split.digest} whole", split.cache // 2 // max(1, len(split)), split.cache)

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, task: Task) -> Images | UserError:
        try:
            return self.images(task)
        except UserError as error:
            return error

    def images(self, task: Task) -> Images:
        rows, crop, draws = task
        images = np.empty((len(rows), *self.split.shape), dtype=np.uint8)
        for i, row in enumerate(rows.tolist()):
            images[i] = self._centre(row) if crop is None or draws is None else self._cut(row, crop, draws[i])
        return images

    def _centre(self, row: int) -> Images:
        place = int(self.split.places[row])
        if (kept := self.centres.read(place)) is not None:
            return kept
        image, unchanged = self._decoded(row)
        pixels = np.ascontiguousarray(centre(image, self.split.size))
        if unchanged:
            self.centres.write(place, pixels)
        return pixels

    def _cut(self, row: int, crop: Crop, draws: np.ndarray[Any, Any]) -> Images:
        import torch

        image = self._whole(row)
        top, left, height, width = crop.boxes(torch.from_numpy(draws[None]), image.height, image.width)[0].tolist()
        return cut(image, (top, left, height, width), self.split.size)

    def _whole(self, row: int) -> Image.Image:
        from PIL import Image

        place = int(self.split.places[row])
        if (kept := self.wholes.read(place)) is not None:
            return Image.fromarray(kept)
        image, unchanged = self._decoded(row)
        if unchanged and 3 * image.width * image.height <= self.wholes.slot:
            self.wholes.write(place, np.asarray(image))
        return image

    def _decoded(self, row: int) -> tuple[Image.Image, bool]:
        """The image as it is stored, and whether its file is still the one that the digest stands for."""
        name = os.fsdecode(self.split.names[row])
        content, stamp = read_stamped(self.split.folder, name)
        return decoded(opened(content, name), "RGB", name), stamp == tuple(self.split.stamps[row].tolist())


def stamp_of(stat: os.stat_result) -> Stamp:
    # Inode and change time too: a copy keeps the time of writing, and so does a folder that is renamed.
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino & (1 << 63) - 1


def read(folder: str, name: str) -> bytes:
    """The bytes of a file; ``UserError`` names it."""
    return read_stamped(folder, name)[0]


def read_stamped(folder: str, name: str) -> tuple[bytes, Stamp]:
    """The bytes of a file, and its stamp once they were read; ``UserError`` names it."""
    try:
        with open(os.path.join(folder, name), "rb") as file:
            return file.read(), stamp_of(os.fstat(file.fileno()))
    except OSError as error:
        raise user_error(f"{name}: cannot be read: {first_line(error)}", "root") from error
