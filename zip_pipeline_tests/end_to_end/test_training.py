"""Probe, verdict and training over a real `dg dev`: seen in the browser, cancelled, resumed."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from playwright.sync_api import expect

from zip_pipeline.chat_models import prepare_environment
from zip_pipeline.training.base_model import make_base_model
from zip_pipeline_tests.end_to_end.dev_server import DevServer, dev_server, make_project
from zip_pipeline_tests.end_to_end.test_restart import INGEST
from zip_pipeline_tests.end_to_end.test_ui import (
    PAGE_TIMEOUT_MILLISECONDS,
    browser_page,
    drop_questions,
    metadata_of,
)
from zip_pipeline_tests.training.conftest import OVERRIDES, SMALLEST

pytestmark = [pytest.mark.browser, pytest.mark.slow]

NUM_EPOCHS = 60
CANCEL = "mutation Cancel($id: String!) { terminateRun(runId: $id) { __typename } }"


def _project(folder: Path) -> None:
    prepare_environment(offline=True)
    model = folder / "base"
    make_base_model(model, SMALLEST)
    make_project(folder)
    settings = {"model": str(model), **OVERRIDES, "sft.epochs": NUM_EPOCHS}
    lines = "".join(f"{json.dumps(name)} = {json.dumps(v)}\n" for name, v in settings.items())
    (folder / "data" / "zip_pipeline.toml").write_text(
        f"[sft]\nbudget_samples = 40\nk3 = 5\n[training.overrides]\n{lines}"
    )
    drop_questions(folder)
    subprocess.run([sys.executable, "-c", INGEST], cwd=folder, check=True, timeout=120)


def _end(server: DevServer, run: str, status: str) -> None:
    server.wait(f"the run to be {status}", lambda: server.run_status(run) == status, 90)


def _training_processes(folder: Path) -> list[str]:
    """Return the command lines of processes that train in this project."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes().replace(b"\0", b" ").decode()
            in_project = (path.parent / "cwd").readlink() == folder
        except OSError:
            continue
        if in_project and "zip_pipeline.training.trainers.sft" in command:
            found.append(command)
    return found


def _num_steps(folder: Path) -> int:
    metrics = folder / "data" / "models" / "sft" / "v000001" / "metrics.jsonl"
    return len(metrics.read_text().splitlines()) if metrics.exists() else 0


def test_version_is_probed_trained_cancelled_and_resumed(tmp_path: Path) -> None:
    """The probe's verdict and the loss curve are in the UI; cancel leaves no process behind, and
    the next run goes on from the checkpoint.
    """
    _project(tmp_path)
    with dev_server(tmp_path) as server:
        night = server.launch("nightly_reselection", "sft/zip_subset", "sft/loss_probe")
        _end(server, night, "SUCCESS")
        (probe,) = server.materializations("sft", "loss_probe")
        assert metadata_of(probe)["L"] > 0

        run = server.launch("training", "sft/model")
        server.wait("ten steps", lambda: _num_steps(tmp_path) >= 10, 90)
        assert len(_training_processes(tmp_path)) == 1
        server.query(CANCEL, id=run)
        _end(server, run, "CANCELED")
        server.wait("the process's end", lambda: not _training_processes(tmp_path), 30)
        num_steps = _num_steps(tmp_path)

        _end(server, server.launch("training", "sft/model"), "SUCCESS")
        (model,) = server.materializations("sft", "model")
        metadata = metadata_of(model)
        assert 0 < metadata["resumed_at_step"] <= num_steps < metadata["num_steps"]
        assert _num_steps(tmp_path) == metadata["num_steps"]
        with browser_page() as page:
            page.goto(f"{server.url}/assets/sft/model?view=events")
            page.get_by_text("[Show Markdown]").first.click()
            picture = page.get_by_role("img", name="sft version 1: training loss")
            expect(picture).to_be_visible(timeout=PAGE_TIMEOUT_MILLISECONDS)
            page.screenshot(path=tmp_path / "model.png")
            page.goto(f"{server.url}/assets/sft/loss_probe?view=checks")
            expect(page.get_by_text("entropy_law_risk").first).to_be_visible(
                timeout=PAGE_TIMEOUT_MILLISECONDS
            )
            page.screenshot(path=tmp_path / "check.png")
            page.goto(f"{server.url}/locations/zip_pipeline/asset-groups/sft/lineage")
            expect(page.get_by_text("loss_probe", exact=True).first).to_be_visible(
                timeout=PAGE_TIMEOUT_MILLISECONDS
            )
            page.screenshot(path=tmp_path / "graph.png")
