"""Q of a version: what the law holds constant."""

from zip_pipeline.defs.subsets import StoredVersion
from zip_pipeline.evaluation.quality import quality_of
from zip_pipeline.evaluation.quality_audit import Quality
from zip_pipeline.evaluation.settings import quality_audit_settings_of
from zip_pipeline.pool.ingest import batch_metadata
from zip_pipeline.samples import Stage
from zip_pipeline.storage import DataRoot


def version_quality(root: DataRoot, stage: Stage, version: StoredVersion) -> Quality:
    """Return the audited quality of a version, or the filters' pass rate where no judge is set.

    Raises:
        ValueError: ``training.toml`` is wrong, or the judge's key is not set.
        EndpointError: the judge failed; a later call goes on from what is stored.
    """
    counts = [batch_metadata(root, stage, batch) for batch in version.manifest["inputs"]]
    settings = quality_audit_settings_of(root.path)
    return quality_of(version.subset, stage, settings, root.path / "quality_audit" / stage, counts)
