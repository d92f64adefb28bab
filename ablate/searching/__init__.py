"""A search: points of a space, proposed by Optuna, checked on the built network, trained as a sweep trains."""

from ablate.searching.run import search
from ablate.searching.setup import Held, Searchable, default_folder, held, settle
from ablate.searching.winner import winner

__all__ = ["Held", "Searchable", "default_folder", "held", "search", "settle", "winner"]
