"""The Ray session of a sweep: one of its own on this machine, or a cluster that is there.

Imported before Ray, which it quietens.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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
from ray.tune.execution import class_cache  # noqa: E402

from ablate import placing  # noqa: E402
from ablate.errors import Problem, UserError  # noqa: E402
from ablate.numerics import Numerics  # noqa: E402
from ablate.placing import available_cpus, nodes_for_trials  # noqa: E402
from ablate.workers import worker_environment  # noqa: E402

SHARE = 0.3
"""Of the memory, that shared arrays may take. What is not filled takes nothing."""


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
    _remove_leftovers()
    memory = int(nodes_for_trials()[0]["Resources"]["memory"]) or None
    folder = temporary_folder()
    placing.own_session = True
    try:
        with _environment(worker_environment(Numerics()) | QUIET | EAGER):
            ray.init(
                address="local",  # whatever RAY_ADDRESS says
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


def temporary_folder() -> str:
    """A new folder whose name says whose it is. It is short: it holds sockets, whose paths have 107 bytes at most."""
    there = "/tmp" if sys.platform != "win32" and os.access("/tmp", os.W_OK) else None
    return tempfile.mkdtemp(prefix=f"abl{os.getpid()}-", dir=there)


def _remove_leftovers() -> None:
    """The folders of sweeps that were killed: the processes that made them are no more."""
    processes = Path("/proc")
    for path in Path("/tmp").glob("abl*-*") if (processes / "self").exists() else ():
        owner = path.name.removeprefix("abl").partition("-")[0]
        with suppress(OSError):
            if owner.isdigit() and path.stat().st_uid == os.geteuid() and not (processes / owner).exists():
                shutil.rmtree(path, ignore_errors=True)


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


@contextmanager
def signals_kept() -> Iterator[None]:
    """Give back what Ctrl-C does: Tune leaves a handler of its own, which does nothing once it is done."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGUSR1)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
