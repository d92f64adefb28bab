"""A training loop without a framework, as fast as plain PyTorch goes by hand on a small CPU.

It shares no code with `ablate`, and was written without a look at it.

`train` is the fast loop (whole set in memory as uint8, one gather per batch, channels-last, bf16 autocast, fused SGD,
one synchronisation an epoch); `plain` is the loop most researchers write (Dataset, PIL transforms, DataLoader, fp32).
"""

from __future__ import annotations

import ctypes
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

MEAN = (0.49187, 0.49186, 0.49186)
STD = (0.24697, 0.24697, 0.24697)
PADDING = 4


def tune_process(threads: int) -> None:
    """Process-wide settings: call before the first tensor."""
    torch.set_flush_denormal(True)
    torch.set_num_threads(threads)
    try:  # glibc would mmap, fault in and unmap every activation anew: keep up to 32 MiB blocks on the heap instead
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(-3, 32 << 20)  # M_MMAP_THRESHOLD, at its largest
        libc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD
        libc.mallopt(-2, 256 << 20)  # M_TOP_PAD
    except (OSError, AttributeError):
        pass


class CBAM(nn.Module):
    """x + CBAM(x): channel attention, then spatial attention."""

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        hidden = max(1, channels // reduction)
        self.mlp = nn.Sequential(
            nn.Linear(channels, hidden, bias=False), nn.ReLU(inplace=True), nn.Linear(hidden, channels, bias=False)
        )
        self.spatial = nn.Conv2d(2, 1, 7, padding=3)

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        pixels = x.permute(0, 2, 3, 1).reshape(n, h * w, c)  # a view of channels-last; max(dim) beats amax's backward
        pooled = self.mlp(torch.stack((pixels.mean(1), pixels.max(1)[0])))
        y = pixels * torch.sigmoid(pooled.sum(0))[:, None]
        gate = torch.sigmoid(self.spatial(torch.stack((y.max(2)[0], y.mean(2)), 1).view(n, 2, h, w)))
        return (pixels + y * gate.view(n, h * w, 1)).view(n, h, w, c).permute(0, 3, 1, 2)


class SelfAttention(nn.Module):
    """w * F(x) + x: single-head attention over pixels, no scale, w starts at 0."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)  # the three C -> C convolutions as one
        self.w = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        q, k, v = self.qkv(x).permute(0, 2, 3, 1).reshape(n, h * w, 3 * c).chunk(3, 2)  # views of channels-last
        if h * w <= (256 if q.dtype == torch.bfloat16 else 64):  # small enough to hold the weights
            y = torch.softmax(q @ k.transpose(1, 2), 2, dtype=q.dtype) @ v
        else:  # the flash kernel's backward is a good deal faster in float32 than in bfloat16
            with torch.autocast("cpu", enabled=False):
                q, k, v = (t.float().unsqueeze(1) for t in (q, k, v))
                y = F.scaled_dot_product_attention(q, k, v, scale=1.0).to(x.dtype)
        y = y.reshape(n, h, w, c).permute(0, 3, 1, 2)
        return torch.addcmul(x, y, self.w.to(y.dtype))


class Block(nn.Module):
    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.stride, self.pad = stride, (channels - channels_in) // 2

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu_(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        if self.pad:  # option A
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.pad, self.pad))
        return F.relu_(y.add_(x))


class ResNet20(nn.Module):
    def __init__(
        self, in_channels: int = 3, classes: int = 10, attention: Callable[[int], nn.Module] | None = None
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, 16, 3, 1, 1, bias=False)
        self.bn = nn.BatchNorm2d(16)
        stages: list[nn.Module] = []
        channels = 16
        for width in (16, 32, 64):
            for _ in range(3):
                stages.append(Block(channels, width, width // channels))
                channels = width
            if attention is not None:
                stages.append(attention(width))
        self.stages = nn.Sequential(*stages)
        self.linear = nn.Linear(64, classes)
        for m in self.modules():
            if isinstance(m, nn.Conv2d) and m.bias is None:
                nn.init.kaiming_normal_(m.weight)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stages(F.relu_(self.bn(self.conv(x))))
        return self.linear(x.mean((2, 3)))


class Augmenter:
    """The whole set as zero-padded NHWC uint8; every crop of every image is a strided view, so a batch is a gather."""

    def __init__(self, images: np.ndarray, seed: int) -> None:
        pixels = torch.from_numpy(np.ascontiguousarray(images))
        n, c, self.height, self.width = pixels.shape
        padded = torch.zeros(n, self.height + 2 * PADDING, self.width + 2 * PADDING, c, dtype=torch.uint8)
        padded[:, PADDING:-PADDING, PADDING:-PADDING].copy_(pixels.permute(0, 2, 3, 1))
        sn, sy, sx, sc = padded.stride()
        offsets = 2 * PADDING + 1
        self.crops = padded.as_strided((n, offsets, offsets, self.height, self.width * c), (sn, sy, sx, sy, sc))
        self.shape = (self.height, self.width, c)
        self.shift = -255 * torch.tensor(MEAN)
        self.scale = 1 / (255 * torch.tensor(STD))
        self.generator = torch.Generator().manual_seed(seed)

    def epoch(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The order, the two crop offsets and the flips of one epoch, drawn at once."""
        n, g = len(self.crops), self.generator
        rows, columns = torch.randint(2 * PADDING + 1, (2, n), generator=g)
        return torch.randperm(n, generator=g), rows, columns, torch.rand(n, generator=g) < 0.5

    def batch(self, index: Tensor, rows: Tensor, columns: Tensor, flip: Tensor) -> Tensor:
        x = self.crops[index, rows, columns].view(-1, *self.shape)
        x = torch.where(flip[:, None, None, None], x.flip(2), x)
        return x.float().add_(self.shift).mul_(self.scale).permute(0, 3, 1, 2)  # channels-last by its strides


def train(
    images_uint8_NCHW: np.ndarray,
    labels: np.ndarray,
    *,
    model: nn.Module,
    epochs: int,
    batch_size: int = 128,
    lr: float = 0.1,
    momentum: float = 0.9,
    weight_decay: float = 1e-4,
    seed: int = 0,
    bf16: bool = True,
    compile: bool = False,
    on_epoch: Callable[[int, float], None] | None = None,
) -> dict[str, float]:
    """The fast loop; loss and accuracy are those of the last epoch, over the training batches."""
    model.to(memory_format=torch.channels_last).train()
    forward = torch.compile(model, dynamic=False) if compile else model
    optimizer = torch.optim.SGD(model.parameters(), lr, momentum, weight_decay=weight_decay, fused=True)
    data = Augmenter(images_uint8_NCHW, seed)
    targets = torch.from_numpy(np.asarray(labels, dtype=np.int64))
    count = len(targets)
    speeds: list[float] = []
    loss_mean = accuracy = 0.0
    start = time.perf_counter()
    for epoch in range(epochs):
        epoch_start = time.perf_counter()
        loss_sum, correct = torch.zeros(()), torch.zeros((), dtype=torch.int64)
        order, *draws = data.epoch()
        for batch in zip(*(t.split(batch_size) for t in (order, *draws)), strict=True):
            x, y = data.batch(*batch), targets[batch[0]]
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                logits = forward(x)
            logits = logits.float()
            loss = F.cross_entropy(logits, y)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            with torch.no_grad():
                loss_sum.add_(loss, alpha=len(y))
                correct.add_((logits.argmax(1) == y).sum())
        loss_mean, accuracy = loss_sum.item() / count, correct.item() / count
        speeds.append(count / (time.perf_counter() - epoch_start))
        if on_epoch is not None:
            on_epoch(epoch, speeds[-1])
    seconds = time.perf_counter() - start
    return {
        "images_per_second": statistics.median(speeds),
        "seconds": seconds,
        "loss": loss_mean,
        "accuracy": accuracy,
    }


def evaluate(model: nn.Module, images: np.ndarray, labels: np.ndarray, bf16: bool) -> float:
    """Accuracy without augmentation; the model is left in the mode it was in."""
    was_training = model.training
    model.eval()
    pixels = torch.from_numpy(np.ascontiguousarray(images))
    targets = torch.from_numpy(np.asarray(labels, dtype=np.int64))
    shift = -255 * torch.tensor(MEAN).view(3, 1, 1)
    scale = 1 / (255 * torch.tensor(STD).view(3, 1, 1))
    correct = 0
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        for x, y in zip(pixels.split(256), targets.split(256), strict=True):
            x = x.contiguous(memory_format=torch.channels_last).float().add_(shift).mul_(scale)
            correct += int((model(x).argmax(1) == y).sum())
    model.train(was_training)
    return correct / len(targets)


class PlainDataset(torch.utils.data.Dataset[tuple[Tensor, int]]):
    """PIL images through per-sample torchvision transforms."""

    def __init__(self, images: np.ndarray, labels: np.ndarray) -> None:
        from torchvision import transforms

        self.images, self.labels = images.transpose(0, 2, 3, 1), labels
        self.transform = transforms.Compose(
            [
                transforms.RandomCrop(32, padding=4),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(MEAN, STD),
            ]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        from PIL import Image

        return self.transform(Image.fromarray(np.ascontiguousarray(self.images[index]))), int(self.labels[index])


def plain(
    images: np.ndarray,
    labels: np.ndarray,
    *,
    model: nn.Module,
    epochs: int,
    batch_size: int = 128,
    lr: float = 0.1,
    workers: int = 0,
    seed: int = 0,
    on_epoch: Callable[[int, float], None] | None = None,
) -> dict[str, float]:
    """The loop most researchers write."""
    torch.manual_seed(seed)
    loader = torch.utils.data.DataLoader(
        PlainDataset(images, labels), batch_size=batch_size, shuffle=True, num_workers=workers
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, weight_decay=1e-4)
    criterion = nn.CrossEntropyLoss()
    speeds: list[float] = []
    loss_mean = accuracy = 0.0
    start = time.perf_counter()
    for epoch in range(epochs):
        epoch_start = time.perf_counter()
        model.train()
        loss_sum, correct = 0.0, 0
        for x, y in loader:
            optimizer.zero_grad()
            logits = model(x)
            loss = criterion(logits, y)
            loss.backward()
            optimizer.step()
            loss_sum += loss.item() * len(y)
            correct += (logits.argmax(1) == y).sum().item()
        loss_mean, accuracy = loss_sum / len(labels), correct / len(labels)
        speeds.append(len(labels) / (time.perf_counter() - epoch_start))
        if on_epoch is not None:
            on_epoch(epoch, speeds[-1])
    seconds = time.perf_counter() - start
    return {
        "images_per_second": statistics.median(speeds),
        "seconds": seconds,
        "loss": loss_mean,
        "accuracy": accuracy,
    }
