"""Whether what a paper published is what was measured."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal

from ablate.stats.intervals import finite, prediction_interval

Verdict = Literal["reproduced", "differs", "inconclusive", "not run", "not reproducible"]


def verdict(values: Iterable[float], published: float, plus_minus: float = 0.0) -> Verdict:
    """Whether a published value is what these runs would give.

    ``differs`` outside the 95% prediction interval for one more run, widened on either side by the paper's own
    ``plus_minus``. Inside it, ``reproduced`` from three runs on; with two the interval spans 15.6 standard deviations
    on either side, so that nearly anything lies in it: ``inconclusive``, as with one. So, too, where all runs gave one
    value and the paper another: a spread of zero says how coarse the metric is, not how far runs lie apart.
    """
    array = finite(values)
    if not (math.isfinite(published) and math.isfinite(plus_minus) and plus_minus >= 0):
        raise ValueError("a published value is finite, and its plus_minus not negative")
    if array.size == 0:
        return "not run"
    interval = prediction_interval(array)
    if interval is None:
        return "inconclusive"
    inside = interval.low - plus_minus <= published <= interval.high + plus_minus
    if inside:
        return "reproduced" if array.size >= 3 else "inconclusive"
    return "differs" if interval.half_width > 0 else "inconclusive"


def verdict_exact(
    value: float | None,
    published: float,
    plus_minus: float = 0.0,
    *,
    printed_to: float | None = None,
    impossible: bool = False,
) -> Verdict:
    """The verdict on a number that no seed changes (parameters, FLOPs): does it round to what the paper printed?

    The last digit that the paper gives decides: 25.6e6 stands for 25.55e6 to 25.65e6. Where that is a 0, the number
    alone does not say so: ``printed_to`` is what a unit of that digit is worth (1e5 for 28.0 M). With ``impossible``, a
    value that differs is ``not reproducible``: someone has shown that no network as described can have it.
    """
    if value is None:
        return "not run"
    half = half_a_digit(published) if printed_to is None else printed_to / 2
    if abs(value - published) <= plus_minus + half * (1 + 1e-9):
        return "reproduced"
    return "not reproducible" if impossible else "differs"


def half_a_digit(number: float) -> float:
    """Half a unit of the last significant digit, as Python writes the number: 0.05 for 90.9, 50000 for 25.6e6."""
    mantissa, _, exponent = f"{float(number)!r}e0".partition("e")
    whole, _, fraction = mantissa.lstrip("-").partition(".")
    fraction = fraction.rstrip("0")
    power = int(exponent.split("e")[0])
    if fraction:
        return 0.5 * 10.0 ** (power - len(fraction))
    zeros = len(whole) - len(whole.rstrip("0")) if whole.strip("0") else 0
    return 0.5 * 10.0 ** (power + zeros)
