"""What derives from the declarations: schema, README table, flags. Each must say what the declarations say."""
import argparse
from pathlib import Path

import pytest

from lib_sdtrain.cli.flags import add_flags, flag_name, settings_text
from lib_sdtrain.settings.fields import declared
from lib_sdtrain.settings.run import Concept, RunSettings
from lib_sdtrain.settings.schema import json_schema, markdown_table

README = Path(__file__).parents[2] / "README.md"


def paths_in(schema, prefix=""):
    for name, inner in schema["properties"].items():
        if "properties" in inner:
            yield from paths_in(inner, f"{prefix}{name}.")
        else:
            yield prefix + name


def test_the_schema_has_every_setting_and_no_other():
    schema = json_schema(RunSettings)
    assert set(paths_in(schema)) == {item.path for item in declared(RunSettings)}
    train = schema["properties"]["train"]["properties"]
    assert train["batch_size"]["minimum"] == 1
    assert train["text_encoder_lr"]["type"] == ["number", "null"]
    assert train["mixed_precision"]["enum"] == ["no", "fp16", "bf16"]
    assert set(schema["properties"]["data"]["properties"]["concepts"]["items"]["properties"]) == {
        item.path for item in declared(Concept)
    }


def test_the_readme_table_is_the_one_made_from_the_declarations():
    text = README.read_text(encoding="utf-8")
    between = text.partition("<!-- settings:begin -->\n")[2].partition("<!-- settings:end -->")[0]
    assert between.strip() == markdown_table(RunSettings).strip(), "run: python -m lib_sdtrain.settings.schema"


@pytest.mark.parametrize("cls", [RunSettings, Concept])
def test_flags_and_help_name_every_setting(cls):
    parser = argparse.ArgumentParser()
    add_flags(parser, cls)
    flags = {option for action in parser._actions for option in action.option_strings}
    text = settings_text(cls)
    for item in declared(cls):
        assert flag_name(item) in flags
        assert item.path in text
        assert item.meta.help.rstrip(".")[:30] in text
