"""Options that a block has gained: where one is left at its default, the identity says nothing of it.

A network that was trained before the option existed so keeps its identity, and is found again.
"""

from __future__ import annotations

from typing import Any

from ablate.block import BlockParams


def without_defaults(effective: dict[str, Any], params: type[BlockParams], *options: str) -> dict[str, Any]:
    """``effective`` less those of ``options`` that have their default value."""
    defaults = {name: params.model_fields[name].default for name in options}
    return {key: value for key, value in effective.items() if key not in defaults or value != defaults[key]}
