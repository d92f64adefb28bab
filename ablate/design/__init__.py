"""The ``ablation`` section of a spec → variants, compared with one another."""

from ablate.design.levels import Level
from ablate.design.plan import StudyPlan, as_written, root_is_trusted, search_plan, study_plan, variant_at
from ablate.design.variant import Variant, trial_hash

__all__ = [
    "Level",
    "StudyPlan",
    "Variant",
    "as_written",
    "root_is_trusted",
    "search_plan",
    "study_plan",
    "trial_hash",
    "variant_at",
]
