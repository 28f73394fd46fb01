"""One function per step of the pipeline; the only place where its parts meet."""
