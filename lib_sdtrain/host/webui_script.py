"""SD Train's part in making a picture in the WebUI: pictures of a live merge say so."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from modules import scripts, sd_models, shared

from lib_sdtrain.errors import UserError
from lib_sdtrain.host import webui_live

INFOTEXT = "SD Train merge"


class LiveMergeScript(scripts.Script):
    """Without controls of its own, always at work. `before` is asked before every picture."""

    before: ClassVar[Callable[[Any], None] | None] = None

    def title(self) -> str:
        """Its name in the WebUI's lists."""
        return "SD Train live merge"

    def show(self, is_img2img: bool) -> Any:
        """In txt2img and img2img alike."""
        del is_img2img
        return scripts.AlwaysVisible

    def before_process(self, p: Any, *args: Any) -> None:
        """A cell of the X/Y/Z plot may want another merge. Where that fails no picture is to be taken for it."""
        del args
        before = type(self).before
        if before is None:
            return
        try:
            before(p)
        except UserError:
            shared.state.interrupt()
            raise  # the WebUI tells it and goes on to the next script

    def process(self, p: Any, *args: Any) -> None:
        """The recipe goes into the infotext; a merge that a refiner has pushed out comes back first."""
        del args
        if webui_live.again():
            model = sd_models.model_data.sd_model
            p.sd_model_name, p.sd_model_hash = model.sd_checkpoint_info.name_for_extra, model.sd_model_hash
        merge = webui_live.live()
        if merge is not None:
            p.extra_generation_params[INFOTEXT] = merge.recipe

    def before_process_batch(self, p: Any, *args: Any, **kwargs: Any) -> None:
        """A refiner of the batch before may have taken the model's place."""
        del p, args, kwargs
        webui_live.again()
