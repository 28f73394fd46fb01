"""Bytes to sizes: codecs, incremental redundancy states, the compression state of samples."""
