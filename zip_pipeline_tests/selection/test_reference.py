"""reference_compat against recorded picks of the published code and a slow oracle."""

import gzip
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zip_pipeline.compression.texts import TemporaryTexts
from zip_pipeline.selection.config import SelectionConfig
from zip_pipeline.selection.reference import reference_texts, run_reference
from zip_pipeline.selection.rounds import lowest_index_first, reference_ordering
from zip_pipeline.selection.run import Checkpoint, Run
from zip_pipeline_tests.selection.oracles import reference_oracle
from zip_pipeline_tests.selection.test_zip import shapes

words = st.lists(st.sampled_from(("x", "yes", "ñ", "12", "a 'b'")), min_size=1, max_size=20)
records = st.lists(
    st.fixed_dictionaries({"id": st.integers(0, 99), "text": words.map(" ".join)}),
    min_size=1,
    max_size=14,
)


def run_records(pool: Sequence[object], config: SelectionConfig, **options) -> Run:
    """Return the finished run over records as they come."""
    with TemporaryTexts.write([reference_texts(pool)]) as texts:
        return run_reference(texts, config, Checkpoint(None, ""), **options)


@pytest.mark.parametrize("name", ["small", pytest.param("chat", marks=pytest.mark.slow)])
@pytest.mark.parametrize("ordering", [lowest_index_first, None], ids=["numpy", "default"])
def test_reference_picks_equal_the_published_code(shared_folder: Path, name: str, ordering) -> None:
    """The same samples in the same order as the published code selected."""
    vectors = shared_folder / "vectors"
    pool = json.loads(gzip.decompress((vectors / f"{name}.pool.json.gz").read_bytes()))
    expected = json.loads((vectors / f"{name}.picks.json").read_text())
    config = SelectionConfig(
        strategy="zip",
        budget_samples=expected["budget_samples"],
        k1=expected["k1"],
        k2=expected["k2"],
        k3=expected["k3"],
        reference_compat=True,
    )
    run = run_records(pool, config, ordering=ordering)
    assert len(run.picks) == expected["budget_samples"]
    assert [pool[i]["id"] for i in run.picks] == expected["picks"]


@given(records, shapes, st.integers(1, 20), st.integers(1, 3))
@settings(max_examples=60, deadline=None)
def test_reference_equals_oracle(
    pool: list[dict[str, object]], k: tuple[int, int, int], budget: int, workers: int
) -> None:
    """Pools smaller than k1, repeated records and k3 = k2 included; nothing is picked twice."""
    config = SelectionConfig(
        strategy="zip", budget_samples=budget, k1=k[0], k2=k[1], k3=k[2], reference_compat=True
    )
    run = run_records(pool, config, workers=workers, ordering=lowest_index_first)
    assert run.picks.tolist() == reference_oracle(pool, k, budget)
    assert len(set(run.picks)) == len(run.picks)


def test_reference_budget_is_overshot_to_whole_rounds() -> None:
    """A budget of 5 with k3 = 4 gives 8 picks, and shortlisted samples never come back."""
    pool = [{"id": i, "text": str(i * i) * 3} for i in range(30)]
    config = SelectionConfig(
        strategy="zip", budget_samples=5, k1=20, k2=6, k3=4, reference_compat=True
    )
    run = run_records(pool, config)
    assert len(run.picks) == 8
    assert run.num_rounds == 2
    assert (run.pi == 1_000_000).sum() == 12


def test_reference_takes_every_record_as_it_comes() -> None:
    """Records that are no samples take part too: broken ones, bare values, lone surrogates."""
    pool = [{"a": "\ud800"}, "text", None, {}, {"id": 1, "conversations": []}]
    config = SelectionConfig(
        strategy="zip", budget_samples=5, k1=5, k2=3, k3=1, reference_compat=True
    )
    assert reference_texts(pool[:1]) == [rb"{'a': '\ud800'}"]
    run = run_records(pool, config)
    # Each round drops its shortlist of three and keeps one pick.
    assert len(run.picks) == 2


def test_reference_ordering_uses_torch_where_it_is_installed() -> None:
    """With torch the order is torch.topk's."""
    pytest.importorskip("torch")
    assert reference_ordering() is not lowest_index_first
