"""The nodes of a cluster: why a worker died, which node is unfit, and how many trials there is room for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ablate.cluster import DEATHS, Nodes, died_because, not_begun_because
from ablate.errors import UserError
from ablate.placing import Placement
from ablate.progress import Progress
from ablate.store import Study

# isort: split
from ray import exceptions

KILLED = (
    "The actor died unexpectedly before finishing this task. Worker exit type: SYSTEM_ERROR Worker exit detail: Worker "
    "unexpectedly exits with a connection error code 2. Some common causes include: (1) the process was killed by the "
    "OOM killer due to high memory usage"
)
"""What Ray says of a worker that was ended by SIGKILL."""


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (exceptions.RayActorError(error_msg=KILLED), (False, "its worker died")),
        (
            exceptions.OutOfMemoryError("Task was killed due to the node running low on memory."),
            (True, "low on memory"),
        ),
        (
            exceptions.RayActorError(error_msg="The actor died because its node has died. Node Id: 7"),
            (False, "its node"),
        ),
        (exceptions.WorkerCrashedError(), (False, "worker died unexpectedly")),
    ],
)
def test_what_became_of_a_worker(error: Exception, expected: tuple[bool, str]) -> None:
    of_memory, why = died_because(error)
    assert (of_memory, expected[1] in why) == (expected[0], True)
    assert isinstance(error, DEATHS)


def test_what_a_worker_raised_itself_is_no_death() -> None:
    assert not issubclass(exceptions.RayTaskError, DEATHS)


def test_where_a_worker_could_not_begin() -> None:
    text = (
        "The actor died because of an error raised in its creation task, ray::Worker.__init__() (pid=7, ip=10.0.0.7)\n"
    )
    error = exceptions.RayActorError(error_msg=f"{text}No module named 'ablate'", actor_init_failed=True)
    assert not_begun_because(error) == ("10.0.0.7", "No module named 'ablate'")
    assert not_begun_because(exceptions.RayActorError(error_msg=KILLED)) is None


def node(name: str, **resources: float) -> dict[str, Any]:
    return {
        "NodeID": name,
        "Alive": True,
        "Resources": resources,
        "NodeManagerHostname": name,
        "NodeManagerAddress": name,
    }


class Told:
    """A driver that remembers what it is told."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str]] = []
        self.problems: list[Any] = []

    def tell(self, event: str, *, name: str, change: str, why: str) -> None:
        self.events.append((name, change))

    def refused(self, problems: list[Any]) -> None:
        self.problems += problems


@pytest.fixture
def there(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The nodes of a cluster of the mind."""
    nodes = [node("head", CPU=0), node("a", CPU=4), node("b", CPU=16)]
    monkeypatch.setattr("ablate.cluster.ray.nodes", lambda: nodes)
    monkeypatch.setattr("ablate.cluster.LOOK", 0.0)
    monkeypatch.setattr("ablate.cluster._held", lambda id, cpus: None)
    return nodes


def test_room_follows_the_nodes_that_come_and_go(there: list[dict[str, Any]]) -> None:
    nodes, driver = Nodes(Placement(2, 10, "", cpus=2.0)), Told()
    assert (nodes.room(), nodes.whole(on_gpu=False)) == (10, {"CPU": 16})
    there.append(node("c", CPU=6))
    nodes.look(driver)  # type: ignore[arg-type]
    assert nodes.room() == 13
    del there[2]
    nodes.look(driver)  # type: ignore[arg-type]
    assert (nodes.room(), nodes.whole(on_gpu=False)) == (5, {"CPU": 6})
    assert driver.events == [("c", "joined"), ("b", "left")]


def test_an_unfit_node_is_given_nothing_and_the_last_one_ends_the_sweep(there: list[dict[str, Any]]) -> None:
    nodes, driver = Nodes(Placement(2, 10, "", cpus=2.0)), Told()
    nodes.exclude("b", "it has torch 1.0", driver)  # type: ignore[arg-type]
    nodes.exclude("b", "it has torch 1.0", driver)  # type: ignore[arg-type]
    assert (nodes.room(), nodes.whole(on_gpu=False)) == (2, {"CPU": 4})
    assert (driver.events, driver.problems) == ([("b", "unfit")], [])
    nodes.exclude_at("a", "it has torch 1.0", driver)  # type: ignore[arg-type]
    assert "no node can run this study: a: it has torch 1.0" in str(driver.problems[0])


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_workers_of_another_version_get_no_trials(
    tiny: Path, tmp_path: Path, sweep_spec: Callable[..., Study], monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[dict[str, Any]] = []
    progress = Progress()
    monkeypatch.setattr(progress, "tell", events.append)
    monkeypatch.setattr("ablate.raytune.code_digest", lambda: "0" * 32)
    with pytest.raises(UserError, match=r"no node can run this study: .*: it has another version of ablate"):
        sweep_spec(tiny, tmp_path / "s", executor="ray", progress=progress)
    assert [event["event"] for event in events if event["event"] in ("epoch", "ended", "again")] == []
