"""Small random checkpoints of the families in layouts.py, in every form in which people have them."""
import torch
from safetensors.torch import save_file

from lib_sdtrain.model.build import empty_modules
from lib_sdtrain.model.keys import part_rows
from lib_sdtrain.model.keys.vae import is_attention_matrix
from lib_sdtrain.model.ldm_yaml import describe


def file_shape(row, shapes):
    first = shapes[row.names[0]]
    shape = (first[0] * len(row.names), *first[1:])
    if row.transposed:
        return shape[::-1]
    return (*shape, 1, 1) if is_attention_matrix(row.key) else shape


def random_tensors(family, seed=0, dtype=torch.float32):
    """Every tensor of the family under its LDM/SGM key, and what else files of its kind carry."""
    generator = torch.Generator().manual_seed(seed)
    modules, tensors = empty_modules(family), {}
    for part, rows in part_rows(family).items():
        shapes = {name: tuple(p.shape) for name, p in modules[part].named_parameters()}
        for row in rows:
            tensors[row.key] = _value(row.key, file_shape(row, shapes), generator).to(dtype)
    for text in family.text:
        if text.layout == "open_clip":
            tensors[f"{text.prefix}logit_scale"] = torch.tensor(4.6)
            tensors.setdefault(f"{text.prefix}text_projection", torch.eye(text.width, dtype=dtype))
        else:
            tensors[f"{text.prefix}text_model.embeddings.position_ids"] = torch.arange(text.positions)[None]
    return tensors


def _value(key, shape, generator):
    noise = torch.randn(shape, generator=generator)
    if "embedding" in key:
        return noise * 0.3
    if len(shape) > 1:
        return noise / noise[0].numel() ** 0.5
    return 0.02 * noise + (key.endswith("weight"))


def write_small(path, family, tensors=None, config=True, metadata=None):
    """A checkpoint at `path`, its description beside it."""
    tensors = random_tensors(family) if tensors is None else tensors
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, path, metadata=metadata)
    if config:
        path.with_suffix(".yaml").write_text(describe(family))
    return path
