"""The command line as a user meets it: what it prints, where, and how it exits."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ablate.cli import main
from ablate.store import Study
from tests.conftest import REPOSITORY, fill

Captured = pytest.CaptureFixture[str]


def run(*arguments: str) -> int:
    return main(list(arguments))


def imported_by(*arguments: str) -> set[str]:
    """The top-level packages that a command has imported when it ends."""
    code = (
        "import sys\nfrom ablate.cli import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit:\n    pass\n"
        "print('\\n'.join(sorted({name.split('.')[0] for name in sys.modules})), file=sys.stderr)"
    )
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, env=environment, check=True
    )
    return set(done.stderr.split())


def test_help_answers_without_any_heavy_import() -> None:
    assert not imported_by("--help") & {"torch", "ray", "numpy", "pydantic", "yaml", "scipy", "rich"}


def test_a_report_needs_neither_torch_nor_ray(tiny: Path, tmp_path: Path) -> None:
    folder = str(tmp_path / "s")
    assert run("sweep", str(tiny), "--out", folder, "--executor", "local", "--quiet", "--set", "train.epochs=1") == 0
    assert not imported_by("report", folder) & {"torch", "ray"}


def test_check_says_how_many_variants_and_trials(tiny: Path, capsys: Captured) -> None:
    assert run("check", str(tiny)) == 0
    assert capsys.readouterr().out == f"{tiny}: sound: 3 variants, 6 trials\n"


def test_check_names_the_profiles_and_checks_with_the_one_that_is_chosen(tiny: Path, capsys: Captured) -> None:
    tiny.write_text(tiny.read_text() + "profiles: {small: {ablation.seeds: 1}, other: {}}\n")
    assert run("check", str(tiny)) == 0
    assert run("check", str(tiny), "--profile", "small") == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{tiny}: sound: 3 variants, 6 trials; profiles: small, other",
        f"{tiny}: sound: 3 variants, 3 trials; profiles: small, other",
    ]
    assert run("check", str(tiny), "--profile", "smal") == 2
    assert capsys.readouterr().err == "--profile smal: no profile 'smal'; did you mean 'small'?\n"


def test_check_goes_through_every_spec_and_exits_2_if_one_is_wrong(
    tiny: Path, tmp_path: Path, capsys: Captured
) -> None:
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(tiny.read_text().replace("reduction: 2", "reducton: 2"))
    assert run("check", str(wrong), str(tiny)) == 2
    shown = capsys.readouterr()
    assert shown.out == f"{tiny}: sound: 3 variants, 6 trials\n"
    assert "unknown parameter of block 'se'; did you mean 'reduction'?" in shown.err


SIX_MISTAKES = """\
name: six
data: {name: mnist5k, vall: 0.2}
train: {epochs: 3.7, batch_size: "128", optimizer: {name: sgd, lr: 0.1}}
network:
  graph:
    stem: {block: conv_bn_act, width: 8}
    head: {block: classifier}
  insert:
    attention: {block: cbam, reducton: 8, at: after stems*}
ablation:
  seeds: 0
  factors:
    attention: {none: {network.insert.attention: null}}
"""


def test_six_mistakes_are_six_lines_with_place_and_hint_and_no_traceback(tmp_path: Path) -> None:
    spec = tmp_path / "six.yaml"
    spec.write_text(SIX_MISTAKES)
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        [sys.executable, "-m", "ablate", "check", "six.yaml"],
        capture_output=True,
        text=True,
        env=environment,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        "six.yaml:2:23: data.vall: unknown key; did you mean 'val'?",
        "six.yaml:3:17: train.epochs: 3.7 is not a whole number",
        "six.yaml:3:34: train.batch_size: '128' is text, a whole number was expected; remove the quotes",
        "six.yaml:9:30: network.insert.attention.reducton: unknown parameter of block 'cbam'; "
        "did you mean 'reduction'?",
        "six.yaml:9:53: network.insert.attention.at: pattern 'stems*' matches nothing; nearest: stem",
        "six.yaml:11:10: ablation.seeds: 0 seeds; from 1 to 1,000",
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        (b"", "is empty"),
        (b"\x00\x01\x02PK\x03\x04", "is a binary file"),
        (b"name: x\n\tdata: {}\n", "tab"),
        (b"name: x\nname: y\n", "name"),
        (b"- a\n- b\n", "mapping"),
    ],
)
def test_a_file_that_is_no_spec_is_an_error_with_its_name(
    tmp_path: Path, capsys: Captured, content: bytes | None, message: str
) -> None:
    spec = tmp_path / "spec.yaml"
    if content is not None:
        spec.write_bytes(content)
    assert run("check", str(spec)) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "spec.yaml" in shown.err
    assert message in shown.err


def test_an_impossible_shape_names_the_node_and_both_shapes(tiny: Path, capsys: Captured) -> None:
    text = tiny.read_text().replace(
        "    head:   {block: classifier}", "    mix: {block: add, from: [stem, input]}\n    head:   {block: classifier}"
    )
    tiny.write_text(text)
    assert run("check", str(tiny)) == 2
    error = capsys.readouterr().err
    assert "node 'mix'" in error
    assert "(8, 11, 13)" in error
    assert "(3, 11, 13)" in error


def test_show_lists_every_layer_and_its_total(tiny: Path, capsys: Captured) -> None:
    assert run("show", str(tiny), "--variant", "se", "--format", "csv") == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    nodes = {row["node"]: row for row in rows}
    assert nodes["stem.conv"]["params"] == str(3 * 8 * 9)
    assert nodes["stem.conv"]["FLOPs"] == str(3 * 8 * 9 * 11 * 13)
    assert nodes["stage1.0_attention"]["insertion"] == "attention"
    assert int(nodes["total"]["params"]) == sum(int(row["params"]) for row in rows[:-1])


@pytest.mark.parametrize("command", ["show", "cost"])
def test_a_network_of_its_own_can_be_looked_at_without_data(command: str, capsys: Captured) -> None:
    file = str(REPOSITORY / "specs" / "models" / "resnet20.yaml")
    assert run(command, file) == 2
    assert "--shape 3x224x224" in capsys.readouterr().err
    assert run(command, file, "--shape", "3x32x32", "--classes", "10") == 0
    assert "269,722" in capsys.readouterr().out  # as the CNNtention paper counts
    assert run(command, file, "--classes", "10") == 2
    assert "--classes goes with --shape" in capsys.readouterr().err


def test_show_draws_mermaid_with_every_node(tiny: Path, capsys: Captured) -> None:
    assert run("show", str(tiny), "--mermaid") == 0
    drawn = capsys.readouterr().out
    assert drawn.startswith("flowchart TD\n")
    assert drawn.count("subgraph") == drawn.count("  end\n")
    assert "0_attention" in drawn


def test_show_of_an_unknown_variant_suggests_the_nearest(tiny: Path, capsys: Captured) -> None:
    assert run("show", str(tiny), "--variant", "betwen") == 2
    assert capsys.readouterr().err == "no variant 'betwen'; did you mean 'between'?\n"


def test_plan_shows_what_each_variant_adds_and_what_the_seeds_can_tell(tiny: Path, capsys: Captured) -> None:
    assert run("plan", str(tiny)) == 0
    shown = capsys.readouterr().out
    assert "certified" in shown
    assert "2 seeds: the smallest p of one paired sign-flip test is 0.5" in shown
    assert "Estimated time" in shown
    assert shown.rstrip().endswith(f"next: ablate sweep {tiny}")


def test_show_explains_a_variant_above_its_layers_and_only_on_the_terminal(tiny: Path, capsys: Captured) -> None:
    assert run("show", str(tiny), "--variant", "se") == 0
    shown = capsys.readouterr().out
    assert shown.startswith("tiny: se\n")
    assert "compared with 'none'" in shown
    assert shown.index("insertions") < shown.index("se: layers")
    assert run("show", str(tiny), "--variant", "se", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["explanation"]["baseline"] == "none"
    assert found["layers"][0]["node"] == "stem.conv"


def test_plan_names_what_a_silent_unit_keeps_from_moving(tiny: Path, capsys: Captured) -> None:
    """A gate with one hidden unit, whose ReLU is silent with half of all seeds."""
    said = []
    for seed in range(6):
        sets = ["network.insert.attention.reduction=64", f"ablation.seeds=[{seed}]"]
        assert main(["plan", str(tiny), "--no-timing", *(part for text in sets for part in ("--set", text))]) == 0
        said.append(
            "a ReLU is silent at the start, and these do not move" in capsys.readouterr().out.replace("\n", " ")
        )
    assert any(said)


def test_plan_of_one_variant_certifies_it_alone(tiny: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    from ablate.certify import Certifier

    certified: list[str] = []
    original = Certifier.certify
    monkeypatch.setattr(Certifier, "certify", lambda self, v, b: certified.append(v.name) or original(self, v, b))
    assert run("plan", str(tiny), "--variant", "between", "--set", "train.epochs=3") == 0
    shown = capsys.readouterr().out
    assert certified == ["between"]
    assert "certificate   certified" in shown
    assert shown.rstrip().endswith(f"next: ablate plan {tiny} --set train.epochs=3   (all 3 variants)")
    assert run("plan", str(tiny), "--variant", "between", "--json") == 0
    assert json.loads(capsys.readouterr().out)["certificate"]["failures"] == []


def test_plan_says_the_profile_in_its_caption_and_in_what_comes_next(tiny: Path, capsys: Captured) -> None:
    tiny.write_text(tiny.read_text() + "profiles: {small: {ablation.seeds: 1}}\n")
    assert run("plan", str(tiny), "--profile", "small", "--no-timing") == 0
    shown = capsys.readouterr().out
    assert "Profile small. " in shown
    assert shown.rstrip().endswith(f"next: ablate sweep {tiny} --profile small")


def test_a_new_study_is_sound_says_what_comes_next_and_trains(
    tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("new", "study", "mine") == 0
    first, second, last = capsys.readouterr().out.splitlines()
    assert (first, last) == ("wrote specs/mine.yaml", "next: ablate check specs/mine.yaml")
    assert second.startswith("wrote specs/ablate.schema.json: editors complete and check specs by it")
    assert Path("specs/mine.yaml").read_text().startswith("# yaml-language-server: $schema=ablate.schema.json\n")
    published = REPOSITORY / "ablate" / "spec.schema.json"
    assert Path("specs/ablate.schema.json").read_bytes() == published.read_bytes()
    assert run("check", "specs/mine.yaml") == 0
    assert "sound: 3 variants, 9 trials; profiles: tiny" in capsys.readouterr().out
    assert run("sweep", "specs/mine.yaml", "--profile", "tiny", "--executor", "local", "--quiet") == 0
    assert "Profile tiny. " in capsys.readouterr().out
    assert Study.open(Path("runs/mine-tiny")).spec["profile"] == "tiny"


def test_a_new_study_says_every_key_it_has_and_each_line_that_is_commented_out_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ablate.design import study_plan
    from ablate.scaffold import new_study
    from ablate.spec import load

    monkeypatch.chdir(tmp_path)
    file = new_study("mine", Path("specs"))[0]
    lines = file.read_text().splitlines()
    assert all(len(line) <= 120 for line in lines)
    optional = ("  # limit", "  # augment", "    # reduction", "# paper", "#   - {title")
    opened = [
        line.replace("# ", "", 1).replace("#  ", "  ", 1) if line.startswith(optional) else line for line in lines
    ]
    assert sum(line not in lines for line in opened) == len(optional)
    values = "{none/4: 98.0, stages/8: 98.5}"
    file.write_text("\n".join(opened).replace("{none: 98.0, stages: 98.5}", values))
    assert len(study_plan(load(file)).variants) == 6


def test_a_new_study_overwrites_nothing_and_needs_a_name_that_can_be_a_folders(
    tmp_path: Path, capsys: Captured
) -> None:
    assert run("new", "study", "mine", "--folder", str(tmp_path)) == 0
    (tmp_path / "mine.yaml").write_text("name: precious")
    assert run("new", "study", "mine", "--folder", str(tmp_path)) == 2
    assert "mine.yaml is there already; another name, or delete it first" in capsys.readouterr().err
    assert (tmp_path / "mine.yaml").read_text() == "name: precious"
    (tmp_path / "ablate.schema.json").unlink()
    (tmp_path / "ablate.schema.json").symlink_to("nowhere")
    assert run("new", "study", "linked", "--folder", str(tmp_path)) == 0
    (tmp_path / "ablate.schema.json").unlink()
    (tmp_path / "ablate.schema.json").write_text("{}")
    assert run("new", "study", "other", "--folder", str(tmp_path)) == 0
    assert (tmp_path / "ablate.schema.json").read_text() == "{}"
    assert run("new", "study", "../mine", "--folder", str(tmp_path)) == 2
    assert "can't name a folder" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["123", "true", "null", "no", "on", "1e5", "0x10", "1.0", "mine"])
def test_a_new_study_may_have_a_name_that_yaml_would_read_as_something_else(
    name: str, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("new", "study", name) == 0
    assert run("check", f"specs/{name}.yaml") == 0, capsys.readouterr().err


@pytest.mark.parametrize("folder", ["a\nname: other", "a\x1b[31m"])
def test_a_new_study_goes_to_no_folder_whose_name_cannot_be_printed(
    folder: str, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("new", "study", "mine", "--folder", folder) == 2
    said = capsys.readouterr().err
    assert "the name has characters that can't be printed" in said
    assert said.rstrip().isprintable()
    assert not list(tmp_path.iterdir())


def test_a_mistake_on_the_command_line_of_a_check_of_several_specs_names_the_spec(
    tiny: Path, tmp_path: Path, capsys: Captured
) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(tiny.read_text() + "profiles: {small: {train.epochs: 1}}\n")
    assert run("check", str(other), str(tiny), "--profile", "small") == 2
    assert capsys.readouterr().err == f"{tiny}: --profile small: no profile 'small'; the spec has no profiles\n"
    assert run("check", str(other), str(tiny), "--set", "network.insert.attention.at=after stage1") == 2
    assert [line.split(": ")[0] for line in capsys.readouterr().err.splitlines()] == [str(other), str(tiny)]
    assert run("check", str(tiny), "--profile", "small") == 2
    assert capsys.readouterr().err.startswith("--profile small")


def test_plan_as_json_has_every_certificate(tiny: Path, capsys: Captured) -> None:
    assert run("plan", str(tiny), "--json") == 0
    records = json.loads(capsys.readouterr().out)
    assert [record["name"] for record in records] == ["none", "se", "between"]
    assert all(record["certificate"]["failures"] == [] for record in records)


def test_a_sweep_prints_the_table_on_stdout_and_the_progress_on_stderr(
    tiny: Path, tmp_path: Path, capsys: Captured
) -> None:
    folder = tmp_path / "s"
    assert run("sweep", str(tiny), "--out", str(folder), "--executor", "local", "--set", "train.epochs=1") == 0
    shown = capsys.readouterr()
    assert re.search(r"^started +none, seed 0$", shown.err, re.MULTILINE)
    assert "6 of 6 finished" in shown.err
    assert "started" not in shown.out
    assert "val.accuracy (%)" in shown.out
    for name in ("table.md", "table.csv", "table.tex"):
        assert (folder / "report" / name).stat().st_size > 0
    assert run("report", str(folder)) == 0
    assert capsys.readouterr().out == shown.out


def test_a_sweep_with_a_failed_trial_exits_1_and_counts_it(tiny: Path, tmp_path: Path, capsys: Captured) -> None:
    options = ["--set", "train.optimizer.lr=1.0e+30", "--set", "ablation.seeds=1"]
    assert run("sweep", str(tiny), "--out", str(tmp_path / "s"), "--executor", "local", *options) == 1
    shown = capsys.readouterr()
    assert "0 of 1; 1 diverged" in shown.out
    assert "0 trials missing, 3 failed" in shown.err


def test_a_report_of_what_is_no_study_exits_2(tmp_path: Path, capsys: Captured) -> None:
    assert run("report", str(tmp_path)) == 2
    assert "is no study" in capsys.readouterr().err


def test_blocks_lists_them_all_and_describes_one(capsys: Captured) -> None:
    from ablate.block import registry

    assert run("blocks", "--format", "csv") == 0
    listed = [row["block"] for row in csv.DictReader(io.StringIO(capsys.readouterr().out))]
    assert listed == list(registry())
    assert run("blocks", "cbam", "--format", "csv") == 0
    described = {row["parameter"]: row for row in csv.DictReader(io.StringIO(capsys.readouterr().out))}
    assert set(described) == set(registry()["cbam"].Params.model_fields)
    assert all(row["description"] for row in described.values())
    assert run("blocks", "cbm") == 2
    assert capsys.readouterr().err == "no block 'cbm'; did you mean 'cbam'?\n"


@pytest.mark.parametrize("text", ["train.epochs", "nonsense.key=1", "train.epochs=[", "train..epochs=1"])
def test_a_wrong_set_is_an_error_that_repeats_it(tiny: Path, capsys: Captured, text: str) -> None:
    assert run("check", str(tiny), "--set", text) == 2
    assert "--set" in capsys.readouterr().err


def test_a_reader_that_goes_away_is_no_error(tiny: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    command = f"{sys.executable} -m ablate blocks | head -1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=environment, check=False)
    assert done.stderr == ""


@pytest.mark.parametrize("executor", ["local", pytest.param("ray", marks=[pytest.mark.ray, pytest.mark.slow])])
def test_a_full_disk_ends_the_sweep_with_a_message_and_keeps_what_was_finished(
    tiny: Path, small_disk: Path, capsys: Captured, executor: str
) -> None:
    options = ["--out", str(small_disk / "s"), "--executor", executor, "--quiet"]
    assert run("sweep", str(tiny), *options, "--set", "ablation.seeds=1") == 0
    done = sorted(path.parent.name for path in small_disk.glob("s/trials/*/result.json"))
    study = Study.open(small_disk / "s")
    before = {key: study.result(key) for key in done}
    ballast = small_disk / "ballast"
    fill(ballast)
    # Room for the study's own records, and for a trial or two.
    os.truncate(ballast, ballast.stat().st_size - 200_000)
    capsys.readouterr()
    assert run("sweep", str(tiny), *options, "--set", "ablation.seeds=4") == 2
    error = capsys.readouterr().err
    assert "no space left" in error
    assert "Traceback" not in error
    assert {key: Study.open(small_disk / "s").result(key) for key in done} == before
    ballast.unlink()
    assert run("sweep", str(tiny), *options, "--set", "ablation.seeds=4") == 0
