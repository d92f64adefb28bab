"""Records as JSON: read, checked against their format and their own checksums."""

from __future__ import annotations

import hashlib
import json
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from ablate.errors import Problem, UserError
from ablate.store.layout import CERTIFICATES, ENVIRONMENT, FORMAT, INDEX, SPEC

_HEADER = re.compile(rb"# ablate study, format (\d{1,9})\n")
AGAIN = "`ablate sweep` into this folder writes it anew"


def plain(data: Any) -> Any:
    """Plain JSON data: what is compared, hashed and returned is what will be read back."""
    return json.loads(json.dumps(data))


def checksum(record: dict[str, Any]) -> str:
    """The sha256 of a record, in hex."""
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def spec_header() -> str:
    """The first line of a study's spec."""
    return f"# ablate study, format {FORMAT}\n"


def refuse_later_format(folder: Path) -> None:
    """A study of a later ``ablate`` is a UserError. A damaged record is no reason to refuse here."""
    with suppress(OSError), (folder / INDEX).open("rb") as file:
        head = file.read(64)
        if head.startswith(b"SQLite format 3\0"):
            check_format(folder / INDEX, int.from_bytes(head[60:64], "big"))  # PRAGMA user_version
    with suppress(OSError), (folder / SPEC).open("rb") as file:
        if header := _HEADER.match(file.readline(100)):
            check_format(folder / SPEC, int(header[1]))
    for name in (CERTIFICATES, ENVIRONMENT):
        with suppress(OSError, ValueError):
            record = read_json(folder / name)
            if isinstance(record, dict):
                check_format(folder / name, record.get("format"))


def check_format(path: Path, format: Any) -> None:
    """``UserError`` for a later format than this one."""
    if isinstance(format, int) and format > FORMAT:
        raise UserError(f"{path} has format {format}, and this ablate reads up to {FORMAT}: update ablate")


def read_json(path: Path) -> Any:
    """What a file holds; ValueError where it is no JSON, OSError where it can't be read."""
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path.name} is not JSON: {error}") from error


def read_record(path: Path) -> dict[str, Any]:
    """A record that states its format; ``UserError`` where it is damaged, missing or later than this ``ablate``."""
    try:
        record = read_json(path)
    except (OSError, ValueError) as error:
        raise UserError(Problem(f"{path} is damaged or missing: {error}", hint=AGAIN)) from error
    if not isinstance(record, dict) or not isinstance(record.get("format"), int):
        raise UserError(Problem(f"{path} is damaged: it states no format", hint=AGAIN))
    check_format(path, record["format"])
    return record


def read_variants(folder: Path) -> list[dict[str, Any]]:
    """The variants' records of a study; ``UserError`` where they are damaged."""
    variants = read_record(folder / CERTIFICATES).get("variants")
    if not isinstance(variants, list):
        raise UserError(Problem(f"{folder / CERTIFICATES} is damaged: it lists no variants", hint=AGAIN))
    return variants


def read_lines(path: Path) -> tuple[list[dict[str, Any]], list[int]]:
    """The rows of a ``.jsonl`` file, and the numbers (from 1) of lines that are none; without a file, nothing."""
    content = b""
    with suppress(FileNotFoundError):
        content = path.read_bytes()
    return parse_lines(content)


def parse_lines(content: bytes) -> tuple[list[dict[str, Any]], list[int]]:
    """The rows that these lines of JSON are, and the numbers (from 1) of lines that are none."""
    rows: list[dict[str, Any]] = []
    bad: list[int] = []
    for number, line in enumerate(content.splitlines(), start=1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if isinstance(row, dict):
            rows.append(row)
        else:
            bad.append(number)
    return rows, bad
