"""Raw files to samples: readers, formats, quarantine, deduplication and the assembled pool."""
