"""Held-out losses of samples as one figure: every source counts the same."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class SampleLoss:
    """The loss of a model on one held-out sample."""

    source: str
    loss_sum: float
    """over the target tokens, nats"""
    num_tokens: int
    """target tokens, 1 or more"""
    num_bytes: int
    """of the target text"""


@dataclass(frozen=True, kw_only=True)
class SourceLoss:
    """The loss on the held-out samples of one source."""

    loss: float
    """mean over target tokens, nats"""
    loss_spread: float | None
    """standard error over samples; None where no source has two samples"""
    bits_per_byte: float
    """loss over the bytes of the target text: comparable between tokenizers"""
    num_samples: int
    num_tokens: int
    num_bytes: int


@dataclass(frozen=True, kw_only=True)
class HeldOutLoss:
    """Z by held-out loss: every source counts the same, however many samples it has."""

    loss: float
    """mean of the sources' losses, nats per token"""
    loss_spread: float | None
    """standard error of ``loss`` over samples; None where no source has two samples"""
    bits_per_byte: float
    """mean of the sources' bits per byte"""
    sources: dict[str, SourceLoss]
    held_out: str
    """hash of the samples and the maximum length: losses on others are not comparable"""
    num_samples: int
    """samples that count"""
    num_cut: int
    """of these, samples of which only the beginning counts"""
    num_skipped: int
    """samples whose prompt leaves no room for an answer"""

    def as_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


def summarise(
    samples: Sequence[SampleLoss], held_out: str, *, num_cut: int = 0, num_skipped: int = 0
) -> HeldOutLoss:
    """Return the means by source and over sources, with their standard errors over samples.

    The samples of a source have answers of different lengths, so its mean is a ratio of sums
    and its variance that of a ratio estimator. A source of one sample shows no scatter: it is
    taken to scatter as the others do on average.

    Args:
        samples: what was measured, in any order.
        held_out: hash of what it was measured on.
        num_cut: samples of which only the beginning counts.
        num_skipped: samples left out.

    Raises:
        ValueError: there is no sample, or a loss is not finite.

    Source: Cochran, Sampling Techniques, section 6.3 (ratio estimator).
    """
    _require_finite(samples)
    of_source: dict[str, list[SampleLoss]] = {}
    for sample in samples:
        of_source.setdefault(sample.source, []).append(sample)
    variances = _variances(of_source)
    sources = {n: _source_loss(of_source[n], variances.get(n)) for n in sorted(of_source)}
    count = len(sources)
    return HeldOutLoss(
        loss=math.fsum(source.loss for source in sources.values()) / count,
        loss_spread=math.sqrt(math.fsum(variances.values())) / count if variances else None,
        bits_per_byte=math.fsum(source.bits_per_byte for source in sources.values()) / count,
        sources=sources,
        held_out=held_out,
        num_samples=len(samples),
        num_cut=num_cut,
        num_skipped=num_skipped,
    )


def _require_finite(samples: Sequence[SampleLoss]) -> None:
    if not samples:
        raise ValueError("held-out loss: no sample was measured; hold out 1 or more")
    wrong = [sample for sample in samples if not math.isfinite(sample.loss_sum)]
    if wrong:
        raise ValueError(
            f"held-out loss: {len(wrong)} of {len(samples)} samples have a loss that is not "
            f"finite (the first {wrong[0].loss_sum}), so the model has diverged. Train again "
            "with a lower learning rate"
        )


def _variances(of_source: Mapping[str, Sequence[SampleLoss]]) -> dict[str, float]:
    """Return the variance of each source's loss; nothing where no source has two samples."""
    found = {n: _ratio_variance(samples) for n, samples in of_source.items() if len(samples) > 1}
    if not found:
        return {}
    of_one_sample = math.fsum(v * len(of_source[n]) for n, v in found.items()) / len(found)
    return {name: found.get(name, of_one_sample) for name in of_source}


def _ratio_variance(samples: Sequence[SampleLoss]) -> float:
    num_tokens = sum(sample.num_tokens for sample in samples)
    ratio = math.fsum(sample.loss_sum for sample in samples) / num_tokens
    squares = math.fsum((s.loss_sum - ratio * s.num_tokens) ** 2 for s in samples)
    return len(samples) / (len(samples) - 1) * squares / num_tokens**2


def _source_loss(samples: Sequence[SampleLoss], variance: float | None) -> SourceLoss:
    total = math.fsum(sample.loss_sum for sample in samples)
    num_tokens = sum(sample.num_tokens for sample in samples)
    num_bytes = sum(sample.num_bytes for sample in samples)
    return SourceLoss(
        loss=total / num_tokens,
        loss_spread=None if variance is None else math.sqrt(variance),
        # Answers may be empty: then only the end of the turn is predicted.
        bits_per_byte=total / math.log(2) / max(num_bytes, 1),
        num_samples=len(samples),
        num_tokens=num_tokens,
        num_bytes=num_bytes,
    )
