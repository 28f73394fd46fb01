"""Q, by a judge and by the filters."""

import math
import re
import statistics
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zip_pipeline.evaluation.quality import (
    Quality,
    QualityAuditSettings,
    audit_quality,
    audit_sample,
    filter_pass_rate,
)
from zip_pipeline.judge.client import Endpoint
from zip_pipeline.samples import (
    AnySample,
    PreferencePair,
    RatedAnswer,
    Sample,
    Stage,
    Turn,
    frame_of,
    sample_columns,
    sample_id,
)
from zip_pipeline_tests.judge.judge_server import (
    Behaviour,
    JudgeServer,
    Received,
    in_turn,
    says,
)


def _sample(text: str) -> Sample:
    return Sample((Turn("user", "Say {it}."), Turn("assistant", text)))


def _subset(*samples: AnySample) -> pl.DataFrame:
    stage: Stage = "sft" if isinstance(samples[0], Sample) else "preference"
    return frame_of(stage, [{"sample_id": sample_id(s), **sample_columns(s)} for s in samples])


def _rated_by_number(received: Received, _: int) -> Behaviour:
    match = re.search(r"quality (\d)", received.question)
    return says(f"So so. Rating: [[{match.group(1)}]]" if match else "no")


def _audit(
    server: JudgeServer, path: Path, subset: pl.DataFrame, stage: Stage = "sft", **options: int
) -> Quality:
    endpoint = Endpoint(url=server.url, model="judge", max_concurrency=options.pop("at_once", 8))
    return audit_quality(subset, stage, QualityAuditSettings(judge=endpoint, **options), path)


def test_audit_is_the_mean_of_the_judges_ratings(tmp_path: Path):
    """Q is the mean of 0 to 5 over the samples, its spread the standard error."""
    ratings = [5, 4, 4, 0, 2]
    subset = _subset(*(_sample(f"answer {i} of quality {r}") for i, r in enumerate(ratings)))
    with JudgeServer(_rated_by_number) as server:
        quality = _audit(server, tmp_path / "a", subset)
    assert quality.Q == 3.0
    assert quality.Q_spread == pytest.approx(statistics.stdev(ratings) / math.sqrt(5))
    assert re.fullmatch(r"judge judge, prompt [0-9a-f]{8}", quality.Q_name)
    assert (quality.num_samples, quality.num_missing, quality.num_cut) == (5, 0, 0)
    asked = server.requests[0].body
    assert (asked["temperature"], asked["max_tokens"]) == (0.0, 512)
    assert "[user]\nSay {it}.\n\n[assistant]\nanswer" in asked["messages"][1]["content"]


def test_audit_leaves_unrated_samples_out(tmp_path: Path):
    """A sample that the judge does not rate is missing; it is not worth 0."""
    subset = _subset(*(_sample(text) for text in ("quality 4", "quality 5", "quality 9", "none")))
    with JudgeServer(_rated_by_number) as server:
        quality = _audit(server, tmp_path / "a", subset)
    assert quality.Q == 4.5
    assert (quality.num_samples, quality.num_missing, quality.num_malformed) == (4, 2, 6)


def test_audit_leaves_undesirable_answers_out(tmp_path: Path):
    """They are not drawn: bad answers that are known to be bad say nothing against the data."""
    question = (Turn("user", "Which?"),)
    rated = [RatedAnswer(question, (Turn("assistant", f"quality {n}"),), n > 2) for n in range(6)]
    with JudgeServer(_rated_by_number) as server:
        quality = _audit(server, tmp_path / "a", _subset(*rated), "preference", num_samples=3)
    assert (quality.Q, quality.num_samples, quality.num_missing) == (4.0, 3, 0)


def test_audit_shows_all_that_was_said(tmp_path: Path):
    """Tools, names, reasoning and calls stand where the model has them."""
    turns = (
        Turn("user", "1+1?", name="ann"),
        Turn("assistant", "quality 5", '[{"f": 1}]', reasoning="add"),
    )
    with JudgeServer(_rated_by_number) as server:
        _audit(server, tmp_path / "a", _subset(Sample(turns, tools="[7]")))
    assert (
        "<conversation>\n[tools]\n[7]\n\n[user ann]\n1+1?\n\n[assistant]\n<think>add</think>\n"
        'quality 5[{"f": 1}]\n</conversation>'
    ) in server.requests[0].body["messages"][1]["content"]


def test_audit_judges_the_chosen_answer_of_a_pair(tmp_path: Path):
    """Of a pair the prompt and the chosen answer are shown, the rejected one is not."""
    pair = PreferencePair(
        (Turn("user", "Which?"),), (Turn("assistant", "quality 4"),), (Turn("assistant", "bad"),)
    )
    with JudgeServer(_rated_by_number) as server:
        quality = _audit(server, tmp_path / "a", _subset(pair), "preference")
    assert (quality.Q, quality.Q_spread) == (4.0, None)
    shown = server.requests[0].question
    assert "[user]\nWhich?\n\n[assistant]\nquality 4" in shown
    assert "bad" not in shown


def test_audit_cuts_the_middle_of_a_long_conversation(tmp_path: Path):
    """Beginning and end of a long sample are judged, and it is counted."""
    text = "begin " + "x" * 20_000 + " quality 3"
    with JudgeServer(_rated_by_number) as server:
        quality = _audit(server, tmp_path / "a", _subset(_sample(text), _sample("quality 5")))
    assert (quality.Q, quality.num_cut) == (4.0, 1)
    assert max(len(request.question) for request in server.requests) < 13_500


def test_audit_joins_the_drift_of_a_repeated_judge(tmp_path: Path):
    """With repetitions the spread is the root of squared standard error and squared drift."""
    replies = [says(f"[[{r}]]") for r in (2, 4, 3, 5)]
    subset = _subset(_sample("one"), _sample("two"))
    with JudgeServer(in_turn(replies, says("[[0]]"))) as server:
        quality = _audit(server, tmp_path / "a", subset, repetitions=2, at_once=1)
    assert quality.Q == 3.5
    # Samples 2.5 and 4.5: standard error 1; repetitions 3 and 4: drift 0.5 ** 0.5.
    assert quality.Q_spread == pytest.approx(1.5**0.5)


def test_audit_of_the_next_version_asks_only_about_new_samples(tmp_path: Path):
    """One store for all versions saves the questions about samples that stayed."""
    old = [_sample(f"{i} quality 4") for i in range(6)]
    with JudgeServer(_rated_by_number) as server:
        _audit(server, tmp_path / "a", _subset(*old))
        assert len(server.requests) == 6
        new = _subset(*old[3:], _sample("quality 1"))
        assert _audit(server, tmp_path / "a", new.reverse()).Q == 3.25
        assert len(server.requests) == 7


def test_audit_sample_is_seeded_and_blind_to_the_order():
    """The same seed draws the same samples whatever the order of rows; another draws others."""
    subset = _subset(*(_sample(str(i)) for i in range(200)))
    drawn = audit_sample(subset, 50, 0)
    assert drawn.columns == subset.columns
    assert drawn.height == 50
    ids = set(drawn["sample_id"])
    assert len(ids) == 50
    assert set(audit_sample(subset.reverse(), 50, 0)["sample_id"]) == ids
    assert set(audit_sample(subset, 50, 1)["sample_id"]) != ids
    assert audit_sample(subset, 1000, 0).height == 200
    # Half of the subset: about half of the drawn samples stay.
    half = subset.head(100)
    assert len(set(audit_sample(half, 50, 0)["sample_id"]) & ids) == len(
        ids & set(half["sample_id"])
    )


@pytest.mark.parametrize(("num_rows", "num_samples"), [(0, 5), (3, 0)])
def test_audit_needs_something_to_judge(num_rows: int, num_samples: int):
    """An empty subset or sample is an error with the numbers."""
    subset = _subset(*(_sample(str(i)) for i in range(3))).head(num_rows)
    with pytest.raises(ValueError, match=f"a sample of {num_samples} of {num_rows} samples"):
        audit_sample(subset, num_samples, 0)


def test_pass_rate_is_the_share_of_rows_that_pass():
    """Q is passed rows over rows read; with one batch its spread is that of independent rows."""
    quality = filter_pass_rate([(200, 190)])
    assert quality.Q == 0.95
    assert quality.Q_name == "filter pass rate"
    assert quality.num_samples == 200
    smoothed = 191 / 202
    assert quality.Q_spread == pytest.approx(math.sqrt(smoothed * (1 - smoothed) / 200))
    assert filter_pass_rate([(200, 200)]).Q_spread == pytest.approx(0.00496, abs=1e-5)


def test_pass_rate_of_uneven_batches_has_the_spread_of_the_batches():
    """Batches that differ more than chance allows make the rate that much less certain."""
    quality = filter_pass_rate([(1000, 1000), (1000, 1000), (1000, 700)])
    assert abs(quality.Q - 0.9) < 1e-12
    # Residuals 100, 100, -200 over 3000 rows: sqrt(3 / 2 * 60000) / 3000.
    assert quality.Q_spread == pytest.approx(0.1)


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=1, max_size=6))
def test_pass_rate_has_a_spread_whatever_the_batches(batches: list[tuple[int, int]]):
    """The rate is from 0 to 1 and its spread above 0, empty batches included."""
    if not any(passed or rejected for passed, rejected in batches):
        return
    quality = filter_pass_rate([(passed + rejected, passed) for passed, rejected in batches])
    assert 0 <= quality.Q <= 1
    assert quality.Q_spread is not None
    assert 0 < quality.Q_spread < 1


@pytest.mark.parametrize("batches", [[], [(0, 0)], [(5, 6)], [(5, -1)]])
def test_pass_rate_needs_rows(batches: list[tuple[int, int]]):
    """Nothing read, or more passed than read, is an error."""
    with pytest.raises(ValueError, match="no pass rate from rows"):
        filter_pass_rate(batches)
