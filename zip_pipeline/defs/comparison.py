"""Every strategy on the same pool, budget and training: subset, model and what they come to."""

from functools import partial
from typing import Any

import dagster as dg

from zip_pipeline.defs.keys import compression_state_key, raw_pool_key
from zip_pipeline.defs.metadata import markdown_table, picture
from zip_pipeline.defs.pipes import mendable, run_modules
from zip_pipeline.defs.resources import DataRootResource
from zip_pipeline.defs.stage import OWNERS
from zip_pipeline.files import fingerprint
from zip_pipeline.report.comparison import YARDSTICK, markdown
from zip_pipeline.selection.strategies import strategies
from zip_pipeline.workflow.comparison import (
    ComparisonResult,
    compare_model,
    compare_result,
    compare_subset,
)
from zip_pipeline.workflow.comparison_plan import MAX_SEEDS

SUBSET, MODEL, RESULT = (
    dg.AssetKey(["comparison", name]) for name in ("subset", "model", "result")
)
COMPARISON_CODE_VERSION = "1"
_OF_SUBSET = (
    "skipped", "num_picked", "picked_tokens", "picked_target_tokens", "pool_fingerprint",
)  # fmt: skip


def comparison_assets() -> list[dg.AssetsDefinition]:
    """Return ``comparison/subset``, ``comparison/model`` and ``comparison/result``.

    Nothing materialises them by itself: they train as many models as they have partitions.
    """
    partitions = dg.MultiPartitionsDefinition(
        {
            "strategy": dg.StaticPartitionsDefinition([YARDSTICK, *strategies.names()]),
            "seed": dg.StaticPartitionsDefinition([str(seed) for seed in range(MAX_SEEDS)]),
        }
    )

    @dg.asset(
        key=SUBSET,
        # A subset is of all drops, which are partitions of another kind.
        deps=[
            dg.AssetDep(key, partition_mapping=dg.AllPartitionMapping())
            for key in (raw_pool_key("sft"), compression_state_key("sft"))
        ],
        partitions_def=partitions,
        group_name="comparison",
        owners=OWNERS,
        kinds={"polars", "parquet"},
        code_version=COMPARISON_CODE_VERSION,
        description="What a strategy picks of the pool within the budget of [comparison]; every "
        "seed leaves out another tenth. Where it cannot select, the reason.",
    )
    def subset(
        context: dg.AssetExecutionContext, data_root: DataRootResource
    ) -> dg.MaterializeResult[None]:
        run = _strategy_and_seed(context)
        with mendable():
            manifest = compare_subset(data_root.root, *run, log=context.log.info)
        return _run_result({name: manifest[name] for name in _OF_SUBSET if name in manifest})

    @dg.asset(
        key=MODEL,
        deps=[SUBSET],
        partitions_def=partitions,
        group_name="comparison",
        owners=OWNERS,
        kinds={"pytorch", "huggingface"},
        code_version=COMPARISON_CODE_VERSION,
        pool="gpu",
        description="The model that is trained on the subset, alike for all but for the seed, with "
        "its losses on held-out samples, R, L and the diversity of the subset.",
    )
    def model(
        context: dg.AssetExecutionContext, data_root: DataRootResource
    ) -> dg.MaterializeResult[None]:
        run, run_jobs = _strategy_and_seed(context), partial(run_modules, context)
        with mendable():
            return _run_result(compare_model(data_root.root, *run, run_jobs, log=context.log.info))

    @dg.asset(
        key=RESULT,
        deps=[MODEL],
        group_name="comparison",
        owners=OWNERS,
        kinds={"polars", "parquet"},
        code_version=COMPARISON_CODE_VERSION,
        description="Mean of every figure by strategy, paired differences to source-balanced "
        "random with 95% intervals over seeds, and one sentence: what to use on this pool.",
    )
    def result(data_root: DataRootResource) -> dg.MaterializeResult[None]:
        with mendable():
            return _result(compare_result(data_root.root))

    return [subset, model, result]


def _strategy_and_seed(context: dg.AssetExecutionContext) -> tuple[str, int]:
    key = context.partition_key
    assert isinstance(key, dg.MultiPartitionKey)
    return key.keys_by_dimension["strategy"], int(key.keys_by_dimension["seed"])


def _run_result(metadata: dict[str, Any]) -> dg.MaterializeResult[None]:
    version = fingerprint([str(sorted(metadata.items()))])
    return dg.MaterializeResult(metadata=metadata, data_version=dg.DataVersion(version))


def _result(found: ComparisonResult) -> dg.MaterializeResult[None]:
    figure = {"plot": picture(found.figure, "comparison")} if found.figure else {}
    skipped = [f"- {name}: {reason}" for name, reason in found.skipped.items()]
    return dg.MaterializeResult(
        metadata={
            "conclusion": found.conclusion,
            "table": dg.MetadataValue.md(markdown(found.shown)),
            **figure,
            "runs": markdown_table(found.runs),
            "picked_alone": markdown_table(found.alone),
            "skipped": dg.MetadataValue.md("\n".join(skipped) or "none"),
            "notes": dg.MetadataValue.md("\n".join(f"- {note}" for note in found.notes)),
            "path": dg.MetadataValue.path(str(found.folder)),
        },
        data_version=dg.DataVersion(fingerprint([found.runs.write_json()])),
    )
