"""The page of a report: all of the study, nothing of anywhere else, and no text in it that is more than text."""

from __future__ import annotations

import base64
import hashlib
import itertools
import re
from dataclasses import replace
from pathlib import Path

import pytest

from ablate.analysis.arms import arms_of
from ablate.figures import Figure
from ablate.figures.canvas import Images
from ablate.report.page import page
from ablate.report.page.claims import claims
from ablate.report.page.course import course
from ablate.report.page.curves import curves
from ablate.report.page.drawings import inlined
from ablate.report.page.question import environment
from ablate.report.page.tables import MOST_ROWS, shown
from ablate.report.values import Cell, Column, Table
from ablate.store import DIAGRAMS, Study
from tests.pages import CERTIFICATE, DIAGRAM, PICTURE, Seen, figure, made, paged
from tests.tabled import build

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>&amp;\x1b[31m\u202eevil</style></title>"


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return made(tmp_path_factory.mktemp("page"), {"none": [97.0, 96.0], "every_block": [97.5, "crashed"]})


@pytest.fixture(scope="module")
def text(study: Study) -> str:
    return paged(study, [figure("seeds"), figure("curves")])


def test_the_page_says_what_the_study_has(text: str) -> None:
    said = Seen(text).texts
    everything = said["body"][0]
    for words in (
        "placement: none, every_block",
        "The resolved spec (spec.yaml)",
        "name: placement",
        "4 trials: 3 finished, 1 crashed",
        "97.50 (1 seed)",
        "{block: cbam}",
        "All 41 keys",
        "every_block, seed 1: crashed.",
        "RuntimeError: boom",
        "head (width 16 → 32)",
        "On record: 0.",
        "torch",
        "runs/placement-again",
        "seeds of one variant.",
    ):
        assert words in everything, words
    assert said["title"][0] == "placement: report"
    assert said["h3"] == ["none baseline", "every_block"]


def test_nothing_of_the_page_is_elsewhere(text: str) -> None:
    seen = Seen(text)
    ids = list(seen.values("id"))
    for target in [*seen.values("href"), *seen.values("xlink:href"), *seen.values("src")]:
        assert target in [f"#{id}" for id in ids]
    assert {name for value in seen.values("clip-path") for name in re.findall(r"url\(#(.*?)\)", value)} <= {*ids}
    assert len(ids) == len(set(ids)), "two pictures share an id"
    assert "http" not in text.replace("http-equiv", "").replace("http://www.w3.org/2000/svg", "")
    assert not seen.of("link")
    assert not seen.of("iframe")
    assert not seen.values("style")


def test_the_policy_allows_the_pages_own_style_and_script_alone(text: str) -> None:
    seen = Seen(text)
    policy = next(meta["content"] for meta in seen.of("meta") if "http-equiv" in meta)
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    for tag in ("style", "script"):
        [own] = seen.texts[tag]
        assert f"{tag}-src 'sha256-{base64.b64encode(hashlib.sha256(own.encode()).digest()).decode()}'" in policy


def test_headings_go_down_one_step_at_a_time(text: str) -> None:
    levels = [int(tag[1]) for tag, _ in Seen(text).elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_every_table_has_a_caption_and_scoped_headers(text: str) -> None:
    seen = Seen(text)
    assert len(seen.of("caption")) == len(seen.of("table")) > 0
    assert all(head.get("scope") in ("col", "row") for head in seen.of("th"))


def test_whatever_a_spec_or_an_exception_says_is_text(tmp_path: Path) -> None:
    study = made(
        tmp_path,
        {"none": [97.0], HOSTILE: ["crashed"]},
        {"name": HOSTILE, "report": {"columns": ["params"]}},
        levels={HOSTILE: HOSTILE},
        patch=[[HOSTILE, {HOSTILE: HOSTILE}]],
        data=HOSTILE,
        certificate={**CERTIFICATE, "protocol": [HOSTILE], "difference": {"added": [HOSTILE], "baseline": HOSTILE}},
    )
    crashed = study.variants[1]["trials"]["0"]
    error = {"type": HOSTILE, "message": HOSTILE, "traceback": f"{HOSTILE}\n{HOSTILE}"}
    study.finish(crashed, {"status": "crashed", "metrics": {}, "epochs": 1, "error": error})
    study.expose(by=HOSTILE, trial=crashed, variant=HOSTILE, seed=HOSTILE)
    study = Study(study.folder, study.spec, study.variants, {HOSTILE: HOSTILE})
    hostile = Figure("seeds", {"hover": {"point:0:0": HOSTILE}}, Images(PICTURE, b""), HOSTILE)
    found = paged(study, [hostile])
    seen = Seen(found)
    assert len(seen.texts["script"]) == len(seen.texts["style"]) == 1
    assert not seen.of("img")
    assert not any(name.startswith("on") for _, own in seen.elements for name in own)
    assert "\x1b" not in found
    assert "\u202e" not in found
    assert seen.texts["body"][0].count("<script>alert(1)</script>") > 10


def test_the_test_split_is_hidden_until_every_trial_has_a_result(tmp_path: Path) -> None:
    spec = {"paper": [{"title": "P", "table": 1, "metric": "test.accuracy", "values": {"none": 91.5}}]}
    ended = paged(made(tmp_path / "a", {"none": [97.25, 96.0]}, spec))
    assert "96.25" in ended
    assert "91.5" in ended
    waiting = paged(made(tmp_path / "b", {"none": [97.25, 96.0], "every_block": [None]}, spec))
    assert "96.25" not in waiting
    assert "91.5" not in waiting


def test_what_a_picture_brings_beside_shapes_is_left_out() -> None:
    bad = b"""<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" onload="alert(1)">
      <script>alert(1)</script><foreignObject><p>x</p></foreignObject>
      <a href="javascript:alert(1)"><text>linked</text></a>
      <image href="http://example.org/x.png"/><use xlink:href="http://example.org/x.svg#a"/>
      <rect fill="url(http://example.org/a)" onclick="alert(1)"
        style="fill: url( 'http://example.org/b' ); stroke: red"/>
      <set attributeName="href"/><text>kept</text></svg>"""
    found = str(inlined(bad, "x", "said"))
    assert "kept" in found
    assert 'stroke="red"' in found
    for word in ("alert", "example.org", "foreignObject", "script", "linked", "onclick", "onload", "<set"):
        assert word not in found, word
    assert inlined(b"<svg", "x", "said") is None
    assert inlined(b"<html></html>", "x", "said") is None


SVG = '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink">{}</svg>'


def test_a_title_in_a_picture_holds_text_alone() -> None:
    """To an HTML parser a path in a title is an element without an end, and the page after it is part of the title."""
    found = str(
        inlined(SVG.format("<g><title>conv1<path/><image/></title></g><rect><g><path/></g></rect>"), "x", "said")
    )
    assert "<title>conv1</title>" in found
    assert "path" not in found
    assert "image" not in found


@pytest.mark.parametrize(
    "content",
    [
        "<g>" * 3_000 + "</g>" * 3_000,
        "<g/>" * 60_000,
        '<g id="a"><path/></g><g id="b">' + '<use xlink:href="#a"/>' * 10 + '</g><use xlink:href="#b"/>',
        '<g id="a">' + "<path/>" * 300 + "</g>" + '<use xlink:href="#a"/>' * 300,
        '<g id="a"><use xlink:href="#a"/></g>',
    ],
    ids=["deep", "many", "chained", "repeated", "itself"],
)
def test_a_picture_that_would_stop_a_browser_is_none(content: str) -> None:
    assert inlined(SVG.format(content), "x", "said") is None


def test_a_picture_of_an_unknown_encoding_is_none() -> None:
    assert inlined(b"<?xml version='1.0' encoding='bogus'?><svg/>", "x", "said") is None


@pytest.mark.parametrize(
    "value", ["u\\72l(http://e.x/a#b)", "url(http://e.x/a)", "url(#a) url(http://e.x/b)", "data:x", "URL(//e.x)"]
)
def test_no_spelling_of_an_address_is_taken_over(value: str) -> None:
    assert "e.x" not in (found := str(inlined(SVG.format(f'<rect fill="{value}" clip-path="{value}"/>'), "x", "said")))
    assert "data:x" not in found


def test_what_is_said_of_a_picture_is_no_reference_in_it() -> None:
    found = inlined(SVG.format('<g id="a"/><g id="a"/><rect fill="url(#a)"/>'), "x", "v url(#a) end", {"a": "url(#zz)"})
    assert 'aria-label="v url(#a) end"' in str(found)
    assert 'aria-label="url(#zz)"' in str(found)
    assert str(found).count('id="x-0"') == 1


def test_trials_without_a_result_and_readings_that_are_not_on_record_are_told(tmp_path: Path) -> None:
    found = paged(made(tmp_path, {"none": [97.0, None]}))
    assert "None of the trials that ended failed. Without a result: 1 of 2." in found
    assert "The trials report 1: the record is incomplete." in found


def test_styles_of_a_picture_become_attributes_and_points_say_what_they_are() -> None:
    found = Seen(str(inlined(PICTURE, "p", "said", {"point:0:1": "none, seed 1"})))
    assert found.of("use")[0] == {"href": "#p-0", "x": "50", "y": "50", "fill": "#0072b2", "stroke": "#000000"}
    assert found.of("text")[0]["font-size"] == "7"
    assert found.of("text")[0]["text-anchor"] == "middle"
    [point] = [own for own in found.of("g") if own.get("class") == "point"]
    assert point["aria-label"] == "none, seed 1"
    assert found.texts["title"] == ["none, seed 1"]


def test_a_certificate_is_told_with_its_numbers() -> None:
    said = {claim.about: " ".join(claim.said) for claim in claims(CERTIFICATE)}
    assert (
        "74 of 74 trainable parameter tensors receive a gradient; first loss 2.2500" in said["Passes over a real batch"]
    )
    assert "113 of 116 parameters" in said["Shared start and first batches"]
    assert "differ from the baseline's (by augmentation)" in said["Shared start and first batches"]
    assert "nodes: 1 added, 0 removed, 1 changed. +1,641 parameters, −7 FLOPs." in said["Difference from the baseline"]
    assert list(said) == [
        "Keys",
        "Identity",
        "Difference from the baseline",
        "Passes over a real batch",
        "Shared start and first batches",
        "Protocol",
    ]
    assert [claim.about for claim in claims({})] == ["Passes over a real batch"]


def test_curves_have_a_line_a_seed_and_no_more_points_than_can_be_seen() -> None:
    rows = [{"epoch": epoch, "train.error": 90 - epoch / 10, "test.error": 50.0} for epoch in range(1, 701)]
    found = curves({"0": rows, "1": rows[:100]}, hidden=True)
    assert found is not None
    assert found.splits == ("train",)
    lines = Seen(str(found.picture)).of("polyline")
    assert [len(line["points"].split()) for line in lines] == [118, 100]
    assert found.text == "error (%) by epoch of 2 seeds; at the end train 20.00 to 80.00"
    assert curves({"0": rows[:1]}, hidden=False) is None
    assert curves({"0": [{"epoch": 1, "val.loss": float("nan")}] * 2}, hidden=False) is None


def test_cells_are_sorted_by_their_values_and_rows_beyond_the_most_are_said() -> None:
    table = Table(
        "t", (Column("a"), Column("b", kind="number")), ((Cell("x"), Cell("9.15 M", 9.15e6)),) * (MOST_ROWS + 7)
    )
    found = shown("table", table, {})
    assert [cell.key for cell in found.rows[0]] == ["x", "9150000.0"]
    assert (len(found.rows), found.left_out) == (MOST_ROWS, 7)
    assert shown("t", replace(table, rows=((Cell("x"), Cell("")),)), {}).rows[0][1].key == ""


def test_many_variants_stay_small_and_it_is_said_what_is_left_out(study: Study) -> None:
    arms = [replace(arm, name=f"{arm.name}-{number}") for number in range(155) for arm in arms_of(study)]
    table = Table("t", (Column("variant"), Column("b")), tuple((Cell(arm.name), Cell("x")) for arm in arms))
    found = page(study, arms, {"table": table})
    assert "With more than 60 variants" in found
    assert "The first 300 of 310" in found
    assert "<polyline" not in found
    assert DIAGRAM[40:70] not in found


def test_a_diagram_that_is_damaged_is_told(tmp_path: Path) -> None:
    study = made(tmp_path, {"none": [97.0]})
    assert ">conv1</title>" in paged(study)
    (study.folder / DIAGRAMS).write_text("{")
    found = paged(Study.open(study.folder))
    assert ">conv1</title>" not in found
    assert "diagrams.json" in Seen(found).texts["dt"]


def test_older_studies_have_no_patch_and_no_diagrams(tmp_path: Path) -> None:
    found = paged(build(tmp_path, {"none": [97.0, 98.0]}))
    assert "Not on record." in found
    assert "conv1" not in found


def test_the_course_of_a_study_is_told_from_its_log_and_its_results(tmp_path: Path) -> None:
    study = made(tmp_path, {"none": [97.0, 96.0], "every_block": [None]})
    assert "Began" not in Seen(paged(study)).texts["dt"]
    for event, time in (
        ("sweep", "2026-03-01T10:11:12"),
        ("ended", "2026-03-02T07:05:00"),
        ("over", "2026-03-03T01:02"),
    ):
        study.log({"event": event, "time": f"{time}+00:00"})
    said = Seen(paged(study)).texts
    about = dict(zip(said["dt"], said["dd"], strict=False))
    assert about["Began"] == "2026-03-01 10:11 UTC"
    assert about["Last trial ended"] == "2026-03-02 07:05 UTC"


def test_compute_is_the_sum_over_trials_each_counted_once(tmp_path: Path) -> None:
    study = made(tmp_path, {"none": [97.0, 96.0], "wide": [None]})
    arms = arms_of(study)
    for arm in arms:
        for result in filter(None, arm.results.values()):
            result["seconds"] = 1800.0
    assert dict(course(study, [*arms, arms[0]]))["Compute"] == "1.00 hours: the seconds of 2 of 3 trials, added up"


def test_each_trial_is_listed_with_its_hash_and_the_baseline_is_marked(tmp_path: Path) -> None:
    study = made(tmp_path, {"none": [97.0, 96.0], "wide": [95.0]})
    seen = Seen(paged(study))
    assert seen.texts["code"] == [hash for variant in study.variants for hash in variant["trials"].values()]
    baselines = {arm.baseline for arm in arms_of(study)} - {None}
    marked = [text.split()[0] for text in seen.texts["summary"] if text.endswith("baseline")]
    assert {*marked} == baselines == {"none"}


def test_missing_diagrams_and_certificates_are_said(tmp_path: Path) -> None:
    older = paged(build(tmp_path / "a", {"none": [97.0]}))
    assert "No diagram was kept: going on with the study (ablate sweep) draws it." in older
    assert "None is on record: nothing was proven" in paged(made(tmp_path / "c", {"none": [97.0]}, certificate={}))
    study = made(tmp_path / "b", {"none": [97.0]})
    assert "diagram was kept" not in paged(study)
    assert "None is on record" not in paged(study)
    study = Study.create(study.folder, study.spec, study.variants, {}, {"e" * 32: DIAGRAM})
    assert "No diagram was kept of this network" in paged(study)
    study = Study.create(study.folder, study.spec, study.variants, {}, {"f" * 32: "<svg"})
    assert "The diagram on record can&#39;t be read as a picture." in paged(study)
    (study.folder / DIAGRAMS).write_text("{")
    assert "diagrams.json is damaged." in paged(study)


def test_no_path_is_absolute_where_a_relative_one_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    study = made(tmp_path, {"none": [97.0]}, {"data": {"name": "x", "root": str(tmp_path / "images")}})
    found = paged(study)
    assert str(tmp_path) not in found
    assert f"ablate sweep {study.folder.relative_to(tmp_path)}/spec.yaml" in found
    assert "--set data.root=images" in found
    assert "root: images" in found


def test_a_path_elsewhere_is_told_once_and_the_folder_of_the_study_never(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    found = paged(made(tmp_path, {"none": [97.0]}, {"data": {"name": "x", "root": "/elsewhere/images"}}))
    assert "ablate sweep STUDY/spec.yaml" in found
    assert str(tmp_path) not in found
    assert found.count("/elsewhere/images") == 1


def test_a_note_leads_to_its_first_cell_and_back() -> None:
    rows = ((Cell("a", note="why"),), (Cell("b", note="why"),), (Cell("c", note="how"),))
    found = shown("t", Table("t", (Column("a"),), rows), {})
    assert [(row[0].mark, row[0].id) for row in found.rows] == [("a", "t-back-a"), ("a", ""), ("b", "t-back-b")]
    assert found.notes == (("a", "why", "t-back-a"), ("b", "how", "t-back-b"))
    late = Table("t", (Column("a"),), (*(((Cell("x"),),) * MOST_ROWS), (Cell("y", note="why"),)))
    assert shown("t", late, {}).notes == (("a", "why", ""),)


def test_nothing_is_a_landmark_or_a_stop_of_the_tab_key_without_need(text: str) -> None:
    seen = Seen(text)
    assert "region" not in seen.values("role")
    assert set(seen.values("tabindex")) == {"-1"}
    assert not any("aria-labelledby" in own for tag, own in seen.elements if tag == "section")
    captions = seen.texts["figcaption"]
    assert not any(label in caption for label in seen.values("aria-label") for caption in captions if len(label) > 20)


def test_expanding_needs_a_script_and_is_hidden_without(text: str) -> None:
    [folding] = [own for own in Seen(text).of("p") if own.get("id") == "folding"]
    assert "hidden" in folding


def test_data_of_one_description_and_two_contents_are_two(tmp_path: Path) -> None:
    told = {name: {"data": "own: 64 train", "data_hash": hash * 64} for name, hash in (("none", "a"), ("se", "b"))}
    study = build(tmp_path, {"none": [97.0], "se": [97.5]}, more=told)
    said = [text for term, text in environment(study) if term == "data, by content"]
    assert said == [f"{hash * 64} (own: 64 train)" for hash in "ab"]
