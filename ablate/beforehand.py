"""Ray takes seconds to start, and so do its workers: it is started in a thread, while variants are certified."""

from __future__ import annotations

import threading

from ablate.errors import Problem, UserError


class RayBeforehand:
    """A Ray session of our own on this machine, from its ``with`` on in the making; ``ready`` waits for it.

    The thread lasts as long as the session: Ray's processes have the kernel end them with the thread that starts them.
    """

    def __init__(self) -> None:
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._started, self._ended = threading.Event(), threading.Event()
        self._error: UserError | None = None

    def __enter__(self) -> RayBeforehand:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()

    def ready(self) -> None:
        """Wait until it is there; whatever kept it from starting is raised here."""
        self._started.wait()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            from ablate.raysession import session

            with session():
                self._started.set()
                self._ended.wait()
        except UserError as error:
            self._error = error
        except Exception as error:
            hint = "--executor local trains without it"
            self._error = UserError(Problem(f"Ray did not start: {type(error).__name__}: {error}", hint=hint))
        finally:
            self._started.set()
