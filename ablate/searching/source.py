"""A search as a source of trials: what is proposed, what of it is trained, what the sampler is told.

Every proposal is put on record in the study before its trial begins, and every result before the sampler is told of it.
So whatever a killed search leaves undone is made up for when the next one begins: a proposal without a record is judged
again, as it was to be; one whose trial has a result is told; one whose trial has none is trained on.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ablate.cache import Cache
from ablate.code import code_digest
from ablate.design import Variant
from ablate.driving import Listed, pruned_after
from ablate.errors import Problem, UserError
from ablate.outcomes import repeated
from ablate.prepare import variant_record
from ablate.proposing import Proposal, Proposer, Pruner
from ablate.searching.candidates import Candidate, Candidates, broken, in_order_of_cost, point_of, reason
from ablate.space import KNOWN_METRICS, Bound, BudgetSpec, FilterSpec
from ablate.store import Study
from ablate.train import Trial, trial_of

FUTILE = 1_000
"""Proposals in a row of which none is a new trial, after which a search ends: what is left to find is not worth it."""
AT_ONCE = 50
"""Proposals that are looked at before whoever asks is asked whether there is time for more."""


@dataclass(frozen=True)
class Aims:
    """What is wanted of a search's networks, and how much may be spent on finding them."""

    objectives: Mapping[str, str]
    budget: BudgetSpec
    constraints: Mapping[str, Bound] = field(default_factory=dict)
    filter: FilterSpec | None = None
    monitored: str | None = None
    """The metric by which trials are pruned."""

    @property
    def known(self) -> list[str]:
        """The metrics that have to be known of a network before it is trained."""
        asked = [*self.constraints, *self.objectives, *([self.filter.by] if self.filter else [])]
        return [metric for metric in KNOWN_METRICS if metric in asked or metric in ("params", "flops")]


ENDED = {
    "epochs": "the budget of epochs is spent",
    "exhausted": "every point of the space was proposed",
    "futile": f"of {FUTILE:,} proposals in a row none was a new trial",
}
"""Why a search is over before it has as many trials as it may."""


class Search:
    """One search in a study: the driver's source. Its trials' seed is ``candidates.seed``; ``name`` precedes a number.

    ``trials`` and ``variants``, by hash, is what executors look up; this adds to them.
    """

    def __init__(
        self,
        study: Study,
        candidates: Candidates,
        proposer: Proposer,
        aims: Aims,
        *,
        pruner: Pruner | None = None,
        name: str = "",
        cache: Cache | None = None,
        tell: Callable[..., None] = lambda event, **about: None,
        trials: dict[str, Trial] | None = None,
        variants: dict[str, Variant] | None = None,
        retry_failed: bool = False,
        trial_timeout: float | None = None,
    ) -> None:
        self.study, self.candidates, self.proposer, self.aims = study, candidates, proposer, aims
        self.pruner, self.name, self.cache, self.tell = pruner, name, cache, tell
        self.trials = {} if trials is None else trials
        self.variants = {} if variants is None else variants
        self.why_over: str | None = None
        """Why no more is proposed: ``trials``, ``epochs``, ``exhausted`` or ``futile``."""
        self._records: dict[str, dict[str, Any]] = {}
        """By hash, of what is trained."""
        self.results: dict[str, dict[str, Any]] = {}
        """By hash, of what has ended."""
        self._waiting: dict[str, list[int]] = {}
        """By hash: proposals that are the same as a trial that runs."""
        self._scores: list[float] = []
        self._epochs: dict[str, int] = {}
        self._again: deque[Listed] = deque()
        self._open: deque[Proposal] = deque()
        self._futile = 0
        self._best: tuple[str, dict[str, float]] | None = None
        self._judged_up_to: dict[str, int] = {}
        """By hash: the last epoch by which a trial was not pruned."""
        self._take_up(retry_failed, trial_timeout)

    # What an earlier call has left.

    def _take_up(self, retry_failed: bool, trial_timeout: float | None) -> None:
        records = {record["number"]: record for record in self.study.proposals() if self._is_own(record)}
        if max(records, default=-1) >= self.proposer.proposed:
            where = f"{self.study.folder}: proposals are on record that its journal lacks"
            message = f"{where}, from number {self.proposer.proposed} on"
            raise UserError(Problem(message, hint="put back the newest copy of optuna.jsonl, or choose another --out"))
        self._futile = _trailing(records)
        trained = {record["trial"]: record for record in records.values() if record["outcome"] == "trained"}
        self._records = trained
        results = self.study.results(trained)
        states = self.study.states()
        read = Counter(exposure.get("trial") for exposure in self.study.exposures())
        for hash in trained.keys() & results.keys():  # of what the cache gave just before a call was killed
            self._put_readings_on_record(trained[hash], results[hash]["test_readings"] - read[hash])
        self._epochs = {hash: states[hash].epochs for hash in trained}
        self._scores = list(self._scored(records.values()))
        undone = [
            hash
            for hash in trained
            if hash not in results or repeated(results[hash], retry_failed=retry_failed, trial_timeout=trial_timeout)
        ]
        for hash, result in results.items():
            if hash not in undone:
                self.results[hash] = result
                self._recall(hash, self.study.metrics(hash))
        for hash in undone:
            if hash not in results and (row := self._was_to_be_pruned(hash)) is not None:
                result = pruned_after(row, _seconds(self.study.metrics(hash)), read[hash])
                self.study.finish(hash, result | {"attempts": states[hash].attempts})
                self.results[hash] = self.study.results([hash])[hash]
            else:
                self._again.append(self._listed_anew(trained[hash]))
        for hash, record in trained.items():
            if hash in self.results:
                self._note_best(record, self.results[hash])
        for proposal in self.proposer.open:
            said = records.get(proposal.number)
            if said is None:
                self._open.append(proposal)
            elif said["trial"] is None:
                self.proposer.refuse(proposal.number, said["why"], said["known"])
            elif said["trial"] in self.results:
                self._answer(proposal.number, said["trial"])
            else:
                self._waiting.setdefault(said["trial"], []).append(proposal.number)

    def _is_own(self, record: Mapping[str, Any]) -> bool:
        return str(record["name"]) == self._named(record["number"])

    def _scored(self, records: Iterable[Mapping[str, Any]]) -> Iterator[float]:
        """The scores by which proposals were filtered, of those that came so far."""
        if self.aims.filter is not None:
            for record in records:
                if record["outcome"] in ("trained", "filtered", "uncertified"):
                    yield record["known"][self.aims.filter.by]

    def _named(self, number: int) -> str:
        return f"{self.name}/{number}" if self.name else str(number)

    def _listed_anew(self, record: Mapping[str, Any]) -> Listed:
        """A trial of an earlier call, for this one's executor: built again from what was proposed."""
        candidate = self.candidates.built(record["name"], point_of(self.candidates.grid, record))
        if candidate.hash != record["trial"]:
            message = f"{self.study.folder}: proposal {record['name']} is another trial now"
            why = "the code of a block of your own, the data or a version has changed since"
            raise UserError(Problem(f"{message}: {why}", hint="choose another --out"))
        return self._listed(candidate)

    # The driver's source.

    @property
    def exhausted(self) -> bool:
        if self._again:
            return False
        budget = self.aims.budget
        if self.why_over is None:
            if len(self._records) >= budget.trials:
                self.why_over = "trials"
            elif budget.epochs is not None and sum(self._epochs.values()) >= budget.epochs:
                self.why_over = "epochs"
            elif self._futile >= FUTILE:
                self.why_over = "futile"
        return self.why_over is not None

    def propose(self) -> Listed | None:
        if self._again:
            return self._again.popleft()
        for _ in range(AT_ONCE):
            if self.exhausted:
                return None
            proposal = self._open.popleft() if self._open else self.proposer.propose()
            if proposal is None:
                self.why_over = "exhausted"
                return None
            listed = self._judged(proposal)
            self._futile = 0 if listed is not None else self._futile + 1
            if listed is not None:
                return listed
        return None

    def goes_on(self, trial: Listed, row: Mapping[str, Any]) -> bool:
        epoch = int(row["epoch"])
        self._epochs[trial.hash] = epoch
        return self._is_worth(trial.hash, row)

    def ended(self, trial: Listed, result: Mapping[str, Any]) -> None:
        self._has_ended(trial.hash, result)

    # One proposal.

    def _judged(self, proposal: Proposal) -> Listed | None:
        """On record, and told where it is not to be trained."""
        number, name = proposal.number, self._named(proposal.number)
        grid = self.candidates.grid
        record: dict[str, Any] = {
            "number": number,
            "name": name,
            "levels": grid.labels(proposal.point),
            "values": grid.values(proposal.point),
            "outcome": "impossible",
            "trial": None,
            "of": None,
            "why": "",
            "broken": [],
            "known": {},
        }
        try:
            candidate = self.candidates.built(name, proposal.point)
        except UserError as error:
            self._refused(record, "impossible", reason(error.problems))
            return None
        same = self._records.get(candidate.hash)
        if same is not None:
            self._duplicate(record, candidate, same)
            return None
        objection = self._objection(candidate)
        record["known"] = dict(candidate.known)
        if objection is not None:
            outcome, why, missed = objection
            self._refused({**record, "broken": missed}, outcome, why)
            return None
        certificate = self.candidates.certificate(candidate)
        if certificate.failures:
            self._refused(record, "uncertified", "; ".join(certificate.failures))
            return None
        return self._accepted(record, candidate, certificate)

    def _objection(self, candidate: Candidate) -> tuple[str, str, list[str]] | None:
        """Why it is not trained, as the outcome, in words, and the metrics whose constraints it breaks."""
        for metrics in in_order_of_cost(self.aims.known):
            try:
                self.candidates.learn(candidate, metrics)
            except UserError as error:
                return "impossible", reason(error.problems), []
            if missed := broken(candidate.known, self.aims.constraints):
                return "rejected", "; ".join(missed.values()), list(missed)
        why = self._filtered(candidate)
        return ("filtered", why, []) if why is not None else None

    def _refused(self, record: dict[str, Any], outcome: str, why: str) -> None:
        self._put_on_record({**record, "outcome": outcome, "why": why})
        self.proposer.refuse(record["number"], f"{outcome}: {why}", record["known"])

    def _duplicate(self, record: dict[str, Any], candidate: Candidate, same: Mapping[str, Any]) -> None:
        about = {"trial": candidate.hash, "of": same["number"], "known": same["known"]}
        why = f"the same network and recipe as {same['name']}"
        self._put_on_record({**record, **about, "outcome": "duplicate", "why": why})
        self.proposer.note(record["number"], outcome=why)
        if candidate.hash in self.results:
            self._answer(record["number"], candidate.hash)
        else:
            self._waiting.setdefault(candidate.hash, []).append(record["number"])

    def _filtered(self, candidate: Candidate) -> str | None:
        """Why its score keeps it from being trained."""
        wanted = self.aims.filter
        if wanted is None:
            return None
        score = candidate.known[wanted.by]
        self._scores.append(score)
        place = sum(other > score for other in self._scores)
        if len(self._scores) <= wanted.after or place < math.ceil(wanted.keep * len(self._scores)):
            return None
        return f"{wanted.by} {score:.4g} is not among the best {wanted.keep:.0%} of {len(self._scores)}"

    def _accepted(self, record: dict[str, Any], candidate: Candidate, certificate: Any) -> Listed | None:
        variant, hash, number = candidate.variant, candidate.hash, record["number"]
        data = self.candidates.data_of(variant.data)
        kept = variant_record(variant, {self.candidates.seed: hash}, certificate, data, self.candidates.numerics)
        record |= {"outcome": "trained", "trial": hash, "variant": kept}
        self._put_on_record(record)
        self._records[hash] = record
        self._epochs[hash] = 0
        self._waiting.setdefault(hash, []).append(number)
        self.proposer.note(number, trial=hash, **candidate.known)
        listed = self._listed(candidate)
        if self.cache is not None and self.cache.take(self.study, hash, code_digest()):
            self.tell("proposed", number=record["name"], outcome="cached", why="", epochs=listed.epochs)
            result = self.study.results([hash])[hash]
            self._put_readings_on_record(record, result["test_readings"])
            self._recall(hash, self.study.metrics(hash))
            self._has_ended(hash, result)
            return None
        return listed

    def _put_readings_on_record(self, record: Mapping[str, Any], missing: int) -> None:
        """Readings of the test split that were made elsewhere, by a trial of the cache."""
        for _ in range(missing):
            about = {"trial": record["trial"], "variant": record["name"], "seed": self.candidates.seed}
            self.study.expose(by="cache", **about, epoch=None)

    def _put_on_record(self, record: dict[str, Any]) -> None:
        self.study.propose(record)
        if record["outcome"] != "trained":
            self.tell("proposed", number=record["name"], outcome=record["outcome"], why=record["why"])

    def _listed(self, candidate: Candidate) -> Listed:
        variant, hash = candidate.variant, candidate.hash
        self.trials[hash] = trial_of(variant, self.candidates.seed, self.candidates.numerics, hash)
        self.variants[hash] = variant
        return Listed(hash, variant.name, self.candidates.seed, variant.train.epochs)

    # What came of it.

    def _has_ended(self, hash: str, result: Mapping[str, Any]) -> None:
        self.results[hash] = dict(result)
        self._epochs[hash] = int(result["epochs"])
        self.trials.pop(hash, None)
        self.variants.pop(hash, None)
        for number in self._waiting.pop(hash, []):
            self._answer(number, hash)
        if self._note_best(self._records[hash], result):
            self.tell_best()

    def _answer(self, number: int, hash: str) -> None:
        """Tell the sampler what the trial came to that this proposal is."""
        result, record = self.results[hash], self._records[hash]
        values = values_of(self.aims.objectives, result, record["known"])
        if result["status"] == "finished" and values is not None:
            self.proposer.tell(number, {**record["known"], **values})
        elif result["status"] == "pruned" and self.aims.monitored in result["metrics"]:
            self.proposer.prune(number, int(result["epochs"]), float(result["metrics"][self.aims.monitored]))
        elif result["status"] != "lost":  # the next call goes on with that one, and tells what came of it
            self.proposer.fail(number, str(result["status"]))

    def _note_best(self, record: Mapping[str, Any], result: Mapping[str, Any]) -> bool:
        """Whether it is better than all before it: of one objective, and of several in the first."""
        values = values_of(self.aims.objectives, result, record["known"]) if result["status"] == "finished" else None
        if values is None:
            return False
        metric, way = next(iter(self.aims.objectives.items()))
        if self._best is not None and (values[metric] - self._best[1][metric]) * (1 if way == "maximize" else -1) <= 0:
            return False
        self._best = (record["name"], values)
        return True

    def tell_best(self) -> None:
        """The best so far, if there is one; of several searches in a study each has its own, and none is told."""
        if self._best is not None and not self.name:
            self.tell("best", number=self._best[0], values=self._best[1])

    # Pruning.

    def _is_worth(self, hash: str, row: Mapping[str, Any]) -> bool:
        """Whether a trial goes on. What goes on from a checkpoint may come to an epoch that was judged already."""
        metric, epoch = self.aims.monitored, int(row["epoch"])
        if self.pruner is None or metric is None or metric not in row or epoch <= self._judged_up_to.get(hash, 0):
            return True
        self._judged_up_to[hash] = epoch
        if epoch >= int(self._records[hash]["variant"]["epochs"]):  # nothing is left to be saved
            self.pruner.recall(self._records[hash]["name"], [(epoch, float(row[metric]))])
            return True
        return not self.pruner.judge(self._records[hash]["name"], epoch, float(row[metric]))

    def _was_to_be_pruned(self, hash: str) -> Mapping[str, Any] | None:
        """The epoch after which an earlier call would have pruned it, had it not ended just then.

        It is the last one, if any: after each of the others the trial was let go on.
        """
        rows = self.study.metrics(hash)
        self._recall(hash, rows[:-1])
        return rows[-1] if rows and not self._is_worth(hash, rows[-1]) else None

    def _recall(self, hash: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Tell the pruner of epochs that it is not to judge any more."""
        metric = self.aims.monitored
        if self.pruner is not None and metric is not None:
            rows = [row for row in rows if metric in row]
            self._judged_up_to[hash] = max((int(row["epoch"]) for row in rows), default=0)
            self.pruner.recall(self._records[hash]["name"], [(int(row["epoch"]), float(row[metric])) for row in rows])


def _trailing(records: Mapping[int, Mapping[str, Any]]) -> int:
    """How many proposals came after the last that was trained."""
    last = max((number for number, record in records.items() if record["outcome"] == "trained"), default=-1)
    return sum(number > last for number in records)


def _seconds(rows: Sequence[Mapping[str, Any]]) -> float:
    return sum(float(row["seconds"]) for row in rows)


def values_of(
    objectives: Mapping[str, str], result: Mapping[str, Any], known: Mapping[str, float]
) -> dict[str, float] | None:
    """The objectives' values of a trained network; None where one is missing or no number."""
    found: dict[str, float] = {}
    for metric in objectives:
        value = known.get(metric, result["metrics"].get(metric, result["seconds"] if metric == "seconds" else None))
        if value is None or not math.isfinite(value):
            return None
        found[metric] = float(value)
    return found
