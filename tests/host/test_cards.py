"""Of several cards the one of the WebUI's `--device-id`: torch keeps for each thread which one `cuda` means."""
from __future__ import annotations

import importlib
import sys
import threading
from unittest.mock import MagicMock

import pytest
import torch

from lib_sdtrain.events import CancelToken, Notice
from lib_sdtrain.model.cards import current_card, use_card
from lib_sdtrain.sample.streamed import streamed
from lib_sdtrain.train.spare_memory import whole_memory

MEMORY = {0: 8 * 2**30, 1: 24 * 2**30}


@pytest.fixture
def cards(monkeypatch):
    """torch as on a machine of two cards, of which each thread has a current one; gives the one of this thread."""
    mine = threading.local()

    def set_device(device):
        mine.card = torch.device(device).index

    def current():
        return getattr(mine, "card", 0)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_device", set_device)
    monkeypatch.setattr(torch.cuda, "current_device", current)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda card: MagicMock(total_memory=MEMORY[card]))
    return current


@pytest.fixture
def webui(monkeypatch):
    """`host.webui` in a WebUI that was started with `--device-id 1`."""
    modules = MagicMock()
    modules.devices.device = torch.device("cuda:1")
    ours = ("lib_sdtrain.host.webui", "lib_sdtrain.host.webui_live", "lib_sdtrain.host.webui_settings")
    monkeypatch.setitem(sys.modules, "modules", modules)
    for name in ours:
        monkeypatch.setitem(sys.modules, name, None)  # as it was comes back afterwards
        monkeypatch.delitem(sys.modules, name)
        monkeypatch.setattr(name, None, raising=False)
    return importlib.import_module(ours[0]).WebuiHost()


def in_a_thread(work):
    told = []
    thread = threading.Thread(target=lambda: told.append(work()))
    thread.start()
    thread.join()
    return told[0]


def test_a_plan_counts_with_the_memory_of_the_webuis_card(cards, webui):
    def planned():
        return webui.device(), cards(), whole_memory("cuda")

    assert in_a_thread(planned) == ("cuda", 1, MEMORY[1])
    assert in_a_thread(cards) == 0


def test_a_job_and_the_thread_it_samples_in_compute_on_the_webuis_card(cards, webui):
    def job():
        with webui.exclusive("a job"):
            return [event.text for event in streamed(lambda tell: tell(Notice(text=str(cards()))), CancelToken())]

    assert in_a_thread(job) == ["1"]
    assert in_a_thread(cards) == 0


@pytest.mark.parametrize("device", ["cpu", "cuda", "mps"])
def test_a_device_without_a_number_changes_nothing(cards, device):
    torch.cuda.set_device("cuda:1")
    use_card(torch.device(device))
    assert cards() == 1
    assert current_card() == torch.device("cuda:1")


@pytest.mark.skipif(torch.cuda.is_initialized(), reason="its card is in use")
def test_a_card_that_was_not_used_is_not_woken(monkeypatch):
    monkeypatch.setattr(torch.cuda, "current_device", lambda: pytest.fail("this takes memory of the card"))
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: pytest.fail("this takes memory of the card"))
    assert list(streamed(lambda tell: None, CancelToken())) == []
