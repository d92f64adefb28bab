"""One tensor there, several here: a rule with a list of names cuts what it stands for, along the first axis.

torchvision's and timm's attention keeps the matrices of query, key and value on top of one another; ours has three:

    '(.+)\\.in_proj_(weight|bias)': ['\\1.query.\\2', '\\1.key.\\2', '\\1.value.\\2']
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from ablate.diagnose import shown
from ablate.weights.checkpoint import is_plain
from ablate.weights.rename import Wrong, new_names

Names = str | Sequence[str]
Rules = Mapping[str, Names]


def cuts(rules: Rules) -> bool:
    """Whether a rule has several names."""
    return any(not isinstance(names, str) for names in rules.values())


def cut(tensors: Mapping[str, Tensor], rules: Rules) -> tuple[dict[str, Tensor], list[Wrong]]:
    """(the tensors under the names that the rules give them, whole or in equal parts; what is wrong)."""
    empty = [Wrong(pattern, "names nothing", "one name, or a list of them") for pattern, n in rules.items() if not n]
    if empty:
        return {}, empty
    parts: dict[str, list[str]] = {key: [] for key in tensors}
    for index in range(max((len(_listed(each)) for each in rules.values()), default=1)):
        names, wrong = new_names(tensors, {pattern: _nth(each, index) for pattern, each in rules.items()})
        if wrong:
            return {}, wrong
        for key, name in names.items():
            parts[key] += [name] if name not in parts[key] else []
    return _divided(tensors, parts)


def _nth(names: Names, index: int) -> str:
    """The name of that part; of a rule with fewer its last, which then counts once."""
    listed = _listed(names)
    return listed[min(index, len(listed) - 1)]


def _listed(names: Names) -> list[str]:
    return [names] if isinstance(names, str) else list(names)


def _divided(tensors: Mapping[str, Tensor], parts: Mapping[str, list[str]]) -> tuple[dict[str, Tensor], list[Wrong]]:
    found: dict[str, Tensor] = {}
    wrong: list[Wrong] = []
    for key, names in parts.items():
        tensor, count = tensors[key], len(names)
        if count > 1 and not is_plain(tensor):
            wrong.append(Wrong(None, f"{shown(key)} can't be cut: it is nested, sparse, quantised, or without values"))
            continue
        if count > 1 and (tensor.dim() == 0 or tensor.shape[0] % count):
            shape = tuple(tensor.shape)
            wrong.append(Wrong(None, f"{shown(key)} of shape {shape} can't be cut into {count} along its first axis"))
            continue
        twice = [name for name in names if name in found]
        wrong += [Wrong(None, f"{shown(key)} and another both become {shown(name)}") for name in twice]
        found |= zip(names, tensor.chunk(count) if count > 1 else [tensor], strict=True)
    return found, wrong
