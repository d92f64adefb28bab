"""What ``ablate new`` writes: specs to start from, which work as they are."""

from __future__ import annotations

from pathlib import Path

from ablate.errors import Problem, UserError
from ablate.spec import study_name_problem
from ablate.yamlfile import dump

STUDY = """\
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


def new_study(name: str, folder: Path) -> Path:
    """Write a spec to start from, ``folder/name.yaml``, and return its path.

    Errors (UserError): a name that can't be a study's; a folder's name that can't be printed; a file that is there
    already; a folder that can't be written.
    """
    problem = study_name_problem(name)
    if problem:
        raise UserError(Problem(problem))
    if not str(folder).isprintable():
        raise UserError(f"--folder {str(folder)!r}: the name has characters that can't be printed")
    file = folder / f"{name}.yaml"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with file.open("x", encoding="utf-8") as stream:
            stream.write(STUDY.format(name=name, written=dump(name).strip(), file=file))
    except FileExistsError:
        raise UserError(Problem(f"{file} is there already", hint="another name, or delete it first")) from None
    except OSError as error:
        raise UserError(f"{file} cannot be written: {error.strerror}") from None
    return file
