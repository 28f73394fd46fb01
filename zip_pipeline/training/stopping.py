"""Ends a training process soon after it is told to, with a checkpoint where there is time."""

import os
import signal
import threading
from types import FrameType

GRACE_SECONDS = 8.0


class StopRequest:
    """Notices SIGINT (which Dagster sends on cancel) and SIGTERM.

    Inside the training loop the current step is finished and saved first; a step that takes
    longer than the grace time is lost. Outside the loop the process ends at once.
    """

    def __init__(self, grace_seconds: float = GRACE_SECONDS) -> None:
        self.signal_number = 0
        self.in_loop = False
        self._grace_seconds = grace_seconds

    @property
    def exit_code(self) -> int:
        """Return what a shell would report: 128 plus the number of the signal."""
        return 128 + self.signal_number

    def install(self) -> "StopRequest":
        """Handle the signals from now on."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._handle)
        return self

    def _handle(self, number: int, _: FrameType | None) -> None:
        again, self.signal_number = self.signal_number != 0, number
        if not self.in_loop or again:
            raise SystemExit(self.exit_code)
        timer = threading.Timer(self._grace_seconds, os._exit, (self.exit_code,))
        timer.daemon = True
        timer.start()
