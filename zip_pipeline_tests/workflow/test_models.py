"""Trained models to measures that compare."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from zip_pipeline.data_root import DataRoot
from zip_pipeline.entropy_law.table import read_versions
from zip_pipeline.evaluation.held_out import held_out_hash
from zip_pipeline.selection.config import SelectionConfig
from zip_pipeline.workflow.models import evaluate_versions
from zip_pipeline.workflow.versions import select_version
from zip_pipeline_tests.defs.trained_roots import HELD_OUT, ingested, trained


class CountedEvaluation:
    """Stands for the process: the loss is the number of samples, and the hash is theirs."""

    def __init__(self) -> None:
        self.num_jobs = 0

    def __call__(self, _: str, jobs: Mapping[Path, Mapping[str, Any]]) -> None:
        """Do what the process would do."""
        for job_file, job in jobs.items():
            self.num_jobs += 1
            samples = pl.read_parquet(job["samples"])
            found = {"loss": samples.height, "loss_spread": 0.1, "held_out": held_out_hash(samples)}
            job_file.parent.mkdir(parents=True, exist_ok=True)
            job_file.write_text(json.dumps(job))
            Path(job["output"]).write_text(json.dumps(found))


def test_all_versions_have_their_z_on_the_newest_held_out_set(tmp_path: Path) -> None:
    """A source that comes later is held out of; then earlier models are measured on it as well."""
    root, evaluation = DataRoot(tmp_path), CountedEvaluation()
    (tmp_path / "zip_pipeline.toml").write_text(HELD_OUT)
    found = []
    for number, name in enumerate(("a.jsonl", "b.jsonl", "c.jsonl"), start=1):
        ingested(root, name, 40, first=100 * number)
        config = SelectionConfig(strategy="zip", budget_samples=5, k1=20, k2=6, k3=3)
        trained(root["sft"], select_version(root["sft"], config, print))
        evaluate_versions(root, evaluation)
        found.append(read_versions(root).select("version", "Z", "Z_name"))
    assert [table["Z"].to_list() for table in found] == [[-4], [-8, -8], [-12, -12, -12]]
    assert [table["Z_name"].n_unique() for table in found] == [1, 1, 1]
    assert evaluation.num_jobs == 1 + 2 + 3
    evaluate_versions(root, evaluation)
    assert evaluation.num_jobs == 6
