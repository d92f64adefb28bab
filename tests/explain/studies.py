"""Small studies that are trained in a second or two, to be explained."""

from __future__ import annotations

from pathlib import Path

import ablate
from ablate.store import Study

SPEC = """\
name: looked
data: {name: fake, shape: [3, 8, 12], classes: 4, count: {train: 48, test: 20}, val: 0.25}
train: {epochs: 2, batch_size: 12, precision: fp32, optimizer: {name: sgd, lr: 0.05, momentum: 0.9}}
network:
  graph:
    stem:   {block: conv_bn_act, width: 8, kernel: 3}
    stage1: {block: basic, width: 8, shortcut: pad}
    head:   {block: classifier}
ablation:
  design: variants
  seeds: 2
  baseline: plain
  variants:
    plain: {}
    heads:
      network.insert.mix: {block: multi_head_attention, heads: 2, at: after stage1, residual: weighted}
    gated2:
      network.insert.gate: {block: cbam, reduction: 2, at: after stage1}
    gated4:
      network.insert.gate: {block: cbam, reduction: 4, at: after stage1}
report: {columns: [params, test.accuracy]}
"""


def trained(folder: Path, text: str = SPEC) -> Study:
    """The study in ``folder/study``, trained in this process; its spec lies beside it."""
    path = folder / "looked.yaml"
    path.write_text(text)
    ablate.sweep(ablate.load(path), executor="local", folder=folder / "study", cache=False)
    return Study.open(folder / "study")
