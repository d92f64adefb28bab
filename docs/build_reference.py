"""Writes docs/spec.md and docs/commands.md: every key of a spec and every command, in their own words.

python docs/build_reference.py          writes both pages (``make reference``)
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ablate.cli import parser
from ablate.schema.parts import at_pointer

ROOT = Path(__file__).resolve().parent.parent
SCHEMA = ROOT / "ablate" / "spec.schema.json"
Schema = Mapping[str, Any]

OF_SPECS = """# Every key of a spec

Made by `make reference` from the schema that editors use (`ablate schema`). [language.md](language.md) explains the
language with examples, and [blocks.md](blocks.md) has the blocks with their parameters. A dot in a path is a level of
the file; `*` stands for any name, `[]` for an item of a list. A key that is not in here is an error, with the nearest
one named.
"""
OF_COMMANDS = """# Every command

Made by `make reference` from the commands themselves; `ablate COMMAND --help` prints the same. Exit codes: 0 done; 1
the study has failures, or a claim is broken; 2 the input is wrong; 130 interrupted.
"""
SECTIONS = ("network", "data", "train", "tune", "ablation", "execution", "report", "paper", "profiles")
DEEPEST = 5
BLOCKS_OWN = ("network.set.*", "network.defaults", ".block", ".linear")
"""What holds parameters of blocks, which have a page of their own, or names them."""
LONGEST = 12
"""Choices that are listed; of more there are too many for a cell."""


def spec_page(schema: Schema) -> str:
    """A table of keys for each section."""
    top = [key for key in schema["properties"] if key not in SECTIONS]
    parts = [OF_SPECS, *_table("", {"properties": {key: schema["properties"][key] for key in top}}, schema)]
    for name in SECTIONS:
        section = schema["properties"][name]
        parts.append(f"## {name}\n\n{_sentence(section.get('description', ''))}\n")
        parts += _table(name, section, schema)
    return "\n".join(parts)


def _table(path: str, section: Schema, whole: Schema) -> Iterator[str]:
    rows = list(_rows(path, section, whole))
    if rows:
        yield "| key | what it may be | default | what it is |\n| --- | --- | --- | --- |"
        yield "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _rows(path: str, schema: Schema, whole: Schema) -> Iterator[tuple[str, str, str, str]]:
    """A row for each key below ``path``, those of nodes and of blocks but for their parameters."""
    schema = _resolved(schema, whole)
    for key, value in schema.get("properties", {}).items():
        yield from _row(_below(path, key), value, whole)
    for selector, name, branch in _branches(schema):
        for key, value in branch.items():
            if key != selector and key not in _common(schema):
                yield from _row(f"{path} ({name}).{key}", value, whole)
    for key, value in _common(schema).items():
        if key not in schema.get("properties", {}):
            yield from _row(_below(path, key), value, whole)
    more = schema.get("additionalProperties")
    if isinstance(more, Mapping) and more:
        yield from _row(_below(path, "*"), more, whole)
    items = schema.get("items")
    if isinstance(items, Mapping) and _is_mapping(_resolved(items, whole)):
        yield from _rows(f"{path}[]", items, whole)


def _row(path: str, schema: Schema, whole: Schema) -> Iterator[tuple[str, str, str, str]]:
    said = _resolved(schema, whole)
    default = said.get("default")
    written = "" if default is None else f"`{json.dumps(default, ensure_ascii=False)}`"
    kind = "a block: [blocks.md](blocks.md)" if path.endswith(".block") else _kind(said, whole)
    yield f"`{path}`", kind, _cell(written), _cell(_sentence(said.get("description", "")))
    if path.endswith(BLOCKS_OWN):
        return
    if path.count(".") < DEEPEST and not any(part.endswith(("/patch", "/profile")) for part in _pointers(schema)):
        for part in [said, *said.get("anyOf", ())]:
            if part.get("$ref") != "#/$defs/linear":
                yield from _rows(path, part, whole)


def _branches(schema: Schema) -> Iterator[tuple[str, str, Schema]]:
    """What a mapping holds by its selector: selector, its value, properties. Blocks have a page of their own."""
    for each in schema.get("allOf", ()):
        condition, then = each.get("if", {}), each.get("then", {})
        for selector, constant in condition.get("properties", {}).items():
            if "const" in constant and selector != "block":
                yield selector, constant["const"], then.get("properties", {})


def _common(schema: Schema) -> Schema:
    """The keys that every branch has, or without a selector those of nodes and insertions that are no block's."""
    branches = [
        then["properties"] for each in schema.get("allOf", ()) if (then := each.get("then", {})).get("properties")
    ]
    if not branches:
        return {}
    return {key: value for key, value in branches[0].items() if all(key in other for other in branches)}


def _kind(schema: Schema, whole: Schema) -> str:
    found = dict.fromkeys(_kinds(schema, whole))
    return _cell(", ".join(list(found)[:LONGEST]) + (", …" if len(found) > LONGEST else ""))


def _kinds(schema: Schema, whole: Schema) -> Iterator[str]:
    schema = _resolved(schema, whole)
    if "const" in schema:
        yield f"`{json.dumps(schema['const'], ensure_ascii=False)}`".replace('"', "")
    elif "enum" in schema:
        yield from (f"`{value}`" for value in schema["enum"])
    elif "anyOf" in schema:
        for each in schema["anyOf"]:
            yield from _kinds(each, whole)
    else:
        kinds = schema.get("type", "anything")
        for kind in [kinds] if isinstance(kinds, str) else kinds:
            yield _limited(kind, schema, whole)


def _limited(kind: str, schema: Schema, whole: Schema) -> str:
    words = {
        "integer": "whole number",
        "object": "mapping",
        "array": "list",
        "string": "text",
        "boolean": "true or false",
    }
    text = words.get(kind, kind)
    if kind == "array" and isinstance(schema.get("items"), Mapping):
        inner = list(dict.fromkeys(_kinds(schema["items"], whole)))
        return f"list of {' or '.join(inner)}" if len(inner) <= 3 else text
    limits = [("minimum", "≥"), ("exclusiveMinimum", ">"), ("maximum", "≤"), ("exclusiveMaximum", "<")]
    bounds = [f"{sign} {schema[key]:,}" for key, sign in limits if key in schema and kind in ("integer", "number")]
    return f"{text} {', '.join(bounds)}" if bounds else text


def _resolved(schema: Schema, whole: Schema) -> Schema:
    """With what its reference points to; its own words come first."""
    while "$ref" in schema:
        schema = {
            **at_pointer(dict(whole), dict(schema)),
            **{key: value for key, value in schema.items() if key != "$ref"},
        }
    return schema


def _pointers(schema: Schema) -> Iterator[str]:
    if "$ref" in schema:
        yield schema["$ref"]
    for each in schema.get("anyOf", ()):
        yield from _pointers(each)


def _is_mapping(schema: Schema) -> bool:
    return "properties" in schema or "allOf" in schema


def _below(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _sentence(text: str) -> str:
    return re.sub(r"``(.*?)``", r"`\1`", re.sub(r":class:`(\w+)`", r"\1", text))


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def commands_page() -> str:
    """Usage and options of each command, and of the commands within it."""
    return "\n".join([OF_COMMANDS, *_commands(parser(), "ablate")])


def _commands(parser: argparse.ArgumentParser, name: str) -> Iterator[str]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            about = {choice.dest: choice.help or "" for choice in action._choices_actions}
            for command, own in action.choices.items():
                yield f"## {name} {command}\n\n{about.get(command, '')}\n"
                yield f"```text\n{_usage(own)}\n```\n"
                if own.epilog or own.description:
                    yield f"```text\n{(own.description or own.epilog or '').strip()}\n```\n"
                yield from _options(own)
                yield from _commands(own, f"{name} {command}")


def _usage(parser: argparse.ArgumentParser) -> str:
    return " ".join(parser.format_usage().removeprefix("usage: ").split())


def _options(parser: argparse.ArgumentParser) -> Iterable[str]:
    rows = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction | argparse._HelpAction) or action.help == argparse.SUPPRESS:
            continue
        shown = ", ".join(action.option_strings) or str(action.metavar or action.dest)
        if action.option_strings and action.nargs != 0:
            choices = f"{{{','.join(map(str, action.choices))}}}" if action.choices else None
            shown += f" {action.metavar or choices or action.dest.upper()}"
        rows.append(f"| `{_cell(shown)}` | {_cell((action.help or '').replace('%%', '%'))} |\n")
    return ["| | |\n| --- | --- |\n" + "".join(rows)] if rows else []


def pages() -> dict[Path, str]:
    """Both, by their files."""
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    return {ROOT / "docs" / "spec.md": spec_page(schema), ROOT / "docs" / "commands.md": commands_page()}


if __name__ == "__main__":
    for file, text in pages().items():
        file.write_text(text, encoding="utf-8")
        print(f"wrote {file.relative_to(ROOT)}", file=sys.stderr)
