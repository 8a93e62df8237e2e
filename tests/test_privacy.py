"""Nothing that leads to a person comes out of the converter: not written, not printed.

Each marker stands in one place of the input only, so a failure names the place that leaked.
"""

import csv
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
from PIL import Image, PngImagePlugin
from pydicom import dcmwrite
from pydicom import uid as uids
from pydicom.datadict import DicomDictionary
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate

from helpers import records
from helpers.__main__ import main
from tests.dicom_files import image, voxels

ROOT = Path(__file__).parent.parent
TEXT = {"AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"}
# What decides whether, and how, an image is read at all; each of these has a file of its own.
NEEDED = {"SpecificCharacterSet", "PhotometricInterpretation", "BurnedInAnnotation"}
NEEDED |= {"ConversionType", "SOPClassUID", "ImageType"}
SHAPE = (3, 20, 30)
DECIMAL = "1.23456789012345"  # a marker takes its place in the file
SYNTAXES = (uids.JPEG2000Lossless, uids.JPEGLSLossless, uids.JPEGLosslessSV1, uids.RLELossless)
pytestmark = pytest.mark.filterwarnings("ignore")  # the files are odd on purpose


class Markers:
    """Texts, UIDs and dates that occur nowhere else, and the place where each was planted."""

    def __init__(self) -> None:
        self.of: dict[str, str] = {}  # by place

    def text(self, place: str) -> str:
        return self.of.setdefault(place, f"PLANTED{len(self.of):05d}")

    def uid(self, place: str) -> str:
        return self.of.setdefault(place, f"1.2.840.{3141592653 + len(self.of)}")

    def date(self, place: str) -> str:
        day = datetime.date(1871, 1, 1) + datetime.timedelta(days=len(self.of))
        return self.of.setdefault(place, day.strftime("%Y%m%d"))

    def leaked(self, output: bytes) -> set[str]:
        """Places whose marker occurs in any case, in UTF-8 or UTF-16, or as an unsalted hash."""
        output = output.lower()
        output += output.replace(b"\0", b"")  # what UTF-16 makes of ASCII
        found = set()
        for place, marker in self.of.items():
            if marker.lower().encode() in output:
                found.add(place)
            for kind in ("md5", "sha1", "sha256"):
                if hashlib.new(kind, marker.encode()).hexdigest()[:16].encode() in output:
                    found.add(f"{place}, as {kind}")
        return found


def held(folder: Path) -> bytes:
    """Every name and every byte in a folder, hidden files too."""
    paths = sorted(folder.rglob("*"))
    names = [os.fsencode(path.relative_to(folder)) for path in paths]
    return b"\n".join([*names, *(path.read_bytes() for path in paths if path.is_file())])


def run(program: list, output: Path, *arguments: object) -> subprocess.CompletedProcess:
    """A command line in a process of its own."""
    output.with_name("the.salt").write_text("a salt of the tests")
    options = [output, "--salt-file", output.with_name("the.salt")]
    command = [sys.executable, *program, "convert", *arguments, *options]
    paths = os.pathsep.join([str(ROOT), str(output.parent)])
    settings = {"cwd": ROOT, "env": os.environ | {"PYTHONPATH": paths}}
    return subprocess.run(list(map(str, command)), capture_output=True, **settings)


def refuse_leaks(markers: Markers, output: Path, done: subprocess.CompletedProcess) -> None:
    assert markers.of
    for content in (held(output), done.stdout, done.stderr):
        assert markers.leaked(content) == set()


# Input with a marker wherever text has room; much of it fails, each file in its own way


def planted(markers: Markers, role: str) -> Dataset:
    """A marker in every element of DICOM's dictionary that can hold one."""
    dataset = Dataset()
    for tag, (kind, _, _, _, keyword) in DicomDictionary.items():
        place = f"{role}: {keyword}"
        if tag >> 16 in (0, 2, 4) or keyword in NEEDED:
            continue
        if kind in TEXT:
            setattr(dataset, keyword, markers.text(place))
        elif kind == "UI":
            setattr(dataset, keyword, markers.uid(place))
        elif kind in ("DA", "DT"):
            setattr(dataset, keyword, markers.date(place))
    nested = Dataset()
    nested.PatientName = markers.text(f"{role}: nested name")
    dataset.ReferencedPatientSequence = [nested]
    dataset.add_new(0x00090010, "LO", markers.text(f"{role}: private creator"))
    dataset.add_new(0x00091001, "UT", markers.text(f"{role}: private text"))
    dataset.add_new(0x00091003, "OB", markers.text(f"{role}: UTF-16").encode("utf-16-le"))
    dataset.add_new(0x60000010, "US", SHAPE[1])
    dataset.add_new(0x60003000, "OW", markers.text(f"{role}: overlay").encode())
    dataset.add_new(0xFFFCFFFC, "OB", markers.text(f"{role}: padding of the file").encode())
    return dataset


def plant_disc(base: Path) -> tuple[Markers, list, set, int]:
    """Markers, arguments, codes of what is refused, and how many records there should be."""
    markers = Markers()
    root = base / markers.text("path of the input") / markers.text("path of the folder")
    root.mkdir(parents=True)
    stored = voxels(SHAPE)
    roles = {role: planted(markers, role) for role in ("read", "refused")}

    def path(what: str) -> Path:
        return root / f"{markers.text(f'path of {what}')}.dcm"

    def single(what, pixels=stored[0], role="refused", syntax=uids.ExplicitVRLittleEndian, **more):
        dataset = Dataset()
        dataset.update(roles[role])
        own = {f"{one}InstanceUID": markers.uid(f"{what}: {one}") for one in ("SOP", "Series")}
        dataset.update(image(pixels, **(own | {"Modality": None} | more)))
        if "PixelData" not in more:
            dataset.PixelData += markers.text(f"{role}: behind the last row").encode()
        for keyword in (keyword for keyword, value in more.items() if value is None):
            dataset.pop(keyword, None)
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = syntax
        dataset.file_meta.SourceApplicationEntityTitle = markers.text("file meta: source")
        dataset.file_meta.PrivateInformationCreatorUID = markers.uid("file meta: creator")
        dataset.file_meta.PrivateInformation = markers.text("file meta: private").encode()
        dataset.preamble = markers.text("preamble").encode().ljust(128, b"\0")
        dcmwrite(path(what), dataset, implicit_vr=False, little_endian=True,
                 enforce_file_format=True)  # fmt: skip
        return path(what)

    for number, pixels in enumerate(stored):
        place = {"position": (0, 0, 2.5 * number), "BurnedInAnnotation": "NO"}
        place |= {"SeriesInstanceUID": markers.uid("read: SeriesInstanceUID")}
        single(f"slice {number}", pixels, "read", **place)
        gap = {"SeriesInstanceUID": "1.2.3.4.6", "position": (0, 0, (0, 1, 3)[number])}
        single(f"gap {number}", pixels, **gap)
        crowd = {"SeriesInstanceUID": "1.2.3.4.7", "position": (0, 0, number)}
        crowd |= {"PatientID": markers.text(f"patient {number}"), "StudyInstanceUID": f"1.{number}"}
        single(f"patients {number}", pixels, **crowd)
    single("burned in", BurnedInAnnotation="YES")
    single("ultrasound", SOPClassUID=uids.UltrasoundImageStorage, Modality="US")
    single("report", SOPClassUID=uids.BasicTextSRStorage, PixelData=None)
    single("scout", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    single("constant", np.zeros(SHAPE[1:], np.int16))
    for keyword in NEEDED - {"SOPClassUID"}:
        single(keyword, **{keyword: markers.text(keyword)})
    single("class", SOPClassUID=markers.uid("SOPClassUID"))
    single("syntax", syntax=markers.uid("TransferSyntaxUID"), PixelData=encapsulate([b"nothing "]))
    for keyword in ("RescaleSlope", "RescaleIntercept", "PixelSpacing", "ImagePositionPatient"):
        count = {"PixelSpacing": 2, "ImagePositionPatient": 3}.get(keyword, 1)
        odd = single(f"odd {keyword}", **{keyword: [DECIMAL] * count})
        marker = markers.text(f"in place of a number: {keyword}").ljust(len(DECIMAL))
        odd.write_bytes(odd.read_bytes().replace(DECIMAL.encode(), marker.encode()))
    for syntax in SYNTAXES:
        nonsense = encapsulate([markers.text(f"pixels of {syntax.name}").encode() * 20])
        single(f"{syntax.name} of nonsense", syntax=syntax, PixelData=nonsense)
    cut = single("cut")
    cut.write_bytes(cut.read_bytes()[:-800])
    path("header").write_bytes(bytes(128) + b"DICM" + markers.text("no header").encode() * 9)
    path("text").write_text(markers.text("a text"))
    path("link").symlink_to(markers.text("the target of a link"))
    codes = {"BURNED_IN", "COLOUR", "CONSTANT", "DECODING_FAILED", "DECODER_MISSING", "NOT_DICOM"}
    codes |= {"MISSING_SLICE", "MIXED_SLICES", "NOT_AN_IMAGE", "NOT_FINITE", "SCOUT", "TRUNCATED"}
    return markers, ["dicom", root.parent], codes | {"UNREADABLE"}, 1


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


def plant_list(root: Path) -> tuple[Markers, list, set, int]:
    markers = Markers()
    base = root / markers.text("path of the folder")
    mask = np.random.default_rng(1).integers(0, 3, SHAPE).astype(np.uint8)
    training = []

    def item(what: str, stored=None) -> tuple[Path, Path]:
        made = {"patient": markers.text(f"JSON: patient of {what}"), "weight": 0.5}
        made[markers.text("JSON: key of an item")] = markers.text("JSON: value of an item")
        stored = voxels(SHAPE, seed=len(training)) if stored is None else stored
        for key, array in {"image": stored, "label": mask}.items():
            made[key] = f"./{key}s/{markers.text(f'path of {key} of {what}')}.nii.gz"
            nifti(markers, base / made[key], array)
        training.append(made)
        return base / made["image"], base / made["label"]

    item("case 1"), item("case 2")
    item("constant", np.full(SHAPE, 7, np.int16))
    item("NaN", np.full(SHAPE, np.nan, np.float32))
    item("mismatch", voxels(SHAPE)[1:])
    item("missing")[0].unlink()
    cut, _ = item("cut")
    cut.write_bytes(cut.read_bytes()[:-200])
    damaged, _ = item("damaged")
    damaged.write_bytes(damaged.read_bytes()[:-6] + b"nonsen")
    item("no header")[0].write_text(markers.text("in place of a header") * 40)
    item("damaged mask")[1].write_text(markers.text("in place of a mask") * 40)
    item("no mask")
    del training[-1]["label"]
    training.append({"image": f"{markers.text('path of a format')}.mha", "label": "a.nii.gz"})
    document = {
        **{key: markers.text(f"JSON: {key}") for key in ("name", "description", "licence")},
        markers.text("JSON: a key"): [markers.text("JSON: a value")],
        "modality": {"0": markers.text("JSON: modality")},
        "labels": {"0": "background", "1": "liver", "2": "spleen"},
        "training": training,
        markers.text("JSON: a section"): [training[0] | {"image": "another.nii"}],
    }
    (base / "dataset.json").write_text(json.dumps(document))
    codes = {"CONSTANT", "DATA_LIST", "MASK_MISMATCH", "NO_PAIR", "NOT_FINITE", "TRUNCATED"}
    return markers, ["decathlon", base], codes | {"UNKNOWN_FORMAT", "UNREADABLE"}, 2


def jpeg(markers: Markers, pixels: np.ndarray, orientation: int = 1) -> bytes:
    """A JPEG file with text in every segment that may hold some, and behind the end."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x013B], exif[0x0132] = markers.text("EXIF: artist"), markers.date("EXIF: DateTime")
    exif[0x9C9D] = markers.text("EXIF: XPAuthor").encode("utf-16-le")
    xmp = f"<x:xmpmeta><dc:creator>{markers.text('XMP: creator')}</dc:creator></x:xmpmeta>"
    segments = {
        0xE0: b"JFXX\0\x13\x03\x03" + markers.text("JFIF: thumbnail").encode().ljust(27),
        0xE1: b"http://ns.adobe.com/xap/1.0/\0" + xmp.encode(),
        0xE2: b"ICC_PROFILE\0\x01\x01" + markers.text("ICC profile").encode(),
        0xED: b"Photoshop 3.0\x008BIM" + markers.text("IPTC").encode(),
        0xEF: markers.text("APP15").encode(),
    }
    file = io.BytesIO()
    comment = markers.text("JPEG: comment").encode()
    Image.fromarray(pixels).save(file, "JPEG", exif=exif, comment=comment, quality=90)
    extra = b"".join(
        bytes([0xFF, number]) + (len(body) + 2).to_bytes(2, "big") + body
        for number, body in segments.items()
    )
    whole = file.getvalue()
    head = 4 + int.from_bytes(whole[4:6], "big")  # the start of the file, and JFIF
    return whole[:head] + extra + whole[head:] + markers.text("JPEG: behind the end").encode()


def png(markers: Markers, pixels: np.ndarray) -> bytes:
    """A PNG file with text in every chunk that may hold some, and behind the end."""
    told = PngImagePlugin.PngInfo()
    told.add_text(markers.text("PNG: key"), markers.text("PNG: tEXt"))
    told.add_itxt("Author", markers.text("PNG: iTXt"), tkey=markers.text("PNG: translated key"))
    told.add(b"prVt", markers.text("PNG: private chunk").encode(), after_idat=True)
    exif = Image.Exif()
    exif[0x010E] = markers.text("PNG: EXIF")
    profile = markers.text("PNG: profile").encode()
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", pnginfo=told, exif=exif, icc_profile=profile)
    return file.getvalue() + markers.text("PNG: behind the end").encode()


def plant_pictures(root: Path, masks: bool) -> tuple[Markers, list, set, int]:
    markers = Markers()
    rng = np.random.default_rng(2)
    base = root / markers.text("path of the folder")
    folders = [base / markers.text(f"path of {kind}") for kind in ("images", "masks")]
    folders[0].mkdir(parents=True), folders[1].mkdir()
    pixels = rng.integers(0, 256, (20, 30, 3)).astype(np.uint8)
    rows = [["file", "patient", "label", markers.text("CSV: head of a column")]]

    def single(what: str, file: bytes, mask: bytes | None = None, suffix=".jpg") -> None:
        name = markers.text(f"path of {what}")
        drawn = rng.integers(0, 2, (20, 30)).astype(np.uint8)
        (folders[0] / f"{name}{suffix}").write_bytes(file)
        (folders[1] / f"{name}.png").write_bytes(mask or png(markers, drawn))
        patient = markers.text(f"CSV: patient of {what}")
        rows.append(
            [f"{folders[0].name}/{name}{suffix}", patient, "1", markers.text("CSV: remark")]
        )

    good = jpeg(markers, pixels)
    single("a JPEG", good)
    single("a PNG", png(markers, pixels // 2), suffix=".png")
    single("a mask in colour", jpeg(markers, pixels // 3), png(markers, pixels))
    single("turned", jpeg(markers, pixels, orientation=6))
    single("cut", good[: good.rindex(b"\xff\xda") + 40])
    single("nonsense", b"\xff\xd8\xff" + markers.text("in place of a JPEG").encode() * 9)
    single("another size", jpeg(markers, pixels[1:]))
    broken = bytearray(png(markers, pixels))
    broken[broken.index(b"IDAT") + 20] ^= 255
    single("damaged", bytes(broken), suffix=".png")
    single("one colour", jpeg(markers, np.zeros((20, 30, 3), np.uint8)))
    (folders[0] / markers.text("path of a document")).write_text(markers.text("a document"))
    with open(base / "table.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    arguments = ["pictures", folders[0], "--table", base / "table.csv", "--classes", "skin,lesion"]
    arguments += ["--masks", folders[1]] if masks else []
    return markers, arguments, {"CONSTANT", "ROTATED", "UNKNOWN_FORMAT"}, 2 if masks else 4


SETS = {
    "dicom": plant_disc,
    "decathlon": plant_list,
    "pictures with masks": lambda root: plant_pictures(root, masks=True),
    "pictures with labels": lambda root: plant_pictures(root, masks=False),
}


@pytest.mark.parametrize("kind", SETS)
def test_nothing_leaks_from_files_that_are_written_or_refused(kind, tmp_path):
    markers, arguments, codes, count = SETS[kind](tmp_path / "in")
    done = run(["-m", "helpers"], tmp_path / "out", *arguments)
    told = set(re.findall(r"^ +\d+  ([A-Z_]+)  ", done.stdout.decode(), re.MULTILINE))
    assert done.returncode == 1 and codes <= told, done.stderr
    assert records.load_manifest(tmp_path / "out").records >= count
    refuse_leaks(markers, tmp_path / "out", done)
    done = run(["-m", "helpers"], tmp_path / "dry", *arguments, "--paths", "--dry-run")
    assert markers.leaked(done.stderr) == set() and not (tmp_path / "dry").exists()
    # What is asked for; and a reader's reasons quote a value that it could not use.
    asked = ("path of ", "in place of a number", "PhotometricInterpretation", "TransferSyntaxUID")
    told = markers.leaked(done.stdout)
    assert told and all(place.startswith(asked) for place in told)
    assert str(tmp_path / "in").encode() not in done.stdout


KILLED = """
import os, signal, sys
from helpers import dicom
from helpers.__main__ import main
load, calls = dicom.load, []
def last(case):
    calls.append(case)
    if len(calls) == 6:
        os.kill(os.getpid(), signal.SIGKILL)
    return load(case)
dicom.load = last
main(sys.argv[1:])
"""


def test_killed_in_the_middle_nothing_is_left_that_leads_to_a_person(tmp_path):
    markers, arguments, *_ = plant_disc(tmp_path / "in")
    done = run(["-c", KILLED], tmp_path / "out", *arguments, "--workers", "1", "--shards", "9")
    assert done.returncode == -9 and any((tmp_path / "out").iterdir())
    refuse_leaks(markers, tmp_path / "out", done)


def test_nothing_leaks_from_sets_that_are_refused_as_a_whole(tmp_path, capfd):
    markers = Markers()
    text, folder = markers.text, tmp_path / markers.text("path of the folder")
    for name in "ab":
        nifti(markers, folder / f"{name}.nii.gz", voxels(SHAPE))
    (folder / "images").mkdir()
    picture = text("path of a picture")
    pixels = voxels(SHAPE[1:], dtype=np.uint8, low=0, high=256)
    (folder / "images" / f"{picture}.png").write_bytes(png(markers, pixels))
    items = [{"image": f"{name}.nii.gz", "patient": text("JSON: patient")} for name in "ab"]
    good = {"labels": {"0": "no"}, "training": items[:1], "test": items[1:]}
    lists = [  # one patient in two splits, and lists that are none
        json.dumps(good),
        json.dumps(good) + text("behind the end"),
        json.dumps(good).replace("a.nii", f"../{text('..')}.nii"),
        json.dumps(good).replace("a.n", f"/{text('root')}.n"),
        json.dumps(good | {"training": text("training")}),
        json.dumps(good | {"training": [[text("item")]]}),
        json.dumps(good | {"labels": {text("label"): 0}}),
        "{" + f'"{text("key")}": 1, "{text("key")}": 2' + "}",
    ]
    tables = [  # an unknown class, picture and column, a field too many, not UTF-8
        f"file,patient,label\n{picture},{text('p')},{text('class')}\n",
        f"file,patient,label\n{picture},{text('p')},7\n",
        f"file,patient,label\n{text('row')}.png,p,1\n",
        f"{text('column')},patient\na,{text('p')}\n",
        f"file,patient,label\n{picture},p,1,{text('more')}\n",
        f"file,patient,label\n{picture},{text('latin')}\xe4,1\n",
    ]
    for number, content in enumerate([*lists, *tables]):
        told = folder / f"{text('path of the list')}.{'json' if content in lists else 'csv'}"
        told.write_text(content, encoding="latin-1")
        kind = ["decathlon", told] if content in lists else ["pictures", folder / "images"]
        more = [] if content in lists else ["--table", told, "--classes", "a,b"]
        output = tmp_path / f"out {number}"
        words = ["convert", *kind, output, *more, "--workers", "1"]
        assert main(list(map(str, words))) == 2, content
        printed = capfd.readouterr()
        assert "[" in printed.err, content
        assert markers.leaked(f"{printed.out}{printed.err}".encode()) == set(), content
        assert not output.exists() and not output.with_name(f"{output.name}.salt").exists()


# What others say

TALKS = """
import logging, os, sys, warnings
from helpers.errors import CourseDataError
from helpers.cases import Case, Found

def find(folder, **options):
    speak()
    return Found(tuple(Case(str(n), n, (folder / str(n),), size=100) for n in range(8)))

def load(case):
    speak()
    raise {error}

def speak():
    os.write(1, b"PLANTED on descriptor 1")
    os.write(2, b"PLANTED on descriptor 2")
    print("PLANTED on stdout", flush=True)
    warnings.warn("PLANTED in a warning")
    logging.getLogger("a library").warning("PLANTED in a log")

if __name__ == "__main__":
    from helpers import __main__, dicom
    import talks
    dicom.find, dicom.load = talks.find, talks.load
    sys.exit(__main__.main(sys.argv[1:]))
"""
ERRORS = {
    'CourseDataError("COLOUR", "no text", [case.files[0].with_name("PLANTED")])': "COLOUR",
    'OSError(5, "Input/output error", "PLANTED")': "UNREADABLE",
    'RuntimeError("PLANTED")': "RuntimeError",
    "os._exit(1)": "memory",
}


@pytest.mark.parametrize("error", ERRORS, ids=ERRORS.values())
def test_what_libraries_print_or_raise_is_not_printed(tmp_path, error):
    (tmp_path / "talks.py").write_text(TALKS.format(error=error))
    (tmp_path / "in").mkdir()
    output = tmp_path / "out"
    done = run([tmp_path / "talks.py"], output, "dicom", tmp_path / "in", "--workers", "2")
    assert done.returncode == 2 and ERRORS[error].encode() in done.stdout + done.stderr
    for told in (b"PLANTED", str(tmp_path).encode()):
        assert told not in done.stdout + done.stderr + held(output)
