"""Open the tab without the WebUI, in the browser."""
from __future__ import annotations

import argparse

from lib_sdtrain.cli.run import DONE


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `ui`."""
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: this computer only)")
    parser.add_argument("--port", type=int, default=7870, help="port (default: 7870)")
    parser.add_argument("--api", action="store_true", help="serve /sdtrain/v1/ for other programs too")
    parser.add_argument("--api-auth", default="", metavar="USER:PASSWORD", help="who may use it (with commas: several)")


def run(args: argparse.Namespace) -> int:
    """Serve until interrupted."""
    from lib_sdtrain.api.access import parse_users
    from lib_sdtrain.ui.standalone import launch

    launch(args.host, args.port, api=args.api or bool(args.api_auth), users=parse_users(args.api_auth),
           tell=lambda address: print(f"SD Train is at {address}", flush=True))  # fmt: skip
    return DONE
