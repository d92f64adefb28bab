"""The store: a study's folder, and the only package that knows its paths.

    runs/placement/
      spec.yaml          the resolved spec             environment.json   packages, git commit, devices
      certificates.json  the variants' records         trials.sqlite      an index, rebuilt from the folders at will
      diagrams.json      pictures of their networks
      trials/<hash>/     trial.json, metrics.jsonl, predictions.npz, checkpoint.pt; result.json last
                         state.pt, from which a trial that was cut off goes on
      exposures.jsonl    every reading of the test split
      proposals.jsonl    of a search: what was proposed, and what became of it
      optuna.jsonl       of a search: Optuna's journal    tuning/            the search that tunes a study's variants
      events.jsonl       what the sweeps told while they ran
      report/            table.md, table.tex, table.csv
      tracking/          what the trackers of ``--track`` were sent
      explained/         pictures and arrays of what the networks look at

The folder is the truth. A file is replaced whole or not at all; a result carries the checksums of its trial's files,
so that damage is found and never read as a result, and the study's records carry their own, the proposals one a line.
The other logs of lines (``exposures.jsonl``, ``events.jsonl``) have none: they are appended to, and a damaged line
spoils no other. JSON is Python's dialect: a diverged loss is ``NaN``, as it was.
"""

from ablate.store.growing import MAY_CHANGE, begun_with, seeds_of
from ablate.store.layout import (
    CERTIFICATES,
    CHECKPOINT,
    DIAGRAMS,
    ENVIRONMENT,
    EVENTS,
    EXPLAINED,
    EXPOSURES,
    FORMAT,
    INDEX,
    JOURNAL,
    LOCK,
    METRICS,
    PREDICTIONS,
    PROPOSALS,
    REPORT,
    RESULT,
    SPEC,
    STATE,
    TRACKING,
    TRIAL,
    TRIALS,
    TUNING,
    is_study,
    study_folder,
)
from ablate.store.states import TrialState
from ablate.store.study import Study
from ablate.store.tracking import Trackers

__all__ = [
    "CERTIFICATES",
    "CHECKPOINT",
    "DIAGRAMS",
    "ENVIRONMENT",
    "EVENTS",
    "EXPLAINED",
    "EXPOSURES",
    "FORMAT",
    "INDEX",
    "JOURNAL",
    "LOCK",
    "MAY_CHANGE",
    "METRICS",
    "PREDICTIONS",
    "PROPOSALS",
    "REPORT",
    "RESULT",
    "SPEC",
    "STATE",
    "TRACKING",
    "TRIAL",
    "TRIALS",
    "TUNING",
    "Study",
    "Trackers",
    "TrialState",
    "begun_with",
    "is_study",
    "seeds_of",
    "study_folder",
]
