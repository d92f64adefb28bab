"""What a search found, from its study's folder alone: the best, the front, what mattered, what was in vain.

Numbers only; ``report.search`` makes tables of them and ``figures`` draws them.
"""

from ablate.findings.correlating import Correlation, correlations
from ablate.findings.curves import Front, History, Panel, fronts, histories, slices
from ablate.findings.importance import Importance, importances
from ablate.findings.reading import findings_of, is_search
from ablate.findings.values import Findings, Trial
from ablate.findings.winner import best_spec

__all__ = [
    "Correlation",
    "Findings",
    "Front",
    "History",
    "Importance",
    "Panel",
    "Trial",
    "best_spec",
    "correlations",
    "findings_of",
    "fronts",
    "histories",
    "importances",
    "is_search",
    "slices",
]
