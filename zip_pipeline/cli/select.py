"""``zip-pipeline select``: files in, a subset with its ledger and manifest out."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from zip_pipeline.cli.console import (
    interruption_hint,
    output,
    print_note,
    stage_progress,
)
from zip_pipeline.cli.summary import show_selection
from zip_pipeline.compression.sets import worker_count
from zip_pipeline.errors import UserError
from zip_pipeline.selection.config import SelectionConfig
from zip_pipeline.selection.select import Cluster
from zip_pipeline.workflow.selections import OutputFiles, SelectJob, run_job


def parse_quota(text: str) -> tuple[str, tuple[float | None, float | None]]:
    """Return source, least and largest share of ``SOURCE=MAX`` or ``SOURCE=MIN:MAX``.

    Raises:
        UserError: any other form.
    """
    # Names of sources may hold "=" and ":", shares never do.
    source, _, shares = text.rpartition("=")
    least, colon, largest = shares.rpartition(":")
    try:
        limits = (_share(least), _share(largest))
    except ValueError:
        limits = (None, None)
    if not source or limits == (None, None) or (not colon and limits[1] is None):
        raise UserError(
            f"--quota: got {text!r}; allowed are SOURCE=MAX and SOURCE=MIN:MAX with shares of "
            "the budget as 0.2 or 20%, for example --quota gsm8k=20%"
        )
    return source, limits


def _share(text: str) -> float | None:
    if not text:
        return None
    return float(text.removesuffix("%")) / 100 if text.endswith("%") else float(text)


_BUDGET = "Budget (give exactly one)"
_ROUNDS = "Strategy"
_MEASURE = "Measuring"
_RUNNING = "Running"

Inputs = Annotated[
    list[Path],
    typer.Argument(
        metavar="INPUT",
        help="Files (JSONL, JSON, Parquet, CSV; .gz and .zst of each) or folders of such files.",
    ),
]
Out = Annotated[
    Path,
    typer.Option(
        "--output",
        "-o",
        metavar="OUT",
        help="Subset to write: .jsonl or .json (records as they came) or .parquet (table). "
        "STEM.ledger.parquet and STEM.manifest.json appear beside it.",
    ),
]
StageOption = Annotated[Literal["sft", "preference"], typer.Option(help="What the rows are.")]
Strategy = Annotated[
    Literal["zip", "long_range", "random"],
    typer.Option(
        help="zip: the paper's algorithm; long_range: sees the whole subset at once; random: a "
        "seeded baseline.",
        rich_help_panel=_ROUNDS,
    ),
]
BudgetSamples = Annotated[
    int | None,
    typer.Option(metavar="N", help="Most samples to pick.", rich_help_panel=_BUDGET),
]
BudgetTokens = Annotated[
    int | None,
    typer.Option(metavar="N", help="Most tokens to pick.", rich_help_panel=_BUDGET),
]
BudgetBytes = Annotated[
    int | None,
    typer.Option(metavar="N", help="Most bytes of text to pick.", rich_help_panel=_BUDGET),
]
K1 = Annotated[
    int,
    typer.Option(metavar="N", help="Candidates measured anew per round.", rich_help_panel=_ROUNDS),
]
K2 = Annotated[int, typer.Option(metavar="N", help="Shortlist per round.", rich_help_panel=_ROUNDS)]
K3 = Annotated[int, typer.Option(metavar="N", help="Picks per round.", rich_help_panel=_ROUNDS)]
Quotas = Annotated[
    list[str] | None,
    typer.Option(
        metavar="SOURCE=MAX",
        help="Largest share of the budget for a source, as 0.2 or 20%; SOURCE=MIN:MAX sets the "
        "least as well. Repeatable.",
        rich_help_panel=_ROUNDS,
        show_default=False,
    ),
]
Shards = Annotated[
    int,
    typer.Option(
        metavar="N",
        min=1,
        help="Select in N shards, then from what they picked: for pools beyond one machine.",
        rich_help_panel=_ROUNDS,
    ),
]
RayAddress = Annotated[
    str | None,
    typer.Option(
        "--ray",
        metavar="ADDRESS",
        help="Do the shards on a Ray cluster: local starts one here, HOST:PORT uses one that "
        "runs. The picks do not depend on it.",
        show_default="shards one after another",
        rich_help_panel=_RUNNING,
    ),
]
ShardFolder = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        help="Where shards lie meanwhile, under the same path on every node of the cluster.",
        show_default="beside OUT",
        rich_help_panel=_RUNNING,
    ),
]
Seed = Annotated[
    int, typer.Option(metavar="N", help="Seed of all that is random.", rich_help_panel=_ROUNDS)
]
Reference = Annotated[
    bool,
    typer.Option(
        "--reference-compat",
        help="Pick as the published code does: every row as it comes, no quarantine, no "
        "deduplication, budget overshot to a multiple of k3; whole shortlists are used up, so a "
        "small pool may end first.",
        rich_help_panel=_ROUNDS,
    ),
]
Codec = Annotated[
    Literal["deflate", "zstd"] | None,
    typer.Option(
        help="What measures redundancy.",
        show_default="deflate for zip, zstd for long_range",
        rich_help_panel=_MEASURE,
    ),
]
Level = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Compression level.",
        show_default="9 for deflate, 3 for zstd",
        rich_help_panel=_MEASURE,
    ),
]
Overhead = Annotated[
    int,
    typer.Option(
        metavar="N",
        help="long_range: constant bytes per compressed piece, left out of its size.",
        rich_help_panel=_MEASURE,
    ),
]
Tokenizer = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="Counts tokens: tiny (ships with the package), a tokenizer.json, or a hub id.",
        rich_help_panel=_MEASURE,
    ),
]
FormatOption = Annotated[
    str | None,
    typer.Option(
        "--format",
        metavar="NAME",
        help="Format of the rows, such as alpaca or sharegpt.",
        show_default="detected",
    ),
]
Workers = Annotated[
    int,
    typer.Option(
        metavar="N",
        min=0,
        help="Threads and processes, 0 for all cores, at most 4 per core; the picks do not depend "
        "on it.",
        rich_help_panel=_RUNNING,
    ),
]
Resume = Annotated[
    bool,
    typer.Option(
        "--resume",
        help="Go on where a killed run of the same command stopped.",
        rich_help_panel=_RUNNING,
    ),
]


def select(
    inputs: Inputs,
    out: Out,
    stage: StageOption = "sft",
    format_name: FormatOption = None,
    budget_samples: BudgetSamples = None,
    budget_tokens: BudgetTokens = None,
    budget_bytes: BudgetBytes = None,
    strategy: Strategy = "zip",
    k1: K1 = SelectionConfig.k1,
    k2: K2 = SelectionConfig.k2,
    k3: K3 = SelectionConfig.k3,
    quota: Quotas = None,
    shards: Shards = SelectionConfig.num_shards,
    seed: Seed = SelectionConfig.seed,
    reference_compat: Reference = False,
    codec: Codec = None,
    level: Level = None,
    overhead_bytes: Overhead = SelectionConfig.overhead_bytes,
    tokenizer: Tokenizer = "tiny",
    workers: Workers = 0,
    resume: Resume = False,
    ray: RayAddress = None,
    shard_folder: ShardFolder = None,
) -> None:
    """Select a subset of INPUT files within one budget and write it to OUT."""
    if shards == 1 and (ray or shard_folder):
        raise UserError(
            "--ray: got a cluster for a single shard; give --shards N, at least one per core of "
            "the cluster"
        )
    config = SelectionConfig(
        strategy=strategy,
        budget_samples=budget_samples,
        budget_tokens=budget_tokens,
        budget_bytes=budget_bytes,
        k1=k1,
        k2=k2,
        k3=k3,
        codec=codec,
        level=level,
        overhead_bytes=overhead_bytes,
        quotas=dict(parse_quota(text) for text in quota or ()),
        seed=seed,
        num_shards=shards,
        reference_compat=reference_compat,
    )
    files = OutputFiles(out)
    job = SelectJob(
        source=inputs,
        files=files,
        stage=stage,
        config=config,
        format_name=format_name,
        tokenizer=tokenizer,
        workers=worker_count(workers, "--workers", print_note),
        resume=resume,
        cluster=Cluster(ray, shard_folder),
    )
    with interruption_hint("Repeat the command with --resume to go on."), stage_progress() as bars:
        selection = run_job(job, bars)
    show_selection(output(), selection.manifest, selection.ledger)
    output().print(f"Written: {out}, {files.ledger.name}, {files.manifest.name}", soft_wrap=True)
