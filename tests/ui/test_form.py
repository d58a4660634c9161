"""What of the form is the user's own, and what a change of preset does to it."""
from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from lib_sdtrain import textfiles
from lib_sdtrain.api.choice import Choice
from lib_sdtrain.api.copies import command_line
from lib_sdtrain.api.service import Outlook
from lib_sdtrain.api.services import Services
from lib_sdtrain.cli.flags import parse_assignments
from lib_sdtrain.errors import Problem, UserError
from lib_sdtrain.host.standalone import StandaloneHost
from lib_sdtrain.settings.layers import Layer, resolve
from lib_sdtrain.settings.run import RunSettings
from lib_sdtrain.ui.texts import problems_html, size_text, time_text
from lib_sdtrain.ui.train.concepts import CONCEPTS, FIRST, Concepts
from lib_sdtrain.ui.train.form import Form, default_values, idle_controls, idle_html
from lib_sdtrain.ui.train.handlers import TrainHandlers
from lib_sdtrain.ui.train.plan_view import plan_html
from lib_sdtrain.ui.train.words import prompts, read_prompts, read_words, reading_html
from tests.fake_engine import FakeEngine

PRESET = "toybox-dreambooth"


@pytest.fixture
def services(tmp_path: Path) -> Services:
    return Services(StandaloneHost(tmp_path), FakeEngine("/pictures"))


@pytest.fixture
def service(services):
    return services.train


@pytest.fixture
def form(service) -> Form:
    return Form(service)


def test_an_untouched_form_changes_nothing(form):
    assert form.choice(PRESET, form.filled(Choice(PRESET))).changes == {}


def test_only_what_was_touched_is_the_users(form):
    values = {**form.filled(Choice(PRESET)), "train.length": "55"}
    assert form.choice(PRESET, values).changes == {"train.length": "55"}


def test_the_chosen_checkpoint_is_named_as_the_settings_want_it(form):
    values = {**form.filled(Choice()), "model.checkpoint": "toybox (built in, small)"}
    assert form.service.resolve(form.choice("", values)).settings.model.checkpoint == "toybox"


def test_another_preset_keeps_what_the_user_changed_and_it_does_not_speak_of(form):
    values = {**form.filled(Choice()), "train.batch_size": 3, "train.length": "999", f"{FIRST}.name": "mine"}
    after = form.after_preset("", PRESET, values)
    assert after["train.batch_size"] == 3
    assert after["train.length"] == "40"
    assert after[f"{FIRST}.name"] == "sks-cup"


def test_a_preset_used_twice_gets_a_new_name_instead_of_a_refusal(form, tmp_path, monkeypatch):
    monkeypatch.setattr(StandaloneHost, "checkpoint_dir", lambda self: tmp_path)
    values = {**form.filled(Choice()), "save.name": "cat"}
    assert form.after_preset("", PRESET, values)["save.name"] == "cat"
    (tmp_path / "cat.safetensors").touch()
    assert form.after_preset("", PRESET, values)["save.name"] == "cat-2"


def test_where_each_value_came_from(service):
    resolved = service.resolve(Choice(PRESET, {"train.batch_size": 2}))
    assert resolved.origin("train.length") == f"preset {PRESET}"
    assert resolved.origin("train.batch_size") == "this page"
    assert resolved.origin("data.resolution") == "sd1 on cpu"


def test_a_preset_of_ones_own_comes_back_as_it_was(service, form, services):
    handlers = TrainHandlers(services)
    values = {**form.filled(Choice(PRESET)), "train.length": "55", f"{FIRST}.instance_prompt": "a photo of xyz"}
    assert "Saved" in handlers.save_preset("my own", PRESET, values)
    assert service.presets.names() == [PRESET, "my-own"]
    again = form.filled(Choice("my-own"))
    assert {**again, CONCEPTS: None} == {**values, CONCEPTS: None}
    assert Concepts.of(again) == Concepts.of(values)


@pytest.mark.parametrize("name", ["", "  ", PRESET])
def test_presets_need_a_name_of_their_own(service, form, name, services):
    answer = TrainHandlers(services).save_preset(name, "", form.filled(Choice()))
    assert "sdtrain-problems" in answer


def test_a_preset_with_a_syntax_error_is_told_and_the_others_work(service, form):
    service.presets.folder.mkdir(parents=True)
    (service.presets.folder / "broken.yaml").write_text("train: [", encoding="utf-8")
    assert service.presets.names() == [PRESET, "broken"]
    with pytest.raises(UserError, match="not valid YAML"):
        form.filled(Choice("broken"))
    assert form.filled(Choice(PRESET))["train.length"] == "40"


def test_a_preset_file_that_was_put_there_is_used_by_its_name(service, form):
    service.presets.folder.mkdir(parents=True)
    there = service.presets.folder / "my own (2).yaml"
    there.write_text("train: {length: 77}", encoding="utf-8")
    assert service.presets.names() == [PRESET, "my own (2)"]
    assert form.filled(Choice("my own (2)"))["train.length"] == "77"
    assert service.presets.delete("my own (2)") == "my own (2)"
    assert not there.exists()


def test_outputs_that_cannot_be_written_are_told(service, form, tmp_path, services):
    (tmp_path / "outputs").write_text("a file is in the way", encoding="utf-8")
    assert "cannot be written" in TrainHandlers(services).save_preset("mine", "", form.filled(Choice()))
    folder, message = TrainHandlers(services).drop([__file__.replace(".py", ".png")])
    assert folder == ""
    assert "cannot be kept" in message


def test_the_yaml_gives_the_same_run(service, form, services):
    values = {**form.filled(Choice(PRESET)), "train.length": "30 epochs", "loss.min_snr_gamma": "5"}
    text = TrainHandlers(services).yaml(PRESET, values)
    from lib_sdtrain.settings.parse import build

    again = build(RunSettings, textfiles.parse_yaml(text, "yaml"))
    assert again == service.resolve(form.choice(PRESET, values)).settings


def test_a_value_that_cannot_be_read_hides_no_other_mistake(service, form):
    values = {**form.filled(Choice(PRESET)), "train.learning_rate": "fast", "train.seed": "x",
              f"{FIRST}.instance_dir": "/nowhere"}  # fmt: skip
    found = service.outlook(form.choice(PRESET, values)).problems
    assert {problem.where for problem in found} == {"train.learning_rate", "train.seed", f"{FIRST}.instance_dir"}


def test_the_command_names_preset_and_changes():
    line = command_line(Choice(PRESET, {"train.length": "30 epochs", "save.name": "a b"}))
    assert line == f"python -m lib_sdtrain train --preset {PRESET} --set 'train.length=30 epochs' --set 'save.name=a b'"


@pytest.mark.parametrize(("path", "value"), [
    ("data.concepts.0.instance_prompt", "[filewords]"), ("data.concepts.0.instance_prompt", "photo #1 of sks"),
    ("data.concepts.0.instance_prompt", "sks: a cat"), ("data.concepts.0.instance_prompt", "{red|blue} cat, 'so'"),
    ("data.concepts.0.class_prompt", ""), ("save.dir", ""), ("save.name", "007"), ("save.name", "1e5"),
    ("save.name", "on"), ("save.name", "null"), ("data.pad_color", "#ffffff"), ("data.caption_separator", ", "),
    ("data.concepts.0.instance_dir", "C:\\pictures\\sks cat"), ("train.learning_rate", "1e-6"), ("train.seed", 5),
    ("train.step_in_backward", True), ("ema.decay", None), ("data.replace_words", {"a": "é"}),
])
def test_the_command_says_to_a_shell_what_was_chosen(path, value):
    words = shlex.split(command_line(Choice("", {path: value})))
    assert words[:5] == ["python", "-m", "lib_sdtrain", "train", "--set"]
    concept = {"data.concepts": [{"instance_dir": "x", "instance_prompt": "y"}]}
    read, meant = (resolve(RunSettings, [Layer("base", concept), Layer("test", given)]).settings
                   for given in (parse_assignments(words[5:]), {path: value}))  # fmt: skip
    assert read == meant


def test_the_guides_prompts():
    assert prompts("sks", "dog", True) == ("a photo of sks dog", "a photo of a dog")
    assert prompts("sks", "old owl", True) == ("a photo of sks old owl", "a photo of an old owl")
    assert prompts("sks", "dog", False) == ("a photo of sks dog", "")
    assert prompts(" ", "", True) == ("", "")


@pytest.mark.parametrize(("instance", "kept", "words"), [
    ("a photo of sks dog", "a photo of dog", ("sks", "dog", True)),
    ("a photo of sks big dog", "a photo of a big dog", ("sks", "big dog", True)),
    ("a photo of zwx cat", "", ("zwx", "cat", False)),
    ("[filewords]", "", ("sks", "", True)),
    ("", "", ("sks", "", True)),
])  # fmt: skip
def test_the_words_are_read_back_from_the_prompts(instance, kept, words):
    found = read_prompts(instance, kept)
    assert (found.identifier, found.class_word, found.keep_class) == words


def test_clip_reads_sks_as_one_token_and_warns_of_common_pieces():
    assert read_words("sks").pieces == ("sks</w>",)
    assert not read_words("sks").warning
    assert "splits" in read_words("mydoggy").warning


def test_words_of_users_are_text():
    assert "<script" not in reading_html("<script>", "<b>")
    assert "<b>" not in problems_html([Problem("<i>", "<u>", "<s>")]).replace("<b>&lt;i&gt;</b>", "")


@pytest.mark.parametrize(("count", "text"), [(0, "0 B"), (950, "950 B"), (1500, "1.5 KB"), (2.1e9, "2.1 GB")])
def test_sizes_for_people(count, text):
    assert size_text(count) == text


@pytest.mark.parametrize(("seconds", "text"), [(0.2, "1 s"), (65, "65 s"), (600, "10 min"), (9000, "2.5 h")])
def test_durations_for_people(seconds, text):
    assert time_text(seconds) == text


def test_what_makes_it_fit_goes_into_the_form_and_is_told(services, form):
    handlers = TrainHandlers(services)
    values = {**form.filled(Choice(PRESET)), "train.length": "77"}
    opening = handlers.fitted(PRESET, 8, values)
    assert opening.values["train.gradient_checkpointing"] is True
    assert opening.values["train.length"] == "77"
    assert "3.5 GB instead of 9.9 GB" in opening.message
    with pytest.raises(UserError, match="does not fit"):
        handlers.fitted(PRESET, 2, values)


def test_the_plan_says_what_memory_is_for_and_offers_to_fit():
    document = {"images": 1, "steps": 2, "memory_bytes": 9 * 2**30, "disk_bytes": 5,
                "memory_available": 8 * 2**30, "memory": {"words": "training: 7 GB optimizer"}}  # fmt: skip
    shown = plan_html(Outlook(document, (), {}))
    assert "training: 7 GB optimizer" in shown
    assert all(f"data-fit='{size}'" in shown for size in (8, 11, 12, 16, 24))
    assert "9.0 GB of memory are more than there is (8.0 GB)" in shown
    assert "data-fit='null'" in shown
    assert "more than there is" not in plan_html(Outlook({**document, "memory_available": 10 * 2**30}, (), {}))


def test_controls_that_do_not_matter_as_the_others_stand():
    values = default_values()
    idle = set(idle_controls(values))
    assert {"method.rank", "ema.power", "ema.warm_up", f"{FIRST}.num_class_images", "preview.every"} <= idle
    assert not {"method.kind", "ema.decay", "train.learning_rate", f"{FIRST}.class_prompt"} & idle

    values |= {"method.kind": "lora", "ema.decay": "0.99", f"{FIRST}.class_prompt": "a cat", "preview.prompts": "a cat"}
    lora = set(idle_controls(values))
    assert not {"method.rank", "ema.warm_up", f"{FIRST}.num_class_images", "preview.every"} & lora
    assert {"ema.power", "method.conv_alpha", "save.vae", "train.token_embedding_lr"} <= lora
    assert "ema.power" not in idle_controls({**values, "ema.warm_up": "power"})


def test_what_was_changed_and_what_a_stage_may_turn_on_stays_in_sight():
    """A mistake in it could not be put right otherwise."""
    values = {**default_values(), f"{FIRST}.class_dir": "/cats", "train.lr_scheduler_args": '{"num_cycles": 2}'}
    assert not {f"{FIRST}.class_dir", "train.lr_scheduler_args"} & set(idle_controls(values))
    assert "loss.unmasked_weight" in idle_controls(values)
    assert idle_controls({**values, "stages": '{"loss.masked": true}'}) == []


def test_what_a_preset_filled_in_and_nothing_uses_is_out_of_sight():
    base = {**default_values(), "train.token_embedding_words": "sks"}
    values = {**base, "method.kind": "lora"}
    assert "train.token_embedding_words" not in idle_controls(base, base)
    assert "train.token_embedding_words" in idle_controls(values, base)
    assert "train.token_embedding_words" not in idle_controls({**values, "train.token_embedding_words": "cat"}, base)


def test_what_is_left_out_of_a_preset_comes_back_with_its_use(tmp_path):
    class Engine(FakeEngine):
        def preset(self, name):
            shipped = super().preset(name)
            return {**shipped, "train": {**shipped["train"], "token_embedding_words": "sks"}}

    service = Services(StandaloneHost(tmp_path), Engine("/pictures")).train
    form, lora = Form(service), {"method.kind": "lora"}
    assert service.resolve(Choice(PRESET, lora)).settings.train.token_embedding_words == ""
    values = form.filled(Choice(PRESET, lora))
    assert values["train.token_embedding_words"] == "sks"
    assert form.choice(PRESET, values).changes == lora
    again = form.choice(PRESET, {**values, "method.kind": "full"})
    assert service.resolve(again).settings.train.token_embedding_words == "sks"


def test_the_page_is_told_what_to_keep_out_of_sight():
    found = re.search("data-idle='([^']*)'", idle_html({**default_values(), "method.kind": "lora"}))[1].split()
    assert "sdtrain_train_ema_power" in found
    assert "sdtrain_train_method_rank" not in found
