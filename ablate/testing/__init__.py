"""The contract of blocks and of data sets as tests, for who writes one in another package.

from ablate.testing import check_block

def test_swirl_is_a_block():
    check_block(Swirl, params=[{}, {"by": 3.0}], shapes=[(16, 8, 8)])
"""

from ablate.testing.blocks import check_block
from ablate.testing.datasets import check_dataset
from ablate.testing.rules import ContractError

__all__ = ["ContractError", "check_block", "check_dataset"]
