"""``python -m zip_pipeline.cli`` is ``zip-pipeline``."""

from zip_pipeline.cli.app import main

main()
