"""``python -m zip_pipeline.cli`` is ``zip-pipeline``."""

from zip_pipeline.cli import main

main()
