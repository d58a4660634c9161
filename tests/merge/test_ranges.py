"""Weights of single blocks as people write them for a plot."""
import pytest

from lib_sdtrain.errors import UserError
from lib_sdtrain.merge.blocks import SD, SDXL
from lib_sdtrain.merge.ranges import expanded, numbers, read_blocks, with_blocks


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("0.3", ["0.3"]), ("-1", ["-1"]), ("0-1 (+0.25)", ["0", "0.25", "0.5", "0.75", "1"]), ("0-1", ["0", "1"]),
        ("1-0 (-0.5)", ["1", "0.5", "0"]), ("0-1 [3]", ["0", "0.5", "1"]), ("-0.5-0.5 (+0.5)", ["-0.5", "0", "0.5"]),
        ("0-1 (+0.3)", ["0", "0.3", "0.6", "0.9"]), ("0-1 (+0.1)", [f"{n / 10:g}" for n in range(11)]),
    ],
)  # fmt: skip
def test_ranges_are_written_as_in_the_plots_other_axes(text, found):
    assert numbers(text) == found


def test_a_bare_number_goes_on_with_the_block_before_it():
    assert expanded(["IN04:0", " 0.5", "OUT03:0-1 [2]", "", "IN00:1 OUT11:0"]) == [
        "IN04:0", "IN04:0.5", "OUT03:0", "OUT03:1", "IN00:1 OUT11:0",
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["IN04", "0.5", "IN04:x", "IN04:nan", "IN04:1-0", "IN04:0-1 (+0)", ":1"])
def test_what_names_no_block_or_no_number_is_a_mistake(text):
    with pytest.raises(UserError):
        expanded([text])


def test_blocks_by_name_by_range_and_by_side():
    assert read_blocks("IN04:0.3", SD.names) == {"IN04": 0.3}
    assert read_blocks("in10-M00:1", SD.names) == {"IN10": 1, "IN11": 1, "M00": 1}
    assert read_blocks("OUT:0.5 OUT03:1", SD.names) == {**{f"OUT{n:02d}": 0.5 for n in range(12)}, "OUT03": 1}
    assert len(read_blocks("IN:0", SDXL.names)) == 9
    with pytest.raises(UserError, match="IN09"):
        read_blocks("IN09:0", SDXL.names)


def test_the_other_weights_stay():
    text = with_blocks({"BASE": 0.0, "IN00": 0.25, "M00": 1.0}, {"IN00": 0.1})
    assert text == "0.0,0.1,1.0"
