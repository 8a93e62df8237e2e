"""Augmentation: how long do a warp, a flip with a rotation, and crops take, here and elsewhere?

    .venv/bin/python benchmarks/augmentation.py [--quick] [--parts ABCD] [--json PATH]
                                                [--sizes small medium usual large]

Runs in the course's own environment, which has TensorFlow, and asks the peers in benchmarks/.venv,
which has PyTorch: each contender lives in a worker process and runs when it is its turn. Parts:

A  elastic and affine warp of a volume and its mask: 48, 96, 128 (the usual size), 160 cubed
B  affine warp of the same
C  pictures with masks, flipped and rotated, from files and from a cache: 64, 256 (usual), 512
D  four crops of each volume or picture, beside copying the same bytes and beside the same stage
   written by hand: 32 cubed of 64x96x96, 64 cubed of 96x160x160, 96 cubed of 160x256x256 (usual);
   halves of pictures of 64, 256 (usual), 512

README.md says how it is kept fair.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from _augment_inputs import CROPS, JOB, PICTURE_CROPS, PICTURES, VOLUMES, load, make
from _checks import (
    check_crops,
    check_moved,
    check_pair,
    check_with_scipy,
    need,
    picture_pairs,
    volume_pair,
)
from _contest import LOOKED_AT, Asked, Part, Row, Workers, arguments, at_sizes, measure, report, run

OURS, MONAI = "_augment_ours.py", "_augment_monai.py"
TORCHIO, SCIPY = "_augment_torchio.py", "_augment_scipy.py"
STAGE = "augment.stage"
STYLES = {
    "MONAI": {"least": 1, "everywhere": True},
    "MONAI, 2 workers": {"style": "workers", "spared": True},
    "MONAI, tuned": {"style": "tuned", "least": 1, "everywhere": True},
    "MONAI, tuned, 2 workers": {"style": "tuned, workers", "everywhere": True},
}
IMAGE_COPIES = ("NumPy, fresh array", "NumPy, warm array")


def monai(contender: str) -> dict[str, Row]:
    """The rows of MONAI."""
    return {name: Row(MONAI, contender, **how) for name, how in STYLES.items()}


def copies(contender: str) -> dict[str, Row]:
    """The floor of crops: the same bytes, copied."""
    return {
        f"NumPy, {kind} array": Row(SCIPY, f"{contender}, {kind}", everywhere=True)
        for kind in ("fresh", "warm")
    }


def ours(contender: str) -> Row:
    """A row of the course."""
    return Row(OURS, contender, everywhere=True)


def parts(quick: bool) -> list[Part]:
    """All comparisons at all sizes, those of a letter together."""
    workers = {"style": "workers", "spared": True}
    floor = {"floor: cast and copied": Row(SCIPY, "copied", kind="copied", everywhere=True)}
    elastic = {
        **monai("elastic"),
        "TorchIO, elastic alone": Row(TORCHIO, "elastic alone", least=1),
        "TorchIO, elastic alone, 2 workers": Row(TORCHIO, "elastic alone", **workers),
        "TorchIO": Row(TORCHIO, "elastic", least=1),
        "TorchIO, 2 workers": Row(TORCHIO, "elastic", **workers),
        "TorchIO, composed": Row(TORCHIO, "elastic, composed", least=1),
        "SciPy": Row(SCIPY, "elastic"),
        "SciPy, 2 threads": Row(SCIPY, "elastic", "threads"),
        "SimpleITK": Row(SCIPY, "SimpleITK", least=1),
    }
    affine = {
        **monai("affine"),
        "TorchIO": Row(TORCHIO, "affine"),
        "TorchIO, 2 workers": Row(TORCHIO, "affine", **workers),
        "SciPy": Row(SCIPY, "affine"),
        "SciPy, 2 threads": Row(SCIPY, "affine", "threads"),
    }
    default, tuned = ("MONAI",), ("MONAI, tuned", "MONAI, tuned, 2 workers")
    warps = (Asked(3, default, "MONAI at its defaults"), Asked(1, tuned, "MONAI, tuned"))
    copied = (Asked(1 / 1.5, IMAGE_COPIES, "copying"),)
    volume = {"item": "a volume"}
    made = []
    for letter, kind, words, rows in (
        ("A", "elastic", "elastic + affine", elastic),
        ("B", "affine", "affine", affine),
    ):
        title = f"{letter}. Warp ({words}) of image and mask, {{edge}} cubed"
        rows = {STAGE: ours(kind), **rows, **floor}
        part = Part(letter, title, f"{words}, {{edge}} cubed", rows, warps, **volume)
        made += at_sizes(part, VOLUMES, quick)
    for kind, words, factor in (("files", "from files", 4), ("cache", "from a cache", 6)):
        plain = Row(OURS, f"{kind}, not augmented", kind="copied", everywhere=True)
        rows = {STAGE: ours(kind), **monai(kind), "the same, not augmented": plain}
        asked = (Asked(factor, tuple(STYLES), "MONAI"), *warps)
        title = f"C. Pictures {words}, {{picture}} x {{picture}}, flipped, rotated, {{batch}} each"
        part = Part("C", title, f"{{picture}} x {{picture}} {words}", rows, asked)
        made += at_sizes(dataclasses.replace(part, elements=JOB["batch"]), PICTURES, quick)
    for sizes, word in ((CROPS, "volumes"), (PICTURE_CROPS, "pictures")):
        title = f"D. {{crops}} crops of {{crop}} from each of int16 {word} of {{whole}}"
        name = "{crops} crops of {crop}, image"
        hand = {"by hand in tf.data": ours("crops by hand")}
        rows = {"crops.random": ours("crops"), **hand, **copies("crops"), **monai("crops")}
        asked = (*copied, Asked(1 / 1.1, tuple(hand), "the stage by hand"), *warps)
        item = {"item": "an image"}
        made += at_sizes(Part("D", title, name, rows, asked, **item), sizes, quick)
        rows = {"crops.from_memory": ours("crops from memory"), **copies("crops")}
        title, name = f"{title}, from memory", f"{name}, from memory"
        made += at_sizes(Part("D", title, name, rows, copied, **item), sizes, quick)
    kind, name = "crops of pairs", "{crops} crops of {crop}, image + mask"
    title = "D. {crops} crops of {crop} from each of volumes of {whole} and their masks, pos_neg"
    rows = {"crops.pos_neg": ours(kind), **copies(kind), **monai(kind)}
    made += at_sizes(Part("D", title, name, rows, (*copied, *warps), **volume), CROPS, quick)
    return made


def check_warps(row: str, inputs: list, results: list, positions: list | None) -> None:
    """Warped images and masks are pairs still; ours are what SciPy makes of them."""
    pairs = list(zip(inputs, results, strict=True))
    for number, (before, after) in enumerate(pairs):
        check_pair(row, before, after)
        if positions is not None:
            check_with_scipy(row, before, after, np.moveaxis(positions[number], -1, 0))
    check_moved(row, pairs)


def looker(part: Part, workers: Workers):
    """What looks at the items of each contender of a part."""
    job = {**workers.job, **part.told}
    course, is_crop, is_picture = part.rows[part.ours], "crop" in job, "picture" in job
    if is_picture:
        plain = dataclasses.replace(course, contender="cache, not augmented")
        workers.start([plain])
        inputs = picture_pairs(workers[plain].keep(plain.contender, 1, part.told)[0][0])
    else:
        inputs = [load(job, i) for i in range(job["volumes"] if is_crop else LOOKED_AT)]

    def look(name: str, row: Row, items: list) -> None:
        if is_crop:
            for item in items:
                fields = volume_pair(item)
                check_crops(name, [whole[: len(fields)] for whole in inputs], fields)
            return
        results = picture_pairs(items[0]) if is_picture else [volume_pair(one) for one in items]
        if row.kind == "copied":
            for before, after in zip(inputs, results, strict=True):
                same = all(map(np.array_equal, before, after))
                need(same, name, "has changed what it was to copy")
            return
        positions = None
        if row.file == OURS:
            found, _ = workers[row].keep(f"{row.contender} positions", LOOKED_AT, part.told)
            positions = list(found[0][0]) if is_picture else [image for image, _ in found]
        check_warps(name, inputs, results, positions)

    return look


def main() -> None:
    options = arguments(__doc__.splitlines()[0], "ABCD").parse_args()

    def contest(part: Part, rounds: int, pass_s: float) -> list[dict]:
        told = make(part.told, options.data_dir, options.quick)
        part = dataclasses.replace(part, told=told)
        times = measure(part, workers, looker(part, workers), rounds, pass_s)
        return report(part, times, workers.job)

    with Workers(JOB, options.peers) as workers:
        run(options, parts(options.quick), workers, contest)
    print(
        "\nItems were checked: pairs of image and mask belong together, crops are boxes of their\n"
        "volumes, the course's warps are what SciPy gives at the same positions, and no two items\n"
        "are equal."
    )


if __name__ == "__main__":
    main()
