"""The ``network`` section of a spec → the graph with its insertions."""

from ablate.network.entries import MOST_ENTRIES, NODE_KEYS
from ablate.network.insertions import INSERTION_KEYS
from ablate.network.section import InitSpec, Network, Recipe, check_parameters_used, read_network

__all__ = [
    "INSERTION_KEYS",
    "MOST_ENTRIES",
    "NODE_KEYS",
    "InitSpec",
    "Network",
    "Recipe",
    "check_parameters_used",
    "read_network",
]
