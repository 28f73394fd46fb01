"""The lineage graph in Dagster: assets, checks, jobs, sensors and the nightly schedule."""
