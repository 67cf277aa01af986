"""The feature table -> scores, p-values and contributions."""
