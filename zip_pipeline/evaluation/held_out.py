"""Z by held-out loss; run as ``python -m zip_pipeline.evaluation.held_out --config FILE``."""

import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from zip_pipeline.chat_models import encode, load_model, load_tokenizer, prepare_environment
from zip_pipeline.data_root import StageFolder
from zip_pipeline.errors import UserError
from zip_pipeline.evaluation.evaluators import Evaluator, TrainedVersion
from zip_pipeline.evaluation.settings import main, read_job
from zip_pipeline.files import fingerprint, write_json
from zip_pipeline.process import Reporter
from zip_pipeline.samples import STAGES, Stage, Turn

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


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
        UserError: there is no sample, or a loss is not finite.

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
        raise UserError("held-out loss: no sample was measured; hold out 1 or more")
    wrong = [sample for sample in samples if not math.isfinite(sample.loss_sum)]
    if wrong:
        raise UserError(
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


_BATCH_TOKENS = 2048
MAX_LENGTH = 2048


def held_out_loss(
    model: Path, samples: pl.DataFrame, stage: Stage, max_length: int = MAX_LENGTH
) -> HeldOutLoss:
    """Return the macro-averaged loss of a model on what the assistant says in samples.

    The model's own chat template tells which tokens those are. Of a preference pair the target
    is the chosen answer.

    Args:
        model: a folder with safetensors, and a tokenizer whose chat template has generation
            markers.
        samples: held-out rows of a pool table.
        stage: the stage of the samples.
        max_length: tokens at which a conversation is cut; its later text does not count.

    Raises:
        UserError: there is no model, none of the samples has a target within the maximum
            length, or a loss is not finite.

    Source: macro average over sources as in the comparison of data mixtures; bits per byte as
        in The Pile, section 3.1.
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
    losses = _losses(load_model(str(model), None), rows)
    measured = [
        SampleLoss(
            source=row.source,
            loss_sum=loss_sum,
            num_tokens=sum(row.is_target),
            num_bytes=row.num_bytes,
        )
        for row, loss_sum in zip(rows, losses, strict=True)
    ]
    return summarise(
        measured,
        held_out_hash(samples, max_length),
        num_cut=sum(row.is_cut for row in rows),
        num_skipped=len(samples) - len(rows),
    )


def held_out_hash(samples: pl.DataFrame, max_length: int = MAX_LENGTH) -> str:
    """Return the hash of what a held-out loss depends on besides the model.

    Args:
        samples: held-out rows of a pool table, in any order.
        max_length: tokens at which a conversation is cut.
    """
    rows = samples.select("sample_id", "source").sort("sample_id").rows()
    return fingerprint([str(max_length), *(str(value) for row in rows for value in row)])


@dataclass(frozen=True)
class _Row:
    source: str
    input_ids: list[int]
    is_target: list[bool]
    num_bytes: int
    is_cut: bool


def _rows(
    samples: pl.DataFrame, stage: Stage, tokenizer: "PreTrainedTokenizerBase", max_length: int
) -> list[_Row]:
    columns = ("turns",) if stage == "sft" else ("prompt", "chosen")
    parts = [
        [[Turn(**turn) for turn in turns] for turns in samples[column].to_list()]
        for column in columns
    ]
    conversations = [[turn for part in row for turn in part] for row in zip(*parts, strict=True)]
    # Nothing predicts the first token.
    starts = [1] * len(conversations)
    if stage == "preference":
        starts = [max(1, len(e.input_ids)) for e in encode(tokenizer, parts[0])]
    rows = []
    for source, encoded, start in zip(
        samples["source"].to_list(), encode(tokenizer, conversations), starts, strict=True
    ):
        ids = encoded.input_ids[:max_length]
        mask = encoded.assistant_mask[:max_length]
        is_target = [bool(speaks) and place >= start for place, speaks in enumerate(mask)]
        if any(is_target):
            num_bytes = _num_bytes(tokenizer, ids, is_target)
            is_cut = len(encoded.input_ids) > max_length
            rows.append(_Row(str(source), ids, is_target, num_bytes, is_cut))
    return rows


def _num_bytes(
    tokenizer: "PreTrainedTokenizerBase", ids: Sequence[int], is_target: Sequence[bool]
) -> int:
    said = [token for token, is_said in zip(ids, is_target, strict=True) if is_said]
    text: Any = tokenizer.decode(said, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return len(str(text).encode())


def _losses(model: "PreTrainedModel", rows: Sequence[_Row]) -> list[float]:
    """Return the loss sum of each row; rows of similar length are computed together."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    network: Any = model.to(device).eval()  # type: ignore[arg-type]
    sums = [0.0] * len(rows)
    with torch.inference_mode():
        for places in _batches(rows):
            found = _batch_losses(network, [rows[place] for place in places], device)
            for place, value in zip(places, found, strict=True):
                sums[place] = value
    return sums


def _batches(rows: Sequence[_Row]) -> Iterator[list[int]]:
    """Yield the places of rows that go through the model together, shortest rows first."""
    batch: list[int] = []
    for place in sorted(range(len(rows)), key=lambda place: len(rows[place].input_ids)):
        if batch and (len(batch) + 1) * len(rows[place].input_ids) > _BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(place)
    yield batch


def _batch_losses(network: Any, rows: Sequence[_Row], device: str) -> list[float]:  # noqa: ANN401
    import torch

    width = max(len(row.input_ids) for row in rows)

    def padded(lists: Sequence[Sequence[int]]) -> "torch.Tensor":
        filled = [[*values, *[0] * (width - len(values))] for values in lists]
        return torch.tensor(filled, device=device)

    ids = padded([row.input_ids for row in rows])
    attended = padded([[1] * len(row.input_ids) for row in rows])
    is_target = padded([row.is_target for row in rows])[:, 1:].bool()
    # The vocabulary is most of a small model's work: only where a target follows.
    kept = is_target.any(dim=0).nonzero().squeeze(1)
    logits = network(
        input_ids=ids, attention_mask=attended, logits_to_keep=kept, use_cache=False
    ).logits
    losses = torch.zeros(is_target.shape, device=device)
    losses[is_target] = torch.nn.functional.cross_entropy(
        logits[is_target[:, kept]].float(), ids[:, 1:][is_target], reduction="none"
    )
    return list(losses.double().sum(dim=1).tolist())


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
    paths = dict.fromkeys(("model", "samples", "stage", "output"), str)
    job = read_job(config, paths, {"max_length": int, "fingerprint": str})
    stage, max_length = job["stage"], job.get("max_length", MAX_LENGTH)
    if stage not in STAGES:
        raise UserError(f"{config}: stage is {stage!r}; allowed are {', '.join(STAGES)}")
    if max_length < 2:
        raise UserError(f"{config}: max_length is {max_length}; must be 2 or more")
    samples = _read_samples(Path(job["samples"]), stage)
    report.line(f"held-out loss of {job['model']} on {len(samples):,} samples")
    found = held_out_loss(Path(job["model"]), samples, stage, max_length)
    write_json(Path(job["output"]), found.as_json())
    report.line(f"{found.loss:.4f} nats per token, {found.bits_per_byte:.4f} bits per byte")


def _read_samples(path: Path, stage: Stage) -> pl.DataFrame:
    columns = ["sample_id", "source", *(("turns",) if stage == "sft" else ("prompt", "chosen"))]
    try:
        return pl.read_parquet(path, columns=columns, glob=False, hive_partitioning=False)
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
    subset = _ids(folder.versions.path(number) / "subset.parquet")
    return bool(subset.is_in(held_out.to_list()).any())


def _ids(path: Path) -> pl.Series:
    return pl.read_parquet(path, columns=["sample_id"], glob=False)["sample_id"]


EVALUATOR = HeldOut()


if __name__ == "__main__":
    sys.exit(main("held_out", evaluate))
