"""Everything that is known about a study before its first training step: data, certificates, the list of trials."""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from importlib import metadata
from itertools import islice
from pathlib import Path
from typing import Any

from ablate.certify import Certificate, Certifier, failed
from ablate.data.dataset import DataSpec, ImageData
from ablate.data.dataset import load as load_data
from ablate.design import StudyPlan, Variant, budget_set, more_seeds, resized_by, root_is_trusted, trial_hash
from ablate.diagram import Drawing, drawing_of, fold, kinds_of, svg
from ablate.errors import Problem, UserError, listed
from ablate.numerics import Numerics, process_settings
from ablate.placing import available_cpus
from ablate.resolving import Resolved, on_this_machine, resolved
from ablate.store import Study, seeds_of, study_folder
from ablate.train import Trial, time_steps, trial_of

PACKAGES = ("ablate-harness", "torch", "torchvision", "ray", "numpy", "pydantic", "fvcore")
MOST_DIAGRAMS = 60
"""Of more no page is legible."""


@dataclass
class Prepared:
    """A plan with its data and certificates: everything that is known before the first training step."""

    plan: StudyPlan
    settled: Resolved
    """What ``auto`` came to."""
    folder: Path
    """Where the study is, or will be."""
    data: dict[str, ImageData]
    """Arrays by ``data_key`` of a variant's ``data`` section."""
    certificates: dict[str, Certificate]
    trials: list[Trial]
    """The distinct ones, seed by seed, so that a table fills evenly."""
    hashes: dict[str, dict[int, str]] = field(default_factory=dict)
    """Variant → seed → trial; duplicates share another variant's."""
    at_once: int | None = None
    """How many trials run at once, if the spec or the caller says so."""

    @property
    def numerics(self) -> Numerics:
        return self.settled.numerics

    def data_of(self, variant_name: str) -> ImageData:
        return self.data[self.key_of(variant_name)]

    def key_of(self, variant_name: str) -> str:
        """Which of ``data`` it trains on."""
        return data_key(self.plan.variant(variant_name).data)

    @property
    def failures(self) -> list[str]:
        return failed(self.certificates)


def data_key(data: DataSpec) -> str:
    """Equal for sections with the same examples: augmentation and mixing act on batches, so these are loaded once."""
    return json.dumps(data.model_dump(mode="json", exclude={"augment", "mix"}), sort_keys=True)


def prepare(
    plan: StudyPlan,
    on_variant: Callable[[str], None] = lambda name: None,
    *,
    folder: Path | None = None,
    concurrent: int | None = None,
    measure: bool = True,
) -> Prepared:
    """Load the data, settle the numerics and certify every variant. ``UserError`` where one of these can't be done.

    ``folder`` is where the study is or will be (default: as its name says), ``concurrent`` how many trials run at once
    (default: as the spec says), ``measure`` whether training steps are timed to find how trials are placed best.
    """
    folder = folder_of(plan, folder)
    if plan.most_seeds:  # those that the study has come to
        plan = replace(plan, seeds=more_seeds(seeds_of(folder), len(plan.seeds)))
    data: dict[str, ImageData] = {}
    data_of = loader(plan, data)
    settled = resolved(plan, data_of, folder=folder, concurrent=concurrent, measure=measure)
    certifier = Certifier(data_of, settled.numerics, plan.seeds[0])
    certificates: dict[str, Certificate] = {}
    for variant in plan.variants:
        on_variant(variant.name)
        baseline = plan.variant(variant.baseline) if variant.baseline else None
        certificates[variant.name] = certifier.certify(variant, baseline)
    stated = plan.execution.max_concurrent
    at_once = settled.placement.concurrent if concurrent or stated != "auto" else None
    prepared = Prepared(plan, settled, folder, data, certificates, [], at_once=at_once)
    _list_trials(prepared, data_of)
    return prepared


def with_seeds(prepared: Prepared, seeds: list[int]) -> Prepared:
    """The same with the trials of these seeds: data, numerics and certificates stay as they are."""
    grown = replace(prepared, plan=replace(prepared.plan, seeds=seeds), trials=[], hashes={})
    _list_trials(grown, loader(grown.plan, grown.data))
    return grown


def certificate_of(plan: StudyPlan, name: str) -> Certificate:
    """The certificate of one variant; the others are not certified."""
    variant = plan.variant(name)
    baseline = plan.variant(variant.baseline) if variant.baseline else None
    return Certifier(loader(plan), on_this_machine(plan), plan.seeds[0]).certify(variant, baseline)


def folder_of(plan: StudyPlan, folder: Path | None = None) -> Path:
    """The study's folder: ``folder`` if it is named, else ``runs/NAME``.

    A profile's study has a folder of its own, ``runs/NAME-PROFILE``: its numbers are not those of the study without.
    """
    if folder is not None:
        return folder
    profile = f"-{plan.tree['profile']}" if plan.tree.get("profile") else ""
    return study_folder(Path("runs"), f"{plan.tree['name']}{profile}")


def loader(plan: StudyPlan, data: dict[str, ImageData] | None = None) -> Callable[[DataSpec], ImageData]:
    """Loads the arrays of a ``data`` section once, and keeps them in ``data``."""
    data = {} if data is None else data
    trusted = root_is_trusted(plan.spec)

    def data_of(spec: DataSpec) -> ImageData:
        key = data_key(spec)
        if key not in data:
            data[key] = load_data(spec, base=plan.spec.folder, trusted_root=trusted)
        return data[key]

    return data_of


def _list_trials(prepared: Prepared, data_of: Callable[[DataSpec], ImageData]) -> None:
    plan, numerics = prepared.plan, prepared.numerics
    listed: set[str] = set()
    for seed in plan.seeds:
        for variant in plan.variants:
            original = plan.variant(variant.duplicate_of) if variant.duplicate_of else variant
            content = data_of(original.data).content_hash
            key = trial_hash(original, seed, content, numerics.as_dict())
            prepared.hashes.setdefault(variant.name, {})[seed] = key
            # Two variants may differ in where their data lie and not in what lies there.
            if original is variant and key not in listed:
                listed.add(key)
                prepared.trials.append(trial_of(variant, seed, numerics, key))


def variant_records(prepared: Prepared) -> list[dict[str, Any]]:
    """The rows of ``certificates.json``, with what makes their numbers others than those that a paper is about."""
    changes = {"resized_by": resized_by(prepared.plan.spec), "budget_set": budget_set(prepared.plan.spec)}
    changed = {key: value for key, value in changes.items() if value} if prepared.plan.paper else {}
    return [
        variant_record(
            variant,
            prepared.hashes[variant.name],
            prepared.certificates[variant.name],
            prepared.data_of(variant.name),
            prepared.numerics,
        )
        | changed
        | _near(prepared.plan, variant.name)
        for variant in prepared.plan.variants
    ]


def _near(plan: StudyPlan, name: str) -> dict[str, Any]:
    """In what the variant is as expensive as its baseline: cost → tolerance."""
    found = {near.match: near.tolerance for near in plan.near if near.variant == name}
    return {"near": found} if found else {}


def variant_record(
    variant: Variant, trials: Mapping[int, str], certificate: Certificate, data: ImageData, numerics: Numerics
) -> dict[str, Any]:
    """What a study keeps of a variant. ``trials``: seed → hash."""
    idle = variant.inactive_factors()
    return {
        "name": variant.name,
        "levels": {factor: None if factor in idle else level for factor, level in variant.levels.items()},
        "patch": [[each.dotted, each.value] for level in variant.patched for each in level.assignments],
        "baseline": variant.baseline,
        "identity": variant.identity,
        "duplicate_of": variant.duplicate_of,
        "trials": {str(seed): key for seed, key in trials.items()},
        "cost": {key: certificate.cost[key] for key in ("params", "flops")},
        "certificate": certificate.as_dict(),
        "data": data.description,
        "data_hash": data.content_hash,
        "epochs": variant.train.epochs,
        "precision": numerics.stated(variant.train.precision),
    } | ({"control": asdict(variant.control)} if variant.control else {})


def environment() -> dict[str, Any]:
    """Packages, commit and machine, for whoever asks later what the numbers ran on."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return {
        "python": platform.python_version(),
        "packages": versions,
        "platform": platform.platform(),
        "processor": _processor(),
        "cpus": available_cpus(),
        "git_commit": _git_commit(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def _git_commit() -> str | None:
    command = ["git", "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def create_study(prepared: Prepared) -> Study:
    """The study's folder: spec, certificates, environment. ``UserError`` where a certificate has failures."""
    if prepared.failures:
        raise UserError([Problem(f"not certified: {failure}") for failure in prepared.failures])
    untuned = [variant.name for variant in prepared.plan.distinct if variant.tuning is None]
    if prepared.plan.tree.get("tune") and untuned:
        raise ValueError(f"variants are to be tuned first (tuning.tuned): {', '.join(untuned)}")
    spec = {**prepared.plan.tree, "numerics": prepared.numerics.as_dict()}
    return Study.create(
        prepared.folder, spec, variant_records(prepared), environment(), diagrams_of(prepared.plan.variants)
    )


def diagrams_of(variants: Iterable[Variant]) -> dict[str, str]:
    """Pictures of the first ``MOST_DIAGRAMS`` distinct networks as SVG, by fingerprint, titled by who has them."""
    names: dict[str, list[str]] = {}
    graphs: dict[str, Variant] = {}
    for variant in variants:
        fingerprint = variant.network.graph.fingerprint
        graphs.setdefault(fingerprint, variant)
        names.setdefault(fingerprint, []).append(variant.name)
    return {
        fingerprint: svg(fold(_drawn(variant, listed(names[fingerprint], 3)), unchanged=False))
        for fingerprint, variant in islice(graphs.items(), MOST_DIAGRAMS)
    }


def _drawn(variant: Variant, title: str) -> Drawing:
    return drawing_of(variant.network.graph, title, kinds_of(variant.network.written))


def timed_seconds(prepared: Prepared, steps: int = 3) -> dict[str, float]:
    """Estimated seconds of training per trial, by variant: a few real steps, timed, after one to warm up."""
    seconds: dict[str, float] = {}
    numerics = replace(prepared.numerics, compile=False)  # what is timed is a step, not the compiler
    with process_settings(numerics):
        for variant in prepared.plan.distinct:
            trial = trial_of(variant, prepared.plan.seeds[0], numerics)
            seconds[variant.name] = time_steps(trial, prepared.data_of(variant.name), steps)
    return seconds
