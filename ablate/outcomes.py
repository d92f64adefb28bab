"""How a trial can end, and what a sweep does about it. The words of the store, the table and the command line.

=============== ================================================================ =======================
status          what happened                                                    ``ablate sweep`` again
=============== ================================================================ =======================
finished        it was trained and evaluated                                     keeps it
pruned          a search's pruner ended it                                       keeps it
diverged        the loss or a metric is NaN or infinite                          ``--retry-failed``
crashed         a bug: the result has its traceback                              ``--retry-failed``
out_of_memory   it did not fit, not even alone on its device                     ``--retry-failed``
timed_out       it took longer than ``execution.trial_timeout``                  if it now has more time
lost            its worker or node died, more often than ``execution.retries``   goes on from its checkpoint
interrupted     the sweep ended before it did                                    goes on from its checkpoint
=============== ================================================================ =======================
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

DONE = ("finished", "pruned")
"""Those that no sweep repeats: of a pruned trial the metrics are those of its last epoch, and it is in no mean."""
FAILED = ("diverged", "crashed", "out_of_memory", "timed_out", "lost")
RESULTS = (*DONE, *FAILED)
"""The statuses that a recorded result can have."""
STATES = (*RESULTS, "interrupted", "running", "waiting", "damaged")
"""What a trial of a study can be: a result's status or, without a sound result, the rest.

``running`` and ``interrupted`` have begun: a sweep holds the study, or none does. ``waiting`` has never begun.
"""
RESUMABLE = ("timed_out", "lost", "out_of_memory")
"""Results whose trial goes on from its checkpoint when it is repeated: nothing was wrong with what it had computed."""
PROPOSED = ("trained", "rejected", "duplicate", "filtered", "impossible", "uncertified")
"""What a search does with a point of its space. It is trained, or else: it breaks a constraint; it equals one that was
proposed before; its score is too low; no network can be built of it; its certificate has failures.
"""


def repeated(result: Mapping[str, Any], *, retry_failed: bool = False, trial_timeout: float | None = None) -> bool:
    """Whether a sweep trains a trial again that has this result. ``trial_timeout``: seconds that it would have now."""
    status = result["status"]
    if status in DONE:
        return False
    if status == "lost" or retry_failed:
        return True
    had = result.get("trial_timeout")
    return status == "timed_out" and had is not None and (trial_timeout is None or trial_timeout > had)


def untrained(outcomes: Mapping[str, int]) -> list[str]:
    """``rejected 31``, ``duplicates 4``: how many proposals had which outcome, those that were trained left out."""
    words = {"duplicate": "duplicates"}
    return [f"{words.get(kind, kind)} {outcomes[kind]:,}" for kind in PROPOSED[1:] if outcomes.get(kind)]
