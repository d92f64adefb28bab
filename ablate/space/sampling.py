"""How a search goes through a space: the sampler that proposes, what ends trials early, how much it may spend."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, WithJsonSchema, field_validator

from ablate.grammar import Limit
from ablate.recipe import Section

SCORES = ("synflow", "grad_norm", "naswot")
"""Zero-cost scores: of a network that was not trained, from one batch; higher is better."""
TAKES: dict[str, tuple[str, ...]] = {
    "random": (),
    "grid": (),
    "tpe": ("startup",),
    "cmaes": ("population", "startup"),
    "gp": ("startup",),
    "nsga2": ("population",),
    "nsga3": ("population",),
}
"""Sampler → the keys that it takes beside ``name`` and ``seed``."""
PRUNES: dict[str, tuple[str, ...]] = {
    "asha": ("reduction",),
    "hyperband": ("reduction", "brackets"),
    "median": ("samples",),
}
"""Pruner → the keys that it takes beside ``name`` and ``grace``."""


class SamplerSpec(Section):
    """What proposes the points, by what was found of the earlier ones."""

    name: Literal["random", "grid", "tpe", "cmaes", "gp", "nsga2", "nsga3"] = Field(
        description="tpe: one objective, and the default there; nsga2: several; grid: every point once, then it ends"
    )
    seed: int = Field(0, ge=0, description="of what it draws; equal seeds propose equal points")
    population: int | None = Field(None, ge=2, description="points in a generation (cmaes, nsga2, nsga3)")
    startup: int | None = Field(None, ge=1, description="points that are drawn at random first (tpe, cmaes, gp)")

    @field_validator("population", "startup", mode="before")
    @classmethod
    def _taken(cls, value: Any, info: ValidationInfo) -> Any:
        return _taken_by(TAKES, value, info)


class PrunerSpec(Section):
    """What ends a trial early that does worse than others did after as many epochs."""

    name: Literal["asha", "hyperband", "median"] = Field(
        description="asha: successive halving; hyperband: several of it; median: worse than the others' median"
    )
    grace: int = Field(1, ge=1, description="epochs that every trial is trained for")
    reduction: int | None = Field(
        None, ge=2, description="one of so many goes on at each rung (asha, hyperband); 3 if not given"
    )
    brackets: int | None = Field(
        None, ge=1, description="with longer and longer grace; a trial is in one of them (hyperband); 3 if not given"
    )
    samples: int | None = Field(
        None, ge=1, description="trials that a median is taken of, at least (median); 3 if not given"
    )

    @field_validator("reduction", "brackets", "samples", mode="before")
    @classmethod
    def _taken(cls, value: Any, info: ValidationInfo) -> Any:
        return _taken_by(PRUNES, value, info)


def _taken_by(takes: dict[str, tuple[str, ...]], value: Any, info: ValidationInfo) -> Any:
    """The value of a key, if what is named takes that key; where the name is wrong none is refused."""
    name, key = info.data.get("name"), info.field_name
    if value is not None and name is not None and key not in takes[name]:
        fitting = ", ".join(other for other, keys in takes.items() if key in keys)
        raise ValueError(f"{name} takes no {key}, which is for {fitting}")
    return value


def _none(value: Any) -> Any:
    return None if value == "none" else value


Count = Annotated[
    Annotated[int, Field(ge=1)] | None,
    BeforeValidator(_none),
    WithJsonSchema({"anyOf": [{"const": "none"}, {"type": "integer", "minimum": 1}]}),
]
"""A whole number, or ``none``; in Python an integer, or None."""


class BudgetSpec(Section):
    """How much a search may spend; what is reached first ends it."""

    trials: int = Field(50, ge=1, description="distinct points that are trained")
    epochs: Count = Field("none", validate_default=True, description="epochs that all trials are trained for together")
    time: Limit = Field(
        "none", validate_default=True, description="how long one call may take, such as 2h; it ends cleanly then"
    )


class FilterSpec(Section):
    """Which points are trained at all, by a score of the network before it is."""

    by: Literal["synflow", "grad_norm", "naswot"] = Field(description="the score; higher is better")
    keep: float = Field(0.5, gt=0, lt=1, description="the share, of all that were scored so far, that is trained")
    after: int = Field(8, ge=1, description="so many are scored, and trained, before any is left out")
