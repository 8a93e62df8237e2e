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
from collections.abc import Iterator
from pathlib import Path

import nibabel
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, PngImagePlugin
from pydicom import dcmwrite
from pydicom.datadict import DicomDictionary
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    BasicTextSRStorage,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
    UltrasoundImageStorage,
)

from helpers.__main__ import main
from tests.dicom_files import image, voxels

ROOT = Path(__file__).parent.parent
SALT = "a salt of the tests"
TEXT = {"AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"}
# What decides whether, and how, an image is read at all; each of these has a file of its own.
NEEDED = {"SpecificCharacterSet", "PhotometricInterpretation", "BurnedInAnnotation"}
NEEDED |= {"ConversionType", "SOPClassUID", "ImageType"}
SHAPE = (3, 20, 30)
# A decimal string of the greatest length: a marker takes its place in the file.
DECIMAL = "1.23456789012345"
pytestmark = pytest.mark.filterwarnings("ignore")  # the files are odd on purpose


class Markers:
    """Texts, UIDs and dates that occur nowhere else, and the place where each was planted."""

    def __init__(self) -> None:
        self.of: dict[str, str] = {}  # by place

    def text(self, place: str) -> str:
        return self.of.setdefault(place, f"PLANTED{len(self.of):05d}")

    def path(self, place: str) -> str:
        """A name for a file or folder."""
        return self.text(f"path of {place}")

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
    parts = []
    for path in sorted(folder.rglob("*")):
        parts.append(os.fsencode(path.relative_to(folder)))
        parts += [path.read_bytes()] if path.is_file() else []
    return b"\n".join(parts)


def convert(output: Path, *arguments: object) -> subprocess.CompletedProcess:
    """The converter in a process of its own, as a user calls it."""
    salt = output.with_name("the.salt")
    salt.write_text(SALT)
    options = [output, "--salt-file", salt]
    command = [sys.executable, "-m", "helpers", "convert", *arguments, *options]
    return subprocess.run(list(map(str, command)), capture_output=True, cwd=ROOT, check=False)


def refuse_leaks(markers: Markers, output: Path, done: subprocess.CompletedProcess) -> None:
    """Nothing that was planted is written, or printed."""
    assert markers.of
    assert markers.leaked(held(output)) == set()
    assert output.with_name("the.salt").read_text() == SALT
    assert markers.leaked(done.stdout) == set()
    assert markers.leaked(done.stderr) == set()


def codes(done: subprocess.CompletedProcess) -> set[str]:
    """What the report says files were rejected as."""
    return set(re.findall(r"^ +\d+  ([A-Z_]+)  ", done.stdout.decode(), re.MULTILINE))


def records(folder: Path) -> Iterator[dict]:
    """The records of a folder, by TensorFlow alone: each key with its list of values."""
    shards = sorted(str(path) for path in folder.glob("*.tfrecord"))
    for one in tf.data.TFRecordDataset(shards).as_numpy_iterator():
        features = tf.train.Example.FromString(one).features.feature
        yield {key: getattr(kind, kind.WhichOneof("kind")).value for key, kind in features.items()}


def array(record: dict) -> np.ndarray:
    dtype = np.dtype(record["image/dtype"][0].decode()).newbyteorder("<")
    return np.frombuffer(record["image"][0], dtype).reshape(record["image/shape"])


def fingerprints(arrays) -> list[bytes]:
    """Arrays in an order that does not depend on where they stood."""
    return sorted(np.ascontiguousarray(one, "<i4").tobytes() for one in arrays)


# DICOM


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
    nested.PatientID = markers.text(f"{role}: nested id")
    dataset.ReferencedPatientSequence = [nested]
    dataset.add_new(0x00090010, "LO", markers.text(f"{role}: private creator"))
    dataset.add_new(0x00091001, "UT", markers.text(f"{role}: private text"))
    dataset.add_new(0x00091002, "UN", markers.text(f"{role}: private bytes").encode())
    dataset.add_new(0x00091003, "OB", markers.text(f"{role}: UTF-16").encode("utf-16-le"))
    dataset.add_new(0x60000010, "US", SHAPE[1])
    dataset.add_new(0x60000011, "US", SHAPE[2])
    dataset.add_new(0x60000022, "LO", markers.text(f"{role}: overlay description"))
    dataset.add_new(0x60003000, "OW", markers.text(f"{role}: overlay").encode())
    dataset.add_new(0xFFFCFFFC, "OB", markers.text(f"{role}: padding of the file").encode())
    return dataset


def save(markers: Markers, dataset: Dataset, path: Path, syntax=ExplicitVRLittleEndian) -> Path:
    """Write the file, with markers in what stands before the data set."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = syntax
    meta.SourceApplicationEntityTitle = markers.text("file meta: source")
    meta.ImplementationVersionName = markers.text("file meta: version")
    meta.PrivateInformationCreatorUID = markers.uid("file meta: creator")
    meta.PrivateInformation = markers.text("file meta: private").encode()
    dataset.file_meta = meta
    dataset.preamble = markers.text("preamble").encode().ljust(128, b"\0")
    encoding = {"implicit_vr": False, "little_endian": True}
    dcmwrite(path, dataset, enforce_file_format=True, **encoding)
    return path


def plant_disc(folder: Path) -> tuple[Markers, Path, np.ndarray]:
    """A folder of DICOM files, most of which fail in their own way; the voxels of the good ones."""
    markers = Markers()
    root = folder / markers.path("the input") / markers.path("the folder")
    root.mkdir(parents=True)
    stored = voxels(SHAPE)
    roles = {role: planted(markers, role) for role in ("read", "refused")}

    def path(what: str) -> Path:
        return root / f"{markers.path(what)}.dcm"

    def single(
        what: str, pixels=stored[0], role="refused", syntax=ExplicitVRLittleEndian, **elements
    ) -> Path:
        dataset = Dataset()
        dataset.update(roles[role])
        own = {"SOPInstanceUID": markers.uid(f"{what}: SOPInstanceUID")}
        own |= {"SeriesInstanceUID": markers.uid(f"{what}: SeriesInstanceUID")}
        dataset.update(image(pixels, **(own | {"Modality": None} | elements)))
        if "PixelData" not in elements:
            dataset.PixelData += markers.text(f"{role}: behind the last row").encode()
        for keyword in (keyword for keyword, value in elements.items() if value is None):
            dataset.pop(keyword, None)
        return save(markers, dataset, path(what), syntax)

    for number, pixels in enumerate(stored):
        place = {"position": (0, 0, 2.5 * number), "BurnedInAnnotation": "NO"}
        place |= {"SeriesInstanceUID": markers.uid("read: SeriesInstanceUID")}
        single(f"slice {number}", pixels, "read", **place)

    single("burned in", BurnedInAnnotation="YES")
    single("ultrasound", SOPClassUID=UltrasoundImageStorage, Modality="US")
    single("report", SOPClassUID=BasicTextSRStorage, PixelData=None)
    single("scout", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    single("constant", np.zeros(SHAPE[1:], np.int16))
    single("photometric", PhotometricInterpretation=markers.text("PhotometricInterpretation"))
    single("characters", SpecificCharacterSet=markers.text("SpecificCharacterSet"))
    single("statement", BurnedInAnnotation=markers.text("BurnedInAnnotation"))
    single("conversion", ConversionType=markers.text("ConversionType"))
    single("image type", ImageType=[markers.text("ImageType"), markers.text("ImageType 2")])
    single("class", SOPClassUID=markers.uid("SOPClassUID"))
    single("syntax", syntax=markers.uid("TransferSyntaxUID"), PixelData=encapsulate([b"nothing "]))
    for number in range(3):  # a series with a gap, and one of three patients
        gap = {"SeriesInstanceUID": "1.2.3.4.6", "position": (0, 0, (0, 1, 3)[number])}
        single(f"gap {number}", stored[number], **gap)
        crowd = {"SeriesInstanceUID": "1.2.3.4.7", "position": (0, 0, number)}
        crowd |= {"PatientID": markers.text(f"patient {number}"), "StudyInstanceUID": f"1.{number}"}
        single(f"patients {number}", stored[number], **crowd)
    for keyword in ("RescaleSlope", "RescaleIntercept", "PixelSpacing", "ImagePositionPatient"):
        count = {"PixelSpacing": 2, "ImagePositionPatient": 3}.get(keyword, 1)
        odd = single(f"odd {keyword}", **{keyword: [DECIMAL] * count})
        marker = markers.text(f"in place of a number: {keyword}").ljust(len(DECIMAL))
        content = odd.read_bytes()
        assert DECIMAL.encode() in content
        odd.write_bytes(content.replace(DECIMAL.encode(), marker.encode()))
    for syntax in (JPEG2000Lossless, JPEGLSLossless, JPEGLosslessSV1, HTJ2KLossless, RLELossless):
        nonsense = encapsulate([markers.text(f"pixels of {syntax.name}").encode() * 20])
        single(f"{syntax.name} of nonsense", syntax=syntax, PixelData=nonsense)
    whole = io.BytesIO()
    Image.fromarray(np.zeros(SHAPE[1:], np.uint8)).save(whole, "JPEG")
    damaged = encapsulate([whole.getvalue()[:200] + markers.text("in a damaged JPEG").encode() * 8])
    byte = {"BitsAllocated": 8, "BitsStored": 8, "PixelRepresentation": 0}
    single("damaged JPEG", syntax=JPEGBaseline8Bit, PixelData=damaged, **byte)
    cut = single("cut")
    content = cut.read_bytes()
    cut.write_bytes(content[: content.rindex(stored[0].tobytes()) + 100])
    path("header").write_bytes(bytes(128) + b"DICM" + markers.text("no header").encode() * 9)
    path("text").write_text(markers.text("a text"))
    if os.name == "posix":
        path("link").symlink_to(markers.path("the target of a link"))
        os.mkfifo(path("pipe"))
        name = os.fsencode(root / markers.path("not UTF-8")) + b"\xff.dcm"
        Path(os.fsdecode(name)).write_bytes(content)
    return markers, root.parent, stored


@pytest.fixture(scope="module")
def disc(tmp_path_factory):
    return plant_disc(tmp_path_factory.mktemp("data") / "in")


def test_nothing_leaks_from_dicom_files(disc, tmp_path):
    markers, folder, stored = disc
    done = convert(tmp_path / "out", "dicom", folder)
    assert done.returncode == 1
    assert codes(done) >= {"BURNED_IN", "COLOUR", "CONSTANT", "DECODING_FAILED", "DECODER_MISSING"}
    assert codes(done) >= {"MISSING_SLICE", "MIXED_SLICES", "NOT_AN_IMAGE", "NOT_DICOM", "SCOUT"}
    assert codes(done) >= {"NOT_FINITE", "TRUNCATED", "UNREADABLE"}
    refuse_leaks(markers, tmp_path / "out", done)
    found = [array(record).tobytes() for record in records(tmp_path / "out")]
    assert stored.tobytes() in found


def test_paths_that_are_asked_for_are_told_on_stdout_only(disc, tmp_path):
    markers, folder, _ = disc
    done = convert(tmp_path / "out", "dicom", folder, "--paths", "--dry-run", "--workers", "1")
    assert markers.leaked(done.stderr) == set()
    told = markers.leaked(done.stdout)
    assert {"path of the folder", "path of text", "path of link", "path of gap 0"} <= told
    # The reader's reasons quote a value that it could not use.
    quoted = {"PhotometricInterpretation", "TransferSyntaxUID"}
    quoted |= {f"in place of a number: {name}" for name in ("RescaleSlope", "RescaleIntercept")}
    assert {place for place in told if not place.startswith("path of ")} <= quoted
    assert not (tmp_path / "out").exists()
    text = done.stdout.decode()
    assert str(folder) not in text
    assert f"{markers.of['path of the folder']}/{markers.of['path of text']}.dcm" in text


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


@pytest.mark.skipif(os.name != "posix", reason="no SIGKILL")
def test_killed_in_the_middle_nothing_is_left_that_leads_to_a_person(disc, tmp_path):
    markers, folder, _ = disc
    output, salt = tmp_path / "out", tmp_path / "the.salt"
    salt.write_text(SALT)
    arguments = ["convert", "dicom", folder, output, "--salt-file", salt, "--workers", "1"]
    command = [sys.executable, "-c", KILLED, *map(str, [*arguments, "--shards", "9"])]
    done = subprocess.run(command, capture_output=True, cwd=ROOT, check=False)
    assert done.returncode == -9
    left = {path.suffix for path in (output / ".partial").iterdir()}
    assert left >= {".done", ".note", ".tmp"}
    refuse_leaks(markers, output, done)


# NIfTI in a data list


def nifti(markers: Markers, path: Path, stored: np.ndarray) -> Path:
    """A NIfTI file with text wherever it has room for some; `stored` is `[z, y, x]`."""
    file = nibabel.Nifti1Image(stored.T, np.diag([-0.7, -0.8, 2.5, 1]))
    for field in ("descrip", "aux_file", "db_name", "intent_name"):
        file.header[field] = markers.text(f"NIfTI: {field}")
    comment = markers.text("NIfTI: extension").encode()
    file.header.extensions.append(nibabel.nifti1.Nifti1Extension(6, comment))
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as out, gzip.GzipFile(markers.text("gzip: name"), "wb", 1, out) as packed:
        packed.write(file.to_bytes())
    return path


def plant_list(root: Path) -> tuple[Markers, Path, list[np.ndarray], list[np.ndarray]]:
    """A data list, some of whose items fail; images and masks of the good ones."""
    markers = Markers()
    base = root / markers.path("the folder")
    rng = np.random.default_rng(1)
    images, masks, training = [], [], []

    def item(what: str, stored: np.ndarray, drawn: np.ndarray | None) -> dict:
        made = {"patient": markers.text(f"JSON: patient of {what}"), "weight": 0.5}
        made[markers.text("JSON: key of an item")] = markers.text("JSON: value of an item")
        for key, voxels_ in {"image": stored, "label": drawn}.items():
            if voxels_ is not None:
                name = f"{key}s/{markers.path(f'{key} of {what}')}.nii.gz"
                nifti(markers, base / name, voxels_)
                made[key] = f"./{name}"
        return made

    def single(what: str) -> dict:
        return item(what, voxels(SHAPE, seed=9), np.ones(SHAPE, np.uint8))

    for number in range(3):
        images.append(voxels(SHAPE, seed=number))
        masks.append(rng.integers(0, 3, SHAPE).astype(np.uint8))
        training.append(item(f"case {number}", images[-1], masks[-1]))
    training.append(item("constant", np.full(SHAPE, 7, np.int16), masks[0]))
    training.append(item("NaN", np.full(SHAPE, np.nan, np.float32), masks[0]))
    training.append(item("mismatch", images[0][1:], masks[0]))
    training.append(single("missing"))
    (base / training[-1]["image"]).unlink()
    training.append(single("cut"))
    cut = base / training[-1]["image"]
    cut.write_bytes(cut.read_bytes()[:-200])
    training.append(single("damaged"))
    damaged = bytearray((base / training[-1]["image"]).read_bytes())
    damaged[-6] ^= 255
    (base / training[-1]["image"]).write_bytes(damaged)
    training.append(single("no header"))
    (base / training[-1]["image"]).write_text(markers.text("in place of a header") * 40)
    training.append(single("damaged mask"))
    (base / training[-1]["label"]).write_text(markers.text("in place of a mask") * 40)
    training.append(single("no mask"))
    del training[-1]["label"]
    training.append({"image": f"{markers.path('another format')}.mha", "label": "a.nii.gz"})
    document = {
        **{key: markers.text(f"JSON: {key}") for key in ("name", "description", "licence")},
        markers.text("JSON: a key"): [markers.text("JSON: a value")],
        "modality": {"0": markers.text("JSON: modality")},
        "labels": {"0": "background", "1": "liver", "2": "spleen"},
        "training": training,
        markers.text("JSON: a section"): [single("another section")],
    }
    (base / "dataset.json").write_text(json.dumps(document))
    return markers, base / "dataset.json", images, masks


def test_nothing_leaks_from_nifti_files_and_their_list(tmp_path):
    markers, listed, images, masks = plant_list(tmp_path / "in")
    done = convert(tmp_path / "out", "decathlon", listed)
    assert done.returncode == 1
    assert codes(done) >= {"CONSTANT", "DATA_LIST", "MASK_MISMATCH", "NO_PAIR", "NOT_FINITE"}
    assert codes(done) >= {"TRUNCATED", "UNKNOWN_FORMAT", "UNREADABLE"}
    refuse_leaks(markers, tmp_path / "out", done)
    found = list(records(tmp_path / "out"))
    assert fingerprints(map(array, found)) == fingerprints(one[..., None] for one in images)
    assert sorted(record["mask"][0] for record in found) == sorted(map(np.ndarray.tobytes, masks))


# Photographs


def jpeg(markers: Markers, pixels: np.ndarray, orientation: int = 1) -> bytes:
    """A JPEG file with text in every segment that may hold some, and behind the end."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    for tag in (0x010E, 0x010F, 0x0131, 0x013B, 0x8298):  # description, make, software, artist
        exif[tag] = markers.text(f"EXIF: {tag:04x}")
    exif[0x0132] = markers.date("EXIF: DateTime")
    exif[0x9C9D] = markers.text("EXIF: XPAuthor").encode("utf-16-le")
    thumbnail = markers.text("JFIF: thumbnail").encode().ljust(27)
    xmp = f"<x:xmpmeta><dc:creator>{markers.text('XMP: creator')}</dc:creator></x:xmpmeta>"
    segments = {
        0xE0: b"JFXX\0\x13\x03\x03" + thumbnail,
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
    head = 2 + 2 + int.from_bytes(whole[4:6], "big")  # SOI and JFIF
    return whole[:head] + extra + whole[head:] + markers.text("JPEG: behind the end").encode()


def png(markers: Markers, pixels: np.ndarray) -> bytes:
    """A PNG file with text in every chunk that may hold some, and behind the end."""
    told = PngImagePlugin.PngInfo()
    told.add_text(markers.text("PNG: key"), markers.text("PNG: tEXt"))
    told.add_itxt("Author", markers.text("PNG: iTXt"), tkey=markers.text("PNG: translated key"))
    told.add(b"prVt", markers.text("PNG: private chunk").encode(), after_idat=True)
    told.add(b"tIME", markers.text("PNG: tIME").encode())
    exif = Image.Exif()
    exif[0x010E] = markers.text("PNG: EXIF")
    file = io.BytesIO()
    Image.fromarray(pixels).save(
        file, "PNG", pnginfo=told, exif=exif, icc_profile=markers.text("PNG: profile").encode()
    )
    return file.getvalue() + markers.text("PNG: behind the end").encode()


def plant_pictures(root: Path) -> tuple[Markers, Path, list[np.ndarray], list[np.ndarray]]:
    """Images, masks and a table, some of which fail; pixels of the good ones."""
    markers = Markers()
    base = root / markers.path("the folder")
    images, masks = base / markers.path("images"), base / markers.path("masks")
    images.mkdir(parents=True)
    masks.mkdir()
    rng = np.random.default_rng(2)
    pixels, drawn, rows = [], [], []

    def single(what: str, file: bytes, mask: bytes, suffix=".jpg") -> Path:
        name = markers.path(what)
        (images / f"{name}{suffix}").write_bytes(file)
        (masks / f"{name}.png").write_bytes(mask)
        patient, remark = markers.text(f"CSV: patient of {what}"), markers.text("CSV: remark")
        rows.append([f"{images.name}/{name}{suffix}", patient, "1", remark])
        return images / f"{name}{suffix}"

    for number in range(4):
        pixels.append(rng.integers(0, 256, (20, 30, 3)).astype(np.uint8))
        drawn.append(rng.integers(0, 2, (20, 30)).astype(np.uint8))
        file = jpeg(markers, pixels[-1]) if number % 2 else png(markers, pixels[-1])
        single(f"case {number}", file, png(markers, drawn[-1]), (".png", ".jpg")[number % 2])
    good, mask = jpeg(markers, pixels[0]), png(markers, drawn[0])
    single("turned", jpeg(markers, pixels[0], orientation=6), mask)
    single("cut", good[: good.rindex(b"\xff\xda") + 40], mask)
    single("nonsense", b"\xff\xd8\xff" + markers.text("in place of a JPEG").encode() * 9, mask)
    single("text", markers.text("in place of a picture").encode(), mask)
    single("another size", jpeg(markers, pixels[0][1:]), mask)
    single("a mask in colour", good, png(markers, pixels[0]))
    broken = bytearray(png(markers, pixels[0]))
    broken[broken.index(b"IDAT") + 20] ^= 255
    single("damaged", bytes(broken), mask, ".png")
    single("one colour", jpeg(markers, np.zeros((20, 30, 3), np.uint8)), mask)
    single("alone", good, mask)
    (masks / f"{markers.path('alone')}.png").unlink()
    (images / markers.path("a document")).write_text(markers.text("a document"))
    with open(base / "table.csv", "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["file", "patient", "label", markers.text("CSV: head of a column")])
        table.writerows(rows)
    return markers, base, pixels, drawn


@pytest.mark.parametrize("schema", ["deeplab", "classification"])
def test_nothing_leaks_from_photographs_and_their_table(tmp_path, schema):
    markers, base, pixels, masks = plant_pictures(tmp_path / "in")
    arguments = [base / markers.of["path of images"], "--table", base / "table.csv"]
    arguments += ["--classes", "skin,lesion"]
    if schema == "deeplab":
        arguments += ["--masks", base / markers.of["path of masks"]]
    done = convert(tmp_path / "out", "pictures", *arguments)
    assert done.returncode == 1
    assert codes(done) >= {"CONSTANT", "DECODING_FAILED", "ROTATED", "TRUNCATED", "UNKNOWN_FORMAT"}
    refuse_leaks(markers, tmp_path / "out", done)
    found = list(records(tmp_path / "out"))
    if schema == "classification":
        kept = fingerprints(map(array, found))
        assert set(fingerprints(pixels[::2])) <= set(kept)  # of JPEG, the pixels are others
        return
    stored = [decoded(record["image/segmentation/class/encoded"][0]) for record in found]
    assert fingerprints(stored) == fingerprints(masks)
    images = [decoded(record["image/encoded"][0]) for record in found]
    names = [markers.of[f"path of case {number}"] for number in range(4)]
    folder = base / markers.of["path of images"]
    originals = [np.array(Image.open(*folder.glob(f"{name}.*"))) for name in names]
    assert fingerprints(images) == fingerprints(originals)


def decoded(file: bytes) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(file)))


# Sets that are refused as a whole


def data_list(root: Path, markers: Markers, change) -> list:
    """Arguments for a data list of two items, after a change to its JSON."""
    folder = root / markers.path("the folder")
    images = [nifti(markers, folder / f"{name}.nii.gz", voxels(SHAPE)) for name in "ab"]
    items = [{"image": path.name, "patient": markers.text("JSON: patient")} for path in images]
    listed = folder / f"{markers.path('the list')}.json"
    listed.write_text(change({"labels": {"0": "no"}, "training": items[:1], "test": items[1:]}))
    return ["decathlon", listed]


def table(root: Path, markers: Markers, text: str) -> list:
    """Arguments for one picture with a table."""
    folder = root / markers.path("the folder")
    folder.mkdir(parents=True)
    pixels = voxels(SHAPE[1:], dtype=np.uint8, low=0, high=9)
    (folder / f"{markers.path('a picture')}.png").write_bytes(png(markers, pixels))
    listed = root / f"{markers.path('a table')}.csv"
    listed.write_text(text, encoding="latin-1")
    return ["pictures", folder, "--table", listed, "--classes", "a,b"]


def unmapped(root: Path, markers: Markers) -> list:
    """Arguments for a picture whose mask holds 255."""
    images, masks = root / markers.path("images"), root / markers.path("masks")
    for folder in (images, masks):
        folder.mkdir(parents=True)
        file = png(markers, voxels(SHAPE[1:], dtype=np.uint8, low=0, high=256))
        (folder / f"{markers.path('a picture')}.png").write_bytes(file)
    return ["pictures", images, "--masks", masks, "--classes", "a,b"]


def refused_sets(root: Path, markers: Markers) -> dict[str, list]:
    """Arguments of sets of which nothing is written, each with a marker where the fault is."""
    text = markers.text
    lists = {
        "one patient in two splits": json.dumps,
        "no JSON": lambda found: json.dumps(found) + text("behind the end"),
        "an unsafe path": lambda found: json.dumps(found).replace("a.nii", f"../{text('..')}.nii"),
        "an absolute path": lambda found: json.dumps(found).replace("a.n", f"/{text('root')}.n"),
        "no list": lambda found: json.dumps(found | {"training": text("training")}),
        "no item": lambda found: json.dumps(found | {"training": [[text("item")]]}),
        "no labels": lambda found: json.dumps(found | {"labels": {text("label"): 0}}),
        "a doubled key": lambda found: "{" + f'"{text("key")}": 1, "{text("key")}": 2' + "}",
    }
    picture = markers.path("a picture")
    rows = {
        "no label": f"file,patient,label\n{picture},{text('p')},{text('class')}\n",
        "no such class": f"file,patient,label\n{picture},{text('p')},7\n",
        "no such picture": f"file,patient,label\n{text('row')}.png,p,1\n",
        "no such column": f"{text('column')},patient\na,{text('p')}\n",
        "one row more": f"file,patient,label\n{picture},p,1,{text('more')}\n",
        "not UTF-8": f"file,patient,label\n{picture},{text('latin')}\xe4,1\n",
    }
    made = {}
    for name, change in lists.items():
        made[name] = data_list(root / name, markers, change)
    for name, content in rows.items():
        made[name] = table(root / name, markers, content)
    made["a mask with 255"] = unmapped(root / "a mask with 255", markers)
    return made


def test_nothing_leaks_from_sets_that_are_refused_as_a_whole(tmp_path, capfd):
    markers = Markers()
    for name, arguments in refused_sets(tmp_path, markers).items():
        kind, *rest = arguments
        output = tmp_path / name / "out"
        assert main([*map(str, ["convert", kind, *rest, output]), "--workers", "1"]) == 2, name
        printed = capfd.readouterr()
        assert "[" in printed.err, name
        assert markers.leaked(f"{printed.out}{printed.err}".encode()) == set(), name
        assert not output.exists() and not output.with_name("out.salt").exists(), name


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
    'ValueError("PLANTED")': "ValueError",
    "os._exit(1)": "memory",
}


@pytest.mark.parametrize("error", ERRORS, ids=ERRORS.values())
def test_what_libraries_print_or_raise_is_not_printed(tmp_path, error):
    (tmp_path / "talks.py").write_text(TALKS.format(error=error))
    (tmp_path / "in").mkdir()
    command = [sys.executable, tmp_path / "talks.py", "convert", "dicom", tmp_path / "in"]
    paths = os.pathsep.join([str(ROOT), str(tmp_path)])
    done = subprocess.run(
        list(map(str, [*command, tmp_path / "out", "--workers", "2"])),
        capture_output=True,
        env={**os.environ, "PYTHONPATH": paths},
        check=False,
    )
    assert done.returncode == 2
    assert ERRORS[error].encode() in done.stdout + done.stderr
    assert b"PLANTED" not in done.stdout + done.stderr
    assert str(tmp_path).encode() not in done.stdout + done.stderr
    assert b"PLANTED" not in held(tmp_path / "out")
