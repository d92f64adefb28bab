"""What makes a static search fast changes nothing: what is remembered, and processes that share the points."""

from __future__ import annotations

import gc
import hashlib
import json
import weakref
from dataclasses import replace
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import pytest

from ablate import yamlfile
from ablate.block import Block, BlockParams
from ablate.collect import Collector
from ablate.costing import cost_of
from ablate.errors import UserError
from ablate.insert import At, insert
from ablate.network import Network, entries, insertions, read_network, section
from ablate.space import Point, grid_on
from ablate.spec import apply, load
from ablate.static_search import processes, record, static_search
from ablate.static_search.points import Builder, Networks, Outcomes
from ablate.static_search.processes import Pool
from tests.test_static_search import NETWORK, space

REMEMBERED: tuple[Any, ...] = (
    entries._untroubled_entries,
    insertions._untroubled_insertion,
    section._unedited,
    At.parse,
)

SPACES = {
    "blocks and places": """\
space:
  network.insert.gate: {choice: [null, {block: se}, {block: se, residual: weighted}]}
  network.insert.gate.at: {choice: [after stage*, "after stage1.-1", replace stage1.1, before head.fc]}
  network.insert.gate.reduction: {choice: [2, $in]}
  network.graph.stage1.repeat: {int: [1, 2]}
""",
    "what others read": """\
space:
  network.params: {choice: [{k: 1}, {k: 2}, {k: 0.3}]}
  network.graph.stem.width: {choice: [16*$k]}
  network.insert.gate.reduction: {choice: [4*$k, {linear: [1, 4]}]}
  network.insert.gate.rank: {choice: [0, 1]}
""",
    "many": """\
space:
  network.insert.gate_$each:
    {each: stage*.*, choice: [null, {block: se, at: after $each}, {block: eca, at: after $each}]}
  network.graph.stem.kernel: {int: [1, 9], step: 2}
""",
    "edits": """\
space:
  network.set.stage*.*.conv2.kernel: {choice: [1, {linear: [1, 3]}, 3]}
  network.defaults: {choice: [{act: silu}, {basic: {act: gelu}}, {actt: relu}]}
  network.graph.stem: {choice: [{block: conv_bn_act, width: 8}, {block: conv, width: 4}]}
""",
}


@pytest.fixture
def network(tmp_path: Path) -> Path:
    path = tmp_path / "network.yaml"
    path.write_text(NETWORK)
    return path


def forget() -> None:
    for each in REMEMBERED:
        each.cache_clear()


# ---- what is remembered ----


@pytest.mark.parametrize("name", [name for name in SPACES if name != "many"])
def test_each_point_is_what_it_is_alone(name: str, network: Path) -> None:
    """Against a reading that remembers nothing, point for point, in one process that has seen all the others."""
    spec = load(network)
    grid = grid_on(space(SPACES[name]), spec)
    points = list(grid)
    points = Random(0).sample(points, min(len(points), 20)) * 2
    together = Builder(grid, spec)(points)
    built = 0
    for point, found in list(zip(points, together, strict=True))[-20:]:
        forget()
        applied = apply(spec, grid.assignments(point))
        collector = Collector(applied.tree)
        alone = Networks(spec).read(applied.tree, applied.removed_nodes, collector)
        assert list(found.problems) == collector.problems
        assert (alone is None) == (found.totals is None)
        if alone is not None and found.totals is not None:
            cost = cost_of(alone.graph)
            assert found.fingerprint == alone.graph.fingerprint == digest(alone)
            assert (found.totals.params, found.totals.flops) == (cost.params, cost.flops)
            built += 1
    assert built > 3


def digest(network: Network) -> str:
    """A fingerprint by its definition."""
    text = json.dumps(network.graph.canonical, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


@pytest.mark.parametrize("start", ["zero", "{normal: 0.5}"])
def test_how_parameters_start_is_in_the_fingerprint(start: str) -> None:
    plain, stated = read(GRAPH), read(f"{GRAPH}init: {{set: {{a: {start}}}}}\n")
    assert digest(plain) == plain.graph.fingerprint != stated.graph.fingerprint == digest(stated)


GRAPH = """\
graph:
  a: {block: conv, width: 3, kernel: 3}
  b: {block: classifier}
"""


def read(text: str, *layered: str) -> Network:
    """A network, with the nodes that ``layered`` names written by another layer."""
    found = yamlfile.loads(text, "network.yaml")
    graph = found["graph"]
    for name in layered:
        graph.keys_at[name] = replace(graph.keys_at[name], layer="level")
    collector = Collector(found)
    network = read_network(found, (3, 11, 13), 5, collector)
    collector.raise_if_any()
    assert network is not None
    return network


def test_who_wrote_a_node_is_not_forgotten() -> None:
    """A node that a patch adds must say what it reads, and one of the graph's own reads the one before it."""
    assert read(GRAPH)
    with pytest.raises(UserError, match="a node that a patch adds must say what it reads"):
        read(GRAPH, "b")
    assert read(GRAPH)


def test_a_mistake_is_said_each_time() -> None:
    for _ in range(2):
        with pytest.raises(UserError, match="unknown parameter of block 'conv'"):
            read(GRAPH.replace("kernel", "kernle"))
        with pytest.raises(UserError, match="unknown parameter of block 'se'"):
            read(f"{GRAPH}insert: {{gate: {{block: se, reductoin: 2, at: after a}}}}\n")


def test_what_is_remembered_keeps_no_spec_in_memory() -> None:
    forget()
    found = yamlfile.loads(f"{GRAPH}insert: {{gate: {{block: se, reduction: 1, at: after a}}}}\n", "network.yaml")
    kept = weakref.ref(found)
    collector = Collector(found)
    assert read_network(found, (3, 11, 13), 5, collector) is not None
    del found, collector
    gc.collect()
    assert insertions._untroubled_insertion.cache_info().currsize == 1
    assert kept() is None


def test_a_block_that_is_defined_anew_is_the_new_one(monkeypatch: pytest.MonkeyPatch) -> None:
    text = f"{GRAPH}insert: {{gate: {{block: anew, at: after a}}}}\n".replace("block: conv,", "block: anew,")
    widths = []
    for wide in (2, 7):
        monkeypatch.setattr("ablate.block._registry", {**registered(), "anew": anew(wide)})
        widths.append([node.shape[0] for node in read(text).graph.nodes[:2]])
    assert widths == [[2, 2], [7, 7]]


def registered() -> dict[str, Any]:
    from ablate.block import registry

    return {name: block for name, block in registry().items() if name != "anew"}


def anew(wide: int) -> type[Block]:
    import torch
    from torch import nn

    class Anew(Block):
        class Params(BlockParams):
            width: int = 0
            kernel: int = 0

        def __init__(self, params: Any, shape: Any) -> None:
            super().__init__()
            self.conv = nn.Conv2d(shape[0], wide, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = self.conv(x)
            return y

    Anew.name = "anew"
    return Anew


def test_nodes_that_an_insertion_leaves_alone_are_the_same_objects() -> None:
    """And one behind which other channels arrive is not."""
    found = read(f"{GRAPH}insert: {{gate: {{block: se, reduction: 1, at: after a}}}}\n")
    written, graph = found.written.by_name, found.graph.by_name
    assert graph["a"] is written["a"]
    assert graph["b.pool"].inputs == ("a_gate",)
    assert graph["b.pool"].settled is written["b.pool"].settled
    wider = read(f"{GRAPH}insert: {{gate: {{block: conv, width: 7, at: after a}}}}\n")
    assert wider.graph.by_name["b.pool"].shapes == ((7, 11, 13),)
    assert insert(found.written, []).fingerprint == found.written.fingerprint


# ---- processes ----


def test_a_process_says_what_came_of_each_piece_and_what_went_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is raised there is raised here; one that is killed takes the work with it; none is left over."""
    # blocks of other tests may lie in modules that only this process has
    monkeypatch.setattr("ablate.static_search.processes.outside_modules", lambda: [])
    with Pool(1, partial, (sorted,)) as pool:
        assert list(pool.each([[3, 1, 2], [], [5, 4]])) == [([3, 1, 2], [1, 2, 3]), ([], []), ([5, 4], [4, 5])]
        with pytest.raises(TypeError):
            list(pool.each([[1, "a"]]))
        pool._processes[0].kill()
        with pytest.raises(UserError, match=r"ended from outside.*--jobs 1"):
            list(pool.each([[1]]))
    assert not pool._processes[0].is_alive()


@pytest.mark.slow
def test_two_processes_find_what_one_does(network: Path) -> None:
    options: dict[str, Any] = {"trials": 200, "seed": 5}
    one, two = (record(static_search(space(SPACES["many"]), load(network), jobs=jobs, **options)) for jobs in (1, 2))
    assert one == two
    assert one["points"] == 200


def test_points_are_shared_in_chunks_and_told_one_by_one(network: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever chunk is done first, each outcome goes to its own point; what is known is not built again."""
    spec = load(network)
    grid = grid_on(space(SPACES["blocks and places"]), spec)
    given: list[list[Point]] = []

    class Backwards:
        def __init__(self, *_: object) -> None: ...
        def __enter__(self) -> Backwards:
            return self

        def __exit__(self, *_: object) -> None: ...
        def each(self, pieces: Any) -> Any:
            given.extend(pieces)
            return [(piece, [str(point) for point in piece]) for piece in reversed(given)]

    monkeypatch.setattr("ablate.static_search.points.Pool", Backwards)
    monkeypatch.setattr("ablate.static_search.points.CHUNK", 7)
    outcomes, told = Outcomes(grid, spec), []
    points = list(grid)
    outcomes.known[points[3]] = "known"  # type: ignore[assignment]
    outcomes.build(points, 2, lambda: told.append(1))
    assert len(told) == len(points)
    assert points[3] not in [point for piece in given for point in piece]
    assert max(map(len, given)) == 7
    assert [outcomes.known[point] for point in points] == [
        "known" if point == points[3] else str(point) for point in points
    ]


def test_a_block_that_no_other_process_can_import_keeps_the_work_here(monkeypatch: pytest.MonkeyPatch) -> None:
    own = anew(3)
    monkeypatch.setattr(processes, "data_sets", dict)
    monkeypatch.setattr(processes, "blocks", dict)
    assert processes.outside_modules() == []
    monkeypatch.setattr(processes, "blocks", lambda: {"anew": own})
    assert processes.outside_modules() == [own.__module__]
    own.__module__ = "__main__"
    assert processes.outside_modules() is None
    own.__module__ = "typed.at.a.prompt"
    assert processes.outside_modules() is None
