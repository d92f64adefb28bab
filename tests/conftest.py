"""One thread, one Ray session, and the same hypothesis examples on every machine of the CI."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch and numpy are first imported
os.environ["ABLATE_CACHE"] = "off"  # a trial that a test trains is trained

import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)

settings.register_profile("default", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")

REPOSITORY = Path(__file__).resolve().parents[1]

TINY = """\
name: tiny
data: {name: fake, shape: [3, 11, 13], classes: 5, count: {train: 60, test: 20}, val: 0.25}
train: {epochs: 2, batch_size: 16, optimizer: {name: sgd, lr: 0.05, momentum: 0.9}}
network:
  graph:
    stem:   {block: conv_bn_act, width: 8, kernel: 3}
    stage1: {block: basic, width: 8, repeat: 2, shortcut: pad}
    head:   {block: classifier}
  insert:
    attention: {block: se, reduction: 2, at: after stage1.*}
ablation:
  seeds: 2
  baseline: {attention: none}
  factors:
    attention:
      none:    {network.insert.attention: null}
      se:      {network.insert.attention.block: se}
      between: {network.insert.attention.at: after stage1}
"""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All tests marked ``ray`` go to one worker (``--dist loadgroup``): Ray takes seconds to start."""
    for item in items:
        if item.get_closest_marker("ray"):
            item.add_marker(pytest.mark.xdist_group("ray"))


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A spec of three variants and two seeds that trains in a second or two."""
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    return path


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if sys.platform != "linux" or os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("needs root on Linux, and a kernel that lets it mount")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def fill(path: Path) -> None:
    """Write to a file until its disk is full."""
    with path.open("wb") as file, suppress(OSError):
        while os.write(file.fileno(), b"x" * 4096):
            pass


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """Ray, started once for all tests of the process, as a sweep starts it."""
    from ablate.raysession import session

    with session():
        yield


@pytest.fixture
def sweep_spec() -> Callable[..., Any]:
    """Sweeps a spec's file into a folder and returns the study."""

    def run(
        spec: Path, folder: Path, sets: list[str] | None = None, concurrent: int | None = None, **options: Any
    ) -> Any:
        from ablate.design import study_plan
        from ablate.prepare import prepare
        from ablate.spec import load
        from ablate.sweeping import sweep

        plan = study_plan(load(spec, sets=sets or []))
        return sweep(prepare(plan, folder=folder, concurrent=concurrent), **options)

    return run
