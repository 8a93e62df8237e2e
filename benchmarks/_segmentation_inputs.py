"""What the segmentation benchmark works on, and how much of it."""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path

from helpers import pictures
from helpers.phantoms import fresh_set, skin_lesions

CLASSES = ("background", "lesion")
MAPPING = {0: 0, 255: 1}  # of the masks' PNG files

# Side by side. keras-hub's pyramid and decoder have 256 channels, whatever it is told.
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


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How much is measured; `QUICK` ends within a minute and is too small to quote.

    Args:
        size: height and width of the images on which networks are compared, in pixels; multiples
            of 32, as keras-hub enlarges by whole factors.
        batch: images in a batch.
        steps: of training in a pass, by backbone; one more comes first and is not timed.
        lesions: pictures behind the pipeline.
        lesson_steps: of training in a pass with real data; as many as `lead` come first, and
            `trail` after, that are not timed.
        lead, trail: so that neither starting an iterator nor its end is measured.
        rounds: that count, when networks are compared.
        lesson_rounds: likewise, with real data; more, as less of a difference matters there.
    """

    size: tuple[int, int] = (192, 256)
    batch: int = 4
    steps: dict[str, int] = dataclasses.field(
        default_factory=lambda: {"MobileNetV2": 4, "ResNet50": 2}
    )
    lesions: int = 600
    lesson_steps: int = 16
    lead: int = 3
    trail: int = 2
    rounds: int = 7
    lesson_rounds: int = 15


QUICK = Sizes(
    size=(96, 128),
    steps={"MobileNetV2": 1},
    lesions=64,
    lesson_steps=6,
    rounds=2,
    lesson_rounds=3,
)


def make_records(count: int, data_dir: Path) -> Path:
    """Skin lesions as records: JPEG and PNG of about 360 x 270 pixels, in one split."""
    from helpers import records  # needs google-crc32c, which the peers' environment has not

    name = f"benchmark_segmentation_{count}"
    lesions = skin_lesions(data_dir / f"{name}_pictures", count)
    with fresh_set(data_dir, name, 1, {"count": count}) as folder:
        if folder:
            found = pictures.find(lesions / "images", lesions / "masks")
            records.write(
                folder / "records",
                found,
                "deeplab",
                partial(pictures.load_deeplab, mapping=MAPPING),
                survey=partial(pictures.survey, mapping=MAPPING),
                salt="for synthetic lesions only",
                classes=CLASSES,
                workers=1,
                progress=False,
            )
    return data_dir / name / "records"
