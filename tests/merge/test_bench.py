"""The benchmark's baseline does the same work as the engine, or its times would mean nothing."""
import torch

from lib_sdtrain.merge.bench.loop import main
from lib_sdtrain.model.hashes import sha256
from tests.merge.models import merged, read, state, write

WEIGHTS = ",".join(str(round(0.1 + 0.03 * n, 2)) for n in range(26))


def test_the_baseline_merges_what_the_engine_merges(tmp_path):
    a, b = (write(tmp_path / f"{x}.safetensors", state(seed=n)) for n, x in enumerate("ab"))
    out = tmp_path / "loop.safetensors"
    threads = torch.get_num_threads()
    assert main(a, b, str(out), WEIGHTS) == sha256(out)
    torch.set_num_threads(threads)
    theirs, ours = read(out), merged(tmp_path, a=a, b=b, weights_alpha=WEIGHTS)
    assert theirs.keys() == ours.keys()
    for key, tensor in ours.items():
        assert theirs[key].dtype == tensor.dtype
        torch.testing.assert_close(theirs[key], tensor, rtol=2e-3, atol=1e-5)
