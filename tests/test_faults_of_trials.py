"""Every way in which a trial can fail, planted: what is recorded, what is repeated, and what `ablate status` says."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ablate import block as block_module
from ablate.cli import main
from ablate.store import Study
from tests.faulty import Faulty

Sweep = Callable[..., Study]

SPEC = """\
name: faults
data: {{name: fake, shape: [3, 11, 13], classes: 5, count: {{train: 60, test: 20}}, val: 0.25}}
train: {{epochs: 2, batch_size: 16, optimizer: {{name: sgd, lr: 0.05}}}}
execution: {{deterministic: true, retries: 1, trial_timeout: {timeout}}}
network:
  graph:
    stem:   {{block: conv_bn_act, width: 8, kernel: 3}}
    stage1: {{block: basic, width: 8, shortcut: pad}}
    head:   {{block: classifier}}
ablation:
  seeds: 1
  design: variants
  variants:
    sound: {{}}
"""


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    block_module.register(Faulty)
    yield
    del block_module._registry[Faulty.name]


def spec_of(folder: Path, *faults: str, timeout: str = "1h") -> Path:
    """A study of a sound variant and one for each of the faults."""
    text = SPEC.format(timeout=timeout)
    for fault in faults:
        block = f"{{block: faulty, how: {fault}, log: {folder / 'log'}, at: after stage1}}"
        text += f"    {fault}: {{network.insert.fault: {block}}}\n"
    path = folder / "faults.yaml"
    path.write_text(text)
    return path


def tried(folder: Path) -> Counter[str]:
    return Counter((folder / "log").read_text().split())


def statuses(study: Study) -> dict[str, str]:
    found = study.results()
    return {record["name"]: found[record["trials"]["0"]]["status"] for record in study.variants}


def lines_of_status(folder: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    capsys.readouterr()
    code = main(["status", str(folder)])
    return code, capsys.readouterr().out


def test_each_fault_is_an_outcome_of_its_own_and_the_study_goes_on(
    tmp_path: Path, sweep_spec: Sweep, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = spec_of(tmp_path, "raises", "explodes", "fills", "hangs", timeout="2s")
    study = sweep_spec(spec, tmp_path / "s", executor="local")
    assert statuses(study) == {
        "sound": "finished",
        "raises": "crashed",
        "explodes": "diverged",
        "fills": "out_of_memory",
        "hangs": "timed_out",
    }
    # what did not fit was repeated, once; the others were not
    assert tried(tmp_path)["fills"] == 2
    assert tried(tmp_path)["raises"] == tried(tmp_path)["hangs"] == 1
    results = study.results()
    errors = {record["name"]: results[record["trials"]["0"]]["error"] for record in study.variants}
    assert "a block's own bug" in errors["raises"]["traceback"]
    assert "faulty.py" in errors["raises"]["traceback"]
    assert "2.00 GiB" in errors["fills"]["message"]
    code, said = lines_of_status(study.folder, capsys)
    assert code == 1
    for variant, status in statuses(study).items():
        if status != "finished":
            assert re.search(rf"^.*\b{variant}\b.*\b{status}\b", said, re.MULTILINE), said


def test_only_what_may_pass_is_repeated_unless_all_that_failed_is_asked_for(tmp_path: Path, sweep_spec: Sweep) -> None:
    spec = spec_of(tmp_path, "raises", "fills", "hangs", timeout="1s")
    sweep_spec(spec, tmp_path / "s", executor="local")
    first = tried(tmp_path)
    sweep_spec(spec, tmp_path / "s", executor="local")
    assert tried(tmp_path) == first
    sweep_spec(spec, tmp_path / "s", ["execution.trial_timeout=2s"], executor="local")
    assert tried(tmp_path) - first == Counter(hangs=1)
    study = sweep_spec(spec, tmp_path / "s", executor="local", retry_failed=True)
    assert tried(tmp_path) - first == Counter(raises=1, fills=2, hangs=2)
    attempts = {record["name"]: study.results()[record["trials"]["0"]]["attempts"] for record in study.variants}
    assert attempts == {"sound": 1, "raises": 2, "fills": 4, "hangs": 3}


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_through_ray_a_dead_worker_is_replaced_a_hanging_one_ended_and_what_did_not_fit_has_a_node_to_itself(
    tmp_path: Path, sweep_spec: Sweep, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = spec_of(tmp_path, "raises", "explodes", "fills", "hangs", "dies", timeout="4s")
    study = sweep_spec(spec, tmp_path / "s", executor="ray", concurrent=2)
    assert statuses(study) == {
        "sound": "finished",
        "raises": "crashed",
        "explodes": "diverged",
        "fills": "out_of_memory",
        "hangs": "timed_out",
        "dies": "lost",
    }
    assert tried(tmp_path) == Counter(raises=1, fills=2, hangs=1, dies=2, explodes=tried(tmp_path)["explodes"])
    events, _ = study.events()
    alone = [event["variant"] for event in events if event["event"] == "started" and event["alone"]]
    assert alone == ["fills"]
    code, said = lines_of_status(study.folder, capsys)
    assert code == 1
    assert re.search(r"^.*\bdies\b.*\blost\b.*its worker died", said, re.MULTILINE), said


def test_an_interrupted_trial_is_named_and_goes_on(
    tmp_path: Path, sweep_spec: Sweep, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = spec_of(tmp_path)
    study = sweep_spec(spec, tmp_path / "s", ["execution.budget=0.001s"], executor="local")
    assert not study.results()
    code, said = lines_of_status(study.folder, capsys)
    assert code == 1
    assert "sound" in said
    assert ("interrupted" in said) or ("waiting" in said)
    study = sweep_spec(spec, tmp_path / "s", executor="local")
    assert statuses(study) == {"sound": "finished"}
    assert lines_of_status(study.folder, capsys)[0] == 0
