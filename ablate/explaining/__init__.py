"""What trained networks look at: Grad-CAM, attention, gates and learnt joins, into a study's ``explained/``."""

from ablate.explaining.choosing import Wanted
from ablate.explaining.make import Explanation, explain

__all__ = ["Explanation", "Wanted", "explain"]
