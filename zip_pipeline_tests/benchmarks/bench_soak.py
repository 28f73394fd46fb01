"""A year of nights on a clock of their own: what a night costs, and whether that grows.

Each night a small drop comes, the sensor and the schedule are evaluated as the daemon does, and the
runs that they ask for are executed in this process. The probe is a stand-in: it trains no model.
``python -m zip_pipeline_tests.benchmarks.bench_soak [NIGHTS [MINUTES]]``.
"""

import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import dagster as dg

from zip_pipeline.data_root import DataRoot
from zip_pipeline.defs import law
from zip_pipeline.defs.automation import RESELECTION
from zip_pipeline.defs.keys import partitions_name
from zip_pipeline.selection.config import stage_selection
from zip_pipeline.workflow.integrity import verify
from zip_pipeline.workflow.versions import select_version
from zip_pipeline_tests.benchmarks.machine import cpu_seconds, report
from zip_pipeline_tests.defs.graph import Graph
from zip_pipeline_tests.defs.trained_roots import FakeProbe

NIGHTS = 300
MINUTES = 600.0
ROWS_PER_NIGHT = 20
SETTINGS = "[sft]\nbudget_samples = 40\n"
FIRST_NIGHT = datetime(2026, 1, 1, 2, tzinfo=UTC)
_WORDS = [f"word{n}" for n in range(2000)]
_TABLES = ("pool", "quarantine", "duplicates", "state")


def rows(night: int) -> list[dict[str, str]]:
    """Return what is dropped before a night."""
    draw = random.Random(night)
    return [
        {
            "instruction": f"{night} {n} {' '.join(draw.choices(_WORDS, k=10))}?",
            "output": " ".join(draw.choices(_WORDS, k=60)),
            "source": f"source {n % 3}",
        }
        for n in range(ROWS_PER_NIGHT)
    ]


class Nights:
    """A data root and an instance, with the cursor of the sensor and the nightly clock."""

    def __init__(self, instance: dg.DagsterInstance, path: Path) -> None:
        self.graph = Graph(instance, path)
        self._cursor: str | None = None
        self.tick_cpu_seconds: list[float] = []
        self.night_cpu_seconds: list[float] = []

    def pass_one(self, night: int) -> None:
        """Drop a batch, ingest it as the sensor asks, and do what the schedule asks for."""
        before = cpu_seconds()
        self.graph.drop("sft", f"{night:04d}.jsonl", rows(night))
        asked = [request for _ in range(3) for request in self._sensor_tick()]
        assert [request.partition_key for request in asked] == [f"{night:04d}.jsonl"]
        for request in asked:
            assert self.graph.ingest("sft", request.partition_key or "").success
        for request in self._schedule_tick(FIRST_NIGHT + timedelta(days=night)):
            # Checks of files alone come where nothing changed.
            selection = {"asset_selection": list(request.asset_selection or [])}
            job = self.graph.repository.get_job(RESELECTION)
            instance = self.graph.instance
            assert job.execute_in_process(instance=instance, **selection).success
        self.night_cpu_seconds.append(cpu_seconds() - before)

    def _sensor_tick(self) -> list[dg.RunRequest]:
        instance = self.graph.instance
        context = dg.build_sensor_context(
            instance_ref=instance.get_ref(),
            cursor=self._cursor,
            repository_def=self.graph.repository,
            resources=self.graph.resources,
        )
        before = cpu_seconds()
        with context:
            data = self.graph.repository.get_sensor_def("sft_drops").evaluate_tick(context)
        self.tick_cpu_seconds.append(cpu_seconds() - before)
        self._cursor = data.cursor
        for change in data.dynamic_partitions_requests or []:
            if isinstance(change, dg.DeleteDynamicPartitionsRequest):
                for key in change.partition_keys:
                    instance.delete_dynamic_partition(partitions_name("sft"), key)
        return list(data.run_requests or [])

    def _schedule_tick(self, now: datetime) -> list[dg.RunRequest]:
        context = dg.build_schedule_context(
            instance=self.graph.instance,
            repository_def=self.graph.repository,
            resources=self.graph.resources,
            scheduled_execution_time=now,
        )
        before = cpu_seconds()
        with context:
            data = self.graph.repository.get_schedule_def(RESELECTION).evaluate_tick(context)
        self.tick_cpu_seconds.append(cpu_seconds() - before)
        return list(data.run_requests or [])


def disk_bytes(folder: Path) -> int:
    """Return the size of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def memory_mb() -> int:
    """Return what this process has in memory now."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith("VmRSS:"))


def selected_again(root: DataRoot, folder: Path, numbers: list[int]) -> Iterator[bool]:
    """Yield for some versions whether their pool of that night gives the same picks."""
    for number in numbers:
        manifest = root["sft"].versions.manifest(number)
        then = DataRoot(folder / f"again-{number}")
        # The set is drawn once, from the first pool that is large enough.
        if manifest["held_out"]:
            shutil.copytree(root.path / "held_out", then.path / "held_out")
        for kind in _TABLES:
            (then.path / kind / "sft").mkdir(parents=True)
            for batch in manifest["inputs"]:
                shutil.copy(root.path / kind / "sft" / f"{batch}.parquet", then.path / kind / "sft")
        config = stage_selection(root.path, "sft")
        again = select_version(then["sft"], config, lambda _: None)
        picks = [
            r["sft"].versions.subset(n).select("sample_id").collect()
            for r, n in ((root, number), (then, again))
        ]
        yield picks[0].equals(picks[1])


def _settings() -> dict[str, Any]:
    quiet = "dagster._core.storage.noop_compute_log_manager"
    return {
        "telemetry": {"enabled": False},
        "compute_logs": {"module": quiet, "class": "NoOpComputeLogManager"},
    }


def main(nights: int, minutes: float) -> None:
    """Pass the nights, then report how the last of them compare with the first."""
    end = time.monotonic() + 60 * minutes
    with tempfile.TemporaryDirectory() as place, patch.object(law, "run_modules", FakeProbe()):
        data, history = Path(place) / "data", Path(place) / "history"
        for folder in (data, history):
            folder.mkdir()
        (data / "zip_pipeline.toml").write_text(SETTINGS)
        with dg.DagsterInstance.local_temp(str(history), overrides=_settings()) as instance:
            passed, memory, disk = Nights(instance, data), [], []
            for night in range(1, nights + 1):
                passed.pass_one(night)
                memory.append(memory_mb())
                disk.append((disk_bytes(data), disk_bytes(history)))
                if time.monotonic() > end:
                    break
            num, root = len(memory), DataRoot(data)
            tenth = max(num // 10, 1)
            ticks, versions = passed.tick_cpu_seconds, root["sft"].versions.numbers()
            found = verify(root)
            report(
                "soak",
                {
                    "num_nights": num,
                    "num_versions": len(versions),
                    "first_tick_cpu_seconds": round(median(ticks[4 : 4 + 4 * tenth]), 4),
                    "last_tick_cpu_seconds": round(median(ticks[-4 * tenth :]), 4),
                    "first_night_cpu_seconds": round(
                        median(passed.night_cpu_seconds[1 : 1 + tenth]), 3
                    ),
                    "last_night_cpu_seconds": round(median(passed.night_cpu_seconds[-tenth:]), 3),
                    "first_memory_mb": memory[min(4, num - 1)],
                    "last_memory_mb": memory[-1],
                    "data_bytes_per_night": (disk[-1][0] - disk[0][0]) // max(num - 1, 1),
                    "history_bytes_per_night": (disk[-1][1] - disk[0][1]) // max(num - 1, 1),
                    "num_damages": len(found.damages),
                    "selected_again": list(
                        selected_again(root, Path(place), versions[:: max(len(versions) // 4, 1)])
                    ),
                },
            )


if __name__ == "__main__":
    given = sys.argv[1:]
    main(int(given[0]) if given else NIGHTS, float(given[1]) if given[1:] else MINUTES)
