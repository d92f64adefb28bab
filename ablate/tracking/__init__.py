"""Studies shown by MLflow, TensorBoard and other trackers.

The study's folder has everything: a tracker follows it, is told nothing by the sweep, and so can't hold it up. What it
lacks, for whatever reason, ``sync`` sends at any later time, and nothing twice.
"""

from ablate.tracking.launching import tracked
from ablate.tracking.sending import Sender, Sent
from ablate.tracking.targets import Target, parse, reason
from ablate.tracking.view import Epoch, StudyView, Tracker, TrialView

__all__ = ["Epoch", "Sender", "Sent", "StudyView", "Target", "Tracker", "TrialView", "parse", "reason", "tracked"]
