"""What was proven about a trial's variant, in a few words: the note beside its numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ablate.errors import listed
from ablate.tracking.view import TrialView


def certificate_text(trial: TrialView) -> str:
    """Markdown: the difference from the baseline, the passes, and the protocol."""
    certificate = trial.certificate
    lines = [f"**{trial.variant}**, seed {trial.seed}: {_cost(trial)}"]
    lines += [f"- {line}" for line in (_difference(certificate), _passes(certificate)) if line]
    lines += [f"- {sentence}" for sentence in certificate.get("protocol") or []]
    lines += [f"- failed: {failure}" for failure in certificate.get("failures") or []]
    lines += [f"- certificate: identity `{trial.identity}`, network `{trial.fingerprint}`"]
    return "\n".join(lines) + "\n"


def _cost(trial: TrialView) -> str:
    named = {"params": "parameters", "flops": "multiply-accumulates"}
    return ", ".join(f"{trial.cost[key]:,.0f} {word}" for key, word in named.items() if key in trial.cost)


def _difference(certificate: Mapping[str, Any]) -> str:
    found = certificate.get("difference")
    if not isinstance(found, dict):
        return ""
    parts = [f"{word} {listed(found[word], most=6)}" for word in ("added", "removed") if found.get(word)]
    changed = found.get("changed")
    parts += [f"changed {listed([*changed], most=6)}"] if changed else []
    numbers = f"{found.get('params', 0):+,} parameters" if isinstance(found.get("params"), int) else ""
    said = "; ".join([*parts, *([numbers] if numbers else [])])
    return f"against {found.get('baseline')}: {said}" if said else ""


def _passes(certificate: Mapping[str, Any]) -> str:
    gradients = (certificate.get("passes") or {}).get("gradients") or {}
    if not gradients:
        return ""
    return f"{gradients.get('with_gradient')} of {gradients.get('parameters')} parameters have a gradient"
