"""``seeds: auto`` in words: the rule, and what it sees in a study."""

from __future__ import annotations

from ablate.analysis.widths import Look, Until
from ablate.errors import listed
from ablate.quantities import unit_of

ALONE = "Only widths are looked at, never where zero lies"
WELL_BEGUN = 5
"""First seeds from which on waiting for a narrow interval costs little: see docs/statistics.md."""


def rule_text(until: Until, *, compared: bool) -> str:
    """By which rule seeds are added. ``compared``: whether any variant has a baseline."""
    of = "every difference to the baseline" if compared else "every mean"
    text = (
        f"Seeds by rule (seeds: auto): {until.first}, and {until.add} more at a time up to {until.most}, while the 95% "
        f"interval of {of} on {until.metric} is not within ±{until.half_width:g}{_unit(until)}. {ALONE}"
    )
    if until.metric.startswith("test."):
        text += ", so that reading the test split for it favours no variant"
    return text


def coverage_text(until: Until) -> str:
    """What waiting for narrow intervals does to them."""
    if until.first >= until.most:
        return ""
    less = "a little less" if until.first >= WELL_BEGUN else "clearly less"
    return f"intervals that were waited for until they were narrow cover {less} than 95%"


def look_text(look: Look) -> str:
    """How many seeds there are, and whether they suffice."""
    stated = f"±{look.until.half_width:g}{_unit(look.until)}"
    parts = [_widths_text(look, stated)]
    if look.without:
        parts.append(f"no trial of {listed(look.without)} has a value, so the rule leaves it out")
    return f"{look.seeds} seeds: {'; '.join(parts)}"


def _widths_text(look: Look, stated: str) -> str:
    widest = look.widest
    if widest is None:
        return f"no interval on {look.until.metric} can be looked at"
    if widest.half_width is None:
        return f"{widest.name} has no interval, with {widest.n} finished in common"
    shown = f"{widest.name}, is ±{widest.half_width:.3g}"
    if look.reached:
        return f"within {stated}: the widest interval, {shown}"
    return f"not within {stated}: the widest interval, {shown}"


def _unit(until: Until) -> str:
    unit = unit_of(until.metric)
    return " points" if unit == "%" else f" {unit}" if unit else ""
