"""``ablate bench``: what this machine gives a study, and what would make it faster.

Training steps of one variant are timed, stage by stage; then every option of the study against the study as it
stands, by turns; and what is clearly faster is recommended. No study is written, and no test split is evaluated.
"""

from ablate.benching.readings import Timing
from ablate.benching.recommending import Cost, Effect, Recommendation, recommended, winners
from ablate.benching.report import Report, Stage, bench
from ablate.benching.tables import said, tables

__all__ = [
    "Cost",
    "Effect",
    "Recommendation",
    "Report",
    "Stage",
    "Timing",
    "bench",
    "recommended",
    "said",
    "tables",
    "winners",
]
