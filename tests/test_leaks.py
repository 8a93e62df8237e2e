"""A patient, a case or an image on both sides of a split is found, whatever it is called."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from helpers import datalist, leaks, phantoms, records, sources_pictures
from helpers.cases import Case, Found, case_hash
from helpers.errors import CourseDataError
from tests.records_cases import SALT, as_given, ids_as_given, write

NAME = "Placeholder^Jane"
GREY = np.random.default_rng(0).integers(0, 256, (20, 30)).astype(np.uint8)
COLOUR = np.random.default_rng(1).integers(0, 256, (20, 30, 3)).astype(np.uint8)

no_waiting = pytest.mark.usefixtures("no_waiting_for_the_disk")


def case(number: int, source=None, split: str = "train", patient: str = "", **known) -> Case:
    files = known.pop("files", (Path(f"{number}.png"),))
    return Case(f"{NAME} {number}", source, files, patient or f"{NAME} {number}", split, **known)


def given_pixels(case: Case) -> dict:
    """The source of the case is its image; an error in its place is raised."""
    if isinstance(case.source, Exception):
        raise case.source
    return {"image": case.source}


def refused(code: str, *arguments, **named) -> CourseDataError:
    with pytest.raises(CourseDataError) as error:
        leaks.check(*arguments, **named)
    assert error.value.code == code
    assert NAME not in str(error.value)
    return error.value


# Cases


def test_patients_and_names_are_checked_without_reading_an_image():
    torn = [case(1, patient=NAME), case(2, split="test", patient=NAME), case(3)]
    assert refused("PATIENT_IN_TWO_SPLITS", torn).files == (Path("1.png"), Path("2.png"))
    assert refused("SAME_CASE", [case(1), case(1)]).files == (Path("1.png"), Path("1.png"))
    report = leaks.check([case(1, patient=NAME), case(2, patient=NAME), case(3, split="test")])
    assert (report.cases, report.patients, report.images) == (3, 2, 0)
    assert str(report) == "3 cases of 2 patients, each patient in one split"


def test_one_image_of_two_patients_in_two_splits_is_refused_with_its_files():
    three = [case(1, GREY), case(2, GREY[::-1]), case(3, GREY.copy(), "test")]
    error = refused("IMAGE_IN_TWO_SPLITS", three, given_pixels)
    assert error.files == (Path("1.png"), Path("3.png"))
    assert error.message.startswith("1 of 2 different images stand in more than one split")
    assert "test and train" in error.message and "2 cases" in error.message
    assert leaks.check(three[:2], given_pixels).images == 2


def test_one_image_twice_within_a_split_is_allowed_counted_and_named():
    four = [case(1, GREY), case(2, GREY), case(3, GREY[::-1], "test"), case(4, GREY)]
    report = leaks.check(four, given_pixels)
    assert report.identical == ((f"{NAME} 1", f"{NAME} 2", f"{NAME} 4"),)
    assert "within a split, 3 cases share 1 images" in str(report)
    assert NAME not in str(report) and NAME not in repr(report)


@settings(max_examples=100, derandomize=True, deadline=None, database=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 5), st.sampled_from(["train", "validation", "test"])), max_size=9
    )
)
def test_a_leak_is_found_exactly_if_there_is_one(placed):
    images = [np.roll(GREY, number) for number in range(6)]
    cases = [case(n, images[one], split) for n, (one, split) in enumerate(placed)]
    torn = any(
        np.array_equal(a.source, b.source) and a.split != b.split for a in cases for b in cases
    )
    if torn:
        refused("IMAGE_IN_TWO_SPLITS", cases, given_pixels)
    else:
        repeated = sum(map(len, leaks.check(cases, given_pixels).identical))
        alone = [one for one, _ in placed]
        assert repeated == sum(alone.count(one) > 1 for one in alone)


@pytest.mark.parametrize(
    ("same", "other"),
    [
        (GREY, GREY.astype(np.int64)),
        (GREY, GREY.astype(np.float32)),
        (GREY, GREY.astype(">u2")),
        (GREY, GREY[..., None]),
        (GREY, np.stack([GREY] * 3, axis=-1)),
        (GREY, np.asfortranarray(GREY)),
        (COLOUR - 1000.0, COLOUR.astype(np.int16) - 1000),
    ],
    ids=["int64", "float32", "big-endian", "channel", "three channels", "order", "negative"],
)
def test_the_same_numbers_are_the_same_image(same, other):
    refused("IMAGE_IN_TWO_SPLITS", [case(1, same), case(2, other, "test")], given_pixels)


def changed_by_one() -> np.ndarray:
    pixels = GREY.copy()
    pixels[7, 3] ^= 1
    return pixels


@pytest.mark.parametrize(
    "other",
    [changed_by_one(), GREY.reshape(30, 20), GREY.T, GREY[::-1], GREY[1:], GREY + 0.5,
     np.stack([GREY, GREY, changed_by_one()], axis=-1)],
    ids=["one pixel", "shape", "turned", "flipped", "cropped", "shifted", "one channel"],
)  # fmt: skip
def test_other_numbers_are_another_image(other):
    report = leaks.check([case(1, GREY), case(2, other, "test")], given_pixels)
    assert (report.images, report.identical) == (2, ())


def test_blank_images_are_alike_and_no_leak():
    """The slices above the head of two patients are black, and say nothing about either."""
    black = np.zeros((20, 30), np.int16)
    four = [case(1, black), case(2, black, "test"), case(3, black + 7, "test"), case(4, GREY)]
    report = leaks.check(four, given_pixels)
    assert (report.images, report.blank, report.identical) == (1, 3, ())
    assert "3 images of one value are not compared" in str(report)


def test_what_cannot_be_read_is_counted_and_not_compared():
    files = (Path(f"{NAME}.png"),)
    broken = CourseDataError("DECODING_FAILED", f"quoted: {NAME}")
    gone = FileNotFoundError(2, "No such file or directory", NAME)
    never = np.where(GREY > 9, GREY, np.nan)
    cases = [case(1, broken, files=files), case(2, gone), case(3, never), case(4, GREY, "test")]
    report = leaks.check(cases, given_pixels)
    assert [one.code for one in report.unread] == ["DECODING_FAILED", "UNREADABLE", "NOT_FINITE"]
    assert report.unread[0].files == files
    assert (report.cases, report.images) == (4, 1)
    assert "3 cases could not be read" in str(report)
    assert NAME not in str(report) and NAME not in repr(report)


def test_no_case_at_all_is_no_leak():
    assert str(leaks.check([], given_pixels)) == "0 cases of 0 patients, each patient in one split"


# Files

SAVED = {
    "compressed otherwise": lambda picture, path: picture.save(path, compress_level=0),
    "with metadata": lambda picture, path: picture.save(path, pnginfo=noted()),
    "in 16 bits": lambda picture, path: Image.fromarray(
        np.array(picture, np.uint16)
    ).save(path),
    "in colour": lambda picture, path: picture.convert("RGB").save(path),
    "with a palette": lambda picture, path: picture.convert("RGB").quantize(256).save(path),
}  # fmt: skip


def noted() -> PngInfo:
    info = PngInfo()
    info.add_text("Comment", "exported again")
    return info


@pytest.fixture
def found(tmp_path):
    """Four pictures by `sources_pictures`; the right ones are in the test split."""

    def make(**pictures) -> list[Case]:
        for name, save in pictures.items():
            side, stem = name.split("_")
            (tmp_path / side).mkdir(exist_ok=True)
            save(tmp_path / side / stem)
        cases = sources_pictures.find(tmp_path).cases
        assert len(cases) == len(pictures)
        return [
            dataclasses.replace(one, split="test" if one.name.startswith("right") else "train")
            for one in cases
        ]

    return make


@pytest.mark.parametrize("save", SAVED.values(), ids=SAVED)
def test_a_picture_saved_again_under_another_name_is_the_same(found, save):
    picture = Image.fromarray(GREY)
    cases = found(
        left_a=lambda path: picture.save(f"{path}.png"),
        right_b=lambda path: save(picture, f"{path}.png"),
        right_c=lambda path: Image.fromarray(GREY[::-1]).save(f"{path}.png"),
    )
    contents = {one.files[0].read_bytes() for one in cases}
    assert len(contents) == 3  # by their bytes, they are three different files
    error = refused("IMAGE_IN_TWO_SPLITS", cases, sources_pictures.load_pixels)
    assert {file.name for file in error.files} == {"a.png", "b.png"}


def test_a_jpeg_and_the_png_made_of_it_are_the_same(found):
    def as_jpeg(path):
        Image.fromarray(COLOUR).save(f"{path}.jpg", quality=80)

    def as_png(path):
        as_jpeg(path)
        with Image.open(f"{path}.jpg") as picture:
            picture.save(f"{path}.png")
        Path(f"{path}.jpg").unlink()

    cases = found(left_a=as_jpeg, right_b=as_png)
    assert {one.files[0].suffix for one in cases} == {".jpg", ".png"}
    refused("IMAGE_IN_TWO_SPLITS", cases, sources_pictures.load_pixels)


def test_images_that_a_loader_leaves_encoded_are_compared_decoded(found):
    def bytes_of(case):
        return {"image": case.files[0].read_bytes()}

    cases = found(
        left_a=lambda path: Image.fromarray(GREY).save(f"{path}.png", compress_level=0),
        right_b=lambda path: Image.fromarray(GREY).save(f"{path}.png", compress_level=9),
    )
    refused("IMAGE_IN_TWO_SPLITS", cases, bytes_of)


def test_a_set_of_nodules_split_by_patient_does_not_leak_and_split_by_slice_does(tmp_path):
    folder = phantoms.nodules(tmp_path, patients=30)
    cases = sources_pictures.find(folder / "images", patients=folder / "labels.csv").cases
    by_patient = datalist.split(cases, {"train": 0.7, "test": 0.3}, seed=0)
    report = leaks.check(by_patient, sources_pictures.load_pixels)
    assert (report.cases, report.images, report.patients) == (len(cases), len(cases), 30)
    assert report.identical == report.unread == ()
    by_slice = [
        dataclasses.replace(one, split="test" if n % 3 == 0 else "train")
        for n, one in enumerate(cases)
    ]
    refused("PATIENT_IN_TWO_SPLITS", by_slice)
    # Without the column that names the patients, nobody sees that slices belong together.
    nameless = [dataclasses.replace(one, patient="") for one in by_slice]
    assert leaks.check(nameless, sources_pictures.load_pixels).patients == len(cases)


# Records


def placed(*images, splits) -> list[Case]:
    return [
        Case(f"{n}", {"image": image}, patient=f"P{n}", split=split, label=n % 2)
        for n, (image, split) in enumerate(zip(images, splits, strict=True))
    ]


def kept(folder: Path, cases: list[Case], **options) -> Path:
    write(folder, Found(tuple(cases)), as_given, survey=ids_as_given, **options)
    return folder


VOLUME = np.random.default_rng(2).integers(-1000, 1000, (3, 4, 5))


@no_waiting
def test_records_without_a_leak_are_counted(tmp_path):
    cases = placed(VOLUME, VOLUME + 1, VOLUME + 2, splits=["train", "test", "train"])
    cases[2] = dataclasses.replace(cases[2], patient=cases[0].patient)
    report = leaks.check_records(kept(tmp_path / "set", cases, shard_count=2))
    assert (report.cases, report.patients, report.images) == (3, 2, 3)
    assert report.identical == ()


@no_waiting
def test_one_image_in_records_of_two_splits_is_refused_with_its_shards(tmp_path):
    # Written from whole numbers, and from floating point ones with a channel.
    cases = placed(VOLUME, VOLUME[..., None] * 1.0, VOLUME + 1, splits=["train", "test", "test"])
    folder = kept(tmp_path / "set", cases)
    with pytest.raises(CourseDataError, match="1 of 2 different images") as error:
        leaks.check_records(folder)
    assert error.value.code == "IMAGE_IN_TWO_SPLITS"
    assert {file.name.partition("-")[0] for file in error.value.files} == {"train", "test"}


@no_waiting
def test_one_image_in_two_records_of_a_split_is_named_by_its_hashes(tmp_path):
    cases = placed(VOLUME, VOLUME, VOLUME + 1, splits=["train", "train", "test"])
    (same,) = leaks.check_records(kept(tmp_path / "set", cases)).identical
    assert set(same) == {case_hash(SALT, one.patient, one.name) for one in cases[:2]}


@no_waiting
def test_a_patient_in_records_of_two_splits_is_refused_by_hash(tmp_path, monkeypatch):
    cases = placed(VOLUME, VOLUME + 1, VOLUME + 2, splits=["train", "test", "test"])
    cases[1] = dataclasses.replace(cases[1], patient=cases[0].patient)
    monkeypatch.setattr(datalist, "check_splits", lambda cases: None)  # as others may write
    folder = kept(tmp_path / "set", cases)
    person = case_hash(SALT, cases[0].patient, "").partition("-")[0]
    with pytest.raises(CourseDataError, match=f"1 of 2 .* 2 records.*{person} in test and train"):
        leaks.check_records(folder)
    twins = [dataclasses.replace(one, name="the same", patient="P") for one in cases[1:]]
    with pytest.raises(CourseDataError, match="2 of 2 records share their case") as error:
        leaks.check_records(kept(tmp_path / "twins", twins))
    assert error.value.code == "SAME_CASE"


def photograph(case: Case) -> dict:
    path = case.files[0]
    with Image.open(path) as picture:
        width, height = picture.size
    mask = np.zeros((height, width), np.uint8)
    size = {"height": height, "width": width, "format": "png"}
    return {"image": path.read_bytes(), "mask": mask, **size}


def no_ids(case: Case) -> frozenset[int]:
    return frozenset({0})


@no_waiting
@pytest.mark.parametrize("again", [COLOUR, COLOUR[::-1]], ids=["same", "another"])
def test_photographs_in_records_are_compared_by_their_pixels(tmp_path, again):
    cases = []
    for n, (pixels, level) in enumerate([(COLOUR, 0), (again, 9)]):
        path = tmp_path / f"{n}.png"
        Image.fromarray(pixels).save(path, compress_level=level)
        cases.append(Case(f"{n}", None, (path,), f"P{n}", ["train", "test"][n]))
    records.write(
        tmp_path / "set", Found(tuple(cases)), "deeplab", photograph, salt=SALT, workers=1,
        classes=["skin"], survey=no_ids, progress=False,
    )  # fmt: skip
    if again is COLOUR:
        with pytest.raises(CourseDataError) as error:
            leaks.check_records(tmp_path / "set")
        assert error.value.code == "IMAGE_IN_TWO_SPLITS"
    else:
        assert leaks.check_records(tmp_path / "set").images == 2


@no_waiting
def test_cases_and_their_records_tell_the_same(tmp_path):
    images = [VOLUME + n // 2 for n in range(8)]
    cases = placed(*images, splits=["train"] * 4 + ["test"] * 4)
    cases[1] = dataclasses.replace(cases[1], patient="P0")
    before = leaks.check(cases, as_given)
    after = leaks.check_records(kept(tmp_path / "set", cases))
    assert (before.cases, before.patients, before.images) == (8, 7, 8)
    assert (after.cases, after.patients, after.images) == (8, 7, 8)
    hashes = {one.name: case_hash(SALT, one.patient, one.name) for one in cases}
    told = {frozenset(hashes[name] for name in same) for same in before.identical}
    assert told == set(map(frozenset, after.identical)) and len(told) == 4


def test_a_folder_without_records_is_refused(tmp_path):
    with pytest.raises(CourseDataError) as error:
        leaks.check_records(tmp_path)
    assert error.value.code == "NO_MANIFEST"


def test_of_many_patients_in_two_splits_five_are_named():
    names = [case_hash(SALT, f"patient {n // 2}", f"case {n}") for n in range(14)]
    with pytest.raises(CourseDataError, match=r"7 of 7 patients.*; and 2 more") as error:
        leaks._check_hashes(names, ["train", "test"] * 7, [("shard",)] * 14)
    assert error.value.message.count(" in test and train") == 5
    with pytest.raises(CourseDataError) as error:
        leaks._check_hashes(names[:10], ["train", "test"] * 5, [("shard",)] * 10)
    assert "; and" not in error.value.message
