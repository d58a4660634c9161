"""The whole tab: style, sub-tabs, nothing else."""
from __future__ import annotations

from pathlib import Path

import gradio as gr

from lib_sdtrain.api.services import Services
from lib_sdtrain.ui.dataset.tab import DatasetTab
from lib_sdtrain.ui.merge.queueing import attach_queue
from lib_sdtrain.ui.merge.tab import MergeTab
from lib_sdtrain.ui.runs.tab import RunsTab
from lib_sdtrain.ui.sample.tab import SampleTab
from lib_sdtrain.ui.seam import forget_in_ui_config
from lib_sdtrain.ui.train.tab import TrainTab

TITLE, ELEMENT_ID = "SD Train", "sdtrain"
STYLES = sorted(Path(__file__).parent.rglob("style.css"))  # each sub-tab may have one beside the common one


def build_tab(services: Services, **blocks: object) -> gr.Blocks:
    """The tab as Blocks, to be shown alone or inside the WebUI; `blocks` are passed to `gr.Blocks`."""
    with gr.Blocks(analytics_enabled=False, title=TITLE, **blocks) as page:
        style = "".join(path.read_text(encoding="utf-8") for path in STYLES)
        gr.HTML(f"<style>{style}</style>", elem_id="sdtrain_style")
        with gr.Tabs(elem_id="sdtrain_tabs"):
            with gr.Tab("Train", elem_id="sdtrain_tab_train"):
                train = TrainTab(services)
            with gr.Tab("Dataset", elem_id="sdtrain_tab_dataset"):
                DatasetTab(services, train)
            with gr.Tab("Merge", elem_id="sdtrain_tab_merge"):
                attach_queue(MergeTab(services.merge), services.queue)
            with gr.Tab("Sample", elem_id="sdtrain_tab_sample"):
                SampleTab(services.sample)
            with gr.Tab("Runs", elem_id="sdtrain_tab_runs"):
                RunsTab(services)
    forget_in_ui_config(page.blocks.values())
    return page
