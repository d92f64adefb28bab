"""Statistics of a study: summaries, differences, intervals, tests, effects, verdicts. Pure functions of numbers."""

from ablate.stats.bootstrap import example_interval
from ablate.stats.factorial import interactions, main_effects
from ablate.stats.intervals import (
    FEWEST_RESAMPLED,
    LEVEL,
    Difference,
    Interval,
    Method,
    Summary,
    bootstrap_interval,
    paired_difference,
    prediction_interval,
    summary,
    t_quantile,
    unpaired_difference,
)
from ablate.stats.power import ALPHA, POWER, detectable_difference, seeds_to_detect
from ablate.stats.sizes import RankCorrelation, correlation, hedges_g, rank_correlation
from ablate.stats.testing import MOST_EXACT, holm, sign_flip_p, smallest_p
from ablate.stats.verdicts import Verdict, half_a_digit, verdict, verdict_exact

__all__ = [
    "ALPHA",
    "FEWEST_RESAMPLED",
    "LEVEL",
    "MOST_EXACT",
    "POWER",
    "Difference",
    "Interval",
    "Method",
    "RankCorrelation",
    "Summary",
    "Verdict",
    "bootstrap_interval",
    "correlation",
    "detectable_difference",
    "example_interval",
    "half_a_digit",
    "hedges_g",
    "holm",
    "interactions",
    "main_effects",
    "paired_difference",
    "prediction_interval",
    "rank_correlation",
    "seeds_to_detect",
    "sign_flip_p",
    "smallest_p",
    "summary",
    "t_quantile",
    "unpaired_difference",
    "verdict",
    "verdict_exact",
]
