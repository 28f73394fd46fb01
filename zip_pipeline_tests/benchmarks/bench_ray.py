"""Shards on a local Ray cluster: quality, repeatability, a killed worker, and memory at 1.3M."""

import os
import signal
import threading
import time

from zip_pipeline.selection.candidates import Candidates
from zip_pipeline.selection.config import SelectionConfig
from zip_pipeline.selection.select import Cluster, select_candidates
from zip_pipeline_tests.benchmarks.bench_growth import (
    BUDGET_BYTES,
    SIZES,
    grown_roots,
    in_own_process,
)
from zip_pipeline_tests.benchmarks.machine import report
from zip_pipeline_tests.benchmarks.real_pool import real_pool
from zip_pipeline_tests.processes import peak_bytes, processes_with

NUM_SHARDS, NUM_WORKERS = 4, 2


class Watch(threading.Thread):
    """Notes the peak memory of Ray's processes, and kills one worker once when asked to."""

    def __init__(self, *, kill_after: float | None = None) -> None:
        super().__init__(daemon=True)
        self.peaks: dict[str, int] = {}
        self.num_killed = 0
        self._kill_after = kill_after
        self._first_seen: float | None = None
        self._done = threading.Event()

    def run(self) -> None:
        """Look at the processes ten times a second."""
        while not self._done.wait(0.1):
            for name in ("ray::", "raylet", "gcs_server"):
                peaks = map(peak_bytes, processes_with(name))
                self.peaks[name] = max([self.peaks.get(name, 0), *peaks])
            self._kill_one()

    def _kill_one(self) -> None:
        victims = processes_with("ray::select_shard")
        if self._kill_after is None or self.num_killed or not victims:
            return
        self._first_seen = self._first_seen or time.monotonic()
        if time.monotonic() - self._first_seen >= self._kill_after:
            os.kill(victims[0], signal.SIGKILL)
            self.num_killed += 1

    def stop(self) -> dict[str, int]:
        """Return the peaks in megabytes."""
        self._done.set()
        self.join()
        return {name: round(peak / 1e6) for name, peak in self.peaks.items()}


def main() -> None:
    """Compare with one machine, repeat, kill a worker; then the largest pool."""
    single = SelectionConfig(strategy="long_range", budget_bytes=BUDGET_BYTES)
    sharded = SelectionConfig(
        strategy="long_range", budget_bytes=BUDGET_BYTES, num_shards=NUM_SHARDS
    )
    with real_pool() as pool:
        candidates = Candidates(pool.index, pool.texts, pool.state)

        def run(config: SelectionConfig, kill_after: float | None = None) -> tuple:
            watch = Watch(kill_after=kill_after)
            watch.start()
            started = time.perf_counter()
            address = "local" if config.num_shards > 1 else None
            selection = select_candidates(
                candidates, "sft", config, workers=NUM_WORKERS, cluster=Cluster(address)
            )
            seconds = selection.manifest["seconds"]["select"]
            assert time.perf_counter() - started >= seconds
            return selection, seconds, watch.stop(), watch.num_killed

        alone, alone_seconds, *_ = run(single)
        first, first_seconds, peaks, _ = run(sharded)
        second, second_seconds, *_ = run(sharded)
        usual = (first_seconds + second_seconds) / 2
        third, third_seconds, _, num_killed = run(sharded, kill_after=0.3 * usual)
        ratios = [s.manifest["compression_ratio"]["xz"] for s in (alone, first)]
    report(
        "ray_shards",
        {
            "num_shards": NUM_SHARDS,
            "num_workers": NUM_WORKERS,
            "ratio_xz_single": round(ratios[0], 3),
            "ratio_xz_sharded": round(ratios[1], 3),
            "ratio_change_percent": round(100 * (ratios[1] / ratios[0] - 1), 2),
            "same_picks_on_repeat": first.picks == second.picks,
            "same_picks_after_kill": first.picks == third.picks,
            "num_killed": num_killed,
            "single_seconds": alone_seconds,
            "seconds": [first_seconds, second_seconds],
            "killed_seconds": third_seconds,
            "killed_costs_percent": round(100 * (third_seconds / usual - 1), 1),
            "peak_mb": peaks,
        },
    )
    with grown_roots() as roots:
        watch = Watch()
        watch.start()
        options = {"budget_bytes": BUDGET_BYTES, "num_shards": NUM_SHARDS}
        figures = in_own_process(roots[max(SIZES)], options, "local")
        report("ray_shards_1.3M", figures | {"ray_peak_mb": watch.stop()})


if __name__ == "__main__":
    main()
