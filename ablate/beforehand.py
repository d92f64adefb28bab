"""Ray takes seconds to start, and so do its workers: it is started in a thread, while variants are certified."""

from __future__ import annotations

import threading
from pathlib import Path


class RayBeforehand:
    """A Ray session of our own on this machine, from its ``with`` on in the making; ``ready`` waits for it."""

    def __init__(self) -> None:
        self._thread = threading.Thread(target=self._begin, daemon=True)
        self._folder: Path | None = None
        self._error: Exception | None = None

    def __enter__(self) -> RayBeforehand:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._thread.join()
        if self._folder is not None:
            from ablate.cluster import end_here

            end_here(self._folder)

    def ready(self) -> None:
        """Wait until it is there; whatever kept it from starting is raised here."""
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _begin(self) -> None:
        try:
            from ablate.cluster import begin_here
            from ablate.raytune import warm

            self._folder = begin_here()
            warm()
        except Exception as error:
            self._error = error
