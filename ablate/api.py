"""The Python way in: the same words as the command line.

spec = ablate.load("specs/placement.yaml", set={"train.epochs": 1})
net = ablate.build(spec, variant="between_stages", seed=0)
study = ablate.sweep(spec, executor="local")
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablate import costing, ejecting, exporting, yamlfile
from ablate import spec as _spec
from ablate.cache import default_cache
from ablate.datasets.arrays import hold
from ablate.design import StudyPlan, as_written, study_plan
from ablate.opened import Study
from ablate.prepare import folder_of, prepare
from ablate.searching import held, settle
from ablate.searching import search as _search
from ablate.space import load_space, read_space
from ablate.sweeping import ExecutorName
from ablate.sweeping import sweep as _sweep
from ablate.tracking import tracked
from ablate.tuning import as_far_as_tuned, planned, tuned

if TYPE_CHECKING:
    from torch import fx


MAPPING = "<mapping>"
"""What stands for the name of a file that there is none of."""


def load(
    source: str | Path | Mapping[str, Any],
    *,
    set: Mapping[str, Any] | None = None,
    profile: str | None = None,
    trust: bool = False,
    data: Mapping[str, Any] | None = None,
) -> _spec.Spec:
    """A spec, from a file or a mapping; ``set`` maps dotted paths to values, as ``--set`` does.

    ``profile`` names one of the spec's profiles, as ``--profile`` does; ``trust`` lets it import any code.
    ``data`` hands over arrays of this program for a spec that says ``data: {name: arrays}``: a mapping of ``train``
    and, as there are, ``val`` (used by ``val: own``) and ``test`` to (images, labels), and of ``classes`` to names.
    Images are uint8 (N, C, H, W), (N, H, W, C) or (N, H, W), labels whole numbers (N,), of numpy or torch.
    ``ablate.UserError`` carries everything that is wrong with it.
    """
    held = {"data.content": hold(data)} if data is not None else {}
    spec = _spec.load(source, sets={**(set or {}), **held}, profile=profile, trust=trust)
    planned(spec)
    return spec


def build(spec: _spec.Spec, *, variant: str | None = None, seed: int = 0) -> fx.GraphModule:
    """One variant as a PyTorch module, initialised by name; without ``variant`` the spec as written.

    Takes images (B, C, H, W) as float32, gives class scores (B, classes).
    """
    chosen = as_written(spec) if variant is None else study_plan(spec).variant(variant)
    return chosen.network.built(seed)


def cost(network: fx.GraphModule, *, input_shape: tuple[int, ...]) -> costing.Cost:
    """``.params``, ``.flops`` (multiply-accumulates) and ``.rows`` of a built network, for images (B, C, H, W)."""
    return costing.cost(network, input_shape)


def export(
    spec: _spec.Spec,
    *,
    to: exporting.Format,
    variant: str | None = None,
    seed: int | None = None,
    study: str | Path | None = None,
    file: str | Path | None = None,
) -> exporting.Exported:
    """Write one variant's network for other programs: ``safetensors``, ``onnx`` or ``torch-export``.

    The weights are those that training starts from or, with ``study``, those that the variant's trial of that seed
    ended with. What is written was read back and compared with the network: ``.checked`` says how, ``.file`` where.
    """
    target = Path(file) if file is not None else None
    if study is not None:
        return exporting.export(exporting.as_trained(_tuned(spec, study), Path(study), variant, seed), to, target)
    chosen = as_written(spec) if variant is None else study_plan(spec).variant(variant)
    return exporting.export(exporting.as_started(chosen, seed or 0), to, target)


def _tuned(spec: _spec.Spec, study: str | Path) -> StudyPlan:
    return as_far_as_tuned(planned(spec), Path(study))


def eject(spec: _spec.Spec, *, variant: str | None = None) -> str:
    """One variant's network as the text of one file of plain PyTorch, which does not need ``ablate``.

    ``Network`` in it has the same names of parameters, takes the same weights and then gives the same, bit for bit.
    ``ablate.UserError`` names a block whose code can't stand alone.
    """
    chosen = as_written(spec) if variant is None else study_plan(spec).variant(variant)
    given = "spec" if variant is None else f"spec, variant={variant!r}"
    return ejecting.eject(chosen, spec.name, (f"ablate.eject({given})",))


def sweep(
    spec: _spec.Spec,
    *,
    folder: str | Path | None = None,
    executor: ExecutorName = "ray",
    concurrent: int | None = None,
    address: str | None = None,
    retry_failed: bool = False,
    cache: bool = True,
    track: Sequence[str] = (),
) -> Study:
    """Certify and train every variant over every seed; what the study's folder has is not trained again.

    ``address``: of a Ray cluster (``auto``: the one that this machine belongs to); ``retry_failed``: repeat what
    failed; ``cache``: whether what other studies have trained is taken, and theirs is given; ``track``: who shows the
    study meanwhile, as after ``--track``.
    """
    at_once = 1 if executor == "local" else concurrent
    plan = planned(spec)
    where = folder_of(plan, Path(folder) if folder else None)
    kept = default_cache() if cache else None
    with tracked(where, track), _joined(address, executor):
        plan = tuned(plan, where, executor=executor, concurrent=at_once, cache=kept)
        prepared = prepare(plan, folder=where, concurrent=at_once)
        done = _sweep(prepared, executor=executor, retry_failed=retry_failed, cache=kept)
    return Study(done.folder)


def _joined(address: str | None, executor: ExecutorName) -> AbstractContextManager[None]:
    """The Ray session that all of a call runs in; none for a call that runs in this process."""
    if address is None and executor == "local":
        return nullcontext()
    from ablate.raysession import session  # seconds of import that a sweep in this process does not need

    return session(address)


def search(
    spec: _spec.Spec,
    space: str | Path | Mapping[str, Any],
    *,
    trials: int | None = None,
    folder: str | Path | None = None,
    executor: ExecutorName = "ray",
    concurrent: int | None = None,
    address: str | None = None,
    retry_failed: bool = False,
    cache: bool = True,
    track: Sequence[str] = (),
) -> Study:
    """Search a space, from a file or a mapping, on a spec; what the study's folder has is not trained again.

    ``trials``: how many distinct points are trained, over what the space says. The rest is as for ``sweep``.
    """
    if isinstance(space, Mapping):
        read = read_space(yamlfile.loads(yamlfile.dump(dict(space)), MAPPING), MAPPING)
    else:
        read = load_space(space)
    if trials is not None:
        budget = read.model.budget.model_copy(update={"trials": trials})
        read = replace(read, model=read.model.model_copy(update={"budget": budget}))
    found = held(read, spec)
    at_once = 1 if executor == "local" else concurrent
    with _joined(address, executor):
        settled = settle(found, folder=Path(folder) if folder else None, concurrent=at_once)
        kept = default_cache() if cache else None
        with tracked(settled.folder, track):
            done = _search(settled, executor=executor, retry_failed=retry_failed, cache=kept)
    return Study(done.folder)
