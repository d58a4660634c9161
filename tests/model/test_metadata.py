"""Provenance: the WebUI merger's form, deterministic, and complete for a lineage."""
import hashlib
import json

import pytest
import torch
from safetensors.torch import save_file

from lib_sdtrain.model.hashes import HashCache, legacy_hash, model_digest
from lib_sdtrain.model.metadata import (
    MERGE,
    TRAIN,
    Parent,
    carried,
    lineage,
    parent_of,
    provenance,
    readable,
    recipe_of,
)

BASE = Parent("b" * 64, "1234abcd", "base.safetensors")
# As the WebUI 1.10.1 merger writes them.
WEBUI_RECIPE = {"type": "webui", "primary_model_hash": "c" * 64, "interp_method": "Weighted sum", "multiplier": 0.3}
WEBUI_MODELS = {"c" * 64: {"name": "old.ckpt", "legacy_hash": "00000000", "sd_merge_recipe": None}}
MERGED = Parent(
    "d" * 64, "deadbeef", "merged.safetensors",
    {"format": "pt", "sd_merge_recipe": json.dumps(WEBUI_RECIPE), "sd_merge_models": json.dumps(WEBUI_MODELS)},
)  # fmt: skip


def test_a_trained_file_names_its_parent_settings_data_and_versions():
    made = provenance(TRAIN, {"train.seed": 3}, {"checkpoint": BASE}, {"torch": "2.13.0"}, data="f" * 64)
    assert made["format"] == "pt"
    assert json.loads(made["sdtrain"]) == {
        "kind": "train", "format": 1, "settings": {"train.seed": 3}, "data": "f" * 64,
        "versions": {"torch": "2.13.0"}, "parents": {"checkpoint": "b" * 64},
    }  # fmt: skip
    assert json.loads(made["sd_merge_models"]) == {
        "b" * 64: {"name": "base.safetensors", "legacy_hash": "1234abcd", "sd_merge_recipe": None}
    }
    assert "sd_merge_recipe" not in made
    assert recipe_of(made)["kind"] == "train"


def test_a_merge_carries_the_recipes_of_all_its_ancestors():
    trained = Parent("e" * 64, "11111111", "t", provenance(TRAIN, {"x": 1}, {"checkpoint": BASE}, {}))
    made = provenance(MERGE, {}, {"a": MERGED, "b": trained}, {}, recipe={"method": "weighted_sum"})
    assert recipe_of(made) == {"type": "sdtrain", "method": "weighted_sum"}
    models = lineage(made)
    assert set(models) == {"b" * 64, "c" * 64, "d" * 64, "e" * 64}
    assert models["d" * 64]["sd_merge_recipe"] == WEBUI_RECIPE
    assert models["e" * 64]["sdtrain"]["settings"] == {"x": 1}
    assert models["c" * 64] == WEBUI_MODELS["c" * 64]


def test_the_same_work_gives_the_same_text_in_any_order_of_the_arguments():
    one = provenance(MERGE, {"a": 1, "b": 2}, {"a": BASE, "b": MERGED}, {"x": "1", "y": "2"}, recipe={"p": 1, "q": 2})
    two = provenance(MERGE, {"b": 2, "a": 1}, {"b": MERGED, "a": BASE}, {"y": "2", "x": "1"}, recipe={"q": 2, "p": 1})
    assert one == two


@pytest.mark.parametrize("damage", ["{", "[1]", "", '{"a": NaN', "text", "{" * 100_000])
def test_damaged_metadata_of_a_parent_is_no_obstacle(damage):
    parent = Parent("a" * 64, "0", "p", {"sd_merge_recipe": damage, "sd_merge_models": damage, "sdtrain": damage})
    assert recipe_of(parent.metadata) is None
    assert set(lineage(provenance(MERGE, {}, {"a": parent}, {}))) == {"a" * 64}


def test_metadata_reads_as_the_webui_reads_it():
    assert readable({"a": '{"x": 1}', "b": "text", "c": "{broken"}) == {"a": {"x": 1}, "b": "text", "c": "{broken"}


def test_a_converted_file_keeps_titles_but_no_hash_or_recipe():
    of_one_file = {"modelspec.hash_sha256": "0x1", "sd_merge_recipe": "{}", "sdtrain": "{}", "format": "pt"}
    assert carried({"modelspec.title": "T", **of_one_file}) == {"modelspec.title": "T"}


def test_a_parent_is_known_by_its_files_hashes(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file({"a": torch.zeros(300_000)}, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    cache = HashCache(tmp_path / "cache.json")
    parent = parent_of(path, {"k": "v"}, cache)
    assert parent == Parent(digest, legacy_hash(path), "model.safetensors", {"k": "v"})
    assert cache.get(path) == digest


def test_a_folder_is_known_by_the_list_of_its_weights(tmp_path):
    for part in ("vae", "unet"):
        (tmp_path / part).mkdir()
        save_file({"a": torch.zeros(1)}, tmp_path / part / "model.safetensors")
    digest = hashlib.sha256((tmp_path / "vae" / "model.safetensors").read_bytes()).hexdigest()
    listing = f"{digest}  unet/model.safetensors\n{digest}  vae/model.safetensors\n"
    assert model_digest(tmp_path) == hashlib.sha256(listing.encode()).hexdigest()
    assert parent_of(tmp_path, {}).legacy_hash == ""
