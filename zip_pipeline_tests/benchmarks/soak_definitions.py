"""The code location of the soak: a probe that trains no model, and runs that begin at once.

A run is a process of its own as always, but one that is forked from a process which has imported
what takes seconds of each run.
"""

import multiprocessing
from multiprocessing.context import ForkServerProcess, SpawnContext
from unittest.mock import patch

from zip_pipeline.defs import law
from zip_pipeline_tests.defs.trained_roots import FakeProbe

IMPORTED_BY_RUNS = [
    __name__,
    "dagster._core.executor.in_process",
    "dagster_postgres",
    "matplotlib.backends.backend_agg",
    "matplotlib.backends.backend_svg",
    "scipy.stats",
    "transformers.tokenization_utils_tokenizers",
    "zip_pipeline.report.page",
]
multiprocessing.set_forkserver_preload(IMPORTED_BY_RUNS)
# For as long as the process lives.
patch.object(SpawnContext, "Process", ForkServerProcess).start()
patch.object(law, "run_modules", FakeProbe()).start()

from zip_pipeline.definitions import defs as defs  # noqa: E402 - it refers to the above
