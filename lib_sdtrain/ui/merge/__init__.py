"""The Merge sub-tab: models, method, a weight for every block, and what came of it."""
