"""The JSON Schema of search spaces, for editors: made from the models of ``ablate.space``."""

from __future__ import annotations

import json
from collections.abc import Mapping

from ablate.schema.parts import Schema, from_model
from ablate.space.distributions import KINDS, PARTS
from ablate.space.grammar import KNOWN_METRICS, METRICS, SearchSpace
from ablate.space.sampling import PRUNES, TAKES


def space_schema() -> Schema:
    """What it refuses, ``ablate search`` refuses too; which paths there are only the spec knows."""
    schema = from_model(SearchSpace, whole=True)
    properties = schema["properties"]
    kinds = {key: from_model(model, whole=True) for key, model in KINDS.items()}
    parts = [{**kinds[key], "properties": _of_a_part(kinds[key])} for key in PARTS]
    kinds["text"]["properties"]["with"]["additionalProperties"] = {"anyOf": parts}
    paths = {"pattern": r"^(network|data|train)\.[^.]"}
    properties["space"] |= {"propertyNames": paths, "additionalProperties": {"anyOf": list(kinds.values())}}
    properties["objectives"]["propertyNames"] = {"enum": list(METRICS)}
    properties["constraints"]["propertyNames"] = {"enum": list(KNOWN_METRICS)}
    _only_its_own_keys(properties["sampler"], TAKES, ("name", "seed"))
    _only_its_own_keys(properties["pruner"], PRUNES, ("name", "grace"))
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "ablate search space"}
    return {**head, **schema}


def space_schema_text() -> str:
    """The schema as JSON text."""
    return json.dumps(space_schema(), ensure_ascii=False, indent=1) + "\n"


def _only_its_own_keys(schema: Schema, takes: Mapping[str, tuple[str, ...]], of_all: tuple[str, ...]) -> None:
    """Of a section with a ``name``: which keys may stand beside which."""
    schema["allOf"] = [
        {"if": {"properties": {"name": {"const": name}}}, "then": {"propertyNames": {"enum": [*of_all, *keys]}}}
        for name, keys in takes.items()
    ]


def _of_a_part(schema: Schema) -> Schema:
    """A part of a text always varies, and has no names of its own."""
    return {key: value for key, value in schema["properties"].items() if key not in ("when", "each")}
