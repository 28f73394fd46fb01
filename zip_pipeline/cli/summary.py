"""A finished selection in tables for people."""

import shlex
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import polars as pl
from rich.console import Console
from rich.text import Text

from zip_pipeline.cli.console import (
    DATA_ROOT_VARIABLE,
    DEFAULT_DATA_ROOT,
    new_facts,
    new_table,
    print_next,
    styled,
    words_of_bytes,
    words_of_seconds,
)
from zip_pipeline.data_root import DataRoot
from zip_pipeline.entropy_law.fit import relations
from zip_pipeline.entropy_law.table import (
    BLOCKING_VERDICT,
    figures_folder,
    is_blocked,
    read_versions,
)
from zip_pipeline.pool.batches import whole_batches
from zip_pipeline.report.exports import words_of_unread
from zip_pipeline.report.fates import fate_label, num_by_fate, top_sources, words_of_rows
from zip_pipeline.samples import STAGES, Stage
from zip_pipeline.selection.config import TOKEN_UNITS
from zip_pipeline.selection.ledger import tokens_of
from zip_pipeline.selection.strategies import strategies
from zip_pipeline.terminal_text import counted
from zip_pipeline.workflow.selections import words_of_tokens
from zip_pipeline.workflow.sources import words_of_quarantine


def show_selection(
    console: Console,
    manifest: Mapping[str, Any],
    ledger: pl.DataFrame,
    quarantine: pl.DataFrame | None = None,
) -> None:
    """Print what a selection read, picked and measured, and where its picks come from.

    ``quarantine`` are the rejected rows, where they are at hand.
    """
    facts = new_facts()
    for name, words in (*_read(manifest, quarantine), *_selected(manifest)):
        facts.add_row(name, words)
    left = ledger.filter(~pl.col("fate").is_in(["picked", "duplicate", "held_out"]))
    if left.height:
        facts.add_row("Left", words_of_counts(num_by_fate(left)))
    facts.add_row("R of pool", _ratios(manifest["pool_compression_ratio"]))
    facts.add_row("R of subset", _ratios(manifest["compression_ratio"]))
    # Not of the first release.
    if seconds := manifest.get("seconds"):
        parts = ", ".join(f"{stage} {words_of_seconds(value)}" for stage, value in seconds.items())
        facts.add_row("Time", f"{words_of_seconds(sum(seconds.values()))} ({parts})")
    console.print(facts)
    table = new_table("top sources", "in pool", "picked", "share of pool", "share of subset")
    for row in top_sources(ledger).iter_rows(named=True):
        table.add_row(
            str(row["source"]),
            f"{row['num_pool']:,}",
            f"{row['num_picked']:,}",
            f"{row['pool_share']:.1%}",
            f"{row['subset_share']:.1%}",
        )
    console.print(table)


def _read(
    manifest: Mapping[str, Any], quarantine: pl.DataFrame | None
) -> Iterator[tuple[str, str]]:
    """Yield what was read, and what of it takes no part."""
    yield "Strategy", _strategy(manifest)
    for origin in manifest.get("origins", {}).values():
        yield "From", "{address}, {revision}".format_map(origin)
    yield "Rows read", words_of_rows(manifest)
    if quarantine is not None and quarantine.height:
        yield "Quarantined", words_of_quarantine(quarantine)
    if unread := manifest.get("unread_fields"):
        yield "Not read", words_of_unread(unread)
    if files := manifest.get("left_out_files"):
        yield "Left out", f"of test or validation splits: {', '.join(files)}"
    if (noise := manifest.get("noise")) and noise["num_marked"]:
        yield "Noise", words_of_noise(noise)
    for fate, found in manifest.get("marked", {}).get("fates", {}).items():
        yield fate.replace("_", " ").capitalize(), words_of_marks(found)


def _selected(manifest: Mapping[str, Any]) -> Iterator[tuple[str, str | Text]]:
    """Yield what was picked, and how the budget was shared out."""
    yield "Picked", _picked(manifest)
    if (cut := manifest.get("cut")) and cut["num_samples"]:
        words = f"{counted(cut['num_tokens'], 'token')} of {counted(cut['num_samples'], 'pick')}"
        yield "Cut", f"{words} are beyond the {cut['max_length']:,} that training reads"
    budget, unused = manifest["budget"], manifest["unused_budget"]
    unit = budget["unit"].replace("_", " ")
    covered = ": it covers all that could be picked, so everything is"
    of = f" of the {tokens_of(manifest)}" if budget["unit"] in TOKEN_UNITS else ""
    words = f"{words_of_budget(budget)}{of}, {unused:,} unused"
    yield "Budget", words + covered * bool(manifest.get("covers_pool"))
    if quotas := manifest.get("quotas"):
        yield "Quotas", words_of_quotas(quotas, unit)
    if mixture := manifest.get("mixture"):
        kind, noun = manifest["config"]["mixture"], manifest.get("mixture_of", "sources")
        yield "Mixture", words_of_mixture(kind, mixture, unit, noun)


def words_of_budget(budget: Mapping[str, Any]) -> str:
    """Return a budget as in ``25% of the pool = 20 samples``."""
    share = f"{budget['share']} of the pool = " if "share" in budget else ""
    return share + counted(budget["value"], budget["unit"].replace("_", " ").removesuffix("s"))


def words_of_counts(counts: Mapping[str, int]) -> str:
    """Return counted names, as in ``3 empty_answer, 1 bad_json``."""
    return ", ".join(f"{num:,} {fate_label(name)}" for name, num in counts.items())


def words_of_noise(noise: Mapping[str, Any]) -> str:
    """Return how many samples are marked as noise, and why."""
    words = "; ".join(f"{num:,} {reason}" for reason, num in noise["reasons"].items())
    num = counted(noise["num_marked"], "sample")
    return f"{num} ({noise['share']:.2%}){': ' * bool(words)}{words}"


def words_of_marks(found: Mapping[str, Any]) -> str:
    """Return how many samples a fate takes out, and of which sources most."""
    sources = list(found["sources"].items())[:_NUM_SOURCES]
    words = ", ".join(f"{name} {marked:,} of {of:,}" for name, (marked, of) in sources)
    more = ", …" if len(found["sources"]) > len(sources) else ""
    return f"{counted(found['num'], 'sample')}; of {words}{more}"


_NUM_SOURCES = 3
_NUM_GAPS = 3


def words_of_quotas(quotas: Mapping[str, Mapping[str, int]], unit: str) -> Text:
    """Return what each source used of what it may, and which minimum was not reached."""
    lines = []
    for source, quota in quotas.items():
        used, least = quota["used"], quota["minimum"]
        unused = "" if used else "nothing picked: is that its name?"
        warning = f"minimum {least:,} not reached" if used < least else unused
        words = f"{source} {used:,} of at most {quota['maximum']:,} {unit}"
        lines.append(styled(words, ", " if warning else "", (warning, "yellow")))
    return Text("\n").join(lines)


def words_of_mixture(
    kind: str, mixture: Mapping[str, Mapping[str, int]], unit: str, noun: str = "sources"
) -> str:
    """Return by what mixture a budget was shared out, and where the sources ended otherwise."""
    gaps = {source: figures["used"] - figures["allotted"] for source, figures in mixture.items()}
    far = sorted(gaps, key=lambda source: -abs(gaps[source]))[:_NUM_GAPS]
    told = ", ".join(f"{source} {gaps[source]:+,}" for source in far if gaps[source])
    apart = f"; farthest from their share, in {unit}: {told}" if told else ""
    return f"{kind}, {len(mixture):,} {noun.removesuffix('s' * (len(mixture) == 1))}{apart}"


def _strategy(manifest: Mapping[str, Any]) -> str:
    config = manifest["config"]
    strategy = config["strategy"]
    # What was selected by a plug-in that is not installed any more is described in full.
    if strategy in strategies and not strategies[strategy].uses("k1"):
        seed = f", seed {config['seed']}" if strategies[strategy].uses("seed") else ""
        target = f", target {config['target']}" if "target" in config else ""
        return f"{strategy}{seed}{target}"
    rounds = f"k1 {config['k1']:,}, k2 {config['k2']:,}, k3 {config['k3']:,}"
    compat = ", as the published code does" if config.get("reference_compat") else ""
    sharding = manifest.get("sharding")
    shards = f", in {sharding['num_shards']:,} shards" if sharding else ""
    codec = f"{config['codec']} level {config['level']}"
    return f"{config['strategy']}, {codec}, {rounds}{shards}{compat}"


def _picked(manifest: Mapping[str, Any]) -> Text:
    share = manifest["num_picked"] / max(manifest["num_samples"], 1)
    size = words_of_bytes(manifest["picked_bytes"])
    return styled(
        (counted(manifest["num_picked"], "sample"), "bold"),
        f" ({share:.1%}), {size}, {words_of_tokens(manifest)}",
    )


def _ratios(ratios: Mapping[str, float]) -> str:
    return ", ".join(f"{codec} {value:.2f}" for codec, value in ratios.items())


_NUM_VERSIONS = 10
_LEGEND = """\
R  redundancy: raw / compressed bytes of the subset, higher = more redundant
L  probe loss: mean loss of the first training steps, nats per token, higher = less consistent
Z  quality of the trained model, higher = better (a loss is negated); - where it is not trained
The law expects Z to fall as R and L rise. A version of which both rise is not trained.
"""


def show_law(console: Console, root: DataRoot) -> None:
    """Print R, L, Z and the verdict of the latest versions, and where the figures lie."""
    table = read_versions(root).with_columns(blocked=is_blocked())
    if table.is_empty():
        return
    console.rule(styled(("entropy law", "bold")), align="left")
    console.print(_LEGEND)
    for stage in STAGES:
        rows = table.filter(pl.col("stage") == stage)
        if not rows.is_empty():
            _show_versions(console, stage, rows.tail(_NUM_VERSIONS))
            for relation in relations(table.drop("blocked"), stage):
                console.print(f"  {relation.y} over {relation.x}: {relation.note}")
            console.print()
    figures = sorted(figures_folder(root).glob("*.png"))
    if figures:
        names = ", ".join(path.name for path in figures)
        console.print(f"Figures in {figures[0].parent}: {names}\n", soft_wrap=True)


def _show_versions(console: Console, stage: str, rows: pl.DataFrame) -> None:
    table = new_table(f"{stage} version", "strategy", "tokens", "R", "L", "Z", "verdict")
    for row in rows.iter_rows(named=True):
        table.add_row(
            str(row["version"]),
            row["strategy"],
            f"{row['num_tokens']:,}",
            *(_measure(row, name) for name in ("R", "L", "Z")),
            words_of_verdict(row),
        )
    console.print(table)
    console.print(f"{rows['reason'][-1]}\n", soft_wrap=True)
    for words in filter(None, (_words_of_z(stage, rows), _words_against_law(rows))):
        console.print(f"{words}\n", soft_wrap=True)
    if rows["blocked"][-1]:
        console.print(
            f"To train it nevertheless, give a reason under `override` in the launchpad of "
            f"{stage}/model. What came in: the diff below.\n",
            soft_wrap=True,
        )


def _words_of_z(stage: str, rows: pl.DataFrame) -> str:
    """Return how each Z was measured, where not all were measured alike; else nothing."""
    measured = rows.filter(pl.col("Z").is_not_null())
    ways = measured.group_by("Z_name", maintain_order=True).agg("version").rows()
    if len(ways) < 2:
        return ""
    told = "; ".join(f"{name}: version {', '.join(map(str, found))}" for name, found in ways)
    remedy = (
        " A preference model starts from the newest SFT model; to compare them, let all start from "
        "one, whose folder you name as sft_model in [training]."
    )
    return f"Z compares only within one way of measuring. {told}.{remedy * (stage == 'preference')}"


def _words_against_law(rows: pl.DataFrame) -> str:
    """Return which versions have a higher R and L than the one before and yet a better Z."""
    measured = rows.filter(pl.col("Z").is_not_null()).iter_rows(named=True)
    told = [
        f"Version {now['version']} goes against the law: its R and L are higher than those of "
        f"version {before['version']}, and yet its Z is better."
        for before, now in pairwise(measured)
        if all(before[name] == now[name] for name in ("series", "Z_name"))
        and all(before[name] < now[name] for name in ("R", "L", "Z"))
    ]
    remedy = " A new source can do that: look at Z by source, in `evaluation`."
    return " ".join(told) + remedy if told else ""


def _measure(row: dict[str, Any], name: str) -> str:
    value, spread = row[name], row[f"{name}_spread"]
    if value is None:
        return "-"
    return f"{value:.3f}" if spread is None else f"{value:.3f} ± {spread:.3f}"


def words_of_verdict(row: Mapping[str, Any]) -> Text:
    """Return the law's verdict on a version, and whether it keeps it from being trained.

    Args:
        row: of the table of versions.
    """
    words = str(row["verdict"]).replace("_", " ")
    if row["verdict"] == BLOCKING_VERDICT and not (row["override"] or "").strip():
        return styled((f"{words}: blocked", "bold red"))
    return styled(f"{words}, overridden" if row["override"] else words)


_NUM_BATCHES = 20
_COUNTS = ("num_rows_read", "num_samples", "num_quarantined", "num_duplicates")


def show_data_root(
    console: Console, root: DataRoot, versions_before: Mapping[Stage, int | None]
) -> None:
    """Print batches, quarantine and the latest version of each stage, and what to do next.

    ``versions_before`` are the latest versions before the run.
    """
    for stage in STAGES:
        console.rule(styled((stage, "bold")), align="left")
        _show_batches(console, root, stage)
        _show_version(console, root, stage, versions_before[stage])
    show_law(console, root)
    _show_next_steps(console, root)


def _show_batches(console: Console, root: DataRoot, stage: Stage) -> None:
    counts = {
        batch: {name: int(metadata[name]) for name in _COUNTS}
        for batch, metadata in whole_batches(root[stage]).items()
    }
    if not counts:
        console.print("No batch is ingested.\n")
        return
    table = new_table("batch", "rows read", "= samples", "+ quarantined", "+ duplicates inside")
    for batch in list(counts)[:_NUM_BATCHES]:
        table.add_row(batch, *(f"{counts[batch][name]:,}" for name in _COUNTS))
    if len(counts) > _NUM_BATCHES:
        table.add_row(f"… {counted(len(counts) - _NUM_BATCHES, 'more batch')}")
    totals = (sum(count[name] for count in counts.values()) for name in _COUNTS)
    table.add_section()
    table.add_row(counted(len(counts), "batch"), *(f"{total:,}" for total in totals), style="bold")
    console.print(table)
    tables = [root[stage].scan(root[stage].quarantine(batch)) for batch in counts]
    columns = ("reason", "source_file", "source_row")
    rows = pl.concat([table.select(columns).collect() for table in tables])
    if rows.height:
        command = f"zip-pipeline quarantine --stage {stage}{root_option(root)}"
        words = words_of_quarantine(rows)
        console.print(f"Quarantined: {words}; all: {command}\n", soft_wrap=True)


def _show_version(console: Console, root: DataRoot, stage: Stage, before: int | None) -> None:
    store = root[stage].versions
    number = store.latest()
    if number is None:
        console.print("No version was selected yet.\n")
        return
    news = "unchanged" if number == before else "new"
    console.print(styled((f"Version {number}", "bold"), f" ({news}), in {store.path(number)}"))
    show_selection(console, store.manifest(number), store.ledger(number).collect())


def root_option(root: DataRoot) -> str:
    """Return what names a data root at the end of a command, nothing for the default one."""
    is_default = root.path == DEFAULT_DATA_ROOT
    return "" if is_default else f" --data-root {shlex.quote(str(root.path))}"


def _ui_command(root: DataRoot) -> str:
    """Return the command of the UI: that of our Makefile where it is at hand."""
    is_default, path = root.path == DEFAULT_DATA_ROOT, shlex.quote(str(root.path))
    makefile = Path("Makefile")
    if makefile.exists() and "\nui:" in makefile.read_text(encoding="utf-8", errors="replace"):
        return "make ui" if is_default else f"make ui DATA={path}"
    variable = "" if is_default else f"{DATA_ROOT_VARIABLE}={path} "
    return f"{variable}dagster dev -m zip_pipeline.definitions"


def _show_next_steps(console: Console, root: DataRoot) -> None:
    option = root_option(root)
    steps = {
        _ui_command(root): "the graph, all versions and their figures in the browser",
        f"zip-pipeline versions{option}": "all versions, and what the law says of them",
    }
    for stage in STAGES:
        store = root[stage].versions
        numbers = store.numbers()
        if not numbers:
            continue
        ledger = store.ledger(numbers[-1])
        for sample_id in ledger.filter(pl.col("rank") == 1).head(1).collect()["sample_id"]:
            steps[f"zip-pipeline trace {sample_id}{option}"] = f"why this {stage} sample"
        if len(numbers) > 1:
            pair = f"{numbers[-2]} {numbers[-1]}"
            command = f"zip-pipeline diff {pair} --stage {stage}{option}"
            steps[command] = "what came in and what went out"
    print_next(console, steps)
