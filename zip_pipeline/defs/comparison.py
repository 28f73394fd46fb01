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


def comparison_partitions() -> dg.MultiPartitionsDefinition:
    """Return the partitions: a strategy and a seed each."""
    names = [YARDSTICK, *strategies.names()]
    return dg.MultiPartitionsDefinition(
        {
            "strategy": dg.StaticPartitionsDefinition(names),
            "seed": dg.StaticPartitionsDefinition([str(seed) for seed in range(MAX_SEEDS)]),
        }
    )


def comparison_assets() -> list[dg.AssetsDefinition]:
    """Return ``comparison/subset``, ``comparison/model`` and ``comparison/result``.

    Nothing materialises them by itself: they train as many models as they have partitions.
    """
    partitions = comparison_partitions()
    # The drops are partitions of another kind: a subset is of all of them.
    pool = [
        dg.AssetDep(key, partition_mapping=dg.AllPartitionMapping())
        for key in (raw_pool_key("sft"), compression_state_key("sft"))
    ]

    @dg.asset(
        key=SUBSET,
        deps=pool,
        partitions_def=partitions,
        kinds={"polars", "parquet"},
        description="What a strategy picks of the pool within the budget of [comparison]; every "
        "seed leaves out another tenth. Where it cannot select, the reason.",
        group_name="comparison",
        owners=OWNERS,
        code_version=COMPARISON_CODE_VERSION,
    )
    def subset(
        context: dg.AssetExecutionContext, data_root: DataRootResource
    ) -> dg.MaterializeResult[None]:
        with mendable():
            manifest = compare_subset(
                data_root.root, *_strategy_and_seed(context), log=context.log.info
            )
        return _run_result(context, manifest, ("num_picked", "picked_tokens"))

    @dg.asset(
        key=MODEL,
        deps=[SUBSET],
        partitions_def=partitions,
        kinds={"pytorch", "huggingface"},
        pool="gpu",
        description="The model that is trained on the subset, alike for all but for the seed, with "
        "its losses on held-out samples, R, L and the diversity of the subset.",
        group_name="comparison",
        owners=OWNERS,
        code_version=COMPARISON_CODE_VERSION,
    )
    def model(
        context: dg.AssetExecutionContext, data_root: DataRootResource
    ) -> dg.MaterializeResult[None]:
        with mendable():
            figures = compare_model(
                data_root.root, *_strategy_and_seed(context), partial(run_modules, context)
            )
        return _run_result(context, figures, tuple(figures))

    @dg.asset(
        key=RESULT,
        deps=[MODEL],
        kinds={"polars", "parquet"},
        description="Mean of every figure by strategy, paired differences to source-balanced "
        "random with 95% intervals over seeds, and one sentence: what to use on this pool.",
        group_name="comparison",
        owners=OWNERS,
        code_version=COMPARISON_CODE_VERSION,
    )
    def result(data_root: DataRootResource) -> dg.MaterializeResult[None]:
        with mendable():
            return _result(compare_result(data_root.root))

    return [subset, model, result]


def _strategy_and_seed(context: dg.AssetExecutionContext) -> tuple[str, int]:
    key = context.partition_key
    assert isinstance(key, dg.MultiPartitionKey)
    return key.keys_by_dimension["strategy"], int(key.keys_by_dimension["seed"])


def _run_result(
    context: dg.AssetExecutionContext, found: dict[str, Any], shown: tuple[str, ...]
) -> dg.MaterializeResult[None]:
    if "skipped" in found:
        context.log.warning(f"skipped: {found['skipped']}")
        shown = ("skipped",)
    metadata = {name: found[name] for name in shown}
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
            "skipped": dg.MetadataValue.md("\n".join(skipped) or "none"),
            "notes": dg.MetadataValue.md("\n".join(f"- {note}" for note in found.notes)),
            "path": dg.MetadataValue.path(str(found.folder)),
        },
        data_version=dg.DataVersion(fingerprint([found.runs.write_json()])),
    )
