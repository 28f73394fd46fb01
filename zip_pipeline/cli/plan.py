"""``zip-pipeline train-plan``: what a training run will take, before anything is spent."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Literal

import typer

from zip_pipeline.cli.console import (
    DEFAULT_DATA_ROOT,
    DataRootOption,
    existing_root,
    new_facts,
    output,
    print_json,
    words_of_seconds,
)
from zip_pipeline.errors import UserError
from zip_pipeline.samples import Stage
from zip_pipeline.terminal_text import counted
from zip_pipeline.training.job import job_from
from zip_pipeline.training.plan import (
    DEVICE_FLOPS,
    DEVICE_MEMORY_GIB,
    USABLE_SHARE,
    UTILISATION,
    TrainingPlan,
    WayToFit,
    training_plan,
)
from zip_pipeline.training.presets import preset_names
from zip_pipeline.workflow.sources import read

_TERA = 1e12
_ASSUMED = "Assumed of the devices"


def train_plan(
    preset: Annotated[
        str,
        typer.Argument(
            metavar="PRESET", help=f"{', '.join(preset_names())}, or a TOML file of settings."
        ),
    ],
    subset: Annotated[
        str,
        typer.Argument(
            metavar="SUBSET",
            help="A subset.parquet, the folder of a version, the number of a version in the data "
            "root, or any file of samples, such as [bold]select[/] writes.",
        ),
    ],
    stage: Annotated[
        Literal["sft", "preference"], typer.Option(help="What would be trained.")
    ] = "sft",
    num_devices: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=1,
            help="GPUs that train together; with sharding = true in the preset each holds its "
            "share of weights and optimizer alone.",
        ),
    ] = 1,
    peak_tflops: Annotated[
        float,
        typer.Option(
            metavar="TFLOPS",
            help="Peak of one device in the precision of training, 10^12 FLOP per second; the "
            "default is an H100's or H200's in bfloat16.",
            rich_help_panel=_ASSUMED,
        ),
    ] = DEVICE_FLOPS / _TERA,
    utilisation: Annotated[
        float,
        typer.Option(
            metavar="SHARE",
            help="Share of the peak that training reaches.",
            rich_help_panel=_ASSUMED,
        ),
    ] = UTILISATION,
    device_memory: Annotated[
        float,
        typer.Option(
            metavar="GIB",
            help="Memory of one device; the default is an H100's.",
            rich_help_panel=_ASSUMED,
        ),
    ] = DEVICE_MEMORY_GIB,
    data_root: DataRootOption = DEFAULT_DATA_ROOT,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Say what training PRESET on SUBSET would take: steps, tokens, memory and hours.

    Rows are counted with the model's tokenizer where it is at hand, else with a small one; memory
    and hours are estimates. No model is loaded and no network is needed.
    """
    path = _subset_file(subset, stage, data_root)
    with _as_parquet(path, stage) as table:
        # The plan does not write to the output.
        places = {"subset": table, "output": table.parent}
        job = job_from({"stage": stage, "preset": preset, "num_devices": num_devices, **places})
        plan = training_plan(
            job,
            device_flops=peak_tflops * _TERA,
            utilisation=utilisation,
            device_memory_gib=device_memory,
        )
    if as_json:
        print_json(asdict(plan))
        return
    console = output()
    console.print(f"{stage}: {preset} on {path}\n", style="bold", soft_wrap=True)
    facts = new_facts()
    for name, words in _facts(plan, job.preset.max_length).items():
        facts.add_row(name, words)
    console.print(facts)


@contextmanager
def _as_parquet(path: Path, stage: Stage) -> Iterator[Path]:
    """Yield a table of the samples in a file: itself, or what is read of its records.

    Raises:
        UserError: a record of the file is no sample.
    """
    if path.suffix == ".parquet":
        yield path
        return
    pool = read(path, stage)
    for row in pool.quarantine.head(1).iter_rows(named=True):
        raise UserError(
            f"SUBSET: {path}, row {row['source_row']} is no sample of {stage}: {row['reason']} "
            f"({row['detail']}). Where select read it with options such as --map, let it write a "
            "table with -o NAME.parquet"
        )
    if pool.samples.is_empty():
        raise UserError(f"SUBSET: {path} holds no sample; give what select wrote")
    with TemporaryDirectory() as folder:
        table = Path(folder) / "subset.parquet"
        pool.samples.write_parquet(table)
        yield table


def _subset_file(subset: str, stage: Stage, data_root: Path) -> Path:
    if subset.isdecimal() and not Path(subset).exists():
        store = existing_root(data_root)[stage].versions
        store.subset(int(subset))
        return store.path(int(subset)) / "subset.parquet"
    path = Path(subset)
    file = path / "subset.parquet" if path.is_dir() else path
    if not file.is_file():
        raise UserError(
            f"SUBSET: {file} does not exist. Give the number of a version, the folder of a "
            "version, a subset.parquet or what select wrote"
        )
    return file


def _facts(plan: TrainingPlan, max_length: int) -> dict[str, str]:
    """Return the plan as names and words; the name of a note is empty."""
    rows, batch = plan.rows, plan.batch
    are_pairs = rows.num_rows + rows.rows_dropped == 2 * rows.num_samples
    samples = counted(rows.num_samples, "pair" if are_pairs else "sample")
    hidden = rows.not_shown()
    is_packed = plan.num_packs != rows.num_rows
    unfilled = f"an epoch has only {counted(plan.num_packs, 'pack' if is_packed else 'row')}"
    epochs, hours = plan.num_steps // plan.steps_per_epoch, plan.hours
    time = f"{hours:,.1f} hours" if hours >= 1 else words_of_seconds(hours * 3600)
    speed = f"{plan.utilisation:.0%} of {plan.device_flops / _TERA:,.0f} TFLOP/s"
    estimated = "; estimated, for the model's tokenizer is not at hand"
    facts = {
        "model": f"{plan.num_parameters:,} parameters",
        "rows": f"{rows.num_rows:,} {'' if plan.stage == 'sft' else 'rows '}of {samples}",
        "truncated": f"{counted(rows.rows_truncated, 'row')}, at {max_length:,} tokens",
        "dropped": f"{counted(rows.rows_dropped, 'row')}, where nothing is left to learn",
        "not shown": f"{hidden}: the template has no words for it" if hidden else "",
        "answers": str(plan.answers or ""),
        "packs": f"{plan.num_packs:,} of several rows each" if is_packed else "",
        "batch": f"{batch.effective:,} = {counted(batch.num_devices, 'device')} x "
        f"{batch.per_device} at once x {batch.accumulation} accumulated",
        "": f"not filled: {unfilled}" if plan.num_packs < batch.effective else "",
        "steps": f"{plan.num_steps:,} = {counted(epochs, 'epoch')} x {plan.steps_per_epoch:,}",
        "tokens": f"{plan.num_tokens:,}{estimated if plan.tokens_are_estimated else ''}",
        "padding": f"{plan.num_padding_tokens:,} tokens on top",
        "GPU memory": f"{plan.memory_gib:,.2f} GiB per device, estimated",
        "fits": _fitting(plan),
        "to fit": "\n".join(_way(way, plan) for way in plan.ways_to_fit),
        "time": f"{time}, estimated for GPUs that each reach {speed}; a CPU is far slower",
    }
    return {name: words for name, words in facts.items() if words}


def _fitting(plan: TrainingPlan) -> str:
    """Return on which cards the run fits, and whether on those that are meant."""
    cards = ", ".join(plan.fits_on) or "none of the usual cards"
    if plan.fits:
        return cards
    limit = f"{USABLE_SHARE:.0%} of {plan.device_memory_gib:,.0f} GiB"
    alone = "" if plan.ways_to_fit else ", nor with LoRA or sharding over 64 devices"
    return f"{cards}; not within {limit}{alone}"


def _way(way: WayToFit, plan: TrainingPlan) -> str:
    settings = ", ".join(f"{name} = {_toml(value)}" for name, value in way.overrides.items())
    is_more = way.num_devices != plan.batch.num_devices
    devices = f"num_devices = {way.num_devices}" if is_more else ""
    words = " and ".join(filter(None, [f"overrides = {{ {settings} }}" * bool(settings), devices]))
    return f"[training] {words}: {way.memory_gib:,.2f} GiB per device"


def _toml(value: object) -> str:
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{name} = {_toml(inner)}' for name, inner in value.items())} }}"
    return str(value).lower()
