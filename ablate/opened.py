"""A study's folder, opened from Python: its table, its trials, its figures as values that notebooks show.

study = ablate.Study("runs/placement")
study.table()                                   # pandas, with intervals as columns
study.metrics("between_stages", seed=0)         # epoch by epoch
study.model("between_stages", seed=0)           # the trained network
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ablate.analysis.arms import arms_of
from ablate.analysis.comparisons import compared_metric, comparisons_of
from ablate.analysis.effects import effects_of
from ablate.analysis.widths import is_complete
from ablate.errors import Problem, UserError, did_you_mean
from ablate.figures import Figure, search_figures, study_figures
from ablate.findings import findings_of, importances, is_search
from ablate.outcomes import DONE
from ablate.report.render import render
from ablate.report.search import search_table
from ablate.report.tables import ablation_table
from ablate.report.values import Cell, Column, Table
from ablate.report.writing import write_report
from ablate.store import EXPLAINED, SPEC
from ablate.store import Study as Store
from ablate.store.explained import read_explained

if TYPE_CHECKING:
    import pandas
    from torch import nn

    from ablate.explaining import Explanation
    from ablate.spec import Spec


@dataclass(frozen=True)
class Picture:
    """A figure with its numbers; a notebook shows it. ``text`` says what is to be seen."""

    name: str
    numbers: Any
    svg: str
    png: bytes
    text: str

    def _repr_svg_(self) -> str:
        return self.svg

    def __repr__(self) -> str:
        return f"Picture('{self.name}')"


class Study:
    """A study's folder, read: ``ablate.Study("runs/placement")``.

    What is asked for is read then, so that a sweep that goes on is seen as it is. Errors (UserError): no study, no such
    variant, seed or figure; pandas is not installed, for what gives a data frame.
    """

    def __init__(self, folder: str | Path) -> None:
        self._store = Store.open(Path(folder))

    @property
    def folder(self) -> Path:
        return self._store.folder

    @property
    def name(self) -> str:
        return str(self._store.spec.get("name") or self.folder.name)

    @property
    def spec(self) -> dict[str, Any]:
        """The spec as it was resolved, as plain data."""
        return self._store.spec

    @property
    def variants(self) -> list[dict[str, Any]]:
        """The variants' records: levels, baseline, cost, certificate, trials by seed."""
        return self._store.variants

    def results(self) -> dict[str, dict[str, Any]]:
        """Every trial's result, whatever became of it, by the trial's hash."""
        return self._store.results()

    def values(self, columns: Sequence[str] | None = None) -> Table:
        """The ablation table, or what a search found, as ``ablate report`` prints it: cells with text and value."""
        if not is_search(self._store):
            return ablation_table(self._store, columns)
        if columns:
            raise UserError(Problem("the table of a search has columns of its own", hint="leave columns out"))
        return search_table(self._store)

    def table(self, columns: Sequence[str] | None = None) -> pandas.DataFrame:
        """The table as numbers: of a mean over seeds ``NAME``, and ``NAME.low``, ``NAME.high`` (95%) and ``NAME.n``.

        ``columns`` as for ``ablate report --columns``. ``.attrs`` has ``title``, ``caption``, ``footnotes`` and
        ``units``, by column.
        """
        table = self.values(columns)
        series = [part for index, column in enumerate(table.columns) for part in _series(column, _cells(table, index))]
        frame = _pandas().DataFrame({name: values for name, values, _ in _each_once(series)})
        frame.attrs = {
            "title": table.title,
            "caption": table.caption,
            "footnotes": list(table.footnotes),
            "units": {name: unit for name, _, unit in series if unit},
        }
        return frame

    def trials(self) -> pandas.DataFrame:
        """A row per trial: variant, seed, hash, status, epochs, seconds, and its metrics.

        A variant that is the same as another shares that one's trials, and has no rows of its own. What was measured on
        the test split stays out until every trial has a result, as in the table; ``.attrs["hidden"]`` names it.
        """
        states, results = self._store.states(), self._store.results()
        rows: dict[str, dict[str, Any]] = {}
        for record in self._store.variants:
            for seed, hash in record["trials"].items():
                state, result = states[hash], results.get(hash) or {}
                row = {"variant": record["name"], "seed": int(seed), "hash": hash, "status": state.status}
                row |= {"epochs": state.epochs, "seconds": state.seconds, **(result.get("metrics") or {})}
                rows.setdefault(hash, row)
        metrics = dict.fromkeys(name for row in rows.values() for name in row)
        hidden = [] if is_complete(self._store, arms_of(self._store)) else [m for m in metrics if m.startswith("test.")]
        frame = _pandas().DataFrame(list(rows.values()), columns=[name for name in metrics if name not in hidden])
        frame.attrs = {"hidden": hidden}
        return frame

    def metrics(self, variant: str | None = None, seed: int | None = None) -> pandas.DataFrame:
        """One trial's epochs, a row each, as far as it has come; by default of the first seed."""
        rows = self._store.metrics(self._store.trial(variant, seed)[1])
        return _pandas().DataFrame(rows).set_index("epoch") if rows else _pandas().DataFrame()

    def model(
        self, variant: str | None = None, seed: int | None = None, *, spec: Spec | None = None, trust: bool = False
    ) -> nn.Module:
        """A variant's network with the weights that its trial ended with, for evaluation; by default the first seed.

        ``spec``: what was swept, where the study's own ``spec.yaml`` can't be built from here (its data set or its
        blocks are of another program). ``trust``: let the study's spec name code, which is run.
        """
        from ablate.exporting import as_trained
        from ablate.spec import load
        from ablate.tuning import as_far_as_tuned, planned

        name, (seed, _) = self._store.variant(variant)["name"], self._store.trial(variant, seed)
        plan = as_far_as_tuned(planned(spec or load(self.folder / "spec.yaml", trust=trust)), self.folder)
        return as_trained(plan, self.folder, name, seed).network

    def figure(self, name: str) -> Picture:
        """One of the report's figures: ``seeds``, ``curves``, ``costs``, ``effects``, …; a notebook shows it as SVG."""
        found = []
        for figure in self._figures():
            if figure.name == name:
                images = figure.images
                return Picture(name, figure.numbers, _text(images.svg), _bytes(images.png), figure.text)
            found.append(figure.name)
        raise UserError(Problem(f"{self.folder} has no figure '{name}'", hint=did_you_mean(name, found)))

    def explain(self, *, root: str | Path | None = None, trust: bool = False, **wanted: Any) -> dict[str, Picture]:
        """Grad-CAM, attention, gates and learnt joins of the trained networks, as ``ablate explain`` draws them.

        Written to the study's ``explained/``, in the place of what was there. ``wanted``: ``images``, ``of_class``,
        ``disagree``, ``count``, ``split``, ``variants``, ``seed``, ``nodes``, ``layer``, ``of``, ``pixels``, as the
        command's options. ``root``: where the images lie, if that is outside the study; ``trust``: let its spec name
        code. The numbers of a picture are arrays by name.
        """
        explain(self._store, wanted, sets=[] if root is None else [f"data.root={root}"], trust=trust)
        folder, found = self.folder / EXPLAINED, read_explained(self.folder)
        assert found is not None, "it was written"
        pictures = {}
        for figure in found.record["figures"]:
            name = figure["name"]
            with np.load(folder / f"{name}.npz", allow_pickle=False) as arrays:
                numbers = dict(arrays)
            png = (folder / f"{name}.png").read_bytes()
            pictures[name] = Picture(name, numbers, found.pictures[name].decode(), png, figure["text"])
        return pictures

    def certificate(self, variant: str | None = None) -> dict[str, Any]:
        """What was proven about a variant before it was trained."""
        record = self._store.variant(variant)
        found: dict[str, Any] | None = record.get("certificate")
        if found is None:
            raise UserError(f"'{record['name']}' of {self.folder} has no certificate")
        return found

    def report(self) -> Path:
        """Write the study's ``report/``, as ``ablate report`` does; the page with all of it."""
        return write_report(self._store)[-1]

    def _figures(self) -> Iterator[Figure]:
        if is_search(self._store):
            found = findings_of(self._store)
            return search_figures(found, importances(found))
        arms = arms_of(self._store)
        metric = compared_metric(self._store, arms)
        comparisons = comparisons_of(self._store, metric, arms) if metric else []
        effects = effects_of(self._store, metric, arms) if metric else None
        return study_figures(self._store, arms, metric, comparisons, effects)

    def __repr__(self) -> str:
        states = self._store.states()
        ended = sum(state.status in DONE for state in states.values())
        return f"Study('{self.folder}': {len(self._store.variants)} variants, {ended} of {len(states)} trials)"

    def _repr_html_(self) -> str:
        return _html(self.values())

    def __rich__(self) -> str:
        from rich.markup import escape as unmarked

        return unmarked(render(self.values(), "terminal"))


def explain(store: Store, wanted: Mapping[str, Any], *, sets: Sequence[str] = (), trust: bool = False) -> Explanation:
    """Look at a study's networks. ``wanted``: the fields of ``explaining.Wanted``; ``sets``: where things lie now.

    Errors (UserError): its images lie elsewhere, and the caller has named no folder; no such field, or not of its type;
    what ``explaining.explain`` says.
    """
    root = (store.spec.get("data") or {}).get("root")
    named = any(text.startswith("data.root") for text in sets)
    if root and not named and not Path(root).expanduser().resolve().is_relative_to(store.folder.resolve()):
        message = f"the images of {store.folder} lie in {root}, outside the study: whoever looks has to name the folder"
        again = shlex.join(["--set", f"data.root={root}"])
        raise UserError(Problem(message, hint=f"add {again} (from Python: root=)"))
    from pydantic import ValidationError

    from ablate.diagnose import problems
    from ablate.explaining import Wanted
    from ablate.explaining import explain as look
    from ablate.explaining.make import check_explainable
    from ablate.spec import load
    from ablate.tuning import as_far_as_tuned, planned

    try:
        choice = Wanted.model_validate(wanted)
    except ValidationError as error:
        raise UserError(problems(error, wanted, model=Wanted)) from None
    check_explainable(store, choice)
    spec = load(store.folder / SPEC, sets=sets, trust=trust)
    return look(as_far_as_tuned(planned(spec), store.folder), store, choice)


def _pandas() -> Any:
    try:
        import pandas
    except ImportError:
        raise UserError(
            Problem("a data frame needs the package pandas", hint="pip install 'ablate-harness[pandas]'")
        ) from None
    return pandas


Series = tuple[str, list[Any], str]
"""A column of a data frame: its name, its values, its unit."""


def _cells(table: Table, index: int) -> list[Cell]:
    return [row[index] for row in table.rows]


def _series(column: Column, cells: list[Cell]) -> list[Series]:
    """The columns of a data frame that a column of a table becomes."""
    if column.kind == "text":
        return [(column.name, [cell.text for cell in cells], "")]
    values: list[Series] = [(column.name, [cell.value for cell in cells], column.unit)]
    if column.kind == "number":
        return values
    bounds = [cell.interval or (None, None) for cell in cells]
    return [
        *values,
        (f"{column.name}.low", [low for low, _ in bounds], column.unit),
        (f"{column.name}.high", [high for _, high in bounds], column.unit),
        (f"{column.name}.n", [cell.n or 0 for cell in cells], ""),
    ]


def _each_once(series: list[Series]) -> Iterator[Series]:
    """Two columns of one name (a factor may have a metric's) are numbered."""
    seen: dict[str, int] = {}
    for name, values, unit in series:
        seen[name] = seen.get(name, 0) + 1
        yield (name if seen[name] == 1 else f"{name} ({seen[name]})"), values, unit


def _html(table: Table) -> str:
    head = "".join(f'<th style="text-align:{column.align}">{escape(column.header)}</th>' for column in table.columns)
    rows = "".join(f"<tr>{''.join(map(_td, table.columns, row))}</tr>" for row in table.rows)
    notes = "".join(f"<div>{escape(note)}</div>" for note in (table.caption, *table.footnotes) if note)
    return (
        f"<table><caption>{escape(table.title)}</caption><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
        f"<small>{notes}</small>"
    )


def _td(column: Column, cell: Cell) -> str:
    text = escape(cell.text)
    text = f"<b>{text}</b>" if cell.best else text
    note = f' title="{escape(cell.note)}"' if cell.note else ""
    return f'<td style="text-align:{column.align}"{note}>{text}</td>'


def _text(content: str | bytes) -> str:
    return content if isinstance(content, str) else content.decode()


def _bytes(content: str | bytes) -> bytes:
    return content.encode() if isinstance(content, str) else content
