"""Open the tab without the WebUI, in the browser."""
from __future__ import annotations

import argparse

from lib_sdtrain.cli.run import DONE


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `ui`."""
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: this computer only)")
    parser.add_argument("--port", type=int, default=7870, help="port (default: 7870)")


def run(args: argparse.Namespace) -> int:
    """Serve until interrupted."""
    from lib_sdtrain.ui.standalone import launch

    launch(args.host, args.port, tell=lambda address: print(f"SD Train is at {address}", flush=True))
    return DONE
