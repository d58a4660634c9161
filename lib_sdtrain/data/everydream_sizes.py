"""EveryDream1's tables of sizes, in its own order: which one a picture takes depends on it where two are as near."""
from __future__ import annotations

from lib_sdtrain.data.pictures import Size

# Resolution -> its square, then the wide sizes; each wide one is followed by the same upright.
_WIDE: dict[int, tuple[Size, ...]] = {
    256: ((320, 192), (512, 128)),
    384: ((448, 320), (576, 256), (768, 192)),
    448: ((512, 384), (576, 320), (768, 256)),
    512: ((576, 448), (640, 384), (768, 320), (832, 256), (896, 256), (960, 256), (1024, 256)),
    576: ((640, 512), (640, 448), (704, 448), (832, 384), (1024, 320), (1280, 256)),
    640: ((704, 576), (768, 512), (896, 448), (1024, 384), (1280, 320), (1408, 256), (1472, 256), (1536, 256),
          (1600, 256)),
    704: ((768, 640), (832, 576), (896, 512), (960, 512), (1024, 448), (1088, 448), (1152, 384), (1216, 384),
          (1280, 384), (1280, 320), (1408, 320), (1536, 320)),
    768: ((832, 704), (896, 640), (960, 576), (1024, 576), (1088, 512), (1152, 512), (1216, 448), (1280, 448),
          (1344, 384), (1408, 384), (1472, 320), (1536, 320)),
}  # fmt: skip

EVERYDREAM: dict[int, tuple[Size, ...]] = {
    resolution: ((resolution, resolution), *(size for w, h in wide for size in ((w, h), (h, w))))
    for resolution, wide in _WIDE.items()
}
