"""How a process that was started for one job says why it cannot do it."""

import os
import sys
from pathlib import Path

ERROR_FILE_VARIABLE = "ZIP_PIPELINE_ERROR_FILE"
"""Names the file into which whoever starts the process wants the reason, besides stderr."""
FAULT = 2
"""Exit code of a job that cannot be done as it was given."""


def report_error(error: Exception) -> int:
    """Print why a job cannot be done, write it down where that is wanted, and return FAULT."""
    print(f"Error: {error}", file=sys.stderr, flush=True)
    if path := os.environ.get(ERROR_FILE_VARIABLE):
        Path(path).write_text(str(error), encoding="utf-8")
    return FAULT
