"""Samplers as pure functions in the papers' notation, one small file a family, and the table of their names."""
