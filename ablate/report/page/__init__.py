"""``report.html``: all that a study says, as one file that asks nothing of any network."""

from ablate.report.page.build import page

__all__ = ["page"]
