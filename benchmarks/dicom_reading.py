"""From a folder of DICOM files to one sorted `[z, y, x]` array in Hounsfield units: how fast?

    python benchmarks/dicom_reading.py [--quick] [--slices 200] [--json PATH]

Compares `helpers.dicom.read_series`, with all its checks, to what people use instead, on one
synthetic CT series, uncompressed, as RLE and as lossless JPEG 2000, and on series of 4 and 32
slices. README.md says how it is kept fair.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import importlib.util
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk
from _harness import compare, entry, interleave, peak_bytes, print_times, write_json
from pydicom.pixels import apply_rescale
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, RLELossless

from helpers import dicom
from helpers.lesson.phantoms import dicom_series, fresh_set, torso
from helpers.volume import Volume

OURS = "read_series"
OUR_SCAN = "scan"
ENCODINGS = {
    "uncompressed": ExplicitVRLittleEndian,
    "RLE": RLELossless,
    "JPEG 2000 lossless": JPEG2000Lossless,
}
SMALL = (4, 32)  # slices of the small series: there the cost of a file decides, not of a voxel
DISTINCT = 16  # slices of anatomy that are computed; more are made from these
MEMORY_LIMIT = 1.3  # times the voxels
DATA_DIR = Path(__file__).resolve().parent.parent / "data"


def read_ours(folder: Path) -> np.ndarray:
    return dicom.read_series(folder).voxels


def height_along_normal(header: pydicom.Dataset) -> float:
    row, column = np.reshape(np.array(header.ImageOrientationPatient, float), (2, 3))
    return float(np.dot(np.cross(row, column), np.array(header.ImagePositionPatient, float)))


def read_pydicom(folder: Path) -> np.ndarray:
    """The loop of most tutorials, with the sorting done right; float64, as apply_rescale gives."""
    slices = [pydicom.dcmread(path) for path in folder.iterdir()]
    slices.sort(key=height_along_normal)
    return np.stack([apply_rescale(header.pixel_array, header) for header in slices])


def read_pydicom_tuned(folder: Path) -> np.ndarray:
    """Written for this series: integer arithmetic, one copy, nothing kept, nothing checked."""
    slices = [pydicom.dcmread(path) for path in folder.iterdir()]
    slices.sort(key=height_along_normal, reverse=True)
    voxels = np.empty((len(slices), slices[0].Rows, slices[0].Columns), np.int16)
    for out in voxels:
        header = slices.pop()
        stored = header.pixel_array.view(np.int16)
        np.add(stored, np.int16(header.RescaleIntercept), out=out)
    return voxels


def read_simpleitk(folder: Path) -> np.ndarray:
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    return sitk.GetArrayFromImage(reader.Execute())


def read_simpleitk_tuned(folder: Path) -> sitk.Image:
    """The format named, so that it is not guessed for each file; no copy into a NumPy array."""
    reader = sitk.ImageSeriesReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    return reader.Execute()


def as_voxels(result: np.ndarray | sitk.Image) -> np.ndarray:
    """An array, or a view on an image, which has to outlive the view."""
    return sitk.GetArrayViewFromImage(result) if isinstance(result, sitk.Image) else result


def read_dicomsdl(folder: Path) -> np.ndarray:
    import dicomsdl

    slices = [dicomsdl.open(str(path)) for path in folder.iterdir()]
    slices.sort(key=height_along_normal)
    return np.stack([header.pixelData() for header in slices])


def read_dicomsdl_tuned(folder: Path) -> np.ndarray:
    """Stored values decoded into their place; integer arithmetic there."""
    import dicomsdl

    slices = [dicomsdl.open(str(path)) for path in folder.iterdir()]
    slices.sort(key=height_along_normal, reverse=True)
    voxels = np.empty((len(slices), slices[0].Rows, slices[0].Columns), np.int16)
    for out in voxels:
        header = slices.pop()
        header.copyFrameData(0, out.view(np.uint16))
        out += np.int16(header.RescaleIntercept)
    return voxels


def with_monai(reader: object, **options: object) -> Callable[[], Callable[[Path], np.ndarray]]:
    """MONAI's transform is made once, as in a pipeline; a folder stands for a DICOM series."""

    def prepare() -> Callable[[Path], np.ndarray]:
        from monai.transforms import LoadImage

        load = LoadImage(reader=reader, image_only=True, **options)
        return lambda folder: load(folder).numpy()

    return prepare


def with_monai_itk_tuned() -> Callable[[Path], np.ndarray]:
    """The format named, so that it is not guessed for each file; NumPy's order of axes.

    dtype stays at MONAI's float32: with the file's own type the conversion copies nothing, and
    the array points to memory that ITK has given back. It crashes, or holds other voxels.
    """
    import itk
    from monai.data import ITKReader

    reader = ITKReader(reverse_indexing=True, imageio=itk.GDCMImageIO.New())
    return with_monai(reader)()


def read_bytes(folder: Path) -> np.ndarray:
    """The floor: the pixels' bytes from files to one array, in no order and not understood."""
    paths = list(folder.iterdir())
    header = pydicom.dcmread(paths[0], stop_before_pixels=True)
    voxels = np.empty((len(paths), header.Rows, header.Columns), np.int16)
    for path, out in zip(paths, voxels, strict=True):
        with open(path, "rb", buffering=0) as file:
            file.seek(-out.nbytes, os.SEEK_END)
            file.readinto(memoryview(out).cast("B"))
    return voxels


@dataclasses.dataclass(frozen=True)
class Reader:
    """One way to read: `prepare()` gives the function that is timed; `axes` is what it returns."""

    prepare: Callable[[], Callable[[Path], np.ndarray]]
    axes: str = "zyx"
    needs: tuple[str, ...] = ()
    is_floor: bool = False

    @property
    def installed(self) -> bool:
        return all(importlib.util.find_spec(package) for package in self.needs)

    def zyx(self, result: np.ndarray | sitk.Image) -> np.ndarray:
        """A view with the axes in the order `[z, y, x]`."""
        return as_voxels(result).transpose([self.axes.index(axis) for axis in "zyx"])


WITH_ITK, WITH_PYDICOM = ("torch", "monai", "itk"), ("torch", "monai")
READERS = {
    OURS: Reader(lambda: read_ours),
    "pydicom loop": Reader(lambda: read_pydicom),
    "pydicom loop, tuned": Reader(lambda: read_pydicom_tuned),
    "SimpleITK": Reader(lambda: read_simpleitk),
    "SimpleITK, tuned": Reader(lambda: read_simpleitk_tuned),
    "MONAI ITKReader": Reader(with_monai("ITKReader"), "xyz", WITH_ITK),
    "MONAI ITKReader, tuned": Reader(with_monai_itk_tuned, "zyx", WITH_ITK),
    "MONAI PydicomReader": Reader(with_monai("PydicomReader"), "xyz", WITH_PYDICOM),
    "MONAI PydicomReader, tuned": Reader(
        with_monai("PydicomReader", dtype=None, swap_ij=False), "yxz", WITH_PYDICOM
    ),
    "dicomsdl loop": Reader(lambda: read_dicomsdl, needs=("dicomsdl",)),
    "dicomsdl loop, tuned": Reader(lambda: read_dicomsdl_tuned, needs=("dicomsdl",)),
    "raw bytes (floor)": Reader(lambda: read_bytes, is_floor=True),
}


def scan_ours(folder: Path) -> list[str]:
    return [path.name for path in dicom.scan(folder).series[0].files]


def scan_pydicom(folder: Path, **options: object) -> list[str]:
    """What a loop needs to split by series and to sort."""
    headers = []
    for path in folder.iterdir():
        header = pydicom.dcmread(path, stop_before_pixels=True, **options)
        headers.append((header.SeriesInstanceUID, height_along_normal(header), path.name))
    return [name for _, _, name in sorted(headers)]


def scan_pydicom_tuned(folder: Path) -> list[str]:
    tags = ["SeriesInstanceUID", "ImageOrientationPatient", "ImagePositionPatient"]
    return scan_pydicom(folder, specific_tags=[pydicom.tag.Tag(tag) for tag in tags])


def scan_simpleitk(folder: Path) -> list[str]:
    return [Path(path).name for path in sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder))]


def scan_dicomsdl(folder: Path) -> list[str]:
    import dicomsdl

    headers = []
    for path in folder.iterdir():
        header = dicomsdl.open(str(path), load_until=0x7FDFFFFF)
        headers.append((header.SeriesInstanceUID, height_along_normal(header), path.name))
    return [name for _, _, name in sorted(headers)]


SCANNERS = {
    OUR_SCAN: scan_ours,
    "pydicom, stop_before_pixels": scan_pydicom,
    "pydicom, specific_tags": scan_pydicom_tuned,
    "SimpleITK GetGDCMSeriesFileNames": scan_simpleitk,
    "dicomsdl, load_until": scan_dicomsdl,
}


def make_series(data_dir: Path, encoding: str, slices: int) -> Path:
    """A CT of a torso, 512 x 512, one file a slice, file names without meaning.

    Anatomy, edges and noise are those of the course's phantom, so that it compresses like a CT.
    Beyond `DISTINCT` slices they come again, shifted sideways, so that no two are alike.
    """
    name = f"benchmark_{encoding.replace(' ', '_')}_{slices}".lower()
    with fresh_set(data_dir, name, 1, {"encoding": encoding, "slices": slices}) as folder:
        if folder:
            print(f"Making {slices} slices, {encoding}, once ...", file=sys.stderr)
            volume = anatomy()
            copies = [
                np.roll(volume.voxels, 5 * shift, axis=2) for shift in range(-(-slices // DISTINCT))
            ]
            voxels = np.concatenate(copies)[:slices]
            series = dataclasses.replace(volume, voxels=voxels, spacing=(1.5, 0.75, 0.75))
            # This seed numbers the slices upwards: MONAI's PydicomReader sorts by that number.
            dicom_series(series, folder / "series", transfer_syntax=ENCODINGS[encoding], seed=0)
    return data_dir / name / "series"


@functools.cache
def anatomy() -> Volume:
    return torso(0, shape=(DISTINCT, 512, 512)).volume


def touch(result: np.ndarray | sitk.Image) -> None:
    """Look at every voxel: a lazy or unfaulted array costs its owner, not the next user.

    A maximum, as it needs no wider type than the voxels' own and so adds the least.
    """
    as_voxels(result).max()


def compare_readers(folder: Path, repeats: int, label: str) -> dict[str, list[float]]:
    """Time all installed readers on one series; every result is compared voxel for voxel."""
    expected = read_pydicom(folder).astype(np.int16)
    native = label.startswith("uncompressed")
    readers = {
        name: reader
        for name, reader in READERS.items()
        if reader.installed and (native or not reader.is_floor)
    }
    prepared = {name: reader.prepare() for name, reader in readers.items()}

    def verify(name: str, result: np.ndarray | sitk.Image) -> None:
        reader = readers[name]
        if not reader.is_floor and not np.array_equal(reader.zyx(result), expected):
            raise SystemExit(f"{name} gives another volume than the pydicom loop on {folder}")

    contenders = {name: lambda read=read: read(folder) for name, read in prepared.items()}
    times_ms = interleave(contenders, repeats, touch, verify, label)
    checksum = zlib.crc32(expected.astype("<i2").tobytes())
    print(f"\n{label}: all readers gave the same {expected.shape} voxels, CRC-32 {checksum:08x}")
    return times_ms


def compare_scanners(folder: Path, repeats: int) -> dict[str, list[float]]:
    """Time what finds and sorts the files of a series without its pixels."""
    expected = scan_pydicom(folder)

    def verify(name: str, names: list[str]) -> None:
        if names != expected:
            raise SystemExit(f"{name} puts the files of {folder} in another order than pydicom")

    contenders = {
        name: lambda scanner=scanner: scanner(folder)
        for name, scanner in SCANNERS.items()
        if "dicomsdl" not in name or importlib.util.find_spec("dicomsdl")
    }
    return interleave(contenders, repeats, len, verify, "headers")


def memory_in_own_process(name: str, folder: Path) -> float:
    """Peak memory of reading, as a multiple of the int16 voxels."""
    command = [sys.executable, __file__, "--memory-of", name, "--folder", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"the memory of {name} could not be measured:\n{done.stderr}")
    return float(done.stdout.split()[-1])


def measure_memory(name: str, folder: Path) -> float:
    """Peak over what the process holds after its imports and a small series read."""
    read = READERS[name].prepare()
    paths = sorted(folder.iterdir())
    with tempfile.TemporaryDirectory() as small:
        for path in paths[:2]:
            shutil.copy(path, small)
        read(Path(small))
    header = pydicom.dcmread(paths[0], stop_before_pixels=True)
    voxel_bytes = len(paths) * header.Rows * header.Columns * 2

    def read_all() -> np.ndarray | sitk.Image:
        result = read(folder)
        touch(result)
        return result

    return peak_bytes(read_all) / voxel_bytes


def measured_for_memory(native: bool, quick: bool) -> list[str]:
    """Each takes a process with its imports; decoders' own buffers need a whole series to fade."""
    if quick:
        return [OURS, "pydicom loop", "SimpleITK"] if native else []
    return [name for name, reader in READERS.items() if not reader.is_floor] if native else [OURS]


def compare_memory(name: str, memory: dict[str, float]) -> list[dict[str, object]]:
    if OURS not in memory:
        return []
    others = {"limit": MEMORY_LIMIT} | {who: peak for who, peak in memory.items() if who != OURS}
    return [entry(name, memory[OURS], "x voxels", who, peak) for who, peak in others.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slices", type=int, help="of the uncompressed series (default 200)")
    parser.add_argument("--repeats", type=int, default=5, help="of each measurement (default 5)")
    parser.add_argument("--quick", action="store_true", help="a small run, within a minute")
    parser.add_argument("--json", type=Path, help="also write the comparisons to this file")
    parser.add_argument("--data-dir", type=Path, default=DATA_DIR, help="where series are kept")
    parser.add_argument("--memory-of", choices=READERS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory_of:
        print(measure_memory(options.memory_of, options.folder))
        return

    slices = options.slices or (32 if options.quick else 200)
    entries = []
    for encoding in ENCODINGS:
        native = encoding == "uncompressed"
        # Decoding takes so much longer than all else that fewer slices tell as much.
        count = slices if native else max(slices // (8 if options.quick else 2), 2)
        folder = make_series(options.data_dir, encoding, count)
        times_ms = compare_readers(folder, options.repeats, encoding)
        names = [name for name, reader in READERS.items() if native or not reader.is_floor]
        memory = {
            name: memory_in_own_process(name, folder)
            for name in measured_for_memory(native, options.quick)
            if name in times_ms
        }
        title = f"Folder to sorted volume, {count} x 512 x 512, {encoding}"
        print_times(title, names, times_ms, OURS, {"peak memory, x voxels": memory})
        entries += compare(f"{OURS}, {encoding}, {count} slices", times_ms, OURS)
        entries += compare_memory(f"{OURS}, {encoding}, peak memory", memory)
        if native:
            times_ms = compare_scanners(folder, options.repeats)
            title = f"Folder to sorted files, headers only, {count} files"
            print_times(title, list(SCANNERS), times_ms, OUR_SCAN)
            entries += compare(f"{OUR_SCAN}, {count} files", times_ms, OUR_SCAN)
    for encoding, count in itertools.product(("uncompressed", "RLE"), SMALL):
        folder = make_series(options.data_dir, encoding, count)
        times_ms = compare_readers(folder, options.repeats, f"{encoding}, {count} slices")
        title = f"A small series, {count} x 512 x 512, {encoding}"
        print_times(title, list(times_ms), times_ms, OURS)
        entries += compare(f"{OURS}, {encoding}, {count} slices, small", times_ms, OURS)
    if options.json:
        write_json(options.json, entries)


if __name__ == "__main__":
    main()
