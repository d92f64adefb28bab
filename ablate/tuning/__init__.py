"""Fair tuning: before the seeds of a study are run, each of its variants gets the same search of its recipe.

``planned`` is the plan of a spec whose section ``tune`` is sound; ``tuned`` trains; ``as_far_as_tuned`` only reads.
Each is loaded when it is first used: to look at a plan takes none of what training needs.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ablate.tuning.held import planned
    from ablate.tuning.running import tuned
    from ablate.tuning.winners import as_far_as_tuned

__all__ = ["as_far_as_tuned", "planned", "tuned"]

_HOMES = {"as_far_as_tuned": "winners", "planned": "held", "tuned": "running"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'ablate.tuning' has no attribute '{name}'")
    return getattr(import_module(f"ablate.tuning.{_HOMES[name]}"), name)
