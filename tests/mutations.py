"""Sound inputs harmed: bytes, values of JSON, members of zips, cells of databases."""

from __future__ import annotations

import io
import json
import random
import sqlite3
import zipfile
from contextlib import closing, suppress
from typing import Any

TOKENS = tuple(
    text.encode()
    for text in (
        *(
            "null",
            "[]",
            "{}",
            "''",
            "- ",
            ": ",
            "? ",
            "&a ",
            "*a",
            "!!python/object:os.system ",
            "<<: ",
            "---\n",
            "...\n",
        ),
        *(
            "1e400",
            "-1",
            "0x10",
            ".nan",
            "1_000",
            "9" * 400,
            "true",
            "no",
            "2026-11-22",
            "\t",
            "\x00",
            "\u2028",
            "\ud7ff",
            "é",
        ),
        *("$k", "$", "..", "*", "**", "stage(1|", "-1", "repeat: 1000000", "extends: small.yaml", "import: os:system"),
        *('"', "'", "#", "%", "@", "`", "|\n", ">\n", "[[[[", "{a: {a: {a:", "NaN", "Infinity", "1" + "0" * 30),
    )
)


def mutated(data: bytes, choice: random.Random) -> bytes:
    """The same with a few pieces cut out, put in, doubled or exchanged.

    Of JSON also values, of a zip its members, of a database its cells and columns.
    """
    if data[:6] == b"SQLite" and choice.random() < 0.7:
        with suppress(sqlite3.Error, IndexError):
            return _rewritten(data, choice)
    if data[:2] == b"PK" and choice.random() < 0.9:
        with suppress(Exception):  # whatever zipfile raises of an archive that was harmed before
            return _repacked(data, choice)
    if choice.random() < 0.6:
        with suppress(ValueError):
            return json.dumps(_harmed(json.loads(data), choice)).encode("utf-8", "surrogatepass")
    whole = bytearray(data)
    for _ in range(choice.randint(1, 4)):
        at = choice.randrange(len(whole) + 1)
        end = min(len(whole), at + choice.choice((0, 1, 2, 8, 64)))
        piece = choice.choice(
            (b"", choice.choice(TOKENS), bytes(choice.randrange(256) for _ in range(4)), whole[at:end] * 2)
        )
        whole[at:end] = piece
    return bytes(whole)


def _repacked(data: bytes, choice: random.Random) -> bytes:
    """With one member harmed, and sound checksums around all: what reads members gets to see it."""
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(made, "w") as new:
        chosen = choice.choice(old.namelist())
        for name in old.namelist():
            content = old.read(name)
            if name == chosen:
                head = 128 if choice.random() < 0.7 else len(content)  # where an array says what it is
                content = mutated(content[:head], choice) + content[head:]
            new.writestr(name, content)
    return made.getvalue()


def _rewritten(data: bytes, choice: random.Random) -> bytes:
    """A database that is sound, and does not hold what it should."""
    with closing(sqlite3.connect(":memory:")) as database:
        database.deserialize(data)
        tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        table = choice.choice(tables)
        column = choice.choice([row[1] for row in database.execute(f"PRAGMA table_info({table})")])
        kind = choice.random()
        if kind < 0.1:
            database.execute(f"ALTER TABLE {table} RENAME COLUMN {column} TO other")
        elif kind < 0.2:
            database.execute(f"DROP TABLE {table}")
        elif kind < 0.3:
            database.execute(f"PRAGMA user_version = {choice.randint(-1, 5)}")
        else:
            value = choice.choice(CELLS)
            database.execute(f"UPDATE OR REPLACE {table} SET {column} = ?", (value,))
        database.commit()
        return database.serialize()


CELLS = (None, -1, 2**62, 1e300, "", "x" * 600, b"\x00\xff", "finished", "[]", "null", "0" * 32)
CELLS += ('{"result.json": [1, 2, 3, 4]}', '{"result.json": []}', '{"result.json": ["a", null, {}, 1e400]}')
ODD: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    1e300,
    10**40,
    "",
    "x" * 600,
    "\u0000\ud800",
    [],
    {},
    [[]],
    {"a": None},
    "<svg>",
    2.5,
)


def _harmed(value: Any, choice: random.Random, depth: int = 0) -> Any:
    """With one value somewhere within replaced, left out or doubled."""
    if depth and (not isinstance(value, dict | list) or not value or choice.random() < 0.15):
        return choice.choice(ODD)
    if isinstance(value, dict) and value:
        key = choice.choice(list(value))
        if choice.random() < 0.15:
            return {other: each for other, each in value.items() if other != key}
        return {**value, key: _harmed(value[key], choice, depth + 1)}
    if isinstance(value, list) and value:
        index = choice.randrange(len(value))
        return [*value[:index], _harmed(value[index], choice, depth + 1), *value[index + 1 :]]
    return choice.choice(ODD)
