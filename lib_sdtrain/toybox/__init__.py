"""The toybox: a small world that the project draws itself, and the small Stable Diffusion trained on it."""
