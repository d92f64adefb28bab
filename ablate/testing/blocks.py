"""What a block promises, as rules that can each be broken. ``ablate``'s own blocks are held to the same ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from ablate.block import BlockType, Shape
from ablate.testing.block_rules import LEAVES_ALONE, MODES, RULES, refusal_of
from ablate.testing.cases import BlockCase, run, same, state_of
from ablate.testing.rules import ContractError, broken_of

Shapes = Shape | tuple[Shape, ...]


def check_block(
    block: BlockType,
    *,
    params: Sequence[Mapping[str, Any]] = ({},),
    shapes: Sequence[Shapes] = ((16, 8, 8),),
    refused: Sequence[tuple[Mapping[str, Any], Shapes]] = (),
) -> None:
    """Hold a block, a leaf or a composite, to its contract; ``ContractError`` names every rule that is broken.

    It is tried with each of ``params`` at each of ``shapes``: of one example, (C, H, W), or of a block with several
    ports a tuple of them. ``refused`` are parameters and shapes that it must refuse by a ``ValueError`` in words.

    The rules: unknown parameters are refused, and none is coerced; one tensor comes out, of the shape that the
    meta device says; inputs are not written into, nor added to the output; each parameter and input has a gradient;
    the start follows from seed and names alone; ``effective``, ``is_identity`` and ``notes`` say what is so; state
    dicts go round; evaluation changes nothing and examples do not mix in it; only what says that it is ``noisy``
    draws; channels-last and bf16 work; its FLOPs are counted; ``torch.export`` traces it; it pickles and copies.
    """
    cases = [BlockCase(block, dict(given), _ports(each)) for given in params for each in shapes]
    broken = [*_strict(block), *_words(block, refused)]
    for case in cases:
        rules = RULES if case.leaf is not None else [rule for rule in RULES if rule not in LEAVES_ALONE]
        found = list(_sound(case))
        broken += [f"{case}: {said}" for said in found or broken_of(rules, case)]
    broken += _equal_where_effective_is(cases)
    if broken:
        raise ContractError(f"block '{getattr(block, 'name', block.__name__)}'", broken)


def _ports(shapes: Shapes) -> tuple[Shape, ...]:
    return (shapes,) if all(isinstance(size, int) for size in shapes) else shapes  # type: ignore[return-value]


def _strict(block: BlockType) -> Iterator[str]:
    """Of its parameters alone."""
    if not getattr(block, "name", None):
        yield f'it has no name: class {block.__name__}(Block, name="…")'
    fields = block.Params.model_json_schema().get("properties", {})
    for given, why in [({"no_such_parameter": 1}, "an unknown parameter")] + [
        ({name: 3.7}, f"{name}=3.7, which is no whole number")
        for name, schema in fields.items()
        if schema.get("type") == "integer"
    ]:
        try:
            block.Params(**given)
        except ValidationError as error:
            if not any(str(each["loc"][0]) in given for each in error.errors() if each["loc"]):
                yield f"Params does not refuse {why}"
        else:
            yield f"Params does not refuse {why}"
    yield from (f"parameter '{name}' has no description" for name in fields if not fields[name].get("description"))


def _words(block: BlockType, refused: Sequence[tuple[Mapping[str, Any], Shapes]]) -> Iterator[str]:
    """What must be refused is; and whatever is refused, it is so by a ``ValueError`` with a sentence."""
    for given, shapes in refused:
        case = BlockCase(block, dict(given), _ports(shapes))
        said = refusal_of(case)
        if said is None:
            yield f"{case}: it is not refused"
        else:
            yield from said


def _sound(case: BlockCase) -> Iterator[str]:
    """Whether it can be built and run at all; without that no other rule is asked."""
    try:
        module = case.built()
        for training in MODES:
            output = run(module.train(training), case.inputs())
            if not isinstance(output, Tensor) or output.dim() < 2 or output.shape[0] != len(case.inputs()[0]):
                yield f"{MODES[training]} it gives no tensor with the batch axis first"
            elif not output.isfinite().all():
                yield f"{MODES[training]} its output is not finite"
    except Exception as error:
        yield f"it can't be built or run: {type(error).__name__}: {error}"


def _equal_where_effective_is(cases: Iterable[BlockCase]) -> Iterator[str]:
    """Parameters that come to the same by ``effective`` are one network in a study: they must be."""
    seen: dict[str, tuple[BlockCase, Tensor | None, dict[str, Tensor]]] = {}
    for case in cases:
        if case.leaf is None:
            continue
        try:
            key = repr((sorted(case.leaf.effective(case.params, *case.shapes).items()), case.shapes))
            module = case.built()
            found = (case, run(module.train(), case.inputs()).detach(), state_of(module))
        except Exception:  # said by the other rules
            continue
        other, output, state = seen.setdefault(key, found)
        equal = same(state, found[2]) and output is not None and torch.equal(output, found[1])
        if other is not case and not equal:
            yield f"effective() is the same for {other} and {case}, and what they compute is not"
