"""A study's numerics profile and the settings of a process."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from ablate.numerics import Numerics, autocast, fastest_precision, process_settings

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA"))]


def settings() -> tuple[object, ...]:
    cudnn, cuda = torch.backends.cudnn, torch.backends.cuda
    return (
        torch.get_num_threads(),
        torch.are_deterministic_algorithms_enabled(),
        cudnn.deterministic,
        cudnn.benchmark,
        cuda.matmul.allow_tf32,
        cudnn.allow_tf32,
    )


def test_the_settings_of_a_process_are_given_back_whatever_happens() -> None:
    before, stream = settings(), torch.get_rng_state()

    def bug() -> None:
        with process_settings(Numerics(threads=1, deterministic=True)):
            assert settings() == (1, True, True, False, False, False)
            torch.rand(3)
            raise KeyError

    with pytest.raises(KeyError):
        bug()
    assert settings() == before
    assert torch.equal(torch.get_rng_state(), stream)


def test_fast_kernels_are_chosen_by_trying_unless_the_study_is_deterministic() -> None:
    with process_settings(Numerics()):
        assert (torch.backends.cudnn.benchmark, torch.are_deterministic_algorithms_enabled()) == (True, False)


FLUSHED = """
import torch
from ablate.numerics import Numerics, set_process
set_process(Numerics(threads=2, flush_denormal={flush}))
tiny = torch.full((1 << 20,), 1e-39)          # large enough for every thread to have a part
print(torch.get_num_threads(), int((tiny * 1.0).count_nonzero()))
"""


@pytest.mark.parametrize(("flush", "left"), [(True, 0), (False, 1 << 20)])
def test_denormals_are_flushed_in_every_thread_of_a_process(flush: bool, left: int) -> None:
    # in a process of its own: torch looks at the flag when its threads start, and those of this one have started
    text = FLUSHED.format(flush=flush)
    out = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True).stdout
    assert out.split() == ["2", str(left)]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_autocast_computes_products_in_its_precision_and_leaves_weights_alone(
    device: str, precision: str, dtype: torch.dtype
) -> None:
    weight = torch.ones(3, 5, device=device)
    with autocast(device, precision):
        assert (weight @ weight.T).dtype == dtype
    assert weight.dtype == torch.float32
    assert (weight @ weight.T).dtype == torch.float32


@pytest.mark.parametrize("supported", [False, True])
def test_the_fastest_precision_is_bf16_where_the_processor_has_instructions_for_it(
    supported: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: supported)
    assert fastest_precision("cpu") == ("bf16" if supported else "fp32")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: supported)
    assert fastest_precision("cuda") == ("bf16" if supported else "fp32")
