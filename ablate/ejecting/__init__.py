"""A network as one file of plain PyTorch, readable, without ``ablate``, and equal to the last bit.

``regions`` finds the scopes that are called as one module; ``leaves`` says what stands for a node; ``modules``, with
``source`` and ``folding``, rewrites the classes of blocks, ``importeds`` the parts of imported models; ``writer`` gives
equal regions one class, with ``classes``, ``make`` and ``forwards``; ``pretty`` prints; ``file`` puts it together;
``docs`` and ``constants`` are helpers of these;
``checking`` runs it and compares it with the network.
"""

from __future__ import annotations

from collections.abc import Sequence

from ablate.design import Variant
from ablate.ejecting.checking import check
from ablate.ejecting.file import About, written
from ablate.ejecting.source import CannotEject
from ablate.errors import Problem, UserError

__all__ = ["About", "CannotEject", "check", "eject", "written"]


def eject(variant: Variant, study: str, commands: Sequence[str] = ()) -> str:
    """The file's text. It was run, and gave what the network gives, evaluating and training, bit for bit.

    ``commands`` are what wrote it and what writes its weights. ``UserError`` names the block that can't stand alone.
    """
    network = variant.network
    title = f"{study}, variant '{variant.name}'" if variant.levels else study
    try:
        return written(network.graph, About(title, *commands), network.written.calls)
    except CannotEject as error:
        raise UserError(Problem(f"{title} can't be ejected: {error}")) from None
