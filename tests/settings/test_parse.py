"""Settings: parsing, layers, and the rule that every mistake is reported at once."""
import math
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib_sdtrain import textfiles
from lib_sdtrain.durable import safe_name
from lib_sdtrain.errors import UserError
from lib_sdtrain.settings.fields import declared, groups_of
from lib_sdtrain.settings.layers import Layer, describe_changes, resolve, to_plain
from lib_sdtrain.settings.lengths import Length, parse_length
from lib_sdtrain.settings.parse import build
from lib_sdtrain.settings.run import RunSettings


def test_three_mistakes_are_three_lines_each_naming_its_place():
    wrong = {"train": {"lenght": 3, "batch_size": 0}, "data": {"concepts": [{"instance_dri": "x"}]}}
    with pytest.raises(UserError) as caught:
        build(RunSettings, wrong)
    lines = [str(problem) for problem in caught.value.problems]
    assert len(lines) == 3
    assert "train.lenght: unknown setting; did you mean train.length?" in lines
    assert any(line.startswith("train.batch_size: 0 is too small") for line in lines)
    assert "data.concepts.0.instance_dri: unknown setting; did you mean instance_dir?" in lines


def test_later_layers_win_and_each_value_knows_its_origin():
    resolved = resolve(RunSettings, [
        Layer("preset a", {"train": {"length": 10, "batch_size": 4}, "data": {"concepts": [{"instance_dir": "x"}]}}),
        Layer("my.yaml", {"train": {"length": "30 epochs"}}),
        Layer("--set", {"data.concepts.0.weight": 2, "loss.min_snr_gamma": 5}),
    ])
    assert resolved.settings.train.length == Length(30, "epochs")
    assert resolved.settings.train.batch_size == 4
    assert resolved.settings.data.concepts[0].instance_dir == "x"
    assert resolved.settings.data.concepts[0].weight == 2.0
    assert resolved.origin("train.length") == "my.yaml"
    assert resolved.origin("train.batch_size") == "preset a"
    assert resolved.origin("data.concepts") == "--set"
    assert resolved.origin("train.seed") == "default"


def test_what_a_preset_says_gives_way_where_later_layers_leave_no_use_for_it():
    values = {"train": {"token_embedding_words": "sks", "seed": 3}, "method": {"rank": 4}}
    preset, lora = Layer("preset a", values, gives_way=True), {"method.kind": "lora"}

    def words(*layers):
        resolved = resolve(RunSettings, layers)
        assert (resolved.settings.train.seed, resolved.settings.method.rank) == (3, 4)
        return resolved.settings.train.token_embedding_words, dict(resolved.left_out)

    gone = ("", {"train.token_embedding_words": "preset a"})
    assert words(preset) == ("sks", {})  # the rank matters as little by itself, and nobody took its use away
    assert words(preset, Layer("tab", lora)) == gone
    assert words(preset, Layer("tab", {"method.train_text_encoder": False})) == gone
    assert words(preset, Layer("tab", {**lora, "train.token_embedding_words": "cat"})) == ("cat", {})
    assert words(preset, Layer("tab", {**lora, "stages": [{"method.kind": "full"}]})) == ("sks", {})
    assert words(Layer("my.yaml", values), Layer("tab", lora)) == ("sks", {})
    (line,) = resolve(RunSettings, [preset, Layer("tab", lora)]).notices()
    assert line.startswith("left out of preset a, ")
    assert line.endswith(": train.token_embedding_words")


def test_resolved_settings_survive_the_way_through_yaml():
    settings = resolve(RunSettings, [Layer("f", {
        "train": {"length": "2.5 epochs", "text_encoder_lr": 5e-7, "mixed_precision": False},
        "loss": {"min_snr_gamma": "off", "noise_offset": "0.05"},
        "save": {"every": None},
        "data": {"concepts": [{"name": "ä", "instance_dir": "a b"}, {"instance_dir": "c", "class_prompt": "no"}]},
        "preview": {"prompts": ["a, b", {"prompt": "c", "steps": 3}]},
    })]).settings
    assert settings.train.mixed_precision == "no"
    assert settings.loss.min_snr_gamma is None
    again = build(RunSettings, textfiles.parse_yaml(textfiles.write_yaml(to_plain(settings)), "x"))
    assert again == settings
    assert describe_changes(settings, again) == []


@pytest.mark.parametrize(("raw", "expected"), [
    (1000, Length(1000)), ("1000", Length(1000)), ("1,000 steps", Length(1000)), ("30 epochs", Length(30, "epochs")),
    ("1 epoch", Length(1, "epochs")),
    ("1e5 samples", Length(100_000, "samples")), ("0.5 epochs", Length(0.5, "epochs")),
    ("0.6666666 epochs", Length(0.6666666, "epochs")), ("2e-6 epochs", Length(2e-6, "epochs")),
])
def test_lengths_in_every_unit(raw, expected):
    assert parse_length(raw) == expected
    assert parse_length(str(expected)) == expected


@pytest.mark.parametrize("raw", ["", "ten", "10 minutes", "-5", "1.5", None, [3], True])
def test_what_is_not_a_length_is_refused_with_the_form_to_use(raw):
    with pytest.raises(ValueError, match=r"epochs|whole"):
        parse_length(raw)


def test_lengths_become_whole_steps_rounded_up():
    assert Length(30, "epochs").steps(samples_a_step=4, samples_an_epoch=10) == 75
    assert Length(100_000, "samples").steps(2048, 1) == 49  # 48.8
    assert Length(7).steps(4, 10) == 7


def test_every_setting_tells_people_what_it_is():
    for item in declared(RunSettings):
        assert item.meta.label
        assert item.meta.help.endswith((".", ")")), item.path
        if item.meta.choices and item.default:
            assert item.default in item.meta.choices
    assert [group.path for group in groups_of(RunSettings)][:2] == ["model", "data"]


@settings(deadline=None)
@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(
                        ["train", "data", "length", "concepts", "every", "prompts", "optimizer_args", "x"]), inner)))
def test_any_data_is_accepted_or_refused_with_words(data):
    mapping = data if isinstance(data, dict) else {"train": data, "data": {"concepts": data}}
    try:
        build(RunSettings, mapping)
    except UserError as error:
        lines = [str(problem).strip() for problem in error.problems]
    else:
        lines = ["accepted"]
    assert lines
    assert all(lines)


@pytest.mark.parametrize("text", [
    "a: 1\na: 2", "a: &x 1\nb: *x", "a: !!python/object/apply:os.system [x]", "{", "? [a]\n: 1", "a: b: c",
    "a: !!int 1:30", "a: !!float 1:30.5", "a: !!binary x\nb: !custom 1", "a: &a [x]\n<<: *a",
])
def test_yaml_that_is_not_plain_data_names_the_line(text):
    with pytest.raises(UserError, match=r"f\.yaml, line \d+: not valid YAML"):
        textfiles.parse_yaml(text, "f.yaml")


@pytest.mark.parametrize("text", [
    "[" * 20_000, "{a: " * 20_000, "- " * 20_000, "a: " + "9" * 100_000, "a: 2001-99-99", "\x00", "a: \ud800",
], ids=lambda text: text[:4])
@pytest.mark.fault("that it is not valid YAML, in one line; nothing in it is run or unfolded")
def test_yaml_made_to_hurt_is_refused_in_one_line(text):
    with pytest.raises(UserError, match="not valid YAML") as caught:
        textfiles.parse_yaml(text, "f.yaml")
    assert len(str(caught.value)) < 300


def test_numbers_to_base_60_are_text_and_take_no_time():
    text = "a: 1:30\nb: 190:20:30.15\nc: 1" + ":10" * 100_000 + "\n"
    began = time.monotonic()
    found = textfiles.parse_yaml(text, "f")
    assert (found["a"], found["b"], found["c"][:7]) == ("1:30", "190:20:30.15", "1:10:10")
    assert time.monotonic() - began < 20


@pytest.mark.parametrize(("text", "value"), [
    ("0", 0), ("-12", -12), ("+7", 7), ("1_000", 1000), ("0x1F", 31), ("0b101", 5), ("017", 15), ("1.5", 1.5),
    (".5", 0.5), ("2.", 2.0), ("1e3", 1000.0), ("-.inf", -math.inf), ("1e400", math.inf), ("09", "09"), ("1-2", "1-2"),
    ("1.2.3", "1.2.3"), ("--1", "--1"), ("true", True), ("~", None),
])
def test_plain_values_are_what_yaml_makes_of_them(text, value):
    assert textfiles.parse_yaml(f"a: {text}", "f") == {"a": value}


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "9" * 100_000, "{", "", "\x00"])
def test_json_made_to_hurt_is_a_value_error(text):
    with pytest.raises(ValueError):  # noqa: PT011 - its callers say where
        textfiles.parse_json(text)


@settings(deadline=None)
@given(st.text(max_size=120) | st.integers(1, 120).map("\u7279".__mul__))
def test_a_name_is_a_name_whatever_was_typed(text):
    name = safe_name(text)
    assert name == Path(name).name
    assert name not in ("", ".", "..")
    assert 0 < len(name) <= 80
    assert len(f"{name}-1000000.safetensors".encode()) <= 255
    assert not set(name) & set('/\\:*?"<>|\0\n\r\t')
    assert name[0] not in ".-"


@pytest.mark.parametrize(("text", "name"), [
    ("../../etc/passwd", "etc-passwd"), ("C:\\Windows\\x", "C--Windows-x"), ("..", "model"), (".hidden", "hidden"),
    ("a/../b", "a-..-b"), ("\0", "model"), ("<img src=x>", "img-src-x"), ("sks dog", "sks-dog"),
])
def test_no_name_leaves_its_folder(text, name):
    assert safe_name(text) == name


def test_small_numbers_in_scientific_form_are_numbers():
    assert textfiles.parse_yaml("a: 1e-6\nb: 5E-7\nc: 1.5e+3", "f") == {"a": 1e-6, "b": 5e-7, "c": 1500.0}
