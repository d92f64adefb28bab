"""One variant explained in words: its ``facts`` as text for a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping
from typing import Any

from ablate.design.combinations import AS_WRITTEN
from ablate.design.levels import WITH, WITHOUT
from ablate.design.matching import off_by
from ablate.errors import listed
from ablate.facts import Explanation
from ablate.labels import flow
from ablate.report.render import clean

WIDTH = 100
LABEL = 14
MOST_NAMES = 6
MOST_LINES = 12


def in_words(facts: Explanation) -> str:
    """The explanation as text of at most ``WIDTH`` columns."""
    head = f"{facts.study}: {facts.variant}"
    parts = [
        ("asked", _asked_lines(facts)),
        ("compared with", [_compared(facts)]),
        ("control", _control_lines(facts)),
        ("difference", _difference_lines(facts)),
        ("insertions", [_insertion_line(each) for each in facts.insertions]),
        ("recipe", _recipe_lines(facts)),
        ("without use", [_unused_line(each) for each in facts.inactive]),
        ("rounded", [f"{note}: {_names(nodes)}" for note, nodes in facts.effective.items()]),
        ("frozen", [f"{len(facts.frozen)} modules: {_names(facts.frozen)}"] if facts.frozen else []),
        ("same as", _duplicate_lines(facts)),
        ("certificate", _certificate_lines(facts)),
    ]
    lines = [clean(head), "─" * WIDTH]
    for label, texts in parts:
        lines += _section(label, texts)
    return "\n".join(lines) + "\n"


def _section(label: str, texts: list[str]) -> Iterable[str]:
    """A label with its lines beside it; a line that starts with spaces keeps them, and hangs below them."""
    for index, text in enumerate(texts):
        first = (label if index == 0 else "").ljust(LABEL)
        inset = len(text) - len(text.lstrip(" "))
        indent = " " * (LABEL + inset + (2 if inset else 0))
        yield textwrap.fill(
            clean(text.strip(" ")),
            WIDTH,
            initial_indent=first + " " * inset,
            subsequent_indent=indent,
            break_on_hyphens=False,
            break_long_words=False,
        )


def _asked_lines(facts: Explanation) -> list[str]:
    lines = []
    for each in facts.asked:
        name = each["factor"] if each["level"] is None else f"{each['factor']} = {each['level']}"
        if not each["assigns"]:
            silent = each["level"] in (WITH, WITHOUT, AS_WRITTEN)
            lines.append(name if silent else f"{name}, which assigns nothing")
            continue
        lines.append(name)
        for one in each["assigns"]:
            what = f"removes {one['path']}" if one["value"] is None else f"{one['path']}: {_value(one['value'])}"
            after = f", replaced by {one['replaced_by']}" if one["replaced_by"] else ""
            lines.append(f"  {what}{after}" + (f"   ({one['place']})" if one["place"] else ""))
    return lines or ["nothing: it is the spec as written"]


def _compared(facts: Explanation) -> str:
    if facts.baseline is not None:
        return f"'{facts.baseline}'"
    others = facts.is_baseline_of
    if others:
        return f"nothing: it is the baseline of {_names([repr(name) for name in others])}"
    return "nothing: the spec names no baseline"


def _control_lines(facts: Explanation) -> list[str]:
    control = facts.control
    lines = [f"as expensive as this one: '{name}'" for name in facts.controls]
    if control is not None:
        by, reached, wanted = f"{control['by']} = {control['value']}", control["reached"], control["wanted"]
        what = "FLOPs" if control["match"] == "flops" else "params"
        lines.append(
            f"of '{control['of']}', which has {wanted:,} {what}: with {by} this one has {reached:,} "
            f"({off_by(reached, wanted)})"
        )
    return lines


def _difference_lines(facts: Explanation) -> list[str]:
    cost = f"{facts.cost['params']:,} params, {facts.cost['flops']:,} FLOPs"
    change = facts.difference
    if change is None:
        return [cost]
    lines = [f"{cost}: {_signed(change['params'])} params, {_signed(change['flops'])} FLOPs"]
    inserted = {name: each["name"] for each in facts.insertions for name in each["nodes"]}
    for insertion in dict.fromkeys(inserted[name] for name in change["added"] if name in inserted):
        count = sum(inserted.get(name) == insertion for name in change["added"])
        lines.append(f"{_count(count, 'node')} added by insertion {insertion}")
    for verb in ("added", "removed"):
        names = [name for name in change[verb] if verb == "removed" or name not in inserted]
        if names:
            lines.append(f"{_count(len(names), 'node')} {verb}: {_names(names)}")
    lines += _changed_lines(change["changed"])
    if not (change["added"] or change["removed"] or change["changed"]):
        lines.append("the same network, node for node")
    return lines


def _changed_lines(changed: Mapping[str, Mapping[str, list[Any]]]) -> list[str]:
    """Nodes changed, those with one change together; apart from them those that only read other shapes."""
    groups: dict[str, list[str]] = {}
    reading: list[str] = []
    for name, keys in changed.items():
        own = [f"{key} {_value(pair[0])} → {_value(pair[1])}" for key, pair in keys.items() if key != "reads"]
        if own:
            groups.setdefault("; ".join(own), []).append(name)
        else:
            reading.append(name)
    lines = [f"{_count(len(names), 'node')} changed, {what}: {_names(names)}" for what, names in groups.items()]
    left = len(lines) - MOST_LINES
    lines = [*lines[:MOST_LINES], f"… and {left} more such lines (--json has all)"] if left > 0 else lines
    if reading:
        lines.append(f"{_count(len(reading), 'node')} otherwise unchanged, reading other shapes: {_names(reading)}")
    return lines


def _insertion_line(entry: Mapping[str, Any]) -> str:
    there = entry.get("baseline")
    if not entry["places"]:
        return f"{entry['name']} ({entry['block']}): not here; the baseline has it"
    text = f"{entry['name']} ({entry['block']}) {', '.join(entry['at'])}"
    text += f", residual {entry['residual']}" if entry["residual"] != "none" else ""
    text += f": {_count(len(entry['places']), 'place')}, {entry['params']:,} params, {entry['flops']:,} FLOPs"
    if there is not None and there != [0, 0]:
        text += f" (baseline: {there[0]:,} and {there[1]:,})"
    return f"{text}: {_names(entry['places'])}"


def _recipe_lines(facts: Explanation) -> list[str]:
    if facts.baseline is None:
        return []
    return [f"{each['path']}: {_value(each['baseline'])} → {_value(each['here'])}" for each in facts.recipe] or [
        "the baseline's: training, data and initialisation are the same"
    ]


def _unused_line(entry: Mapping[str, Any]) -> str:
    return f"{entry['path']}: {_value(entry['value'])} ({entry['layer']}): {entry['why']}"


def _duplicate_lines(facts: Explanation) -> list[str]:
    lines = []
    if facts.duplicate_of:
        lines.append(f"'{facts.duplicate_of}': one network and one recipe, trained once and shown in both rows")
    if facts.duplicates:
        lines.append(f"{_names([repr(name) for name in facts.duplicates])}, which is trained as this one")
    return lines


def _code_lines(code: Mapping[str, Mapping[str, str]]) -> list[str]:
    """What of the variant is code from outside this package, and whose."""
    return [
        f"{name} is code of {' '.join(filter(None, (told.get('distribution', 'your own'), told.get('version'))))}, "
        f"{told['digest'][:8]}"
        for name, told in code.items()
    ]


def _certificate_lines(facts: Explanation) -> list[str]:
    certificate = facts.certificate
    if certificate is None:
        return []
    failures = certificate["failures"]
    lines = [f"FAILED: {failure}" for failure in failures] or ["certified"]
    gradients = certificate["passes"].get("gradients")
    if gradients is not None:
        exempt = len(gradients["invariant"]) + len(gradients["cancelled_by_batch_norm"])
        lines.append(
            f"{gradients['with_gradient']} of {gradients['parameters'] - exempt} trainable parameters receive a "
            f"gradient; first loss {certificate['passes']['first_loss']:.4f}"
        )
    lines += _import_lines(certificate["passes"].get("imported"))
    lines += _code_lines(certificate.get("code") or {})
    lines += _weights_lines(certificate["weights"])
    if certificate["shared"]:
        shared = certificate["shared"]
        reshaped = shared.get("of_another_shape", 0)
        both = "both have in one shape" if reshaped else "both have"
        others = f"; {reshaped} more have another shape here" if reshaped else ""
        lines.append(
            f"{shared['equal']} of {shared['shared'] - reshaped} parameters and buffers that {both} start bit-equal to "
            f"those of '{facts.baseline}'{others}"
        )
        if loaded := shared.get("unequal_by_weights"):
            lines.append(f"unequal, since they were loaded here or there: {_names(loaded)}")
    if certificate["first_batches"]:
        batches = certificate["first_batches"]
        why = f" (by {', '.join(batches['differ_by'])})" if batches["differ_by"] else ""
        lines.append("the first batches are the same" if batches["equal"] else f"the first batches differ{why}")
    return [*lines, *certificate["protocol"]]


def _import_lines(imported: Mapping[str, Any] | None) -> list[str]:
    """What was proven about an imported network."""
    if imported is None:
        return []
    same = "equal, bit for bit, to" if imported["equal_to_the_original"] else "NOT equal to"
    lines = [f"without its insertions {same} {imported['from']}, in evaluation and in training"]
    if imported["kept_whole"]:
        lines.append(f"modules that can't be traced, each one node: {_names(imported['kept_whole'])}")
    return lines


def _weights_lines(weights: Mapping[str, Any] | None) -> list[str]:
    """What starts from where."""
    if weights is None:
        return []
    taken = f", its '{weights['taken']}'" if weights["taken"] else ""
    lines = [f"{weights['loaded']} of {weights['of']} parameters and buffers start from {weights['from']}{taken}"]
    for key, what in (
        ("anew", "started anew by init.set"),
        ("as_initialised", "not in it, and started as initialised"),
        ("unfit", "not loaded, since they do not fit"),
        ("left_over", "in it, and loaded nowhere"),
        ("converted", "converted from another precision"),
    ):
        lines += [f"  {what}: {_names(weights[key])}"] if weights[key] else []
    return lines


def _names(names: list[str]) -> str:
    return listed(names, MOST_NAMES)


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def _signed(value: int) -> str:
    return f"{value:+,}".replace("-", "−") if value else "±0"


def _value(value: Any) -> str:
    text = flow(value)
    return text if len(text) <= 200 else f"{text[:200]}…"
