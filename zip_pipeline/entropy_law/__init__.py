"""Table of versions in; risk verdict, correlations, fit and figures out."""
