"""``proposals.jsonl``: what a search proposed and what became of it, a line each, with its own checksum.

Who holds the study appends; anybody reads. A proposal that is written again counts as it was written last. A line that
a killed process left half is none, and the next holder removes it; any other that is not as it was written is damaged.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ablate.disk import append, writing
from ablate.errors import UserError
from ablate.outcomes import PROPOSED
from ablate.store.layout import is_hash
from ablate.store.records import parse_lines, plain, regular

_SEAL = b', "checksum": "'
_TAIL = len(_SEAL) + 64 + len(b'"}')


class Proposals:
    """The proposals of a study, as far as they were read; read on, they cost what was added."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.records: dict[str, dict[str, Any]] = {}
        """By name, in the order in which they were first written; of each the latest."""
        self.bad: list[int] = []
        """The numbers (from 1) of damaged lines."""
        self._offset = self._lines = 0

    def variants(self) -> list[dict[str, Any]]:
        """The records of those that are trained."""
        return [record["variant"] for record in self.records.values() if record["outcome"] == "trained"]

    def damage(self) -> str:
        """What is wrong with the file; nothing where it is as it was written."""
        return f"not as it was written: line {', '.join(map(str, self.bad))}" if self.bad else ""

    def read(self) -> list[dict[str, Any]]:
        """Take in what was written since; these records, in order. One that is the latest of its name replaces it."""
        content = self._unread()
        *lines, tail = content.split(b"\n")
        self._offset += len(content) - len(tail)
        taken = []
        for line in lines:
            self._lines += 1
            record = _record(line)
            if record is None:
                self.bad.append(self._lines)
            else:
                taken.append(record)
        # whole but for the end of its line, it counts, and is read again when that is there
        taken += [record for record in [_record(tail)] if record is not None]
        self.records.update((record["name"], record) for record in taken)
        return taken

    def _unread(self) -> bytes:
        try:
            with open(self.path, "rb", opener=regular) as file:
                if file.seek(0, os.SEEK_END) < self._offset:  # another file than the one that was read
                    self.records, self.bad, self._offset, self._lines = {}, [], 0, 0
                file.seek(self._offset)
                return file.read()
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise UserError(f"{self.path} cannot be read: {error.strerror or error}") from error

    def add(self, record: Mapping[str, Any]) -> None:
        """Append a record; on the disk when this returns. ValueError: it is none."""
        whole = plain(dict(record))
        if not _is_proposal(whole):
            raise ValueError(f"no record of a proposal: {whole}")
        append(self.path, {**whole, "checksum": _checksum(json.dumps(whole).encode())})

    def mend(self) -> None:
        """Remove the half line that a killed process left. For who holds the study."""
        with writing(self.path.parent):
            try:
                file = self.path.open("rb+")
            except FileNotFoundError:
                return
            with file:
                file.seek(min(self._offset, file.seek(0, os.SEEK_END)))
                tail = file.read().rpartition(b"\n")[2]
                if tail and _record(tail) is None:
                    file.truncate(file.tell() - len(tail))
                    os.fsync(file.fileno())


def _record(line: bytes) -> dict[str, Any] | None:
    """The record of a line that is as it was written; its checksum is of the bytes before, closed."""
    head, seal = line[:-_TAIL], line[-_TAIL:]
    if seal != _SEAL + _checksum(head + b"}").encode() + b'"}':
        return None
    rows, _ = parse_lines(head + b"}")
    return rows[0] if rows and _is_proposal(rows[0]) else None


def _checksum(line: bytes) -> str:
    return hashlib.sha256(line).hexdigest()


def _is_proposal(record: Any) -> bool:
    from ablate.store.schemas import ProposalRecord, wrong_with

    if wrong_with(record, ProposalRecord) or record["outcome"] not in PROPOSED or "checksum" in record:
        return False
    variant = record.get("variant")
    if record["outcome"] != "trained" or variant is None:
        return record["outcome"] != "trained" and variant is None
    return variant["name"] == record["name"] and _trials_are_named(variant["trials"], record.get("trial"))


def _trials_are_named(trials: Mapping[str, Any], trial: Any) -> bool:
    return all(map(is_hash, trials.values())) and trial in trials.values()
