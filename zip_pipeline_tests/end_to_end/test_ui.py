"""What a data engineer sees and clicks in the browser, over a real `dg dev`."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from playwright.sync_api import Page, ViewportSize, expect, sync_playwright

from zip_pipeline.defs.headless import open_instance
from zip_pipeline.defs.keys import loss_probe_key
from zip_pipeline.defs.metadata import drawing
from zip_pipeline.report.figures import trend
from zip_pipeline_tests.defs.graph import alpaca_rows
from zip_pipeline_tests.end_to_end.dev_server import (
    DevServer,
    dev_server,
    make_folder_of_its_own,
)
from zip_pipeline_tests.entropy_law.tables import series_of

pytestmark = pytest.mark.browser

CHROMIUM_ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PAGE_TIMEOUT_MILLISECONDS = 30_000
VIEWPORT: ViewportSize = {"width": 1500, "height": 1000}
NUM_ROWS = 60
RUNS = """
{ runsOrError(filter: {pipelineName: "select_sft"}) {
    ... on Runs { results { runId repositoryOrigin { repositoryLocationName } } } } }
"""
AUTOMATION = """
{ repositoriesOrError { ... on RepositoryConnection { nodes {
    sensors { name sensorState { status } }
    schedules { name scheduleState { status } } } } } }
"""


@contextmanager
def browser_page() -> Iterator[Page]:
    """Yield a page of headless Chromium."""
    executable = shutil.which("chromium")
    if executable is None:
        pytest.skip("no chromium on the path")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=executable, args=list(CHROMIUM_ARGUMENTS)
        )
        page = browser.new_page(viewport=VIEWPORT)
        page.set_default_timeout(PAGE_TIMEOUT_MILLISECONDS)
        try:
            yield page
        finally:
            browser.close()


def _statuses(server: DevServer) -> dict[str, str]:
    (node,) = server.query(AUTOMATION)["repositoriesOrError"]["nodes"]
    found = {s["name"]: s["sensorState"]["status"] for s in node["sensors"]}
    return found | {s["name"]: s["scheduleState"]["status"] for s in node["schedules"]}


def metadata_of(materialization: dict[str, Any]) -> dict[str, Any]:
    """Return the metadata of a materialisation by name."""
    values = ("intValue", "boolValue", "floatValue", "mdStr")
    return {
        entry["label"]: next((entry[v] for v in values if v in entry), None)
        for entry in materialization["metadataEntries"]
    }


def drop_questions(folder: Path) -> None:
    """Drop a file of rows as a careful writer does."""
    rows = "".join(json.dumps(row) + "\n" for row in alpaca_rows(NUM_ROWS))
    drop = folder / "data" / "raw" / "sft" / "questions.jsonl"
    part = drop.with_name(drop.name + ".part")
    part.write_text(rows)
    part.rename(drop)


def _see_the_graph(page: Page, server: DevServer, screenshot: Path) -> None:
    page.goto(f"{server.url}/locations/zip_pipeline/asset-groups/sft/lineage")
    for name in ("raw_pool", "compression_state", "zip_subset"):
        expect(page.get_by_text(name, exact=True).first).to_be_visible(
            timeout=PAGE_TIMEOUT_MILLISECONDS
        )
    page.screenshot(path=screenshot)


def _click_materialize(page: Page, server: DevServer) -> None:
    page.goto(f"{server.url}/assets/sft/zip_subset")
    page.get_by_role("button", name="Materialize").first.click()
    expect(page.get_by_text("Launched run")).to_be_visible(timeout=PAGE_TIMEOUT_MILLISECONDS)


def _see_the_sentence_first(page: Page, server: DevServer, screenshot: Path) -> None:
    """The first screen of the asset's page tells what the version came to, with no click."""
    page.goto(f"{server.url}/assets/sft/zip_subset?view=overview")
    sentence = page.get_by_text("Version 1: 20 of 60 samples by zip; R ")
    expect(sentence).to_be_visible(timeout=PAGE_TIMEOUT_MILLISECONDS)
    place = sentence.bounding_box()
    assert place is not None
    page.screenshot(path=screenshot)
    assert place["y"] + place["height"] < VIEWPORT["height"]
    budget = page.get_by_text("20 samples", exact=True).bounding_box()
    assert budget is not None
    assert budget["y"] > place["y"]


def _see_the_trend_in_place(page: Page, server: DevServer, folder: Path) -> None:
    """A drawing that is short enough needs no click."""
    svg = trend(series_of([3.0, 3.5], [1.0, 1.1], verdict="risk"), "sft")
    metadata = {"verdict": "risk: must not be trained", "trend": drawing(svg, "sft: R, L and Z")}
    with open_instance(folder) as instance:
        instance.report_runless_asset_event(
            dg.AssetMaterialization(loss_probe_key("sft"), metadata=metadata)
        )
    page.goto(f"{server.url}/assets/sft/loss_probe?view=overview")
    picture = page.get_by_role("img", name="sft: R, L and Z")
    expect(picture).to_be_visible(timeout=PAGE_TIMEOUT_MILLISECONDS)
    assert picture.evaluate("image => image.naturalWidth") == 370
    expect(page.get_by_text("risk: must not be trained")).to_be_visible()
    page.screenshot(path=folder / "trend.png")


def _see_the_run_of_the_command_line(page: Page, server: DevServer, folder: Path) -> None:
    """It stands on the page of the job whose name says what it did."""
    command = [sys.executable, "-m", "zip_pipeline.defs.headless", "--until", "subset"]
    subprocess.run(command, cwd=folder, check=True)
    page.goto(f"{server.url}/locations/zip_pipeline/jobs/select_sft/runs")
    (run,) = server.query(RUNS)["runsOrError"]["results"]
    assert run["repositoryOrigin"]["repositoryLocationName"] == "zip_pipeline"
    row = page.get_by_text(run["runId"][:8])
    expect(row.first).to_be_visible(timeout=PAGE_TIMEOUT_MILLISECONDS)
    page.screenshot(path=folder / "runs.png")
    expect(page.get_by_text("lock")).to_have_count(0)


def _see_the_plot(page: Page, server: DevServer, screenshot: Path) -> None:
    page.goto(f"{server.url}/assets/sft/zip_subset?view=events")
    page.get_by_text("[Show Markdown]").first.click()
    picture = page.get_by_role("img", name="sft version 1: zip")
    expect(picture).to_be_visible(timeout=PAGE_TIMEOUT_MILLISECONDS)
    assert picture.evaluate("image => image.naturalWidth") > 500
    page.screenshot(path=screenshot)


def test_drop_becomes_a_subset_in_the_browser_and_history_survives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dropped file is ingested with no click, Materialize makes a version of it, and after a
    restart of the server all of that is still there. The data root lies in a folder of its own.
    """
    make_folder_of_its_own(tmp_path)
    # As the history's place is told from there.
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    settings = "[sft]\nstrategy = 'zip'\nbudget_samples = 20\nk3 = 5\n"
    (tmp_path / "data" / "zip_pipeline.toml").write_text(settings)
    with dev_server(tmp_path) as server, browser_page() as page:
        drops = ("sft_drops", "preference_drops")
        alerts = ("alerts", "alerts_of_nights")
        names = (*drops, "nightly_reselection", "entropy_law_figures", *alerts)
        running = dict.fromkeys(names, "RUNNING") | {"training_of_new_versions": "STOPPED"}
        assert _statuses(server) == running
        drop_questions(tmp_path)
        _see_the_graph(page, server, tmp_path / "graph.png")

        (state,) = server.wait(
            "the drop to be ingested", lambda: server.materializations("sft", "compression_state")
        )
        assert state["partition"] == "questions.jsonl"
        (pool,) = server.materializations("sft", "raw_pool")
        assert pool["partition"] == "questions.jsonl"
        assert metadata_of(pool)["num_samples"] == NUM_ROWS
        assert server.materializations("sft", "zip_subset") == []

        _click_materialize(page, server)
        (subset,) = server.wait(
            "the subset", lambda: server.materializations("sft", "zip_subset"), 90
        )
        server.wait("the run's end", lambda: server.run_status(subset["runId"]) == "SUCCESS")
        metadata = metadata_of(subset)
        assert (metadata["version"], metadata["reused"]) == (1, False)
        assert metadata["num_picked"] == 20
        assert metadata["pool_compression_ratio_zstd"] > metadata["subset_compression_ratio_zstd"]
        assert (tmp_path / "data" / "versions" / "sft" / "v000001" / "manifest.json").exists()
        _see_the_sentence_first(page, server, tmp_path / "sentence.png")
        _see_the_plot(page, server, tmp_path / "plot.png")
        _see_the_trend_in_place(page, server, tmp_path)
        _see_the_run_of_the_command_line(page, server, tmp_path)
        before = server.materializations("sft", "raw_pool")

    with dev_server(tmp_path) as server:
        assert server.materializations("sft", "raw_pool") == before
        assert server.materializations("sft", "zip_subset")[-1] == subset
        assert server.run_status(subset["runId"]) == "SUCCESS"
        assert _statuses(server) == running
