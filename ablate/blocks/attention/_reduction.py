"""The hidden width of channel attention, and what a reduction comes to after rounding."""

from __future__ import annotations

from typing import Any

from pydantic import Field, NonNegativeInt, PositiveInt

from ablate.block import Block, BlockParams, Shape


class ReductionParams(BlockParams):
    reduction: PositiveInt = Field(16, description="channels per hidden unit; hidden = max(min_hidden, C // reduction)")
    min_hidden: NonNegativeInt = Field(
        1, description="lower bound of the hidden width, in channels; at hidden width 0 the channel gate is 1/2"
    )

    def hidden(self, channels: int) -> int:
        return max(self.min_hidden, channels // self.reduction)

    def rounding(self, channels: int) -> tuple[str, ...]:
        """A note where the hidden width is not exactly C / reduction."""
        hidden = self.hidden(channels)
        if hidden * self.reduction == channels:
            return ()
        return (f"reduction {self.reduction} on {channels} channels → hidden width {hidden}",)

    def effective(self, channels: int) -> dict[str, Any]:
        """The parameters, with the hidden width in the place of what it was made of."""
        rest = self.model_dump(mode="json", exclude={"reduction", "min_hidden"})
        return {**rest, "hidden": self.hidden(channels)}


class ReducedBlock(Block):
    """A block whose ``Params`` are ``ReductionParams`` and more."""

    @classmethod
    def effective(cls, params: Any, *shapes: Shape) -> dict[str, Any]:
        answer: dict[str, Any] = params.effective(shapes[0][0])
        return answer

    @classmethod
    def notes(cls, params: Any, *shapes: Shape) -> tuple[str, ...]:
        notes: tuple[str, ...] = params.rounding(shapes[0][0])
        return notes
