"""ablate: architecture ablations whose every variant is proven to be the variant that was asked for.

The public names below are loaded when they are first used, so that ``import ablate`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ablate.api import build, cost, eject, export, load, search, sweep
    from ablate.block import Block, BlockParams, Composite
    from ablate.data.kind import DataInfo, DataSet, DataSetParams, RawData
    from ablate.data.splits import Split
    from ablate.errors import Problem, UserError
    from ablate.grafting import graft
    from ablate.opened import Study
    from ablate.report.columns import Row

__all__ = [
    "Block",
    "BlockParams",
    "Composite",
    "DataInfo",
    "DataSet",
    "DataSetParams",
    "Problem",
    "RawData",
    "Row",
    "Split",
    "Study",
    "UserError",
    "build",
    "cost",
    "eject",
    "export",
    "graft",
    "load",
    "search",
    "sweep",
]

_HOMES = {
    **dict.fromkeys(("build", "cost", "eject", "export", "load", "search", "sweep"), "ablate.api"),
    "Study": "ablate.opened",
    "Row": "ablate.report.columns",
    "graft": "ablate.grafting",
    **dict.fromkeys(("Block", "BlockParams", "Composite"), "ablate.block"),
    **dict.fromkeys(("DataInfo", "DataSet", "DataSetParams", "RawData"), "ablate.data.kind"),
    "Split": "ablate.data.splits",
    **dict.fromkeys(("Problem", "UserError"), "ablate.errors"),
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'ablate' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
