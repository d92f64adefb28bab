"""The page of all blocks, as Markdown: from their docstrings, their parameters and their cost at a stated size."""

from __future__ import annotations

import importlib
import inspect
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from ablate.block import Block, BlockType, Shape, registry
from ablate.costing import cost_of
from ablate.errors import did_you_mean
from ablate.graph import INPUT, Graph, GraphBuilder, GraphError

EXAMPLES: tuple[Shape, ...] = ((64, 32, 32), (196, 64), (64,))
"""The input of the first of these that a block takes is its example: an image, tokens, a vector."""
REQUIRED: dict[str, Any] = {"growth": 32, "blocks": ["se", "spatial_gate"]}
USUAL = 64
"""What the example gives for parameters that have no default: these by name, and any other, a width, this."""
CLASSES = 10
PACKAGE = "ablate.blocks."

INTRODUCTION = """# Blocks

Every block that a spec can name, with its parameters. `ablate blocks` lists them, `ablate blocks NAME` shows one. This
page is made by `ablate blocks --markdown` from the blocks themselves.

Shapes are those of one example: (C, H, W) for images, (N, D) for tokens, (C,) for vectors. FLOPs are
multiply-accumulates of convolutions, matrix products and attention for one example; the input of the example is stated
with each. A parameter marked *first of a repeat* acts on the first of `repeat: n` only.
"""

GROUPS: dict[str, str] = {
    "Convolutions and linear layers": "",
    "Blocks of several nodes": "Composite blocks: each becomes a scope, and its nodes can be named by patterns.",
    "Normalisation and scaling": "",
    "Activations, pooling, resizing, noise": "Without parameters to train.",
    "Joining": "Nodes with several inputs.",
    "Attention": "One paper each. None adds its own input: joining is `residual:`, the insertion's business.",
    "Vision transformers": "Blocks on tokens (N, D), and those that make tokens of images and vectors of tokens.",
}


@dataclass(frozen=True)
class Example:
    """A block at a stated size."""

    given: dict[str, Any]
    shape: Shape
    graph: Graph


def page() -> str:
    """The whole page. Blocks that a program has defined for itself are not in it."""
    groups: dict[str, list[BlockType]] = {group: [] for group in GROUPS}
    found = {name: block for name, block in registry().items() if block.__module__.startswith(PACKAGE)}
    examples = {name: example_of(block) for name, block in found.items()}
    for name, block in found.items():
        groups[_group(block, examples[name])].append(block)
    parts = [INTRODUCTION, "\n".join(_contents(groups))]
    for group, blocks in groups.items():
        if blocks:
            parts.append(f"## {group}" + (f"\n\n{GROUPS[group]}" if GROUPS[group] else ""))
        parts += [_section(block, examples[block.name]) for block in blocks]
    return "\n\n".join(part.rstrip() for part in parts) + "\n"


def section(name: str) -> str:
    """One block's part of the page. ``KeyError`` with a hint where there is none of that name."""
    known = registry()
    if name not in known:
        raise KeyError(did_you_mean(name, known))
    return _section(known[name], example_of(known[name])) + "\n"


def example_of(block: BlockType) -> Example:
    """The block with its defaults on the first example that it takes. ``GraphError`` where it takes none."""
    given = {name: REQUIRED.get(name, USUAL) for name, info in block.Params.model_fields.items() if info.is_required()}
    refused: list[str] = []
    for shape in EXAMPLES:
        builder = GraphBuilder(shape, CLASSES)
        try:
            count = max(2 if block.variadic else 1, len(block.ports))
            output = builder.place("it", block, block.Params(**given), (INPUT,) * count)
        except GraphError as error:
            refused.append(str(error))
            continue
        return Example(given, shape, builder.finish(output))
    raise GraphError(f"block '{block.name}' takes no example: {'; '.join(refused)}")


def _contents(groups: Mapping[str, list[BlockType]]) -> Iterator[str]:
    for group, blocks in groups.items():
        if blocks:
            yield f"- {group}: {', '.join(f'[{block.name}](#{block.name})' for block in blocks)}"


def _group(block: BlockType, example: Example) -> str:
    if block.__module__.startswith(f"{PACKAGE}attention."):
        return "Attention"
    if block.__module__.startswith(f"{PACKAGE}vit."):
        return "Vision transformers"
    if len(block.ports) > 1 or block.variadic:
        return "Joining"
    if not issubclass(block, Block):
        return "Blocks of several nodes"
    (node,) = example.graph.nodes
    module = block.make(node.params, *node.shapes)
    if any(isinstance(part, nn.Conv2d | nn.Linear) for part in module.modules()):
        return "Convolutions and linear layers"
    if block.name.endswith("norm") or any(True for _ in module.parameters()):
        return "Normalisation and scaling"
    return "Activations, pooling, resizing, noise"


def _section(block: BlockType, example: Example) -> str:
    parts = [f"### {block.name}", _prose(block), "\n".join(_facts(block, example)), "\n".join(_table(block))]
    return "\n\n".join(part for part in parts if part)


def _prose(block: BlockType) -> str:
    """The class's words where it has its own, and those of its file."""
    own = inspect.cleandoc(block.__dict__.get("__doc__") or "")
    whole = inspect.cleandoc(importlib.import_module(block.__module__).__doc__ or "")
    first, _, rest = whole.partition("\n\n")
    if not own or _papers(own)[:1] == _papers(first)[:1] != []:
        head = [max(own, first, key=len)]  # both name the block and its paper
    else:
        head = [own] if first.rstrip(".") in own else [own, first]
    return "\n\n".join(_paragraphs("\n\n".join([*head, rest])))


def _papers(text: str) -> list[str]:
    return re.findall(r"arXiv:([\d.]+)", text)


def _paragraphs(text: str) -> Iterator[str]:
    """Paragraphs as Markdown: formulas, which are indented or have columns, as they stand."""
    for paragraph in re.split(r"\n\s*\n", text):
        if not paragraph.strip():
            continue
        lines = paragraph.strip("\n").splitlines()
        if all(line.startswith("    ") for line in lines) or any(re.search(r"\S {4,}\S", line) for line in lines):
            yield "```text\n" + inspect.cleandoc("\n".join(["", *lines])) + "\n```"
        else:
            yield _marked_up(paragraph)


def _marked_up(text: str) -> str:
    """A docstring's text: code between double backquotes, links for papers, and nothing else that Markdown reads."""
    pieces = re.split(r"``(.+?)``", text)
    return "".join(f"`{piece}`" if index % 2 else _plain(piece) for index, piece in enumerate(pieces))


def _plain(text: str) -> str:
    text = text.replace("->", "→")
    text = re.sub(r"([\\`*\[\]<>#|])", r"\\\1", text)
    text = re.sub(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\_", text)
    return re.sub(r"arXiv:(\d{4}\.\d{4,5}(?:v\d+)?)", r"[arXiv:\1](https://arxiv.org/abs/\1)", text)


def _facts(block: BlockType, example: Example) -> Iterator[str]:
    path = block.__module__.replace(".", "/") + ".py"
    kind = "leaf" if issubclass(block, Block) else "composite"
    ports = ", ".join(f"`{port}`" for port in block.ports) + (", and any number more" if block.variadic else "")
    yield f"- {kind}; input {ports}; [source](../{path})"
    cost = cost_of(example.graph)
    given = f" with {', '.join(f'`{key}: {value}`' for key, value in example.given.items())}" if example.given else ""
    shapes = f"({_size(example.shape)}) → ({_size(example.graph.shape(example.graph.output))})"
    yield f"- example{given}: {shapes}: {cost.params:,} parameters, {cost.flops:,} FLOPs"
    if issubclass(block, Block):
        yield from _leaf_facts(block, example)
    else:
        names = [node.name.removeprefix("it.") for node in example.graph.nodes]
        yield f"- nodes: {', '.join(f'`{name}`' for name in names)}"


def _leaf_facts(block: type[Block], example: Example) -> Iterator[str]:
    (node,) = example.graph.nodes
    written = node.params.model_dump(mode="json")
    derived = {key: value for key, value in node.effective.items() if written.get(key) != value or key not in written}
    if derived:
        yield f"- what its parameters come to there: {', '.join(f'`{key}: {value}`' for key, value in derived.items())}"
    for note in node.notes:
        yield f"- noted there: {_marked_up(note)}"
    if block.invariant_parameters:
        names = ", ".join(f"`{name}`" for name in sorted(block.invariant_parameters))
        yield f"- has no gradient by construction: {names}"
    if block.noisy:
        yield "- draws random numbers in training, from a stream of its own"


def _size(shape: Shape) -> str:
    return ", ".join(map(str, shape))


def _table(block: BlockType) -> Iterator[str]:
    fields = block.Params.model_fields
    if not fields:
        return
    schema = block.Params.model_json_schema()
    yield "| parameter | type | default | description |"
    yield "| --- | --- | --- | --- |"
    for name, info in fields.items():
        entry = schema["properties"][name]
        default = "required" if info.is_required() else f"`{json.dumps(entry.get('default'), ensure_ascii=False)}`"
        default = default.replace('"', "")
        once = " *(first of a repeat)*" if entry.get("repeat") == "first" else ""
        kind = type_text(entry, schema).replace("|", "\\|")
        yield f"| `{name}` | {kind} | {default} | {_cell(info.description or entry.get('description', ''))}{once} |"


def _cell(text: str) -> str:
    return _marked_up(" ".join(text.split()))


RANGES = {
    "minimum": "≥",
    "exclusiveMinimum": "\\>",
    "maximum": "≤",
    "exclusiveMaximum": "\\<",
    "multipleOf": "a multiple of",
}


def type_text(entry: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    """A parameter's type and range in words: ``integer ≥ 1``, or its options."""
    if "$ref" in entry:
        return type_text(schema["$defs"][entry["$ref"].rpartition("/")[2]], schema)
    if "enum" in entry:
        return ", ".join(f"`{option}`" for option in entry["enum"])
    if "const" in entry:
        return f"`{entry['const']}`"
    if "anyOf" in entry:
        return ", ".join(type_text(option, schema) for option in entry["anyOf"])
    if entry.get("type") == "array":
        return f"list of {type_text(entry['items'], schema)}" if entry.get("items") else "list"
    ranges = [f"{sign} {entry[key]}" for key, sign in RANGES.items() if key in entry]
    return " ".join([str(entry.get("type", "")), ", ".join(ranges)]).strip()
