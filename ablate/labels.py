"""What a person reads for a name or a value: on one line, and no longer than tells it from the others."""

from __future__ import annotations

import json
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any


def clean(text: str) -> str:
    """One line. Breaks become spaces; control characters, those that reorder text and lone surrogates, U+FFFD."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(map(_clean_character, text))


def _clean_character(character: str) -> str:
    if character.isspace():
        return " "
    return "\ufffd" if unicodedata.category(character) in ("Cc", "Cf", "Cs") else character


def flow(value: Any) -> str:
    """As one writes it in a line of YAML; null is ``none``."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(flow, value)) + "]"
    if value is None:
        return "none"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def short_names(paths: Sequence[str]) -> list[str]:
    """The last parts of dotted paths, as many as tell them apart."""
    parts = [path.split(".") for path in paths]
    depths = [1] * len(paths)
    while True:
        names = [".".join(words[-depth:]) for words, depth in zip(parts, depths, strict=True)]
        twice = {name for name, count in Counter(names).items() if count > 1}
        if not twice:
            return names
        depths = [depth + (name in twice) for depth, name in zip(depths, names, strict=True)]


def short_labels(values: Mapping[str, Any]) -> dict[str, str]:
    """Label → what tells it from the others, for the values that one path takes.

    Of mappings, the keys on which these values differ: ``{block: se, at: after a}`` beside ``{block: cbam, at: after
    a}`` is ``se``. What is null is ``none``. Where two would come to one text, all keep their labels.
    """
    mappings = [value for value in values.values() if isinstance(value, Mapping)]
    keys = dict.fromkeys(key for value in mappings for key in value)
    differing = [key for key in keys if len({json.dumps(value.get(key), sort_keys=True) for value in mappings}) > 1]
    said = differing or [key for key in ("block", "name") if key in keys]
    short = {label: _short_label(label, value, said) for label, value in values.items()}
    return short if len(set(short.values())) == len(short) else {label: label for label in values}


def _short_label(label: str, value: Any, keys: Sequence[str]) -> str:
    if value is None:
        return "none"
    if not isinstance(value, Mapping) or not keys:
        return label
    parts = [value[key] if isinstance(value[key], str) else json.dumps(value[key]) for key in keys if key in value]
    return " ".join(parts)
