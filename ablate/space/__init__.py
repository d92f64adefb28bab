"""Search spaces: ``search_spaces/*.yaml`` → paths with the values they take → the points that they span on a spec."""

from ablate.space.distributions import Distribution, Option
from ablate.space.grammar import (
    EPOCH_METRICS,
    KNOWN_METRICS,
    METRICS,
    STATIC_METRICS,
    Bound,
    SearchSpace,
    Space,
    Target,
    load_space,
    read_space,
)
from ablate.space.grid import Chosen, Dimension, Grid, Point
from ablate.space.points import grid_on
from ablate.space.ranges import Numbers, Part, Span
from ablate.space.sampling import SCORES, BudgetSpec, FilterSpec, PrunerSpec, SamplerSpec

__all__ = [
    "EPOCH_METRICS",
    "KNOWN_METRICS",
    "METRICS",
    "SCORES",
    "STATIC_METRICS",
    "Bound",
    "BudgetSpec",
    "Chosen",
    "Dimension",
    "Distribution",
    "FilterSpec",
    "Grid",
    "Numbers",
    "Option",
    "Part",
    "Point",
    "PrunerSpec",
    "SamplerSpec",
    "SearchSpace",
    "Space",
    "Span",
    "Target",
    "grid_on",
    "load_space",
    "read_space",
]
