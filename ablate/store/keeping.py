"""The index as who holds the study keeps it up to date, one trial at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ablate.disk import writing
from ablate.errors import UserError
from ablate.store import index
from ablate.store.index import BEGUN, Damaged, Entry, Index, Unusable
from ablate.store.layout import INDEX, RESULT, TRIALS, trials_in
from ablate.store.stamps import TICK, Stamp, checked_result, settled, stamp
from ablate.store.states import TrialState
from ablate.store.survey import Survey, entry_of, survey


class Keeper:
    """Writes the index of a study, opened when it is first needed.

    A damaged one is made anew; where there can be none, nothing is written. A full disk is a UserError.
    """

    def __init__(self, folder: Path, variants: list[dict[str, Any]]) -> None:
        self.folder = folder
        self.variants = variants
        self._index: Index | None = None
        self._unusable = False
        self._unsettled: dict[str, Entry] = {}
        """Results that were written just now, whose stamps are remembered a moment later."""

    def rows(self) -> dict[str, Entry]:
        """By hash; none where there is no index."""
        with suppress(Damaged, Unusable):
            try:
                opened = self._opened()
                return opened.rows() if opened else {}
            except Damaged:
                return {entry.state.hash: entry for entry in self.rebuild().learnt}
        self._unusable = True
        return {}

    def learn(self, entries: list[Entry]) -> None:
        """Replace the rows of these trials."""
        if entries:
            self._write(lambda opened: opened.write(entries))

    def proposed(self, name: str, variant: Mapping[str, Any] | None) -> None:
        """A variant was added to those that are listed, or changed; None: it is none any more."""
        self._write(lambda opened: opened.list_variant(name, variant))

    def listed(self) -> None:
        """The variants, which were listed when this was made, have changed."""
        self._write(lambda opened: opened.list_variants(self.variants))

    def _write(self, change: Callable[[Index], None]) -> None:
        try:
            opened = self._opened()
            if opened:
                change(opened)
        except Damaged:
            with suppress(Damaged, Unusable):
                self.rebuild()
        except Unusable:
            self._unusable = True

    def begun(self, hash: str, attempt: int) -> None:
        """An attempt at a trial began."""
        self._unsettled.pop(hash, None)
        self.learn([Entry(TrialState(hash, BEGUN, attempts=attempt))])

    def finished(self, hash: str, result: Mapping[str, Any], stamps: dict[str, Stamp]) -> None:
        """A trial got its result. Those of a moment ago are settled on this occasion."""
        entries = self._settled()
        self._unsettled[hash] = entry_of(hash, result, stamps)
        self.learn([*entries, self._unsettled[hash]])

    def _settled(self) -> list[Entry]:
        entries = []
        for hash, entry in list(self._unsettled.items()):
            folder = self.folder / TRIALS / hash
            found = stamp(str(folder / RESULT))
            if found is not None and not settled(found, time.time_ns()):
                continue
            del self._unsettled[hash]
            seen: dict[str, Stamp] = {}
            with suppress(OSError, ValueError):  # whoever reads it next will find it damaged
                if result := checked_result(folder, hash, entry.stamps, seen):
                    entries.append(entry_of(hash, result, seen))
        return entries

    def rebuild(self) -> Survey:
        """Make the index anew from the folders, every file of which is read. ``Damaged``, ``Unusable``: it can't be."""
        self._close()
        with writing(self.folder):
            index.remove(self.folder)
        self._unusable = False
        self._unsettled.clear()
        self._index = Index(self.folder)
        return self._fill(self._index)

    def _opened(self) -> Index | None:
        if self._index is None and not self._unusable:
            try:
                try:
                    self._index = Index(self.folder)
                except Damaged:
                    with writing(self.folder):
                        index.remove(self.folder)
                    self._index = Index(self.folder)
            except (Damaged, Unusable):
                self._unusable = True
                return None
            if self._index.new:
                self._fill(self._index)
            else:
                self._index.list_variants(self.variants)
        return self._index

    def _fill(self, new: Index) -> Survey:
        found = survey(self.folder, trials_in(self.folder), {})
        new.list_variants(self.variants)
        new.write(found.learnt)
        return found

    def close(self) -> None:
        """The end of holding. What is lost here is read from the folders when it is next asked for."""
        with suppress(UserError, Damaged, Unusable):
            if self._unsettled:
                time.sleep(TICK)
                self.learn(self._settled())
        self._close()

    def _close(self) -> None:
        if self._index is not None:
            with suppress(UserError, Damaged, Unusable):
                self._index.close()
        self._index = None


def rebuilt(keeper: Keeper) -> Survey:
    """``Keeper.rebuild``, for somebody who asked for it: ``UserError`` where there can be no index."""
    try:
        return keeper.rebuild()
    except (Damaged, Unusable) as error:
        raise UserError(f"cannot write {keeper.folder / INDEX}: {error}") from error
