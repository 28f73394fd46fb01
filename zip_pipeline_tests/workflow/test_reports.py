"""Reports of versions that were selected for real."""

import json
from itertools import islice
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from zip_pipeline.data_root import DataRoot
from zip_pipeline.entropy_law.table import upsert_version
from zip_pipeline.errors import UserError
from zip_pipeline.files import read_metadata, write_json, write_table
from zip_pipeline.pool.batches import read_batch
from zip_pipeline.samples import STAGES, Stage
from zip_pipeline.selection.config import SelectionConfig
from zip_pipeline.workflow.reports import read_report, remove_old_pages, write_report
from zip_pipeline.workflow.versions import read_version, select_version
from zip_pipeline_tests.defs.trained_roots import ingest_rows
from zip_pipeline_tests.pool.pools import store_pool

_ROUNDS: dict[str, Any] = {"strategy": "zip", "k1": 20, "k2": 6, "k3": 3}


def _root(path: Path, stage: Stage = "sft", **budget: int) -> DataRoot:
    """Return a root with a version of the pool."""
    root = DataRoot(path)
    store_pool(root[stage])
    _select(root, stage, **budget or {"budget_samples": 5})
    return root


def _select(root: DataRoot, stage: Stage, **budget: int) -> int:
    return select_version(root[stage], SelectionConfig(**_ROUNDS, **budget), lambda _: None)


@pytest.mark.parametrize("stage", STAGES)
def test_a_report_is_a_page_and_what_hubs_read(tmp_path: Path, stage: Stage) -> None:
    """Of both stages, and in the folder of the stage; the verdict is that of the law."""
    root = _root(tmp_path, stage)
    upsert_version(root, {"stage": stage, "version": 1, "verdict": "first", "reason": "Alone."})
    written = write_report(root, stage)
    folder = tmp_path / "reports" / stage
    assert written.page == folder / "v000001.html"
    assert written.card == folder / "v000001" / "README.md"
    assert written.croissant == folder / "v000001" / "croissant.json"
    said = "Version 1 may be trained; the entropy law cannot tell what to expect. Alone."
    assert written.verdict == said
    page = written.page.read_text(encoding="utf-8")
    assert f"<title>{stage} version 1</title>" in page
    assert f"{stage} version 1" in written.card.read_text(encoding="utf-8")


@pytest.mark.parametrize("stage", STAGES)
def test_croissant_is_valid_and_reads_the_subset(tmp_path: Path, stage: Stage) -> None:
    """Its own library finds the subset from there, and every pick in it with its turns."""
    mlcroissant = pytest.importorskip("mlcroissant")
    root = _root(tmp_path, stage)
    path = write_report(root, stage).croissant
    dataset = mlcroissant.Dataset(jsonld=str(path))
    assert not dataset.metadata.ctx.issues.errors
    subset = read_version(root[stage], 1).subset
    rows = list(islice(dataset.records("samples"), 10))
    ids = [row["samples/sample_id"].decode() for row in rows]
    assert ids == subset["sample_id"].to_list()
    column = {"sft": "turns", "preference": "chosen"}[stage]
    first = rows[0][f"samples/{column}"][-1][f"samples/{column}/content"].decode()
    assert first == subset[column][0][-1]["content"]


def test_a_report_compares_with_the_version_before(tmp_path: Path) -> None:
    """What came in and went out is told, and R of versions that were never probed."""
    root = _root(tmp_path)
    _select(root, "sft", budget_samples=7)
    report = read_report(root, read_version(root["sft"], 2))
    assert report.change is not None
    assert report.change.before["version"] == 1
    manifests = [root["sft"].versions.manifest(number) for number in (1, 2)]
    ratios = [manifest["compression_ratio"]["deflate"] for manifest in manifests]  # type: ignore[index]
    assert report.law["R"].to_list() == ratios
    assert report.law["verdict"].to_list() == [None, None]
    assert [past.number for past in report.past] == [1, 2]
    assert read_report(root, read_version(root["sft"], 1)).change is None


def test_random_stands_beside_the_subset_unless_there_was_no_choice(tmp_path: Path) -> None:
    """A random pick of all samples that took part is the subset; one that lost a sample is none."""
    root = _root(tmp_path, budget_samples=10_000)
    assert read_report(root, read_version(root["sft"], 1)).random_ratios == {}
    _select(root, "sft", budget_samples=5)
    found = read_report(root, read_version(root["sft"], 2)).random_ratios
    assert list(found) == ["deflate", "zstd"]
    assert min(found.values()) > 0.5
    for batch in root["sft"].batches():
        path = root["sft"].samples(batch)
        root["sft"].write(path, read_batch(root["sft"], batch).clear(), read_metadata(path))
    report = read_report(root, read_version(root["sft"], 2))
    assert report.random_ratios == {}
    assert report.texts.height == 5


def test_cost_tells_selection_probe_and_training(tmp_path: Path) -> None:
    """Each that was done tells what it took."""
    root = _root(tmp_path)
    models = root["sft"].models(1)
    write_json(models / "probe" / "loss.json", {"seconds": 2.25, "num_tokens": 1200})
    record = {"fingerprint": "f", "seconds": 61.5, "num_steps": 12}
    (models / "model").mkdir()
    (models / "model" / "config.json").write_text("{}")
    (models / "training.json").write_text(json.dumps(record))
    costs = read_report(root, read_version(root["sft"], 1)).costs
    assert costs["probe"] == "2.2 s over 1,200 tokens"
    assert costs["training"] == "61.5 s, 12 steps"
    assert "selection: select" in costs


def test_a_report_goes_where_it_is_asked_to(tmp_path: Path) -> None:
    """Another folder, an older version; a version that is not there is refused."""
    root = _root(tmp_path / "root")
    _select(root, "sft", budget_samples=7)
    written = write_report(root, "sft", 1, folder=tmp_path / "elsewhere")
    assert (written.version, written.page) == (1, tmp_path / "elsewhere" / "v000001.html")
    assert not root["sft"].reports.exists()
    with pytest.raises(UserError, match="no version 9; there are: 1, 2"):
        write_report(root, "sft", 9)


def test_pages_of_old_versions_go_and_can_be_written_anew(tmp_path: Path) -> None:
    """The latest ones stay, and so do cards and whatever is no page of a version that is there."""
    root = _root(tmp_path)
    for budget in (6, 7):
        _select(root, "sft", budget_samples=budget)
    for number in (1, 2, 3):
        write_report(root, "sft", number)
    others = [root["sft"].reports / name for name in ("mine.html", "v000009.html")]
    for path in others:
        path.touch()
    remove_old_pages(root["sft"], 2)
    left = sorted(path.name for path in root["sft"].reports.glob("*.html"))
    assert left == ["mine.html", "v000002.html", "v000003.html", "v000009.html"]
    assert (root["sft"].reports / "v000001" / "README.md").exists()
    remove_old_pages(root["sft"])
    assert write_report(root, "sft", 1).page.exists()


def test_what_a_policy_hides_is_not_shown(tmp_path: Path) -> None:
    """Picks are shown as they are masked; of the others those with personal data are not shown."""
    root = DataRoot(tmp_path)
    mail = "Write to jane.doe@company.org about it."
    rows = [{"instruction": f"Say {n}.", "output": f"{n} {mail * (n % 2)}"} for n in range(20)]
    ingest_rows(root, "a.jsonl", rows)
    config = SelectionConfig(
        **_ROUNDS, budget_samples=6, signals={"personal_data": {"policy": "mask"}}
    )
    select_version(root["sft"], config, lambda _: None)
    report = read_report(root, read_version(root["sft"], 1))
    picked = report.ledger.filter(fate="picked")["sample_id"]
    texts = report.texts["text"].to_list()
    assert not any("jane.doe" in text for text in texts)
    assert any("[MAIL]" in text for text in texts)
    left = report.texts.filter(~pl.col("sample_id").is_in(picked.implode()))
    assert 0 < left.height < 14
    assert "jane.doe" not in write_report(root, "sft").page.read_text(encoding="utf-8")


def test_languages_come_from_the_signal(tmp_path: Path) -> None:
    """What is measured of a batch as it is now counts; of another form of it nothing is known."""
    root = _root(tmp_path)
    assert read_report(root, read_version(root["sft"], 1)).languages is None
    for batch in ("c.jsonl", "d.jsonl"):
        samples = root["sft"].samples(batch)
        described = {"pool_fingerprint": read_metadata(samples)["fingerprint"]}
        if batch == "d.jsonl":
            described = {"pool_fingerprint": "other"}
        told = read_batch(root["sft"], batch).with_columns(language=pl.lit("fr"))
        write_table(root["sft"].signal("language", batch), told.select("language"), described)
    report = read_report(root, read_version(root["sft"], 1))
    assert report.languages is not None
    assert report.languages["language"].to_list() == ["fr"] * 9
