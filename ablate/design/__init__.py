"""The ``ablation`` section of a spec → variants, compared with one another."""

from ablate.design.plan import StudyPlan, as_written, root_is_trusted, study_plan
from ablate.design.variant import Variant, trial_hash

__all__ = ["StudyPlan", "Variant", "as_written", "root_is_trusted", "study_plan", "trial_hash"]
