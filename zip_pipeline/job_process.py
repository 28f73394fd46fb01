"""What a process that was started for one job owes to whoever started it."""

import ctypes
import os
import signal
import sys
from pathlib import Path
from typing import Literal, TypeAlias

from zip_pipeline.terminal_text import shown

ERROR_FILE_VARIABLE = "ZIP_PIPELINE_ERROR_FILE"
"""Names the file into which whoever starts the process wants the reason, besides stderr."""
FAULT = 2
"""Exit code of a job that cannot be done as it was given."""
BLOCKED = 3
"""Exit code of a headless run: all went well, but the law keeps a version from being trained."""
Step: TypeAlias = Literal["subset", "probe", "law"]
"""How far a headless run goes."""
PIPES_VARIABLE = "DAGSTER_PIPES_CONTEXT"
"""Is set where Dagster started the process."""
_PARENT_DEATH_SIGNAL = 1


def report_error(error: Exception) -> int:
    """Print why a job cannot be done, write it down where that is wanted, and return FAULT."""
    print(f"Error: {shown(str(error))}", file=sys.stderr, flush=True)
    if path := os.environ.get(ERROR_FILE_VARIABLE):
        Path(path).write_text(str(error), encoding="utf-8")
    return FAULT


def end_with_parent(number: int = signal.SIGTERM) -> None:
    """Let the kernel send a signal to this process when its parent dies, however that dies.

    Does nothing where there is no such service (it is Linux's).
    """
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(_PARENT_DEATH_SIGNAL, number, 0, 0, 0)
    except (OSError, AttributeError):
        return
