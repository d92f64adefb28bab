"""The kernel of a spatial gate: odd, so that the gate lies pixel on pixel over what it gates."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, PositiveInt


def odd(kernel: int) -> int:
    if kernel % 2 == 0:
        raise ValueError(f"kernel {kernel} is even; the kernel of a spatial gate must be odd")
    return kernel


OddKernel = Annotated[PositiveInt, AfterValidator(odd)]
