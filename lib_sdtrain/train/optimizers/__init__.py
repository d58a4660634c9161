"""Optimizers: those of torch and of other packages by name, and five that are written here."""
