"""What ``ablate new`` writes: specs, blocks and data sets to start from, which work as they are."""

from __future__ import annotations

import os
from importlib.resources import files
from pathlib import Path

from ablate.errors import Problem, UserError
from ablate.own_code import is_taken
from ablate.pattern import name_problem
from ablate.spec import study_name_problem
from ablate.yamlfile import dump

SCHEMA = "ablate.schema.json"
"""The schema beside the specs that are written, which editors read."""
STUDY = """\
# yaml-language-server: $schema={schema}
# What does this study ask? Say it here, and where its numbers come from.
#   ablate check {file}                    everything that is wrong, at once
#   ablate plan  {file}                    the variants, what proves them, what they cost
#   ablate sweep {file} --profile tiny     a first run, in seconds
#   ablate sweep {file}                    the study, into runs/{name}
name: {written}                 # the study's folder is runs/NAME
# extends: models/resnet20.yaml   # start from another spec; what is written here comes on top

data:
  name: mnist5k                # 5,000 handwritten digits that need no download; `fake` makes images up
  val: 0.2                     # share of train that is held out, to choose by; never the test split
  # limit: {{train: 1000}}       # fewer images, the same number of each class; the table says so
  # augment: [{{random_crop: {{padding: 2}}}}]   # a flip would make another digit

train:
  epochs: 5
  batch_size: 128
  optimizer: {{name: sgd, lr: 0.1, momentum: 0.9, weight_decay: 5.0e-4}}
  schedule: {{name: one_cycle}}  # the rate rises to lr and falls again, a step at a time

network:
  params: {{k: 1, n: 3}}         # names for numbers: 16*$k below; --set network.params.k=2 makes it twice as wide
  graph:                       # in the order of the data; `from: NAME` where a node reads another than the one before
    stem:   {{block: conv_bn_act, width: 16*$k, kernel: 3}}
    stage1: {{block: basic, width: 16*$k, repeat: $n, shortcut: pad}}             # stage1.0, stage1.1, stage1.2
    stage2: {{block: basic, width: 32*$k, repeat: $n, stride: 2, shortcut: pad}}  # the stride is stage2.0's alone
    stage3: {{block: basic, width: 64*$k, repeat: $n, stride: 2, shortcut: pad}}
    head:   {{block: classifier}}
  insert:                      # blocks put into the graph; `ablate blocks` lists them
    attention:
      block: se
      reduction: 8             # channels per hidden unit; `ablate blocks se` describes every parameter
      at: after stage*         # or before PATTERN, or replace PATTERN; * is one part of a name
      residual: none           # none: F(x); plain: F(x) + x; weighted: w·F(x) + x with w learnt

ablation:                      # a variant for every combination of levels; each is trained with every seed
  seeds: 3
  baseline: {{placement: none}}  # what the others are compared with, seed by seed
  factors:
    placement:                 # each level assigns values to dotted paths of this spec; null removes
      none:        {{network.insert.attention: null}}
      stages:      {{network.insert.attention.at: after stage*}}
      every_block: {{network.insert.attention.at: after stage*.*}}
    # reduction: {{path: network.insert.attention.reduction, levels: [4, 8]}}   # a factor of one path, in short
  # design: one_at_a_time      # or grid (this one), leave_one_out, add_one_in, ladder, variants

profiles:                      # other ways to run the same study, chosen by --profile NAME
  tiny: {{data.limit: {{train: 128, val: 100, test: 100}}, train.epochs: 1, network.params.n: 2, ablation.seeds: 1}}

report:
  columns: [params, flops, val.accuracy, test.accuracy]   # the table's; test columns show when all trials are done

# paper:                       # published values, shown beside the measured ones with a verdict
#   - {{title: The paper, table: 1, metric: test.accuracy, values: {{none: 98.0, stages: 98.5}}}}
"""


BLOCK = '''\
"""{title}: which paper? Authors, year, arXiv number.

    y = x · σ(W₂ · relu(W₁ · mean(x)))        (B, C, H, W) -> (B, C, H, W)

What is known about how well it works?
"""

from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from ablate import Block, BlockParams


class {title}(Block, name="{name}"):
    """One line of what it does: `ablate blocks` shows it."""

    class Params(BlockParams):  # what a spec may state beside `block: {name}`; strict, unknown names are refused
        reduction: int = Field(4, ge=1, description="channels per hidden unit; hidden = max(1, C // reduction)")

    def __init__(self, params: Any, shape: tuple[int, ...]) -> None:  # shapes are of one example: (C, H, W)
        super().__init__()
        if len(shape) != 3:  # what it can't do it refuses by ValueError, with a sentence for the user
            raise ValueError(f"'{name}' reads an input of shape (C, H, W) and was given {{shape}}")
        channels, hidden = shape[0], self.hidden(params, shape)
        self.down = nn.Linear(channels, hidden)
        self.up = nn.Linear(hidden, channels)

    @staticmethod
    def hidden(params: Any, shape: tuple[int, ...]) -> int:
        return max(1, int(shape[0]) // int(params.reduction))

    @classmethod
    def effective(cls, params: Any, *shapes: tuple[int, ...]) -> dict[str, Any]:
        """What the parameters come to: equal answers mean equal networks, which are trained once."""
        return {{"hidden": cls.hidden(params, shapes[0])}}

    @classmethod
    def notes(cls, params: Any, *shapes: tuple[int, ...]) -> tuple[str, ...]:
        """Where rounding or clamping took place: the certificate says so."""
        channels, hidden = shapes[0][0], cls.hidden(params, shapes[0])
        if channels % params.reduction == 0:
            return ()
        return (f"reduction {{params.reduction}} on {{channels}} channels → hidden width {{hidden}}",)

    # Convolutions, linear layers and norms are initialised by the spec's recipe. Parameters of your own you
    # initialise in init(self, stream, recipe), each from stream("its.name"), and call super().init(stream, recipe).

    def forward(self, x: Tensor) -> Tensor:  # never writes into x, and never adds x: `residual:` says how it joins
        gate = torch.sigmoid(self.up(torch.relu(self.down(x.mean((2, 3))))))
        return x * gate[:, :, None, None]
'''

BLOCK_TEST = """\
from ablate.testing import check_block
from {name} import {title}


def test_{name}_keeps_the_contract_of_blocks():
    check_block({title}, params=[{{}}, {{"reduction": 3}}], shapes=[(16, 8, 8), (5, 7, 3)], refused=[({{}}, (7,))])
"""

DATA_SET = '''\
"""{title}: where the images come from, and their licence."""

from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from ablate import DataInfo, DataSet, DataSetParams, RawData, Split

CLASSES = ("dark", "bright")
SHAPE = (1, 16, 16)  # (C, H, W)


class {title}(DataSet, name="{name}"):
    """One line of what it is."""

    class Params(DataSetParams):  # what a spec may state beside `name: {name}`
        noise: int = Field(20, ge=0, le=100, description="largest difference of a pixel from its image's brightness")

    # folder = "required"      # where it reads files: data.root is their folder, and comes as `root`
    # downloads = True         # where `download: true` fetches what is missing

    @classmethod
    def info(cls, params: Any, root: Path | None) -> DataInfo:
        """Without reading the images, as far as that is possible."""
        return DataInfo(SHAPE, len(CLASSES))

    @classmethod
    def load(cls, params: Any, root: Path | None, download: bool) -> RawData:
        """The published splits. Here they are made; replace this by what reads yours."""
        return RawData(
            train=made(200, params.noise, seed=1),
            test=made(100, params.noise, seed=2),
            class_names=CLASSES,
            source="made-up images",  # in a few words, for captions
        )


def made(count: int, noise: int, seed: int) -> Split:
    """Images uint8 (N, C, H, W) and labels int64 (N,), the same on every call."""
    numbers = np.random.RandomState(seed)
    labels = np.arange(count, dtype=np.int64) % len(CLASSES)
    brightness = 100 + 50 * labels[:, None, None, None]
    images = brightness + numbers.randint(-noise, noise + 1, (count, *SHAPE))
    return Split(images.astype(np.uint8), labels)
'''

DATA_SET_TEST = """\
from ablate.testing import check_dataset
from {name} import {title}


def test_{name}_keeps_the_contract_of_data_sets():
    check_dataset({title}, params=[{{}}, {{"noise": 5}}])
"""

HOW = """\
test it        pytest {test}
in a spec      use: [{name}.py]     # beside the spec; the commands on it then take --trust
               {example}
in a package   [project]
               name = "my-package"
               version = "0.1.0"
               dependencies = ["ablate-harness"]
               [project.entry-points."{group}"]
               {name} = "my_package.{name}:{title}"
               then pip install it, and every spec can name it, without use: and --trust"""

KINDS = {
    "block": (BLOCK, BLOCK_TEST, "network: {{insert: {{mine: {{block: {name}, at: after stage*}}}}}}", "ablate.blocks"),
    "dataset": (DATA_SET, DATA_SET_TEST, "data: {{name: {name}}}", "ablate.datasets"),
}
"""Kind → the file, its test, how a spec uses it, and its group of entry points."""


def new_study(name: str, folder: Path) -> list[Path]:
    """Write a spec to start from, ``folder/name.yaml``, and the schema that editors check it by, where none is yet.

    Returns the paths of what was written, the spec's first.

    Errors (UserError): a name that can't be a study's; a folder's name that can't be printed; a file that is there
    already; a folder that can't be written.
    """
    problem = study_name_problem(name)
    if problem:
        raise UserError(Problem(problem))
    _check_printable(folder)
    file = folder / f"{name}.yaml"
    texts = {file: STUDY.format(name=name, written=dump(name).strip(), file=file, schema=SCHEMA)}
    if not os.path.lexists(folder / SCHEMA):
        texts[folder / SCHEMA] = (files("ablate") / "spec.schema.json").read_text(encoding="utf-8")
    return _written(texts)


def new_part(kind: str, name: str, folder: Path) -> tuple[list[Path], str]:
    """Write a block or a data set (``kind`` of ``KINDS``) to start from, and its test; their paths, and how to use it.

    Errors (UserError): a name that has a meaning already, or can't be a module's; otherwise as for ``new_study``.
    """
    problem = _name_problem(kind, name)
    if problem:
        raise UserError(problem)
    _check_printable(folder)
    source, test, example, group = KINDS[kind]
    title = "".join(word.capitalize() for word in name.split("_"))
    texts = {folder / f"{name}.py": source, folder / f"test_{name}.py": test}
    paths = _written({path: text.format(name=name, title=title) for path, text in texts.items()})
    how = HOW.format(name=name, title=title, test=paths[1], example=example.format(name=name), group=group)
    return paths, how


def _name_problem(kind: str, name: str) -> Problem | None:
    """Why a block or a data set can't be called so: by a spec, or as a module."""
    from ablate.block import registry as blocks  # seconds of import that a study does not need
    from ablate.data.kind import registry as data_sets

    what, known = ("block", blocks()) if kind == "block" else ("data set", data_sets())
    if name in known:
        return Problem(f"there is a {what} '{name}' already", hint="choose another name")
    if wrong := name_problem(name):
        return Problem(wrong)
    if not name.isidentifier() or name != name.lower():
        return Problem(f"'{name}' can't be a module's name", hint="small letters, digits and _")
    if is_taken(name):
        return Problem(f"there is a module '{name}' already", hint="choose another name")
    return None


def _check_printable(folder: Path) -> None:
    if not str(folder).isprintable():
        raise UserError(f"--folder {str(folder)!r}: the name has characters that can't be printed")


def _written(texts: dict[Path, str]) -> list[Path]:
    """New files, all or none of them. ``UserError`` where one is there already, or can't be written."""
    for file in texts:
        if os.path.lexists(file):
            raise UserError(Problem(f"{file} is there already", hint="another name, or delete it first"))
    for file, text in texts.items():
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("x", encoding="utf-8") as stream:
                stream.write(text)
        except FileExistsError:
            raise UserError(Problem(f"{file} is there already", hint="another name, or delete it first")) from None
        except OSError as error:
            raise UserError(f"{file} cannot be written: {error.strerror}") from None
    return list(texts)
