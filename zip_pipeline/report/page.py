"""A version as one page that needs nothing beside it: verdict, changes, examples and the ledger."""

import base64
import gzip
import hashlib
import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import polars as pl

from zip_pipeline.entropy_law.table import is_blocked, version_row
from zip_pipeline.entropy_law.verdict import Change, baseline, change, is_named
from zip_pipeline.report.fates import (
    FATE_LABELS,
    NOT_IN_POOL,
    VersionDiff,
    explain_fate,
    pool_rows,
    words_of_rows,
)
from zip_pipeline.report.figures import before_after_figure, inline_svg, standing_figure
from zip_pipeline.samples import Stage
from zip_pipeline.selection.ledger import FATES, tokens_of
from zip_pipeline.selection.run import Fate
from zip_pipeline.selection.strategies.random import random_order

RANDOM_SEED = 0
MEASURES = ("R", "L", "Z", "Q")
Tone: TypeAlias = Literal["good", "plain", "warn", "bad"]


@dataclass(frozen=True)
class PastVersion:
    """A version, and the fates of its samples, each sample once.

    ``fates`` are ``sample_id``, ``fate`` and ``why``, null where a page has no room for it.
    """

    number: int
    created_at: str
    fates: pl.DataFrame


@dataclass(frozen=True)
class Report:
    """All that a page and a card tell of a version.

    Args:
        stage: of the version.
        number: of the version.
        manifest: its own.
        ledger: its own.
        law: the table of versions of the stage, up to this one; R of each is known.
        past: every version of the stage, ascending, this one among them.
        change: what changed since the version before; None for the first.
        texts: ``sample_id`` and ``text`` of the samples whose text may be shown.
        random_ratios: R by codec of a random pick of the same budget, empty where its samples have
            left the pool or there was nothing to choose.
        languages: ``sample_id`` and ``language``, None where the signal was not measured.
        rejected: what of the version's batches is no sample: ``batch``, ``reason``, ``rows``, and
            place and detail of the first of them as ``example``.
        costs: what took how long, in words.
    """

    stage: Stage
    number: int
    manifest: Mapping[str, Any]
    ledger: pl.DataFrame
    law: pl.DataFrame
    past: Sequence[PastVersion]
    change: VersionDiff | None
    texts: pl.DataFrame
    random_ratios: Mapping[str, float]
    languages: pl.DataFrame | None
    rejected: pl.DataFrame
    costs: Mapping[str, str]

    @property
    def row(self) -> dict[str, Any]:
        """The version's row of the table of versions."""
        row = version_row(self.law, self.stage, self.number)
        assert row is not None
        return row


@dataclass(frozen=True)
class Headline:
    """What a person should do with a version, and why."""

    tone: Tone
    words: str
    why: str


_HEADLINES: Mapping[str, tuple[Tone, str]] = {
    "risk": ("bad", "Do not train on version {}: the entropy law expects a worse model."),
    "redundancy_warning": ("warn", "Version {} may be trained, but look at it first."),
    "consistency_warning": ("warn", "Version {} may be trained, but look at it first."),
    "expected_gain": ("good", "Train on version {}: the entropy law expects a better model."),
    "no_change": ("plain", "Version {} may be trained; the entropy law expects no change."),
}
_NO_BASIS = "Version {} may be trained; the entropy law cannot tell what to expect."


def headline(report: Report) -> Headline:
    """Return the verdict on a version in words."""
    row, number = report.row, report.number
    if row["verdict"] is None:
        words = f"Version {number} is not judged yet."
        return Headline("plain", words, f"Materialise {report.stage}/loss_probe for a verdict.")
    tone, words = _HEADLINES.get(row["verdict"], ("plain", _NO_BASIS))
    why = str(row["reason"] or "")
    if row["verdict"] == "risk" and row["override"]:
        tone, words = "warn", "Version {} was let through against the advice of the entropy law."
        why += f" Let through because: {row['override']}."
    return Headline(tone, words.format(number), why)


def standing(report: Report) -> dict[str, Change]:
    """Return how R, L, Z and Q stand to those of the versions that they compare with.

    A measure that this version lacks, or no comparable one has, is left out. Z and Q compare with
    those that were measured in the same way.
    """
    row = report.row
    base = baseline(row, report.law).rows
    found = {}
    for name in MEASURES:
        rows = base.filter(pl.col(name).is_not_null())
        if name in ("Z", "Q"):
            rows = rows.filter(is_named(f"{name}_name", row[f"{name}_name"]))
        if row[name] is not None and rows.height:
            spreads = rows[f"{name}_spread"].fill_null(0.0).to_list()
            spread = row[f"{name}_spread"] or 0.0
            found[name] = change(row[name], spread, rows[name].to_list(), spreads)
    return found


def random_pick(ledger: pl.DataFrame, unit: str, used: int) -> pl.Series:
    """Return the ids of a random pick that uses as much of the budget.

    Samples that took part are taken in a seeded order until the next would use more.

    Args:
        ledger: of the version.
        unit: of its budget.
        used: what the version used of it.
    """
    took_part = [fate.name.lower() for fate in Fate if fate != Fate.NOISE]
    samples = ledger.filter(pl.col("fate").is_in(took_part)).unique("sample_id", keep="first")
    samples = samples[random_order(samples["sample_id"], RANDOM_SEED)]
    cost = pl.repeat(1, pl.len()) if unit == "samples" else pl.col(f"num_{unit}")
    return samples.filter(cost.cum_sum() <= used)["sample_id"]


@dataclass(frozen=True)
class Table:
    """A table for people: ``bars`` names the columns that are shares, drawn as bars as well."""

    rows: pl.DataFrame
    note: str = ""
    bars: Sequence[str] = ()

    def columns(self) -> Iterator[tuple[str, str]]:
        """Yield each column's name, and what it holds: ``number``, ``bar`` or nothing of both."""
        for name, dtype in self.rows.schema.items():
            yield name, "bar" if name in self.bars else "number" if dtype.is_numeric() else ""

    def cells(self) -> Iterator[list[tuple[str, str, float]]]:
        """Yield the cells of each row: words, what the column holds, and how long the bar is."""
        columns = list(self.columns())
        longest = {
            name: max(self.rows[name].drop_nulls(), default=0.0) or 1.0 for name in self.bars
        }
        for row in self.rows.iter_rows():
            yield [
                (_words(value, kind), kind, (value or 0) / longest[name] if kind == "bar" else 0.0)
                for value, (name, kind) in zip(row, columns, strict=True)
            ]


def _words(value: object, kind: str) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.1%}" if kind == "bar" else f"{value:,.4g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


_MOST_ROWS = 60


def _limited(rows: pl.DataFrame, what: str, bars: Sequence[str] = (), note: str = "") -> Table:
    num_more = rows.height - _MOST_ROWS
    more = f"{num_more:,} more {what} are not shown." if num_more > 0 else ""
    return Table(rows.head(_MOST_ROWS), f"{note} {more}".strip(), bars)


def measures_table(report: Report) -> Table:
    """Return R, L, Z and Q of the latest versions, this one first."""
    law = report.law.sort("version", descending=True)
    verdict = pl.when(is_blocked()).then(pl.lit("risk, blocked")).otherwise(pl.col("verdict"))
    names = ("version", "created_at", "strategy", "num_tokens", *MEASURES)
    shown = law.select(*names, verdict=verdict.str.replace_all("_", " ")).with_columns(
        pl.col("created_at").dt.strftime("%Y-%m-%d %H:%M")
    )
    return Table(shown.head(12).rename({"created_at": "recorded", "num_tokens": "tokens"}))


def usual_table(report: Report) -> Table:
    """Return each measure beside what is usual."""
    words = {"up": "higher than usual", "down": "lower than usual", "flat": "as usual"}
    rows = [
        {
            "measure": name,
            "this version": found.value,
            "usual from": found.reference - found.bound,
            "usual to": found.reference + found.bound,
            "": words[found.direction],
        }
        for name, found in standing(report).items()
    ]
    return Table(pl.DataFrame(rows))


def ratios_table(report: Report) -> Table:
    """Return R of subset, random pick and pool by codec."""
    manifest, random = report.manifest, report.random_ratios
    pool = manifest.get("pool_compression_ratio", {})
    rows = [
        {"codec": codec, "subset": ratio, "random pick": random.get(codec), "pool": pool.get(codec)}
        for codec, ratio in manifest["compression_ratio"].items()
    ]
    return Table(pl.DataFrame(rows, schema_overrides={"random pick": pl.Float64}))


def sources_table(ledger: pl.DataFrame) -> Table:
    """Return what each source has in pool and subset, and what it lost to each fate."""
    names = pl.col("source").fill_null("(no source)")
    of_fate = ledger.select(names, "fate").group_by("source", "fate").len()
    lost = of_fate.filter(pl.col("fate") != "picked").sort("fate")
    lost = lost.with_columns(_labels("fate"))
    wide = lost.pivot(on="fate", index="source", values="len", sort_columns=True)
    pool = (
        pool_rows(ledger)
        .group_by(names)
        .agg(pool=pl.len(), picked=(pl.col("fate") == "picked").sum())
    )
    shares = pool.with_columns(
        (pl.col(name) / pl.col(name).sum()).fill_nan(0.0).alias(f"share of {what}")
        for name, what in (("pool", "pool"), ("picked", "subset"))
    )
    rows = shares.join(wide, on="source", how="full", coalesce=True)
    rows = rows.sort("picked", "pool", "source", descending=[True, True, False], nulls_last=True)
    return _limited(rows, "sources", ("share of pool", "share of subset"))


def rejected_table(report: Report) -> Table:
    """Return what was read and is no sample, by drop and reason, with the command that shows it."""
    commands = [
        shlex.join(
            ["zip-pipeline", "quarantine", batch, "--stage", report.stage, "--reason", reason]
        )
        for batch, reason in report.rejected.select("batch", "reason").iter_rows()
    ]
    shown = report.rejected.select(
        "batch", pl.col("reason").str.replace_all("_", " "), "rows", "example"
    )
    command = pl.Series("shown by", commands, dtype=pl.String)
    return _limited(
        shown.rename({"batch": "drop", "example": "for example"}).with_columns(command),
        "reasons",
        note="" if shown.height else "Every row is a sample.",
    )


def languages_table(report: Report) -> Table:
    """Return the share of each language in pool and subset."""
    if report.languages is None:
        words = "not measured; a table [signals.language] in zip_pipeline.toml asks for it"
        return Table(pl.DataFrame(), f"The language is {words}.")
    told = pl.col("language").fill_null("too short to tell")
    known = pool_rows(report.ledger).join(report.languages, on="sample_id")
    rows = known.group_by(told).agg(pool=pl.len(), picked=(pl.col("fate") == "picked").sum())
    rows = rows.with_columns(
        (pl.col(name) / pl.col(name).sum()).fill_nan(0.0).alias(f"share of {what}")
        for name, what in (("pool", "pool"), ("picked", "subset"))
    ).sort("pool", "language", descending=[True, False])
    return _limited(rows, "languages", ("share of pool", "share of subset"))


def cut_table(report: Report) -> Table:
    """Return by source how many tokens of its picks a trainer cuts."""
    cut = report.manifest.get("cut")
    if cut is None:
        return Table(pl.DataFrame(), "What a trainer cuts is known of conversations alone.")
    beyond = pl.col("num_tokens") - cut["max_length"]
    rows = (
        report.ledger.filter(pl.col("fate") == "picked", beyond > 0)
        .group_by("source")
        .agg(pl.len().alias("samples cut"), beyond.sum().alias("tokens cut"))
        .sort("tokens cut", "source", descending=[True, False])
    )
    note = (
        f"Training reads the first {cut['max_length']:,} tokens of a conversation. "
        f"{cut['num_samples']:,} picks are longer, and lose {cut['num_tokens']:,} of "
        f"{report.manifest['picked_tokens']:,} tokens."
    )
    return _limited(rows, "sources", note=note)


def _labels(column: str) -> pl.Expr:
    """Return the expression of what the fates of a column are called."""
    return pl.col(column).replace(FATE_LABELS).str.replace_all("_", " ")


def change_tables(change: VersionDiff) -> dict[str, Table]:
    """Return what came in, what went out, and how the sources moved, by title."""
    words = {"in": "came in", "out": "went out", "stayed": "stayed"}
    samples = change.samples.with_columns(
        pl.col("change").replace(words),
        pl.when(pl.col("change") == "in")
        .then(pl.lit("before: ") + _labels("fate_before"))
        .when(pl.col("change") == "out")
        .then(pl.lit("now: ") + _labels("fate_after"))
        .otherwise(pl.lit("picked in both"))
        .alias("fate"),
    )
    counted = samples.group_by("change", "fate").agg(
        pl.len().alias("samples"),
        pl.col("num_bytes").sum().alias("bytes"),
        pl.format("{}: {}", pl.col("sample_id").str.head(12), "why").first().alias("for example"),
    )
    sources = change.sources.select(
        "source", **{n: f"num_{n}" for n in ("before", "after", "in", "out", "stayed")}
    )
    moved = sources.filter(pl.col("in") + pl.col("out") > 0)
    return {
        "Samples": Table(counted.sort("change", "samples", descending=[False, True])),
        "Sources that moved, most first": _limited(moved, "sources"),
        "Batches": _limited(change.batches, "batches"),
    }


_NUM_PICKS, _NUM_LEFT, _NUM_OF_MARK = 5, 6, 2
_WORDS_PER_PASSAGE = 6
_WHOLE_CHARACTERS = 20_000
_SEARCHED_CHARACTERS = 6_000


def example_ids(ledger: pl.DataFrame) -> dict[str, list[str]]:
    """Return the ids of samples worth reading, by title."""
    known = ledger.filter(pl.col("pi").is_finite()).unique("sample_id", keep="first")
    by_ratio = known.sort("pi", "sample_id", descending=[True, False])
    picked = by_ratio.filter(fate="picked")["sample_id"]
    marks = ("near_duplicate", "contaminated", "noise", "language")
    left = by_ratio.filter(~pl.col("fate").is_in(["picked", "personal_data", *marks]))
    one_each = left.unique("source", keep="first", maintain_order=True)["sample_id"]
    marked = [
        id_
        for fate in marks
        for id_ in ledger.filter(fate=fate).sort("sample_id").head(_NUM_OF_MARK)["sample_id"]
    ]
    num_novel = min(_NUM_PICKS, max(0, len(picked) - _NUM_PICKS))
    return {
        "The most redundant picks": picked.head(_NUM_PICKS).to_list(),
        "The most novel picks": picked.tail(num_novel).reverse().to_list(),
        "The most redundant samples left out, one of a source": one_each.head(_NUM_LEFT).to_list(),
        "Marked samples": marked,
    }


def repeated(texts: Mapping[str, str], others: pl.DataFrame) -> dict[str, str]:
    """Return for each text the sample that has most of its passages of six words, if any has one.

    Args:
        texts: by sample id; the first characters are searched for.
        others: ``sample_id`` and ``text`` of the samples that are searched.
    """
    of_passage = [
        (" ".join(words), id_)
        for id_, text in texts.items()
        for words in _passages(text[:_SEARCHED_CHARACTERS])
    ]
    passages = pl.DataFrame(of_passage, schema=["passage", "id"], orient="row").unique()
    if passages.is_empty() or others.is_empty():
        return {}
    patterns = passages["passage"].unique().implode()
    spaced = pl.col("text").str.replace_all(r"\s+", " ")
    found = others.select(
        "sample_id", passage=spaced.str.extract_many(patterns, overlapping=True)
    ).explode("passage")
    shared = passages.join(found.drop_nulls().unique(), on="passage")
    shared = shared.filter(pl.col("id") != pl.col("sample_id")).group_by("id", "sample_id").len()
    best = shared.sort("len", "sample_id", descending=[True, False]).unique("id", keep="first")
    return dict(best.select("id", "sample_id").iter_rows())


def _passages(text: str) -> Iterator[list[str]]:
    words = text.split()
    for start in range(0, len(words) - _WORDS_PER_PASSAGE + 1, _WORDS_PER_PASSAGE):
        yield words[start : start + _WORDS_PER_PASSAGE]


_TEXT_CHARACTERS = 24_000_000
_SHORTEST_PREVIEW, _LONGEST_PREVIEW = 40, 4_000
_MOST_TEXT_BYTES = 15_000_000


@dataclass(frozen=True)
class _Embedded:
    """What the page's program reads: the ledger in columns, texts and words, and history."""

    ledger: str
    texts: str
    history: str


def _embedded(report: Report) -> _Embedded:
    rows = _ledger_rows(report)
    examples, words = _examples(report, rows)
    whole = {id_ for of_title in examples for example in of_title["items"] for id_ in example}
    return _Embedded(
        _packed(_ledger_columns(report, rows) | {"examples": examples}),
        _packed_texts(rows, words, report.texts, whole),
        _packed(_history(report, rows)),
    )


def _ledger_rows(report: Report) -> pl.DataFrame:
    """Return the ledger, and what was picked before and has left the pool, with its change."""
    ledger, changed = report.ledger, report.change
    if changed is None:
        return ledger.with_columns(change=pl.lit(""))
    names = ("sample_id", "batch", "source", "source_file", "source_row", "num_bytes")
    gone = changed.samples.filter(fate_after=NOT_IN_POOL).select(*names, fate="fate_after")
    both = pl.concat([ledger, gone], how="diagonal_relaxed")
    told = changed.samples.select("sample_id", "change")
    return both.join(told, on="sample_id", how="left", maintain_order="left").with_columns(
        # A copy did not move: the sample that stands for it did.
        change=pl.when(pl.col("fate") == "duplicate").then(None).otherwise("change").fill_null("")
    )


def _examples(report: Report, rows: pl.DataFrame) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the examples, each an id and that of the sample beside it, and each row's reason."""
    found = example_ids(report.ledger)
    texts = dict(report.texts.iter_rows())
    searched = {id_: texts[id_] for ids in found.values() for id_ in ids if id_ in texts}
    picked = report.ledger.filter(fate="picked").select("sample_id")
    beside = repeated(searched, report.texts.join(picked, on="sample_id"))
    if "other" in report.ledger.columns:
        named = report.ledger.filter(pl.col("other").is_not_null())
        beside |= dict(named.select("sample_id", "other").iter_rows())
    examples = [
        {"title": title, "items": [[id_, beside[id_]] if id_ in beside else [id_] for id_ in ids]}
        for title, ids in found.items()
        if ids
    ]
    return examples, [explain_fate(row, report.manifest) for row in rows.iter_rows(named=True)]


_CODED = ("fate", "source", "batch", "source_file", "change")
_NUMBERS = (
    "source_row", "num_bytes", "num_tokens", "rank", "round", "pi", "initial_pi", "score", "quality"
)  # fmt: skip


def _ledger_columns(report: Report, rows: pl.DataFrame) -> dict[str, Any]:
    known = [name for name in _NUMBERS if name in rows.columns]
    return {
        "version": report.number,
        "ids": rows["sample_id"].to_list(),
        "coded": {name: _coded(rows[name]) for name in _CODED},
        "labels": FATE_LABELS,
        "numbers": {name: _numbers(rows[name]) for name in known},
    }


def _coded(column: pl.Series) -> dict[str, Any]:
    names = column.fill_null("").unique().sort()
    codes = column.fill_null("").replace_strict(names, pl.int_range(len(names), eager=True))
    return {"names": names.to_list(), "codes": codes.to_list()}


def _numbers(column: pl.Series) -> list[int | float | None]:
    if column.dtype.is_integer():
        return column.to_list()
    # JSON has no infinity.
    finite = column.cast(pl.Float64).round(4)
    return pl.select(pl.when(finite.is_finite()).then(finite)).to_series().to_list()


def _packed_texts(
    rows: pl.DataFrame, words: Sequence[str], texts: pl.DataFrame, whole: set[str]
) -> str:
    """Return texts and reasons of all rows; the begin of each text, as much as the page holds."""
    ids = rows.select("sample_id").join(
        texts, on="sample_id", how="left", maintain_order="left", validate="m:1"
    )
    # A copy's text stands once, with the sample that took part.
    is_copy = pl.when(rows["fate"] == "duplicate").then(None).otherwise("text")
    text = ids.select(is_copy)[:, 0]
    per_text = _TEXT_CHARACTERS // max(1, len(text) - text.null_count())
    size = max(_SHORTEST_PREVIEW, min(_LONGEST_PREVIEW, per_text))
    evidence: dict[str, Any] = {
        name: rows[name].to_list() for name in ("evidence", "other") if name in rows.columns
    }
    told = evidence | {"characters": text.str.len_chars().to_list(), "why": words}
    while True:
        limit = pl.when(ids["sample_id"].is_in(list(whole))).then(_WHOLE_CHARACTERS).otherwise(size)
        shown = pl.select(text.str.slice(0, limit)).to_series().to_list()
        packed = _packed(told | {"texts": shown})
        if len(packed) <= _MOST_TEXT_BYTES or size <= _SHORTEST_PREVIEW:
            return packed
        size = max(_SHORTEST_PREVIEW, size // 2)


def _history(report: Report, rows: pl.DataFrame) -> dict[str, Any]:
    """Return the fate of each row's sample in each version, a letter each."""
    names = [*FATES, NOT_IN_POOL]
    kind = pl.Enum(names)
    ids = rows.select("sample_id")
    codes, whys = [], []
    for past in report.past:
        told = ids.join(past.fates, on="sample_id", how="left", maintain_order="left")
        whys.append(_coded(told["why"]) if past.fates["why"].count() else None)
        known = told["fate"].fill_null(NOT_IN_POOL).cast(kind, strict=False).to_physical()
        # A fate of a later release has the letter after those that are known.
        letters = known.cast(pl.UInt8).fill_null(len(names)) + ord("a")
        codes.append(letters.to_numpy().tobytes().decode("ascii"))
    versions = [[past.number, past.created_at] for past in report.past]
    return {"versions": versions, "names": names, "codes": codes, "whys": whys}


def _packed(value: object) -> str:
    """Return JSON, compressed and in letters that no browser reads as markup."""
    encoded = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    return base64.b64encode(gzip.compress(encoded, compresslevel=4, mtime=0)).decode("ascii")


_FOLDER = Path(__file__).parent


def render_page(report: Report) -> str:
    """Return the page: HTML with its style, program, figures and data, which loads nothing else.

    Words of the data are escaped, or set as text by the program; only that program may run.
    """
    import jinja2

    program = (_FOLDER / "page.js").read_text(encoding="utf-8")
    digest = hashlib.sha256(program.encode("utf-8")).digest()
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    usual = {name: (found.reference, found.bound) for name, found in standing(report).items()}
    return environment.get_template("page.html.jinja").render(
        report=report,
        headline=headline(report),
        policy=f"script-src 'sha256-{base64.b64encode(digest).decode()}'",
        program=program,
        seed=RANDOM_SEED,
        data=_embedded(report),
        facts=_facts(report),
        standing_figure=inline_svg(standing_figure(report.law.tail(30), usual), "standing"),
        usual=usual_table(report),
        measures=measures_table(report),
        ratios=ratios_table(report),
        changes=change_tables(report.change) if report.change else {},
        sources=sources_table(report.ledger),
        before_after=inline_svg(before_after_figure(report.ledger), "before_after"),
        languages=languages_table(report),
        cut=cut_table(report),
        rejected=rejected_table(report),
        settings=_settings(report.manifest),
    )


def _facts(report: Report) -> dict[str, str]:
    manifest = report.manifest
    budget = manifest["budget"]
    unit = budget["unit"].replace("_", " ")
    return {
        "rows read": words_of_rows(manifest),
        "picked": f"{manifest['num_picked']:,} of {manifest['num_samples']:,} samples",
        "tokens": f"{manifest['picked_tokens']:,} of the {tokens_of(manifest)} "
        f"({manifest['tokenizer']})",
        "budget": f"{budget['value']:,} {unit}, {manifest['unused_budget']:,} unused",
        "strategy": str(manifest["strategy"]),
        "selected": str(manifest["created_at"]),
    }


def _settings(manifest: Mapping[str, Any]) -> dict[str, str]:
    """Return what has to be the same for the same picks."""
    config = {name: value for name, value in manifest["config"].items() if value is not None}
    return {
        **{name: json.dumps(value, ensure_ascii=False) for name, value in config.items()},
        "tokenizer_identity": str(manifest.get("tokenizer_identity", "not recorded")),
        **{f"version of {name}": str(v) for name, v in manifest.get("versions", {}).items()},
        "pool_fingerprint": str(manifest.get("pool_fingerprint", "not recorded")),
        "held_out_hash": str((manifest.get("held_out") or {}).get("hash", "nothing is held out")),
        "subset_fingerprint": str(manifest.get("subset_fingerprint", "not recorded")),
    }
