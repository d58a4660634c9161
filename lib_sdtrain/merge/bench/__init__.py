"""Measuring the merge engine against a tuned single-purpose loop with the same duties."""
