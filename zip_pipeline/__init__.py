"""Curate LLM alignment data by compression: select, explain and version training subsets."""
