"""Where an imported network comes from: a callable by its name, and plain arguments.

Importing runs code. Without trust, which only the command line can give, a spec reaches the models that torchvision
and timm list, built without weights, and with arguments whose names are known to be harmless. A check of the module's
name alone would not do: ``torchvision`` also holds functions that download a file and unpickle it.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import json
import random
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn

from ablate.errors import UserError, did_you_mean
from ablate.own_code import module_of
from ablate.sources import sources
from ablate.streams import stream_seed

TORCHVISION = ("torchvision.models", "torchvision.models.segmentation", "torchvision.models.video")
TIMM = ("timm", "timm.models")
NEVER = frozenset({"weights", "weights_backbone", "pretrained", "pretrained_backbone", "checkpoint_path", "progress"})
"""Arguments that would load a file or reach for the network; weights come by ``network.init.from``."""
_PLAIN = (
    "num_classes in_chans dropout attention_dropout drop_rate drop_path_rate proj_drop_rate attn_drop_rate "
    "drop_block_rate stochastic_depth_prob img_size image_size patch_size window_size width_mult growth_rate "
    "bn_size block_config num_init_features memory_efficient zero_init_residual groups width_per_group "
    "replace_stride_with_dilation aux_logits aux_loss transform_input init_weights min_depth round_nearest "
    "reduced_tail dilated layer_scale init_values representation_size embed_dim embed_dims depth depths num_heads "
    "mlp_ratio mlp_ratios qkv_bias qk_norm class_token global_pool output_stride block_args cardinality "
    "base_width stem_width stem_type channels layers dims head_init_scale ls_init_value conv_mlp use_grn "
    "reduction_ratio norm_eps bn_eps bn_momentum test_input_size input_size "
)
PLAIN = frozenset(_PLAIN.split())
"""Arguments of torchvision's and timm's models that are sizes, rates and switches."""
MOST_ITEMS = 64
MOST = 65_536
"""A number among the arguments, without trust."""
MOST_MODULES = 50_000
MOST_VALUES = 2**32
"""Of a model's parameters: 16 GiB in fp32."""


class OriginError(ValueError):
    """An import that can't be made. ``key``: ``import``, ``args`` or an argument; ``hint``: what instead."""

    def __init__(self, message: str, key: str = "import", hint: str = "") -> None:
        super().__init__(message)
        self.key = key
        self.hint = hint


@dataclass(frozen=True)
class Origin:
    """A model by name (``torchvision.models:resnet50``), its arguments as JSON, and the file of a user's own."""

    name: str
    arguments: str = "{}"
    file: str = ""
    digest: str = ""
    """Of a user's own code, as it was when the spec was read; empty for a package that has a version."""

    @classmethod
    def of(cls, name: str, arguments: Mapping[str, Any], file: str = "") -> Origin:
        return cls(name, json.dumps(dict(arguments), sort_keys=True), file, code_digest(name, file))

    @property
    def identity(self) -> list[str]:
        """What the first weights depend on: the name, the arguments, the code. Not where the file lies."""
        return [self.stream_name, self.arguments, self.digest or _version_of(self.name)]

    @property
    def stream_name(self) -> str:
        """What names the stream of the first values: a factor that varies an argument leaves it as it is."""
        return Path(self.name).name if self.file else self.name


def listed_models(module: str) -> list[str]:
    """The names that may be imported without trust from a module; empty where the module is none of those."""
    if module in TORCHVISION:
        from torchvision import models

        return list(models.list_models(module=importlib.import_module(module)))
    if module in TIMM:
        try:
            import timm
        except ImportError:
            return []
        return list(timm.list_models())
    return []


def origin_of(name: Any, arguments: Mapping[str, Any], folder: Path, trusted: bool) -> Origin:
    """The origin that a spec names. ``OriginError`` for what it may not name, or what is not there."""
    if not isinstance(name, str) or name.count(":") != 1 or not all(name.split(":")):
        raise OriginError(f"{name!r} is no 'module:callable'", hint="such as torchvision.models:resnet50")
    module, _, attribute = name.partition(":")
    known = listed_models(module)
    if attribute in known:
        _check_arguments(arguments, trusted)
        return Origin.of(name, arguments)
    if not trusted:
        raise OriginError(*_refusal(name, module, attribute, known))
    file = (folder / module).resolve() if module.endswith(".py") else None
    if file is not None and not file.is_file():
        raise OriginError(f"no file '{module}'", hint=f"looked in {folder}")
    return Origin.of(name, arguments, str(file or ""))


def _refusal(name: str, module: str, attribute: str, known: list[str]) -> tuple[str, str, str]:
    if module in TIMM and not known:
        return f"'{name}' needs timm, which is not installed", "import", "pip install timm"
    if known:
        return f"'{attribute}' is not among the models that {module} lists", "import", did_you_mean(attribute, known)
    rule = "without --trust only the models that torchvision and timm list may be imported, since importing runs code"
    return f"'{name}' is refused: {rule}", "import", f"modules: {', '.join((*TORCHVISION, *TIMM))}"


def _check_arguments(arguments: Mapping[str, Any], trusted: bool) -> None:
    for key, value in arguments.items():
        if key in NEVER:
            raise OriginError(f"'{key}' is refused: an import brings no weights", key, "network.init.from loads them")
        if trusted:
            continue
        if key not in PLAIN:
            raise OriginError(f"argument '{key}' is refused without --trust", key, did_you_mean(key, PLAIN))
        if not _is_plain(value, key):
            rule = f"numbers up to {MOST:,}, switches and short lists of them"
            raise OriginError(f"argument '{key}' takes {rule} without --trust", key)


def _is_plain(value: Any, key: str) -> bool:
    if isinstance(value, list):
        return len(value) <= MOST_ITEMS and all(_is_plain(item, key) for item in value)
    if isinstance(value, int) and abs(value) > MOST:
        return False
    if isinstance(value, str):
        return key in ("global_pool", "stem_type") and value.isidentifier()
    return value is None or isinstance(value, bool | int | float)


def builder_of(origin: Origin) -> Callable[..., nn.Module]:
    """The callable itself. ``OriginError`` where there is none."""
    module, _, attribute = origin.name.partition(":")
    if module in TORCHVISION and attribute in listed_models(module):
        from torchvision import models

        return models.get_model_builder(attribute)  # type: ignore[no-any-return]
    if module in TIMM and attribute in listed_models(module):
        import timm

        return timm.model_entrypoint(attribute)
    try:
        with redirect_stdout(sys.stderr):  # what it prints is none of our results
            found: Any = _module_at(origin) if origin.file else importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except OriginError:
        raise
    except (Exception, SystemExit) as error:  # a user's own code: whatever it raises
        message = f"'{origin.name}' can't be imported: {type(error).__name__}: {one_line(error)}"
        raise OriginError(message, hint=_nearest(module, attribute)) from None
    if not callable(found):
        raise OriginError(f"'{origin.name}' is not callable: {type(found).__name__}")
    return found  # type: ignore[no-any-return]


def accepts(origin: Origin, argument: str) -> bool:
    """Whether the callable takes that argument, as far as it says so."""
    module, _, _ = origin.name.partition(":")
    if module in TIMM:
        return argument in ("num_classes", "in_chans")
    if module in TORCHVISION and argument == "num_classes":
        return True
    try:
        return argument in inspect.signature(builder_of(origin)).parameters
    except (TypeError, ValueError):
        return False


@lru_cache(maxsize=2)
def construct(origin: Origin, seed: int) -> nn.Module:
    """The model as its own code initialises it, from a stream of its own. On the CPU; not to be written into."""
    build = builder_of(origin)
    arguments: dict[str, Any] = json.loads(origin.arguments)
    for key in ("weights", "weights_backbone"):
        if origin.name.partition(":")[0] in TORCHVISION and _has_parameter(build, key):
            arguments[key] = None  # torchvision's default would download a backbone
    with (
        _own_randomness(stream_seed(seed, "import", origin.stream_name)),
        warnings.catch_warnings(),
        redirect_stdout(sys.stderr),
        torch.device("cpu"),
        _limited(),
    ):
        warnings.simplefilter("ignore")
        try:
            model = build(**arguments)
        except (Exception, SystemExit) as error:
            message = f"'{origin.name}' can't be built: {type(error).__name__}: {one_line(error)}"
            raise OriginError(message, "args") from None
    if not isinstance(model, nn.Module):
        raise OriginError(f"'{origin.name}' gives a {type(model).__name__}, and no torch.nn.Module")
    return model


def _has_parameter(build: Callable[..., Any], key: str) -> bool:
    return key in inspect.signature(build).parameters


@contextmanager
def _own_randomness(seed: int) -> Iterator[None]:
    """Torch's, Python's and numpy's global streams, seeded here and put back after."""
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


@contextmanager
def _limited() -> Iterator[None]:
    """A model of absurd size is refused while it is built, and not when the memory is gone."""
    counts = {"values": 0, "modules": 0}

    def count_parameter(module: nn.Module, name: str, parameter: Any) -> None:
        counts["values"] += parameter.numel() if isinstance(parameter, torch.Tensor) and _has_size(parameter) else 0
        if counts["values"] > MOST_VALUES:
            raise ValueError(f"more than {MOST_VALUES:,} values in its parameters")

    def count_module(module: nn.Module, name: str, child: Any) -> None:
        counts["modules"] += 1
        if counts["modules"] > MOST_MODULES:
            raise ValueError(f"more than {MOST_MODULES:,} modules")

    handles = [
        nn.modules.module.register_module_parameter_registration_hook(count_parameter),
        nn.modules.module.register_module_module_registration_hook(count_module),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _has_size(parameter: torch.Tensor) -> bool:
    return not nn.parameter.is_lazy(parameter)


def one_line(error: BaseException) -> str:
    """What an exception says, fit for one line of a terminal."""
    text = str(error).strip().split("\n", 1)[0]
    return "".join(character if character.isprintable() else "?" for character in text)[:500]


def _nearest(module: str, attribute: str) -> str:
    known = listed_models(module)
    return did_you_mean(attribute, known) if known else ""


def _module_at(origin: Origin) -> ModuleType:
    """A user's own file as a module, once for each content."""
    if origin.digest not in _modules:
        if code_digest(origin.name, origin.file) != origin.digest:
            raise OriginError(f"'{origin.file}' is not what it was when the spec was read")
        try:
            _modules[origin.digest] = module_of(Path(origin.file))
        except UserError as error:
            raise OriginError(error.problems[0].message, hint=error.problems[0].hint) from None
    return _modules[origin.digest]


_modules: dict[str, ModuleType] = {}
"""By digest."""


def code_digest(name: str, file: str = "") -> str:
    """128 bits of SHA-256 over a user's own code: a file with what it imports from its folder, or a whole package.

    Empty for what has a version: an installed package.
    """
    path, module = Path(file), name.partition(":")[0]
    if file:
        found = sources(path, path.stem, beside=True).values() if path.is_file() else ()
        parts = {source.path: source.content for source in found}
    elif module in (*TORCHVISION, *TIMM) or _version_of(name):
        return ""
    else:
        parts = {path: path.read_bytes() for path in _sources_of(module)}
    digest = hashlib.sha256()
    for path, content in sorted(parts.items()):
        digest.update(path.name.encode() + b"\0" + content + b"\0")
    return digest.hexdigest()[:32]


def _sources_of(module: str) -> set[Path]:
    """Every Python file of the package that a module belongs to."""
    try:
        found = importlib.util.find_spec(module.partition(".")[0])
    except (ImportError, ValueError):
        return set()
    if found is None or found.origin is None:
        return set()
    if not found.submodule_search_locations:
        return {Path(found.origin)}
    return {path for folder in found.submodule_search_locations for path in Path(folder).rglob("*.py")}


def _version_of(name: str) -> str:
    """Of the installed package whose code draws the first values."""
    package = name.partition(":")[0].partition(".")[0]
    try:
        return metadata.version(package)
    except (metadata.PackageNotFoundError, ValueError):
        return ""
