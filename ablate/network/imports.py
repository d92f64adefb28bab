"""``network.import`` and ``network.args`` → the graph of a model from torchvision, timm or a user's own file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path as FilePath
from typing import Any

from ablate.block import Shape
from ablate.collect import Collector, Path
from ablate.expression import substitute
from ablate.graph import Graph, GraphError
from ablate.importing.graph import Import, import_graph
from ablate.importing.origin import Origin, OriginError, accepts, origin_of
from ablate.importing.tracing import TraceError
from ablate.network.entries import CHANNELS, mapping

IMPORT: Path = ("network", "import")
ARGUMENTS: Path = ("network", "args")


@dataclass(frozen=True)
class Permission:
    """What may be imported: any callable if the command line says ``--trust``; a file's is looked for in ``folder``."""

    folder: FilePath = FilePath()
    trusted: bool = False


NOTHING_TRUSTED = Permission()


def read_import(
    section: Mapping[str, Any],
    names: Mapping[str, Any],
    shape: Shape,
    classes: int,
    collector: Collector,
    permission: Permission,
) -> tuple[Graph, Import] | None:
    """The graph of the model that the section names; ``None`` where ``collector`` got what is wrong."""
    _check_alone(section, collector)
    before = len(collector.problems)
    arguments = _arguments(section.get("args", {}), {**names, CHANNELS: shape[0]}, collector)
    try:
        origin = origin_of(section["import"], arguments, permission.folder, permission.trusted)
        if len(collector.problems) > before:
            return None
        graph, source = import_graph(_fitted(origin, arguments, shape, classes), shape, classes)
        return replace(graph, unselectable=_unselectable(source)), source
    except OriginError as error:
        at = IMPORT if error.key == "import" else ARGUMENTS if error.key == "args" else (*ARGUMENTS, error.key)
        where = at if error.key != "args" or "args" in section else IMPORT
        collector.add(where, str(error), error.hint, key=error.key not in ("import", "args"))
    except (TraceError, GraphError) as error:
        message = f"'{section['import']}' can't become a graph: {error}"
        collector.add(IMPORT, message, "write its graph, or import a model that torch.fx can trace", key=False)
    return None


def _check_alone(section: Mapping[str, Any], collector: Collector) -> None:
    if "graph" in section:
        collector.add(("network", "graph"), "a network is a graph or an import, not both", "leave one out (null)")
    if "set" in section:
        message = "'set' changes the nodes of network.graph; those of an imported network have no parameters"
        collector.add(("network", "set"), message, "insert a block at: replace PATTERN")


def _arguments(section: object, names: Mapping[str, Any], collector: Collector) -> dict[str, Any]:
    arguments = {}
    for key, value in mapping(section, "arguments to values", collector, ARGUMENTS).items():
        try:
            arguments[key] = substitute(value, names) if isinstance(value, str) else value
        except ValueError as error:
            collector.add((*ARGUMENTS, key), str(error), key=False)
    return arguments


def _fitted(origin: Origin, arguments: Mapping[str, Any], shape: Shape, classes: int) -> Origin:
    """The origin with the data's classes and channels, where it takes them and the spec is silent."""
    fitting = {"num_classes": classes, "in_chans": shape[0]}
    added = {key: value for key, value in fitting.items() if key not in arguments and accepts(origin, key)}
    return Origin.of(origin.name, {**arguments, **added}, origin.file)


def _unselectable(source: Import) -> dict[str, str]:
    """Names that a pattern might try → why they are no places."""
    called = {
        path: f"'{path}' is called {len(calls)} times: {', '.join(calls)}" for path, calls in source.numbered.items()
    }
    return {path: f"'{path}' is inside of '{node}', which is one node" for path, node in source.inside.items()} | called
