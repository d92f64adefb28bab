"""Networks as pictures: what is drawn (``drawing``), folded (``folding``), laid out (``layout``), as SVG or Mermaid."""

from ablate.diagram.drawing import Drawing, Item, Link, State, drawing_of, kinds_of
from ablate.diagram.folding import fold
from ablate.diagram.mermaid import mermaid, mermaid_of
from ablate.diagram.svg import svg

__all__ = ["Drawing", "Item", "Link", "State", "drawing_of", "fold", "kinds_of", "mermaid", "mermaid_of", "svg"]
