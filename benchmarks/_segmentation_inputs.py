"""What the segmentation benchmark works on, and how much of it."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from helpers import pictures
from helpers.lesson.phantoms import fresh_set, skin_lesions

CLASSES = ("background", "lesion")
MAPPING = {0: 0, 255: 1}  # of the masks' PNG files

# Side by side: height and width in pixels, multiples of 32, as keras-hub enlarges by whole factors,
# and images in a batch. keras-hub's pyramid and decoder have 256 channels, whatever it is told.
SIZES = {
    "small": {"size": (96, 128), "batch": 4},
    "usual": {"size": (192, 256), "batch": 4},
}
WIDTH, LOW_LEVEL_WIDTH, OUTPUT_STRIDE = 256, 48, 16

LEARNT_IN = 6  # steps on one batch, after which its loss has to be smaller

# The lesson's network and pictures.
LESSON = {
    "size": (72, 96),
    "batch": 16,
    "backbone": "MobileNetV2",
    "alpha": 0.35,
    "rates": (1, 2),
    "aspp_width": 64,
    "decoder_width": 64,
    "low_level_width": 24,
    "zoom": (0.5, 2.0),
    "fill": 127,
    "mask_fill": 255,
}


def make_records(count: int, data_dir: Path) -> Path:
    """Skin lesions as records: JPEG and PNG of about 360 x 270 pixels, in one split."""
    from helpers import records  # needs google-crc32c, which the peers' environment has not

    name = f"benchmark_segmentation_{count}"
    lesions = skin_lesions(data_dir / f"{name}_pictures", count)
    with fresh_set(data_dir, name, 1, {"count": count}) as folder:
        if folder:
            records.write(
                folder / "records",
                pictures.find(lesions / "images", lesions / "masks"),
                "deeplab",
                partial(pictures.load_deeplab, mapping=MAPPING),
                survey=partial(pictures.survey, mapping=MAPPING),
                salt="for synthetic lesions only",
                classes=CLASSES,
                workers=1,
                progress=False,
            )
    return data_dir / name / "records"
