"""Z by MT-bench; run as ``python -m zip_pipeline.evaluation.mt_bench_job --config FILE``."""

import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zip_pipeline.chat_models import model_identity
from zip_pipeline.errors import UserError
from zip_pipeline.evaluation.client import ChatClient, ExchangeStore, Message, Reply, Responder
from zip_pipeline.evaluation.evaluators import Evaluator, TrainedVersion
from zip_pipeline.evaluation.local_model import LocalModel
from zip_pipeline.evaluation.mt_bench import (
    Bench,
    MtBenchResult,
    load_bench,
    mt_bench_settings,
    run_mt_bench,
)
from zip_pipeline.evaluation.settings import MtBenchSettings, main, mt_bench_settings_of, read_job
from zip_pipeline.files import fingerprint, write_json
from zip_pipeline.process import Reporter
from zip_pipeline.settings import SETTINGS_FILE

STORE_FILE, RESULT_FILE = "exchanges.jsonl", "result.json"
_LINE_SECONDS = 5.0


class ProgressResponder:
    """Passes questions on, and says every few seconds how many were answered."""

    def __init__(self, responder: Responder, report: Reporter, what: str) -> None:
        self._responder, self._report, self._what = responder, report, what
        self._lock = threading.Lock()
        self._num_answered = 0
        self._last_line = time.monotonic()

    def complete(
        self, messages: Sequence[Message], *, temperature: float, max_tokens: int
    ) -> Reply:
        """Return the answer to a conversation, as the responder behind does."""
        reply = self._responder.complete(messages, temperature=temperature, max_tokens=max_tokens)
        with self._lock:
            self._num_answered += 1
            now = time.monotonic()
            if now - self._last_line >= _LINE_SECONDS:
                self._last_line = now
                self._report.line(f"{self._num_answered} new {self._what}")
        return reply


@dataclass(frozen=True)
class _Answering:
    """Who answers, under which name the answers are stored, and how many at once."""

    responder: Responder
    name: str
    num_workers: int


def evaluate(config: Path, report: Reporter) -> None:
    """Run the benchmark as a JSON file says, and write ``result.json``.

    Questions and answers are kept beside it: a run that was killed goes on, and one that is
    repeated asks nothing again.

    Args:
        config: an object with ``model`` (folder of the trained model), ``model_name`` (which
            version it is), ``data_root`` (whose settings hold) and ``output`` (folder);
            ``fingerprint`` may tell jobs apart whose model changed, and changes nothing.
        report: told how it goes.

    Raises:
        UserError: a field, setting or file is wrong, or a key is not set.
        EndpointError: an endpoint failed; what is stored stays.
    """
    fields = dict.fromkeys(("model", "model_name", "data_root", "output"), str)
    job = read_job(config, fields, {"fingerprint": str})
    settings = mt_bench_settings_of(Path(job["data_root"]))
    if settings is None:
        raise UserError(
            f"{Path(job['data_root']) / SETTINGS_FILE}: no table [mt_bench]. Add it with "
            "questions, prompts and judge"
        )
    output = Path(job["output"])
    bench = load_bench(settings.questions, settings.prompts, settings.references)
    with (
        ChatClient(settings.judge) as judge,
        _answering(settings, Path(job["model"]), job["model_name"]) as answering,
        ExchangeStore(output / STORE_FILE) as store,
    ):
        report.line(f"{len(bench.questions)} questions; {len(store)} exchanges are stored")
        result = _run(bench, settings, answering, judge, store, report)
    write_json(output / RESULT_FILE, as_json(result, settings, answering.name))
    report.line(f"MT-bench: {result.summary.mean:.3f} of 10, {output / RESULT_FILE}")


def as_json(result: MtBenchResult, settings: MtBenchSettings, model_name: str) -> dict[str, Any]:
    """Return a result as it is recorded.

    ``Z`` is the mean rating, 1 to 10, higher = better; ``Z_spread`` the standard deviation
    between the judge's repetitions, None with one; ``Z_name`` tells results apart that are not
    comparable.

    Args:
        result: from :func:`run_mt_bench`.
        settings: of the data root.
        model_name: whose answers were judged.
    """
    summary = result.summary
    return {
        "Z": summary.mean,
        "Z_spread": summary.drift,
        "Z_name": f"MT-bench {_files_hash(settings)[:8]}, judge {settings.judge.model}",
        "model_name": model_name,
        "sampling_error": summary.sampling_error,
        "by_repetition": list(summary.by_repetition),
        "by_category": result.by_category,
        "by_turn": list(result.by_turn),
        "num_questions": result.num_questions,
        "num_ratings": summary.num_ratings,
        "num_missing": summary.num_missing,
        "num_malformed": summary.num_malformed,
        "num_refused": summary.num_refused,
        "num_cut_answers": result.num_cut_answers,
        "num_refused_answers": result.num_refused_answers,
    }


def _files_hash(settings: MtBenchSettings) -> str:
    files = (settings.questions, settings.prompts, settings.references)
    return fingerprint(path.read_text(encoding="utf-8-sig") for path in files if path)


@contextmanager
def _answering(settings: MtBenchSettings, model: Path, name: str) -> Iterator[_Answering]:
    """Yield the served model where one is set, else the model folder."""
    served = settings.answers
    if served is None:
        # A version that was trained again must not be given the answers of before.
        identity = model_identity(str(model), None, with_template=True)
        named = f"{name}, weights {identity[:12]}" if model.is_dir() else name
        yield _Answering(LocalModel(model), named, 1)
    else:
        with ChatClient(served) as client:
            named = f"{name}, served as {served.model}"
            yield _Answering(client, named, served.max_concurrency)


def _run(
    bench: Bench,
    settings: MtBenchSettings,
    answering: _Answering,
    judge: ChatClient,
    store: ExchangeStore,
    report: Reporter,
) -> MtBenchResult:
    num_answers = 2 * len(bench.questions)
    num_judgments = num_answers * settings.repetitions
    return run_mt_bench(
        bench,
        model=ProgressResponder(answering.responder, report, f"answers of {num_answers}"),
        model_name=answering.name,
        judge=ProgressResponder(judge, report, f"judgments of {num_judgments} or more"),
        settings=mt_bench_settings(
            settings.judge.model,
            repetitions=settings.repetitions,
            num_workers=settings.judge.max_concurrency,
        ),
        store=store,
        num_answer_workers=answering.num_workers,
    )


class MtBench(Evaluator):
    """The rating of a judge; only the latest version of a stage is asked."""

    name = "mt_bench"
    module = "zip_pipeline.evaluation.mt_bench_job"
    job_file = "mt_bench/job.json"
    result_file = f"mt_bench/{RESULT_FILE}"

    def is_configured(self, data_root: Path) -> bool:
        """Return whether there is a table ``[mt_bench]``."""
        return mt_bench_settings_of(data_root) is not None

    def job(self, version: TrainedVersion) -> dict[str, Any]:
        """Return what :func:`evaluate` is told."""
        data_root = version.folder.root.path
        settings = repr(mt_bench_settings_of(data_root))
        return {
            "model": str(version.output / "model"),
            "model_name": f"{version.folder.stage} version {version.number}",
            "data_root": str(data_root),
            "output": str(version.output / "evaluation" / "mt_bench"),
            "fingerprint": fingerprint([version.record["fingerprint"], settings]),
        }


EVALUATOR = MtBench()


if __name__ == "__main__":
    sys.exit(main("mt_bench_job", evaluate))
