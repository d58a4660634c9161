"""Our side of the measurement: a process that has a checkpoint loaded and answers requests, one line each.

A line of standard input is a body of /sdapi/v1/txt2img; the answer is a line of JSON with `pictures`.
"""
from __future__ import annotations

import json
import sys

from lib_sdtrain.model.build import load_model
from lib_sdtrain.model.checkpoint import find_checkpoint, open_checkpoint
from lib_sdtrain.sample.generate import Surroundings, generate
from lib_sdtrain.sample.models import pick_device, pick_dtype
from lib_sdtrain.sample.requests import from_api
from lib_sdtrain.sample.text_encoding import EncodingCache


def main() -> None:
    """Load, say so, answer until the input ends."""
    device = pick_device("auto")
    model = load_model(open_checkpoint(find_checkpoint(sys.argv[1])), device, pick_dtype("auto", device))
    around = Surroundings(encodings=EncodingCache())
    sys.stdout.write('{"ready": true}\n')
    sys.stdout.flush()
    for line in sys.stdin:
        drawn = sum(1 for _ in generate(model, from_api(json.loads(line)), surroundings=around))
        sys.stdout.write(json.dumps({"pictures": drawn}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
