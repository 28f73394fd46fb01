"""Z by held-out loss; run as ``python -m zip_pipeline.evaluation.held_out --config FILE``."""

import dataclasses
import math
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from zip_pipeline.chat_models import (
    ScoredRow,
    load_model,
    load_tokenizer,
    prepare_environment,
    token_losses,
)
from zip_pipeline.chat_tokens import encode
from zip_pipeline.data_root import StageFolder
from zip_pipeline.errors import UserError
from zip_pipeline.evaluation.evaluators import Evaluator, TrainedVersion, main, read_job
from zip_pipeline.files import fingerprint, hashing, write_json
from zip_pipeline.process import Reporter
from zip_pipeline.samples import STAGES, Stage, turns_of_column, with_all_columns

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


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
    """samples whose prompt leaves no room for an answer, or that have only an undesirable one"""
    accuracy: float | None = None
    """of pairs, the share whose chosen answer is likelier than the rejected one, by mean over its
    tokens; mean over sources, None without pairs"""


def summarise(
    samples: pl.DataFrame, held_out: str, *, num_cut: int = 0, num_skipped: int = 0
) -> HeldOutLoss:
    """Return the means by source and over sources, with their standard errors over samples.

    The samples of a source have answers of different lengths, so its mean is a ratio of sums
    and its variance that of a ratio estimator. A source of one sample shows no scatter: it is
    taken to scatter as the others do on average.

    Args:
        samples: ``source``, ``loss_sum`` over the target tokens in nats, ``num_tokens`` of these
            (1 or more) and ``num_bytes`` of their text.
        held_out: hash of what it was measured on.
        num_cut: samples of which only the beginning counts.
        num_skipped: samples left out.

    Raises:
        UserError: there is no sample, or a loss is not finite.

    Source: Cochran, Sampling Techniques, section 6.3 (ratio estimator).
    """
    if samples.is_empty():
        raise UserError("held-out loss: no sample was measured; hold out 1 or more")
    wrong = samples.filter(~pl.col("loss_sum").is_finite())["loss_sum"]
    if len(wrong):
        raise UserError(
            f"held-out loss: {len(wrong)} of {len(samples)} samples have a loss that is not "
            f"finite (the first {wrong[0]}), so the model has diverged. Train again "
            "with a lower learning rate"
        )
    num, num_tokens, num_bytes = pl.len(), pl.sum("num_tokens"), pl.sum("num_bytes")
    loss = pl.sum("loss_sum") / num_tokens
    squares = (pl.col("loss_sum") - loss * pl.col("num_tokens")).pow(2).sum()
    sources = samples.group_by("source", maintain_order=True).agg(
        loss=loss,
        variance=pl.when(num > 1).then(num / (num - 1) * squares / num_tokens.pow(2)),
        # Answers may be empty: then only the end of the turn is predicted.
        bits_per_byte=pl.sum("loss_sum") / math.log(2) / pl.max_horizontal(num_bytes, 1),
        num_samples=num,
        num_tokens=num_tokens,
        num_bytes=num_bytes,
    )
    of_one_sample = (pl.col("variance") * pl.col("num_samples")).mean()
    variance = pl.col("variance").fill_null(of_one_sample)
    sources = sources.with_columns(variance, loss_spread=variance.sqrt()).sort("source")
    has_spread = not sources["variance"].has_nulls()
    fields = ["source", *(field.name for field in dataclasses.fields(SourceLoss))]
    return HeldOutLoss(
        loss=statistics.fmean(sources["loss"]),
        loss_spread=math.sqrt(sources["variance"].sum()) / sources.height if has_spread else None,
        bits_per_byte=statistics.fmean(sources["bits_per_byte"]),
        sources={row.pop("source"): SourceLoss(**row) for row in sources.select(fields).to_dicts()},
        held_out=held_out,
        num_samples=samples.height,
        num_cut=num_cut,
        num_skipped=num_skipped,
    )


_COLUMNS: Mapping[Stage, Sequence[str]] = {
    "sft": ("turns",),
    "preference": ("prompt", "chosen", "rejected"),
}
MAX_LENGTH = 2048


def held_out_loss(
    model: Path, samples: pl.DataFrame, stage: Stage, max_length: int = MAX_LENGTH
) -> HeldOutLoss:
    """Return the macro-averaged loss of a model on what the assistant says in samples.

    The model's own chat template tells which tokens those are. Of a preference pair the target
    is the chosen answer, as it is a desirable one; a sample without either is skipped. Pairs have
    an accuracy besides.

    Args:
        model: a folder with safetensors, and a tokenizer whose chat template has generation
            markers.
        samples: held-out rows of a pool table.
        stage: of the samples.
        max_length: tokens at which a conversation is cut; its later text does not count.

    Raises:
        UserError: there is no model, none of the samples has a target within the maximum
            length, or a loss is not finite.

    Source: macro average over sources as in the comparison of data mixtures; bits per byte as
        in The Pile, section 3.1; accuracy by mean log-likelihood as in SimPO (arXiv 2405.14734),
        equation 3.
    """
    prepare_environment(offline=True)
    tokenizer = load_tokenizer(str(model), None)
    rows = _rows(samples, stage, tokenizer, max_length)
    if not rows:
        raise UserError(
            f"held-out samples: of {len(samples)} none has an answer within {max_length} tokens. "
            "Hold out more, raise max_length, or give the model a chat template with generation "
            "markers"
        )
    network = load_model(str(model), None)
    measured = _measured(network, rows)
    found = summarise(
        measured,
        held_out_hash(samples, max_length),
        num_cut=sum(row.is_cut for row in rows),
        num_skipped=len(samples) - len(rows),
    )
    if stage == "sft":
        return found
    rejected = _rows(samples, stage, tokenizer, max_length, answer="rejected")
    return dataclasses.replace(found, accuracy=_accuracy(measured, _measured(network, rejected)))


def _measured(network: "PreTrainedModel", rows: Sequence["_Row"]) -> pl.DataFrame:
    columns = {
        "sample_id": [row.sample_id for row in rows],
        "source": [row.source for row in rows],
        "loss_sum": [math.fsum(each) for each in token_losses(network, rows)],
        "num_tokens": [sum(row.is_target) for row in rows],
        "num_bytes": [row.num_bytes for row in rows],
    }
    return pl.DataFrame(columns, schema_overrides={"sample_id": pl.String})


def _accuracy(chosen: pl.DataFrame, rejected: pl.DataFrame) -> float | None:
    pairs = chosen.join(rejected, on="sample_id", suffix="_rejected")
    losses = [pl.col(f"loss_sum{s}") / pl.col(f"num_tokens{s}") for s in ("", "_rejected")]
    of_sources = pairs.group_by("source").agg(accuracy=(losses[0] < losses[1]).mean())
    return statistics.fmean(of_sources["accuracy"]) if of_sources.height else None


def held_out_hash(samples: pl.DataFrame, max_length: int = MAX_LENGTH) -> str:
    """Return the hash of what a held-out loss depends on besides the model.

    Args:
        samples: held-out rows of a pool table, in any order.
        max_length: tokens at which a conversation is cut.
    """
    rows = samples.select("sample_id", "source").sort("sample_id").rows()
    return fingerprint([str(max_length), *(str(value) for row in rows for value in row)])


@dataclass(frozen=True)
class _Row(ScoredRow):
    sample_id: str
    source: str
    num_bytes: int
    is_cut: bool


def _rows(
    samples: pl.DataFrame,
    stage: Stage,
    tokenizer: "PreTrainedTokenizerBase",
    max_length: int,
    *,
    answer: str = "chosen",
) -> list[_Row]:
    whole = with_all_columns(samples.lazy(), stage).collect()
    columns = ("turns",) if stage == "sft" else ("prompt", answer)
    parts = [turns_of_column(whole[column]) for column in columns]
    conversations = [[turn for part in row for turn in part] for row in zip(*parts, strict=True)]
    tools = whole["tools"].to_list()
    # Nothing predicts the first token.
    starts = [1] * len(conversations)
    if stage == "preference":
        starts = [max(1, len(e.input_ids)) for e in encode(tokenizer, parts[0], tools)]
    rows = []
    names = whole.select("sample_id", "source").rows()
    for (sample_id, source), encoded, start in zip(
        names, encode(tokenizer, conversations, tools), starts, strict=True
    ):
        ids = encoded.input_ids[:max_length].tolist()
        mask = encoded.assistant_mask[:max_length]
        is_target = [bool(speaks) and place >= start for place, speaks in enumerate(mask)]
        if any(is_target):
            said = list(compress(ids, is_target))
            text: Any = tokenizer.decode(
                said, skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
            is_cut = len(encoded.input_ids) > max_length
            num_bytes = len(str(text).encode())
            rows.append(_Row(ids, is_target, sample_id, source, num_bytes, is_cut))
    return rows


def evaluate(config: Path, report: Reporter) -> None:
    """Evaluate as a JSON file says, and write the result as JSON.

    Args:
        config: an object with ``model`` (folder), ``samples`` (Parquet file), ``stage``,
            ``output`` (JSON file) and, where it is not 2,048, ``max_length``; ``fingerprint`` may
            tell jobs apart whose model changed, and changes nothing.
        report: told how it goes.

    Raises:
        UserError: a field or file is wrong, or the model cannot be evaluated.
    """
    texts = ("model", "samples", "stage", "output")
    job = read_job(config, texts, max_length=int, fingerprint=str)
    stage, max_length = job["stage"], job.get("max_length", MAX_LENGTH)
    if stage not in STAGES:
        raise UserError(f"{config}: stage is {stage!r}; allowed are {', '.join(STAGES)}")
    if max_length < 2:
        raise UserError(f"{config}: max_length is {max_length}; must be 2 or more")
    samples = _read_samples(Path(job["samples"]), stage)
    report.line(f"held-out loss of {job['model']} on {len(samples):,} samples")
    found = held_out_loss(Path(job["model"]), samples, stage, max_length)
    with hashing(Path(job["output"])):
        write_json(Path(job["output"]), asdict(found))
    pairs = "" if found.accuracy is None else f", {found.accuracy:.1%} of pairs told right"
    report.line(f"{found.loss:.4f} nats per token, {found.bits_per_byte:.4f} bits per byte{pairs}")


def _read_samples(path: Path, stage: Stage) -> pl.DataFrame:
    columns = ["sample_id", "source", *_COLUMNS[stage]]
    try:
        found = pl.scan_parquet(path, glob=False, hive_partitioning=False)
        return with_all_columns(found, stage).select(*columns, "tools").collect()
    except (OSError, pl.exceptions.PolarsError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise UserError(
            f"samples: cannot read {', '.join(columns)} from {path} ({reason}). Give the held-out "
            f"samples of the {stage} stage"
        ) from error


class HeldOut(Evaluator):
    """Minus the loss on held-out samples; the latest versions are all measured on the same."""

    name = "held_out"
    module = "zip_pipeline.evaluation.held_out"
    job_file = "held_out_job.json"
    result_file = "held_out.json"
    num_versions = 10

    def is_configured(self, data_root: Path) -> bool:
        """Return True: it needs no settings."""
        return True

    def can_measure(self, version: TrainedVersion) -> bool:
        """Return whether there are held-out samples, and the version picked none of them."""
        has_samples = version.folder.held_out.exists()
        return has_samples and not has_seen(version.folder, version.number)

    def job(self, version: TrainedVersion) -> dict[str, Any]:
        """Return what :func:`evaluate` is told."""
        samples = version.folder.held_out
        return {
            "model": str(version.output / "model"),
            "samples": str(samples),
            "stage": version.folder.stage,
            "output": str(version.output / "evaluation" / self.result_file),
            "max_length": version.record["settings"]["max_length"],
            "fingerprint": fingerprint([version.record["fingerprint"], *_ids(samples)]),
        }

    def z(self, version: TrainedVersion, found: Mapping[str, Any]) -> dict[str, Any]:
        """Return Z; models of another start, or measured on other samples, do not compare."""
        start, samples = version.record["model"]["identity"][:6], found["held_out"][:6]
        name = f"minus held-out loss, start {start}, samples {samples}"
        return {"Z": -found["loss"], "Z_spread": found["loss_spread"], "Z_name": name}


def has_seen(folder: StageFolder, number: int) -> bool:
    """Return whether a version picked samples that are held out now, so that it has no Z."""
    held_out = _ids(folder.held_out)
    subset = folder.versions.subset(number).select("sample_id").collect()["sample_id"]
    return bool(subset.is_in(held_out.to_list()).any())


def _ids(path: Path) -> pl.Series:
    return pl.read_parquet(path, columns=["sample_id"], glob=False)["sample_id"]


EVALUATOR = HeldOut()


if __name__ == "__main__":
    sys.exit(main("held_out", evaluate))
