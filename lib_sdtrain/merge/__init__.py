"""Merging checkpoints block by block: block tables, methods, recipes, and the streaming engine."""
