"""Architectures for the tests of this folder, and the layouts of published files."""
import gzip
import json
from dataclasses import replace
from functools import cache
from pathlib import Path

from lib_sdtrain.model.family import PUBLISHED, SD1, SD2, SDXL, UNetConfig, VAEConfig

DATA = Path(__file__).parent.parent / "data" / "parity"


@cache
def file_shapes(name):
    """Key -> shape of a real file layout: tiny-sd1, tiny-sdxl or full-sd15."""
    table = json.loads(gzip.decompress((DATA / "shapes.json.gz").read_bytes()))[name]
    return {key: tuple(shape) for key, shape, _ in table}


def _small(text, layers, **changes):
    return replace(text, width=64, layers=layers, intermediate=128, vocab_size=1000, **changes)


@cache
def small_family(name):
    """Every kind of block at uneven sizes: other widths, depths and numbers of blocks in each level."""
    known = PUBLISHED[name]
    vae = VAEConfig(ch=32, ch_mult=(1, 2, 2), num_res_blocks=1)
    if name == SD1:
        unet = UNetConfig(
            model_channels=32, channel_mult=(1, 2, 3), num_res_blocks=(1, 2, 1), transformer_depth=(1, 2, 0),
            middle_depth=1, context_dim=64, heads=(4, 4, 4),
        )
        return replace(known, unet=unet, vae=vae, text=(_small(known.text[0], 4),))
    if name == SD2:
        unet = UNetConfig(
            model_channels=32, channel_mult=(1, 2), num_res_blocks=(1, 1), transformer_depth=(1, 0), context_dim=64,
            heads=(2, 4), linear_projection=True,
        )
        return replace(known, unet=unet, vae=vae, text=(_small(known.text[0], 4),))
    assert name == SDXL
    text = (_small(known.text[0], 4, hidden_index=3), _small(known.text[1], 4, projection=48))
    unet = UNetConfig(
        model_channels=32, channel_mult=(1, 2, 2), num_res_blocks=(1, 1, 1), transformer_depth=(0, 1, 2),
        middle_depth=2, context_dim=128, heads=(2, 4, 4), linear_projection=True, adm_in_channels=48 + 6 * 256,
    )
    return replace(known, unet=unet, vae=vae, text=text)
