"""The callback that writes metrics, marks checkpoints and stops when told to."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from zip_pipeline.progress_reports import Reporter
from zip_pipeline.storage import write_atomically
from zip_pipeline.training.checkpoints import mark_whole
from zip_pipeline.training.stopping import StopRequest

if TYPE_CHECKING:
    from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

_Arguments: TypeAlias = "TrainingArguments"
_State: TypeAlias = "TrainerState"
_Control: TypeAlias = "TrainerControl"
_LINE_SECONDS = 2.0


def progress_callback(metrics: Path, report: Reporter, stop: StopRequest) -> "TrainerCallback":
    """Return a callback for one training run.

    Args:
        metrics: the file of JSON lines, one per optimizer step: step, epoch, loss and the
            trainer's other figures. A resumed run first restores the lines up to its checkpoint,
            so that each step has one line.
        report: told of the loss every few seconds.
        stop: asked after every step.
    """
    from transformers import TrainerCallback

    class Progress(_Progress, TrainerCallback):
        """Transformers calls these methods by name."""

    return Progress(metrics, report, stop)


class _Progress:
    def __init__(self, metrics: Path, report: Reporter, stop: StopRequest) -> None:
        self._metrics, self._report, self._stop = metrics, report, stop
        self._last_line = 0.0

    def on_train_begin(self, args: _Arguments, state: _State, control: _Control, **_: Any) -> None:  # noqa: ANN401
        self._stop.in_loop = True
        if state.is_world_process_zero:
            lines = "".join(_json_line(entry) for entry in state.log_history if "loss" in entry)
            write_atomically(self._metrics, lambda path: path.write_text(lines, encoding="utf-8"))

    def on_log(self, args: _Arguments, state: _State, control: _Control, **_: Any) -> None:  # noqa: ANN401
        entry = state.log_history[-1]
        if not state.is_world_process_zero or "loss" not in entry:
            return
        with self._metrics.open("a", encoding="utf-8") as file:
            file.write(_json_line(entry))
        self._report.record({"kind": "step", **entry})
        now = time.monotonic()
        if now - self._last_line >= _LINE_SECONDS or state.global_step == state.max_steps:
            self._last_line = now
            place = f"step {state.global_step} of {state.max_steps}"
            self._report.line(f"{place}, loss {entry['loss']:.4f}")

    def on_step_end(self, args: _Arguments, state: _State, control: _Control, **_: Any) -> None:  # noqa: ANN401
        if self._stop.signal_number:
            control.should_save = control.should_training_stop = True

    def on_save(self, args: _Arguments, state: _State, control: _Control, **_: Any) -> None:  # noqa: ANN401
        args.distributed_state.wait_for_everyone()
        if state.is_world_process_zero:
            mark_whole(Path(str(args.output_dir)) / f"checkpoint-{state.global_step}")


def _json_line(entry: Mapping[str, Any]) -> str:
    return json.dumps(dict(entry)) + "\n"
