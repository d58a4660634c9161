"""Block weights as people write them, and preset files of other mergers."""
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib_sdtrain.errors import UserError
from lib_sdtrain.merge.blocks import SD, SDXL
from lib_sdtrain.merge.presets import bundled_presets, read_presets
from lib_sdtrain.merge.weights import BlockWeights, flat, read_weights

NUMBERS = st.floats(-2, 2, allow_nan=False)


def test_the_first_number_is_base_and_the_last_the_last_output_block():
    weights = read_weights(",".join(map(str, range(26))), {})
    assert (weights["BASE"], weights["IN00"], weights["IN11"], weights["M00"], weights["OUT00"], weights["OUT11"]) == (
        0, 1, 12, 13, 14, 25,
    )  # fmt: skip
    xl = read_weights(", ".join(map(str, range(20))), {})
    assert (xl["BASE"], xl["IN08"], xl["M00"], xl["OUT00"], xl["OUT08"]) == (0, 9, 10, 11, 19)


@pytest.mark.parametrize("count", [1, 2, 12, 19, 21, 25, 27, 52])
def test_another_number_of_weights_is_an_error_that_says_how_many_are_needed(count):
    with pytest.raises(UserError, match=rf"{count} block weights; 26 are needed.*20 for SDXL") as error:
        read_weights(",".join(["0.5"] * count), {})
    assert ("BASE in front" in str(error.value)) == (count in (25, 19))


@pytest.mark.parametrize("bad", ["nan", "inf", "x", "0.5.1", "--1"])
def test_a_weight_that_is_no_finite_number_is_an_error(bad):
    with pytest.raises(UserError, match="not a finite number"):
        read_weights(",".join([bad] + ["0"] * 25), {})


def test_an_unknown_preset_is_an_error_that_names_the_nearest():
    with pytest.raises(UserError, match=r"no preset or preset file called 'GRAD_W'; did you mean GRAD_V\?"):
        read_weights("GRAD_W", bundled_presets())
    with pytest.raises(UserError, match="known presets: GRAD_V"):
        read_weights("zzzzzz", bundled_presets())


def test_the_presets_of_the_card_are_there():
    low, high = (read_weights(name, bundled_presets()).as_dict() for name in ("low-res_replace", "high-res_replace"))
    assert [low[f"OUT{n:02d}"] for n in range(12)] == [1, 1, 0.67, 0.67, 0.33, 0.33, 0, 0, 0, 0, 0, 0]
    assert [high[f"IN{n:02d}"] for n in range(12)] == [0, 1, 1, 0.67, 0.67, 0.33, 0.33, 0, 0, 0, 0, 0]
    for preset in (low, high):  # both are symmetric about the middle block
        assert [preset[f"IN{n:02d}"] for n in range(12)] == [preset[f"OUT{11 - n:02d}"] for n in range(12)]
    assert (low["BASE"], high["BASE"], low["OUT11"], high["OUT11"]) == (0, 0, 0, 0)


def test_every_preset_that_comes_along_can_be_read_and_is_between_a_and_b():
    presets = bundled_presets()
    assert len(presets) == 40
    for name in presets:
        weights = read_weights(name, presets)
        assert all(0 <= value <= 1 for value in weights.values), name
        assert weights["BASE"] == (1 if name == "ALL_B" else 0)


def test_preset_files_of_supermerger_and_merge_block_weighted_are_read(tmp_path):
    numbers = [str(n / 100) for n in range(26)]
    file = tmp_path / "mbwpresets.txt"
    lines = ["preset_name\tpreset_weights", "TAB\t" + ",".join(numbers), "COLON:" + ",".join(numbers), "",
             "a:b\t" + ",".join(numbers), "MBW\t" + ",".join(numbers[1:]), "XL\t" + ",".join(numbers[:20])]  # fmt: skip
    file.write_bytes("\r\n".join(lines).encode())
    presets = read_presets(file)
    assert list(presets) == ["TAB", "COLON", "a:b", "MBW", "XL"]
    assert presets["TAB"].fields == presets["COLON"].fields == presets["a:b"].fields == tuple(numbers)
    assert presets["MBW"].fields == ("0", *numbers[1:])
    assert read_weights(f"{file}:XL", {}).layout is SDXL
    assert read_weights(f"{file}:TAB", {})["OUT11"] == 0.25


def test_a_preset_file_with_several_presets_asks_which(tmp_path):
    file = tmp_path / "two.txt"
    file.write_text("one\t" + ",".join("0" * 26) + "\ntwo\t" + ",".join("1" * 26) + "\n")
    with pytest.raises(UserError, match=r"has 2 presets; write .*two.txt:NAME, one of one, two"):
        read_weights(str(file), {})
    with pytest.raises(UserError, match="has no preset 'three'"):
        read_weights(f"{file}:three", {})


def test_a_line_of_another_length_is_an_error_with_its_number(tmp_path):
    file = tmp_path / "bad.txt"
    file.write_text("good\t" + ",".join("0" * 26) + "\nbad\t1,2,3\n")
    with pytest.raises(UserError, match=r"bad.txt, line 2: 3 fields"):
        read_presets(file)


@given(st.lists(NUMBERS, min_size=20, max_size=20))
def test_twenty_weights_survive_the_way_to_twenty_six_and_back(values):
    weights = BlockWeights(SDXL, tuple(values))
    assert weights.to(SD).to(SDXL).values == tuple(values)


@given(st.lists(NUMBERS, min_size=26, max_size=26))
def test_going_to_sdxl_leaves_out_the_three_deepest_input_and_last_output_blocks(values):
    weights = BlockWeights(SD, tuple(values)).to(SDXL)
    assert weights.values == tuple(values[:10] + values[13:14] + values[14:23])
    assert all(name in weights.notes[0] for name in ("IN09", "IN10", "IN11", "OUT09", "OUT10", "OUT11"))


def test_a_plain_merge_has_the_same_weight_everywhere():
    assert set(flat(0.3, SD).values) == {0.3}
