"""From drops to the law's figures in one headless pass, with real training processes."""

import json
import shutil
from pathlib import Path

import polars as pl
import pytest

from zip_pipeline.chat_models import prepare_environment
from zip_pipeline.data_root import DataRoot
from zip_pipeline.defs.headless import main
from zip_pipeline.training.base_model import make_base_model
from zip_pipeline_tests.defs.graph import alpaca_rows, pair_rows
from zip_pipeline_tests.training.conftest import OVERRIDES, SMALLEST

ROOT = Path(__file__).parents[2]


def _drop(root: DataRoot, model: Path) -> None:
    rows = {"sft": alpaca_rows(80), "preference": pair_rows(60)}
    for stage, of_stage in rows.items():
        folder = root.path / "raw" / stage
        folder.mkdir(parents=True)
        lines = "".join(json.dumps(row) + "\n" for row in of_stage)
        (folder / "a.jsonl").write_text(lines)
    budgets = "[sft]\nbudget_samples = 50\n[preference]\nbudget_samples = 24\n"
    settings = "".join(
        f"{json.dumps(name)} = {json.dumps(value)}\n"
        for name, value in {**OVERRIDES, "model": str(model)}.items()
    )
    (root.path / "zip_pipeline.toml").write_text(
        f"{budgets}[held_out]\nshare = 0.1\nmin_source_samples = 10\n"
        f"[training.overrides]\n{settings}"
    )


@pytest.mark.slow
def test_drops_become_models_and_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Both stages are selected, probed, trained and evaluated; a second pass trains nothing."""
    shutil.copy(ROOT / "dagster.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    monkeypatch.setenv("ZIP_PIPELINE_DATA", "data")
    prepare_environment(offline=True)
    root = DataRoot(Path("data"))
    make_base_model(tmp_path / "base", SMALLEST)
    _drop(root, tmp_path / "base")
    assert main([]) == 0, capfd.readouterr().err
    assert capfd.readouterr().out.splitlines() == [
        "sft a.jsonl: done",
        "preference a.jsonl: done",
        "sft/zip_subset: done",
        "sft/loss_probe: done",
        "sft/model: done",
        "preference/zip_subset: done",
        "preference/loss_probe: done",
        "preference/model: done",
        "evaluation, entropy_law: done",
        "sft/report: done",
        "preference/report: done",
    ]
    table = pl.read_parquet("data/entropy_law/versions.parquet")
    assert table["stage"].to_list() == ["preference", "sft"]
    assert table["verdict"].to_list() == ["first", "first"]
    measured = table.select("R", "L", "Z", "Q", "R_spread", "Z_spread")
    assert sum(column.null_count() for column in measured) == 0
    assert (table["Z"] < 0).all()
    # One version is one point, of which nothing is drawn.
    assert list(Path("data/entropy_law/figures").glob("*.png")) == []
    for stage in ("sft", "preference"):
        page = (root[stage].reports / "v000001.html").read_text(encoding="utf-8")
        assert "Version 1 may be trained; the entropy law cannot tell what to expect." in page
        assert "<dt>training</dt>" in page
    records = [root[stage].models(1) / "training.json" for stage in ("sft", "preference")]
    sft, kto = (json.loads(record.read_text()) for record in records)
    assert kto["model"]["source"] == str(root["sft"].models(1) / "model")
    assert sft["rows"]["num_samples"] == 50
    before = [record.stat().st_mtime_ns for record in records]
    assert main([]) == 0
    assert [record.stat().st_mtime_ns for record in records] == before
    assert pl.read_parquet("data/entropy_law/versions.parquet").equals(table)
