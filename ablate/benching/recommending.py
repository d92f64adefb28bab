"""From what was measured to what is recommended: functions of numbers alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ablate.benching.options import Change
from ablate.benching.readings import LEAST, Spread
from ablate.placing import MARGIN as PLACEMENT_MARGIN
from ablate.placing import Measured

MARGIN = 0.02
"""What a change must gain, with 99% certainty, to be worth the writing."""


@dataclass(frozen=True)
class Effect:
    """What one change does. ``ratio``: how many times as fast a step is with it; ``failed``: why there is none."""

    change: Change
    ratio: Spread | None
    failed: str = ""

    @property
    def verdict(self) -> str:
        """``faster`` or ``slower`` where the median surely is, by more than ``MARGIN``; else nothing."""
        if self.ratio is None or self.ratio.count < LEAST:
            return ""
        if self.ratio.low > 1 + MARGIN:
            return "faster"
        return "slower" if self.ratio.high < 1 / (1 + MARGIN) else ""

    @property
    def can_be_recommended(self) -> bool:
        return self.verdict == "faster" and bool(self.change.path or self.change.is_advice)

    @property
    def compiles(self) -> bool:
        return self.change.option == "compile" and self.change.value is True


@dataclass(frozen=True)
class Cost:
    """What a study takes: its trials, seconds from its first trial to its last, and how many compiling would add."""

    trials: int
    seconds: float
    compiling: float = 0.0


@dataclass(frozen=True)
class Recommendation:
    """Settings to paste into the spec, ``environment`` to start the sweep in, and how many times as fast that is."""

    settings: Mapping[str, Mapping[str, Any]]
    environment: Mapping[str, str]
    gain: float
    now: Cost

    @property
    def seconds(self) -> float:
        """Of the whole study, with it."""
        return self.now.seconds / self.gain

    @property
    def is_empty(self) -> bool:
        return not self.settings and not self.environment

    @property
    def yaml(self) -> str:
        """A line a section."""
        return "\n".join(f"{name}: {{{_flow(keys)}}}" for name, keys in self.settings.items())


def winners(effects: Iterable[Effect], now: Cost) -> list[Effect]:
    """The best change of each option, of those that a user can make and that pay in this study."""
    best: dict[str, Effect] = {}
    for effect in effects:
        if effect.can_be_recommended and _pays(effect, now):
            held = best.get(effect.change.option)
            if held is None or _ratio(effect) > _ratio(held):
                best[effect.change.option] = effect
    return list(best.values())


def recommended(
    best: Sequence[Effect],
    together: Effect | None,
    current: tuple[int, int],
    placements: Sequence[Measured],
    now: Cost,
) -> Recommendation:
    """What to set, and what it gains.

    ``best`` are the ``winners``; ``together`` is what those among them that a spec can say do all at once, where there
    are several; ``current`` is (threads, trials at once), and ``placements`` what was measured of such pairs.
    """
    in_spec = [effect for effect in best if effect.change.path]
    gain = max(map(_ratio, in_spec), default=1.0)
    if together is not None and together.ratio is not None and _ratio(together) > gain:
        gain = _ratio(together)
    elif in_spec:  # two that gain alone may gain less together
        in_spec = [max(in_spec, key=_ratio)]
    left, environment = now.seconds / gain, dict[str, str]()
    for effect in best:
        if effect.change.is_advice:
            environment |= effect.change.environment
            left /= _ratio(effect)
    chosen, faster = best_placement(current, placements, now.trials)
    settings = _nested(in_spec)
    if chosen is not None:
        settings.setdefault("execution", {}).update(threads=chosen.threads, max_concurrent=chosen.concurrent)
        left /= faster
    left += now.compiling * any(effect.compiles for effect in in_spec)
    return Recommendation(settings, environment, now.seconds / left if left else 1.0, now)


def best_placement(
    current: tuple[int, int], placements: Sequence[Measured], trials: int
) -> tuple[Measured | None, float]:
    """The fastest placement of so many trials, where it is clearly faster than the current, and how many times so."""
    by_pair = {(each.threads, each.concurrent): each for each in placements}
    if current not in by_pair:  # nothing is known about it
        return None, 1.0
    best = max(placements, key=lambda each: each.over(trials))
    faster = best.over(trials) / by_pair[current].over(trials)
    return (best, faster) if faster > PLACEMENT_MARGIN else (None, 1.0)


def _pays(effect: Effect, now: Cost) -> bool:
    saves = now.seconds * (1 - 1 / _ratio(effect))
    return saves > now.compiling * effect.compiles


def _ratio(effect: Effect) -> float:
    assert effect.ratio is not None
    return effect.ratio.median


def _nested(effects: Iterable[Effect]) -> dict[str, dict[str, Any]]:
    settings: dict[str, dict[str, Any]] = {}
    for effect in effects:
        section, key = effect.change.path
        settings.setdefault(section, {})[key] = effect.change.value
    return settings


def _flow(keys: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{key}: {str(value).lower() if isinstance(value, bool) else value}" for key, value in keys.items()
    )
