"""The shipped specs of the papers: networks of the stated size, trained for a moment on real images."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ablate.costing import cost_of
from ablate.design import StudyPlan, study_plan
from ablate.report import ablation_table
from ablate.spec import load
from tests.conftest import REPOSITORY

SPECS = REPOSITORY / "specs"
IMAGES = Path(os.environ.get("ABLATE_TEST_DATA", REPOSITORY.parent / "shared" / "data")) / "cifar10-jpeg"


def plan(name: str, *sets: str) -> StudyPlan:
    return study_plan(load(SPECS / name, sets=sets))


def test_every_shipped_spec_is_sound() -> None:
    shipped = [path for path in SPECS.rglob("*.yaml") if "models" not in path.parts]
    assert len(shipped) >= 3
    for path in shipped:
        assert study_plan(load(path)).variants


def test_cnntentions_networks_have_the_parameters_of_their_definitions() -> None:
    params = {v.name: cost_of(v.network.graph).params for v in plan("cnntention/table3.yaml").variants}
    assert params == {"Baseline": 269_722, "SelfAtt": 286_189, "MHA": 291_677, "CBAM-16": 270_691}


def test_attention_costs_what_its_formula_says() -> None:
    flops = {v.name: cost_of(v.network.graph).flops for v in plan("cnntention/table3.yaml").variants}
    assert flops["Baseline"] == 40_551_040
    stages = [(16, 32 * 32), (32, 16 * 16), (64, 8 * 8)]
    # Three 1×1 convolutions, and two products of N × N with N × C; heads share the channels and add the fourth.
    single = sum(3 * c * c * n + 2 * n * n * c for c, n in stages)
    several = sum(4 * c * c * n + 2 * n * n * c for c, n in stages)
    assert flops["SelfAtt"] - flops["Baseline"] == single
    assert flops["MHA"] - flops["Baseline"] == several
    # The MLP on the mean and on the maximum, then 7×7 over two planes.
    cbam = sum(2 * 2 * c * (c // 16) + 2 * 49 * n for c, n in stages)
    assert flops["CBAM-16"] - flops["Baseline"] == cbam


def test_at_reduction_32_stage_1_has_no_channel_attention_and_the_certificate_says_so() -> None:
    arm = plan("cnntention/table2.yaml").variant("CBAM-32")
    notes = {node.name: node.notes for node in arm.network.graph.nodes if node.notes}
    assert notes == {"stage1_attention": ("reduction 32 on 16 channels → hidden width 0",)}


PAPERS = [path for folder in ("aicnn", "cnntention") for path in sorted((SPECS / folder).glob("*.yaml"))]
TABLES = {
    *("table1_cifar10", "table1_cifar100", "table2", "table3", "table3_mnist", "table4", "table5"),
    *("figure5", "figure6", "figure8"),
}


def test_every_table_and_figure_of_the_papers_is_there_and_stands_on_the_page() -> None:
    assert {path.stem for path in PAPERS} >= TABLES
    page = (REPOSITORY / "docs" / "papers.md").read_text(encoding="utf-8")
    for path in PAPERS:
        assert path.relative_to(REPOSITORY).as_posix() in page, path


@pytest.mark.parametrize("path", PAPERS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_papers_spec_has_its_claims_and_both_budgets_and_says_what_it_is(path: Path) -> None:
    spec = load(path)
    head = " ".join(line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("#"))
    assert ("AICNN" if path.parent.name == "aicnn" else "CNNtention") in head
    if path.stem != "base":
        assert spec.tree["paper"]
    paper = load(path, profile="paper")
    assert {assignment.dotted for assignment in paper.profiled} <= {"execution.device", "train.precision"}
    cpu = {assignment.dotted.split(".")[0] for assignment in load(path, profile="cpu").profiled}
    assert {"train", "data"} <= cpu <= {"train", "data", "network"}


def test_a_cpus_budget_drops_the_rates_at_the_same_shares_of_the_epochs() -> None:
    whole, cpu = (study_plan(load(SPECS / "cnntention/figure8.yaml", profile=profile)) for profile in ("paper", "cpu"))
    for variant in whole.variants:
        small: Any = cpu.variant(variant.name).train
        large: Any = variant.train
        shares = [[each / train.epochs for each in train.schedule.milestones] for train in (large, small)]
        assert shares[1] == pytest.approx(shares[0], abs=0.5 / small.epochs)
        assert small.optimizer == large.optimizer
        assert small.early_stopping is large.early_stopping is None
        assert small.evaluate == large.evaluate
        assert small.evaluates_test


def test_figures_5_and_6_differ_in_the_residual_alone() -> None:
    for name, kinds in (("figure5", ["without", "with"]), ("figure6", ["plain", "weighted"])):
        found = plan(f"cnntention/{name}.yaml").variants
        assert [variant.name for variant in found] == kinds
        assert len({str(variant.train) for variant in found}) == 1
    params = [cost_of(variant.network.graph).params for variant in plan("cnntention/figure6.yaml").variants]
    assert params == [286_189 - 3, 286_189]  # a weight for each of three places


def test_aicnns_table_1_has_the_networks_of_the_models_with_stems_for_32_pixels() -> None:
    params = {v.name: cost_of(v.network.graph).params for v in plan("aicnn/table1_cifar10.yaml").variants}
    # 10 classes for 1,000; and a 3×3 stem where the ImageNet networks have 7×7
    stem, resnet, dense = (49 - 9) * 3 * 64, 990 * 2049, 990 * 1025
    assert params == {
        "ResNet-50": 25_557_032 - stem - resnet,
        "SENet-50": 28_088_024 - stem - resnet,
        "CBAM-ResNet": 28_073_560 - stem - resnet,
        "DenseNet-121": 7_978_856 - stem - dense,
        "AICNN": 27_527_951 - stem - resnet,
    }


def test_placement_inserts_at_as_many_places_as_its_names_say() -> None:
    counted = {v.name: len(v.network.graph.insertion_nodes("attention")) for v in plan("placement.yaml").variants}
    assert counted == {"none": 0, "between_stages": 3, "every_block": 9, "within_block": 9, "before_conv": 18}


def jpeg(table: str, train: int) -> list[str]:
    """A budget of one epoch and one seed, on a few images of the JPEG copy of CIFAR-10."""
    held_out = ", val: 100" if table == "table2" else ""
    return [
        "data.name=parquet",
        f"data.root={IMAGES}",
        "data.title=CIFAR-10 (JPEG copy)",
        f"data.limit={{train: {train}{held_out}, test: 100}}",
        "train.epochs=1",
        "ablation.seeds=1",
    ]


@pytest.mark.skipif(not IMAGES.is_dir(), reason="needs the JPEG copy of CIFAR-10 (ABLATE_TEST_DATA)")
@pytest.mark.parametrize(
    ("table", "train"),
    [
        pytest.param("table2", 100, id="table 2, 100 images"),
        pytest.param("table3", 100, id="table 3, 100 images"),
        pytest.param("table2", 2000, id="table 2, 2,000 images", marks=pytest.mark.slow),
        pytest.param("table3", 2000, id="table 3, 2,000 images", marks=pytest.mark.slow),
    ],
)
def test_cnntentions_tables_train_on_real_images(
    tmp_path: Path, sweep_spec: Callable[..., Any], table: str, train: int
) -> None:
    study = sweep_spec(SPECS / "cnntention" / f"{table}.yaml", tmp_path / "s", jpeg(table, train), executor="local")
    assert {result["status"] for result in study.results().values()} == {"finished"}
    shown = ablation_table(study)
    published = [cell.text for cell in shown.column(f"CNNtention Table {table[-1]}")]
    assert published == {"table2": ["90.66", "90.32", "89.94"], "table3": ["90.96", "91.44", "91.06", "91.32"]}[table]
    judged = [(cell.text, cell.note) for cell in shown.column("verdict")]
    assert {*judged} == {("not run", "--set data.name, --set data.limit, --set train.epochs: another budget")}
    assert "Reduced budget" in shown.caption
