"""`python -m lib_sdtrain.toybox.make STAGE --work DIR`: train the toybox model, stage by stage, resumable."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from lib_sdtrain.events import Event, Step

STAGES = ("judge", "autoencoder", "decoder", "pictures", "beginning", "diffusion", "export")


def main() -> None:
    """Run one stage."""
    parser = argparse.ArgumentParser(prog="python -m lib_sdtrain.toybox.make", description=__doc__)
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument("--work", type=Path, required=True, help="folder for pictures, latents, states and logs")
    parser.add_argument("--steps", type=int, default=0, help="length in steps, counted from the very beginning")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "toybox.safetensors")
    parser.add_argument("--parent", type=Path, help="beginning: a toybox whose text encoder and UNet are trained on")
    parser.add_argument("--begin", type=int, default=0, help="autoencoder: the learning rate's curve starts anew here")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    import torch

    from lib_sdtrain.train.allocator import keep_freed_memory

    keep_freed_memory()
    torch.set_num_threads(arguments.threads)
    arguments.work.mkdir(parents=True, exist_ok=True)
    from lib_sdtrain.toybox import judge
    from lib_sdtrain.toybox.make import assemble, autoencoder, diffusion

    if arguments.stage == "judge":
        judge.save_judge(judge.train_judge(), judge.SHIPPED)
    elif arguments.stage == "autoencoder":
        autoencoder.train(arguments.work, arguments.steps or 10000, arguments.begin)
    elif arguments.stage == "decoder":
        autoencoder.train_decoder(arguments.work, arguments.steps or 3000)
    elif arguments.stage == "pictures":
        diffusion.write_pictures(arguments.work)
    elif arguments.stage == "beginning":
        print(diffusion.write_beginning(arguments.work, arguments.parent))
    elif arguments.stage == "diffusion":
        _follow(diffusion.train(arguments.work, arguments.steps))
    else:
        print(assemble.publish(arguments.work, arguments.out))


def _follow(events: Iterator[Event]) -> None:
    for event in events:
        if isinstance(event, Step) and event.step % 50 == 0:
            print(f"step {event.step} loss {event.smoothed:.4f}", flush=True)


if __name__ == "__main__":
    main()
