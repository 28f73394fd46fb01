"""What a version of the subset says to people: tables, figures, traces and differences."""
