"""Two folders become cases: every file is in one or is rejected, and a mask keeps its ids."""

import functools
import io
import os
import pickle
import struct
import unicodedata
import zlib

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from helpers import phantoms
from helpers import sources_pictures as pictures
from helpers.errors import CourseDataError
from helpers.phantoms.nodules import HU_OFFSET

MARK = "WHO-IS-THIS"
ROWS, COLUMNS = np.mgrid[:20, :30]
RGB = np.stack([COLUMNS * 8, ROWS * 12, ROWS + COLUMNS], -1).astype(np.uint8)
DISC = ((ROWS - 9) ** 2 + (COLUMNS - 14) ** 2 < 40).astype(np.uint8)


def write(path, image=RGB, **options):
    """A picture in the format of its suffix; folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    kind = "PNG" if path.suffix.lower() == ".png" else "JPEG"
    image.save(path, kind, **options)
    return path


def write_mask(path, ids=DISC * 255):
    return write(path, ids)


@pytest.fixture
def folders(tmp_path):
    """An empty folder of images and one of masks."""
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    return tmp_path / "images", tmp_path / "masks"


@pytest.fixture
def pair(folders):
    """A function that writes one image with its mask and gives the case."""

    def written(image=RGB, mask=DISC, suffix=".jpg", **options):
        for file in folders[0].glob("a.*"):
            file.unlink()
        write(folders[0] / f"a{suffix}", image, **options)
        write_mask(folders[1] / "a.png", mask)
        return only_case(pictures.find(*folders))

    return written


def only_case(found):
    assert len(found.cases) == 1 and not found.rejected, found
    return found.cases[0]


def names(found):
    return [case.name for case in found.cases]


def codes(found):
    """Code of each rejection and names of its files."""
    return {tuple(sorted(file.name for file in one.files)): one.code for one in found.rejected}


def refused(code, call, *arguments, **options):
    with pytest.raises(CourseDataError) as caught:
        call(*arguments, **options)
    assert caught.value.code == code, caught.value
    assert MARK not in caught.value.message
    return caught.value


def by_tensorflow(data):
    return tf.io.decode_image(data, channels=3).numpy()


each_load = pytest.mark.parametrize("load", [pictures.load_deeplab, pictures.load_pixels])


def by_pillow(path):
    return Image.open(io.BytesIO(path.read_bytes()))


# The course's own sets


@pytest.fixture(scope="module")
def lesions(tmp_path_factory):
    return phantoms.skin_lesions(tmp_path_factory.mktemp("data"), count=6)


def test_every_skin_lesion_finds_its_mask(lesions):
    found = pictures.find(lesions / "images", lesions / "masks")
    assert not found.rejected and found.files == 12
    assert names(found) == sorted(path.stem for path in (lesions / "images").iterdir())
    for case in found.cases:
        image, mask = case.source
        assert case.files == (image, mask)
        assert mask.name == f"{image.stem}_segmentation.png"
        assert (case.patient, case.label, case.weight) == ("", None, None)


def test_a_lesion_becomes_its_own_bytes_and_a_mask_of_0_and_1(lesions):
    found = pictures.find(lesions / "images", lesions / "masks")
    for case in found.cases:
        assert pictures.survey(case) == {0, 255}
        assert pictures.survey(case, {0: 0, 255: 1}) == {0, 1}
        element = pictures.load_deeplab(case, {0: 0, 255: 1})
        image, mask = case.source
        assert element["image"] == image.read_bytes()  # they have no metadata to lose
        assert element["format"] == "jpeg"
        drawn = tf.io.decode_png(mask.read_bytes()).numpy()[..., 0]
        assert element["mask"].dtype == np.uint8
        np.testing.assert_array_equal(element["mask"], drawn // 255)
        assert (element["height"], element["width"]) == drawn.shape


def test_a_case_s_size_is_no_less_than_what_its_record_needs(lesions, pair):
    noise = np.random.default_rng(0).integers(0, 256, (20, 30), np.uint8)  # the worst for PNG
    for case in (*pictures.find(lesions / "images", lesions / "masks").cases, pair(mask=noise)):
        element = pictures.load_deeplab(case)
        file = io.BytesIO()
        Image.fromarray(element["mask"]).save(file, "PNG", compress_level=0)
        assert len(element["image"]) + len(file.getvalue()) <= case.size
        assert case.size < len(element["image"]) + 1.1 * element["mask"].size + 2000


def test_the_bound_for_a_mask_holds_for_ids_that_do_not_compress(folders):
    image = write(folders[0] / "a.png")
    mask = write(folders[1] / "a.png", np.zeros((4000, 5000), np.uint8), compress_level=0)
    bound = only_case(pictures.find(*folders)).size - image.stat().st_size
    assert mask.stat().st_size <= bound <= 1.01 * mask.stat().st_size
    mask.write_bytes(mask.read_bytes()[:16] + b"\x7f\xff\xff\xff" * 2)  # claims exabytes
    assert only_case(pictures.find(*folders)).size == image.stat().st_size


def test_nodules_come_with_patient_label_and_all_their_16_bits(tmp_path):
    folder = phantoms.nodules(tmp_path, patients=3)
    found = pictures.find(folder / "images", patients=folder / "labels.csv")
    assert not found.rejected and found.files == len(list((folder / "images").iterdir()))
    positive = {case.patient for case in found.cases if case.label == 1}
    assert len(positive) == 1 and {case.patient for case in found.cases} == {
        "P0000",
        "P0001",
        "P0002",
    }
    for case in found.cases:
        patient, number = case.name.split("_")
        assert case.patient == patient and case.label in (0, 1)
        drawn = phantoms.nodule_patient(int(patient[1:]), patient in positive)[int(number)]
        element = pictures.load_pixels(case)
        assert set(element) == {"image"} and element["image"].dtype == np.uint16
        np.testing.assert_array_equal(element["image"].astype(int) - HU_OFFSET, drawn)
        assert pictures.survey(case) == frozenset()


def test_16_bits_are_nothing_for_deeplab(pair):
    deep = RGB[..., 0].astype(np.uint16) * 200
    case = pair(deep, suffix=".png")
    assert "16 bits" in str(refused("PIXEL_FORMAT", pictures.load_deeplab, case))
    np.testing.assert_array_equal(pictures.load_pixels(case)["image"], deep)


# Which mask belongs to which image


def test_stems_join_whatever_the_suffix_and_its_case(folders):
    images, masks = folders
    for name in ("a.jpg", "b.JPG", "c.jpeg", "d.Png", "e.PNG", "site 1/a.jpg", "site.2/a.b.JPEG"):
        write(images / name)
        write_mask((masks / name).with_suffix(".PNG"))
    found = pictures.find(images, masks)
    assert not found.rejected
    assert names(found) == ["a", "b", "c", "d", "e", "site 1/a", "site.2/a.b"]
    for case in found.cases:
        assert case.source[0].parent.name == case.source[1].parent.name.replace("masks", "images")


def test_a_picture_is_known_by_its_first_bytes_or_by_its_suffix(folders):
    images, masks = folders
    write(images / "a.jpg").rename(images / "a")
    write(images / "b.png").rename(images / "b.0001")
    (images / "c.jpg").write_bytes(b"")
    (images / "d.jpg").write_text("no picture")
    write(images / "sub/e.jpg").rename(images / "sub/.jpg")
    for name in ("a", "b.0001", "c", "d", "sub/.jpg"):
        write_mask(masks / f"{name}.png")
    found = pictures.find(images, masks)
    assert names(found) == ["a", "b.0001", "c", "d", "sub/.jpg"]
    for case in found.cases[2:4]:
        error = refused("UNKNOWN_FORMAT", pictures.load_deeplab, case)
        assert error.files == case.files[:1]


def test_other_files_are_listed_and_disturb_nobody(folders, pair):
    pair()
    images, masks = folders
    for folder in folders:
        (folder / "sub").mkdir()
        for name in (".DS_Store", "Thumbs.db", "read me.txt", "._a.jpg", "sub/a.jpg.part", "a.gif"):
            (folder / name).write_bytes(b"\0\5\x16\7 something")
    found = pictures.find(images, masks)
    assert names(found) == ["a"]
    assert [one.code for one in found.rejected] == 12 * ["UNKNOWN_FORMAT"]
    assert found.files == 14


def test_an_image_without_mask_and_a_mask_without_image_have_no_pair(folders, pair):
    pair()
    write(folders[0] / "b.jpg")
    write_mask(folders[1] / "c.png")
    write_mask(folders[1] / "sub/a.png")
    found = pictures.find(*folders)
    assert names(found) == ["a"]
    assert codes(found) == {("b.jpg",): "NO_PAIR", ("c.png",): "NO_PAIR", ("a.png",): "NO_PAIR"}


def test_two_images_of_one_stem_are_both_refused_with_their_mask(folders, pair):
    pair()
    write(folders[0] / "a.png")
    found = pictures.find(*folders)
    assert not found.cases
    assert codes(found) == {("a.jpg", "a.png", "a.png"): "SAME_CASE"}
    assert codes(pictures.find(folders[0])) == {("a.jpg", "a.png"): "SAME_CASE"}


def test_two_masks_of_one_stem_are_refused_with_their_image(folders, pair):
    pair()
    write(folders[1] / "a.jpg")
    assert codes(pictures.find(*folders)) == {("a.jpg", "a.jpg", "a.png"): "SAME_CASE"}


@pytest.mark.parametrize("suffix", ["_segmentation", "-mask", " (mask)", ".label", "_a_b"])
def test_a_suffix_that_all_masks_share_is_found(folders, suffix):
    for stem in ("a", "b", "sub/c", "a_b", "no mask"):
        write(folders[0] / f"{stem}.jpg")
    for stem in ("a", "b", "sub/c", "a_b", "no image"):
        write_mask(folders[1] / f"{stem}{suffix}.png")
    found = pictures.find(*folders)
    assert names(found) == ["a", "a_b", "b", "sub/c"]
    assert codes(found) == {
        ("no mask.jpg",): "NO_PAIR",
        (f"no image{suffix}.png",): "NO_PAIR",
    }


@pytest.mark.parametrize(
    ("images", "masks", "pairs"),
    [
        (["a", "b"], ["a_liver", "b_liver", "a_tumour"], []),  # which of the two?
        (["a", "b"], ["a_seg", "b_mask"], []),
        (["1", "2", "3"], ["10", "20", "30"], []),  # numbers of their own
        (["a", "a_b"], ["a_b_c"], []),  # a and _b_c, or a_b and _c
        (["a_seg", "b_seg"], ["a_seg", "b_seg"], ["a_seg", "b_seg"]),
        (["a", "a_seg"], ["a_seg"], []),
        (["a", "b"], ["a", "b", "c"], ["a", "b"]),
        (["sub/a"], ["sub_a_seg"], []),
        (["a"], ["a/seg"], []),
        ([], ["a"], []),
    ],
)
def test_no_pair_is_guessed(folders, images, masks, pairs):
    for stem in images:
        write(folders[0] / f"{stem}.jpg")
    for stem in masks:
        write_mask(folders[1] / f"{stem}.png")
    found = pictures.find(*folders)
    if images == ["a", "a_seg"]:
        pairs = ["a_seg"]  # the same stem is what was promised
    assert names(found) == pairs
    assert {one.code for one in found.rejected} <= {"NO_PAIR"}
    assert found.files == len(images) + len(masks)


def test_a_suffix_that_is_given_is_the_only_one(folders):
    for stem in ("a", "b"):
        write(folders[0] / f"{stem}.jpg")
    for stem in ("a_liver", "b_liver", "a_tumour", "b"):
        write_mask(folders[1] / f"{stem}.png")
    found = pictures.find(*folders, mask_suffix="_liver")
    assert [case.source[1].name for case in found.cases] == ["a_liver.png", "b_liver.png"]
    assert codes(found) == {("a_tumour.png",): "NO_PAIR", ("b.png",): "NO_PAIR"}
    assert names(pictures.find(*folders, mask_suffix="")) == ["b"]


def test_a_stem_is_the_same_in_both_unicode_forms(folders):
    composed, decomposed = (unicodedata.normalize(form, "Zoë Å") for form in ("NFC", "NFD"))
    write(folders[0] / f"{decomposed}.jpg")
    write_mask(folders[1] / f"{composed}_é.png")
    case = only_case(pictures.find(*folders, mask_suffix=unicodedata.normalize("NFD", "_é")))
    assert case.name == composed


@pytest.mark.parametrize(
    "stem", ["患者 一 ✓", "it's 100 %", "x" * 200, "/".join(["long" * 40] * 8)]
)
def test_unicode_spaces_and_very_long_paths_work(folders, stem):
    write(folders[0] / f"{stem}.jpg")
    write_mask(folders[1] / f"{stem}.png", DISC)
    case = only_case(pictures.find(*folders))
    assert case.name == stem
    element = pictures.load_deeplab(case)
    np.testing.assert_array_equal(element["mask"], DISC)
    assert stem.encode()[:20] not in element["image"]


def test_one_folder_may_lie_within_the_other(tmp_path):
    write(tmp_path / "a.jpg")
    write(tmp_path / "sub/b.jpg")
    write_mask(tmp_path / "masks/a.png")
    write_mask(tmp_path / "masks/sub/b.png")
    found = pictures.find(tmp_path, tmp_path / "masks")
    assert names(found) == ["a", "sub/b"] and found.files == 4
    found = pictures.find(tmp_path / "masks", tmp_path)  # the other way round
    assert names(found) == ["a", "sub/b"] and found.files == 4


def test_one_folder_for_both_and_folders_that_are_not_there_are_refused(folders, tmp_path):
    refused("NO_PAIR", pictures.find, folders[0], folders[0] / ".." / "images")
    for images, masks in ((tmp_path / MARK, None), (folders[0], tmp_path / MARK), ("", None)):
        with pytest.raises(FileNotFoundError) as caught:
            pictures.find(images, masks)
        assert MARK not in str(caught.value)


def test_without_masks_every_picture_is_a_case(folders):
    for stem in "ab":
        write(folders[0] / f"{stem}.jpg")
    found = pictures.find(folders[0])
    assert names(found) == ["a", "b"]
    assert found.cases[0].files == (folders[0] / "a.jpg",)
    assert found.cases[0].source == (folders[0] / "a.jpg", None)
    assert set(pictures.load_pixels(found.cases[0])) == {"image"}
    refused("NO_PAIR", pictures.load_deeplab, found.cases[0])


@pytest.mark.skipif(os.name == "nt", reason="links and pipes need rights on Windows")
def test_links_are_followed_once_and_what_cannot_be_opened_is_listed(folders, pair):
    pair()
    images, _ = folders
    (images / "again").symlink_to(images, target_is_directory=True)
    (images / "gone.jpg").symlink_to(images / "nowhere.jpg")
    os.mkfifo(images / "pipe.jpg")
    found = pictures.find(*folders)
    assert names(found) == ["a"]
    assert codes(found) == {("gone.jpg",): "UNREADABLE", ("pipe.jpg",): "UNREADABLE"}


@given(
    st.lists(st.sampled_from(["a", "b", "s/a", "s/b", "a_m", "b_m"]), unique=True),
    st.lists(st.sampled_from(["a", "b", "s/a", "a_m", "b_m", "s/a_m", "c_m"]), unique=True),
    st.lists(st.sampled_from(["a.png", "x.txt", ".b.jpg", "b.JPEG", "s/t/u"]), unique=True),
    st.sampled_from([None, "", "_m"]),
)
@settings(derandomize=True, deadline=None, max_examples=150)
def test_every_file_is_in_one_case_or_one_rejection(tmp_path_factory, left, right, more, suffix):
    folder = tmp_path_factory.mktemp("set")
    start = {"images": b"\xff\xd8\xff\xe0", "masks": b"\x89PNG\r\n\x1a\n"}
    for kind, stems in (("images", left), ("masks", right)):
        for name in (*(f"{stem}.png" for stem in stems), *more):
            file = folder / kind / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(b"" if name in more else start[kind])
        (folder / kind).mkdir(exist_ok=True)
    found = pictures.find(folder / "images", folder / "masks", mask_suffix=suffix)
    listed = [file for one in (*found.cases, *found.rejected) for file in one.files]
    assert sorted(listed) == sorted(path for path in folder.rglob("*") if path.is_file())
    for case in found.cases:
        assert case.source[0].is_relative_to(folder / "images")
        assert case.source[1].is_relative_to(folder / "masks")
    assert len(set(names(found))) == len(found.cases)


# Patients and labels


@pytest.fixture
def listed(folders):
    """A function that writes a CSV beside the folder of images and finds with it."""
    for stem in ("a", "b", "sub/c"):
        write(folders[0] / f"{stem}.jpg")

    def find(text, encoding="utf-8", **options):
        path = folders[0].parent / "list.csv"
        path.write_bytes(text.encode(encoding))
        return pictures.find(folders[0], patients=path, **options)

    return find


@pytest.mark.parametrize(
    "text",
    [
        "file,patient,label\nimages/a.jpg,007,1\nimages/b.jpg,007,1\nimages/sub/c.jpg,P 8,0\n",
        "label,Image,PATIENT\r\n1,a,007\r\n1,b,007\r\n0,sub/c,P 8\r\n",
        '\ufeffimage,x,patient,label\n\n./a.JPG,"1, 2",007,1.0\nb.jpg,,007,1\nsub\\c.jpg,,P 8,0\n',
    ],
    ids=["from the CSV's folder", "from the folder of images", "as a spreadsheet saves it"],
)
def test_a_list_gives_patients_as_they_are_written_and_labels(listed, text):
    found = listed(text)
    assert [(case.name, case.patient, case.label) for case in found.cases] == [
        ("a", "007", 1),
        ("b", "007", 1),
        ("sub/c", "P 8", 0),
    ]


def test_labels_may_come_without_patients_and_from_a_list_of_their_own(listed, folders):
    labels = folders[0].parent / "labels.csv"
    labels.write_text("image,label\na,2\nb,0\nsub/c,1\n")
    found = pictures.find(folders[0], labels=labels)
    assert [(case.patient, case.label) for case in found.cases] == [("", 2), ("", 0), ("", 1)]
    found = listed("file,patient,label\na,P1,9\nb,P1,9\nsub/c,P2,9\n", labels=labels)
    assert [(case.patient, case.label) for case in found.cases] == [("P1", 2), ("P1", 0), ("P2", 1)]
    patients = "file,patient\na,P1\nb,P1\nsub/c,P2\n"
    found = listed(patients)
    assert [(case.patient, case.label) for case in found.cases] == [
        ("P1", None),
        ("P1", None),
        ("P2", None),
    ]
    labels.write_text(patients)
    assert "label" in refused("DATA_LIST", pictures.find, folders[0], labels=labels).message


def test_a_picture_that_the_list_lacks_is_rejected_with_its_mask(listed, folders):
    text = "file,patient\na.jpg,P1\na.jpg,P1\nsub/c.jpg,P2\n"  # a twice, but the same
    assert codes(listed(text)) == {("b.jpg",): "DATA_LIST"}
    for stem in ("a", "b", "sub/c"):
        write_mask(folders[1] / f"{stem}.png")
    found = listed(text, masks=folders[1])
    assert names(found) == ["a", "sub/c"]
    assert codes(found) == {("b.jpg", "b.png"): "DATA_LIST"}


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ("", "DATA_LIST", "expected columns file"),
        (f"name,patient\n{MARK},P1\n", "DATA_LIST", "expected columns file"),
        (f"file,{MARK}\na,P1\n", "DATA_LIST", "and patient"),
        (f"file;patient\na;{MARK}\n", "DATA_LIST", "commas"),
        (f"file,patient\na,P1\n{MARK},P1\n", "DATA_LIST", "row 3 names no picture"),
        ("file,patient\n/etc/hostname,P1\n", "DATA_LIST", "row 2 names no picture"),
        ("file,patient\n../list.csv,P1\n", "DATA_LIST", "row 2 names no picture"),
        ("file,patient\na,\n", "DATA_LIST", "row 2 names no patient"),
        ("file,patient,label\na,P1,\n", "DATA_LIST", "row 2 names no label"),
        (f"file,patient\na,{MARK}, P2\n", "DATA_LIST", "row 2 has 3 fields"),
        (f"file,patient\na,P1\na,{MARK}\n", "DATA_LIST", "row 3 has another patient"),
        ("file,patient,label\na,P1,0\na,P1,1\n", "DATA_LIST", "row 3 has another label"),
        (f"file,patient,label\na,P1,{MARK}\n", "UNKNOWN_LABEL", "row 2: expected a class id"),
        ("file,patient,label\na,P1,-1\n", "UNKNOWN_LABEL", "row 2"),
        ("file,patient,label\na,P1,0.5\n", "UNKNOWN_LABEL", "row 2"),
        ("file,patient,label\na,P1,²\n", "UNKNOWN_LABEL", "row 2"),
        (f"file,patient\na,{'x' * 200_000}\n", "DATA_LIST", "UTF-8"),
    ],
)
def test_a_list_that_does_not_say_what_it_should_is_refused(listed, text, code, words):
    error = refused(code, listed, text)
    assert words in error.message
    assert [file.name for file in error.files] == ["list.csv"]


def test_a_list_in_another_encoding_is_refused_and_one_that_is_not_there(listed, folders):
    refused("DATA_LIST", listed, "file,patient\na,Zoë\n", encoding="latin-1")
    with pytest.raises(FileNotFoundError):
        pictures.find(folders[0], patients=folders[0] / "nowhere.csv")


# Pixels


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@pytest.mark.parametrize("grey", [False, True])
def test_pixels_are_those_that_pillow_reads(pair, suffix, grey):
    case = pair(RGB[..., 0] if grey else RGB, suffix=suffix)
    element = pictures.load_pixels(case)
    np.testing.assert_array_equal(element["image"], np.asarray(by_pillow(case.source[0])))
    assert element["image"].shape == ((20, 30) if grey else (20, 30, 3))
    assert element["image"].dtype == np.uint8 and element["image"].flags.writeable
    np.testing.assert_array_equal(element["mask"], DISC)


def test_palettes_and_single_bits_become_colours_and_greys(pair):
    palette = Image.fromarray(RGB).quantize(16)
    case = pair(palette, suffix=".png", transparency=3)
    np.testing.assert_array_equal(
        pictures.load_pixels(case)["image"], by_tensorflow(case.source[0].read_bytes())
    )
    case = pair(Image.fromarray(DISC > 0), suffix=".png")
    np.testing.assert_array_equal(pictures.load_pixels(case)["image"], DISC * 255)


def test_what_deeplab_gets_has_no_metadata_and_the_same_pixels(pair):
    exif = Image.Exif()
    exif[0x010E] = MARK
    case = pair(exif=exif, comment=MARK.encode(), icc_profile=MARK.encode())
    file = case.source[0].read_bytes()
    element = pictures.load_deeplab(case)
    assert file.count(MARK.encode()) == 3 and MARK.encode() not in element["image"]
    np.testing.assert_array_equal(by_tensorflow(element["image"]), by_tensorflow(file))
    assert set(element) == {"image", "format", "height", "width", "mask"}
    case = pair(RGB[..., 0], suffix=".jpg")
    assert pictures.load_deeplab(case)["image"] == case.source[0].read_bytes()


@each_load
def test_an_image_of_one_colour_is_refused(pair, load):
    flat = np.full((20, 30, 3), (9, 8, 7), np.uint8)
    error = refused("CONSTANT", load, pair(flat, suffix=".png"))
    assert "[9, 8, 7]" in error.message
    palette = Image.fromarray(DISC).convert("P")
    palette.putpalette([1, 2, 3] * 256)  # two indices, one colour
    refused("CONSTANT", load, pair(palette, suffix=".png"))
    refused("CONSTANT", load, pair(flat, suffix=".jpg"))
    flat[3, 4, 2] = 8
    assert load(pair(flat, suffix=".png"))["mask"].any()


@each_load
def test_a_mask_of_another_size_is_refused_with_both_sizes(pair, load):
    case = pair(mask=DISC[:, :-1])
    error = refused("MASK_MISMATCH", load, case)
    assert "20 x 30 in the image, 20 x 29 in the mask" in error.message
    assert error.files == case.files
    refused("MASK_MISMATCH", load, pair(mask=np.ascontiguousarray(DISC.T)))


@each_load
def test_a_photograph_that_is_to_be_turned_is_refused(pair, load):
    exif = Image.Exif()
    exif[0x0112] = 6
    case = pair(exif=exif)
    assert refused("ROTATED", load, case).files == case.files[:1]


@each_load
def test_a_file_that_was_cut_is_refused(pair, load):
    case = pair()
    for file in reversed(case.source):
        data = file.read_bytes()
        file.write_bytes(data[:-20])
        assert refused("TRUNCATED", load, case).files == (file,)


@each_load
def test_a_file_that_is_gone_or_larger_than_any_picture_is_refused(pair, load):
    case = pair()
    with open(case.source[1], "r+b") as file:
        file.truncate(pictures.MAX_BYTES + 1)  # a hole, not a gigabyte
    assert refused("TOO_LARGE", load, case).files == case.files[1:]
    case.source[0].unlink()
    assert refused("UNREADABLE", load, case).files == case.files[:1]


def test_a_mask_without_foreground_is_kept(pair):
    case = pair(mask=np.zeros_like(DISC))
    assert pictures.survey(case, {0: 0, 255: 1}) == {0}
    for load in (pictures.load_deeplab, pictures.load_pixels):
        assert load(case, {0: 0, 255: 1})["mask"].sum() == 0


# Ids


def stored_bits(ids, bits):
    """A grey PNG of less than 8 bits a pixel, by hand."""

    def chunk(kind, body):
        check = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + check

    spread = np.unpackbits(ids[..., None], axis=-1)[..., -bits:].reshape(len(ids), -1)
    rows = b"".join(b"\0" + row.tobytes() for row in np.packbits(spread, axis=-1))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", ids.shape[1], len(ids), bits, 0, 0, 0, 0))
    data = chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + header + data


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_ids_of_few_bits_are_the_numbers_that_are_stored(pair, bits):
    ids = np.random.default_rng(bits).integers(0, 2**bits, (20, 30), np.uint8)
    case = pair()
    case.source[1].write_bytes(stored_bits(ids, bits))
    np.testing.assert_array_equal(pictures.load_deeplab(case)["mask"], ids)
    assert pictures.survey(case) == set(range(2**bits)) & set(ids.ravel().tolist())


@pytest.mark.parametrize("bits", [{"bits": 2}, {"bits": 8}])
def test_a_palette_mask_holds_indices_and_not_colours(pair, bits):
    ids = DISC * 2
    ids[:3] = 3  # VOC would have 255 here
    voc = Image.fromarray(ids).convert("P")
    voc.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0, 224, 224, 192])
    case = pair()
    write(case.source[1], voc, **bits)
    assert by_pillow(case.source[1]).mode == "P"
    assert pictures.survey(case) == {0, 2, 3}
    np.testing.assert_array_equal(pictures.load_pixels(case)["mask"], ids)
    mapped = pictures.load_pixels(case, {0: 0, 2: 1, 3: 255})["mask"]
    np.testing.assert_array_equal(mapped, np.select([ids == 2, ids == 3], [1, 255], 0))


def test_the_ignore_id_255_survives_in_a_palette_of_256_colours(pair):
    ids = np.where(DISC, 255, 15).astype(np.uint8)
    voc = Image.fromarray(ids).convert("P")
    voc.putpalette(np.random.default_rng(0).integers(0, 256, 768).tolist())
    assert pictures.survey(pair(mask=voc)) == {15, 255}


def test_ids_in_16_bits_are_taken_up_to_255(pair):
    ids = DISC.astype(np.uint16) * 255
    assert pictures.load_pixels(pair(mask=ids))["mask"].dtype == np.uint8
    assert pictures.survey(pair(mask=ids)) == {0, 255}
    ids[0, 0] = 300  # 44, were it cast
    case = pair(mask=ids)
    assert "id 300" in refused("UNKNOWN_LABEL", pictures.survey, case).message


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (np.dstack([DISC * 255] * 3), "in RGB"),
        (np.dstack([DISC * 255] * 4), "alpha"),
    ],
)
def test_a_mask_in_colours_is_refused_with_advice(pair, mask, words):
    case = pair(mask=mask)
    error = refused("PIXEL_FORMAT", pictures.survey, case)
    assert words in error.message and error.files == case.files[1:]


def test_a_mask_in_jpeg_is_refused(folders):
    write(folders[0] / "a.png")
    write(folders[1] / "a.jpg", DISC * 255)
    case = only_case(pictures.find(*folders))
    assert len(np.unique(by_pillow(case.source[1]))) > 2  # this is why
    assert "JPEG" in refused("PIXEL_FORMAT", pictures.survey, case).message


@pytest.mark.parametrize(
    ("ids", "mapping", "words"),
    [
        ([0, 255], {}, "ids 0, 255 in the mask, not all of them mapped; .* 0=0,255=1"),
        ([255], {}, "0=0,255=1"),
        ([0, 128, 255], {0: 0, 255: 1}, "ids 0, 128, 255 .* 0=0,128=2,255=1"),
        ([0, 1, 255], {0: 0, 255: 255}, "0=0,1=1,255=255"),
        ([0, 255], {0: 0, 255: 256}, "0=0,255=1"),
        ([0, 255], {0: 0, 255: -1}, "0=0,255=1"),
        (list(range(0, 256, 5)), {0: 0, 255: 1}, "ids 0, 5, .*, 45 and 42 more .* threshold"),
    ],
)
def test_an_id_that_the_mapping_does_not_name_is_refused_with_a_suggestion(
    pair, ids, mapping, words
):
    mask = np.resize(np.array(ids, np.uint8), DISC.shape)
    case = pair(mask=mask)
    for call in (pictures.survey, pictures.load_deeplab, pictures.load_pixels):
        error = refused("UNKNOWN_LABEL", call, case, mapping)
        assert error.files == case.files[1:]
        with pytest.raises(CourseDataError, match=words):
            raise error


@given(st.dictionaries(st.integers(0, 255), st.integers(0, 255), min_size=1), st.randoms())
@settings(derandomize=True, deadline=None, max_examples=50)
def test_every_pixel_becomes_what_the_mapping_says(tmp_path_factory, mapping, random):
    ids = np.array(random.choices(sorted(mapping), k=600), np.uint8).reshape(20, 30)
    folder = tmp_path_factory.mktemp("set")
    write(folder / "images/a.jpg")
    write_mask(folder / "masks/a.png", ids)
    case = only_case(pictures.find(folder / "images", folder / "masks"))
    by_hand = [[mapping[one] for one in row] for row in ids.tolist()]
    assert pictures.load_deeplab(case, mapping)["mask"].tolist() == by_hand
    assert pictures.survey(case, mapping) == {one for row in by_hand for one in row}


def test_cases_and_functions_travel_to_other_processes(pair):
    case = pair(mask=DISC * 255)
    load = functools.partial(pictures.load_deeplab, mapping={0: 0, 255: 1})
    twin, again = pickle.loads(pickle.dumps((load, case)))  # noqa: S301 - as multiprocessing does
    np.testing.assert_array_equal(twin(again)["mask"], DISC)


def test_reasons_hold_no_name(folders):
    write(folders[0] / f"{MARK}.jpg", np.zeros((4, 4), np.uint8))
    write(folders[0] / f"{MARK}.png")
    write(folders[0] / f"{MARK}_b.jpg")
    (folders[1] / f"{MARK}.txt").write_text(MARK)
    found = pictures.find(*folders)
    assert len(found.rejected) == 3
    assert all(MARK not in one.reason + repr(one) for one in found.rejected)
