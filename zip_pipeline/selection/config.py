"""What a selection is asked to do."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from zip_pipeline.compression.codecs import check_codec, codecs, selection_codecs
from zip_pipeline.errors import UserError
from zip_pipeline.files import fingerprint
from zip_pipeline.selection.strategies import Strategy, strategies

BUDGET_UNITS = ("samples", "tokens", "bytes")
_ROUNDING = 1e-9
_MAX_SEED = 2**63 - 1
MAX_SHARDS = 1000
# The shards of a selection together pick so many times the budget.
SHARD_OVERSAMPLING = 2


@dataclass(frozen=True, kw_only=True)
class SelectionConfig:
    """A strategy, one budget and the strategy's parameters.

    Raises:
        UserError: a field outside its range, or not exactly one budget.

    Source: ZIP, algorithm 1 and section 5.1 for k1, k2 and k3.
    """

    strategy: str = "zip"
    """``zip`` (the paper), ``long_range`` (sees the whole selected set) or ``random``."""
    budget_samples: int | None = None
    """Number of samples to pick at most."""
    budget_tokens: int | None = None
    """Tokens of the pool's tokenizer to pick at most."""
    budget_bytes: int | None = None
    """Bytes of serialised text to pick at most."""
    k1: int = 10_000
    """Candidate pool: how many samples of lowest known ratio are looked at in a round."""
    k2: int = 200
    """Shortlist: how many of them reach the fine stage."""
    k3: int = 100
    """Picks per round, at most k2."""
    codec: str | None = None
    """``deflate`` or ``zstd``; None: deflate for zip, zstd for long_range."""
    level: int | None = None
    """Compression level; None: 9 for deflate, 3 for zstd."""
    overhead_bytes: int = 24
    """long_range: constant cost of a compressed piece, left out of its marginal size."""
    quotas: Mapping[str, tuple[float | None, float | None]] = field(default_factory=dict)
    """Least and largest share of the budget by source, each 0 to 1 or None."""
    seed: int = 0
    """Seed of everything random."""
    num_shards: int = 1
    """Select in so many shards, then from what they picked; random pays no heed to it."""
    reference_compat: bool = False
    """zip: reproduce the published implementation, quirks included."""

    def __post_init__(self) -> None:
        _check_choice("strategy", self.strategy, strategies.names())
        self._check_budget()
        for name, low in (("k1", 1), ("k2", 1), ("k3", 1), ("overhead_bytes", 0), ("seed", 0)):
            value = getattr(self, name)
            if value < low:
                raise UserError(f"{name}: got {value}; allowed are whole numbers from {low}")
        if not 1 <= self.num_shards <= MAX_SHARDS:
            raise UserError(f"num_shards: got {self.num_shards}; allowed are 1 to {MAX_SHARDS}")
        if self.seed > _MAX_SEED:
            raise UserError(f"seed: got {self.seed}; allowed are 0 to {_MAX_SEED}")
        if not self.k3 <= self.k2 <= self.k1:
            raise UserError(
                f"k1, k2, k3: got {self.k1}, {self.k2}, {self.k3}; needed is k1 >= k2 >= k3"
            )
        _check_choice("codec", self.resolved_codec, selection_codecs())
        check_codec(self.resolved_codec, self.resolved_level)
        for source, shares in self.quotas.items():
            _check_quota(source, *shares)
        minimums = sum(least or 0 for least, _ in self.quotas.values())
        if minimums > 1 + _ROUNDING:
            raise UserError(
                f"quotas: the minimums add up to {minimums:.3g} of the budget; allowed is at most 1"
            )
        if self.reference_compat:
            self._check_reference()

    def _check_budget(self) -> None:
        given = {u: getattr(self, f"budget_{u}") for u in BUDGET_UNITS}
        given = {unit: value for unit, value in given.items() if value is not None}
        if len(given) != 1:
            names = ", ".join(f"budget_{unit}" for unit in given) or "none"
            raise UserError(
                f"budget: got {names}; give exactly one of "
                "budget_samples, budget_tokens, budget_bytes"
            )
        if self.budget < 0:
            raise UserError(f"budget_{self.unit}: got {self.budget}; allowed are 0 and above")

    def _check_reference(self) -> None:
        if not self._strategy.uses("reference_compat") or self.unit != "samples" or self.quotas:
            raise UserError(
                "reference_compat: the published implementation knows strategy zip with "
                "budget_samples and no quotas only; leave reference_compat off for the rest"
            )
        if self.num_shards > 1:
            raise UserError(
                f"reference_compat: got {self.num_shards} shards; the published implementation "
                "knows none, leave num_shards at 1"
            )
        if (self.resolved_codec, self.resolved_level) != ("deflate", 9):
            raise UserError(
                f"reference_compat: got codec {self.resolved_codec!r} at level "
                f"{self.resolved_level}; the published implementation knows deflate at 9 only"
            )

    @property
    def unit(self) -> str:
        """The unit of the budget: ``samples``, ``tokens`` or ``bytes``."""
        return next(u for u in BUDGET_UNITS if getattr(self, f"budget_{u}") is not None)

    @property
    def budget(self) -> int:
        """The budget, in its unit."""
        value = getattr(self, f"budget_{self.unit}")
        assert isinstance(value, int)
        return value

    @property
    def resolved_codec(self) -> str:
        """The codec, with the strategy's default filled in."""
        return self.codec or self._strategy.codec

    @property
    def resolved_level(self) -> int:
        """The level, with the codec's default filled in."""
        level = codecs[self.resolved_codec].selection_level if self.level is None else self.level
        assert level is not None
        return level

    @property
    def is_sharded(self) -> bool:
        """Whether the pool is split into shards; some strategies pay no heed to them."""
        return self.num_shards > 1 and self._strategy.uses("num_shards")

    @property
    def _strategy(self) -> Strategy:
        return strategies[self.strategy]

    def for_a_shard(self) -> "SelectionConfig":
        """Return the configuration of each shard: together they pick twice the budget, or it all.

        Source: GreeDi (Mirzasoleiman et al. 2013): greedy in every shard, then over their union.
        Deviation: each shard picks 2 / num_shards of the budget instead of the whole of it.
        """
        share = min(self.budget, -(-SHARD_OVERSAMPLING * self.budget // self.num_shards))
        budget: dict[str, Any] = {f"budget_{self.unit}": share}
        return replace(self, num_shards=1, **budget)

    def as_dict(self) -> dict[str, object]:
        """Return all fields, codec and level filled in, as JSON can hold them."""
        quotas = {source: list(shares) for source, shares in sorted(self.quotas.items())}
        filled = {"codec": self.resolved_codec, "level": self.resolved_level, "quotas": quotas}
        return asdict(self) | filled

    def fingerprint(self) -> str:
        """Return a hash of the configuration."""
        return fingerprint([json.dumps(self.as_dict(), sort_keys=True)])


def _check_choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise UserError(f"{name}: got {value!r}; allowed are {', '.join(allowed)}")


def _check_quota(source: str, least: float | None, largest: float | None) -> None:
    low, high = (0.0 if least is None else least), (1.0 if largest is None else largest)
    if not 0 <= low <= high <= 1:
        raise UserError(
            f"quota of source {source!r}: got minimum {least} and maximum {largest}; "
            "allowed are shares with 0 <= minimum <= maximum <= 1"
        )
