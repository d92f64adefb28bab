"""The files of docs/cluster: shells read them, their YAML is what Kubernetes takes, the specs in them are sound."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from ablate.cli import main
from ablate.design import study_plan
from ablate.grammar import ExecutionSpec
from ablate.spec import load
from tests.conftest import REPOSITORY

GUIDE = REPOSITORY / "docs" / "cluster.md"
FOLDER = REPOSITORY / "docs" / "cluster"
SCRIPTS = sorted(FOLDER.glob("*.sh"))
TEXT = GUIDE.read_text(encoding="utf-8")


def test_every_file_is_named_in_the_guide_and_every_file_that_it_names_is_there() -> None:
    assert set(re.findall(r"\(cluster/([\w.]+)\)", TEXT)) == {path.name for path in FOLDER.iterdir()}


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_a_shell_can_read_the_script(path: Path) -> None:
    subprocess.run(["bash", "-n", path], check=True)
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", path], check=True)


def test_every_key_and_every_flag_of_the_guide_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["sweep", "--help"])
    flags = set(re.findall(r"--[a-z-]+", capsys.readouterr().out))
    texts = [TEXT, *(path.read_text(encoding="utf-8") for path in FOLDER.iterdir())]
    used = [call for text in texts for call in re.findall(r"ablate sweep ([^\n`]*)", text)]
    assert {flag for call in used for flag in re.findall(r"--[a-z-]+", call)} <= flags
    keys = set(re.findall(r"`execution\.(\w+)`", TEXT))
    assert keys <= set(ExecutionSpec.model_fields)
    new = {"cpus", "gpus", "memory", "max_concurrent", "retries", "trial_timeout", "budget"}
    assert new <= keys


@pytest.mark.parametrize("text", re.findall(r"^```yaml\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL))
def test_the_examples_of_the_guide_are_sound(text: str) -> None:
    assert ExecutionSpec(**yaml.safe_load(text)["execution"])


@pytest.fixture(scope="module")
def kubernetes() -> dict[str, Any]:
    text = (FOLDER / "kuberay.yaml").read_text(encoding="utf-8")
    return {document["kind"]: document for document in yaml.safe_load_all(text)}


def test_the_spec_for_kubernetes_is_sound_and_fits_its_workers(kubernetes: dict[str, Any], tmp_path: Path) -> None:
    ((name, text),) = kubernetes["ConfigMap"]["data"].items()
    (tmp_path / name).write_text(text, encoding="utf-8")
    plan = study_plan(load(tmp_path / name))
    assert kubernetes["RayJob"]["spec"]["entrypoint"].split()[:3] == ["ablate", "sweep", f"/spec/{name}"]
    cluster = kubernetes["RayJob"]["spec"]["rayClusterSpec"]
    (worker,) = cluster["workerGroupSpecs"][0]["template"]["spec"]["containers"]
    assert 1 <= cluster["workerGroupSpecs"][0]["minReplicas"] <= cluster["workerGroupSpecs"][0]["maxReplicas"]
    assert plan.execution.cpus != "auto"
    assert plan.execution.cpus <= int(worker["resources"]["limits"]["cpu"])
    assert plan.execution.memory != "auto"
    fitting = int(worker["resources"]["limits"]["cpu"]) // plan.execution.cpus
    # a trial's share of the data, in shared memory, comes on top
    assert fitting * plan.execution.memory < int(worker["resources"]["limits"]["memory"].removesuffix("Gi")) << 30
    # more wait than fit, which is what the autoscaler sees
    assert plan.execution.max_concurrent == fitting * cluster["workerGroupSpecs"][0]["maxReplicas"]


def test_every_pod_sees_the_shared_volume_and_none_but_workers_train(kubernetes: dict[str, Any]) -> None:
    claim, job = kubernetes["PersistentVolumeClaim"], kubernetes["RayJob"]["spec"]
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    cluster = job["rayClusterSpec"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        assert volumes["shared"]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
        assert volumes["spec"]["configMap"]["name"] == kubernetes["ConfigMap"]["metadata"]["name"]
        for container in pod["containers"]:
            mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
            assert job["entrypoint"].split("--out ")[1].startswith(mounts["shared"])
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert cluster["authOptions"]["mode"] == "token"


FAKES = {
    "srun": 'while [[ $1 == --* ]]; do shift; done; echo "srun $*" >> "$LOG"; exec "$@"',
    "scontrol": 'echo "scontrol $*" >> "$LOG"; if [ "$1" = show ]; then echo "$1"; fi',
    "hostname": "echo 192.0.2.1 192.0.2.2",
    # the head is healthy, and the workers are there, when they have started
    "ray": 'case "$1 $2" in start*) echo "ray $RAY_AUTH_MODE $RAY_AUTH_TOKEN" >> "$LOG";; esac; case "$1 $2" in '
    '"start --head") echo > "$HEAD";; start*) echo > "$WORKERS";; health*) read -r < "$HEAD";; esac',
    "python": 'if [ $# = 2 ]; then echo secret; else read -r < "$WORKERS"; fi',
    # asked to wait, it does so until it is told to end
    "ablate": 'echo "ablate $*" >> "$LOG"; trap "echo ended >> $LOG; kill \\$!; exit 1" TERM; echo > "$READY"; '
    'if [ "$5" = wait ]; then sleep 60 & wait; fi; exit 4',
}


@pytest.mark.parametrize("preempted", [False, True])
def test_the_script_for_slurm_ends_its_sweep_before_ray_and_asks_to_go_on_only_then(
    tmp_path: Path, preempted: bool
) -> None:
    """With stand-ins for Slurm, Ray and us: it catches a signal that never arrives, and a sweep that is not awaited."""
    for name, text in FAKES.items():
        (tmp_path / name).write_text(f"#!/usr/bin/env bash\n{text}\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "activate").touch()
    pipes = {name: str(tmp_path / name.lower()) for name in ("READY", "HEAD", "WORKERS")}
    for pipe in pipes.values():
        os.mkfifo(pipe)
    environment = pipes | {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "LOG": str(tmp_path / "log"),
        "ABLATE_ENVIRONMENT": str(tmp_path),
        "SLURM_SUBMIT_DIR": str(tmp_path),
        "SLURM_JOB_ID": "470011",
        "SLURM_JOB_NODELIST": "a,b,c",
        "SLURM_JOB_NUM_NODES": "3",
        "SLURM_CPUS_PER_TASK": "8",
    }
    command = ["bash", str(FOLDER / "slurm.sh"), "x.yaml", "--out" if not preempted else "wait"]
    job = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    (tmp_path / "ready").read_text()  # the sweep has begun
    if preempted:
        job.send_signal(signal.SIGTERM)
    code = job.wait(timeout=30)
    said = (tmp_path / "log").read_text().splitlines()
    assert [line for line in said if line.startswith("ablate")] == [
        f"ablate sweep x.yaml --address 192.0.2.1:20011 {command[3]}"
    ]
    assert sum(line.startswith("srun ray start --address=192.0.2.1:20011 --num-cpus=8") for line in said) == 1
    assert said.count("ray token secret") == 2
    assert [line for line in said if line == "ended" or "requeue" in line] == (
        ["ended", "scontrol requeue 470011"] if preempted else []
    )
    assert code == (1 if preempted else 4)
