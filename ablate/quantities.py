"""How a metric's values are written: its unit, its digits, its prefix."""

from __future__ import annotations

import math

from ablate.units import size_text

COSTS = ("params", "flops")
PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
HUGE = 1e18
"""From here on a number is written with an exponent."""
SCORES = ("synflow", "grad_norm", "naswot")
"""Of a network before it is trained; they have no unit, and any size."""
_UNITS = {
    "accuracy": "%",
    "error": "%",
    "loss": "nats",
    "seconds": "s",
    "flops": "MACs",
    "images_per_second": "1/s",
    "latency": "ms",
}
_DECIMALS = {"accuracy": 2, "error": 2, "loss": 4, "params": 0, "activations": 0, "images_per_second": 0}


def unit_of(name: str) -> str:
    """The unit that stands in the header. (Of the training loss the recipe's loss decides it.)"""
    if name == "train.loss":
        return ""
    kind = name.rpartition(".")[2]
    return _UNITS.get(kind, "")


def format_value(name: str, value: float, sign: bool = False) -> str:
    """A number as a reader expects it: accuracy with 2 decimals, loss with 4, parameters whole, FLOPs ``40.60 M``.

    Latency is a number of seconds, and is written in milliseconds.
    """
    kind = name.rpartition(".")[2]
    if kind == "latency":
        return f"{value * 1e3:.4g}"
    if kind in SCORES or not abs(value) < HUGE:
        return f"{value:{'+' if sign else ''}.4g}".replace("-", "−")
    if kind == "flops":
        return _with_prefix(value)
    if kind == "memory":
        return size_text(value)
    decimals = _DECIMALS.get(kind, 1)
    return f"{value:{'+z' if sign else 'z'},.{decimals}f}".replace("-", "−")


def _with_prefix(value: float) -> str:
    for size, prefix in PREFIXES:
        # Compared after rounding, so that 999,999 is 1.000 M and not 1000 k.
        if float(f"{abs(value):.4g}") >= size:
            scaled = value / size
            digits = max(0, 3 - math.floor(math.log10(float(f"{abs(scaled):.4g}"))))
            return f"{scaled:.{digits}f} {prefix}".replace("-", "−")
    return f"{value:.0f}".replace("-", "−")


def is_rate(name: str) -> bool:
    return name.rpartition(".")[2] in ("accuracy", "error")


def less_is_better(name: str) -> bool:
    """Whether a smaller value of this metric or cost is the better one."""
    return name.rpartition(".")[2] in (
        "error",
        "loss",
        "params",
        "flops",
        "activations",
        "latency",
        "memory",
        "seconds",
    )
