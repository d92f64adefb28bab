"""The Ray session of a sweep, of its own on this machine or a cluster that is there; and its nodes as trials see them.

Nodes may join and leave in the midst of a sweep. One on which the study's numbers would come out otherwise, or that
does not see its folder, is given no trials.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

QUIET = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "PL_DISABLE_FORK": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
    "TUNE_GLOBAL_CHECKPOINT_S": "600",
    "TUNE_MAX_PENDING_TRIALS_PG": "256",  # otherwise the workers would start one after another
    # Ray otherwise clears CUDA_VISIBLE_DEVICES of workers that asked for no GPU, and warns that it will stop doing so.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
EAGER = {"RAY_preload_python_modules": "ablate.raytune"}
"""Of a session of our own: its workers start with it, and import what trials need while variants are certified."""
os.environ.update({key: value for key, value in QUIET.items() if key not in os.environ})  # read when ray is imported

import ray  # noqa: E402
import torch  # noqa: E402
from ray.exceptions import RayActorError  # noqa: E402
from ray.tune.execution import class_cache  # noqa: E402
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy  # noqa: E402

from ablate import placing  # noqa: E402
from ablate.code import code_digest  # noqa: E402
from ablate.driving import Driver  # noqa: E402
from ablate.errors import Problem, UserError  # noqa: E402
from ablate.numerics import Numerics, fastest_precision  # noqa: E402
from ablate.placing import Placement, available_cpus, nodes_for_trials, slots  # noqa: E402
from ablate.store import is_study  # noqa: E402
from ablate.workers import worker_environment  # noqa: E402

LOOK = 2.0
"""Seconds between two looks at which nodes there are."""
SHARE = 0.3
"""Of the memory, that shared arrays may take. What is not filled takes nothing."""


def unfit(numerics: Numerics, folder: Path, code: str) -> str | None:
    """Why this process can't run the study's trials as another would; None where it can."""
    if torch.__version__ != numerics.torch:
        return f"it has torch {torch.__version__}, and the study runs with {numerics.torch}"
    if code_digest() != code:
        return "it has another version of ablate"
    if numerics.device == "cuda":
        name = torch.cuda.get_device_name() if torch.cuda.is_available() else "no CUDA device"
        if name != numerics.device_name:
            return f"it has {name}, and the study runs on {numerics.device_name}"
    elif numerics.precision == "bf16" and fastest_precision("cpu") != "bf16":
        return "its processor has no bf16, in which the study runs"
    if not is_study(folder):
        return f"it does not see the study's folder, {folder}: it must be shared"
    return None


def died_because(error: Any) -> tuple[bool, str]:
    """Whether a worker was ended for want of memory; and what became of it, in words."""
    text = str(error)
    # of other deaths Ray says, too, that the system's OOM killer may have been it
    if "NODE_OUT_OF_MEMORY" in text or "running low on memory" in text:
        return True, "its node ran low on memory, and Ray ended its worker"
    if any(words in text for words in ("node has died", "node was terminated", "node died", "node is dead")):
        return False, "its node died"
    if isinstance(error, RayActorError) and not error.actor_init_failed:
        return False, "its worker died"
    return False, text.strip().splitlines()[-1][:300]


class Nodes:
    """The nodes of the session. ``stated``: how many trials at once, if somebody said so."""

    def __init__(self, placement: Placement, stated: int | None = None) -> None:
        self._placement, self._stated = placement, stated
        self._excluded: dict[str, Any] = {}
        """By id, with what holds its cores."""
        self._looked = time.monotonic()
        self._alive = self._there()

    def room(self) -> int:
        """How many trials may run, or wait to be placed, at once."""
        if self._stated is not None:
            return self._stated
        return max(1, slots(self._placement, [node for id, node in self._alive.items() if id not in self._excluded]))

    @property
    def cores(self) -> int:
        """What each trial may use where they share a node's cores evenly."""
        each = [
            int(node["Resources"].get("CPU", 0)) // max(1, slots(self._placement, [node]))
            for node in self._alive.values()
        ]
        return max(1, *each, 1)

    def whole(self, on_gpu: bool) -> dict[str, float]:
        """All that a trial alone on its GPU, or on its node, is given."""
        if on_gpu:
            return {"GPU": 1.0}
        return {"CPU": max(node["Resources"].get("CPU", 1.0) for node in self._alive.values())}

    def look(self, driver: Driver) -> None:
        """Every few seconds: who has joined, who has left."""
        if time.monotonic() - self._looked < LOOK:
            return
        before, self._alive, self._looked = self._alive, self._there(), time.monotonic()
        for id in self._alive.keys() - before.keys():
            driver.tell("node", name=self._alive[id]["NodeManagerHostname"], change="joined", why="")
        for id in before.keys() - self._alive.keys():
            driver.tell("node", name=before[id]["NodeManagerHostname"], change="left", why="")

    def exclude(self, id: str, why: str, driver: Driver) -> None:
        """No more trials for this node: something that does nothing holds its cores for as long as the sweep lasts."""
        if id in self._excluded or id not in self._alive:
            return
        node = self._alive[id]
        here = NodeAffinitySchedulingStrategy(node_id=id, soft=False)
        holder: Any = ray.remote(num_cpus=node["Resources"].get("CPU", 0))(_Holder)
        self._excluded[id] = holder.options(scheduling_strategy=here).remote()
        driver.tell("node", name=node["NodeManagerHostname"], change="unfit", why=why)
        if not self._alive.keys() - self._excluded.keys():
            message = f"no node can run this study: {node['NodeManagerHostname']}: {why}"
            driver.refused(
                [Problem(message, hint="install the same versions on all nodes, or sweep on one kind of them")]
            )

    def _there(self) -> dict[str, Any]:
        nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
        return {node["NodeID"]: node for node in nodes if node["Alive"] and node["Resources"].get("CPU")}


class _Holder:
    """Does nothing, where nothing is to be done."""


@contextmanager
def session(address: str | None = None) -> Iterator[None]:
    """The Ray cluster at ``address`` (``auto``: the one that this machine belongs to), else a session of our own here.

    One that this process is in already is used and left as it is. ``UserError`` where there is no such cluster.
    """
    if ray.is_initialized():
        yield
        return
    with _joined(address) if address is not None else _here():
        yield


@contextmanager
def _here() -> Iterator[None]:
    _quieten()
    # Sockets have names of 107 bytes at most: the folder's name must be short.
    folder = tempfile.mkdtemp(prefix="abl", dir=_short_temporary_folder())
    memory = int(nodes_for_trials()[0]["Resources"]["memory"]) or None
    placing.own_session = True
    try:
        with _environment(worker_environment(Numerics()) | QUIET | EAGER):
            ray.init(
                num_cpus=available_cpus(),
                include_dashboard=False,
                _temp_dir=folder,
                object_store_memory=_shared_memory(),
                _memory=memory,
                **_SILENT,
            )
        # Tune gives its workers an environment of their own; those that are there have it, and would not be used.
        class_cache.DEFAULT_ENV_VARS, class_cache.ENV_VARS_TO_PROPAGATE = {}, set()
        try:
            yield
        finally:
            ray.shutdown()
    finally:
        placing.own_session = False
        shutil.rmtree(folder, ignore_errors=True)


_SILENT: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL, "configure_logging": False}


def _quieten() -> None:
    """What Ray has to say of workers is told by events; on stdout is the table."""
    logging.getLogger("ray").setLevel(logging.CRITICAL)
    ray._private.worker.print_to_stdstream = lambda *args, **kwargs: None


@contextmanager
def _joined(address: str) -> Iterator[None]:
    _quieten()
    try:
        ray.init(address=address, runtime_env={"env_vars": worker_environment(Numerics()) | QUIET}, **_SILENT)
    except (ConnectionError, RuntimeError, ValueError) as error:
        said = str(error).strip().splitlines()
        hint = "`ray start --head` starts one; --address takes auto or HOST:PORT"
        raise UserError(
            Problem(f"no Ray cluster at {address!r}: {said[0] if said else error}", "--address", hint=hint)
        ) from None
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    """Variables for what is started in here: Ray's workers on this machine inherit them, and are started at once."""
    before = {key: os.environ.get(key) for key in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value


def _shared_memory() -> int:
    """Bytes for what all workers read. More than the system's shared memory holds would go to the disk."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    room = shutil.disk_usage("/dev/shm").free if os.path.isdir("/dev/shm") else total
    return max(128 << 20, int(min(SHARE * total, 0.9 * room)))


def _short_temporary_folder() -> str | None:
    return "/tmp" if sys.platform != "win32" and os.access("/tmp", os.W_OK) else None
