"""Around the words of a prompt: comments, `AND` with weights, and `<lora:name:weight>`."""
from __future__ import annotations

import re
from dataclasses import replace
from typing import NamedTuple

from lib_sdtrain.settings.sample import SampleRequest

_COMMENT_LINE, _COMMENT = re.compile(r"(?:^|\n)#[^\n]*(?:\n|$)"), re.compile(r"#[^\n]*(?:\n|$)")
_AND = re.compile(r"\bAND\b")
_WEIGHT = re.compile(r"\s*:\s*(?P<weight>[-+]?(?:\d+\.?|\d*\.\d+))\s*$")
_NETWORK = re.compile(r"<(?P<kind>\w+):(?P<arguments>[^>]+)>")


class Part(NamedTuple):
    """One side of an `AND`, with its weight."""

    text: str
    weight: float


class Network(NamedTuple):
    """`<kind:name:...>` of a prompt."""

    kind: str
    positional: tuple[str, ...]
    named: dict[str, str]


def uncommented(prompt: str) -> str:
    """The prompt without its comments: `#` and what follows it on its line.

    Source: AUTOMATIC1111 WebUI 1.10.1, processing_scripts/comments.py (semantics).
    """
    return _COMMENT.sub("\n", _COMMENT_LINE.sub("\n", prompt))


def without_comments(request: SampleRequest) -> SampleRequest:
    """The request with its prompts uncommented, unless its options leave comments in."""
    if not request.options.enable_prompt_comments:
        return request
    names = ("prompt", "negative_prompt", "hr_prompt", "hr_negative_prompt")
    return replace(request, **{name: uncommented(getattr(request, name)) for name in names})


def composed(prompt: str) -> list[Part]:
    """The sides of `a :0.7 AND b`; a weight stands at the end of a side and is 1 when absent.

    Source: AUTOMATIC1111 WebUI 1.10.1, prompt_parser.py:get_multicond_prompt_list (semantics); Liu et al. 2022,
    Compositional Visual Generation with Composable Diffusion Models.
    """
    parts = []
    for side in _AND.split(prompt):
        found = _WEIGHT.search(side)
        if found:
            parts.append(Part(side[: found.start()], float(found["weight"])))
        else:
            parts.append(Part(side.rstrip(), 1.0))
    return parts


def networks(prompt: str) -> tuple[str, list[Network]]:
    """The prompt without its `<kind:...>` marks, and those marks in order."""
    found = []
    for match in _NETWORK.finditer(prompt):
        positional, named = [], {}
        for item in match["arguments"].split(":"):
            name, equals, value = item.partition("=")
            if equals and "=" not in value:
                named[name] = value
            else:
                positional.append(item)
        found.append(Network(match["kind"], tuple(positional), named))
    return _NETWORK.sub("", prompt), found
