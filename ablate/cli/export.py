"""The command that writes one variant's network for other programs."""

from __future__ import annotations

import argparse
import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from ablate.cli.common import Commands, again, load_plan, loaded, shapeable, takes_spec
from ablate.errors import UserError

if TYPE_CHECKING:
    from ablate.exporting import Exported

FORMATS = ("safetensors", "onnx", "torch-export")
_LOOKS = {
    "onnx": ("import onnxruntime; print(onnxruntime.InferenceSession(", ").get_inputs()[0])"),
    "torch-export": ("import torch; print(torch.export.load(", ").module())"),
}


def add(commands: Commands) -> None:
    export = commands.add_parser("export", help="write a variant's network for other programs, read back and compared")
    takes_spec(export)
    shapeable(export)
    export.add_argument("--variant", help="a variant's name; without it, the spec as written")
    export.add_argument("--seed", type=int, help="of the initialisation, or of the study's trial (default: the first)")
    export.add_argument("--study", type=Path, metavar="STUDY", help="weights as trained there; without it, as started")
    export.add_argument("--to", choices=FORMATS, required=True, help="weights alone, or the network with its weights")
    where = "overwritten if it is there; default: VARIANT-seedN and the suffix, here, which is not"
    export.add_argument("-o", "--output", type=Path, metavar="FILE", help=where)
    export.set_defaults(command=_export)


def _export(options: argparse.Namespace) -> int:
    if options.seed is not None and options.seed < 0:
        raise UserError(f"--seed {options.seed}: a seed is at least 0")
    from ablate.design import as_written
    from ablate.exporting import as_started, as_trained, export

    if options.study is not None:
        from ablate.tuning import as_far_as_tuned

        plan = as_far_as_tuned(load_plan(options.spec, options), options.study)
        chosen = as_trained(plan, options.study, options.variant, options.seed)
    elif options.variant is not None:
        chosen = as_started(load_plan(options.spec, options).variant(options.variant), options.seed or 0)
    else:
        chosen = as_started(as_written(loaded(options.spec, options)), options.seed or 0)
    done = export(chosen, options.to, options.output)
    print(f"wrote {done.file}: {done.variant}, seed {done.seed}, {done.origin}")
    print(f"checked: {done.checked}")
    print(f"next: {_next(done, options)}")
    return 0


def _next(done: Exported, options: argparse.Namespace) -> str:
    if done.to in _LOOKS:
        code = json.dumps(str(done.file), ensure_ascii=False).join(_LOOKS[done.to])
        return shlex.join(["python", "-c", code])
    part = " --set network.init.strict=false" if options.variant else ""  # other variants may lack some
    return f"ablate plan {again(options)} --set {shlex.quote(f'network.init.from={done.file}')}{part}"
