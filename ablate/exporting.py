"""One variant's network as a file for other programs: weights alone (safetensors), ONNX, or ``torch.export``.

What is written was read back first and compared with the network itself, in evaluation mode: weights bit for bit,
outputs for several batch sizes. A file that differs is not kept.
"""

from __future__ import annotations

import copy
import io
import json
import re
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from ablate.design import StudyPlan
from ablate.design.variant import Variant
from ablate.disk import write
from ablate.errors import Problem, UserError, did_you_mean
from ablate.graph import Graph
from ablate.store import Study
from ablate.streams import generator
from ablate.weights.checkpoint import read

if TYPE_CHECKING:
    from torch.export import ExportedProgram

Format = Literal["safetensors", "onnx", "torch-export"]
FORMATS: tuple[Format, ...] = get_args(Format)
SUFFIXES: dict[Format, str] = {"safetensors": ".safetensors", "onnx": ".onnx", "torch-export": ".pt2"}
TRACED = 2
"""Images in the batch that a network is traced with; 1 would be taken for a constant."""
BATCHES = (1, 2, 5)
"""Batch sizes that outputs are compared for."""
TOLERANCE = 1e-5
"""Relative to the largest output: what another runtime's rounding may come to."""


class Trained(NamedTuple):
    """A network with its weights, and where they are from."""

    network: nn.Module
    variant: Variant
    seed: int
    origin: str


@dataclass(frozen=True)
class Exported:
    """What was written, and how it was checked."""

    file: Path
    to: Format
    variant: str
    identity: str
    seed: int
    origin: str
    """``as started``, or the trial that it was trained in."""
    checked: str


def as_started(variant: Variant, seed: int = 0) -> Trained:
    """The network as the training of a seed would start: initialised, or with the weights of ``init.from``."""
    return Trained(variant.network.built(seed).eval(), variant, seed, "as started")


def as_trained(plan: StudyPlan, folder: Path, name: str | None = None, seed: int | None = None) -> Trained:
    """A variant with the weights that its trial in a study ended with; by default of the study's first seed.

    ``UserError`` where the study has no such variant or seed, another network under the variant's name, or blocks of
    a user's own that have changed since.
    """
    study = Study.open(folder)
    record = study.variant(name)
    variant = plan.variant(record["name"])
    if record["identity"] != variant.identity:
        message = f"'{variant.name}' of {folder} is another network, recipe or data than this spec's"
        raise UserError(Problem(message, hint=f"export from the spec that was trained: {folder / 'spec.yaml'}"))
    trained = (record.get("certificate") or {}).get("code") or {}
    for what, code in variant.code.items():
        if what.startswith("block ") and trained.get(what, code)["digest"] != code["digest"]:
            message = f"'{variant.name}' of {folder} was trained with other code of {what}: {trained[what]['digest']}"
            raise UserError(Problem(message, hint=f"here it is {code['digest']}; bring back the code that was trained"))
    seed, hash = study.trial(record["name"], seed)
    network = variant.network.built(seed)
    original = plan.variant(record["duplicate_of"]) if record.get("duplicate_of") else variant
    names = _names(original.network.graph, variant.network.graph)
    state = {names(key): tensor for key, tensor in read(study.weights(hash)).tensors.items()}
    network.load_state_dict(state)
    return Trained(network.eval(), variant, seed, f"trained in {folder}, trial {hash}")


def _names(trained: Graph, graph: Graph) -> Callable[[str], str]:
    """Names of weights in one graph → those in another that is equal to it but for names."""
    modules = dict(zip(trained.seeding_names, graph.seeding_names, strict=True))

    def renamed(key: str) -> str:
        scope = next((key[:end] for end in _dots(key) if key[:end] in modules), "")
        return f"{modules[scope]}{key[len(scope) :]}" if scope else key

    return renamed


def _dots(text: str) -> Iterator[int]:
    return (match.start() for match in reversed(list(re.finditer(r"\.", text))))


def export(trained: Trained, to: Format, file: Path | None = None) -> Exported:
    """Write the network to ``file``, once it was checked; by default named after variant and seed, and a new file.

    ``UserError`` for a format that is none or lacks its packages, a file that can't be written, and a network that
    can't be exported, or comes out as another.
    """
    if to not in FORMATS:
        raise UserError(Problem(f"no format '{to}'", hint=did_you_mean(to, FORMATS)))
    named = file is not None
    file = file or Path(_file_name(trained, to))
    if file.is_dir():
        raise UserError(Problem(f"'{file}' is a folder", hint=f"name the file in it: {file / _file_name(trained, to)}"))
    if not named and file.exists():
        raise UserError(Problem(f"'{file}' is there already", hint=f"-o {file} overwrites it"))
    if file.suffix != SUFFIXES[to]:
        raise UserError(Problem(f"'{file}' is no name for {to}", hint=f"it ends in {SUFFIXES[to]}"))
    if not file.parent.is_dir():
        raise UserError(f"'{file.parent}' is no folder")
    writer = {"safetensors": _safetensors, "onnx": _onnx, "torch-export": _torch_export}[to]
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what the exporters say of their own parts
        content, checked = writer(trained)
    write(file, content)
    variant = trained.variant
    return Exported(file, to, variant.name, variant.identity, trained.seed, trained.origin, checked)


def facts(trained: Trained) -> dict[str, str]:
    """What a file says of itself."""
    return {
        "ablate": _version(),
        "variant": trained.variant.name,
        "identity": trained.variant.identity,
        "fingerprint": trained.variant.network.graph.fingerprint,
        "seed": str(trained.seed),
        "weights": trained.origin,
    }


def _version() -> str:
    try:
        return metadata.version("ablate-harness")
    except metadata.PackageNotFoundError:
        return "not installed"


def _file_name(trained: Trained, to: Format) -> str:
    """Of its own for each variant: where a name can't be a file's as it is, the identity tells it from others."""
    name = trained.variant.name
    plain = re.sub(r"[^A-Za-z0-9_.-]+", "-", name).lstrip(".-")[:120]
    if plain != name:
        plain = f"{plain}-{trained.variant.identity[:8]}".lstrip("-")
    return f"{plain}-seed{trained.seed}{SUFFIXES[to]}"


def _safetensors(trained: Trained) -> tuple[bytes, str]:
    from safetensors.torch import load, save

    state = {name: tensor.contiguous().clone() for name, tensor in trained.network.state_dict().items()}
    content = save(state, facts(trained))
    back = load(content)
    if back.keys() != state.keys() or not all(torch.equal(_bits(back[name]), _bits(state[name])) for name in state):
        raise UserError("safetensors gave other weights back than were written")
    again = copy.deepcopy(trained.network)
    again.load_state_dict(back)
    return content, f"{len(state)} weights read back: equal bit for bit; {_compared(again, trained, exactly=True)}"


def _bits(tensor: Tensor) -> Tensor:
    return tensor.reshape(-1).view(torch.uint8) if tensor.numel() else tensor


def _torch_export(trained: Trained) -> tuple[bytes, str]:
    buffer = io.BytesIO()
    torch.export.save(_program(trained), buffer, extra_files={"ablate.json": json.dumps(facts(trained))})
    content = buffer.getvalue()
    back = torch.export.load(io.BytesIO(content)).module()
    return content, _compared(back, trained)


def _onnx(trained: Trained) -> tuple[bytes, str]:
    if missing := [name for name in ("onnx", "onnxscript") if find_spec(name) is None]:
        message = f"ONNX needs the package{'s' if len(missing) > 1 else ''} {' and '.join(missing)}"
        raise UserError(Problem(message, hint="pip install 'ablate-harness[export]'"))
    with _explained("ONNX"):
        written = torch.onnx.export(
            _program(trained),
            dynamo=True,
            input_names=["images"],
            output_names=["scores"],
            verbose=False,
        )
    assert written is not None
    written.model.metadata_props.update(facts(trained))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        written.save(path, external_data=False)
        content = path.read_bytes()
    return content, _compared_by_onnxruntime(content, trained)


def _compared_by_onnxruntime(content: bytes, trained: Trained) -> str:
    if find_spec("onnxruntime") is None:
        import onnx

        onnx.checker.check_model(content)
        return "checked as ONNX; its outputs were not compared: onnxruntime is not installed"
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    images = session.get_inputs()[0].name

    def run(x: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {images: x.numpy()})[0])

    return f"by onnxruntime: {_compared(run, trained)}"


def _program(trained: Trained) -> ExportedProgram:
    """The network traced with a batch of any size."""
    example = _images(trained, TRACED)
    batch = torch.export.Dim("batch", min=1)
    with _explained("torch.export"):
        return torch.export.export(trained.network, (example,), dynamic_shapes=({0: batch},))


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """What an exporter can't do, said in a line: a limit of the exporter or of a block."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # whatever it raises of the many things that it does
        text = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise UserError(f"{what} can't express this network: {text.strip()}") from error


def _images(trained: Trained, count: int) -> Tensor:
    stream = generator(trained.seed, "export", count)
    return torch.randn(count, *trained.variant.shape, generator=stream)


def _compared(run: Callable[[Tensor], Tensor], trained: Trained, *, exactly: bool = False) -> str:
    """Run both on batches of several sizes. ``UserError`` where they differ by more than rounding."""
    worst, finite = 0.0, True
    for count in BATCHES:
        x = _images(trained, count)
        wanted, found = trained.network(x), run(x)
        worst = max(worst, _apart(found, wanted))
        finite = finite and bool(wanted.isfinite().all())
    if worst > (0.0 if exactly else TOLERANCE):
        raise UserError(f"the exported network gives other outputs than the network: they differ by {worst:.1e}")
    sizes = ", ".join(map(str, BATCHES))
    equal = "equal bit for bit" if worst == 0.0 else f"equal to {worst:.1e} of the largest"
    return f"outputs for batches of {sizes} {equal}{'' if finite else ', and not finite, as the network gives them'}"


def _apart(found: Tensor, wanted: Tensor) -> float:
    """The largest difference, relative to the largest output that is a number; NaN and infinities must be equal."""
    if found.shape != wanted.shape:
        return float("inf")
    numbers = wanted.isfinite()
    equal = (found == wanted) | (found.isnan() & wanted.isnan())
    if not (equal | (numbers & found.isfinite())).all():
        return float("inf")
    if not numbers.any():
        return 0.0
    scale = max(1.0, float(wanted[numbers].abs().max()))
    return float((found - wanted)[numbers].abs().max()) / scale
