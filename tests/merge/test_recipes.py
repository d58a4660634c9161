"""A merged file can be made again: from itself, from a recipe file, from other mergers' recipes."""
import json

import pytest
import torch

from lib_sdtrain.errors import UserError
from lib_sdtrain.events import CancelToken
from lib_sdtrain.model.convert import convert
from lib_sdtrain.model.hashes import legacy_hash, sha256
from lib_sdtrain.model.metadata import readable
from lib_sdtrain.model.tensorfile import open_tensors
from lib_sdtrain.settings.convert import ConvertSettings
from tests.merge.models import UNET, VAE, merged, read, run, same, state, write
from tests.model.small_files import write_small

FIRST = UNET + "input_blocks.0.0.weight"
NUMBERS = ",".join(str(round(0.04 * n, 2)) for n in range(26))


@pytest.fixture
def models(tmp_path):
    folder = tmp_path / "models"
    folder.mkdir()
    return {x: write(folder / f"{x}.safetensors", state(seed=n)) for n, x in enumerate("abc", start=1)}


def lora(path, seed=0, scale=1.0):
    torch.manual_seed(seed)
    name = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
    tensors = {f"{name}.lora_down.weight": torch.randn(2, 4), f"{name}.lora_up.weight": torch.randn(4, 2) * scale,
               f"{name}.alpha": torch.tensor(1.0)}  # fmt: skip
    return write(path, tensors)


@pytest.fixture
def vae(tmp_path):
    tensors = {key: t + 1 for key, t in state(seed=9).items() if key.startswith(VAE) and "nin_shortcut" not in key}
    return write(tmp_path / "models" / "vae.safetensors", tensors)


MERGES = {
    "one weight": {"alpha": 0.3},
    "block weights": {"weights_alpha": NUMBERS, "blocks": "supermerger-2023", "arithmetic": "fp16"},
    "a preset": {"weights_alpha": "GRAD_V", "dtype": "bf16", "discard": "betas"},
    "three models": {"method": "sum_twice", "weights_alpha": NUMBERS, "weights_beta": "OUT07"},
    "dice": {"weights_alpha": ",".join("R" * 26), "dice_seed": 7},
    "elements": {"alpha": 0.5, "elements": "IN01:attn1:0.1", "adjust": "1,2,3"},
    "any number of models": {"method": "dare", "alpha": 0.7, "seed": 5, "drop_rate": 0.25, "model": True},
    "VAE and LoRAs": {"alpha": 0.5, "vae": True, "lora": True, "ema": "drop"},
}


@pytest.mark.parametrize("settings", MERGES.values(), ids=MERGES)
def test_a_merged_file_is_made_again_bit_for_bit_with_its_parents_found_by_hash(tmp_path, models, vae, settings):
    settings = {"a": models["a"], "b": models["b"], **settings}
    if settings.get("method") == "sum_twice":
        settings["c"] = models["c"]
    if settings.get("model"):
        settings["model"] = [models["c"]]
    if settings.get("lora"):
        one, two = (lora(tmp_path / "models" / f"lora{n}.safetensors", n) for n in (1, 2))
        settings |= {"vae": vae, "lora": [f"{one}:0.7", f"{two}:-0.3:GRAD_A"]}
    first, _ = run(tmp_path, **settings)
    for path in list((tmp_path / "models").iterdir()):
        path.rename(path.with_name("renamed-" + path.name))
    out = str(tmp_path / "again.safetensors")
    again, _ = run(tmp_path, recipe=first["out"], search=[str(tmp_path / "models")], out=out)
    assert again["sha256"] == first["sha256"] == sha256(first["out"])
    assert first["blocks"] == again["blocks"]


def test_the_metadata_has_the_webui_mergers_form_and_nests_the_parents(tmp_path, models):
    out = str(tmp_path / "models" / "child.safetensors")
    child, _ = run(tmp_path, a=models["a"], b=models["b"], alpha=0.3, out=out)
    grandchild, _ = run(tmp_path, a=child["out"], b=models["c"], weights_alpha=NUMBERS)
    with open_tensors(grandchild["out"]) as file:
        metadata = readable(file.metadata)
    assert metadata["format"] == "pt"
    recipe, known = metadata["sd_merge_recipe"], metadata["sd_merge_models"]
    hashes = {x: sha256(path) for x, path in models.items()}
    assert recipe["primary_model_hash"] == child["sha256"]
    assert recipe["secondary_model_hash"] == hashes["c"]
    assert recipe["tertiary_model_hash"] is None
    assert recipe["interp_method"] == "Weighted sum"
    assert recipe["weights_alpha"] == [float(x) for x in NUMBERS.split(",")]
    assert set(known) == {child["sha256"], *hashes.values()}
    assert known[child["sha256"]]["name"] == "child.safetensors"
    assert known[child["sha256"]]["legacy_hash"] == legacy_hash(child["out"])
    assert known[child["sha256"]]["sd_merge_recipe"]["multiplier"] == 0.3
    assert known[hashes["a"]]["sd_merge_recipe"] is None
    assert str(tmp_path) not in json.dumps(metadata)


def test_the_file_does_not_depend_on_folders_names_of_presets_or_the_time(tmp_path, models):
    numbers = merged_hash(tmp_path, "one", a=models["a"], b=models["b"], weights_alpha=",".join(["0.25"] * 26))
    alpha = merged_hash(tmp_path, "two", a=models["a"], b=models["b"], alpha=0.25)
    assert numbers == alpha


def merged_hash(tmp_path, folder, **settings):
    return run(tmp_path, **settings, out=str(tmp_path / folder / "out.safetensors"))[0]["sha256"]


def test_a_recipe_file_does_as_well_as_the_merged_checkpoint(tmp_path, models):
    first, _ = run(tmp_path, a=models["a"], b=models["b"], weights_alpha=NUMBERS)
    with open_tensors(first["out"]) as file:
        document = readable(file.metadata)
    for name, content in (("whole.json", document), ("ours.json", document["sdtrain"])):
        recipe = tmp_path / name
        recipe.write_text(json.dumps(content))
        out = str(tmp_path / "again.safetensors")
        again, _ = run(tmp_path, recipe=str(recipe), search=[str(tmp_path / "models")], out=out)
        assert same(read(again["out"]), read(first["out"]))


def test_a_missing_parent_is_named_with_the_name_it_had(tmp_path, models):
    first, _ = run(tmp_path, a=models["a"], b=models["b"], alpha=0.3)
    (tmp_path / "models" / "b.safetensors").unlink()
    out = str(tmp_path / "again.safetensors")
    with pytest.raises(UserError, match=r"b: no file with the hash [0-9a-f]{10} \(called b.safetensors\) was found"):
        run(tmp_path, recipe=first["out"], search=[str(tmp_path / "models")], out=out)


def test_a_recipe_is_not_changed_by_other_settings(tmp_path, models):
    first, _ = run(tmp_path, a=models["a"], b=models["b"], alpha=0.3)
    with pytest.raises(UserError, match="alpha: a recipe decides this"):
        run(tmp_path, recipe=first["out"], alpha=0.5, out=str(tmp_path / "again.safetensors"))


def test_a_file_without_a_recipe_says_so(tmp_path, models):
    with pytest.raises(UserError, match="there is no merge recipe in this file"):
        run(tmp_path, recipe=models["a"])


def remade(tmp_path, recipe):
    """The tensors of a recipe's merge."""
    out = str(tmp_path / "again.safetensors")
    document, _ = run(tmp_path, recipe=str(recipe), search=[str(tmp_path / "models")], out=out)
    return read(document["out"])


def webui_recipe(models, **changes):
    recipe = {
        "type": "webui", "primary_model_hash": sha256(models["a"]), "secondary_model_hash": sha256(models["b"]),
        "tertiary_model_hash": None, "interp_method": "Weighted sum", "multiplier": 0.3, "save_as_half": True,
        "custom_name": "x", "config_source": 0, "bake_in_vae": "None", "discard_weights": "", "is_inpainting": False,
    }  # fmt: skip
    return {**recipe, **changes}


def test_what_the_webuis_merger_made_is_made_again(tmp_path, models):
    theirs = tmp_path / "theirs.safetensors"
    write(theirs, state(), {"format": "pt", "sd_merge_recipe": json.dumps(webui_recipe(models))})
    result = remade(tmp_path, theirs)
    a, b = read(models["a"]), read(models["b"])
    assert torch.equal(result[FIRST], (1 - 0.3) * a[FIRST] + 0.3 * b[FIRST])
    c = sha256(models["c"])
    changes = {"tertiary_model_hash": c, "interp_method": "Add difference", "discard_weights": "betas"}
    write(theirs, state(), {"sd_merge_recipe": json.dumps(webui_recipe(models, **changes))})
    result = remade(tmp_path, theirs)
    assert torch.equal(result[FIRST], a[FIRST] + 0.3 * (b[FIRST] - read(models["c"])[FIRST]))
    assert "betas" not in result


def test_what_supermerger_made_is_made_again(tmp_path, models):
    recipe = {
        "type": "sd-webui-supermerger", "weights_alpha": "0.5," * 25 + "0.5", "weights_beta": None,
        "weights_alpha_orig": NUMBERS, "weights_beta_orig": None, "model_a": sha256(models["a"]),
        "model_b": sha256(models["b"]), "model_c": "", "base_alpha": 0.0, "base_beta": 0.25,
        "mode": "Weight sum:A*(1-alpha)+B*alpha", "mbw": True, "elemental_merge": "", "calcmode": "normal",
    }  # fmt: skip
    theirs = write(tmp_path / "theirs.safetensors", state(), {"sd_merge_recipe": json.dumps(recipe)})
    same_merge = merged(tmp_path, a=models["a"], b=models["b"], weights_alpha=NUMBERS, blocks="supermerger-2023")
    assert same(remade(tmp_path, theirs), same_merge)


HISTORY = (
    '"ID","time","name","weights alpha","weights beta","model A","model B","model C","alpha","beta","mode","use MBW",'
    '"plus lora","custum name","save setting","use ID"\n'
    "1,2023.05.01 10.00.00,one,,,{a},{b},,0.25,0.25,Weight sum:A*(1-alpha)+B*alpha,False,,['save model'],[],,normal,\n"
    '2,2023.05.01 11.00.00,two,"{numbers}","{numbers}",{a},{b},{c},0.0,0.0,Triple sum:A*(1-alpha-beta)+B*alpha+C*beta,'
    'True,,[],[],"IN01:attn1:0.5",normal,\n'
)


def test_supermergers_history_is_read_by_id(tmp_path, models):
    hashes = {x: sha256(path)[:10] for x, path in models.items()}
    history = tmp_path / "mergehistory.csv"
    history.write_text(HISTORY.format(numbers=NUMBERS, **hashes))
    one = remade(tmp_path, f"{history}:1")
    assert same(one, merged(tmp_path, a=models["a"], b=models["b"], alpha=0.25, blocks="supermerger-2023"))
    two = remade(tmp_path, f"{history}:2")
    expected = merged(
        tmp_path, a=models["a"], b=models["b"], c=models["c"], method="triple_sum", weights_alpha=NUMBERS,
        weights_beta=NUMBERS, elements="IN01:attn1:0.5", blocks="supermerger-2023",
    )  # fmt: skip
    assert same(two, expected)
    with pytest.raises(UserError, match=r"there is no merge '3'; IDs go from 1 to 2"):
        remade(tmp_path, f"{history}:3")


def test_what_a_recipe_does_not_use_is_said(tmp_path, models):
    first, _ = run(tmp_path, a=models["a"], b=models["b"], alpha=0.3)
    out, network = tmp_path / "again.safetensors", lora(tmp_path / "models" / "l.safetensors")
    given = {"recipe": first["out"], "search": [str(tmp_path / "models")], "out": str(out)}
    with pytest.raises(UserError, match="lora: no such file: nonexistent") as caught:
        run(tmp_path, **given, lora=["nonexistent:1"], b="nothere")
    assert {problem.where for problem in caught.value.problems} == {"lora", "b"}
    with pytest.raises(UserError) as caught:
        run(tmp_path, **given, lora=[f"{network}:1"], c=models["c"])
    assert [str(problem) for problem in caught.value.problems] == [
        f"{role}: {name} is none of the recipe's files; leave it out"
        for role, name in (("c", "c.safetensors"), ("lora", "l.safetensors"))
    ]
    assert not out.exists()
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes((tmp_path / "models" / "b.safetensors").read_bytes())
    assert run(tmp_path, **given, b=str(copy))[0]["sha256"] == first["sha256"]


def test_the_toybox_a_folder_and_a_lora_are_found(tmp_path, models):
    network = lora(tmp_path / "l.safetensors")
    first, _ = run(tmp_path, a=models["a"], method="no_interpolation", lora=[f"{network}:0.5"])
    out = str(tmp_path / "again.safetensors")
    again, _ = run(tmp_path, recipe=first["out"], a=models["a"], lora=[f"{network}:1"], out=out)
    assert again["sha256"] == first["sha256"]  # weights are the recipe's
    toy, _ = run(tmp_path, a="toybox", method="no_interpolation", out=str(tmp_path / "toy.safetensors"))
    again, _ = run(tmp_path, recipe=toy["out"], out=out)
    assert again["sha256"] == toy["sha256"]


def test_a_folder_is_found_and_may_be_given(tmp_path):
    folder = tmp_path / "models" / "inner" / "folder"
    list(convert(ConvertSettings(file=str(write_small(tmp_path / "m.safetensors")), out=str(folder)), CancelToken()))
    first, _ = run(tmp_path, a=str(folder), method="no_interpolation")
    for given in ({"search": [str(tmp_path / "models")]}, {"a": str(folder)}):
        again, _ = run(tmp_path, recipe=first["out"], out=str(tmp_path / "again.safetensors"), **given)
        assert again["sha256"] == first["sha256"]
