"""Writes docs/importing.md's table: which of torchvision's models `network.import` takes. About 20 minutes.

    python docs/build_imports.py [MODEL ...]      (with names: those rows anew)

Each model is imported, built, and run beside the original in evaluation and in training, on 2 made-up images.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from ablate.builder import build
from ablate.errors import listed
from ablate.importing import imported, origin
from ablate.importing.graph import differences, import_graph
from ablate.importing.origin import Origin, OriginError
from ablate.importing.tracing import TraceError

PAGE = Path(__file__).parent / "importing.md"
BEGIN, END = "<!-- table of torchvision's models: begin -->", "<!-- end -->"
MODULE = "torchvision.models"
SIZES = {"inception_v3": 299}
NEEDS = {
    "googlenet": {"aux_logits": False, "init_weights": False},
    "inception_v3": {"aux_logits": False, "init_weights": False},
}
"""Arguments without which a model has no one output in both modes."""
SEED = 3
COLUMNS = 5


def row(name: str) -> list[str]:
    """One model's line: what it is as our graph, and whether that is the original."""
    arguments = {"num_classes": 10, **NEEDS.get(name, {})}
    size = SIZES.get(name, 224)
    try:
        graph, source = import_graph(Origin.of(f"{MODULE}:{name}", arguments), (3, size, size), 10)
        network = build(graph, seed=SEED)
        images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(SEED))
        found = differences(source, graph, network, images, SEED)
    except (OriginError, TraceError) as error:
        return [name, "", "", "no", str(error)]
    stated = {key: value for key, value in arguments.items() if key != "num_classes"}
    remarks = [f"args: {json.dumps(stated)}"] if stated else []
    if source.whole:
        remarks.append(f"{len(source.whole)} modules kept whole: {listed(source.whole, 2)}")
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return [name, str(len(graph.nodes)), f"{parameters:,}", "no" if found else "yes", "; ".join(found or remarks)]


def main(names: list[str]) -> None:
    head, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    old, _, tail = rest.partition(END)
    rows = {cells[0]: cells for line in old.splitlines() if names and len(cells := _cells(line)) == COLUMNS}
    for name in names or origin.listed_models(MODULE):
        rows[name] = row(name)
        print(*rows[name], sep=" | ", flush=True)
        imported.imported.cache_clear()
        imported._description.cache_clear()
        origin.construct.cache_clear()
    known = [rows[name] for name in origin.listed_models(MODULE) if name in rows]
    PAGE.write_text(f"{head}{BEGIN}\n\n{table(known)}\n{END}{tail}", encoding="utf-8")


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.removeprefix("|").removesuffix("|").split("|")]


def table(rows: list[list[str]]) -> str:
    works = sum(row[3] == "yes" for row in rows)
    lines = [f"{works} of {len(rows)} models, each bit-equal to the original in evaluation and in training:", ""]
    lines += ["| model | nodes | params (10 classes) | works | remarks |", "| --- | ---: | ---: | --- | --- |"]
    return "\n".join([*lines, *(f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows)]) + "\n"


if __name__ == "__main__":
    main(sys.argv[1:])
