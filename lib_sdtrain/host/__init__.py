"""What the engine's surroundings offer: the WebUI, or nothing but a folder. The only place that imports `modules.*`."""
