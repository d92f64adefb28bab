"""Packages as pip would have installed them: modules and their metadata in a folder on ``sys.path``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

BLOCK = '''\
"""Scales by a number."""

from ablate import Block, BlockParams


class {name}Block(Block, name="{name}"):
    """Scales by {by}, as {name} does."""

    class Params(BlockParams):
        by: float = {by}

    def __init__(self, params, shape):
        super().__init__()
        self.by = params.by

    def forward(self, x):
        return x * self.by
'''


def install(
    folder: Path,
    distribution: str,
    entry_points: Mapping[str, Mapping[str, str]],
    modules: Mapping[str, str],
    version: str = "1.0",
) -> None:
    """A distribution in ``folder``: group → name → ``module:attribute``, and the text of each module."""
    for module, text in modules.items():
        file = folder.joinpath(*module.split(".")).with_suffix(".py")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    info = folder / f"{distribution.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
    lines = []
    for group, names in entry_points.items():
        lines += [f"[{group}]", *(f"{name} = {value}" for name, value in names.items()), ""]
    (info / "entry_points.txt").write_text("\n".join(lines))
