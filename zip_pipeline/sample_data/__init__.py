"""A small, seeded, lifelike pool for trying the pipeline out, and text to pre-train on."""

from zip_pipeline.sample_data.mixture import pretraining_samples, pretraining_text
from zip_pipeline.sample_data.write import STATES, write_sample_data

__all__ = ["STATES", "pretraining_samples", "pretraining_text", "write_sample_data"]
