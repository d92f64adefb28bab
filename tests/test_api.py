"""The Python way in says the same words as the command line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from torch import fx

import ablate


def test_the_public_names_are_there_whatever_was_imported_before() -> None:
    imports = "import ablate, ablate.builder, ablate.costing, ablate.sweeping"
    check = "assert all(callable(getattr(ablate, name)) for name in ablate.__all__)"
    code = f"{imports}\n{check}"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[1])


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import ablate, sys; print(sorted({'torch', 'ray', 'numpy', 'yaml'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[1], capture_output=True)
    assert done.stdout.strip() == b"[]"


def test_a_network_is_built_costed_and_run(tiny: Path) -> None:
    spec = ablate.load(tiny, set={"train.epochs": 1})
    network = ablate.build(spec, variant="between", seed=0)
    assert isinstance(network, fx.GraphModule)
    cost = ablate.cost(network, input_shape=(1, 3, 11, 13))
    assert cost.params == sum(parameter.numel() for parameter in network.parameters())
    assert cost.flops == sum(row.flops for row in cost.rows)
    assert network(torch.zeros(2, 3, 11, 13)).shape == (2, 5)
    written = ablate.build(spec)
    assert {name for name, _ in written.named_modules()} != {name for name, _ in network.named_modules()}


def test_a_mapping_is_a_spec_too(tiny: Path) -> None:
    data = yaml.safe_load(tiny.read_text())
    ours = ablate.build(ablate.load(data), variant="se").state_dict()
    theirs = ablate.build(ablate.load(tiny), variant="se").state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_errors_are_those_of_the_command_line(tiny: Path) -> None:
    data = yaml.safe_load(tiny.read_text())
    data["train"]["epochs"] = 3.7
    with pytest.raises(ablate.UserError, match=r"train\.epochs: 3\.7 is not a whole number"):
        ablate.load(data)


def test_a_study_is_swept_and_opened_again(tiny: Path, tmp_path: Path) -> None:
    spec = ablate.load(tiny, set={"train.epochs": 1, "ablation.seeds": 2})
    study = ablate.sweep(spec, folder=tmp_path / "s", executor="local")
    again = ablate.Study(tmp_path / "s")
    assert again.results() == study.results()
    table = again.table()
    assert [cell.text for cell in table.column("variant")] == ["none", "se", "between"]
    assert all(cell.n == 2 for cell in table.column("test.accuracy"))
