"""Files of weights, read without running anything that is in them: safetensors, and torch's by ``weights_only=True``.

A torch file is a pickle, which can name any function to be called when it is read. torch's restricted reader knows
tensors and plain data alone; what names anything else is refused, and the error says what.
"""

from __future__ import annotations

import os
import re
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, BinaryIO

import torch
from torch import Tensor

from ablate.builder import tensor_digest
from ablate.diagnose import shown
from ablate.errors import Problem, UserError, listed, printable
from ablate.weights.pickled import TooNested, check_archive, check_file

SUFFIXES = (".safetensors", ".pt", ".pth")
MOST_BYTES = 8 * 2**30
MOST_ENTRIES = 100_000
LONGEST_NAME = 300
HOLDERS = ("state_dict", "model_state_dict", "model")
"""Where in a torch file the weights may be; the first that holds any is taken, and without one the file's top."""

_SAVE = "save weights alone: torch.save(model.state_dict(), FILE), or safetensors.torch.save_file"


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """The tensors of one file, by name."""

    path: Path
    tensors: Mapping[str, Tensor]
    taken: str = ""
    """The entry of the file that held them; empty where they were its top."""
    beside: tuple[str, ...] = ()
    """What stood beside them and is no tensor."""
    _digests: dict[tuple[str, torch.dtype, tuple[int, ...]], str] = field(default_factory=dict)
    _bounds: dict[tuple[str, torch.dtype], tuple[float, float]] = field(default_factory=dict)

    def digest(self, name: str, dtype: torch.dtype, shape: tuple[int, ...]) -> str:
        """The SHA-256 of one tensor as a network of that type and shape would hold it."""
        key = (name, dtype, shape)
        if key not in self._digests:
            self._digests[key] = tensor_digest(self.tensors[name].to(dtype).reshape(shape))
        return self._digests[key]

    def bounds(self, name: str, dtype: torch.dtype) -> tuple[float, float]:
        """The least and the largest value of one tensor, converted; both NaN where it has one, 0 where it is empty."""
        key = (name, dtype)
        if key not in self._bounds:
            tensor = self.tensors[name].to(dtype)
            least, largest = torch.aminmax(tensor) if tensor.numel() else (0.0, 0.0)
            self._bounds[key] = float(least), float(largest)
        return self._bounds[key]


def read(path: Path) -> Checkpoint:
    """The weights in a file; a file that did not change since is not read again.

    ``UserError`` for a file that is none, is too large, damaged, or would run code.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise UserError(f"{said(path)} cannot be read: {error.strerror}") from None
    if status.st_size > MOST_BYTES:
        raise UserError(f"{said(path)} has {status.st_size:,} bytes; at most {MOST_BYTES:,}")
    return _read(path, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)


@lru_cache(maxsize=2)
def _read(path: Path, *signature: int) -> Checkpoint:
    with path.open("rb") as file:
        content, taken, beside = (_safetensors if path.suffix == ".safetensors" else _torch)(file, path)
    if len(content) > MOST_ENTRIES:
        raise UserError(f"{said(path)} has {len(content):,} weights; at most {MOST_ENTRIES:,}")
    long = next((name for name in content if len(name) > LONGEST_NAME), None)
    if long is not None:
        raise UserError(f"{said(path)} has a name of {len(long):,} characters, at most {LONGEST_NAME}: {shown(long)}")
    return Checkpoint(path, content, taken, beside)


_Content = tuple[dict[str, Tensor], str, tuple[str, ...]]


def _safetensors(file: BinaryIO, path: Path) -> _Content:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        # From bytes: what is mapped from a file would change with the file.
        return load(file.read()), "", ()
    except (SafetensorError, ValueError, KeyError, OverflowError) as error:
        file.seek(0)
        start = file.read(16)
        hint = (not _is_safetensors(start) and _looks_like(start)) or "it may have been cut short"
        raise UserError(Problem(f"{said(path)} is no safetensors file: {_first_line(error)}", hint=hint)) from None


def _torch(file: BinaryIO, path: Path) -> _Content:
    start = file.read(16)
    is_archive = start[:4] == b"PK\x03\x04"
    if is_archive:
        _check_archive(file, path)
    elif start[:1] != b"\x80" or _is_safetensors(start):  # neither an archive nor a pickle, in which older files are
        raise UserError(Problem(f"{said(path)} is no torch file", hint=_looks_like(start) or _SAVE))
    _check_pickles(file, path, is_archive)
    file.seek(0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of an unusual pickle it says to file an issue with torch
            content = torch.load(file, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        named = re.search(r"(?:GLOBAL|class) ([\w.]+)", str(error))
        what = f"it names {shown(named[1])}, which would run" if named else "its pickle does more than hold tensors"
        message = f"{said(path)} would run code when it is read: {what}"
        raise UserError(Problem(message, hint=_SAVE)) from None
    except Exception as error:  # whatever a damaged file makes torch raise
        if "TorchScript" in str(error):
            message = f"{said(path)} holds a TorchScript program, which is code and not weights"
            raise UserError(Problem(message, hint=_SAVE)) from None
        message = f"{said(path)} is no torch file, or a damaged one: {_first_line(error)}"
        raise UserError(Problem(message, hint="it may have been cut short")) from None
    return _state_of(content, path)


def _check_archive(file: BinaryIO, path: Path) -> None:
    """What torch writes is not compressed: an archive that is could come to any size in memory."""
    try:
        entries = zipfile.ZipFile(file).infolist()
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError, RuntimeError) as error:
        message = f"{said(path)} is no torch file, or a damaged one: {_first_line(error)}"
        raise UserError(Problem(message, hint="it may have been cut short")) from None
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise UserError(Problem(f"{said(path)} is a compressed archive, and no torch file", hint=_SAVE))
    if sum(entry.file_size for entry in entries) > MOST_BYTES:
        raise UserError(f"{said(path)} states more than {MOST_BYTES:,} bytes of content")


def _check_pickles(file: BinaryIO, path: Path, is_archive: bool) -> None:
    file.seek(0)
    try:
        check_archive(zipfile.ZipFile(file)) if is_archive else check_file(file)
    except TooNested:
        message = f"{said(path)} holds tuples within tuples that would take for ever to read"
        raise UserError(Problem(message, hint=_SAVE)) from None
    except (zipfile.BadZipFile, ValueError, OSError, EOFError, NotImplementedError, RuntimeError) as error:
        message = f"{said(path)} is no torch file, or a damaged one: {_first_line(error)}"
        raise UserError(Problem(message, hint="it may have been cut short")) from None


def _state_of(content: Any, path: Path) -> _Content:
    inner = [name for name in HOLDERS if isinstance(content, Mapping) and _holds_tensors(content.get(name))]
    if not inner and _holds_tensors(content):  # last: a step may be a tensor too, beside the weights
        return _tensors_of(content, "")
    if not inner:
        kind = f"a mapping with {listed([shown(key) for key in content])}" if isinstance(content, Mapping) else None
        message = f"{said(path)} holds no weights: it is {kind or f'a {type(content).__name__}'}"
        raise UserError(Problem(message, hint=f"weights are at its top, or under {', '.join(HOLDERS)}"))
    found, _, beside = _tensors_of(content[inner[0]], inner[0])
    return found, inner[0], (*(str(key) for key in content if key != inner[0]), *beside)


def _holds_tensors(content: Any) -> bool:
    return isinstance(content, Mapping) and any(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items()
    )


def _tensors_of(content: Mapping[Any, Any], taken: str) -> _Content:
    tensors: dict[str, Tensor] = {}
    for name, value in content.items():
        if isinstance(name, str) and isinstance(value, Tensor):
            tensors[name] = value.detach()
    return tensors, taken, tuple(str(name) for name in content if name not in tensors)


def is_plain(tensor: Tensor) -> bool:
    """Whether it has a shape and values here: not nested, sparse, quantised, or on torch's device without memory."""
    plain = not tensor.is_nested and tensor.layout == torch.strided
    return plain and not tensor.is_quantized and tensor.device.type == "cpu"


def _is_safetensors(start: bytes) -> bool:
    """Whether it has a header in JSON behind its length, which takes eight bytes of any value."""
    return start[8:9] == b"{"


def _looks_like(start: bytes) -> str:
    """What a file is that begins so, if it is something that one meets in the place of weights."""
    if _is_safetensors(start):
        return "it looks like a safetensors file, whose name ends in .safetensors"
    text = start.lstrip()
    if text[:1] in (b"{", b"["):
        return "it looks like JSON"
    if text[:1] == b"<":
        return "it looks like a web page: was the download refused?"
    if start[:7] == b"version":
        return "it looks like a pointer of Git LFS: fetch the file itself"
    if start[:4] == b"PK\x03\x04" or start[:1] == b"\x80":
        return "it looks like a torch file, whose name ends in .pt or .pth"
    return "it is empty" if not start else ""


def _first_line(error: BaseException) -> str:
    text = str(error).split("\n", 1)[0] or type(error).__name__
    return text if len(text) <= 200 else f"{text[:199]}…"


def said(path: Path) -> str:
    """The path as a user would type it from here, in quotes."""
    here = Path.cwd()
    return f"'{printable(str(path.relative_to(here) if path.is_relative_to(here) else path))}'"


def is_file(path: Path) -> bool:
    """Whether there is a plain file that can be read."""
    return path.is_file() and os.access(path, os.R_OK)
