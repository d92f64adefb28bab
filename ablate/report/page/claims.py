"""A certificate in words: what was proven of a variant before it was trained, with its numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ablate.errors import listed
from ablate.report.captions import counted

MOST_NAMES = 12
Record = Mapping[str, Any]


@dataclass(frozen=True)
class Claim:
    """One claim of the certificate: what it is about, and its sentences."""

    about: str
    said: tuple[str, ...]


def claims(certificate: Record) -> list[Claim]:
    """Those that the record makes, in the order of the certificate; older records make fewer."""
    found = [
        ("Keys", _keys(certificate.get("keys") or {})),
        ("Identity", _identity(certificate)),
        ("Difference from the baseline", _difference(certificate.get("difference"))),
        ("Passes over a real batch", _passes(certificate)),
        ("Shared start and first batches", _shared(certificate)),
        ("Protocol", tuple(map(str, certificate.get("protocol") or ()))),
        ("Tuning", _tuning(certificate.get("tuning") or {})),
        ("Failures", tuple(map(str, certificate.get("failures") or ()))),
    ]
    return [Claim(about, tuple(said)) for about, words in found if (said := list(words))]


def _keys(keys: Record) -> Iterable[str]:
    if "used" in keys:
        yield f"All {counted(keys['used'], 'key')} of its network, data and recipe are used."
    for word, entries in (
        ("Unused, since another key was changed", keys.get("orphans")),
        ("Without effect here", keys.get("inactive")),
    ):
        if entries:
            yield f"{word}: {listed([str(each.get('path')) for each in entries], MOST_NAMES)}."


def _identity(certificate: Record) -> Iterable[str]:
    if certificate.get("identity"):
        yield f"Network, initialisation, recipe and data together: {certificate['identity']}."
    if certificate.get("fingerprint"):
        yield f"The network alone: {certificate['fingerprint']}."
    if certificate.get("init"):
        yield f"Parameters are initialised by {certificate['init']}."
    if weights := certificate.get("weights"):
        yield f"{weights.get('loaded')} of {weights.get('of')} parameters and buffers start from {weights.get('from')}."
    for name, told in (certificate.get("code") or {}).items():
        package = " ".join(filter(None, (told.get("distribution"), told.get("version")))) or "a file beside the spec"
        yield f"{name} is code from {package}: {told.get('digest')}."


def _difference(found: Record | None) -> Iterable[str]:
    if found is None:
        return
    nodes = [f"{len(found.get(key) or ())} {key}" for key in ("added", "removed", "changed")]
    yield f"Against {found.get('baseline')}: nodes: {', '.join(nodes)}."
    yield f"{signed(found.get('params'))} parameters, {signed(found.get('flops'))} FLOPs."


def _passes(certificate: Record) -> Iterable[str]:
    passes: Record = certificate.get("passes") or {}
    if "batch" not in passes:
        yield "Not run."
        return
    yield (
        f"Forward and backward over {counted(passes['batch'], 'image')}: each of its {passes.get('nodes')} nodes is "
        "called and reads what the graph says."
    )
    gradients: Record = passes.get("gradients") or {}
    if gradients:
        exempt = [name for key in ("invariant", "cancelled_by_batch_norm") for name in gradients.get(key) or ()]
        yield (
            f"{gradients.get('with_gradient')} of {int(gradients.get('parameters') or 0) - len(exempt)} trainable "
            f"parameter tensors receive a gradient; first loss {passes.get('first_loss', float('nan')):.4f}."
        )
        if exempt:
            yield f"By construction without a gradient: {listed(exempt, MOST_NAMES)}."
        if gradients.get("frozen"):
            yield f"Frozen: {listed(gradients['frozen'], MOST_NAMES)}."
    if silent := passes.get("silent_at_first"):
        yield f"Silent with the first seed, and not with others: {listed(silent, MOST_NAMES)}."
    if imported := passes.get("imported"):
        equal = "equal, bit for bit, to" if imported.get("equal_to_the_original") else "NOT equal to"
        yield f"Without its insertions it is {equal} {imported.get('from')}."
    if "starts_as_baseline" in passes:
        starts = "equals" if passes["starts_as_baseline"] else "differs from"
        yield f"Its first output {starts} the baseline's."
    if rounded := certificate.get("effective"):
        yield f"Rounded or clamped: {listed(rounded, MOST_NAMES)}."


def _shared(certificate: Record) -> Iterable[str]:
    if shared := certificate.get("shared"):
        yield (
            f"{shared.get('equal')} of {shared.get('shared')} parameters and buffers that it shares with the baseline "
            f"start bit-equal; it has {shared.get('of')} in all."
        )
        if explained := shared.get("unequal_by_difference"):
            yield f"Unequal, as their nodes or their start differ: {listed(explained, MOST_NAMES)}."
    if batches := certificate.get("first_batches"):
        why = f" (by {', '.join(batches['differ_by'])})" if batches.get("differ_by") else ""
        same = "The first batches are those of the baseline."
        yield same if batches.get("equal") else f"The first batches differ from the baseline's{why}."


def _tuning(found: Record) -> Iterable[str]:
    if found:
        yield f"Tuned beforehand by {found.get('trained')} trials over {found.get('space')}."


def signed(value: Any) -> str:
    """``+1,641``; ``±0``."""
    if not isinstance(value, int | float):
        return ""
    return f"{value:+,}".replace("-", "−") if value else "±0"
