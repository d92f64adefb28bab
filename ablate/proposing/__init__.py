"""What a search tries next, and what it ends early: Optuna's samplers, Ray Tune's schedulers, without their loops."""

from ablate.proposing.proposer import Proposal, Proposer
from ablate.proposing.pruning import Pruner

__all__ = ["Proposal", "Proposer", "Pruner"]
