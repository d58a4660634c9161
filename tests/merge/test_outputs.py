"""No result takes the place of a file that it is made of."""
import json

import pytest

from lib_sdtrain.cli.main import main
from lib_sdtrain.errors import UserError
from tests.merge.models import VAE, run, state, write
from tests.merge.test_lora import KOHYA, rand

READ = "is one of the files that are read"


def unchanged(folder):
    """Every file's bytes, but for the cache of hashes."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != "hashes.json"}


def refused(tmp_path, said, **settings):
    before = unchanged(tmp_path)
    with pytest.raises(UserError, match=said):
        run(tmp_path, **settings)
    assert unchanged(tmp_path) == before


def lora(path):
    return write(path, {f"{KOHYA}.lora_down.weight": rand(2, 4), f"{KOHYA}.lora_up.weight": rand(4, 2)})


def test_the_result_is_neither_the_vae_nor_a_lora(tmp_path, pair):
    tensors = {key: t for key, t in state(seed=9).items() if key.startswith(VAE) and "nin_shortcut" not in key}
    vae, network = write(tmp_path / "vae.safetensors", tensors), lora(tmp_path / "l.safetensors")
    refused(tmp_path, f"vae.safetensors {READ}", a=pair["a"], b=pair["b"], vae=vae, out=vae)
    refused(tmp_path, f"l.safetensors {READ}", a=pair["a"], b=pair["b"], lora=[f"{network}:1"], out=network)
    before = unchanged(tmp_path)
    assert main(["lora-bake", pair["a"], f"{network}:1", "--out", network]) == 2
    assert unchanged(tmp_path) == before


def test_the_result_is_no_part_of_a_folder_that_is_read(tmp_path, pair, monkeypatch):
    folder = tmp_path / "model"
    folder.mkdir()
    refused(tmp_path, r"lies in model, which is one of the models", a=str(folder), b=pair["b"],
            out=str(folder / "unet.safetensors"))


def test_neither_the_result_nor_its_description_replaces_the_recipe(tmp_path, pair):
    first, _ = run(tmp_path, a=pair["a"], b=pair["b"], out=str(tmp_path / "first.safetensors"))
    from lib_sdtrain.model.metadata import readable
    from lib_sdtrain.model.tensorfile import open_tensors

    with open_tensors(first["out"]) as file:
        recipe = tmp_path / "mix.yaml"
        recipe.write_text(json.dumps(readable(file.metadata)))
    given = {"search": [str(tmp_path), str(tmp_path.parent)]}
    refused(tmp_path, r"mix.yaml is read, and the result's own description takes that name", recipe=str(recipe),
            out=str(tmp_path / "mix.safetensors"), **given)
    refused(tmp_path, READ, recipe=first["out"], out=first["out"], **given)


def test_the_description_of_another_model_is_not_replaced(tmp_path, pair):
    """A's may be: the result has the same one."""
    yaml = "model:\n  params:\n    parameterization: v\n"
    write(tmp_path / "x.safetensors", state(seed=4), yaml=yaml)
    other = tmp_path / "x.ckpt"
    (tmp_path / "x.safetensors").rename(other)  # what a file is shows in its first bytes
    refused(tmp_path, r"x.yaml is read", a=pair["a"], b=str(other), out=str(tmp_path / "x.safetensors"))
    run(tmp_path, a=str(other), b=pair["a"], out=str(tmp_path / "x.safetensors"))
    assert (tmp_path / "x.yaml").read_text() == yaml
