"""The page on a version: what it says, and that nothing of the data is obeyed."""

import base64
import gzip
import hashlib
import json
import re
import time
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

from zip_pipeline.entropy_law.verdict import judge
from zip_pipeline.files import write_table
from zip_pipeline.report import page as page_module
from zip_pipeline.report.card import data_card
from zip_pipeline.report.page import (
    Report,
    cut_table,
    headline,
    languages_table,
    random_pick,
    ratios_table,
    rejected_table,
    render_page,
    repeated,
    sources_table,
    standing,
)
from zip_pipeline.workflow import reports
from zip_pipeline.workflow.reports import read_report, write_report
from zip_pipeline.workflow.versions import latest_version
from zip_pipeline_tests.entropy_law.tables import version_row, versions
from zip_pipeline_tests.report.data_roots import ledger_of
from zip_pipeline_tests.report.rendered import loads_of
from zip_pipeline_tests.report.reported_roots import BATCH, HOSTILE, reported_root


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """Return what is told of the second version of a root of 60 samples."""
    root = reported_root(tmp_path_factory.mktemp("root"), 60)
    return read_report(root, latest_version(root["sft"]))


@pytest.fixture(scope="module")
def html(report: Report) -> str:
    """Return its page."""
    return render_page(report)


def _data(html: str, name: str) -> dict[str, Any]:
    found = re.search(f'id="data_{name}">([^<]*)</script>', html)
    assert found
    data: dict[str, Any] = json.loads(gzip.decompress(base64.b64decode(found[1])))
    return data


@pytest.mark.parametrize(
    ("columns", "tone", "words"),
    [
        ({"verdict": None}, "plain", "Version 2 is not judged yet."),
        ({"verdict": "risk"}, "bad", "Do not train on version 2: the entropy law expects"),
        (
            {"verdict": "risk", "override": "we know (run 1)"},
            "warn",
            "Version 2 was let through against the advice of the entropy law.",
        ),
        ({"verdict": "expected_gain"}, "good", "Train on version 2: the entropy law expects"),
        ({"verdict": "consistency_warning"}, "warn", "Version 2 may be trained, but look"),
        ({"verdict": "no_change"}, "plain", "Version 2 may be trained; the entropy law expects no"),
        ({"verdict": "first"}, "plain", "Version 2 may be trained; the entropy law cannot tell"),
    ],
)
def test_headline_says_what_to_do(
    report: Report, columns: dict[str, Any], tone: str, words: str
) -> None:
    """Each verdict, and one that a person overruled, has a sentence and a tone."""
    row = version_row(2, reason="R rose.", **columns)
    told = headline(replace(report, law=versions(row)))
    assert told.tone == tone
    assert told.words.startswith(words)
    assert ("we know" in told.why) == ("override" in columns)


def test_the_band_is_that_of_the_verdict(report: Report) -> None:
    """R and L stand to the versions that the law compares with; Z to those measured alike."""
    alike = {"Z_name": "held-out", "Q": 0.9, "Q_spread": 0.01, "Q_name": "filters"}
    law = versions(
        version_row(1, R=2.5, L=1.5, Z=-1.2, **alike),
        version_row(2, R=2.9, L=1.52, Z=-1.0, **alike | {"Z_name": "MT-bench"}),
    )
    found = standing(replace(report, law=law))
    numbers = judge(law.row(1, named=True), law).numbers
    assert set(found) == {"R", "L", "Q"}
    for name in ("R", "L"):
        told = (found[name].reference, found[name].bound)
        assert told == (numbers[f"{name}_reference"], numbers[f"{name}_bound"])
    assert (found["R"].direction, found["Q"].direction) == ("up", "flat")


def test_random_pick_uses_no_more_than_the_version() -> None:
    """It takes samples that took part in one order, whatever theirs in the pool."""
    rows = [{"sample_id": f"{n:032}", "num_tokens": 10} for n in range(20)]
    rows += [{"sample_id": f"{n:032}", "num_tokens": 1, "fate": "noise"} for n in range(20, 40)]
    ledger = ledger_of(rows)
    found = random_pick(ledger, "tokens", 75)
    assert len(found) == 7
    assert max(found) < f"{20:032}"
    assert found.equals(random_pick(ledger.reverse(), "tokens", 75))
    assert random_pick(ledger, "samples", 3).equals(found[:3])


def test_a_repeated_text_stands_beside_the_pick_that_has_most_of_it() -> None:
    """Six words in a row count, whatever stands between words; a text is not beside itself."""
    alphabet = list("abcdefghijklmnopqrstuvwxyz")
    whole, part = " ".join(alphabet), "\n ".join(alphabet[:8])
    picks = pl.DataFrame({"sample_id": ["1", "2", "3"], "text": [whole, part, "none of it"]})
    texts = {"left": " ".join(alphabet[:12]), "1": whole, "3": "none of it", "new": "x y z"}
    assert repeated(texts, picks) == {"left": "1", "1": "2"}
    assert repeated({"new": "too short"}, picks) == {}


def test_sources_tell_what_they_lost_to_each_fate() -> None:
    """Shares are of the pool and of the picks; duplicates have lost what stood for nothing."""
    ledger = ledger_of(
        [
            {"sample_id": "1", "source": "a", "fate": "picked"},
            {"sample_id": "2", "source": "a", "fate": "noise"},
            {"sample_id": "3", "source": "b", "fate": "never_reached"},
            {"sample_id": "3", "source": "b", "fate": "duplicate"},
        ]
    )
    rows = sources_table(ledger).rows.to_dicts()
    assert rows == [
        {"source": "a", "pool": 2, "picked": 1, "share of pool": 2 / 3, "share of subset": 1.0}
        | {"duplicate": None, "never reached": None, "noise": 1},
        {"source": "b", "pool": 1, "picked": 0, "share of pool": 1 / 3, "share of subset": 0.0}
        | {"duplicate": 1, "never reached": 1, "noise": None},
    ]


def test_languages_are_told_where_they_are_measured(report: Report) -> None:
    """Without the signal the page says how to get it."""
    assert "[signals.language]" in languages_table(report).note
    languages = report.ledger.select("sample_id", language=pl.lit("en"))
    (row,) = languages_table(replace(report, languages=languages)).rows.to_dicts()
    assert (row["language"], row["pool"], row["picked"]) == ("en", 60, 13)


def test_what_is_cut_is_told_by_source(report: Report) -> None:
    """Tokens beyond what training reads are counted for the picks alone."""
    cut = {"max_length": 15, "num_samples": 7, "num_tokens": 28}
    told = cut_table(replace(report, manifest={**report.manifest, "cut": cut}))
    assert (told.rows["samples cut"].sum(), told.rows["tokens cut"].sum()) == (9, 45)
    assert told.note.startswith("Training reads the first 15 tokens of a conversation. 7 picks are")


def test_r_stands_beside_that_of_a_random_pick(report: Report) -> None:
    """The random pick is measured by the codecs of every pool; no median ratio is told."""
    rows = ratios_table(report).rows.to_dicts()
    assert [row["codec"] for row in rows] == ["deflate", "zstd"]
    assert [row["subset"] for row in rows] == [2.6, 2.75]
    assert all(1 < row["random pick"] < 4 for row in rows)


def test_the_page_loads_nothing_and_obeys_no_data(html: str) -> None:
    """One program may run, which is told by its hash; no address and no markup of the data."""
    assert "<img" not in html
    assert html.count("<script") == 4
    outside = re.sub(r'xmlns(:\w+)?="[^"]*"', "", html)
    outside = re.sub(r"<metadata>.*?</metadata>", "", outside, flags=re.DOTALL)
    assert not re.search(r"https?://|//\w+\.|url\((?!#)", outside.split("<script", 1)[0])
    program = html.rpartition("<script>")[2].partition("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(program.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; base-uri"
    )
    assert policy in unescape(html)
    assert "innerHTML" not in program
    assert "&lt;/script&gt;&lt;script&gt;document.title" in html


def test_the_page_is_the_same_each_time(report: Report, html: str) -> None:
    """The same version gives the same bytes."""
    assert render_page(report) == html


def test_the_page_holds_the_whole_ledger_and_all_fates(report: Report, html: str) -> None:
    """Each row has its id, its reason, and a letter for its fate in each version."""
    ledger, texts, history = (_data(html, name) for name in ("ledger", "texts", "history"))
    assert ledger["ids"] == report.ledger["sample_id"].to_list()
    assert texts["why"][1] == "marked as a near-duplicate: the same but for a few words"
    assert texts["other"][1] == ledger["ids"][0]
    names = history["names"]
    fates = [[names[ord(c) - ord("a")] for c in codes] for codes in history["codes"]]
    assert [version for version, _ in history["versions"]] == [1, 2]
    assert fates[1] == report.ledger["fate"].to_list()
    assert [of_version[0] for of_version in fates] == ["picked", "candidate"]
    assert history["whys"][1] is None
    told = history["whys"][0]
    assert told["names"][told["codes"][1]] == texts["why"][1]
    assert told["names"][told["codes"][0]].startswith("picked as number 1, in round 1: the least")
    (left,) = [e["items"] for e in ledger["examples"] if "left out" in e["title"]]
    assert left[0] == [ledger["ids"][-1], ledger["ids"][2]]


def test_personal_data_is_not_shown(report: Report, html: str) -> None:
    """A sample that was left out for personal data has no text on the page."""
    texts = _data(html, "texts")["texts"]
    is_shown = [text is not None for text in texts]
    assert is_shown == [fate != "personal_data" for fate in report.ledger["fate"]]


def test_texts_are_shortened_to_what_a_page_holds(
    report: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The begin of each text stays, and its whole size is told; examples are whole."""
    monkeypatch.setattr(page_module, "_TEXT_CHARACTERS", 60 * 50)
    data = render_page(report)
    texts, ledger = _data(data, "texts"), _data(data, "ledger")
    examples = {id_ for e in ledger["examples"] for item in e["items"] for id_ in item}
    rows = zip(ledger["ids"], texts["texts"], texts["characters"], strict=True)
    sizes = {id_: (len(text), size) for id_, text, size in rows if text is not None}
    assert {shown for id_, (shown, _) in sizes.items() if id_ not in examples} == {50}
    assert all(shown == size for id_, (shown, size) in sizes.items() if id_ in examples)
    assert min(size for _, size in sizes.values()) > 100


def test_what_left_the_pool_is_listed_where_it_was_picked_before(report: Report) -> None:
    """A pick of the version before whose batch is gone went out, and says why."""
    assert report.change is not None
    gone = report.change.samples.filter(change="out").with_columns(fate_after=pl.lit("not_in_pool"))
    assert gone.height == 1
    ledger = report.ledger.filter(pl.col("sample_id") != gone["sample_id"].item())
    told = replace(report, ledger=ledger, change=replace(report.change, samples=gone))
    html = render_page(told)
    found, texts = _data(html, "ledger"), _data(html, "texts")
    assert found["ids"][-1] == gone["sample_id"].item()
    assert texts["why"][-1] == "no batch of that version's pool held it"
    change = found["coded"]["change"]
    assert change["names"][change["codes"][-1]] == "out"


def test_the_card_tells_hubs_and_people(report: Report) -> None:
    """The metadata is YAML; names of the data are neither markup nor columns of a table."""
    ledger = report.ledger.with_columns(
        source=pl.when(pl.col("fate") == "picked").then(pl.lit(f"a | b\n# {HOSTILE}: x"))
    )
    languages = ledger.select("sample_id", language=pl.lit("en"))
    card = data_card(replace(report, ledger=ledger, languages=languages), "a/b: [c].parquet")
    _, front, text = card.split("---\n", 2)
    metadata = yaml.safe_load(front)
    assert metadata["language"] == ["en"]
    assert metadata["size_categories"] == ["n<1K"]
    assert metadata["configs"][0]["data_files"] == [{"split": "train", "path": "a/b: [c].parquet"}]
    assert "13 conversations for supervised fine-tuning, picked from 60 by" in text
    assert rf"| `a ¦ b\n# {HOSTILE}: x` |" in text
    assert loads_of(text) == []


@pytest.mark.slow
def test_a_report_of_80_000_samples_is_quick_and_small(tmp_path: Path) -> None:
    """It takes at most 20 s of processor time, with 10 versions, and is below 25 MB."""
    root = reported_root(tmp_path, 80_000, num_versions=10)
    before = time.process_time()
    written = write_report(root, "sft")
    assert time.process_time() - before < 20
    assert 1_000_000 < written.page.stat().st_size < 25_000_000


def test_the_page_says_what_was_rejected_and_how_to_see_it(tmp_path: Path) -> None:
    """By drop and reason, most rows first; the sum of rows at the top points there."""
    root = reported_root(tmp_path, 40)
    rows = [
        {"source_file": BATCH, "source_row": row, "reason": reason, "detail": f"<b>{row}</b>"}
        for row, reason in ((41, "empty_answer"), (42, "invalid_json"), (43, "invalid_json"))
    ]
    write_table(root["sft"].quarantine(BATCH), pl.DataFrame(rows), {"fingerprint": "f"})
    told = read_report(root, latest_version(root["sft"]))
    assert rejected_table(told).rows.to_dicts() == [
        {"drop": BATCH, "reason": "invalid json", "rows": 2}
        | {"for example": f"{BATCH}:42 <b>42</b>"}
        | {"shown by": f"zip-pipeline quarantine {BATCH} --stage sft --reason invalid_json"},
        {"drop": BATCH, "reason": "empty answer", "rows": 1}
        | {"for example": f"{BATCH}:41 <b>41</b>"}
        | {"shown by": f"zip-pipeline quarantine {BATCH} --stage sft --reason empty_answer"},
    ]
    html = render_page(told)
    assert '0 duplicates · <a href="#rejected">what was rejected</a>' in html
    assert "&lt;b&gt;42&lt;/b&gt;" in html


def test_the_page_says_before_all_figures_that_settings_changed(report: Report, html: str) -> None:
    """A budget or a strategy of another kind is named, as it was and as it is."""
    assert report.change is not None
    assert 'id="changed"' not in html
    before = {**report.change.before, "config": report.manifest["config"] | {"budget_samples": 9}}
    told = render_page(replace(report, change=replace(report.change, before=before)))
    words = "<dt>budget_samples</dt><dd><code>9</code> before, <code>12</code> now</dd>"
    assert told.index(words) < told.index('id="standing"')


def test_reasons_of_other_versions_stop_where_a_page_has_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of the latest versions are kept; of the others the fates alone."""
    root = reported_root(tmp_path, 40, num_versions=4)
    for most, told in ((79, [3]), (39, []), (100_000, [1, 2, 3])):
        monkeypatch.setattr(reports, "_MOST_TOLD", most)
        past = read_report(root, latest_version(root["sft"])).past
        assert [one.number for one in past if one.fates["why"].count()] == told
