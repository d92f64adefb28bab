"""The ``ablation`` section of a spec → variants, compared with one another."""

from ablate.design.budget import budget_set, resized_by
from ablate.design.levels import Level, more_seeds
from ablate.design.plan import StudyPlan, as_written, root_is_trusted, search_plan, study_plan, variant_at
from ablate.design.variant import Variant, trial_hash

__all__ = [
    "Level",
    "StudyPlan",
    "Variant",
    "as_written",
    "budget_set",
    "more_seeds",
    "resized_by",
    "root_is_trusted",
    "search_plan",
    "study_plan",
    "trial_hash",
    "variant_at",
]
