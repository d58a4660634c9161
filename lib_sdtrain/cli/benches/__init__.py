"""What `bench` can measure: one module each, with `add_arguments(parser)` and `run(args)`, named in `BENCHES`.

Modules load no more than `--help` needs.
"""
from __future__ import annotations

BENCHES = {
    "quality": "how good toybox is, and what DreamBooth teaches it",
    "merge": "a block merge of two full models against a tuned loop",
    "train": "a DreamBooth step against a plain loop of what stock trainers do in one",
    "data": "what data sets of a thousand to a million pictures cost, and decoding against plain Pillow",
    "states": "what it costs to save the state that a run goes on from",
    "sample": "a request with the model loaded against the WebUI's own time for it",
}
