"""Means over sources, and their errors."""

import math
import random
import statistics
from dataclasses import asdict

import polars as pl
import pytest

from zip_pipeline.evaluation.held_out import HeldOutLoss
from zip_pipeline.evaluation.held_out import summarise as summarise_table

SampleLoss = tuple[str, float, int, int]
SCHEMA = {
    "source": pl.String,
    "loss_sum": pl.Float64,
    "num_tokens": pl.Int64,
    "num_bytes": pl.Int64,
}


def _sample(source: str, loss_sum: float, num_tokens: int = 1, num_bytes: int = 1) -> SampleLoss:
    return source, loss_sum, num_tokens, num_bytes


def summarise(samples: list[SampleLoss], held_out: str = "", **counts: int) -> HeldOutLoss:
    """Return the summary of samples."""
    return summarise_table(pl.DataFrame(samples, schema=SCHEMA, orient="row"), held_out, **counts)


def test_every_source_counts_the_same():
    """The mean over sources is not the mean over tokens; bits per byte are over ln 2."""
    samples = [_sample("a", 1.0, 1, 2), _sample("b", 10.0, 5, 5), _sample("a", 3.0, 3, 6)]
    found = summarise(samples, "hash", num_cut=1, num_skipped=2)
    assert list(found.sources) == ["a", "b"]
    assert (found.sources["a"].loss, found.sources["b"].loss, found.loss) == (1.0, 2.0, 1.5)
    assert (found.sources["a"].num_samples, found.sources["a"].num_bytes) == (2, 8)
    assert found.bits_per_byte == pytest.approx((4 / 8 + 10 / 5) / 2 / math.log(2))
    assert (found.num_samples, found.num_cut, found.num_skipped) == (3, 1, 2)
    assert set(asdict(found)) == {
        "loss",
        "loss_spread",
        "bits_per_byte",
        "sources",
        "held_out",
        "num_samples",
        "num_cut",
        "num_skipped",
        "accuracy",
    }


def test_spread_of_answers_of_one_token_is_the_standard_error():
    """With equal lengths the ratio is a mean, and its error the usual one."""
    values = [1.0, 2.0, 4.0, 5.0]
    found = summarise([_sample("a", value) for value in values])
    assert found.loss_spread == pytest.approx(statistics.stdev(values) / 2)
    assert found.sources["a"].loss_spread == found.loss_spread


def test_spread_of_two_sources_is_that_of_their_mean():
    """Errors 1 and 2 of two sources make sqrt(5) / 2 of their mean."""
    near = [_sample("a", 5.0), _sample("a", 7.0)]
    far = [_sample("b", 1.0), _sample("b", 5.0)]
    found = summarise(near + far)
    assert [found.sources[name].loss_spread for name in "ab"] == pytest.approx([1, 2])
    assert found.loss_spread == pytest.approx(math.sqrt(5) / 2)


def test_spread_is_that_of_repeated_draws():
    """Drawn again and again, the loss scatters as its spread says, whatever the lengths."""
    chance = random.Random(0)

    def draw() -> list[SampleLoss]:
        lengths = [chance.randint(1, 60) for _ in range(60)]
        losses = [n * (1.5 + n / 60 + chance.gauss(0, 0.4)) for n in lengths]
        return [_sample("ab"[i % 2], losses[i], lengths[i]) for i in range(60)]

    found = [summarise(draw()) for _ in range(300)]
    scatter = statistics.stdev(one.loss for one in found)
    mean_spread = statistics.fmean(one.loss_spread or 0 for one in found)
    assert mean_spread == pytest.approx(scatter, rel=0.12)


def test_source_of_one_sample_scatters_as_the_others():
    """Variances of one sample 2 and 8 stand for 5 where a source has one; alone it has none."""
    samples = [_sample("a", 5.0), _sample("a", 7.0), _sample("b", 1.0), _sample("b", 5.0)]
    found = summarise([*samples, _sample("c", 3.0)])
    assert found.sources["c"].loss_spread == pytest.approx(math.sqrt(5))
    assert found.loss_spread == pytest.approx(math.sqrt(1 + 4 + 5) / 3)
    alone = summarise([_sample("a", 5.0), _sample("c", 3.0)])
    assert alone.loss_spread is None
    assert alone.sources["a"].loss_spread is None


@pytest.mark.parametrize("loss_sum", [math.nan, math.inf])
def test_diverged_model_has_no_loss(loss_sum: float):
    """A loss that is not finite is an error, never a Z; so is no sample at all."""
    with pytest.raises(ValueError, match=r"1 of 2 samples have a loss that is not finite"):
        summarise([_sample("a", 1.0), _sample("a", loss_sum)])
    with pytest.raises(ValueError, match="no sample was measured"):
        summarise([])
