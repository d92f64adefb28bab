"""The ``network`` section of a spec → the graph with its insertions."""

from ablate.network.entries import MOST_ENTRIES, NODE_KEYS
from ablate.network.imports import Permission
from ablate.network.insertions import INSERTION_KEYS
from ablate.network.section import InitSpec, Network, Recipe, check_parameters_used, read_network, with_weights

__all__ = [
    "INSERTION_KEYS",
    "MOST_ENTRIES",
    "NODE_KEYS",
    "InitSpec",
    "Network",
    "Permission",
    "Recipe",
    "check_parameters_used",
    "read_network",
    "with_weights",
]
