"""A drop becomes one partition of the pool and of the compression state."""

import errno
import json
import os

import dagster as dg
import polars as pl
import pytest

from zip_pipeline.defs import stage as stage_module
from zip_pipeline.defs.keys import BATCHES
from zip_pipeline.pool.batches import read_state, scan_state
from zip_pipeline_tests.defs.graph import (
    Graph,
    alpaca_rows,
    checks_of,
    data_version_of,
    error_of,
    metadata_of,
    pair_rows,
)
from zip_pipeline_tests.ingest.remote_servers import FileServer, Hub


def test_ingestion_tells_what_became_of_every_row(graph: Graph) -> None:
    """Rows read = samples + quarantined + duplicates, with reasons and sources as tables."""
    rows = [*alpaca_rows(6), alpaca_rows(1)[0], {"instruction": "Say it.", "output": ""}]
    graph.drop("sft", "a.jsonl", rows)
    result = graph.ingest("sft", "a.jsonl")
    metadata = metadata_of(result, "sft", "raw_pool")
    names = ("num_rows_read", "num_samples", "num_quarantined", "num_duplicates")
    assert [metadata[name] for name in names] == [8, 6, 1, 1]
    assert metadata["dagster/row_count"] == 6
    assert next(iter(metadata.items())) == (
        "summary",
        "6 samples of 8 rows; 1 rows were rejected, 1 repeat others",
    )
    assert metadata["quarantine"] == str(graph.root["sft"].quarantine("a.jsonl"))
    assert "empty_final_assistant" in metadata["quarantine_reasons"]
    assert "alpaca" in metadata["formats"]
    assert "| a " in metadata["top_sources"]
    columns = [column.name for column in metadata["column_schema"].columns]
    assert columns[:3] == ["sample_id", "batch", "source"]


def test_compression_state_describes_every_sample_in_order(graph: Graph) -> None:
    """The state has one row per sample of the batch, and its totals are in the metadata."""
    graph.drop("preference", "pairs.jsonl", pair_rows(4))
    result = graph.ingest("preference", "pairs.jsonl")
    metadata = metadata_of(result, "preference", "compression_state")
    state = read_state(graph.root["preference"], "pairs.jsonl")
    samples = pl.read_parquet(graph.root["preference"].samples("pairs.jsonl"))
    assert state["sample_id"].to_list() == samples["sample_id"].to_list()
    assert metadata["num_samples"] == metadata["dagster/row_count"] == 4
    assert metadata["num_bytes"] == state["num_bytes"].sum()
    assert metadata["mean_pi"] == pytest.approx(state["pi"].mean(), rel=1e-3)
    assert checks_of(result) == {
        "rejected_share": True,
        "duplicate_share": True,
        "covers_every_sample": True,
    }


def test_unchanged_drop_keeps_its_data_versions(graph: Graph) -> None:
    """Materialising the same file again, touched or not, gives the same data versions."""
    graph.drop("sft", "a.jsonl", alpaca_rows(5))
    first = graph.ingest("sft", "a.jsonl")
    graph.drop("sft", "a.jsonl", alpaca_rows(5))
    again = graph.ingest("sft", "a.jsonl")
    graph.drop("sft", "a.jsonl", alpaca_rows(6))
    changed = graph.ingest("sft", "a.jsonl")
    for name in ("raw_pool", "compression_state"):
        versions = [data_version_of(result, "sft", name) for result in (first, again, changed)]
        assert versions[0] == versions[1]
        assert versions[1] != versions[2]


def test_checks_of_a_drop_warn_beyond_their_thresholds(graph: Graph) -> None:
    """More than 2 % rejected or 25 % duplicate rows are a warning that names the shares."""
    rows = [*alpaca_rows(60), *alpaca_rows(30), {"instruction": "a"}, {"instruction": "b"}]
    graph.drop("sft", "a.jsonl", rows)
    result = graph.ingest("sft", "a.jsonl")
    checks = {check.check_name: check for check in result.get_asset_check_evaluations()}
    assert checks_of(result) == {
        "rejected_share": False,
        "duplicate_share": False,
        "covers_every_sample": True,
    }
    assert {checks[name].severity.value for name in ("rejected_share", "duplicate_share")} == {
        "WARN"
    }
    assert checks["rejected_share"].description == "a.jsonl: 2 of 92 rows (2.17%), allowed are 2%"
    assert (
        checks["duplicate_share"].description == "a.jsonl: 30 of 92 rows (32.61%), allowed are 25%"
    )
    assert result.success


def test_a_drop_that_is_nearly_all_rejected_is_an_error_of_its_partition(graph: Graph) -> None:
    """It leads to the rejected rows and to what to do, and another drop keeps its own result."""
    graph.drop("sft", "good.jsonl", alpaca_rows(4))
    graph.drop("sft", "bad.jsonl", [{"instruction": f"{n}"} for n in range(20)])
    results = [graph.ingest("sft", name) for name in ("good.jsonl", "bad.jsonl")]
    found = [
        check
        for result in results
        for check in result.get_asset_check_evaluations()
        if check.check_name == "rejected_share"
    ]
    assert [(check.partition, check.passed) for check in found] == [
        ("good.jsonl", True),
        ("bad.jsonl", False),
    ]
    assert found[1].severity == dg.AssetCheckSeverity.ERROR
    assert found[1].description == (
        "bad.jsonl: 20 of 20 rows (100.00%), allowed are 2%; zip-pipeline inspect "
        f"{graph.root['sft'].raw / 'bad.jsonl'} tells why and what to say about it"
    )
    quarantine = str(graph.root["sft"].quarantine("bad.jsonl"))
    assert found[1].metadata["quarantine"].value == quarantine
    assert pl.read_parquet(quarantine).height == 20
    checks = [
        key for key in graph.repository.asset_graph.asset_check_keys if "raw_pool" in str(key)
    ]
    partitions = {graph.repository.asset_graph.get(key).partitions_def for key in checks}
    assert len(checks) == 4
    assert partitions == set(BATCHES.values())


def test_coverage_check_fails_when_the_state_misses_a_sample(
    graph: Graph, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A state that lacks a sample fails the check as an error."""
    graph.drop("sft", "a.jsonl", alpaca_rows(5))
    monkeypatch.setattr(
        "zip_pipeline.defs.stage.scan_state",
        lambda folder, batch: scan_state(folder, batch).tail(4),
    )
    (check,) = [
        check
        for check in graph.ingest("sft", "a.jsonl").get_asset_check_evaluations()
        if check.check_name == "covers_every_sample"
    ]
    assert not check.passed
    assert check.severity.value == "ERROR"
    assert check.description == "a.jsonl: 4 rows for 5 samples, 1 samples without a row"


@pytest.mark.parametrize("step", ["ingest_drop", "write_state"])
def test_a_full_disk_is_told_with_its_remedy(
    graph: Graph, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Each step of ingestion says where, and what to do; no traceback."""

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/disk/a.parquet")

    monkeypatch.setattr(stage_module, step, full)
    graph.drop("sft", "a.jsonl", alpaca_rows(2))
    error = error_of(graph.ingest("sft", "a.jsonl"))
    assert "Failure: /disk/a.parquet: No space left on device; free some space there" in error


def test_missing_drop_fails_with_its_path(graph: Graph) -> None:
    """A partition whose file is gone fails and says which file."""
    result = graph.ingest("sft", "gone.jsonl")
    assert not result.success
    assert str(graph.root["sft"].raw / "gone.jsonl") in error_of(result)


@pytest.mark.parametrize("name", ["a b & c.jsonl", "größe [1]*?.jsonl", "x=1.jsonl", "100%.jsonl"])
def test_any_file_name_can_be_a_partition(graph: Graph, name: str) -> None:
    """Blanks, wildcards and letters of any script in a name change nothing."""
    graph.drop("sft", name, alpaca_rows(3))
    result = graph.ingest("sft", name)
    assert metadata_of(result, "sft", "compression_state")["num_samples"] == 3


@pytest.mark.server
def test_a_drop_that_lies_elsewhere_tells_where_it_was_read(graph: Graph, hub: Hub) -> None:
    """In its metadata and in the manifest of a version."""
    rows = "".join(json.dumps(row) + "\n" for row in alpaca_rows(30)).encode()
    sha = hub.commit("org/name", {"train.jsonl": rows, "dev.jsonl": rows})
    path = graph.drop("sft", "a.drop.toml", [])
    path.write_text('from = "hf://datasets/org/name@main"\n')
    metadata = metadata_of(graph.ingest("sft", "a.drop.toml"), "sft", "raw_pool")
    address = "hf://datasets/org/name@main"
    assert (metadata["address"], metadata["revision"]) == (address, sha)
    assert (metadata["num_samples"], metadata["left_out_files"]) == (30, "dev.jsonl")
    assert graph.select("sft").success
    manifest = json.loads((graph.root["sft"].versions.folder / "v000001/manifest.json").read_text())
    assert manifest["origins"] == {"a.drop.toml": {"address": address, "revision": sha}}


@pytest.mark.server
def test_history_tells_no_signature_of_an_address_that_failed(
    graph: Graph, web: FileServer
) -> None:
    """Nor a password, in all that Dagster stores of the run."""
    path = graph.drop("sft", "a.drop.toml", [])
    address = web.url.replace("//", "//user:pass-word@")
    path.write_text(f'from = "{address}/a.jsonl?sig=signature"\n')
    result = graph.ingest("sft", "a.drop.toml")
    stored = "".join(event.to_json() for event in graph.instance.all_logs(result.run_id))
    assert "nothing is there (404); check the address" in error_of(result)
    assert "nothing is there" in stored
    assert "pass-word" not in stored
    assert "signature" not in stored
