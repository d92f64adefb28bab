"""The JSON Schema of search spaces, for editors: made from the models of ``ablate.space``."""

from __future__ import annotations

import json

from ablate.schema.parts import Schema, from_model
from ablate.space.distributions import KINDS, PARTS
from ablate.space.grammar import METRICS, STATIC_METRICS, SearchSpace


def space_schema() -> Schema:
    """What it refuses, ``ablate search`` refuses too; which paths there are only the spec knows."""
    schema = from_model(SearchSpace, whole=True)
    properties = schema["properties"]
    kinds = {key: from_model(model, whole=True) for key, model in KINDS.items()}
    parts = [{**kinds[key], "properties": _without_when(kinds[key])} for key in PARTS]
    kinds["text"]["properties"]["with"]["additionalProperties"] = {"anyOf": parts}
    paths = {"pattern": r"^(network|data|train)\.[^.]"}
    properties["space"] |= {"propertyNames": paths, "additionalProperties": {"anyOf": list(kinds.values())}}
    properties["objectives"]["propertyNames"] = {"enum": list(METRICS)}
    properties["constraints"]["propertyNames"] = {"enum": list(STATIC_METRICS)}
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "ablate search space"}
    return {**head, **schema}


def space_schema_text() -> str:
    """The schema as JSON text."""
    return json.dumps(space_schema(), ensure_ascii=False, indent=1) + "\n"


def _without_when(schema: Schema) -> Schema:
    return {key: value for key, value in schema["properties"].items() if key != "when"}
