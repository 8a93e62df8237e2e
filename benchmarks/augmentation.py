"""Augmentation: how long do a warp, a flip with a rotation, and crops take, here and elsewhere?

A  elastic and affine warp of a volume and its mask: 48, 96, 128 (the usual size), 160 cubed
B  affine warp of the same
C  pictures with masks, flipped and rotated, from files and from a cache: 64, 256 (usual), 512
D  four crops of each volume or picture, beside copying the same bytes and beside the same stage
   written by hand: 32 cubed of 64x96x96, 64 cubed of 96x160x160, 96 cubed of 160x256x256 (usual);
   halves of pictures of 64, 256 (usual), 512

README.md says how it is kept fair.
"""

from harness import Part, Row, arguments, at_sizes, parsed, row, run
from workloads import CROPS, PICTURE_CROPS, PICTURES, WARPS, crops, skin, warps

ALL, WARPED = {"everywhere": True}, {"kind": "warped"}
STYLES = {
    "MONAI": {},
    "MONAI, 2 workers": {"workers": 2},
    "MONAI, tuned": {"tuned": True},
    "MONAI, tuned, 2 workers": {"tuned": True, "workers": 2},
}


def monai(contender: str, **how: object) -> dict[str, Row]:
    return {k: row(f"monai.{contender}", **ALL, **how, **style) for k, style in STYLES.items()}


def copies(**how: object) -> dict[str, Row]:
    """The floor of crops: the same bytes, copied."""
    kinds = {"NumPy, fresh array": False, "NumPy, warm array": True}
    return {k: row("floors.crops", warm=warm, **ALL, **how) for k, warm in kinds.items()}


def torchio(name: str, way: str) -> dict[str, Row]:
    alone = row("torchio.warped", way=way, **WARPED)
    return {name: alone, f"{name}, 2 workers": row("torchio.warped", way=way, workers=2, **WARPED)}


def scipy(way: str) -> dict[str, Row]:
    both = {"SciPy": {}, "SciPy, 2 threads": {"threads": 2}}
    return {name: row(f"scipy.{way}", **WARPED, **how) for name, how in both.items()}


def warp(way: str) -> dict[str, Row]:
    """Ours and MONAI's."""
    how = {"elastic": way == "elastic", **WARPED}
    return {"augment.stage": row("ours.warped", **ALL, **how), **monai("warped", **how)}


FLOOR = {"floor: cast and copied": row("floors.copies", kind="copied", **ALL)}
ELASTIC = {
    **warp("elastic"),
    **torchio("TorchIO, elastic alone", "elastic alone"),
    **torchio("TorchIO", "elastic"),
    "TorchIO, composed": row("torchio.warped", way="composed", **WARPED),
    **scipy("elastic"),
    "SimpleITK": row("simpleitk.elastic", **WARPED),
    **FLOOR,
}
AFFINE = {**warp("affine"), **torchio("TorchIO", "affine"), **scipy("affine"), **FLOOR}


def parts(options) -> list[Part]:
    """All comparisons at all sizes, those of a letter together."""
    made = []

    def add(letter: str, name: str, rows: dict, workload, sizes: dict, *item: object) -> None:
        made.extend(at_sizes(Part(letter, name, rows, workload, *item), sizes, options))

    add("A", "elastic + affine, {edge} cubed", ELASTIC, warps, WARPS, "a volume")
    add("B", "affine, {edge} cubed", AFFINE, warps, WARPS, "a volume")
    for words, cached in (("from files", False), ("from a cache", True)):
        how = {"cached": cached, **WARPED}
        plain = row("ours.pictures", cached=cached, augmented=False, kind="", **ALL)
        rows = {"augment.stage": row("ours.pictures", **ALL, **how), **monai("pictures", **how)}
        rows["the same, not augmented"] = plain
        add("C", f"{{picture}} x {{picture}} {words}", rows, skin, PICTURES, "a batch", 32)
    name = "{per_image} crops of {crop}, image"
    for sizes in (CROPS, PICTURE_CROPS):
        ours = {"crops.random": row("ours.cropped", **ALL)}
        hand = {"by hand in tf.data": row("ours.cropped_by_hand", **ALL)}
        rows = {**ours, **hand, **copies(), **monai("cropped")}
        add("D", name, rows, crops, sizes, "an image")
        rows = {"crops.from_memory": row("ours.cropped_from_memory", **ALL), **copies()}
        add("D", f"{name}, from memory", rows, crops, sizes, "an image")
    rows = {"crops.pos_neg": row("ours.cropped", masks=True, **ALL)}
    rows |= {**copies(keys=("image", "mask")), **monai("cropped", masks=True)}
    add("D", f"{name} + mask", rows, crops, CROPS, "a volume")
    return made


if __name__ == "__main__":
    options = parsed(arguments(__doc__, "ABCD"))
    run(options, parts(options))
