"""Worker threads compute alone, and nobody else notices."""
import threading

import torch

from lib_sdtrain.merge.workers import workers


def test_workers_have_one_thread_of_torch_and_others_keep_theirs():
    usual = torch.get_num_threads()
    torch.set_num_threads(3)
    seen = []
    try:
        with workers(2) as pool:
            inside = [pool.submit(torch.get_num_threads).result() for _ in range(4)]
            other = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
            other.start()
            other.join()
            assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(usual)
    assert inside == [1] * 4
    assert seen == [3]
