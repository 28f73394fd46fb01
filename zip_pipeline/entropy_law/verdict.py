"""Whether a new version of the data is likely to train a worse model than the earlier ones."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import polars as pl

from zip_pipeline.entropy_law.baseline import Row, baseline
from zip_pipeline.entropy_law.prediction import Change, Direction, VerdictRule, change
from zip_pipeline.entropy_law.versions_table import BLOCKING_VERDICT, SCHEMA

Kind: TypeAlias = Literal[
    "risk",
    "consistency_warning",
    "expected_gain",
    "redundancy_warning",
    "no_change",
    "law_not_applicable",
    "not_comparable",
    "first",
]
_KINDS: dict[tuple[Direction, Direction], tuple[Kind, str]] = {
    ("up", "up"): ("risk", "more redundant and harder to fit: expect a worse model"),
    ("up", "flat"): ("redundancy_warning", "more redundant, as easy to fit"),
    ("up", "down"): ("redundancy_warning", "more redundant, and easier to fit for that"),
    ("flat", "up"): ("consistency_warning", "as redundant, but less consistent"),
    ("flat", "flat"): ("no_change", "neither redundancy nor consistency changed"),
    ("flat", "down"): ("expected_gain", "as redundant and more consistent"),
    ("down", "up"): (
        "expected_gain",
        "less redundant; new matter costs loss, but so does noise: look at the picks",
    ),
    ("down", "flat"): ("expected_gain", "less redundant, as consistent"),
    ("down", "down"): ("expected_gain", "less redundant and more consistent"),
}
_BASES = {"mean": "the mean", "latest": "the latest, as they drift", "spreads": "the mean"}
DEFAULT_RULE = VerdictRule()


@dataclass(frozen=True)
class Verdict:
    """What the law says about a new version.

    ``numbers`` holds, for R and L where they were compared, the value, ``_reference``,
    ``_change`` and ``_bound``; Q where it is known; and ``num_compared``.
    """

    kind: Kind
    blocks: bool
    reason: str
    compared: list[int]
    numbers: dict[str, float]


def judge(
    new: Mapping[str, Any], earlier: pl.DataFrame, rule: VerdictRule = DEFAULT_RULE
) -> Verdict:
    """Return the law's verdict on a new version, with the numbers and the versions compared.

    The quality Z of the model falls as redundancy R and first-epoch loss L rise, while the
    quality Q of the samples is constant. Against the comparable earlier versions:

    - R up, L up: ``risk``, the only one that blocks
    - R up, L flat or down: ``redundancy_warning``
    - R flat, L up: ``consistency_warning``
    - R flat, L flat: ``no_change``
    - R flat, L down, or R down: ``expected_gain``

    Otherwise ``first`` (no earlier version), ``not_comparable`` (none of the same probe
    settings: a new series starts; or nothing to take a threshold from) or
    ``law_not_applicable`` (Q changed). Up and down are told from flat as
    :func:`zip_pipeline.entropy_law.prediction.change` says.

    How often it errs, simulated with normal R and L that err independently: of versions drawn
    like the earlier ones 0.3% are blocked, of those of a slow rise of both 3% (6% and 17% if R
    and L always err together); a jump of both by five standard deviations is blocked in 70% of
    cases with three earlier versions, in 90% with four and in 99% with ten.

    Args:
        new: the row of the new version: ``stage``, ``version``, ``series``, R, L, and where
            known their spreads, Q, ``Q_spread`` and ``Q_name``.
        earlier: the table of versions; rows that do not precede the new one are ignored.
        rule: the numbers of the rule.

    Raises:
        ValueError: the new row has no stage, version, R or L.

    Source: Entropy Law (arXiv 2407.06645), its use for incremental updates of the data.
    Deviation: the source names no threshold; it leaves R up at equal L, and L down at equal R,
        without a name.
    """
    row = _complete(new)
    base = baseline(row, earlier, rule)
    compared: list[int] = base.rows["version"].to_list()
    if base.obstacle is not None and base.obstacle != "law_not_applicable":
        return _without_comparison(row, base.obstacle, base.why)
    if not _has_threshold(row, base.rows, rule):
        why = (
            f"only {_versions(compared)} can be compared, and the spread of R or L is not known "
            f"for all; with fewer than {rule.min_versions} the threshold comes from the spreads."
        )
        return _without_comparison(row, "not_comparable", why)
    changes = {name: _change(name, row, base.rows, rule) for name in ("R", "L")}
    return _verdict(row, changes, compared, rule, base.why)


def _complete(new: Mapping[str, Any]) -> Row:
    missing = [name for name in ("stage", "version", "R", "L") if new.get(name) is None]
    if missing:
        raise ValueError(f"no verdict without {', '.join(missing)} of the new version; measure it")
    return dict.fromkeys(SCHEMA) | dict(new)


def _without_comparison(row: Row, kind: Kind, why: str) -> Verdict:
    numbers = {"R": float(row["R"]), "L": float(row["L"]), "num_compared": 0.0}
    reason = f"Version {row['version']} was not judged: {why}"
    return Verdict(kind, False, reason, [], numbers)


def _has_threshold(row: Row, rows: pl.DataFrame, rule: VerdictRule) -> bool:
    if rows.height >= rule.min_versions:
        return True
    spreads = [*rows["R_spread"], *rows["L_spread"], row["R_spread"], row["L_spread"]]
    return None not in spreads


def _change(name: str, row: Row, rows: pl.DataFrame, rule: VerdictRule) -> Change:
    spreads = rows[f"{name}_spread"].fill_null(0.0).to_list()
    return change(row[name], row[f"{name}_spread"] or 0.0, rows[name].to_list(), spreads, rule)


def _verdict(
    row: Row, changes: Mapping[str, Change], compared: list[int], rule: VerdictRule, why: str
) -> Verdict:
    kind, meaning = _KINDS[changes["R"].direction, changes["L"].direction]
    figures = "; ".join(_change_words(name, change) for name, change in changes.items())
    facts = f"{figures}. Compared with {_versions(compared)}; {_bound_words(changes, rule)}"
    if why:
        kind, meaning = "law_not_applicable", f"the law does not apply. {why} Regardless of Q"
    reason = f"Version {row['version']}: {meaning}: {facts}."
    numbers = {"num_compared": float(len(compared))}
    for name, of_name in changes.items():
        numbers |= {name: of_name.value, f"{name}_reference": of_name.reference}
        numbers |= {f"{name}_change": of_name.difference, f"{name}_bound": of_name.bound}
    if row["Q"] is not None:
        numbers["Q"] = float(row["Q"])
    return Verdict(kind, kind == BLOCKING_VERDICT, reason, compared, numbers)


def _change_words(name: str, change: Change) -> str:
    verb = {"up": "rose to", "down": "fell to", "flat": "stayed at"}[change.direction]
    return (
        f"{name} {verb} {change.value:.4g}, {change.difference:+.3g} against "
        f"{change.reference:.4g} ({_BASES[change.basis]}) where {change.bound:.3g} is usual"
    )


def _bound_words(changes: Mapping[str, Change], rule: VerdictRule) -> str:
    spreads = f"{rule.num_spreads:g} times the measuring error"
    if changes["R"].basis == "spreads":
        return f"usual is up to {spreads}, known from seeded re-draws"
    return f"usual is up to their one-sided {rule.level:.0%} prediction bound, at least {spreads}"


def _versions(numbers: list[int]) -> str:
    if len(numbers) == 1:
        return f"version {numbers[0]}"
    return f"versions {', '.join(map(str, numbers[:-1]))} and {numbers[-1]}"
