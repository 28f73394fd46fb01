"""``zip-pipeline select`` and ``zip-pipeline ratio``: files in, a subset or R out."""

import inspect
import re
import shlex
import tomllib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any, Literal, cast, get_origin

import typer
from pydantic.fields import FieldInfo

from zip_pipeline.cli.console import (
    interruption_hint,
    new_table,
    options_as_typed,
    output,
    print_next,
    print_note,
    stage_progress,
)
from zip_pipeline.cli.export import ABOUT_FORMATS, FormatName, show_export
from zip_pipeline.cli.summary import show_selection
from zip_pipeline.compression.codecs import codecs, compressed_bytes
from zip_pipeline.compression.sets import worker_count
from zip_pipeline.errors import UserError
from zip_pipeline.ingest.options import ReadOptions
from zip_pipeline.ingest.readers import read_rows
from zip_pipeline.ingest.rows import RawRow, RejectionError
from zip_pipeline.ingest.streams import read_chunks
from zip_pipeline.report.exports import format_named
from zip_pipeline.samples import Stage
from zip_pipeline.selection.config import BUDGETS, SelectionConfig, as_typed_budget
from zip_pipeline.selection.select import Cluster
from zip_pipeline.workflow.exports import check_folder, is_export
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


def parse_weight(text: str) -> tuple[str, float]:
    """Return source and weight of ``SOURCE=WEIGHT``.

    Raises:
        UserError: any other form.
    """
    source, _, weight = text.rpartition("=")
    with suppress(ValueError):
        if source:
            return source, float(weight)
    raise UserError(
        f"--mixture-weight: got {text!r}; allowed is SOURCE=WEIGHT, for example maths=2"
    )


def parse_signal(text: str) -> tuple[str, str, Any]:
    """Return the three of ``SIGNAL.SETTING=VALUE``; the value as in TOML, or else a text.

    A signal alone has no setting, and is switched on by that.

    Raises:
        UserError: any other form.
    """
    path, _, value = text.partition("=")
    signal, _, setting = path.partition(".")
    if text == signal and text:
        return signal, "", None
    if not (signal and setting and value):
        raise UserError(
            f"--signal: got {text!r}; allowed is SIGNAL.SETTING=VALUE, for example "
            "loss.model=smollm2-135m, or a SIGNAL alone, such as near_duplicates"
        )
    try:
        return signal, setting, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return signal, setting, value


def _share(text: str) -> float | None:
    if not text:
        return None
    return float(text.removesuffix("%")) / 100 if text.endswith("%") else float(text)


_RUNNING = "Running"

Inputs = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="INPUT",
        help="Files (JSONL, JSON, Parquet, CSV; .gz and .zst of each) or folders of such files.",
        show_default=False,
    ),
]
From = Annotated[
    list[str] | None,
    typer.Option(
        "--from",
        metavar="ADDRESS",
        help="Input that lies elsewhere: hf://datasets/ORG/NAME@main:train, or a file or folder "
        "of s3:// or gs://, or a file of https://. Repeatable.",
        rich_help_panel="Reading",
        show_default=False,
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
OutputFormat = Annotated[
    FormatName | None,
    typer.Option(
        "--output-format",
        help="Write the subset as a trainer takes it as well, into the folder STEM.FORMAT beside "
        f"OUT: {ABOUT_FORMATS}.",
        show_default=False,
    ),
]
StageOption = Annotated[Stage, typer.Option(help="What the rows are.")]
Quotas = Annotated[
    list[str] | None,
    typer.Option(
        "--quota",
        metavar="SOURCE=MAX",
        help="Largest share of the budget for a source, as 0.2 or 20%; SOURCE=MIN:MAX sets the "
        "least as well. Repeatable.",
        rich_help_panel="Strategy",
        show_default=False,
    ),
]
Weights = Annotated[
    list[str] | None,
    typer.Option(
        "--mixture-weight",
        metavar="SOURCE=WEIGHT",
        help="What the share of a source in the mixture is multiplied by, as maths=2. Repeatable.",
        rich_help_panel="Strategy",
        show_default=False,
    ),
]
SignalOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--signal",
        metavar="SIGNAL[.SETTING=VALUE]",
        help="A setting of a signal that the strategy asks for, as loss.model=smollm2-135m; or a "
        "signal that marks samples, as near_duplicates. Repeatable.",
        rich_help_panel="Strategy",
        show_default=False,
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
Tokenizer = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="Counts the tokens of plain texts: tiny (ships with the package), a tokenizer.json, "
        "or a hub id.",
        rich_help_panel="Measuring",
    ),
]
PresetOption = Annotated[
    str,
    typer.Option(
        "--preset",
        metavar="NAME",
        help="Count tokens as the model of this preset reads them instead, by its tokenizer and "
        "chat template: tiny, mistral-7b, llama-3-8b, or a TOML file.",
        show_default=False,
        rich_help_panel="Measuring",
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
Force = Annotated[
    bool,
    typer.Option(
        "--force",
        help="Replace OUT, and what stands beside it, where it is there already.",
        rich_help_panel=_RUNNING,
    ),
]


_PAIRS = {"map": "--map", "roles": "--role"}
_EXAMPLES = {"--map": "--map user=question", "--role": "--role agent=assistant"}


def _flag(name: str) -> str:
    """Return how a field of the configuration is called on the command line."""
    names = {"num_shards": "--shards", "quotas": "--quota", "mixture_weights": "--mixture-weight"}
    names |= {"signals": "--signal"}
    return names.get(name, "--" + name.replace("_", "-"))


def _option(name: str, field: FieldInfo) -> inspect.Parameter:
    """Return the option that a field of the configuration makes."""
    is_choice = name in SelectionConfig.choices
    names = tuple(SelectionConfig.choices[name]()) if is_choice else ()
    kind: Any = Literal[names] if is_choice else field.annotation
    if name in BUDGETS:
        kind = str | None
    # Of numbers without an upper limit everybody knows what they can be.
    limits = "" if is_choice else SelectionConfig.allowed(name)
    shown = cast("dict[str, str]", field.json_schema_extra)
    flag = _flag(name)
    is_switch = kind in (bool, bool | None)
    option = typer.Option(
        # What has no default of its own can be turned on and off.
        f"{flag}/--no-{flag.removeprefix('--')}" if kind == bool | None else flag,
        metavar=None if is_choice or is_switch else shown.get("metavar", "N"),
        help=SelectionConfig.about(name) + (f" Allowed: {limits}." if " to " in limits else ""),
        rich_help_panel=shown["group"],
        show_default=field.default if name == "strategy" else True,
    )
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None if name == "strategy" else field.default,
        annotation=Annotated[kind, option],
    )


def reading_parameters() -> list[inspect.Parameter]:
    """Return an option for each field of :class:`.ReadOptions`."""
    return [_reading_option(*item) for item in ReadOptions.model_fields.items()]


def _reading_option(name: str, field: FieldInfo) -> inspect.Parameter:
    is_pairs, is_choice = name in _PAIRS, get_origin(field.annotation) is Literal
    kind: Any = list[str] | None if is_pairs else field.annotation
    option = typer.Option(
        _PAIRS.get(name, f"--{name}"),
        metavar="NAME=VALUE" if is_pairs else None if is_choice else name.upper(),
        help=f"{field.description}{' Repeatable.' if is_pairs else ''}",
        rich_help_panel="Reading",
        show_default=is_choice,
    )
    default = None if is_pairs else field.default
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, option]
    )


def reading_options(options: dict[str, Any]) -> ReadOptions:
    """Take the fields of :class:`.ReadOptions` out of the options of a command.

    Raises:
        UserError: one of them is wrong, named as it is typed.
    """
    given = {name: options.pop(name) for name in ReadOptions.model_fields}
    for name, flag in _PAIRS.items():
        given[name] = dict(_pair(text, flag) for text in given[name] or ())
    try:
        return ReadOptions(**{name: value for name, value in given.items() if value is not None})
    except UserError as error:
        name, _, words = str(error).partition(":")
        raise UserError(f"{_PAIRS.get(name, f'--{name}')}:{words}") from None


def _pair(text: str, flag: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise UserError(f"{flag}: got {text!r}; write it as NAME=VALUE, as in {_EXAMPLES[flag]}")
    return name, value


def with_reading_options(command: Callable[..., None]) -> Callable[..., None]:
    """Put the options of reading in the place of ``**options``."""
    signature = inspect.signature(command)
    own = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    parameters = [*own, *reading_parameters()]
    command.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return command


def _with_options_of_config(command: Callable[..., None]) -> Callable[..., None]:
    """Put an option for each field of the configuration in the place of ``**options``."""
    signature = inspect.signature(command)
    own = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    of_tables = ("quotas", "mixture_weights", "signals")
    fields = SelectionConfig.model_fields.items()
    made = [_option(name, field) for name, field in fields if name not in of_tables]
    made += reading_parameters()
    # What one must give comes first.
    made.sort(key=lambda option: not option.name.startswith("budget_"))
    # The sort keeps the order of each kind, and positional parameters come before keywords.
    parameters = sorted([*made, *own], key=lambda parameter: parameter.kind)
    command.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return command


@contextmanager
def _names_as_typed() -> Iterator[None]:
    """Let errors name the fields of the configuration as the options are called."""
    names = "|".join(SelectionConfig.model_fields)
    try:
        yield
    except UserError as error:
        # Not what stands in quotes: it was typed.
        words = re.sub(rf"(?<!['\w-])({names})(?!['\w])", lambda m: _flag(m[0]), str(error))
        raise UserError(words) from None


_FLAGS = {"tokenizer": "--tokenizer", "preset": "--preset", "Ray cluster": "--ray"}


def _by_signal(given: Iterable[str]) -> dict[str, dict[str, Any]]:
    settings: dict[str, dict[str, Any]] = {}
    for signal, name, value in map(parse_signal, given):
        settings.setdefault(signal, {}).update({name: value} if name else {})
    return settings


@_with_options_of_config
def select(
    out: Out,
    inputs: Inputs = None,
    stage: StageOption = "sft",
    *,
    output_format: OutputFormat = None,
    addresses: From = None,
    quotas: Quotas = None,
    mixture_weights: Weights = None,
    signals: SignalOptions = None,
    tokenizer: Tokenizer = "tiny",
    preset: PresetOption = "",
    workers: Workers = 0,
    resume: Resume = False,
    force: Force = False,
    ray: RayAddress = None,
    shard_folder: ShardFolder = None,
    **options: Any,  # noqa: ANN401
) -> None:
    """Select a subset of INPUT files within one budget and write it to OUT."""
    if options["num_shards"] == 1 and (ray or shard_folder):
        raise UserError(
            f"{'--ray' if ray else '--shard-folder'}: is for shards, and there is one; give "
            "--shards N, with --ray at least one per core of the cluster"
        )
    source = [*(inputs or ()), *(addresses or ())]
    if not source:
        raise UserError("nothing to select from; name files or folders, or --from an address")
    reading = reading_options(options)
    # What is not given is left to the configuration, as the paper's mode has its strategy.
    given: dict[str, Any] = {
        name: as_typed_budget(value) if name in BUDGETS else value
        for name, value in options.items()
        if value is not None
    }
    with _names_as_typed():
        config = SelectionConfig(
            **given,
            quotas=dict(map(parse_quota, quotas or ())),
            mixture_weights=dict(map(parse_weight, mixture_weights or ())),
            signals=_by_signal(signals or ()),
        )
    files = OutputFiles(out)
    files.refuse_inputs([Path(name) for name in inputs or ()])
    if out.exists() and not force:
        raise UserError(
            f"{out}: exists; give --force to replace it and what stands beside it, or another "
            "--output"
        )
    can_resume = files.can_resume()
    if resume and not can_resume:
        print_note(
            f"Nothing to resume: no run of {out} was stopped. The selection starts from the "
            "beginning."
        )
    folder = _export_folder(out, output_format, config, force=force) if output_format else None
    job = SelectJob(
        source=source,
        files=files,
        stage=stage,
        config=config,
        reading=reading,
        tokenizer=tokenizer,
        preset=preset,
        workers=worker_count(workers, "--workers", print_note),
        resume=resume,
        cluster=Cluster(ray, shard_folder),
    )
    hint = interruption_hint("Repeat the command with --resume to go on.")
    with options_as_typed(_FLAGS), _names_as_typed(), hint, stage_progress() as bars:
        selection = run_job(job, bars)
    if resume and can_resume and not bars.has_resumed:
        print_note(
            "Not resumed: the inputs are not those of the run that was stopped. The selection "
            "started from the beginning."
        )
    show_selection(output(), selection.manifest, selection.ledger, selection.quarantine)
    written = [path.name for path in files.written() if path != out]
    output().print(f"Written: {out}, {', '.join(written)}\n", soft_wrap=True)
    if output_format and folder:
        show_export(output(), selection.export(output_format, folder, force=True))
    for first in selection.subset["sample_id"].head(1):
        trace = shlex.join(["zip-pipeline", "trace", first, "--select-ledger", str(files.ledger)])
        print_next(output(), {trace: "why this sample was picked first"})


def _export_folder(out: Path, format: str, config: SelectionConfig, *, force: bool) -> Path:
    """Return the folder of ``--output-format``, looked at before anything is selected.

    An earlier export there is replaced where an earlier OUT is, by --force alone.
    """
    format_named(format)
    if config.reference_compat:
        raise UserError("--output-format: is for samples; --reference-compat takes any rows")
    folder = out.with_name(f"{out.stem}.{format}")
    check_folder(folder, force=force and is_export(folder))
    return folder


Files = Annotated[list[Path], typer.Argument(metavar="FILE", help="Files to measure.")]
Codec = Annotated[
    str,
    typer.Option(metavar="NAME", help=f"What compresses the bytes: {', '.join(codecs.names())}."),
]
Level = Annotated[
    int | None, typer.Option(metavar="N", help="Compression level.", show_default="the codec's own")
]
TextField = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Measure the text of this field over all rows (joined by line feeds), instead of "
        "the bytes of the file; a.b reaches inside, and through lists, as messages.content.",
        show_default=False,
    ),
]


def ratio(
    files: Files,
    codec: Codec = codecs.default,
    level: Level = None,
    text_field: TextField = None,
) -> None:
    """Print the compression ratio of FILES: raw bytes / compressed bytes.

    Higher means more redundant. What lies in compressed files is measured decompressed.
    With several files a last line measures them joined.
    """
    pieces = [_content(path, text_field) for path in files]
    table = new_table("file", "raw bytes", "compressed bytes", f"R {codec}")
    with options_as_typed({"codec": "--codec", "level": "--level"}):
        for path, content in zip(files, pieces, strict=True):
            table.add_row(str(path), *_measures(content, codec, level))
        if len(files) > 1:
            table.add_row("all together", *_measures(b"".join(pieces), codec, level), style="bold")
    output().print(table)


def _measures(content: bytes, codec: str, level: int | None) -> tuple[str, str, str]:
    num_compressed = compressed_bytes(content, codec, level)
    return f"{len(content):,}", f"{num_compressed:,}", f"{len(content) / num_compressed:.3f}"


def _content(path: Path, text_field: str | None) -> bytes:
    if text_field is not None:
        return "".join(f"{_text_of(row, text_field)}\n" for row in read_rows(path)).encode()
    if not path.is_file():
        raise UserError(f"{path}: no such file; give files, not folders, or use --text-field")
    try:
        return b"".join(read_chunks(path))
    except RejectionError as why:
        raise UserError(f"{path}: {why.reason} ({why.detail})") from why


def _text_of(row: RawRow, text_field: str) -> str:
    place = f"{row.source_file}, row {row.source_row}"
    if row.reason is not None:
        raise UserError(f"{place}: {row.reason} ({row.detail}); repair or remove the row")
    texts = list(_texts_in(row.record, text_field.split(".")))
    if not texts or None in texts:
        fields = ", ".join(row.record) if isinstance(row.record, dict) else "none"
        raise UserError(
            f"{place}: no text in field {text_field!r} (--text-field); fields are {fields}"
        )
    return "\n".join(filter(None, texts))


def _texts_in(value: object, path: Sequence[str]) -> Iterator[str | None]:
    """Yield the texts at the end of a path; None for what is there and is no text.

    Of the elements of a list those without such a field are passed over.
    """
    if isinstance(value, list):
        for element in value:
            yield from _texts_in(element, path)
    elif not path:
        yield value if isinstance(value, str) else None
    elif isinstance(value, dict) and value.get(path[0]) is not None:
        yield from _texts_in(value[path[0]], path[1:])
