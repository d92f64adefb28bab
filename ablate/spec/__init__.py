"""Specs: from YAML to a tree of data with places, and the assignments that make variants of it."""

from ablate.spec.assignments import Assignment, Spec, apply
from ablate.spec.loading import load
from ablate.spec.rules import (
    OPTIONAL_SECTIONS,
    SECTIONS,
    is_open,
    level_path_problem,
    null_problem,
    selector,
    split_path,
    study_name_problem,
)
from ablate.spec.sections import read_data, read_paper, read_section, read_train, unknown_keys

__all__ = [
    "OPTIONAL_SECTIONS",
    "SECTIONS",
    "Assignment",
    "Spec",
    "apply",
    "is_open",
    "level_path_problem",
    "load",
    "null_problem",
    "read_data",
    "read_paper",
    "read_section",
    "read_train",
    "selector",
    "split_path",
    "study_name_problem",
    "unknown_keys",
]
