"""Weights that a network starts from: read from a file, renamed, held against the graph, put in place."""

from ablate.weights.loading import Loading, Weights, WeightsChanged, read_weights, started
from ablate.weights.rename import rename_keys

__all__ = ["Loading", "Weights", "WeightsChanged", "read_weights", "rename_keys", "started"]
