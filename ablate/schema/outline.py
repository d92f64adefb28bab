"""One JSON Schema (draft 2020-12) of specs, for editors: made from the pydantic models and the registries.

By hand is only the outline: which mapping holds nodes, which insertions, which patches. It promises one thing: what
it refuses, ``ablate check`` refuses too (in a profile: once that is chosen). The other way round it can't: that a
pattern matches nothing only the graph knows, and what is missing may come from ``extends``, so that nothing is
required that another file may give. A block declared under ``network.blocks`` may have any name and any parameters,
so an unknown block is let through; but where the block is not known, a parameter with the name of a built-in block's
is taken for one of its kind.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import get_args

from pydantic import BaseModel

from ablate.block import BlockType, registry
from ablate.data.dataset import DataSpec
from ablate.grammar import AblationSpec, ExecutionSpec, PaperClaim, ReportSpec, TrainSpec, TuneSpec
from ablate.insert import Side
from ablate.network import InitSpec
from ablate.network.insertions import ResidualSpec
from ablate.schema.parts import (
    ENTRY,
    LINEAR,
    Path,
    Schema,
    alternatives,
    any_of,
    description_of,
    first_line,
    from_model,
    nullable,
    open_mapping,
    ref,
    selected,
)
from ablate.schema.paths import dotted_paths
from ablate.spec import profiles

LEVELS = ("network", "data", "train")
"""The sections that a level may change."""
_HOLDERS = ("properties", "patternProperties")
_IMPORT: Schema = {
    "description": "a model of torchvision or timm, or with --trust any callable, as module:callable",
    "type": "string",
    "pattern": r"^[^:\s]+:[^:\s]+$",
    "examples": ["torchvision.models:resnet50", "timm:resnet26"],
}
_USE: Schema = {
    "description": "files of your own with blocks and data sets, seen from here; they are run, which takes --trust",
    "type": "array",
    "items": {"type": "string", "pattern": r"\.py$"},
    "minItems": 1,
}
_PLACE: Schema = {"type": "string", "pattern": rf"^\s*({'|'.join(get_args(Side))})\s+\S+\s*$"}


def spec_schema() -> Schema:
    """The schema of a spec, as JSON data; blocks, data sets and the rest as the registries have them."""
    defs: dict[str, Schema] = {"expression": _EXPRESSION, "linear": LINEAR}
    properties: dict[str, Schema] = {
        "name": {
            "description": "the study's name: the folder below runs/",
            "type": "string",
            "pattern": r"^[A-Za-z0-9_-][A-Za-z0-9_.-]{0,99}$",
        },
        "extends": {"description": "the spec that this one changes: a file, seen from here", "type": "string"},
        "use": nullable(_USE, ("use",)),
        "profile": {"description": "the profile that a study was swept with, in its own spec", "type": "string"},
        "profiles": open_mapping("changes by name, one of which --profile chooses", ref("profile"), ("profiles",)),
        "network": _network(defs),
        **{name: _section(model, (name,)) for name, model in _MODELS.items()},
        "paper": {
            "description": "published values, to stand beside the measured ones",
            "type": ["array", "null"],
            "items": from_model(PaperClaim, whole=True),
        },
        "numerics": {"description": "what `ablate sweep` writes into a study's own spec", "type": "object"},
    }
    _share(properties["data"], "data", defs)
    whole: Schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "ablate spec",
        "description": "A study: a network, its data and recipe, and what varies.",
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
        "$defs": defs,
    }
    defs["patch"] = {"description": "what a level changes: dotted path → value", **dotted_paths(whole, LEVELS)}
    defs["profile"] = {"description": "what a profile changes: section, or dotted path → value", **_profile(whole)}
    _vary(properties["ablation"], defs)
    defs["patch"]["properties"]["network"] = _other_network(whole)
    return whole


def _other_network(whole: Schema) -> Schema:
    """What a level may put in the place of the spec's network."""
    keys = whole["properties"]["network"]["properties"]
    return {
        "description": "another network: that of a file, seen from this one, with what changes it; or a whole one",
        "type": "object",
        "properties": {
            "extends": {"description": "the file of the network", "type": "string", "minLength": 1},
            **{key: ref("network", "properties", "properties", key) for key in keys},
        },
        "additionalProperties": False,
        "minProperties": 1,
    }


def spec_schema_text() -> str:
    """The schema as JSON text, one line for each definition."""
    schema = spec_schema()
    defs = schema.pop("$defs")
    lines = [f"{_json(key)}: {_json(value)}," for key, value in schema.items()]
    last = ",\n".join(f"  {_json(key)}: {_json(value)}" for key, value in defs.items())
    return "\n".join(["{", *lines, '"$defs": {', last, "}", "}", ""])


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


_MODELS: dict[str, type[BaseModel]] = {
    "data": DataSpec,
    "train": TrainSpec,
    "tune": TuneSpec,
    "ablation": AblationSpec,
    "report": ReportSpec,
    "execution": ExecutionSpec,
}


def _section(model: type[BaseModel], path: Path) -> Schema:
    described = {"description": first_line(model.__doc__), **from_model(model, path)}
    return nullable(described, path)


def _share(section: Schema, name: str, defs: dict[str, Schema]) -> None:
    """What several alternatives of a section have alike is said once, in ``defs``."""
    branches = [condition["then"]["properties"] for condition in section["allOf"]]
    for branch in branches:
        for key, value in branch.items():
            if defs.setdefault(f"{name}.{key}", value) == value:
                branch[key] = ref(f"{name}.{key}")


def _profile(whole: Schema) -> Schema:
    """What a level may change, and of other sections too; sections as wholes; how many seeds."""
    patch, others = (
        whole["$defs"]["patch"],
        dotted_paths(whole, [name for name in profiles.WHOLE if name not in LEVELS]),
    )
    of_seeds = {
        path: value
        for path, value in dotted_paths(whole, ["ablation"])["properties"].items()
        if path == profiles.SEEDS or path == profiles.UNTIL or path.startswith(f"{profiles.UNTIL}.")
    }
    known = {holder: {key: ref("patch", "$defs", holder, key) for key in patch[holder]} for holder in _HOLDERS}
    sections = {name: ref(name, "properties") for name in profiles.WHOLE}
    profile = {
        "type": "object",
        "properties": {
            **sections,
            **known["properties"],
            **others["properties"],
            **of_seeds,
        },
        "patternProperties": {**known["patternProperties"], **others["patternProperties"]},
        "additionalProperties": False,
    }
    return nullable(profile, ("profiles", ENTRY))


def _vary(ablation: Schema, defs: Mapping[str, Schema]) -> None:
    """What holds patches is any mapping to the model; here it is spelt out."""
    patch = ref("patch")
    fixed = list(defs["patch"]["properties"])
    conditions = {"properties": "const", "patternProperties": "pattern"}
    by_path = [
        {
            "if": {"properties": {"path": {conditions[holder]: path}}},
            "then": {"properties": {"levels": {"items": ref("patch", "$defs", holder, path)}}},
        }
        for holder in _HOLDERS
        for path in defs["patch"][holder]
    ]
    varied = {
        "description": "one path and the values it takes",
        "type": "object",
        "properties": {
            "path": {"description": "a dotted path", "anyOf": [{"enum": fixed}, {"pattern": r"^network\..+\."}]},
            "levels": {"description": "the values that the path takes", "type": "array", "minItems": 1},
        },
        "required": ["path", "levels"],
        "additionalProperties": False,
        "allOf": by_path,
    }
    levels = {"type": "object", "additionalProperties": patch, "minProperties": 1}
    factor = {"if": {"required": ["path", "levels"]}, "then": varied, "else": levels}
    held = {"factors": factor, "components": patch, "variants": patch}
    for key, value in held.items():
        what = ablation["properties"][key]["description"]
        ablation["properties"][key] = open_mapping(what, value, ("ablation", key))


# ---- the network ----

_EXPRESSION: Schema = {
    "description": "an expression of parameters: 16*$k, round($width / 2), $norm",
    "type": "string",
    "pattern": r"\$",
}


def _network(defs: dict[str, Schema]) -> Schema:
    blocks = registry()
    for name, block in blocks.items():
        properties = from_model(block.Params)["properties"] if block.Params.model_fields else {}
        written = {key: _expressible(value) for key, value in properties.items()}
        defs[f"block.{name}"] = {"description": block.summary(), "properties": written}
    for name, owners in _by_parameter(blocks).items():
        defs[f"parameter.{name}"] = any_of(
            [ref(f"block.{owner}", "$defs", "properties", name) for owner in owners], {"$defs": defs}
        )
    defs["node"] = _placed(blocks, defs, _node_keys(), "a node of the graph", linear=False)
    defs["node"] = nullable(defs["node"], ("network", "graph", ENTRY))
    defs["insertion"] = _placed(blocks, defs, _insertion_keys(), "a block grafted in", linear=True)
    defs["insertion"] = nullable(defs["insertion"], ("network", "insert", ENTRY))
    defs["composite"] = nullable(_composite(), ("network", "blocks", ENTRY))
    for name in _by_parameter(blocks):
        defs[f"spread.{name}"] = _spread(ref(f"parameter.{name}"), defs)
    parameters = {name: ref(f"spread.{name}") for name in _by_parameter(blocks)}
    number = {"description": "a number", "anyOf": [{"type": "number"}, ref("expression")]}
    return {
        "description": "the network: a graph of nodes, what is changed in it, and what is inserted",
        "type": "object",
        "properties": {
            "params": open_mapping("numbers that expressions read as $name", number, ("network", "params")),
            "blocks": open_mapping("blocks made of nodes, by name", ref("composite"), ("network", "blocks")),
            "graph": open_mapping("the nodes in order: name → node", ref("node"), ("network", "graph")),
            "import": nullable(_IMPORT, ("network", "import")),
            "args": open_mapping(
                "arguments of what is imported, by name", {"description": "a plain value"}, ("network", "args")
            ),
            "set": open_mapping(
                "changes of nodes and block calls: pattern → parameter → value",
                {"description": "parameter → value", "type": "object", "properties": parameters},
                ("network", "set"),
            ),
            "defaults": _defaults(blocks, defs),
            "insert": open_mapping("insertions by name", ref("insertion"), ("network", "insert")),
            "init": _section(InitSpec, ("network", "init")),
        },
        "additionalProperties": False,
    }


def _node_keys() -> dict[str, Schema]:
    one = {"type": "string"}
    return {
        "from": {
            "description": "what it reads: a node, a scope, input, or a list of them; without it the node before",
            "anyOf": [one, {"type": "array", "items": one, "minItems": 1}],
        },
        "repeat": {
            "description": "how many in a row, NAME.0, NAME.1, …",
            "anyOf": [{"type": "integer", "minimum": 1}, ref("expression")],
        },
    }


def _insertion_keys() -> dict[str, Schema]:
    joined = from_model(ResidualSpec, whole=True)
    return {
        "at": {
            "description": f"where: {', '.join(get_args(Side))} and a pattern; or a list of places, which all count",
            "anyOf": [_PLACE, {"type": "array", "items": _PLACE, "minItems": 1}],
        },
        "residual": {
            "description": "how F joins: none F(x), plain F(x) + x, weighted w·F(x) + x with w learnt",
            "anyOf": [{"enum": joined["properties"]["kind"]["enum"]}, joined],
        },
        "rank": {"description": "at one edge lower ranks come first, then the order written", "type": "integer"},
    }


def _composite() -> Schema:
    description: Schema = {"description": "what it is, for `ablate blocks` and reports", "type": "string"}
    default: Schema = {"type": ["number", "string", "boolean"]}
    parameter: Schema = {
        "type": "object",
        "properties": {
            "default": {"description": "the value where none is given; its type is the parameter's", **default},
            "repeat": {"description": "first: acts on the first of a repeat alone", "const": "first"},
            "description": {"description": "what it means, with its unit", "type": "string"},
        },
        "additionalProperties": False,
    }
    params = {"anyOf": [default, parameter]}
    return {
        "description": "a block made of nodes",
        "type": "object",
        "properties": {
            "description": description,
            "params": open_mapping("name → default, or {default, repeat}; {} where it must be given", params, _PARAMS),
            "graph": open_mapping(
                "its nodes; $name is a parameter, $in the channels, $input the value", ref("node"), _NODES
            ),
        },
        "additionalProperties": False,
    }


_PARAMS, _NODES = (("network", "blocks", ENTRY, key) for key in ("params", "graph"))


def _placed(
    blocks: Mapping[str, BlockType], defs: Mapping[str, Schema], keys: Mapping[str, Schema], what: str, *, linear: bool
) -> Schema:
    """A node or an insertion: ``block`` decides which parameters there are."""

    def parameter(pointer: Schema) -> Schema:
        return _spread(pointer, defs) if linear else pointer

    branches = {}
    for name, block in blocks.items():
        own = {key: parameter(ref(f"block.{name}", "$defs", "properties", key)) for key in block.Params.model_fields}
        branches[name] = {"description": block.summary(), "properties": {**keys, **own}}
    unnamed = {key: parameter(ref(f"parameter.{key}")) for key in _by_parameter(blocks)}
    return {"description": what, **selected("block", branches, {**unnamed, **keys}, closed=False)}


def _defaults(blocks: Mapping[str, BlockType], defs: Mapping[str, Schema]) -> Schema:
    parameters = {name: ref(f"parameter.{name}") for name in _by_parameter(blocks)}
    of_blocks = {
        name: {
            "description": f"of '{name}' alone: {block.summary()}",
            "type": "object",
            "properties": {key: ref(f"block.{name}", "$defs", "properties", key) for key in block.Params.model_fields},
            "additionalProperties": False,
        }
        for name, block in blocks.items()
    }
    both = {
        name: {
            "description": description_of(parameters[name], defs) + f"; or a mapping, of block '{name}' alone",
            "anyOf": [parameters[name], of_blocks[name]],
        }
        for name in parameters.keys() & of_blocks.keys()
    }
    what = "fills parameters that nodes leave open: name → value, or block → its parameters"
    return nullable(
        {"description": what, "type": "object", "properties": {**parameters, **of_blocks, **both}},
        ("network", "defaults"),
    )


def _by_parameter(blocks: Mapping[str, BlockType]) -> dict[str, list[str]]:
    """Parameter → the blocks that take it."""
    owners: dict[str, list[str]] = {}
    for name, block in blocks.items():
        for key in block.Params.model_fields:
            owners.setdefault(key, []).append(name)
    return dict(sorted(owners.items()))


def _expressible(schema: Schema) -> Schema:
    """A parameter as written in a network: an expression may stand for it, or for a number within it."""
    said: Schema = {key: schema[key] for key in ("description", "default") if key in schema}
    core = {key: value for key, value in schema.items() if key not in said}
    if "items" in core:
        core["items"] = _expressible(core["items"])
    return {**said, "anyOf": [*alternatives(core), ref("expression")]}


def _spread(pointer: Schema, defs: Mapping[str, Schema]) -> Schema:
    return {"description": description_of(pointer, defs), "anyOf": [pointer, ref("linear")]}
