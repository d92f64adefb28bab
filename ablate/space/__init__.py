"""Search spaces: ``search_spaces/*.yaml`` → paths with the values they take → the points that they span on a spec."""

from ablate.space.distributions import Distribution, Option
from ablate.space.grammar import STATIC_METRICS, Bound, SearchSpace, Space, Target, load_space
from ablate.space.points import Dimension, Grid, Point, grid_on

__all__ = [
    "STATIC_METRICS",
    "Bound",
    "Dimension",
    "Distribution",
    "Grid",
    "Option",
    "Point",
    "SearchSpace",
    "Space",
    "Target",
    "grid_on",
    "load_space",
]
