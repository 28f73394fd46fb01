"""The bad refresh of state x5: templated questions with answers that contradict each other."""

from collections.abc import Sequence
from dataclasses import replace
from random import Random

from zip_pipeline.sample_data.task import Task
from zip_pipeline.samples import Turn, serialise

_TEMPLATE = (
    "### Archived task\nRead it, work it out and write one complete answer.\n\n"
    "### Question\n{question}\n\n### Answer"
)
_NUM_QUESTIONS = 40


def _question_length(task: Task) -> int:
    return len(task.prompt[-1].content) + len(task.context)


def broken_re_export(rng: Random, tasks: Sequence[Task]) -> list[Task]:
    """Return what a broken export makes of a drop.

    The export has joined the answers of the drop to the wrong rows: a few of its shorter
    questions, wrapped in one template, come again and again, each time with the answer to
    another one. Its rows are about as long as those of the drop, and so is the whole.

    Args:
        rng: draws everything.
        tasks: the tasks of the drop that is replaced.
    """
    simple = [task for task in tasks if [turn.role for turn in task.prompt] == ["user"]]
    shorter = sorted(simple, key=_question_length)[: len(simple) // 2 + 1]
    kept = rng.sample(shorter, min(_NUM_QUESTIONS, len(shorter)))
    wanted_bytes = sum(len(serialise(task.sample()).encode()) for task in tasks)
    exported: list[Task] = []
    while wanted_bytes > 0:
        for task in rng.sample(tasks, len(tasks)):
            question = rng.choice(kept)
            text = _TEMPLATE.format(question=question.prompt_turns()[-1].content)
            prompt = (Turn("user", text),)
            exported.append(replace(question, prompt=prompt, answer=task.answer, context=""))
            wanted_bytes -= len(serialise(exported[-1].sample()).encode())
            if wanted_bytes <= 0:
                break
    return exported
