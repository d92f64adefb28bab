"""ablate: architecture ablations whose every variant is proven to be the variant that was asked for.

The public names below are loaded when they are first used, so that ``import ablate`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ablate.api import Study, build, cost, eject, export, load, search, sweep
    from ablate.block import Block, BlockParams, Composite
    from ablate.errors import Problem, UserError

__all__ = [
    "Block",
    "BlockParams",
    "Composite",
    "Problem",
    "Study",
    "UserError",
    "build",
    "cost",
    "eject",
    "export",
    "load",
    "search",
    "sweep",
]

_HOMES = {
    **dict.fromkeys(("Study", "build", "cost", "eject", "export", "load", "search", "sweep"), "ablate.api"),
    **dict.fromkeys(("Block", "BlockParams", "Composite"), "ablate.block"),
    **dict.fromkeys(("Problem", "UserError"), "ablate.errors"),
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'ablate' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
