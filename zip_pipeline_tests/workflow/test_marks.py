"""Marked samples: their fates add up, masks stay out of records as they came, Q counts them."""

import json
import random
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import zip_pipeline
from zip_pipeline.data_root import DataRoot
from zip_pipeline.errors import UserError
from zip_pipeline.selection.config import SelectionConfig
from zip_pipeline.workflow.verdicts import version_quality
from zip_pipeline.workflow.versions import read_version, select_version
from zip_pipeline_tests.defs.trained_roots import ingest_rows
from zip_pipeline_tests.signals import near_copies

MAIL = "anna.berg@brauhaus-koeln.de"
_RANDOM = random.Random(5)
_WORDS = near_copies.vocabulary(_RANDOM, 400)
_TEXTS = [near_copies.invented(_RANDOM, 30, _WORDS) for _ in range(12)]


def _record(question: str, answer: str) -> dict[str, Any]:
    return {"instruction": question, "output": answer, "meta": {"by": MAIL}}


@st.composite
def _records(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Draw rows with copies, near-copies, mails, rows that are none, and long ones."""
    texts = st.sampled_from(_TEXTS)
    near = texts.map(lambda text: text.replace(" ", " and ", 1))
    questions = st.one_of(texts, near, texts.map(lambda text: f"{text} {MAIL}"))
    rows = st.builds(_record, questions, texts)
    return draw(st.lists(st.one_of(rows, st.just({"nothing": 1})), min_size=1, max_size=25))


_POLICIES = st.fixed_dictionaries(
    {},
    optional={
        "near_duplicates": st.fixed_dictionaries(
            {"max_loss": st.just(1.0)},
            optional={
                kind: st.sampled_from(["keep", "first", "longest"])
                for kind in ("same", "template", "same_prompt", "same_answer")
            },
        ),
        "personal_data": st.fixed_dictionaries(
            {"policy": st.sampled_from(["report", "exclude", "mask"])}
        ),
        "shape": st.fixed_dictionaries({"max_turns": st.integers(1, 3)}),
    },
)


@pytest.mark.slow
@given(_records(), _POLICIES, st.integers(1, 20))
@settings(max_examples=40, deadline=None)
def test_every_row_has_a_fate(
    records: list[dict[str, Any]], policies: dict[str, Any], budget: int
) -> None:
    """Rows read = picked + every other fate + quarantined, whatever signals are switched on."""
    if not any("output" in record for record in records):
        return
    options = {"strategy": "random", "budget_samples": budget, "signals": policies}
    selection = zip_pipeline.select(records, **options)
    manifest = selection.manifest
    assert manifest["num_rows_read"] == selection.ledger.height + manifest["num_quarantined"]
    assert sum(manifest["fates"].values()) == selection.ledger.height
    assert manifest["fates"].get("picked", 0) == len(selection)
    plain = zip_pipeline.select(records, strategy="random", budget_samples=budget)
    assert set(selection.ledger["sample_id"]) == set(plain.ledger["sample_id"])
    again = zip_pipeline.select(records, **options)
    assert again.subset.equals(selection.subset)
    assert again.ledger.equals(selection.ledger)
    has_mails = MAIL in json.dumps(selection.records())
    if policies.get("personal_data", {}).get("policy") != "mask":
        assert has_mails == (len(selection) > 0)


def test_masks_are_in_what_is_given_out(tmp_path: Path) -> None:
    """Turns and record of an exported sample have none of it, also where nobody reads it."""
    records = [_record(f"{_TEXTS[0]} {MAIL}", "Yes"), _record(_TEXTS[1], f"Ask {MAIL}.")]
    policy = {"personal_data": {"policy": "mask"}}
    selection = zip_pipeline.select(records, strategy="random", budget_samples=2, signals=policy)
    selection.write(tmp_path / "out.jsonl")
    text = (tmp_path / "out.jsonl").read_text()
    assert MAIL not in text
    assert sorted(json.loads(line)["output"] for line in text.splitlines()) == [
        "Ask [MAIL].",
        "Yes",
    ]
    assert all(json.loads(line)["meta"] == {"by": "[MAIL]"} for line in text.splitlines())
    told = selection.manifest["marked"]["by_source"]["personal_data"]
    assert told == [{"kind": "mail", "source": "records", "num": 2}]
    selection.write(tmp_path / "table.parquet")
    assert MAIL not in str(pl.read_parquet(tmp_path / "table.parquet").to_dicts())


def _version(root: DataRoot, policy: str) -> Any:
    config = SelectionConfig(
        strategy="random", budget_samples=9, signals={"personal_data": {"policy": policy}}
    )
    return read_version(root["sft"], select_version(root["sft"], config, print))


def test_a_version_trains_on_masks_and_keeps_the_record(tmp_path: Path) -> None:
    """Identity and record are those of the sample as it came, and so is a second version."""
    root = DataRoot(tmp_path)
    rows = [_record(f"{text} {MAIL}" if n % 3 else text, "Yes") for n, text in enumerate(_TEXTS)]
    ingest_rows(root, "a.jsonl", rows)
    plain, masked, again = (_version(root, policy) for policy in ("report", "mask", "mask"))
    assert masked.subset["sample_id"].equals(plain.subset["sample_id"])
    assert masked.subset["raw"].equals(plain.subset["raw"])
    assert MAIL in str(plain.subset["turns"].to_list())
    assert MAIL not in str(masked.subset["turns"].to_list())
    assert "[MAIL]" in str(masked.subset["turns"].to_list())
    assert again.subset.equals(masked.subset)
    assert pl.read_parquet(root["sft"].samples("a.jsonl"))["raw"].str.contains(MAIL).all()


@pytest.mark.parametrize(("policy", "passed"), [("report", 12), ("exclude", 4)])
def test_quality_counts_who_is_marked_as_not_passed(
    tmp_path: Path, policy: str, passed: int
) -> None:
    """Of 12 rows 8 have a mail: without a judge Q is the share that passes."""
    root = DataRoot(tmp_path)
    rows = [_record(f"{text} {MAIL}" if n % 3 else text, "Yes") for n, text in enumerate(_TEXTS)]
    ingest_rows(root, "a.jsonl", rows)
    quality = version_quality(root, _version(root, policy))
    assert pytest.approx(passed / 12) == quality.Q


def test_languages_share_the_budget() -> None:
    """Quotas, mixture and ledger are of what a signal tells; of what it does not, unknown."""
    said = {
        "en": "The harbour of the old town was built of grey stone by monks in a cold winter",
        "de": "Der Hafen der alten Stadt wurde in einem kalten Winter von Moenchen gebaut",
    }
    counts = {"en": 16, "de": 8}
    rows = [
        _record(f"{n}?", f"{said[name]}, {n}") for name, num in counts.items() for n in range(num)
    ]
    options: dict[str, Any] = {"strategy": "random", "shares_by": "signals.language.language"}

    def languages(**more: Any) -> dict[str, int]:
        ledger = zip_pipeline.select(rows, **options, **more).ledger
        picked = ledger.filter(fate="picked")
        return dict(picked["competed_in"].value_counts().iter_rows())

    assert languages(budget_samples=9, mixture="natural") == {"en": 6, "de": 3}
    assert languages(budget_samples=8, mixture="equal") == {"en": 4, "de": 4}
    assert languages(budget_samples=12, quotas={"en": (None, 0.5)}) == {"en": 6, "de": 6}
    selection = zip_pipeline.select(
        [*rows, _record("Yes?", "No")], **options, budget_samples=30, quotas={"de": (None, 0.1)}
    )
    assert "unknown" in set(selection.ledger["competed_in"])
    assert selection.manifest["quotas"]["de"] == {"minimum": 0, "maximum": 3, "used": 3}
    assert "its group de had its maximum of 10.0%" in selection.left_out("quota")["why"][0]
    with pytest.raises(UserError, match=r"shares_by: got 'language'; allowed are .*signals.lang"):
        zip_pipeline.select(rows, **options | {"shares_by": "language"}, budget_samples=1)
