"""Data roots as earlier releases left them are opened, told, verified and selected from."""

import io
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import polars as pl
import pytest
from rich.console import Console

from zip_pipeline.cli.summary import show_data_root
from zip_pipeline.data_root import DataRoot
from zip_pipeline.files import HASHES, fingerprint
from zip_pipeline.ingest.ingest import ingest_drop
from zip_pipeline.pool.batches import write_state
from zip_pipeline.samples import serialised_texts
from zip_pipeline.selection.config import stage_selection
from zip_pipeline.workflow.integrity import verify
from zip_pipeline.workflow.versions import current_version, select_version
from zip_pipeline_tests.cli.commands import call, call_well
from zip_pipeline_tests.cli.pools import sft_records, write_jsonl
from zip_pipeline_tests.folded_batches import fold

_SETTINGS = '[sft]\nstrategy = "zip"\nbudget_samples = {}\nk1 = 20\nk2 = 6\nk3 = 3\n'
_TABLES = ("pool", "quarantine", "duplicates", "state")
# What the release 0.1.0 wrote.
_TURN = ("role", "content", "tool_calls")
_STATE = ("sample_id", "num_bytes", "num_tokens", "deflate_bytes", "zstd_bytes")
_OF_STATE = ("tokenizer", "deflate_level", "zstd_level", "pool_fingerprint", "fingerprint")
_OF_BATCH = ("fingerprint", "num_rows_read", "num_samples", "num_quarantined", "num_duplicates")
_LEDGER = (
    *("sample_id", "batch", "source", "source_file", "source_row", "num_bytes", "num_tokens"),
    *("fate", "round", "rank", "pi", "initial_pi"),
    *("duplicate_of_batch", "duplicate_of_file", "duplicate_of_row"),
)
_MANIFEST = (
    *("version", "stage", "strategy", "config", "config_fingerprint", "seed", "tokenizer"),
    *("num_rows_read", "num_quarantined", "num_duplicates", "num_held_out", "num_samples"),
    *("num_picked", "picked_bytes", "picked_tokens", "pool_bytes", "budget", "unused_budget"),
    *("quotas", "num_rounds", "fates", "top_sources", "inputs", "pool_fingerprint"),
    *("subset_fingerprint", "compression_ratio", "pool_compression_ratio", "versions"),
    "created_at",
)
_CONFIG = (
    *("strategy", "budget_samples", "budget_tokens", "budget_bytes", "k1", "k2", "k3", "seed"),
    *("codec", "level", "quotas", "reference_compat"),
)


@pytest.fixture
def root(tmp_path: Path) -> DataRoot:
    """Return a root with two batches, refused and repeated rows, and two versions."""
    root = DataRoot(tmp_path / "data")
    root["sft"].raw.mkdir(parents=True)
    for name, first in (("a.jsonl", 0), ("b.jsonl", 10)):
        rows = [*sft_records(20, first), "{", sft_records(1, first)[0]]
        write_jsonl(root["sft"].raw / name, rows)
        ingest_drop(root["sft"], name)
        write_state(root["sft"], name)
    for budget in (8, 5):
        (root.path / "zip_pipeline.toml").write_text(_SETTINGS.format(budget))
        select_version(root["sft"], stage_selection(root.path, "sft"), lambda _: None)
    return root


def _without_hashes(root: DataRoot) -> None:
    for path in [*root.path.rglob(HASHES), *root.path.rglob(f"*.{HASHES}")]:
        path.unlink()
    for path in root["sft"].versions.folder.glob("*/manifest.json"):
        manifest = json.loads(path.read_text())
        manifest.pop("layout")
        path.write_text(json.dumps(manifest))


def _in_two_files(root: DataRoot) -> None:
    (root.path / "zip_pipeline.toml").rename(root.path / "selection.toml")
    (root.path / "training.toml").write_text('[training]\npreset = "tiny"\n')


def _without_reference_compat(root: DataRoot) -> None:
    """As the releases before that option wrote them."""
    _without_hashes(root)
    for path in root["sft"].versions.folder.glob("*/manifest.json"):
        manifest = json.loads(path.read_text())
        del manifest["config"]["reference_compat"]
        path.write_text(json.dumps(manifest))


def _folded(root: DataRoot) -> None:
    _without_hashes(root)
    fold(root["sft"], ["a.jsonl", "b.jsonl"])


def _of_first_release(root: DataRoot) -> None:
    """Bring all tables and manifests into the shapes of 0.1.0, in which batches stood apart."""
    _without_hashes(root)
    _in_two_files(root)
    for name in ("ngrams", "signals", "cache"):
        shutil.rmtree(root.path / name, ignore_errors=True)
    for kind in _TABLES:
        for path in (root.path / kind / "sft").glob("*.parquet"):
            _rewrite(path, _OF_STATE if kind == "state" else _OF_BATCH, _STATE)
    for folder in root["sft"].versions.folder.iterdir():
        _rewrite(folder / "subset.parquet", ())
        ledger = pl.read_parquet(folder / "ledger.parquet", glob=False)
        ledger.select(_LEDGER).write_parquet(folder / "ledger.parquet")
        path = folder / "manifest.json"
        manifest = json.loads(path.read_text())
        older = {name: manifest[name] for name in _MANIFEST if name in manifest}
        config = older["config"]
        older["config"] = {"overhead_bytes": 24} | {name: config[name] for name in _CONFIG}
        older["config_fingerprint"] = fingerprint([json.dumps(older["config"])])
        path.write_text(json.dumps(older))


def _rewrite(path: Path, kept: tuple[str, ...], state: tuple[str, ...] = ()) -> None:
    table = pl.read_parquet(path, glob=False)
    metadata: Mapping[str, str] = pl.read_parquet_metadata(path)
    if "turns" in table.columns:
        fields = [pl.element().struct.field(name) for name in _TURN]
        table = table.with_columns(pl.col("turns").list.eval(pl.struct(fields)))
    table = table.select(pl.exclude("tools", "media"))
    if "zstd_bytes" in table.columns:
        table = table.select(state)
    table.write_parquet(path, metadata={n: metadata[n] for n in kept if n in metadata})


LAYOUTS: dict[str, Callable[[DataRoot], None]] = {
    "without hashes": _without_hashes,
    "two settings files": _in_two_files,
    "without reference_compat": _without_reference_compat,
    "folded batches": _folded,
    "0.1.0": _of_first_release,
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_older_data_root_is_read_told_and_selected_from(root: DataRoot, layout: str) -> None:
    """Every command opens it, nothing in it counts as damaged, and the picks are those of then."""
    store = root["sft"].versions
    picked = store.subset(2).select("sample_id").collect()
    texts = serialised_texts(store.subset(2).collect(), "sft")
    LAYOUTS[layout](root)
    place = ("--data-root", root.path)
    assert "40 samples in 2 batches, 2 quarantined" in call_well("status", *place)
    told = call_well("versions", *place)
    shown = io.StringIO()
    console = Console(file=shown, width=200)
    show_data_root(console, root, {"sft": 1, "preference": None})
    assert "zip, deflate level" in shown.getvalue()
    assert "8 samples" in told
    assert "5 samples" in told
    first = picked["sample_id"][0]
    assert "picked as number 1" in call_well("trace", first, *place)
    assert call_well("diff", "1", "2", "--stage", "sft", *place)
    assert call_well("verify", *place)
    assert verify(root).damages == []
    assert bool(verify(root).not_hashed) == (layout != "two settings files")
    config = stage_selection(root.path, "sft")
    # 0.1.0 told less of what was asked, so the same request is a new version once.
    assert current_version(root["sft"], config) == (None if layout == "0.1.0" else 2)
    number = select_version(root["sft"], config, lambda _: None)
    assert number == 3
    again = store.subset(number).collect()
    assert again.select("sample_id").equals(picked)
    assert serialised_texts(again, "sft").equals(texts)
    assert call_well("diff", "2", "3", "--stage", "sft", *place)


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["folded batches", "0.1.0"])
def test_the_graph_runs_on_an_older_data_root(root: DataRoot, layout: str, tmp_path: Path) -> None:
    """It ingests what lacks a history, and selects."""
    LAYOUTS[layout](root)
    picked = root["sft"].versions.subset(2).select("sample_id").collect()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DAGSTER_HOME", str(tmp_path / "history"))
        (tmp_path / "history").mkdir()
        (tmp_path / "history" / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
        result = call("run", "--data-root", root.path, "--until", "subset")
    assert result.exit_code == 0, result.output
    numbers = root["sft"].versions.numbers()
    assert root["sft"].versions.subset(numbers[-1]).select("sample_id").collect().equals(picked)
    assert verify(root).damages == []
