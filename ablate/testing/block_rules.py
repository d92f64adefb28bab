"""The rules of blocks: what each promises, and how it is seen that it does not."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from ablate.block import INIT_RECIPES, Shape
from ablate.builder import noisy_modules
from ablate.costing import count_flops
from ablate.shapes import infer_shape
from ablate.streams import generator
from ablate.testing.adding import adds_no_input
from ablate.testing.cases import BlockCase, run, same, state_of

DRAWS = 8
"""Random networks in which a parameter may be without a gradient before it counts as out of reach: ReLUs are silent."""
MODES = {True: "in training", False: "in evaluation"}
UNLIKELY: tuple[Shape, ...] = ((7,), (5, 3), (3, 2, 2, 2))
"""Shapes that few blocks take; the others refuse them in words."""
LOOSE = 0.2
"""Of the largest output, at least of 1: how far off it may be in bf16, which has three significant digits."""


def refusal_of(case: BlockCase) -> list[str] | None:
    """What is wrong with how a case is refused; None where it is not refused."""
    try:
        if case.leaf is None:
            case.graph()
        else:
            infer_shape(case.leaf, case.params, case.shapes)
            case.raw()
    except ValueError as error:  # a ValidationError and a GraphError are such
        text = str(error).strip()
        return [] if len(text.split()) >= 3 else [f"{case}: it is refused without a sentence: {text!r}"]
    except Exception as error:
        return [f"{case}: it is refused by {type(error).__name__}, and not by ValueError with a sentence: {error}"]
    return None


def refuses_in_words(case: BlockCase) -> Iterator[str]:
    for shape in UNLIKELY:
        if len(case.shapes) == 1:
            yield from refusal_of(BlockCase(case.block, case.given, (shape,))) or ()


def keeps_its_shape(case: BlockCase) -> Iterator[str]:
    assert case.leaf is not None
    said = infer_shape(case.leaf, case.params, case.shapes)
    for training, mode in MODES.items():
        output = run(case.built().train(training), case.inputs())
        if tuple(output.shape[1:]) != said:
            yield f"{mode} it gives {tuple(output.shape[1:])}, and {said} on the meta device in evaluation"
        if output.dtype != torch.float32:
            yield f"{mode} it makes {output.dtype} of torch.float32"


def writes_nothing(case: BlockCase) -> Iterator[str]:
    for training, mode in MODES.items():
        inputs = case.inputs()
        before = [(x.clone(), x._version) for x in inputs]
        with torch.no_grad():
            run(case.built().train(training), inputs)
        if any(
            not torch.equal(x, was) or x._version != version for x, (was, version) in zip(inputs, before, strict=True)
        ):
            yield f"{mode} it writes into its input"


def reaches_every_parameter(case: BlockCase) -> Iterator[str]:
    invariant = case.leaf.invariant_parameters if case.leaf is not None else frozenset()
    missing: set[str] | None = None
    for draw in range(DRAWS):
        module = case.drawn(draw).train()
        inputs = [x.double().requires_grad_() for x in case.inputs(draw)]
        output = run(module, inputs)
        weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(draw), dtype=torch.float64)
        if not output.requires_grad:
            yield "its output has no gradient"
            return
        (output * weights).sum().backward()  # type: ignore[no-untyped-call]
        silent = {name for name, p in module.named_parameters() if p.requires_grad and _is_zero(p.grad)}
        silent |= {f"input {index}" for index, x in enumerate(inputs) if _is_zero(x.grad)}
        missing = silent if missing is None else missing & silent
        moved = [n for n, p in module.named_parameters() if n in invariant and p.grad is not None and _is_large(p)]
        yield from (f"'{name}' is declared invariant, and has a gradient" for name in moved)
    yield from (f"no gradient reaches '{name}'" for name in sorted((missing or set()) - invariant))


def _is_zero(gradient: Tensor | None) -> bool:
    return gradient is None or not gradient.numel() or not bool(gradient.any())


def _is_large(parameter: Tensor) -> bool:
    assert parameter.grad is not None
    return bool((parameter.grad.abs() > 1e-9 * max(1.0, float(parameter.detach().abs().max()))).any())


def starts_from_its_streams(case: BlockCase) -> Iterator[str]:
    """Every value, from the stream of its own name, whatever was drawn before."""
    assert case.leaf is not None
    for recipe in INIT_RECIPES:
        first, second = case.raw(), case.raw()
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            for value in second.state_dict().values():
                value.fill_(torch.nan if value.is_floating_point() else 99)
            before = torch.get_rng_state()
            for seed, module in enumerate((first, second)):
                case.leaf.initialise(module, case.params, lambda name: generator(0, name), recipe, 0)
                if not torch.equal(torch.get_rng_state(), before):
                    yield f"its start ({recipe}) draws from torch's own stream"
                    torch.manual_seed(seed)
                    before = torch.get_rng_state()
        left = [name for name, value in second.state_dict().items() if _is_left(value)]
        yield from (f"'{name}' is not set by its start ({recipe})" for name in left)
        if not left and not same(state_of(first), state_of(second)):
            yield f"its start ({recipe}) depends on what was there before"


def _is_left(value: Tensor) -> bool:
    return bool(value.isnan().any()) if value.is_floating_point() else bool((value == 99).any())


def asks_by_name(case: BlockCase) -> Iterator[str]:
    assert case.leaf is not None
    asked: list[str] = []
    module = case.raw()

    def stream(name: str) -> torch.Generator:
        asked.append(name)
        return generator(0, name)

    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        case.leaf.initialise(module, case.params, stream, "kaiming_fan_out", 0)
    known = dict(module.named_parameters())
    yield from (
        f"its start asks for a stream '{name}', and has no such parameter" for name in sorted({*asked} - {*known})
    )
    if len(asked) != len(set(asked)):
        yield "its start asks twice for the stream of one parameter"


def starts_by_seed(case: BlockCase) -> Iterator[str]:
    states: list[dict[str, Tensor]] = []
    for seed in (0, 0, 1):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(len(states))
            states.append(state_of(case.built(seed)))
    if not same(states[0], states[1]):
        yield "two of the same seed start with other values: what was created before matters"


def says_what_is_so(case: BlockCase) -> Iterator[str]:
    assert case.leaf is not None
    params, shapes = case.params, case.shapes
    effective, notes = case.leaf.effective(params, *shapes), case.leaf.notes(params, *shapes)
    is_identity = case.leaf.is_identity(params, *shapes)
    if not _is_plain(effective):
        yield "effective() gives what is no plain data"
    if not isinstance(notes, tuple) or not all(isinstance(note, str) and note for note in notes):
        yield "notes() gives no tuple of texts"
    module = case.built()
    does_nothing = all(
        torch.equal(run(module.train(training), inputs), inputs[0])
        for training in MODES
        for inputs in (case.inputs(), [x / 10 for x in case.inputs()])
    )
    if is_identity and not does_nothing:
        yield "is_identity() says that it returns its first input, and it does not"
    if is_identity and list(module.parameters()):
        yield "is_identity() is true of a block with parameters, which training would change"
    if does_nothing and not is_identity and not list(module.parameters()):
        yield "it returns its first input unchanged, and is_identity() does not say so"


def _is_plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_plain(each) for key, each in value.items())
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, str | int | float | bool)


def goes_round_as_a_state(case: BlockCase) -> Iterator[str]:
    module, other = case.drawn(1).eval(), case.drawn(2).eval()
    other.load_state_dict(module.state_dict())
    inputs = [x.double() for x in case.inputs()]
    if not torch.equal(run(module, inputs), run(other, inputs)):
        yield "with the state dict of another it computes something else: a part of it is in no parameter or buffer"


def pickles_and_copies(case: BlockCase) -> Iterator[str]:
    module, inputs = case.built().eval(), case.inputs()
    expected = run(module, inputs)
    for what, twin in (("pickle", pickle.loads(pickle.dumps(module))), ("copy", copy.deepcopy(module))):
        if not torch.equal(run(twin, inputs), expected):
            yield f"a {what} of it computes something else"


def evaluates_without_a_trace(case: BlockCase) -> Iterator[str]:
    module, inputs = case.built().eval(), case.inputs()
    before = state_of(module)
    with torch.random.fork_rng(devices=[]):
        stream = torch.get_rng_state()
        first, second = run(module, inputs), run(module, inputs, noise=1)
        if not torch.equal(torch.get_rng_state(), stream):
            yield "in evaluation it draws random numbers"
    if not torch.equal(first, second):
        yield "in evaluation two calls give two answers"
    if not same(before, state_of(module)):
        yield "in evaluation it changes its parameters or buffers"


def keeps_examples_apart(case: BlockCase) -> Iterator[str]:
    for training, mode in MODES.items():
        module = case.drawn().train(training)
        if training and (any(isinstance(each, _BatchNorm) for each in module.modules()) or any(noisy_modules(module))):
            continue
        inputs = [x.double() for x in case.inputs()]
        state = state_of(module)
        together = run(module, inputs)[1:2]
        module.load_state_dict(state)
        if not torch.allclose(run(module, [x[1:2] for x in inputs]), together, rtol=1e-9, atol=1e-11):
            yield f"{mode} what it gives for an example depends on the others of its batch"


def draws_only_if_noisy(case: BlockCase) -> Iterator[str]:
    """In training. What is ``noisy`` draws from its ``noise_seed``, and what is not draws nothing."""
    module, inputs = case.built().train(), case.inputs()
    start = state_of(module)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        before = torch.get_rng_state()
        first = run(module, inputs)
        if not torch.equal(torch.get_rng_state(), before):
            yield "in training it draws from torch's own stream: a noisy block draws from its noise_seed"
        module.load_state_dict(start)
        if not torch.equal(run(module, inputs), first):
            yield "in training two calls with one noise_seed give two answers"


def takes_channels_last(case: BlockCase) -> Iterator[str]:
    module, inputs = case.drawn().eval(), [x.double() for x in case.inputs()]
    last = [x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x for x in inputs]
    if not torch.allclose(run(module, last), run(module, inputs), rtol=1e-9, atol=1e-11):
        yield "it computes something else of tensors in channels-last"


def trains_in_bf16(case: BlockCase) -> Iterator[str]:
    module, inputs = case.built().train(), [x.requires_grad_() for x in case.inputs()]
    plain = run(copy.deepcopy(module), inputs).detach()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = run(module, inputs)
    if not output.isfinite().all():
        yield "under bf16 autocast its output is not finite"
        return
    gap, largest = float((output.detach().float() - plain).abs().max()), max(1.0, float(plain.abs().max()))
    if gap > LOOSE * largest:
        yield f"under bf16 autocast it is off by {gap:.2g} of {largest:.2g}"
    if output.requires_grad:
        output.float().square().sum().backward()  # type: ignore[no-untyped-call]
        broken = [n for n, p in module.named_parameters() if p.grad is not None and not p.grad.isfinite().all()]
        yield from (f"under bf16 autocast the gradient of '{name}' is not finite" for name in broken)


def counts_flops(case: BlockCase) -> Iterator[str]:
    _, uncounted = count_flops(case.built().eval(), case.shapes if case.leaf is not None else case.shapes[:1])
    yield from (f"its operation '{name}' is counted by no rule of FLOPs" for name in uncounted)


def exports(case: BlockCase) -> Iterator[str]:
    module, inputs = case.built().eval(), case.inputs()
    try:
        exported = case.exported.module()
    except Exception as error:  # whatever it raises of the many things that it does
        first = str(error).strip().split("\n", 1)[0]
        yield f"torch.export can't trace it: {type(error).__name__}: {first}"
        return
    if not torch.allclose(exported(*inputs), run(module, inputs), rtol=1e-4, atol=1e-5):
        yield "what torch.export has traced computes something else"


LEAVES_ALONE = (
    refuses_in_words,
    keeps_its_shape,
    adds_no_input,
    starts_from_its_streams,
    asks_by_name,
    says_what_is_so,
    exports,
)
"""Rules of a leaf; of a composite the nodes that it adds are held to them, one by one, where they are tested."""
RULES = (
    writes_nothing,  # first, since others break with it
    *LEAVES_ALONE,
    reaches_every_parameter,
    starts_by_seed,
    goes_round_as_a_state,
    pickles_and_copies,
    evaluates_without_a_trace,
    keeps_examples_apart,
    draws_only_if_noisy,
    takes_channels_last,
    trains_in_bf16,
    counts_flops,
)
