"""The parts that ``schema`` is put together from: pydantic's schemas as a spec is written, unions, references."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote, unquote

from pydantic import BaseModel

from ablate.spec import OPTIONAL_SECTIONS, is_open

Schema = dict[str, Any]
Path = tuple[str, ...]

ENTRY = "*"
"""Any key of an open mapping, in a path."""
NULL: Schema = {"type": "null", "description": "removes it"}
LINEAR: Schema = {
    "description": "spread evenly over the matching places, in the order of the graph",
    "type": "object",
    "properties": {
        "linear": {
            "description": "the value at the first place and at the last",
            "type": "array",
            "items": {"anyOf": [{"type": "number"}, {"$ref": "#/$defs/expression"}]},
            "minItems": 2,
            "maxItems": 2,
        }
    },
    "required": ["linear"],
    "additionalProperties": False,
}
_DROPPED = {"title", "discriminator", "$defs", "$ref", "anyOf", "oneOf"}


def from_model(model: type[BaseModel], path: Path = (), *, whole: bool = False) -> Schema:
    """A model's schema without references and titles, with null only where it removes something.

    Nothing is required unless it is ``whole``: what is missing may come from another file.
    """
    raw = model.model_json_schema()
    return _tidied(raw, raw.get("$defs", {}), path, whole)


def _tidied(raw: Schema, defs: Mapping[str, Schema], path: Path, whole: bool) -> Schema:
    if "$ref" in raw:
        raw = {**defs[raw["$ref"].rpartition("/")[2]], **{key: value for key, value in raw.items() if key != "$ref"}}
    kept = {key: value for key, value in raw.items() if key not in _DROPPED}
    if not whole:
        kept.pop("required", None)
    if "default" in kept and kept["default"] is None:
        del kept["default"]
    if "description" in kept:
        kept["description"] = first_line(kept["description"])
    if "properties" in raw:
        kept["properties"] = {
            key: _named(key, _tidied(value, defs, (*path, key), whole)) for key, value in raw["properties"].items()
        }
    if isinstance(raw.get("additionalProperties"), dict):
        kept["additionalProperties"] = _tidied(raw["additionalProperties"], defs, (*path, ENTRY), whole)
    for key in ("items", "prefixItems"):
        if isinstance(raw.get(key), dict):
            kept[key] = _tidied(raw[key], defs, (), True)  # lists replace, so that what is missing is missing
        elif isinstance(raw.get(key), list):
            kept[key] = [_tidied(item, defs, (), True) for item in raw[key]]
    branches = [_tidied(item, defs, path, whole) for item in raw.get("anyOf") or raw.get("oneOf") or ()]
    return nullable(_joined(kept, [branch for branch in branches if branch.get("type") != "null"]), path)


def _named(key: str, schema: Schema) -> Schema:
    return {"description": "which one", **schema} if key == "name" and "const" in schema else schema


def _joined(kept: Schema, branches: list[Schema]) -> Schema:
    """What a schema says itself and the alternatives it has; those with a ``name`` of their own are told by it."""
    named = {name: branch for branch in branches if (name := branch.get("properties", {}).get("name", {}).get("const"))}
    others = [branch for branch in branches if "const" not in branch.get("properties", {}).get("name", {})]
    if len(named) > 1:
        others = [selected("name", named, _union(named.values()), closed=True), *others]
    elif named:
        others = branches
    if len(others) == 1:
        return {**others[0], **kept}
    return {**kept, "anyOf": others} if others else kept


def _union(branches: Iterable[Schema]) -> dict[str, Schema]:
    keys = dict.fromkeys(key for branch in branches for key in branch["properties"] if key != "name")
    return {
        key: any_of([branch["properties"][key] for branch in branches if key in branch["properties"]]) for key in keys
    }


def selected(selector: str, branches: Mapping[str, Schema], unnamed: Mapping[str, Schema], *, closed: bool) -> Schema:
    """A mapping whose ``selector`` decides what else it holds; ``unnamed`` is what it may hold without one."""
    names: list[Schema] = [
        {"const": name, "description": branch.get("description", name)} for name, branch in branches.items()
    ]
    conditions = []
    for (name, branch), choice in zip(branches.items(), names, strict=True):
        then = {"properties": {**branch["properties"], selector: choice}, "additionalProperties": False}
        if "required" in branch:
            then["required"] = branch["required"]
        conditions.append({"if": {"properties": {selector: {"const": name}}, "required": [selector]}, "then": then})
    which = {"description": f"which {selector}", "anyOf": names if closed else [*names, {"type": "string"}]}
    without: Schema = {"properties": {selector: which, **unnamed}}
    if closed:
        without["additionalProperties"] = False
    conditions.append({"if": {"not": {"required": [selector]}}, "then": without})
    return {"type": "object", "properties": {selector: which}, "allOf": conditions}


# ---- small parts ----


def ref(name: str, *path: str) -> Schema:
    """A reference to ``$defs/name``, or to ``path[0]/name/path[1:]``."""
    holder, *rest = path or ("$defs",)
    return below({"$ref": "#"}, holder, name, *rest)


def below(pointer: Schema, *keys: str) -> Schema:
    escaped = (quote(key.replace("~", "~0").replace("/", "~1"), safe="~$()*+,:=") for key in keys)
    return {"$ref": "/".join([pointer["$ref"], *escaped])}


def at_pointer(whole: Schema, pointer: Schema) -> Schema:
    """What a reference points to."""
    found: Any = whole
    for part in pointer["$ref"].split("/")[1:]:
        key = unquote(part).replace("~1", "/").replace("~0", "~")
        found = found[int(key)] if isinstance(found, list) else found[key]
    pointed: Schema = found
    return pointed


def _seen_through(schema: Schema, whole: Schema) -> Schema:
    """The schema behind references; a description beside a reference is kept."""
    while "$ref" in schema:
        schema = {**at_pointer(whole, schema), **{key: value for key, value in schema.items() if key != "$ref"}}
    return schema


def description_of(schema: Schema, defs: Mapping[str, Schema]) -> str:
    return str(_seen_through(schema, {"$defs": defs}).get("description", ""))


def any_of(schemas: Iterable[Schema], whole: Mapping[str, Any] | None = None) -> Schema:
    """Any of these; what says the same is said once."""
    kept: dict[str, Schema] = {}
    said: dict[str, None] = {}
    for schema in schemas:
        seen = _seen_through(schema, dict(whole or {}))
        said |= dict.fromkeys([seen["description"]] if "description" in seen else [])
        kept.setdefault(json.dumps(_meaning(seen, dict(whole or {})), sort_keys=True), schema)
    if len(kept) == 1:
        return next(iter(kept.values()))
    return {"description": "; or ".join(said), "anyOf": list(kept.values())}


def alternatives(schema: Schema) -> list[Schema]:
    """The schema as the members of an ``anyOf``."""
    return schema["anyOf"] if set(schema) == {"anyOf"} else [schema]


def _meaning(schema: Any, whole: Schema) -> Any:
    """The schema without words, its references followed."""
    if isinstance(schema, list):
        return [_meaning(item, whole) for item in schema]
    if not isinstance(schema, dict):
        return schema
    seen = _seen_through(schema, whole)
    return {key: _meaning(value, whole) for key, value in seen.items() if key not in ("description", "default")}


def open_mapping(description: str, value: Schema, path: Path = ()) -> Schema:
    """A mapping with any keys."""
    return nullable(
        {"description": description, "type": "object", "additionalProperties": nullable(value, (*path, ENTRY))}, path
    )


def nullable(schema: Schema, path: Path) -> Schema:
    """With null where null removes what stands at ``path``. What a reference points to says so itself."""
    if "$ref" in schema or not path or not (path in OPTIONAL_SECTIONS or is_open(path)):
        return schema
    if schema.get("type", "null") != "null" and isinstance(schema["type"], str) and not _LISTING & schema.keys():
        return {**schema, "type": [schema["type"], "null"]}
    if any(_takes_null(branch) for branch in [schema, *schema.get("anyOf", ())]):
        return schema
    said: Schema = {key: schema[key] for key in ("description", "default") if key in schema}
    core = {key: value for key, value in schema.items() if key not in said}
    return {**said, "anyOf": [*alternatives(core), NULL]}


_LISTING = {"const", "enum"}


def _takes_null(schema: Schema) -> bool:
    return "null" in ([kind] if isinstance(kind := schema.get("type"), str) else kind or ())


def first_line(text: str | None) -> str:
    return " ".join((text or "").strip().split("\n\n", 1)[0].split())
