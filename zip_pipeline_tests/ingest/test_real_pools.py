"""Rules of the real pools: every row is accounted for."""

import json
import resource
import time

import pytest

from zip_pipeline.data_root import DataRoot
from zip_pipeline.ingest.drops import list_drops
from zip_pipeline.ingest.ingest import ingest_drop
from zip_pipeline.pool.pool import assemble_pool


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "num_rows_read", "num_samples", "num_duplicates", "num_quarantined"),
    [("sft", 86_952, 81_262, 5_688, 2), ("preference", 15_191, 15_063, 78, 50)],
)
def test_real_pool_adds_up(
    tmp_path, shared_folder, stage, num_rows_read, num_samples, num_duplicates, num_quarantined
):
    """Ingested file by file and assembled, the real pools give exactly these counts."""
    root = DataRoot(tmp_path)
    root[stage].raw.parent.mkdir(parents=True)
    root[stage].raw.symlink_to(shared_folder / "pools" / stage)
    begin, cpu_begin = time.perf_counter(), time.process_time()
    drops = list_drops(root[stage].raw).found
    for batch in drops:
        ingest_drop(root[stage], batch)
    pool = assemble_pool(root[stage])
    seconds, cpu_seconds = time.perf_counter() - begin, time.process_time() - cpu_begin
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"\n{stage}: {len(drops)} batches in {seconds:.1f} s, peak memory {peak_mib:.0f} MiB")
    assert pool.num_rows_read == num_rows_read
    assert pool.samples.height == num_samples
    assert pool.num_duplicates == num_duplicates
    assert pool.num_quarantined == num_quarantined
    assert pool.samples["sample_id"].is_unique().all()
    # Against work of the same kind here and now: a busy machine slows both.
    begin = time.process_time()
    for _ in range(5):
        assert all(map(json.loads, pool.samples["raw"]))
    parsing_seconds = (time.process_time() - begin) / 5
    print(f"{cpu_seconds:.1f} s of CPU, {cpu_seconds / parsing_seconds:.1f} times the JSON parsing")
    assert cpu_seconds < 80 * parsing_seconds
