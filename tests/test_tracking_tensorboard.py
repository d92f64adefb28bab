"""TensorBoard: what its own reader finds is what the study's folder has, each number once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ablate.errors import UserError
from ablate.store import Study, Trackers
from ablate.tracking import Sender, Target
from tests.trackers import study, trained

__all__ = ["study", "trained"]


def send(study: Study, folder: Path | str = "") -> Path:
    Sender(study.folder, Target("tensorboard", str(folder))).sync()
    return Path(folder) / "tiny" if folder else study.folder / "tracking" / "tensorboard"


def accumulated(run: Path) -> Any:
    """As TensorBoard reads a run."""
    from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator

    read = EventAccumulator(str(run), tensor_size_guidance={"scalars": 0})
    read.Reload()
    return read


def scalars(run: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.util.tensor_util import make_ndarray

    read = accumulated(run)
    found = {}
    for tag in read.Tags()["tensors"]:
        if read.SummaryMetadata(tag).plugin_data.plugin_name == "scalars":
            found[tag] = [(each.step, make_ndarray(each.tensor_proto).item()) for each in read.Tensors(tag)]
    return found


def text(run: Path, tag: str) -> str:
    from tensorboard.util.tensor_util import make_ndarray

    return str(make_ndarray(accumulated(run).Tensors(tag)[-1].tensor_proto).reshape(-1)[0].decode())


def expected(study: Study, hash: str) -> dict[str, list[tuple[int, float]]]:
    """Of the rows, as 32-bit floats."""
    found: dict[str, list[tuple[int, float]]] = {}
    for row in study.metrics(hash):
        for name, value in row.items():
            if name != "epoch":
                found.setdefault(name, []).append((row["epoch"], float(np.float32(value))))
    return found


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def runs(study: Study) -> dict[str, str]:
    """Folder of the run → the trial's hash."""
    return {
        f"{record['name']}/seed-{seed}": hash for record in study.variants for seed, hash in record["trials"].items()
    }


@pytest.mark.parametrize("elsewhere", [True, False])
def test_a_run_has_each_number_of_its_trial(study: Study, tmp_path: Path, elsewhere: bool) -> None:
    root = send(study, tmp_path / "logs" if elsewhere else "")
    results = study.results()
    assert len(runs(study)) == 6
    for name, hash in runs(study).items():
        found = scalars(root / name)
        assert expected(study, hash).items() <= found.items()
        accuracy = float(np.float32(results[hash]["metrics"]["test.accuracy"]))
        assert found["test.accuracy"] == [(2, accuracy)]
        assert found["cost.params"][0][0] == 0
    assert {path.parent.relative_to(root).as_posix() for path in root.rglob("events.out.*")} == {".", *runs(study)}


def test_the_recipe_is_in_the_table_of_hyperparameters(study: Study) -> None:
    from tensorboard.plugins.hparams import api_pb2
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    root = send(study)

    def data(run: Path, tag: str) -> Any:
        return HParamsPluginData.FromString(accumulated(run).SummaryMetadata(tag).plugin_data.content)

    start = data(root / "se/seed-1", "_hparams_/session_start_info").session_start_info
    assert start.hparams["train.optimizer.lr"].number_value == 0.05
    assert start.hparams["levels.attention"].string_value == "se"
    assert start.hparams["seed"].number_value == 1
    assert start.group_name == runs(study)["se/seed-1"]
    end = data(root / "se/seed-1", "_hparams_/session_end_info").session_end_info
    assert end.status == api_pb2.STATUS_SUCCESS
    experiment = data(root, "_hparams_/experiment").experiment
    assert "levels.attention" in [each.name for each in experiment.hparam_infos]
    assert "test.accuracy" in [each.name.tag for each in experiment.metric_infos]


def test_the_spec_and_the_certificates_are_there_to_be_read(study: Study) -> None:
    root = send(study)
    assert (study.folder / "spec.yaml").read_text() in text(root, "spec")
    assert text(root, "report") == (study.folder / "report" / "table.md").read_text()
    assert "added stage1.0_attention, stage1.1_attention" in text(root / "se/seed-0", "certificate")


@pytest.mark.parametrize("remembered", [True, False])
def test_sending_twice_changes_nothing(study: Study, remembered: bool) -> None:
    root = send(study)
    before = contents(root)
    if not remembered:
        for path in Trackers(study.folder).folder.glob("tensorboard-*.json"):
            path.unlink()
    send(study)
    assert contents(root) == before


def test_a_trial_that_was_cut_off_goes_on_in_its_run(study: Study) -> None:
    hash = runs(study)["se/seed-1"]
    folder = study.trial_folder(hash)
    result, rows = (folder / "result.json").read_bytes(), (folder / "metrics.jsonl").read_bytes()
    (folder / "result.json").unlink()
    study.rewrite_metrics(hash, study.metrics(hash)[:1])
    root = send(study)
    assert scalars(root / "se/seed-1")["train.loss"] == expected(study, hash)["train.loss"][:1]
    (folder / "metrics.jsonl").write_bytes(rows)
    (folder / "result.json").write_bytes(result)
    send(study)
    assert expected(study, hash).items() <= scalars(root / "se/seed-1").items()


def test_other_numbers_take_the_place_of_what_was_shown(study: Study) -> None:
    hash = runs(study)["se/seed-1"]
    root = send(study)
    (study.trial_folder(hash) / "result.json").unlink()
    rows = study.metrics(hash)
    study.rewrite_metrics(hash, [rows[0], rows[1] | {"train.loss": rows[1]["train.loss"] + 1}])
    for _ in range(2):
        send(study)
        assert scalars(root / "se/seed-1")["train.loss"] == expected(study, hash)["train.loss"]
        for path in Trackers(study.folder).folder.glob("tensorboard-*.json"):
            path.unlink()


@pytest.mark.parametrize("kept", [0.3, 0.5, 0.9, 0.999])
def test_half_a_record_of_a_killed_process_spoils_nothing(study: Study, kept: float) -> None:
    hash = runs(study)["se/seed-1"]
    root = send(study)
    (file,) = (root / "se/seed-1").iterdir()
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * kept)])
    for path in Trackers(study.folder).folder.glob("tensorboard-*.json"):
        path.unlink()
    send(study)
    assert expected(study, hash).items() <= scalars(root / "se/seed-1").items()


def test_what_was_removed_is_written_anew(study: Study) -> None:
    import shutil

    root = send(study)
    shutil.rmtree(root / "se")
    send(study)
    assert expected(study, runs(study)["se/seed-1"]).items() <= scalars(root / "se/seed-1").items()


def test_two_studies_of_one_name_are_not_mixed(study: Study, tmp_path: Path) -> None:
    import shutil

    send(study, tmp_path / "logs")
    other = Path(shutil.copytree(study.folder, tmp_path / "other"))
    shutil.rmtree(other / "tracking")
    with pytest.raises(UserError, match="another study of that name"):
        send(Study.open(other), tmp_path / "logs")


def test_no_name_of_a_variant_leads_out_of_the_folder() -> None:
    from ablate.tracking.to_tensorboard import _part

    names = ["se", "../se", "..", ".", "a/b", "a_b", "", "é", "x" * 300]
    parts = [_part(name) for name in names]
    assert len(set(parts)) == len(names)
    assert parts[0] == "se"
    assert all(part not in ("", ".", "..") and "/" not in part and len(part) < 120 for part in parts)


def test_a_new_file_is_read_after_all_others(tmp_path: Path) -> None:
    from ablate.tracking.to_tensorboard import _new_file

    (tmp_path / "events.out.tfevents.9999999990.zz.99999.9").touch()
    for _ in range(2):
        new = _new_file(tmp_path)
        assert new > max(path.name for path in tmp_path.iterdir())
        (tmp_path / new).touch()
