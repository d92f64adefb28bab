"""A study's records and its spec: written with their checksums, and read, checked against those and their format."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import stat
from contextlib import suppress
from pathlib import Path
from typing import Any

from ablate import yamlfile
from ablate.errors import Problem, UserError
from ablate.outcomes import RESULTS
from ablate.store.layout import CERTIFICATES, DIAGRAMS, ENVIRONMENT, EXPOSURES, FILES, FORMAT, INDEX, RESULT, SPEC

_HEADER = re.compile(rb"# ablate study, format (\d{1,9})\b(?:, sha256 ([0-9a-f]{64}))?")
_LONGEST_DIAGRAMS = 64 * 1024 * 1024
"""Bytes: no study of ours has so many pictures, and it is read whole."""
_MOST_DIGITS = 300
"""Of a whole number: those of the largest float, about."""
AGAIN = "`ablate sweep` into this folder writes it anew"


def plain(data: Any) -> Any:
    """Plain JSON data: what is compared, hashed and returned is what will be read back."""
    return json.loads(json.dumps(data))


def checksum(record: dict[str, Any]) -> str:
    """The sha256 of a record, in hex."""
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def sealed(record: dict[str, Any]) -> dict[str, Any]:
    """The record with its own checksum."""
    return {**record, "checksum": checksum(record)}


def spec_file(spec: dict[str, Any]) -> bytes:
    """The file of a study's spec: a line with its format and the sha256 of the rest, and the spec."""
    body = yamlfile.dump(spec).encode()
    return f"# ablate study, format {FORMAT}, sha256 {hashlib.sha256(body).hexdigest()}\n".encode() + body


def check_spec(path: Path) -> None:
    """ValueError where the file is not as ``spec_file`` made it. One of format 1 has no checksum."""
    head, _, body = content_of(path).partition(b"\n")
    header = _HEADER.fullmatch(head)
    if header is None or header[2] not in (None, hashlib.sha256(body).hexdigest().encode()):
        raise ValueError("it is not as it was written")


def read_spec(folder: Path) -> dict[str, Any]:
    """The spec of a study; ``UserError`` where it was altered."""
    try:
        check_spec(folder / SPEC)
    except (OSError, ValueError) as error:
        raise UserError(
            Problem(
                f"{folder / SPEC} was edited, or is damaged: {error}",
                hint="`ablate sweep` of the study's spec, with this folder as --out, writes it anew; "
                "another study takes another --out",
            )
        ) from error
    spec: dict[str, Any] = plain(yamlfile.load(folder / SPEC))
    return spec


def read_checked_spec(folder: Path) -> dict[str, Any]:
    """``read_spec``; ``UserError`` where a section is none, too."""
    from ablate.store.schemas import StudySpec, wrong_with

    spec = read_spec(folder)
    if wrong := wrong_with(spec, StudySpec):
        raise UserError(f"{folder / SPEC} is no study's: {wrong}")
    return spec


def refuse_later_format(folder: Path) -> None:
    """A study of a later ``ablate`` is a UserError. A damaged record is no reason to refuse here."""
    with suppress(OSError), open(folder / INDEX, "rb", opener=regular) as file:
        head = file.read(64)
        if head.startswith(b"SQLite format 3\0"):
            check_format(folder / INDEX, int.from_bytes(head[60:64], "big"))  # PRAGMA user_version
    with suppress(OSError), open(folder / SPEC, "rb", opener=regular) as file:
        if header := _HEADER.match(file.readline(200)):
            check_format(folder / SPEC, int(header[1]))
    for name in (CERTIFICATES, ENVIRONMENT, DIAGRAMS):
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
    content = content_of(path, _LONGEST_DIAGRAMS if path.name == DIAGRAMS else None)
    try:
        return json.loads(content, parse_int=_whole)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path.name} is not JSON: {error}") from error


def regular(path: str, flags: int) -> int:
    """An ``opener`` of regular files: no link is followed and no pipe waited for, but an OSError says what it is."""
    try:
        descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(f"{os.path.basename(path)} is a link") from error
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(f"{os.path.basename(path)} is no file")
    return descriptor


def content_of(path: Path, most: int | None = None) -> bytes:
    """What a regular file holds, of so many bytes at most; OSError where it is none, or longer."""
    with open(path, "rb", opener=regular) as file:
        content = file.read(-1 if most is None else most + 1)
    if most is not None and len(content) > most:
        raise OSError(f"{path.name} has more than {most:,} bytes")
    return content


def _whole(digits: str) -> int:
    if len(digits) > _MOST_DIGITS:
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)


def check_record(path: Path) -> dict[str, Any]:
    """A record that states its format, as it was ``sealed``; one of format 1 has no checksum.

    ValueError or OSError says what is wrong; ``UserError``: it is of a later ``ablate``.
    """
    record = read_json(path)
    if not isinstance(record, dict) or not isinstance(record.get("format"), int):
        raise ValueError("it states no format")
    check_format(path, record["format"])
    expected = record.pop("checksum", None)
    if expected is not None and expected != checksum(record):
        raise ValueError("it is not as it was written")
    return record


def read_record(path: Path) -> dict[str, Any]:
    """``check_record``; ``UserError`` where it is damaged, missing or later than this ``ablate``."""
    try:
        return check_record(path)
    except (OSError, ValueError) as error:
        raise UserError(Problem(f"{path} is damaged or missing: {error}", hint=AGAIN)) from error


def read_variants(folder: Path) -> list[dict[str, Any]]:
    """The variants' records of a study; ``UserError`` where they are damaged."""
    from ablate.store.schemas import VariantRecord, wrong_with

    variants: list[dict[str, Any]] | None = read_record(folder / CERTIFICATES).get("variants")
    if not isinstance(variants, list):
        raise UserError(Problem(f"{folder / CERTIFICATES} is damaged: it lists no variants", hint=AGAIN))
    wrong = wrong_with(variants, list[VariantRecord]) or _wrong_names(variants)
    if wrong:
        raise UserError(Problem(f"{folder / CERTIFICATES} is damaged: variants.{wrong}", hint=AGAIN))
    return variants


def _wrong_names(variants: list[dict[str, Any]]) -> str:
    """What of the variants' names is not as a design has it: two alike, or one that is compared with none of them."""
    names: set[str] = set()
    for number, variant in enumerate(variants):
        if variant["name"] in names:
            return f"{number}.name: an earlier one has it"
        names.add(variant["name"])
    for number, variant in enumerate(variants):
        others = {"baseline": variant.get("baseline"), "control.of": (variant.get("control") or {}).get("of")}
        for key, other in others.items():
            if other is not None and other not in names:
                return f"{number}.{key}: no variant has this name"
    return ""


def read_environment(folder: Path) -> dict[str, Any]:
    """On what the trials of a study ran; ``UserError`` where that is damaged."""
    environment = read_record(folder / ENVIRONMENT).get("environment") or {}
    if not isinstance(environment, dict):
        raise UserError(Problem(f"{folder / ENVIRONMENT} is damaged: it has nothing by name", hint=AGAIN))
    return environment


def read_exposures(folder: Path) -> tuple[list[dict[str, Any]], str]:
    """The readings of the test split on record, and what is wrong with their file."""
    try:
        rows, bad = read_lines(folder / EXPOSURES)
    except OSError as error:
        return [], str(error)
    return rows, f"not JSON: line {', '.join(map(str, bad))}" if bad else ""


def read_diagrams(folder: Path) -> tuple[dict[str, str], str]:
    """The pictures of a study, by fingerprint, and what is wrong with their file; where there is none, nothing is."""
    try:
        found = check_record(folder / DIAGRAMS).get("diagrams")
        if not isinstance(found, dict) or not all(isinstance(text, str) for text in found.values()):
            raise ValueError("it has no pictures by fingerprint")
    except FileNotFoundError:
        return {}, ""
    except (OSError, ValueError) as error:
        return {}, str(error)
    return found, ""


def check_result(record: Any, hash: str) -> dict[str, Any]:
    """The result that a trial's record is, as it was ``sealed``; ValueError where it is another, or none of ours."""
    from ablate.store.schemas import ResultRecord, wrong_with

    if not isinstance(record, dict) or record.pop("checksum", None) != checksum(record):
        raise ValueError(f"{RESULT} is not as it was written")
    if record.pop("trial", None) != hash:
        raise ValueError(f"{RESULT} is another trial's")
    if record.get("status") not in RESULTS:
        raise ValueError(f"{RESULT} has no known status")
    files = record.get("files")
    if not isinstance(files, dict) or not files.keys() <= set(FILES):
        raise ValueError(f"{RESULT} does not list a trial's files")
    if not all(isinstance(digest, str) for digest in files.values()):
        raise ValueError(f"{RESULT} lists files without their checksums")
    if wrong := wrong_with(record, ResultRecord):
        raise ValueError(f"{RESULT}: {wrong}")
    return record


def read_lines(path: Path) -> tuple[list[dict[str, Any]], list[int]]:
    """The rows of a ``.jsonl`` file, and the numbers (from 1) of lines that are none; without a file, nothing.

    OSError where it can't be read.
    """
    content = b""
    with suppress(FileNotFoundError):
        content = content_of(path)
    return parse_lines(content)


def parse_lines(content: bytes) -> tuple[list[dict[str, Any]], list[int]]:
    """The rows that these lines of JSON are, and the numbers (from 1) of lines that are none."""
    rows: list[dict[str, Any]] = []
    bad: list[int] = []
    for number, line in enumerate(content.splitlines(), start=1):
        try:
            row = json.loads(line, parse_int=_whole)
        except (ValueError, RecursionError):
            row = None
        if isinstance(row, dict):
            rows.append(row)
        else:
            bad.append(number)
    return rows, bad
