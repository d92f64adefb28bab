"""A certificate without the passes: every other claim as with them, and the benchmark that times it."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from ablate.certify import Certifier
from ablate.data.dataset import load as load_data
from ablate.design import study_plan
from ablate.numerics import Numerics
from ablate.spec import load
from tests.conftest import REPOSITORY


def benchmark() -> Any:
    found = importlib.util.spec_from_file_location("certify_space", REPOSITORY / "benchmarks" / "certify_space.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules[found.name] = module
    found.loader.exec_module(module)
    return module


def test_every_claim_but_the_passes_is_as_in_the_whole_certificate(tiny: Path) -> None:
    plan = study_plan(load(tiny))
    data = load_data(plan.variants[0].data, base=tiny.parent)
    for variant in plan.variants:
        baseline = plan.variant(variant.baseline) if variant.baseline else None
        whole, static = (
            Certifier(lambda spec: data, Numerics()).certify(variant, baseline, passes=passes)
            for passes in (True, False)
        )
        assert whole.passes
        assert static == replace(whole, passes={})


def test_the_benchmark_draws_variants_that_are_certified_and_all_different() -> None:
    share = benchmark().certified(0, 5)
    assert (share.variants, share.failures, len({*share.identities})) == (5, (), 5)
    assert share.params[0] < share.params[1]
    assert benchmark().drawn(3) == benchmark().drawn(3)
