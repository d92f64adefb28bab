"""What a static search has to build networks for: their memory, their latency, zero-cost scores."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property

from ablate.data.dataset import DataSpec, ImageData, load
from ablate.design import Level, root_is_trusted, variant_at
from ablate.errors import Problem, UserError
from ablate.known import Known
from ablate.numerics import Numerics
from ablate.space import KNOWN_METRICS, STATIC_METRICS, Grid, Point
from ablate.spec import Spec


class Scores:
    """Metrics of networks, each network measured once: on this machine's CPU, on one thread, one after the other."""

    def __init__(self, grid: Grid, spec: Spec, asked: Iterable[str]) -> None:
        self.grid = grid
        self.spec = spec
        self.metrics = tuple(each for each in KNOWN_METRICS if each in set(asked).difference(STATIC_METRICS))
        self._found: dict[str, Mapping[str, float] | Problem] = {}
        self._data: dict[str, ImageData] = {}

    def of(self, point: Point, fingerprint: str) -> Mapping[str, float] | Problem:
        """The metrics of the network at a point, or why it has none."""
        if not self.metrics:
            return {}
        if fingerprint not in self._found:
            self._found[fingerprint] = self._measured(point)
        return self._found[fingerprint]

    def _measured(self, point: Point) -> Mapping[str, float] | Problem:
        level = Level("space", "point", tuple(self.grid.assignments(point)))
        try:
            return self._known.values(variant_at(self.spec, self.spec.name, [level]), self.metrics)
        except UserError as error:
            return error.problems[0]

    @cached_property
    def _known(self) -> Known:
        return Known(self._data_of, Numerics())

    def _data_of(self, spec: DataSpec) -> ImageData:
        key = spec.model_dump_json()
        if key not in self._data:
            self._data[key] = load(spec, base=self.spec.folder, trusted_root=root_is_trusted(self.spec))
        return self._data[key]
