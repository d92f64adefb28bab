"""Dotted paths, as levels and profiles have them, out of the schema of what they lead to."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

from ablate.schema.parts import ENTRY, LINEAR, Path, Schema, any_of, at_pointer, below, ref


def dotted_paths(whole: Schema, sections: Iterable[str]) -> Schema:
    """A mapping of dotted path → value, for what lies below ``sections``; unknown paths are refused."""
    found: dict[Path, list[Schema]] = {}
    for section in sections:
        _walk(whole, ref(section, "properties"), (section,), found)
    fixed = {path: values for path, values in found.items() if ENTRY not in path}
    patterns: dict[str, list[str]] = {}
    for path, values in found.items():
        if ENTRY in path:
            # Which block it is that a path changes is not known here: any that has a parameter of this name.
            spread = f"spread.{path[-1]}"
            value = ref(spread) if path[0] == "network" and spread in whole["$defs"] else any_of(values, whole)
            patterns.setdefault(json.dumps(value), []).append(_regex(path))
    open_ended = "|".join(name for name in whole["properties"]["network"]["properties"] if name not in _CLOSED)
    return {
        "type": "object",
        "properties": {".".join(path): any_of(values, whole) for path, values in fixed.items()},
        "patternProperties": {
            **{f"^({'|'.join(texts)})$": json.loads(value) for value, texts in patterns.items()},
            # The parameters of a block that the spec declares may have any name.
            rf"^network\.({open_ended})\..": {"description": "a path within the network"},
        },
        "additionalProperties": False,
    }


_CLOSED = ("params", "init")


def _walk(whole: Schema, pointer: Schema, path: Path, found: dict[Path, list[Schema]]) -> None:
    """Note every path below ``pointer``, with pointers to what may stand there."""
    of_patterns = path[:3] in (("network", "init", "set"), ("network", "init", "rename")) and len(path) > 3
    if of_patterns or path[:2] == ("network", "blocks"):
        return  # there the rest is a pattern; here names of the user's own
    for view in _views(whole, pointer):
        schema = at_pointer(whole, view)
        for key in schema.get("properties", {}):
            _note(whole, below(view, "properties", key), (*path, key), found)
        if isinstance(schema.get("additionalProperties"), dict) and schema["additionalProperties"]:
            entries = below(view, "additionalProperties")
            if path == ("network", "set"):  # a pattern alone is no path: the last part is the parameter
                _walk(whole, entries, (*path, ENTRY), found)
            else:
                _note(whole, entries, (*path, ENTRY), found)


def _note(whole: Schema, pointer: Schema, path: Path, found: dict[Path, list[Schema]]) -> None:
    found.setdefault(path, []).append(pointer)
    _walk(whole, pointer, path, found)


def _views(whole: Schema, pointer: Schema) -> list[Schema]:
    """Pointers to the schemas that together say what a mapping at ``pointer`` may be."""
    schema = at_pointer(whole, pointer)
    if schema == LINEAR:
        return []  # no path leads into it
    found = [pointer]
    if "$ref" in schema:
        found += _views(whole, {"$ref": schema["$ref"]})
    for index in range(len(schema.get("anyOf", ()))):
        found += _views(whole, below(pointer, "anyOf", str(index)))
    for index in range(len(schema.get("allOf", ()))):
        found += _views(whole, below(pointer, "allOf", str(index), "then"))
    return found


def _regex(path: Path) -> str:
    """A path with any keys as a regular expression. The keys of ``set`` are patterns, with dots of their own."""
    parts = [
        (".+" if above in ("set", "rename") else "[^.]+") if part == ENTRY else re.escape(part)
        for above, part in zip(("", *path), path, strict=False)
    ]
    return r"\.".join(parts)
