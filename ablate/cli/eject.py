"""The command that writes one variant as a file of plain PyTorch."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from ablate.cli.common import Commands, again, load_plan, loaded, shapeable, takes_spec, write_text


def add(commands: Commands) -> None:
    eject = commands.add_parser("eject", help="write a variant as one file of plain PyTorch that does not need ablate")
    takes_spec(eject)
    shapeable(eject)
    eject.add_argument("--variant", help="a variant's name; without it, the spec as written")
    eject.add_argument("-o", "--output", type=Path, metavar="FILE", help="write it there; without it, to stdout")
    eject.set_defaults(command=_eject)


def _eject(options: argparse.Namespace) -> int:
    from ablate.design import as_written
    from ablate.ejecting import eject

    if options.variant is None:
        spec = loaded(options.spec, options)
        study, variant = spec.name, as_written(spec)
    else:
        plan = load_plan(options.spec, options)
        study, variant = plan.spec.name, plan.variant(options.variant)
    given = again(options) + (f" --variant {shlex.quote(options.variant)}" if options.variant else "")
    target = f" -o {shlex.quote(str(options.output))}" if options.output else ""
    weights = f"ablate export {given} --to safetensors"
    text = eject(variant, study, (f"ablate eject {given}{target}", weights))
    if options.output is None:
        print(text, end="")
        return 0
    write_text(text, options.output)
    count = text.count("\n")
    print(f"wrote {options.output}: {count} lines; run; outputs and gradients equal to the network bit for bit")
    print(f"next: {weights}   (the weights that it takes: without them it starts otherwise than the study)")
    return 0
