"""The same work from the command line, without Dagster."""

from zip_pipeline.cli.app import app, main

__all__ = ["app", "main"]
