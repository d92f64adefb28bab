"""Multiply-accumulates of the operations that multiply and add up: handlers for fvcore, and their closed forms.

fvcore's own handlers stay in force for ``conv``, ``bmm`` and ``addmm``. The others are ours, since fvcore's fail on a
matrix times a vector, take a product's broadcast batch for one, estimate ``einsum``, and know nothing of the rest
(``scaled_dot_product_attention``, ``baddbmm``, ``mv``, ``dot``, …).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from math import prod
from typing import Any

Shape = Sequence[int]
Handler = Callable[[list[Any], list[Any]], "int | Counter[str]"]
ELLIPSIS = "..."


def matmul_flops(left: Shape, right: Shape) -> int:
    """Of ``left @ right`` with vectors, matrices and batches that broadcast, as ``torch.matmul`` has them."""
    rows = left[-2] if len(left) > 1 else 1
    columns = right[-1] if len(right) > 1 else 1
    return prod(_broadcast(left[:-2], right[:-2])) * rows * left[-1] * columns


def _broadcast(*shapes: Shape) -> list[int]:
    width = max(map(len, shapes))
    padded = [[1] * (width - len(shape)) + list(shape) for shape in shapes]
    return [max(sizes) for sizes in zip(*padded, strict=True)]


def attention_flops(query: Shape, key: Shape, value: Shape) -> int:
    """Q·Kᵀ and A·V: N·M·(d_k + d_v) for each head of the queries and example. A mask saves nothing."""
    return prod(_broadcast(query[:-2], key[:-2], value[:-2])) * query[-2] * key[-2] * (query[-1] + value[-1])


def einsum_flops(equation: str, shapes: Sequence[Shape], path: Sequence[int] = ()) -> int:
    """Of the products of two that ``torch.einsum`` makes, from left to right or along ``path``.

    A product of two is a matrix product where it sums over an index that both have: the sizes of all its indices,
    multiplied. An index that one of them alone has is summed before. Without a common sum it is elementwise: none.
    """
    inputs, output = _terms(equation, [len(shape) for shape in shapes])
    operands = [dict(zip(labels, shape, strict=True)) for labels, shape in zip(inputs, shapes, strict=True)]
    pairs = list(zip(path[::2], path[1::2], strict=True)) or [(0, 1)] * (len(operands) - 1)
    total = 0
    for first, second in pairs:
        taken = operands[first], operands[second]
        operands = [each for number, each in enumerate(operands) if number not in (first, second)]
        kept = {*output}.union(*operands)
        flops, product = _pair(*taken, kept)
        total += flops
        operands = [*operands, product] if path else [product, *operands]
    return total


def _pair(left: dict[str, int], right: dict[str, int], kept: set[str]) -> tuple[int, dict[str, int]]:
    """(multiply-accumulates, the product's sizes) of two operands; indices that are not ``kept`` are summed over."""
    sizes = {label: max(left.get(label, 1), right.get(label, 1)) for label in (*left, *right)}
    summed = {label for label in sizes if label not in kept}
    common = {label for label in summed if left.get(label, 1) > 1 and right.get(label, 1) > 1}
    product = {label: size for label, size in sizes.items() if label in kept}
    return (prod(product.values()) * prod(sizes[label] for label in common) if common else 0), product


def _terms(equation: str, ranks: Sequence[int]) -> tuple[list[list[str]], list[str]]:
    """The indices of each operand and of the output; an ellipsis becomes indices ``...0``, from the right."""
    written, arrow, result = equation.replace(" ", "").partition("->")
    texts = written.split(",")
    widths = [rank - len(text.replace(ELLIPSIS, "")) for text, rank in zip(texts, ranks, strict=True)]
    inputs = [_labels(text, width) for text, width in zip(texts, widths, strict=True)]
    if arrow:
        return inputs, _labels(result, max(widths))
    letters = [label for labels in inputs for label in labels]
    once = sorted(label for label in set(letters) if letters.count(label) == 1 and not label.startswith(ELLIPSIS))
    return inputs, [*dict.fromkeys(label for label in letters if label.startswith(ELLIPSIS)), *once]


def _labels(text: str, width: int) -> list[str]:
    before, ellipsis, after = text.partition(ELLIPSIS)
    hidden = [f"{ELLIPSIS}{width - 1 - place}" for place in range(width)] if ellipsis else []
    return [*before, *hidden, *after]


def handlers() -> dict[str, Handler]:
    """Operation → handler, for ``FlopCountAnalysis.set_op_handle``."""

    def of(count: Callable[..., int], *arguments: int) -> Handler:
        def handle(inputs: list[Any], outputs: list[Any]) -> int:
            return count(*(_shape(inputs[index]) for index in arguments))

        return handle

    return {
        "aten::matmul": of(matmul_flops, 0, 1),
        "aten::mm": of(matmul_flops, 0, 1),
        "aten::mv": of(matmul_flops, 0, 1),
        "aten::dot": of(matmul_flops, 0, 1),
        "aten::vdot": of(matmul_flops, 0, 1),
        "aten::addmv": of(matmul_flops, 1, 2),
        "aten::baddbmm": of(matmul_flops, 1, 2),
        "aten::addbmm": of(matmul_flops, 1, 2),
        "aten::inner": of(lambda left, right: prod(left) * prod(right[:-1]), 0, 1),
        "aten::linear": of(lambda x, weight: prod(x) * prod(weight[:-1]), 0, 1),
        "aten::tensordot": _tensordot,
        "aten::einsum": _einsum,
        "aten::scaled_dot_product_attention": lambda i, o: Counter(attention=attention_flops(*map(_unpadded, i[:3]))),
        # ``padding="same"`` as a text; other convolutions are ``aten::_convolution``, which fvcore knows
        "aten::_convolution_mode": lambda i, o: Counter(
            conv=prod(_shape(i[1])) * prod(_shape(o[0])[2:]) * _shape(i[0])[0]
        ),
    }


def _shape(value: Any) -> list[int]:
    from fvcore.nn.jit_handles import get_shape

    shape: list[int] | None = get_shape(value)
    if shape is None:
        raise ValueError(f"an operand whose shape is not known: {value.debugName()}")
    return shape


def _unpadded(value: Any) -> list[int]:
    """Of an operand of attention, without columns of zeros that make it fit a kernel: no work of the formula."""
    shape = _shape(value)
    return [*shape[:-1], _shape(next(value.node().inputs()))[-1]] if value.node().kind() == "aten::pad" else shape


def _convolution(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
    batch, _, *pixels = _shape(outputs[0])
    return Counter(conv=batch * prod(pixels) * prod(_shape(inputs[1])))


def _tensordot(inputs: list[Any], outputs: list[Any]) -> int:
    left, right = _shape(inputs[0]), _shape(inputs[1])
    return prod(left) * prod(right) // prod(left[axis] for axis in _numbers(inputs[2]))


def _einsum(inputs: list[Any], outputs: list[Any]) -> int:
    shapes = [_shape(value) for value in inputs[1].node().inputs()]
    return einsum_flops(inputs[0].toIValue(), shapes, _numbers(inputs[2]) if len(inputs) > 2 else ())


def _numbers(value: Any) -> list[int]:
    """A list of whole numbers, as a constant or put together of constants; empty for none."""
    found: list[int] | None = value.toIValue()
    if found is None and value.node().kind() == "prim::ListConstruct":
        found = [item.toIValue() for item in value.node().inputs()]
    return found or []
