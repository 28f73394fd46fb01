"""Curate LLM alignment data by compression: select, explain and version training subsets.

Every command has its twin here, without Dagster:

>>> import zip_pipeline as zp
>>> records = [{"instruction": f"Add {n} and 1.", "output": f"{n + 1}"} for n in range(40)]
>>> selection = zp.select(records, budget_samples=5, strategy="zip", k1=20, k2=10, k3=5)
>>> len(selection), len(selection.left_out())
(5, 35)
>>> selection.why(selection.subset["sample_id"][0]).partition(":")[0]
'picked as number 1, in round 1'

``select`` takes files, tables and records, ``selection.write("picked.jsonl")`` writes what
``zip-pipeline select`` writes, ``selection.export("trl", "folder")`` what a trainer takes, and
``read`` tells what became of every record. What is heavy is imported when it is first asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zip_pipeline.compression.codecs import codecs, compression_ratio
    from zip_pipeline.data_root import DataRoot
    from zip_pipeline.entropy_law.verdict import Verdict
    from zip_pipeline.errors import UserError
    from zip_pipeline.ingest.options import ReadOptions
    from zip_pipeline.samples import PreferencePair, RatedAnswer, Sample, Turn
    from zip_pipeline.selection.config import SelectionConfig
    from zip_pipeline.selection.strategies import strategies
    from zip_pipeline.workflow.exports import export_version
    from zip_pipeline.workflow.selections import Selection, select, select_texts
    from zip_pipeline.workflow.sources import Pool, read

_MODULES = {
    "read": "workflow.sources",
    "Pool": "workflow.sources",
    "select": "workflow.selections",
    "select_texts": "workflow.selections",
    "Selection": "workflow.selections",
    "export_version": "workflow.exports",
    "SelectionConfig": "selection.config",
    "compression_ratio": "compression.codecs",
    "codecs": "compression.codecs",
    "strategies": "selection.strategies",
    "Turn": "samples",
    "Sample": "samples",
    "PreferencePair": "samples",
    "RatedAnswer": "samples",
    "ReadOptions": "ingest.options",
    "DataRoot": "data_root",
    "Verdict": "entropy_law.verdict",
    "UserError": "errors",
}

__all__ = [
    "DataRoot",
    "Pool",
    "PreferencePair",
    "RatedAnswer",
    "ReadOptions",
    "Sample",
    "Selection",
    "SelectionConfig",
    "Turn",
    "UserError",
    "Verdict",
    "codecs",
    "compression_ratio",
    "export_version",
    "read",
    "select",
    "select_texts",
    "strategies",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
