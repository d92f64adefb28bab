"""What a network costs: parameters, FLOPs, activation memory and latency, in all and a row per node."""

from ablate.costing.conventions import NOT_COUNTED_BY_CONVENTION
from ablate.costing.counting import Cost, NodeCost, cost, cost_of, count_flops
from ablate.costing.latency import Bench, Latency, summary, timed, waiter
from ablate.costing.memory import Memory, NodeMemory, memory_of

__all__ = [
    "NOT_COUNTED_BY_CONVENTION",
    "Bench",
    "Cost",
    "Latency",
    "Memory",
    "NodeCost",
    "NodeMemory",
    "cost",
    "cost_of",
    "count_flops",
    "memory_of",
    "summary",
    "timed",
    "waiter",
]
