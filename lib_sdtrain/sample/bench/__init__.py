"""How long a request takes with the model loaded, in turn with the WebUI's own time for it."""
