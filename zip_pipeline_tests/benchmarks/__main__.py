"""Run every benchmark in a process of its own, so that peak memory is its own."""

import subprocess
import sys
from pathlib import Path

for module in sorted(Path(__file__).parent.glob("bench_*.py")):
    name = f"zip_pipeline_tests.benchmarks.{module.stem}"
    subprocess.run([sys.executable, "-m", name], check=True)
