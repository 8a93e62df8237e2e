"""Nothing that leads to a person comes out of the converter: not written, not printed.

Each marker stands in one place of the input only, so a failure names the place that leaked.
"""

import datetime
import gzip
import hashlib
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image
from pydicom import dcmwrite
from pydicom import uid as uids
from pydicom.datadict import DicomDictionary
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate

from helpers import records
from tests.dicom_files import image, voxels

ROOT = Path(__file__).parent.parent
TEXT = {"AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"}
# What decides whether, and how, an image is read at all; each of these has a file of its own.
NEEDED = {"SpecificCharacterSet", "PhotometricInterpretation", "BurnedInAnnotation"}
NEEDED |= {"ConversionType", "SOPClassUID", "ImageType"}
NUMBERS = {"RescaleSlope": 1, "RescaleIntercept": 1, "PixelSpacing": 2, "ImagePositionPatient": 3}
SHAPE = (3, 20, 30)
DECIMAL = "1.23456789012345"  # a marker takes its place in the file
SYNTAXES = (uids.JPEG2000Lossless, uids.JPEGLSLossless, uids.JPEGLosslessSV1, uids.RLELossless)
pytestmark = pytest.mark.filterwarnings("ignore")  # the files are odd on purpose


class Markers(dict):
    """Texts, UIDs and dates that occur nowhere else, by the place where each was planted."""

    def text(self, place: str) -> str:
        return self.setdefault(place, f"PLANTED{len(self):05d}")

    def uid(self, place: str) -> str:
        return self.setdefault(place, f"1.2.840.{3141592653 + len(self)}")

    def date(self, place: str) -> str:
        day = datetime.date(1871, 1, 1) + datetime.timedelta(days=len(self))
        return self.setdefault(place, day.strftime("%Y%m%d"))

    def leaked(self, output: bytes) -> set[str]:
        """Places whose marker occurs in any case, in UTF-8 or UTF-16, or as an unsalted hash."""
        output = output.lower()
        output += output.replace(b"\0", b"")  # what UTF-16 makes of ASCII
        found = set()
        for place, marker in self.items():
            hashes = [hashlib.new(kind, marker.encode()) for kind in ("md5", "sha1", "sha256")]
            signs = [marker.lower(), *(one.hexdigest()[:16] for one in hashes)]
            found |= {place for sign in signs if sign.encode() in output}
        return found


def run(program: list, output: Path, *arguments: object) -> subprocess.CompletedProcess:
    """A command line in a process of its own."""
    salt, paths = output.with_name("the.salt"), os.pathsep.join([str(ROOT), str(output.parent)])
    salt.write_text("a salt of the tests")
    words = [*program, "convert", *arguments, output, "--salt-file", salt]
    env = os.environ | {"PYTHONPATH": paths, "PYTHONUNBUFFERED": ""}
    settings = {"cwd": ROOT, "env": env, "timeout": 200, "capture_output": True}
    return subprocess.run([sys.executable, *map(str, words)], **settings)


def come_out(output: Path, done: subprocess.CompletedProcess) -> bytes:
    """All that was printed, every name and every byte in the folder, hidden files too."""
    paths = sorted(output.rglob("*"))
    names = [os.fsencode(path.relative_to(output)) for path in paths]
    files = [path.read_bytes() for path in paths if path.is_file()]
    return b"\n".join([done.stdout, done.stderr, *names, *files])


# Input with a marker wherever text has room; much of it fails, each file in its own way. Each
# function gives arguments, codes of what is refused, and how many records there are at least.


def planted(markers: Markers) -> Dataset:
    """A marker in every element of DICOM's dictionary that can hold one."""
    dataset, text = Dataset(), markers.text
    makers = dict.fromkeys(TEXT, text) | {"UI": markers.uid, "DA": markers.date, "DT": markers.date}
    for tag, (kind, _, _, _, keyword) in DicomDictionary.items():
        if tag >> 16 not in (0, 2, 4) and keyword not in NEEDED and kind in makers:
            setattr(dataset, keyword, makers[kind](keyword))
    nested = Dataset()
    nested.PatientName = text("nested name")
    dataset.ReferencedPatientSequence = [nested]
    dataset.add_new(0x00090010, "LO", text("private creator"))
    dataset.add_new(0x00091001, "UT", text("private text"))
    dataset.add_new(0x00091003, "OB", text("UTF-16").encode("utf-16-le"))
    dataset.add_new(0x60000010, "US", SHAPE[1])
    dataset.add_new(0x60003000, "OW", text("overlay").encode())
    dataset.add_new(0xFFFCFFFC, "OB", text("padding of the file").encode())
    return dataset


def plant_disc(base: Path, markers: Markers) -> tuple[list, set, int]:
    text, elements, stored = markers.text, planted(markers), voxels(SHAPE)
    root = base / text("path of the input") / text("path of the folder")
    root.mkdir(parents=True)
    meta = FileMetaDataset()
    meta.SourceApplicationEntityTitle = text("file meta: source")
    meta.PrivateInformationCreatorUID = markers.uid("file meta: creator")
    meta.PrivateInformation = text("file meta: private").encode()

    def path(what: str) -> Path:
        return root / f"{text(f'path of {what}')}.dcm"

    def single(what, pixels=stored[0], syntax=uids.ExplicitVRLittleEndian, **more):
        dataset = Dataset()
        dataset.update(elements)
        own = {f"{one}InstanceUID": markers.uid(f"{what}: {one}") for one in ("SOP", "Series")}
        dataset.update(image(pixels, **(own | {"Modality": None} | more)))
        if "PixelData" not in more:
            dataset.PixelData += text("behind the last row").encode()
        for keyword in (keyword for keyword, value in more.items() if value is None):
            dataset.pop(keyword, None)
        dataset.file_meta = FileMetaDataset(meta)
        dataset.file_meta.TransferSyntaxUID = syntax
        dataset.preamble = text("preamble").encode().ljust(128, b"\0")
        encoding = {"implicit_vr": False, "little_endian": True}
        dcmwrite(path(what), dataset, enforce_file_format=True, **encoding)
        return path(what)

    series = {"SeriesInstanceUID": markers.uid("series"), "BurnedInAnnotation": "NO"}
    for n, pixels in enumerate(stored):
        single(f"slice {n}", pixels, position=(0, 0, 2.5 * n), **series)
    singles = {keyword: {keyword: text(keyword)} for keyword in NEEDED - {"SOPClassUID"}} | {
        "burned in": {"BurnedInAnnotation": "YES"},
        "report": {"SOPClassUID": uids.BasicTextSRStorage, "PixelData": None},
        "scout": {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]},
        "constant": {"pixels": np.zeros(SHAPE[1:], np.int16)},
        "class": {"SOPClassUID": markers.uid("SOPClassUID")},
    }
    for syntax in (*SYNTAXES, markers.uid("TransferSyntaxUID")):
        nonsense = encapsulate([text(f"pixels of {syntax}").encode() * 20])
        singles[f"nonsense in {syntax}"] = {"syntax": syntax, "PixelData": nonsense}
    for what, of_its_own in singles.items():
        single(what, **of_its_own)
    for keyword, count in NUMBERS.items():
        odd = single(f"odd {keyword}", **{keyword: [DECIMAL] * count})
        marker = text(f"in place of a number: {keyword}").ljust(len(DECIMAL))
        odd.write_bytes(odd.read_bytes().replace(DECIMAL.encode(), marker.encode()))
    path("header").write_bytes(bytes(128) + b"DICM" + text("no header").encode() * 9)
    path("text").write_text(text("a text"))
    path("link").symlink_to(text("the target of a link"))
    codes = {"BURNED_IN", "COLOUR", "CONSTANT", "DECODING_FAILED", "DECODER_MISSING", "NOT_DICOM"}
    codes |= {"NOT_AN_IMAGE", "NOT_FINITE", "SCOUT", "UNREADABLE"}
    return ["dicom", root.parent], codes, 1


def nifti(markers: Markers, path: Path, stored: np.ndarray) -> None:
    """A NIfTI file with text wherever it has room for some; `stored` is `[z, y, x]`."""
    file = nibabel.Nifti1Image(stored.T, np.diag([-0.7, -0.8, 2.5, 1]))
    for field in ("descrip", "aux_file", "db_name", "intent_name"):
        file.header[field] = markers.text(f"NIfTI: {field}")
    comment = markers.text("NIfTI: extension").encode()
    file.header.extensions.append(nibabel.nifti1.Nifti1Extension(6, comment))
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as out, gzip.GzipFile(markers.text("gzip: name"), "wb", 1, out) as packed:
        packed.write(file.to_bytes())


def plant_list(root: Path, markers: Markers) -> tuple[list, set, int]:
    text = markers.text
    base, training = root / text("path of the folder"), []
    mask = np.random.default_rng(1).integers(0, 3, SHAPE).astype(np.uint8)

    def item(what: str, stored: np.ndarray) -> tuple[Path, Path]:
        made = {"patient": text(f"JSON: patient of {what}"), "weight": 0.5}
        made[text("JSON: key of an item")] = text("JSON: value of an item")
        for key, array in {"image": stored, "label": mask}.items():
            made[key] = f"./{key}s/{text(f'path of {key} of {what}')}.nii.gz"
            nifti(markers, base / made[key], array)
        training.append(made)
        return base / made["image"], base / made["label"]

    item("case 1", voxels(SHAPE)), item("case 2", voxels(SHAPE, seed=2))
    item("constant", np.full(SHAPE, 7, np.int16))
    cut, _ = item("cut", voxels(SHAPE, seed=3))
    cut.write_bytes(cut.read_bytes()[:-200])
    item("no header", voxels(SHAPE))[0].write_text(text("in place of a header") * 40)
    item("no mask", voxels(SHAPE))[1].write_text(text("in place of a mask") * 40)
    training.append({"image": f"{text('path of a format')}.mha", "label": "a.nii.gz"})
    document = {key: text(f"JSON: {key}") for key in ("name", "description", "licence")} | {
        text("JSON: a key"): [text("JSON: a value")],
        "modality": {"0": text("JSON: modality")},
        "labels": {"0": "background", "1": "liver", "2": "spleen"},
        "training": training,
        text("JSON: a section"): [training[0] | {"image": "another.nii"}],
    }
    (base / "dataset.json").write_text(json.dumps(document))
    return ["decathlon", base], {"CONSTANT", "DATA_LIST", "TRUNCATED", "UNKNOWN_FORMAT"}, 2


def picture(markers: Markers, pixels: np.ndarray, kind: str = "PNG", orientation: int = 1) -> bytes:
    """A file with text wherever Pillow can put some, and behind the end."""
    text, exif, file = markers.text, Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    exif[0x013B], exif[0x0132] = text(f"{kind}: artist"), markers.date(f"{kind}: DateTime")
    more = {key: text(f"{kind}: {key}").encode() for key in ("comment", "icc_profile", "xmp")}
    Image.fromarray(pixels).save(file, kind, exif=exif, quality=90, **more)
    return file.getvalue() + text(f"{kind}: behind the end").encode()


def plant_pictures(root: Path, markers: Markers, masks: bool) -> tuple[list, set, int]:
    text, rng = markers.text, np.random.default_rng(2)
    base = root / text("path of the folder")
    folders = [base / text(f"path of {kind}") for kind in ("images", "masks")]
    folders[0].mkdir(parents=True), folders[1].mkdir()
    pixels = rng.integers(0, 256, (20, 30, 3)).astype(np.uint8)
    rows = [["file", "patient", "label", text("CSV: head of a column")]]

    def single(what: str, file: bytes, mask=None, suffix=".jpg") -> None:
        name = text(f"path of {what}")
        drawn = rng.integers(0, 2, (20, 30)).astype(np.uint8)
        (folders[0] / f"{name}{suffix}").write_bytes(file)
        (folders[1] / f"{name}.png").write_bytes(mask or picture(markers, drawn))
        listed = f"{folders[0].name}/{name}{suffix}"
        rows.append([listed, text(f"CSV: patient of {what}"), "1", text("CSV: remark")])

    good = picture(markers, pixels, "JPEG")
    single("a JPEG", good)
    single("a PNG", picture(markers, pixels // 2), suffix=".png")
    single("a mask in colour", picture(markers, pixels // 3, "JPEG"), picture(markers, pixels))
    single("turned", picture(markers, pixels, "JPEG", orientation=6))
    single("cut", good[: good.rindex(b"\xff\xda") + 40])
    single("nonsense", b"\xff\xd8\xff" + text("in place of a JPEG").encode() * 9)
    single("one colour", picture(markers, np.zeros((20, 30, 3), np.uint8), "JPEG"))
    (folders[0] / text("path of a document")).write_text(text("a document"))
    (base / "table.csv").write_text("\n".join(map(",".join, rows)))
    arguments = ["pictures", folders[0], "--table", base / "table.csv", "--classes", "skin,lesion"]
    arguments += ["--masks", folders[1]] if masks else []
    return arguments, {"CONSTANT", "ROTATED", "UNKNOWN_FORMAT"}, 2 if masks else 3


SETS = {
    "dicom": plant_disc,
    "decathlon": plant_list,
    "pictures with masks": lambda *places: plant_pictures(*places, masks=True),
    "pictures with labels": lambda *places: plant_pictures(*places, masks=False),
}


@pytest.mark.parametrize("kind", SETS)
def test_nothing_leaks_from_files_that_are_written_or_refused(kind, tmp_path):
    markers, output = Markers(), tmp_path / "out"
    arguments, codes, count = SETS[kind](tmp_path / "in", markers)
    done = run(["-m", "helpers"], output, *arguments)
    told = set(re.findall(r"^ +\d+  ([A-Z_]+): ", done.stdout.decode(), re.MULTILINE))
    assert done.returncode == 1 and codes <= told, done.stderr
    manifest = records.load_manifest(output)
    assert manifest.records >= count and len(markers) > 20
    assert markers.leaked(come_out(output, done) + repr(manifest).encode()) == set()


# What others say, and what is left where somebody is killed

TALKS = """
import logging, os, sys, time, warnings
import numpy as np
from helpers.errors import CourseDataError
from helpers.cases import Case, Found

def find(folder, **options):
    speak()
    files = [folder / f"PLANTED {n}" for n in range(8)]
    return Found(tuple(Case(f"PLANTED {n}", n, (files[n],), "PLANTED", size=100) for n in range(8)))

def load(case):
    speak()
    if case.source < 4:
        return {"image": np.arange(8).reshape(2, 2, 2), "spacing": (1, 1, 1)}
    ERROR

def speak():
    os.write(1, b"PLANTED on descriptor 1")
    os.write(2, b"PLANTED on descriptor 2")
    print("PLANTED on stdout")
    warnings.warn("PLANTED in a warning")
    logging.getLogger("a library").warning("PLANTED in a log")

if __name__ == "__main__":
    from helpers import __main__, dicom
    import talks
    dicom.find, dicom.load = talks.find, talks.load
    sys.exit(__main__.main(sys.argv[1:]))
"""
ERRORS = {  # what a loader does; the exit code, and what is said
    'raise CourseDataError("COLOUR", "no text", [case.files[0].with_name("PLANTED")])': (
        1,
        "COLOUR",
    ),
    'raise OSError(5, "Input/output error", "PLANTED")': (1, "UNREADABLE"),
    'raise RuntimeError("PLANTED")': (2, "RuntimeError"),
    "os._exit(1)": (2, "memory"),
    "os.kill(os.getppid(), 9)": (-9, ""),
    # Were a worker to live on, this would not end.
    "os.kill(os.getppid(), 2), time.sleep(600)": (130, "Interrupted."),
}


@pytest.mark.parametrize("error", ERRORS, ids=map(str, ERRORS.values()))
def test_what_libraries_print_or_raise_is_not_printed_and_nothing_else_is_left(tmp_path, error):
    (tmp_path / "talks.py").write_text(TALKS.replace("ERROR", error))
    (tmp_path / "in").mkdir()
    output, (code, said) = tmp_path / "out", ERRORS[error]
    workers = 1 if said == "COLOUR" else 2
    done = run([tmp_path / "talks.py"], output, "dicom", tmp_path / "in", "--workers", workers)
    assert done.returncode == code and said in (done.stdout + done.stderr).decode()
    for told in (b"PLANTED", str(tmp_path).encode()):
        assert told not in come_out(output, done)
