"""From a folder of DICOM files to one sorted `[z, y, x]` array in Hounsfield units: how fast?

A  200 slices, uncompressed; 100 as RLE and as lossless JPEG 2000: time, and peak memory
B  finding and sorting the files of 200 slices by their headers
C  4 and 32 slices, uncompressed and RLE: there the cost of a file decides, not of a voxel

README.md says how it is kept fair.
"""

import contextlib
import dataclasses

import harness
from harness import Part, Row, Workers, entry, row
from workloads import one_series

LIMIT = 1.3  # times the voxels
SAME = {"kind": "same", "look": "whole"}
TAGS = ["SeriesInstanceUID", "ImageOrientationPatient", "ImagePositionPatient"]
READERS = {
    "read_series": row("ours_files.read", **SAME),
    "pydicom loop": row("pydicom.read", **SAME),
    "pydicom loop, tuned": row("pydicom.read_tuned", **SAME),
    "SimpleITK": row("simpleitk.read", **SAME),
    "SimpleITK, tuned": row("simpleitk.read_tuned", **SAME),
    "MONAI ITKReader": row("monai.read", reader_name="ITKReader", **SAME),
    "MONAI ITKReader, tuned": row("monai.read_itk_tuned", **SAME),
    "MONAI PydicomReader": row("monai.read", reader_name="PydicomReader", **SAME),
    "MONAI PydicomReader, tuned": row(
        "monai.read", reader_name="PydicomReader", axes="yxz", dtype=None, swap_ij=False, **SAME
    ),
    "dicomsdl loop": row("dicomsdl.read", **SAME),
    "dicomsdl loop, tuned": row("dicomsdl.read_tuned", **SAME),
    "raw bytes (floor)": row("floors.raw_bytes", kind=""),
}
SCANNERS = {
    "scan": row("ours_files.scan", **SAME),
    "pydicom, stop_before_pixels": row("pydicom.scan", **SAME),
    "pydicom, specific_tags": row("pydicom.scan", specific_tags=TAGS, **SAME),
    "SimpleITK GetGDCMSeriesFileNames": row("simpleitk.scan", **SAME),
    "dicomsdl, load_until": row("dicomsdl.scan", **SAME),
}


def sizes(encoding: str, small: int, usual: int) -> dict:
    """What is told of each size: a number of slices."""
    told = {"series": 1, "pixels": 512, "encoding": encoding}
    tiny = {**told, "slices": 4 + small // 8, "pixels": 64}
    return {"smoke": tiny, "small": {**told, "slices": small}, "usual": {**told, "slices": usual}}


def parts(options) -> list[Part]:
    name, native = "read_series, {encoding}, {slices} slices", "uncompressed"
    encoded = {name: one for name, one in READERS.items() if one.module != "floors"}
    made = [("A", name, once(READERS), sizes(native, 32, 200))]
    made.append(("B", "scan, {slices} files", once(SCANNERS), sizes(native, 32, 200)))
    for encoding in ("RLE", "JPEG 2000 lossless"):  # decoding takes long: fewer slices tell as much
        made.append(("A", name, once(encoded), sizes(encoding, 4, 100)))
    for encoding, rows in ((native, READERS), ("RLE", encoded)):
        made += [("C", f"{name}, small", rows, sizes(encoding, few, few)) for few in (4, 32)]
    return [
        part
        for letter, words, rows, told in sorted(made, key=lambda one: one[0])
        for part in harness.at_sizes(
            Part(letter, words, rows, one_series, "a series"), told, options
        )
    ]


def once(rows: dict[str, Row]) -> dict[str, Row]:
    """A pass is one reading: its memory is as fresh as in life."""
    return {name: dataclasses.replace(one, items=1) for name, one in rows.items()}


def peaks(part: Part, job: dict, options) -> dict[str, float]:
    """Peak memory of reading, as a multiple of the int16 voxels, each in a process of its own.

    Over what it holds after its imports and a first small series. Only the course's of encoded
    series and in short runs.
    """
    found, voxels = {}, job["slices"] * job["pixels"] ** 2 * 2
    small = part.but(told={**part.told, "slices": 4}).job(options.data_dir)
    for name, one in part.rows.items():
        everybody = job["encoding"] == "uncompressed" and not options.short
        if one.kind and (everybody or name == part.ours):
            own = Workers(options)
            with contextlib.closing(own), contextlib.suppress(harness.NotInstalledError):
                own.ask(one, "look", small, kind="", count=1)
                found[name] = own.ask(one, "peak", job)["bytes"] / voxels
    return found


def compare(part: Part, workers: Workers, options) -> list[dict]:
    job = part.job(options.data_dir)
    turns = harness.measure(part, job, workers, options)
    if part.letter != "A":
        return harness.report(part, turns, job)
    found = peaks(part, job, options)
    entries = harness.report(part, turns, job, {"peak memory, x voxels": found})
    ours, others = found.pop(part.ours), {"limit": LIMIT, **found}
    name = f"read_series, {job['encoding']}, peak memory"
    entries += [entry(name, ours, "x voxels", who, peak) for who, peak in others.items()]
    return entries


if __name__ == "__main__":
    options = harness.parsed(harness.arguments(__doc__, "ABC"))
    harness.run(options, parts(options), compare)
