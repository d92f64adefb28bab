"""Ways in which an ablation silently becomes another one: each is refused, or flagged where the reader sees it.

Each names where it was seen. What is said of other tools was read in their threads and sources, which are cited.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from timm.layers.squeeze_excite import SEModule

import ablate
from ablate.design import StudyPlan, study_plan
from ablate.prepare import prepare

BASE = """\
name: silent
data: {name: fake, shape: [3, 11, 13], classes: 5, count: {train: 60, test: 20}, val: 0.25}
train: {epochs: 2, batch_size: 16, optimizer: {name: sgd, lr: 0.1}}
network:
  graph:
    stem:   {block: conv_bn_act, width: 16}
    stage1: {block: basic, width: 16, repeat: 2}
    head:   {block: classifier}
"""
Plan = Callable[[str], StudyPlan]
Refuses = Callable[[str], str]


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """The study of the base spec with more lines, read from a file."""

    def read(lines: str) -> StudyPlan:
        path = tmp_path / "silent.yaml"
        path.write_text(BASE + lines)
        return study_plan(ablate.load(path))

    return read


@pytest.fixture
def refused(plan: Plan) -> Refuses:
    """What is said of a spec that is refused."""

    def say(lines: str) -> str:
        with pytest.raises(ablate.UserError) as caught:
            plan(lines)
        return str(caught.value)

    return say


def test_two_insertions_at_one_place_both_act(plan: Plan) -> None:
    """MMDetection: of several plugins at one position only the last took effect, since each was given the same input
    (open-mmlab/mmdetection#7795).
    """
    study = plan("""
  insert:
    channel: {block: se, reduction: 4, at: after stem}
    spatial: {block: spatial_gate, at: after stem}
ablation:
  seeds: 1
  baseline: none
  design: variants
  variants:
    both:    {}
    channel: {network.insert.spatial: null}
    spatial: {network.insert.channel: null}
    none:    {network.insert.channel: null, network.insert.spatial: null}
""")
    assert len({variant.identity for variant in study.variants}) == 4
    network = ablate.build(study.spec, variant="both")
    seen = {}
    for name in ("stem_channel", "stem_spatial"):
        network.get_submodule(name).register_forward_hook(
            lambda module, inputs, output, name=name: seen.update({name: (inputs[0], output)})
        )
    network(torch.rand(2, 3, 11, 13))
    assert seen["stem_spatial"][0] is seen["stem_channel"][1]
    certificate = prepare(study).certificates["both"]
    assert not certificate.failures
    assert {"stem_channel", "stem_spatial"} <= set(certificate.difference["added"])


def test_a_misspelt_name_removes_nothing_and_is_refused(refused: Refuses) -> None:
    """Maggy: its LOCO ablator goes through the layers and removes the one of that name; where there is none it removes
    nothing, trains the base model and calls it ablated (logicalclocks/maggy, maggy/ablation/ablator/loco.py).
    """
    said = refused("""
  insert:
    attention: {block: se, reduction: 4, at: after stem}
ablation:
  seeds: 1
  design: leave_one_out
  components:
    attention: {network.insert.atention: null}
    stage:     {network.graph.stgae1: null}
""")
    assert "there is no 'atention' to remove; did you mean 'attention'?" in said
    assert "there is no 'stgae1' to remove; did you mean 'stage1'?" in said


def test_a_misspelt_place_is_refused(refused: Refuses) -> None:
    """As above, of a place: an insertion, a change or a freeze whose pattern matches nothing would change nothing."""
    insertion = "\n  insert:\n    attention: {block: se, at: after stages*}\n"
    assert "pattern 'stages*' matches nothing; nearest: stage1" in refused(insertion)
    assert "pattern 'stage*.*.conv3' matches nothing" in refused('\n  set: {"stage*.*.conv3": {kernel: 5}}\n')


def test_reductions_that_round_to_one_network_are_flagged(plan: Plan, refused: Refuses) -> None:
    """timm: squeeze-and-excitation rounds its hidden width to a multiple of 8 and never below, so that at 16 and 32
    channels the ratios 4, 8, 16 and 32 are one network (timm.layers.squeeze_excite; asked about in
    huggingface/pytorch-image-models#260).
    """
    assert {SEModule(32, rd_ratio=1 / ratio).fc1.out_channels for ratio in (4, 8, 16, 32)} == {8}
    lines = """
  insert:
    attention: {block: se, reduction: 4, at: after stem}
ablation:
  seeds: 1
  factors:
    ratio: {path: network.insert.attention.reduction, levels: [4, 16, 32]}
"""
    by_name = {variant.name: variant for variant in plan(lines).variants}
    assert by_name["32"].duplicate_of == "16"
    assert [note for node in by_name["32"].network.graph.nodes for note in node.notes] == [
        "reduction 32 on 16 channels → hidden width 1"
    ]
    said = refused(lines + "  baseline: {ratio: 16}\n")
    assert "variant '32' is the baseline '16'" in said
    assert "hidden width 1" in said


def test_an_unknown_key_is_refused_and_not_dropped(refused: Refuses) -> None:
    """Ludwig: "users will set a parameter in the config expecting it to do something, but because Ludwig does not
    validate the schema and will assume reasonable defaults, this can result in errors that go undetected"
    (ludwig-ai/ludwig#1186, which then left the parameters of encoders unchecked).
    """
    said = refused("""
  insert:
    attention: {block: se, reducton: 4, at: after stem}
report: {colums: [params]}
""")
    assert "network.insert.attention.reducton: unknown parameter of block 'se'; did you mean 'reduction'?" in said
    assert "report.colums: unknown key; did you mean 'columns'?" in said


def test_a_number_is_a_number_and_a_word_is_a_word(plan: Plan, refused: Refuses) -> None:
    """PyYAML, which implements YAML 1.1: ``1e-4`` is text (yaml/pyyaml#173; met in SpeechBrain's HyperPyYAML,
    speechbrain/HyperPyYAML#12) and ``yes`` and ``no`` are true and false (yaml/pyyaml#613).
    """
    assert yaml.safe_load("[1e-4, no]") == ["1e-4", False]
    study = plan("ablation: {seeds: 1, factors: {rate: {path: train.optimizer.lr, levels: [1e-4, 1e-1]}}}\n")
    assert [variant.train.optimizer.lr for variant in study.variants] == [0.0001, 0.1]
    levels = "ablation: {seeds: 1, factors: {attention: {no: {}, yes: {train.epochs: 3}}}}\n"
    assert "the key 'no' may mean true, false or the word; quote it: 'no'" in refused(levels)
    text = 'ablation: {seeds: 1, factors: {epochs: {path: train.epochs, levels: [2, "3"]}}}\n'
    assert "'3' is text, a whole number was expected; remove the quotes" in refused(text)


def test_a_point_of_the_grid_is_trained_once(plan: Plan, refused: Refuses) -> None:
    """Optuna's GridSampler on several machines evaluates points twice and leaves others out (optuna/optuna#2039,
    #4627); W&B's grid over nested parameters repeats points and never varies the first parameter (wandb/wandb#11445).
    """
    assert "level '2' is given twice" in refused(
        "ablation: {seeds: 1, factors: {epochs: {path: train.epochs, levels: [2, 3, 2]}}}\n"
    )
    study = plan("""
ablation:
  seeds: 3
  factors:
    epochs: {path: train.epochs, levels: [2, 3]}
    place:
      after_the_stem:   {network.insert.gate: {block: spatial_gate, at: after stem}}
      before_the_stage: {network.insert.gate: {block: spatial_gate, at: before stage1}}
""")
    assert [variant.duplicate_of for variant in study.variants] == [None, "2/after_the_stem", None, "3/after_the_stem"]
    prepared = prepare(study)
    assert len(prepared.trials) == 6
    assert prepared.hashes["2/before_the_stage"] == prepared.hashes["2/after_the_stem"]


def test_a_parameter_that_a_changed_block_orphans_is_listed_or_refused(plan: Plan, refused: Refuses) -> None:
    """MMCV: a child config overwrites the keys that it names and keeps the others (open-mmlab/mmcv#968), so that what
    belonged to the former type goes to the new one unless the child says ``_delete_=True``.
    """
    lines = """
  insert:
    attention: {block: cbam, reduction: 4, kernel: 5, at: after stem}
ablation:
  seeds: 1
  factors:
    attention:
      cbam: {}
      se:   {network.insert.attention.block: se}
    kernel: {path: network.insert.attention.kernel, levels: [3, 5]}
"""
    study = plan(lines)
    orphans = {variant.name: [orphan.path for orphan in variant.orphans] for variant in study.variants}
    kernel = ["network.insert.attention.kernel"]
    assert orphans == {"cbam/3": [], "cbam/5": [], "se/3": kernel, "se/5": kernel}
    assert study.variant("se/3").inactive_factors() == {"kernel"}
    assert study.variant("se/5").duplicate_of == "se/3"
    beside = """
ablation:
  seeds: 1
  factors:
    attention: {none: {}, se: {network.insert.attention: {block: se, kernel: 5, at: after stem}}}
"""
    assert "network.insert.attention.kernel: " in refused(beside)
    assert "unknown parameter of block 'se'" in refused(beside)


def test_two_factors_on_one_path_are_refused(refused: Refuses) -> None:
    """Hydra: its basic sweeper keeps the last override of a key and drops a whole dimension of the sweep
    (facebookresearch/hydra#3106; "silently discard an earlier sweep dimension", #3283).
    """
    said = refused("""
ablation:
  seeds: 1
  factors:
    short: {path: train.epochs, levels: [2, 3]}
    long:  {path: train.epochs, levels: [20, 30]}
""")
    assert "factors 'short' and 'long' both set this path; join them in one factor" in said


def test_null_is_no_value_and_no_default(plan: Plan, refused: Refuses) -> None:
    """Ludwig took null for parameters that have no such value (ludwig-ai/ludwig#3079); in Hydra a key that is left
    empty replaces the whole that it names by null (facebookresearch/hydra#2958).
    """
    said = refused("\n  insert:\n    attention: {block: se, reduction: null, at: after stem}\nreport:\n")
    assert "network.insert.attention.reduction: null removes a node, an insertion or a section" in said
    levels = "{default: {train.optimizer.lr: null}, high: {train.optimizer.lr: 0.5}}"
    said = refused(f"ablation: {{seeds: 1, factors: {{rate: {levels}}}}}\n")
    assert "train.optimizer.lr: null removes a node, an insertion or a section, and this is a parameter" in said
    study = plan("""
  insert:
    attention: {block: se, reduction: 4, at: after stem}
ablation:
  seeds: 1
  factors: {attention: {none: {network.insert.attention: null}, se: {}}}
""")
    assert not study.variant("none").network.insertions


def test_a_factor_of_the_recipe_alone_is_neither_a_no_op_nor_a_duplicate(plan: Plan) -> None:
    """The opposite mistake, of a check that compares networks alone: two arms that differ in weight decay are one
    network, and two experiments. Seen in no tool; any that keys its cache by the model would make it.
    """
    study = plan("""
ablation:
  seeds: 1
  baseline: {decay: 0}
  factors: {decay: {path: train.optimizer.weight_decay, levels: [0, 5.0e-4]}}
""")
    none, some = study.variants
    assert none.network.graph.canonical == some.network.graph.canonical
    assert none.identity != some.identity
    assert some.duplicate_of is None


def test_an_insertion_leaves_the_other_weights_and_the_batches_as_they_were(plan: Plan) -> None:
    """PyTorch and all that draw from its one stream: making a layer, even one that is never used, changes what every
    later layer starts from, and the order of the batches (pytorch/pytorch#46149, #47835).
    """
    torch.manual_seed(0)
    alone = torch.nn.Linear(3, 5).weight
    torch.manual_seed(0)
    assert not torch.equal([torch.nn.Linear(3, 3), torch.nn.Linear(3, 5)][1].weight, alone)
    study = plan("""
ablation:
  seeds: 1
  baseline: {attention: none}
  factors:
    attention:
      none: {}
      se:   {network.insert.attention: {block: se, reduction: 4, at: before stage1.0.conv1}}
""")
    without, with_it = (ablate.build(study.spec, variant=name, seed=7).state_dict() for name in ("none", "se"))
    assert all(torch.equal(value, with_it[name]) for name, value in without.items())
    certificate = prepare(study).certificates["se"]
    assert certificate.shared is not None
    assert certificate.shared["equal"] == certificate.shared["shared"] == len(without)
    assert certificate.first_batches is not None
    assert certificate.first_batches["equal"]
