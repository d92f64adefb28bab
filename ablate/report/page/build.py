"""Puts the page together: values into the template, everything in it escaped, nothing of it from elsewhere."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from ablate.analysis.arms import Arm
from ablate.analysis.widths import is_complete
from ablate.findings import is_search
from ablate.labels import clean
from ablate.quantities import COSTS
from ablate.report.claims import verdicts
from ablate.report.page import question, repeating
from ablate.report.page.drawings import inlined
from ablate.report.page.explained import explained
from ablate.report.page.tables import ShownTable, shown, verdict_table
from ablate.report.page.variants import (
    MOST_PICTURED,
    MOST_TOLD,
    failures,
    links_of,
    metric_header,
    told,
)
from ablate.report.tables import METRICS
from ablate.report.values import Table
from ablate.store import Study

if TYPE_CHECKING:
    from jinja2 import Template
    from markupsafe import Markup

    from ablate.figures import Figure

MOST_READINGS = 2000
MOST_FAILURES = 100
MOST_OF_A_SEARCH = 20
"""Trials that are told of one by one: the first of its table."""
HEADINGS = {
    "table": "Results",
    "comparisons": "Against the baseline",
    "controls": "Against the baseline at equal cost",
    "steps": "Step by step",
    "effects": "Main effects",
    "interactions": "Interactions",
    "order": "The papers: order of models",
    "importance": "What mattered",
}


@dataclass(frozen=True)
class Drawn:
    """A figure of the page; without a picture where that can't be read."""

    name: str
    text: str
    picture: Markup | None


def page(study: Study, arms: Sequence[Arm], tables: Mapping[str, Table], figures: Iterable[Figure] = ()) -> str:
    """``report.html``: the study as one file that asks nothing of any host.

    ``tables`` by the names of their files, in the order of the page, ``table`` among them.
    """
    return _template().render(values(study, arms, tables, figures))


def values(
    study: Study, arms: Sequence[Arm], tables: Mapping[str, Table], figures: Iterable[Figure] = ()
) -> dict[str, Any]:
    """What the template shows."""
    hidden = not is_complete(study, arms)
    told_of = _told_of(study, arms, tables["table"])
    links = links_of(told_of)
    metrics = [name for name in _metrics(study) if not (hidden and name.startswith("test."))]
    failed = failures(arms)
    readings = study.exposures()
    results = {arm.record["trials"][seed]: result for arm in arms for seed, result in arm.results.items()}
    command, about_command = repeating.command(study)
    style, script = _text("style.css"), _text("script.js")
    return {
        "title": str(study.spec.get("name") or study.folder.name),
        "search": is_search(study),
        "policy": _policy(style, script),
        "style": _marked(style),
        "script": _marked(script),
        "question": question.question(study, arms),
        "tables": [(HEADINGS.get(name, name), shown(name, table, links)) for name, table in tables.items()],
        "verdicts": _verdicts(study, arms, links),
        "figures": [_drawn(figure) for figure in figures],
        "looked": explained(study, hidden=hidden),  # before what is damaged is told
        "variants": list(told(study, told_of, metrics, hidden=hidden)),
        "metrics": [metric_header(name) for name in metrics],
        "left_out": _left_out(arms, told_of),
        "failures": failed[:MOST_FAILURES],
        "failures_left_out": max(0, len(failed) - MOST_FAILURES),
        "damaged": sorted(study.damaged.items()),
        "readings": readings[:MOST_READINGS],
        "readings_count": len(readings),
        "readings_of_trials": sum(each.get("by") != "explain" for each in readings),
        "readings_told": sum(int((result or {}).get("test_readings") or 0) for result in results.values()),
        "trials": len(results),
        "without_result": sum(result is None for result in results.values()),
        "environment": question.environment(study),
        "spec": repeating.spec_lines(study, hidden=hidden),
        "command": command,
        "about_command": about_command,
        "written": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }


def _told_of(study: Study, arms: Sequence[Arm], table: Table) -> list[Arm]:
    """The variants that are told of one by one; of a search, the first of its table."""
    if not is_search(study):
        return list(arms)
    by_name = {arm.name: arm for arm in arms}
    first = [row[0].text for row in table.rows[:MOST_OF_A_SEARCH]]
    return [by_name[name] for name in first if name in by_name]


def _left_out(arms: Sequence[Arm], told_of: Sequence[Arm]) -> str:
    said = []
    if len(told_of) < len(arms):
        said.append(f"The first {len(told_of)} of the table are shown here.")
    if len(told_of) > MOST_TOLD:
        said.append(f"The first {MOST_TOLD} of {len(told_of):,} are shown here.")
    if len(told_of) > MOST_PICTURED:
        said.append(f"With more than {MOST_PICTURED} variants the page has no diagram and no curves of any.")
    return " ".join(said)


def _metrics(study: Study) -> list[str]:
    """What a variant's trials are listed with: what the table has, and what the papers claim."""
    columns = list((study.spec.get("report") or {}).get("columns") or ("val.accuracy", "test.accuracy"))
    columns += [entry["metric"] for entry in study.spec.get("paper") or []]
    columns += list((study.spec.get("search") or {}).get("objectives") or ())
    return [name for name in dict.fromkeys(columns) if name not in COSTS and name in METRICS]


def _verdicts(study: Study, arms: Sequence[Arm], links: Mapping[str, str]) -> ShownTable | None:
    found = verdicts(study, arms)
    return shown("verdicts", verdict_table(found), links) if found else None


def _drawn(figure: Figure) -> Drawn:
    hover = figure.numbers.get("hover") if isinstance(figure.numbers, Mapping) else None
    return Drawn(
        figure.name, figure.text, inlined(figure.images.svg, f"f-{figure.name}", f"Figure {figure.name}", hover)
    )


def _policy(style: str, script: str) -> str:
    """No request is allowed, and no style or script but the page's own."""
    own = {kind: f"'sha256-{_digest(text)}'" for kind, text in (("style", style), ("script", script))}
    return (
        f"default-src 'none'; style-src {own['style']}; script-src {own['script']}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _text(name: str) -> str:
    return resources.files("ablate.report.page").joinpath(name).read_text(encoding="utf-8")


def _marked(text: str) -> Markup:
    from markupsafe import Markup

    return Markup(text)


@cache
def _template() -> Template:
    """The template, every value in it one clean line, and escaped."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, finalize=_finalized, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(_text("template.html.j2"))


def _finalized(value: Any) -> Any:
    """Of strangers' texts nothing but what is seen: no control characters, none that turn text round."""
    return clean(value) if type(value) is str else value
