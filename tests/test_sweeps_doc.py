"""docs/sweeps.md: its spec is sound, and its table of outcomes is that of the code."""

from __future__ import annotations

import re

from ablate import outcomes, yamlfile
from ablate.grammar import ExecutionSpec
from ablate.store import layout
from tests.conftest import REPOSITORY

TEXT = (REPOSITORY / "docs" / "sweeps.md").read_text()


def test_what_is_set_under_execution_is_read_as_it_says() -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
    tree = yamlfile.loads(text, "sweeps.md")
    spec = ExecutionSpec.model_validate(tree["execution"])
    assert (spec.memory, spec.trial_timeout, spec.budget) == (4 << 30, 7200.0, 43200.0)
    assert (spec.cpus, spec.gpus, spec.max_concurrent, spec.retries) == (2, 0.25, 8, 2)


def test_every_outcome_is_in_the_table() -> None:
    rows = re.findall(r"^\| `([a-z_]+)` \|", TEXT, re.MULTILINE)
    assert rows == [*outcomes.RESULTS, "interrupted"]


def test_every_file_that_is_named_is_one_of_a_study() -> None:
    (text,) = re.findall(r"```\nruns/placement/\n(.*?)```", TEXT, re.DOTALL)
    known = {value for name, value in vars(layout).items() if name.isupper() and isinstance(value, str)}
    named = set(re.findall(r"[a-z]+\.(?:yaml|jsonl|json|npz|pt|sqlite)", text))
    assert named <= known
    folders = {layout.TRIALS, layout.REPORT, layout.TUNING, layout.TRACKING, layout.EXPLAINED}
    assert known - named <= {layout.LOCK, *folders}
