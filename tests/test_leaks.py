"""A patient, a case or an image on both sides of a split is found, whatever it is called."""

import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers import leaks, records, splits
from helpers.cases import Case, Found, case_hash
from helpers.errors import CourseDataError

NAME, SALT = "Placeholder^Jane", "nobody knows this"
GREY = np.random.default_rng(0).integers(0, 256, (20, 30)).astype(np.uint8)
COLOUR = np.random.default_rng(1).integers(0, 256, (20, 30, 3)).astype(np.uint8)
VOLUME = np.random.default_rng(2).integers(-1000, 1000, (3, 4, 5))


def placed(*images, sides="train test train test", patients=None) -> list[Case]:
    """A case for each image; its source is the image, or an error to be raised in its place."""
    cases = []
    for n, (image, side) in enumerate(zip(images, (sides.split() * 9)[: len(images)], strict=True)):
        patient = (patients or {}).get(n, f"{NAME} {n}")
        cases.append(Case(f"{NAME} {n}", image, (Path(f"{n}.png"),), patient, side, n % 2))
    return cases


def given_pixels(case: Case) -> dict:
    if isinstance(case.source, Exception):
        raise case.source
    return {"image": case.source}


def refused(code: str, words: str, call, *arguments) -> CourseDataError:
    with pytest.raises(CourseDataError) as error:
        call(*arguments)
    assert error.value.code == code and words in str(error.value) and NAME not in str(error.value)
    return error.value


def told(cases, load=given_pixels) -> str | tuple:
    """The code of the refusal, or how many images were compared and which are identical."""
    try:
        report = leaks.check(cases, load)
    except CourseDataError as error:
        return error.code
    return report.images, report.identical


def test_an_image_on_two_sides_is_refused_and_one_twice_on_a_side_is_named():
    four = placed(GREY, GREY[::-1], GREY.copy(), GREY.copy())
    error = refused("IMAGE_IN_TWO_SPLITS", "1 images, in 3 cases", leaks.check, four, given_pixels)
    assert error.files == (Path("0.png"), Path("2.png"), Path("3.png"))
    report = leaks.check(four[:3], given_pixels)
    assert report.identical == ((f"{NAME} 0", f"{NAME} 2"),)
    assert (report.cases, report.patients, report.images) == (3, 3, 3)
    assert str(report).startswith("3 cases of 3 patients, each patient in one split\n3 images")
    assert NAME not in str(report) and NAME not in repr(report)
    torn = placed(GREY, GREY, patients={0: NAME, 1: NAME})
    refused("PATIENT_IN_TWO_SPLITS", "2 of 2 cases", leaks.check, torn, given_pixels)


def test_the_same_numbers_are_the_same_image_and_no_others_are():
    pixel = GREY.copy()
    pixel[7, 3] ^= 1
    same = [GREY.astype(kind) for kind in ("int64", "float32", ">u2")]
    same += [GREY[..., None], np.stack([GREY] * 3, -1), np.asfortranarray(GREY)]
    others = [pixel, GREY.reshape(30, 20), GREY.T, GREY[::-1], GREY[1:], GREY + 0.5]
    others += [np.stack([GREY, GREY, pixel], -1), GREY.astype(int) - 1000]
    assert [told(placed(GREY, one)) for one in same] == ["IMAGE_IN_TWO_SPLITS"] * 6
    assert [told(placed(GREY, one)) for one in others] == [(2, ())] * 8
    assert told(placed(GREY - 1000.0, GREY.astype(int) - 1000)) == "IMAGE_IN_TWO_SPLITS"


def test_blank_images_are_alike_and_what_cannot_be_read_is_counted():
    """The slices above the head of two patients are black, and say nothing about either."""
    black, nan = np.zeros((20, 30), np.int16), np.where(GREY > 9, GREY, np.nan)
    broken, gone = CourseDataError("DECODING_FAILED", NAME), FileNotFoundError(2, "gone", NAME)
    cases = placed(black, black, black + 7, GREY, broken, gone, nan)
    report = leaks.check(cases, given_pixels)
    assert (report.cases, report.images, report.blank, report.identical) == (7, 1, 3, ())
    assert [one.code for one in report.unread] == ["DECODING_FAILED", "UNREADABLE", "NOT_FINITE"]
    assert report.unread[0].files == (Path("4.png"),)
    assert NAME not in str(report) and NAME not in repr(report)


def kept(folder: Path, cases: list[Case], schema="volume", load=given_pixels) -> Path:
    options = {"salt": SALT, "classes": ["a", "b"], "workers": 1, "progress": False}
    records.write(folder, Found(tuple(cases)), schema, load, survey=lambda case: {0}, **options)
    return folder


def test_cases_and_their_records_tell_the_same(tmp_path):
    cases = placed(*(VOLUME + n // 4 * 2 + n % 2 for n in range(8)), patients={2: f"{NAME} 0"})
    before = leaks.check(cases, given_pixels)
    after = leaks.check_records(kept(tmp_path / "set", cases))
    assert (before.cases, before.patients, before.images) == (8, 7, 8)
    assert (after.cases, after.patients, after.images) == (8, 7, 8)
    hashes = {one.name: case_hash(SALT, one.patient, one.name) for one in cases}
    told = {frozenset(hashes[name] for name in same) for same in before.identical}
    assert told == set(map(frozenset, after.identical)) and len(told) == 4
    refused("NO_MANIFEST", "", leaks.check_records, tmp_path)


def test_images_patients_and_cases_on_two_sides_of_records_are_refused(tmp_path, monkeypatch):
    # Written from whole numbers, and from floating point ones with a channel.
    folder = kept(tmp_path / "images", placed(VOLUME, VOLUME[..., None] * 1.0, VOLUME + 1))
    error = refused("IMAGE_IN_TWO_SPLITS", "1 images", leaks.check_records, folder)
    assert {file.name.partition("-")[0] for file in error.files} == {"train", "test"}
    monkeypatch.setattr(splits, "check", lambda cases: None)  # as others may write
    both = placed(VOLUME, VOLUME + 1, patients={0: "P", 1: "P"})
    torn = kept(tmp_path / "torn", both)
    twins = kept(tmp_path / "twins", [dataclasses.replace(one, name="one") for one in both])
    monkeypatch.undo()
    refused("PATIENT_IN_TWO_SPLITS", "2 of 2 cases", leaks.check_records, torn)
    refused("SAME_CASE", "2 cases", leaks.check_records, twins)


def test_photographs_in_records_are_compared_by_their_pixels(tmp_path):
    def photograph(case):
        size = {"height": 20, "width": 30, "format": "png", "mask": np.zeros((20, 30), np.uint8)}
        return {"image": case.source, **size}

    files = [io.BytesIO(), io.BytesIO()]
    for level, file in zip((0, 9), files, strict=True):
        Image.fromarray(COLOUR).save(file, "PNG", compress_level=level)
    cases = placed(*(file.getvalue() for file in files))
    folder = kept(tmp_path / "same", cases, "deeplab", photograph)
    refused("IMAGE_IN_TWO_SPLITS", "1 images", leaks.check_records, folder)
