"""What a search found, printed: for ``search`` when it is over, and for ``report``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from ablate.cli.common import print_json, print_table

if TYPE_CHECKING:
    from ablate.store import Study

TOP = 20


def print_findings(study: Study, format: str, top: int = TOP, *, json: bool = False) -> int:
    """Print the tables, or all values as JSON, and write the report. 0, or 1 where trials failed or are missing."""
    from ablate.findings import findings_of, importances
    from ablate.findings.importance import LEAST
    from ablate.report import write_report
    from ablate.report.captions import counted
    from ablate.report.search import importance_table, record, search_table

    found = findings_of(study)
    by_path = importances(found)
    if json:
        print_json(record(found, by_path))
    else:
        print_table(search_table(study, top, found), format)
        if by_path and format == "terminal":
            print_table(importance_table(found, by_path), format)
        elif format == "terminal" and 0 < len(found.ranked) < LEAST and not found.tuned:
            print(f"What mattered takes at least {LEAST} ranked trials to say.", file=sys.stderr)
    written = write_report(study)
    for key, why in study.damaged.items():
        print(f"damaged: {key}: {why}", file=sys.stderr)
    if found.failed or found.missing:
        missing = f"{counted(found.missing, 'trial')} missing"
        print(f"{missing}, {found.failed} failed: ablate status {study.folder}", file=sys.stderr)
    print(f"wrote {written[0].parent}/ ({counted(len(written), 'file')})", file=sys.stderr)
    return 1 if found.failed or found.missing else 0
