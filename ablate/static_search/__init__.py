"""``ablate search --static``: a space enumerated by cost alone, without any training."""

from ablate.static_search.search import LIMIT, static_search
from ablate.static_search.tables import networks_table, record
from ablate.static_search.values import Found, StaticSearch, TargetResult

__all__ = ["LIMIT", "Found", "StaticSearch", "TargetResult", "networks_table", "record", "static_search"]
