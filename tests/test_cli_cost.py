"""``ablate cost``: counts beside what papers print, per variant, node and insertion; and networks that levels take."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from ablate import stats
from ablate.cli import main
from ablate.cost_tables import priced as prices_of
from ablate.cost_tables import variant_table, verdict_of
from ablate.costing import cost_of
from ablate.design import study_plan
from ablate.errors import UserError
from ablate.report.tables import format_published
from ablate.spec import load
from tests.conftest import REPOSITORY

TABLE5 = REPOSITORY / "specs" / "aicnn" / "table5.yaml"


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main(["cost", *map(str, arguments)]) == 0
    return capsys.readouterr().out


def rows(capsys: pytest.CaptureFixture[str], *arguments: object) -> list[dict[str, Any]]:
    (table,) = json.loads(run(capsys, *arguments, "--json"))
    found: list[dict[str, Any]] = table["rows"]
    return found


def value(row: dict[str, Any], column: str) -> Any:
    return row[column]["value"]


def test_a_row_per_variant_with_what_it_has_more_than_its_baseline(
    capsys: pytest.CaptureFixture[str], tiny: Path
) -> None:
    found = {row["variant"]: row for row in rows(capsys, tiny)}
    assert list(found) == ["none", "se", "between"]
    # squeeze-and-excitation on 8 channels with r = 2: two layers of 8 × 4, and biases of 4 and 8
    assert value(found["none"], "Δ params") is None
    assert found["none"]["Δ params"]["text"] == "baseline"
    assert value(found["se"], "Δ params") == 2 * (2 * 8 * 4 + 4 + 8)
    assert value(found["between"], "Δ params") == 2 * 8 * 4 + 4 + 8
    assert value(found["se"], "Δ FLOPs") == 2 * 2 * 8 * 4
    assert found["se"]["insertions: params, FLOPs"] == "attention: 152, 128"
    counted = {v.name: cost_of(v.network.graph) for v in study_plan(load(tiny)).variants}
    assert {name: value(row, "FLOPs") for name, row in found.items()} == {n: c.flops for n, c in counted.items()}


def test_a_row_per_node_and_per_insertion_and_the_total(capsys: pytest.CaptureFixture[str], tiny: Path) -> None:
    nodes, insertions = json.loads(run(capsys, tiny, "--variant", "se", "--json"))
    graph = study_plan(load(tiny)).variant("se").network.graph
    assert [row["node"] for row in nodes["rows"]] == [*(node.name for node in graph.nodes), "total"]
    *each, total = (value(row, "params") for row in nodes["rows"])
    assert sum(each) == total == cost_of(graph).params
    assert [(row["insertion"], value(row, "params")) for row in insertions["rows"]] == [("attention", 152)]


def test_rows_by_stage_and_by_insertion(capsys: pytest.CaptureFixture[str], tiny: Path) -> None:
    stages = rows(capsys, tiny, "--variant", "between", "--by", "stage")
    assert [row["stage"] for row in stages] == ["stem", "stage1", "stage1_attention", "head", "total"]
    *each, total = (value(row, "FLOPs") for row in stages)
    assert sum(each) == total
    insertions = rows(capsys, tiny, "--by", "insertion")
    assert [(row["variant"], value(row, "params")) for row in insertions] == [("se", 152), ("between", 76)]


def test_without_a_variant_the_nodes_are_those_of_the_spec_as_written(
    capsys: pytest.CaptureFixture[str], tiny: Path
) -> None:
    assert run(capsys, tiny, "--by", "node").splitlines()[0] == "tiny: nodes"


def test_memory_is_for_the_recipes_batch_or_the_one_that_is_asked_for(
    capsys: pytest.CaptureFixture[str], tiny: Path
) -> None:
    column = "kept for backward"
    whole, half = rows(capsys, tiny, "--memory"), rows(capsys, tiny, "--memory", "--batch", 8)
    # two values per channel for each of the five norms of 8 channels, whatever the batch
    statistics = 5 * 2 * 8 * 4 / 2**20
    for of_16, of_8 in zip(whole, half, strict=True):
        assert value(of_16, column) - statistics == pytest.approx(2 * (value(of_8, column) - statistics))
        assert value(of_16, "peak in evaluation") == 2 * value(of_8, "peak in evaluation")
    by_node, insertions = json.loads(run(capsys, tiny, "--variant", "se", "--memory", "--json"))
    *nodes, total = (value(row, column) for row in by_node["rows"])
    assert total == pytest.approx(sum(nodes)) == value(whole[1], column)
    assert 0 < value(insertions["rows"][0], column) < total
    assert "batch of 16 in fp32" in by_node["caption"]
    tiny.write_text(tiny.read_text().replace("batch_size: 16", "batch_size: 16, micro_batch: 8"))
    assert rows(capsys, tiny, "--memory") == half
    assert "batch of 8 (train.micro_batch) in fp32" in run(capsys, tiny, "--memory")


def test_latency_says_how_it_was_measured(
    capsys: pytest.CaptureFixture[str], tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ablate.costing import latency

    monkeypatch.setattr(latency.timed, "__kwdefaults__", {**latency.timed.__kwdefaults__, "least_seconds": 0})
    (table,) = json.loads(run(capsys, tiny, "--latency", "--batch", 2, "--json"))
    for row in table["rows"]:
        low, high = row["forward"]["text"].split("[")[1].rstrip("]").split(", ")
        assert float(low) <= round(value(row, "forward"), 3) <= float(high)
        assert value(row, "training step") > 0
    for said in ("median [quartiles] of 11 runs after 3 to warm up", "batch 2", "1 thread", "cpu"):
        assert said in table["caption"]
    nodes, _ = json.loads(run(capsys, tiny, "--variant", "se", "--latency", "--json"))
    assert all(value(row, "forward") > 0 for row in nodes["rows"])


def test_the_formats_and_the_next_command(capsys: pytest.CaptureFixture[str], tiny: Path) -> None:
    assert run(capsys, tiny).splitlines()[-1] == f"next: ablate cost {tiny} --memory"
    markdown = run(capsys, tiny, "--format", "markdown")
    assert markdown.startswith("**tiny: cost**")
    found = list(csv.DictReader(io.StringIO(run(capsys, tiny, "--format", "csv"))))
    assert [row["params"] for row in found] == ["2645", "2797", "2721"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--variant", "sa"), "no variant 'sa'; one of: between, none, se"),
        (("--variant", "se", "--by", "variant"), "--by variant shows all variants; leave --variant out"),
        (("--profile", "tiny"), "no profile"),
        (("--latency", "--by", "stage"), "--latency is not measured by stage; --by node times each node"),
        (("--latency", "--by", "insertion"), "--latency is not measured by insertion"),
        (("--by", "insertion", "--variant", "none"), "there are no insertions; --by stage, or --by node"),
    ],
)
def test_what_cannot_be_shown_is_refused(
    capsys: pytest.CaptureFixture[str], tiny: Path, arguments: tuple[str, ...], said: str
) -> None:
    assert main(["cost", str(tiny), *arguments]) == 2
    assert said in capsys.readouterr().err


def test_set_and_profile_change_what_is_counted(capsys: pytest.CaptureFixture[str], tiny: Path) -> None:
    profile = "profiles:\n  narrow: {network.graph.stem.width: 2}\n"
    tiny.write_text(tiny.read_text() + profile)
    options = ("--set", "network.graph.stage1.width=16", "--profile", "narrow", "--by", "stage", "--variant", "none")
    stem, stage1, *_ = rows(capsys, tiny, *options)
    assert value(stem, "FLOPs") == 9 * 3 * 2 * 11 * 13
    assert value(stage1, "FLOPs") == (9 * 2 * 16 + 3 * 9 * 16 * 16) * 11 * 13


# ── AICNN's Table 5 ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def table5() -> dict[str, dict[str, str]]:
    plan = study_plan(load(TABLE5))
    table = variant_table(plan, prices_of(plan.variants))
    names = [column.name for column in table.columns]
    return {
        row[0].text: {name: cell.text + cell.note for name, cell in zip(names, row, strict=True)} for row in table.rows
    }


def test_table_5_has_the_papers_numbers_as_it_prints_them(table5: dict[str, dict[str, str]]) -> None:
    printed = {name: (row["params in AICNN Table 5"], row["FLOPs in AICNN Table 5"]) for name, row in table5.items()}
    assert printed == {
        "ResNet-50": ("25.6 M", "4.1 G"),
        "SENet-50": ("28.1 M", "4.2 G"),
        "CBAM-ResNet": ("28.0 M", "4.3 G"),
        "DenseNet-121": ("8.0 M", "2.9 G"),
        "AICNN": ("27.5 M", "4.0 G"),
    }


def test_table_5_is_reproduced_where_the_networks_have_the_printed_numbers(
    table5: dict[str, dict[str, str]],
) -> None:
    of_params = {name: row["verdict on params"] for name, row in table5.items()}
    assert of_params.pop("CBAM-ResNet") == "differs (+73,560, +0.3%)"
    assert set(of_params.values()) == {"reproduced"}
    of_flops = {name: row["verdict on FLOPs"].split(" (")[0] for name, row in table5.items()}
    assert of_flops == {
        "ResNet-50": "reproduced",
        "SENet-50": "differs",
        "CBAM-ResNet": "differs",
        "DenseNet-121": "differs",
        # with the reason, which follows as a footnote
        "AICNN": "not reproducible",
    }
    assert "no placement" in table5["AICNN"]["verdict on FLOPs"]


def test_what_is_said_not_to_be_reproducible_is_below_the_trunk_alone() -> None:
    """What the reason says: the trunk without any gate costs more than is printed for the trunk with gates."""
    plan = study_plan(load(TABLE5))
    claim = next(claim for claim in plan.paper if claim.metric == "flops")
    (impossible,) = claim.not_reproducible
    gated = plan.variant(impossible).network
    trunk = cost_of(gated.written)
    assert trunk.flops == cost_of(plan.variant("ResNet-50").network.graph).flops
    assert claim.printed_to is not None
    assert trunk.flops > claim.values[impossible] + claim.printed_to / 2


@pytest.mark.parametrize(
    ("ours", "published", "printed_to", "verdict"),
    [
        (28_090_024, 28.1e6, None, "reproduced"),
        (25_714_000, 25.8e6, None, "differs"),
        (269_722, 269_722, None, "reproduced"),
        (269_722, 269_723, None, "differs"),
        (385_814_752, 0.4e9, None, "reproduced"),
        # 4.0 G, and not 4 G: the zero was printed
        (4_165_554_176, 4.0e9, None, "reproduced"),
        (4_165_554_176, 4.0e9, 0.1e9, "differs"),
        (4_049_999_999, 4.0e9, 0.1e9, "reproduced"),
        (28_073_560, 28.0e6, 0.1e6, "differs"),
    ],
)
def test_a_count_is_held_against_the_digits_that_were_printed(
    ours: int, published: float, printed_to: float | None, verdict: str
) -> None:
    assert stats.verdict_exact(ours, published, printed_to=printed_to) == verdict


def test_only_what_differs_is_not_reproducible() -> None:
    assert stats.verdict_exact(4_000_000_001, 4.0e9, impossible=True) == "reproduced"
    assert stats.verdict_exact(4_600_000_000, 4.0e9, impossible=True) == "not reproducible"
    assert stats.verdict_exact(None, 4.0e9, impossible=True) == "not run"


@pytest.mark.parametrize(
    ("value", "printed_to", "text"),
    [(28.0e6, 1e5, "28.0 M"), (4.0e9, 1e8, "4.0 G"), (2.85e9, 1e7, "2.85 G"), (269_722.0, 1.0, "269.722 k")],
)
def test_a_published_count_is_printed_as_the_paper_has_it(value: float, printed_to: float, text: str) -> None:
    assert format_published("flops", value, printed_to) == text


# ── paper: ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("claim", "said"),
    [
        ("metric: params, values: {se: 2.8e+3}, not_reproducible: {so: why}", "nothing is published for 'so'"),
        ("metric: test.accuracy, values: {se: 90}, printed_to: 0.1", "is about counts"),
        ("metric: test.accuracy, values: {se: 90}, not_reproducible: {se: why}", "is about counts"),
        ("metric: params, values: {se: 2.8e+3}, printed_to: 0", "0 is too small; more than 0"),
        ("metric: params, values: {se: 2.85e+3}, printed_to: 100", "100.0 is no unit of the last digit of 2850.0"),
        ("metric: params, values: {se: 2.8e+3}, printed_to: 1.0e+5", "is no unit of the last digit of 2800.0"),
        ("metric: flops, values: {se: -2.8e+3}", "no count is less than 0"),
    ],
)
def test_a_claim_that_means_nothing_is_refused(tiny: Path, claim: str, said: str) -> None:
    tiny.write_text(f"{tiny.read_text()}paper:\n  - {{title: A paper, {claim}}}\n")
    with pytest.raises(UserError, match=said):
        study_plan(load(tiny))


def test_two_claims_of_one_name_are_refused_with_the_first(tiny: Path) -> None:
    """Their columns would have one name, and one of them would be lost to whoever reads the table as data."""
    claims = "  - {title: A, table: 2, metric: params, values: {se: 2.8e+3}}\n" * 2
    tiny.write_text(f"{tiny.read_text()}paper:\n{claims}")
    with pytest.raises(UserError, match="'params' of table 2 of 'A' is given twice, first in entry 1"):
        study_plan(load(tiny))


@pytest.mark.parametrize(("published", "text"), [(2.9e9, "2.9 G"), (28e6, "28 M"), (25_557_032, "25.557032 M")])
def test_a_published_count_shows_the_digits_that_decide_where_none_is_stated(published: float, text: str) -> None:
    """2.900 G would be a claim of four digits, and the verdict takes it for one of two."""
    assert format_published("flops", published) == text


def test_a_miss_by_little_is_not_printed_as_no_miss(tiny: Path) -> None:
    tiny.write_text(f"{tiny.read_text()}paper: [{{title: A, metric: params, values: {{se: 2798}}, printed_to: 1}}]\n")
    plan = study_plan(load(tiny))
    claim = plan.paper[0]
    assert verdict_of(claim, "se", 2797).text == "differs (−1, −0.04%)"
    assert verdict_of(claim.model_copy(update={"values": {"se": 3e7}}), "se", 30_000_001).text.endswith("+0.000003%)")


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        ((), True),
        (("--set", "train.batch_size=3"), True),
        (("--set", "data.count={train: 29, test: 7}"), True),
        (("--set", "network.graph.stem.width=4"), False),
        (("--set", "data.classes=3"), False),
        (("--shape", "3x5x5"), False),
    ],
)
def test_a_papers_counts_stand_beside_the_networks_that_they_are_about_alone(
    capsys: pytest.CaptureFixture[str], tiny: Path, arguments: tuple[str, ...], shown: bool
) -> None:
    tiny.write_text(f"{tiny.read_text()}paper: [{{title: A, metric: params, values: {{se: 2797}}}}]\n")
    out = " ".join(run(capsys, tiny, *arguments).split())
    assert ("verdict on params" in out) is shown
    assert ("The paper's counts are not shown: --set changes what they are about." in out) is not shown


def test_table_5s_small_profile_keeps_all_its_networks() -> None:
    """Of the inherited one the first network alone would have had the small size."""
    small, whole = (study_plan(load(TABLE5, profile=profile)) for profile in ("tiny", None))
    graphs = [[variant.network.graph for variant in plan.variants] for plan in (small, whole)]
    assert [[n.name for n in graph.nodes] for graph in graphs[0]] == [[n.name for n in g.nodes] for g in graphs[1]]
    assert {graph.input_shape for graph in graphs[0]} == {(3, 64, 64)}


# ── a level that takes another network ───────────────────────────────────────────────────────────────────────────────

OTHER = """\
network:
  params: {k: 1}
  graph:
    stem: {block: conv_bn_act, width: 7*$k, kernel: 3}
    head: {block: classifier}
"""


@pytest.fixture
def with_other(tiny: Path) -> Path:
    folder = tiny.parent / "models"
    folder.mkdir()
    (folder / "other.yaml").write_text(OTHER)
    return tiny


def level(spec: Path, patch: str) -> Path:
    spec.write_text(spec.read_text() + f"      other:   {patch}\n")
    return spec


def names(spec: Path) -> list[str]:
    return [node.name for node in study_plan(load(spec)).variant("other").network.graph.nodes]


def test_a_level_takes_the_network_of_a_file(with_other: Path) -> None:
    spec = level(with_other, "{network: {extends: models/other.yaml}}")
    assert names(spec) == ["stem.conv", "stem.bn", "stem.act", "head.pool", "head.fc"]
    # the other levels keep the spec's
    assert "stage1.0.conv1" in study_plan(load(spec)).variant("se").network.graph.by_name


def test_what_stands_beside_changes_that_network(with_other: Path) -> None:
    patch = "{network: {extends: models/other.yaml, params: {k: 2}, graph: {stem: {stride: 2}}}}"
    graph = study_plan(load(level(with_other, patch))).variant("other").network.graph
    assert graph.by_name["stem.conv"].shape == (14, 6, 7)


def test_a_level_may_change_the_network_that_it_takes(with_other: Path) -> None:
    patch = "{network: {extends: models/other.yaml}, network.graph.stem.kernel: 5}"
    graph = study_plan(load(level(with_other, patch))).variant("other").network.graph
    assert graph.by_name["stem.conv"].params.kernel == 5


def test_a_level_may_write_a_whole_network(tiny: Path) -> None:
    assert names(level(tiny, "{network: {graph: {head: {block: classifier}}}}")) == ["head.pool", "head.fc"]


def test_a_studys_own_spec_needs_no_other_file(with_other: Path, tmp_path: Path) -> None:
    """What a sweep writes into its folder holds the network that the level took."""
    plan = study_plan(load(level(with_other, "{network: {extends: models/other.yaml}}")))
    (tmp_path / "models" / "other.yaml").unlink()
    again = study_plan(load(json.loads(json.dumps(plan.tree))))
    assert [variant.identity for variant in again.variants] == [variant.identity for variant in plan.variants]


@pytest.mark.parametrize(
    ("patch", "said"),
    [
        ("{network: {extends: models/othr.yaml}}", "no file 'models/othr.yaml'"),
        ("{network: {extends: ../../../etc/passwd}}", "is outside"),
        ("{network: {extends: 3}}", "3 is not a file's name"),
        ("{network: {extends: empty.yaml}}", "'empty.yaml' has no network"),
        ("{network: {extends: tiny.yaml}}", "extends itself"),
        ("{network: {insert: {}}}", "'network' is a whole section"),
        ("{network: null}", "'network' is a whole section"),
        ("{network: {extends: models/other.yaml, graf: {}}}", "unknown key"),
    ],
)
def test_a_network_that_no_level_can_take_is_refused(with_other: Path, patch: str, said: str) -> None:
    (with_other.parent / "empty.yaml").write_text("name: empty\n")
    with pytest.raises(UserError, match=said):
        study_plan(load(level(with_other, patch)))


def test_two_factors_cannot_both_decide_the_network(with_other: Path) -> None:
    spec = level(with_other, "{network: {extends: models/other.yaml}}")
    factor = "    width:\n      narrow: {network.graph.stem.width: 8}\n      wide: {network.graph.stem.width: 16}\n"
    spec.write_text(spec.read_text() + factor)
    with pytest.raises(UserError) as error:
        study_plan(load(spec))
    # once, and not for each level
    (problem,) = [each for each in error.value.problems if "both set this path" in each.message]
    assert problem.message.endswith(": a level of 'attention' is a whole network")
