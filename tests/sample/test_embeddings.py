"""Textual-inversion embeddings."""
from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from lib_sdtrain.errors import UserError
from lib_sdtrain.model.tokenizer import Tokenizer
from lib_sdtrain.sample.embeddings import load_library, read_embedding
from tests.sample.random_models import DATA

FOLDER = DATA / "embeddings"


@pytest.mark.parametrize(("name", "vectors", "width"), [
    ("oldti.pt", 3, 768), ("newti.safetensors", 2, 768), ("xlti.safetensors", 2, 1152),
])
def test_old_and_new_files_are_read(name, vectors, width):
    embedding = read_embedding(FOLDER / name)
    assert (embedding.name, embedding.vectors, embedding.width) == (name.partition(".")[0], vectors, width)


def test_each_encoder_gets_its_own_vectors():
    embedding = read_embedding(FOLDER / "xlti.safetensors")
    assert embedding.vectors_for("clip_l").shape == (2, 768)
    assert embedding.vectors_for("clip_g").shape == (2, 384)
    assert read_embedding(FOLDER / "oldti.pt").vectors_for("clip_l").shape == (3, 768)


def test_other_files_are_refused(tmp_path):
    save_file({f"layer{i}": torch.zeros(2, 768) for i in range(20)}, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match="not a textual-inversion"):
        read_embedding(tmp_path / "model.safetensors")


def test_only_embeddings_of_the_right_width_are_found_and_the_longest_name_wins(tmp_path):
    tokenizer = Tokenizer()
    for name, width in (("dog", 768), ("dog house", 768), ("cat", 1152)):
        save_file({"emb_params": torch.zeros(2, width)}, tmp_path / f"{name}.safetensors")
    (tmp_path / "note.txt").write_text("x")
    (tmp_path / "broken.pt").write_bytes(b"nonsense")
    library = load_library([tmp_path], tokenizer, 768)

    def found(prompt, position=0):
        embedding, length = library.find(tokenizer.encode(prompt), position)
        return (embedding.name, length) if embedding else None

    assert found("dog house party") == ("dog house", 2)
    assert found("dog party") == ("dog", 1)
    assert found("a dog", 1) == ("dog", 1)
    assert found("cat") is None
