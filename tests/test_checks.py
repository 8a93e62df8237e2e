"""Every check passes right answers of several kinds and says what is wrong with wrong ones."""

from pathlib import Path

import numpy as np
import pydicom
import pytest

from helpers import checks, dicom, intensity


def said(capsys, check, answer) -> str:
    check(answer)
    return capsys.readouterr().out.strip()


def height_mm(header) -> float:
    row, column = np.reshape(header.ImageOrientationPatient, (2, 3)).astype(float)
    return float(np.dot(np.cross(row, column), np.array(header.ImagePositionPatient, float)))


def gaps_by(height, usual):
    def answer(headers):
        heights = np.sort([height(header) for header in headers])
        gaps = np.diff(heights)
        step = usual(gaps)
        return [
            low + step * k
            for low, gap in zip(heights, gaps, strict=False)
            for k in range(1, round(gap / step) if step else 0)
        ]

    return answer


def middle_of_largest_gap(headers):
    heights = np.sort([height_mm(header) for header in headers])
    i = np.diff(heights).argmax()
    return [(heights[i] + heights[i + 1]) / 2]


def indices_of_missing(headers):
    heights = np.sort([height_mm(header) for header in headers])
    step = np.median(np.diff(heights))
    there = np.round((heights - heights[0]) / step).astype(int)
    return np.setdiff1d(np.arange(there[-1] + 1), there)


def rescaled(slope, intercept, dtype=np.float64):
    def answer(slices):
        return np.stack(
            [
                (s.pixel_array * slope(s, slices) + intercept(s, slices)).astype(dtype)
                for s in slices
            ]
        )

    return answer


own_slope = lambda s, _: float(s.RescaleSlope)  # noqa: E731
own_intercept = lambda s, _: float(s.RescaleIntercept)  # noqa: E731


def whiten_in_place(image):
    head = image[image > 0]
    image -= head.mean()
    image /= head.std()
    return image


RIGHT = {
    "organ_ml": [
        lambda mask, mm: np.count_nonzero(mask) * np.prod(mm) / 1000,
        lambda mask, mm: float((mask > 0).sum() * (mm[0] * mm[1] * mm[2]) * 1e-3),
    ],
    "activity": [
        rescaled(own_slope, own_intercept),
        lambda slices: np.stack([pydicom.pixels.apply_rescale(s.pixel_array, s) for s in slices]),
        rescaled(own_slope, own_intercept, np.float32),
    ],
    "missing_heights": [
        gaps_by(height_mm, np.median),
        gaps_by(height_mm, np.min),
        lambda headers: np.array(gaps_by(height_mm, np.min)(headers))[::-1],
    ],
    "whiten_head": [
        lambda image: (image - image[image > 0].mean()) / image[image > 0].std(),
        lambda image: ((image - image[image > 0].mean()) / image[image > 0].std()).astype("f4"),
        lambda image: intensity.whiten(image, image > 0),
    ],
}

WRONG = {
    "organ_ml": [
        (lambda mask, mm: mask.sum(), "number of voxels"),
        (lambda mask, mm: np.count_nonzero(mask) * np.prod(mm), "mm³"),
        (lambda mask, mm: mask.sum() * np.prod(mm) / 1000, "added up the ids"),
        (lambda mask, mm: np.count_nonzero(mask) * mm[2] ** 3 / 1000, "not cubes"),
        (lambda mask, mm: np.count_nonzero(mask) * sum(mm) / 1000, "it is"),
        (lambda mask, mm: mask * mm[0], "shape"),
        (lambda mask, mm: "12 ml", "array of numbers"),
    ],
    "activity": [
        (rescaled(lambda s, _: 1, lambda s, _: 0), "stored values"),
        (
            rescaled(
                lambda s, all_: float(all_[0].RescaleSlope),
                lambda s, all_: float(all_[0].RescaleIntercept),
            ),
            "each has its own",
        ),
        (rescaled(own_slope, lambda s, _: 0), "intercept is missing"),
        (
            lambda slices: np.stack(
                [
                    (s.pixel_array + float(s.RescaleIntercept)) * float(s.RescaleSlope)
                    for s in slices
                ]
            ),
            "after the slope",
        ),
        (
            lambda slices: np.stack(
                [
                    (s.pixel_array * own_slope(s, 0) + own_intercept(s, 0))
                    .astype("i8")
                    .astype("i2")
                    for s in slices
                ]
            ),
            "wrap around",
        ),
        (lambda slices: rescaled(own_slope, own_intercept)(slices)[::-1], "slope x stored"),
        (lambda slices: slices[0].pixel_array, "shape"),
    ],
    "missing_heights": [
        (middle_of_largest_gap, "two in a row are two"),
        (lambda headers: [], "two in a row are two"),
        (gaps_by(lambda h: float(h.ImagePositionPatient[2]), np.median), "same z"),
        (indices_of_missing, "indices"),
        (lambda headers: 12.5, "list of heights"),
        (lambda headers: [height_mm(h) for h in headers], "missing are"),
    ],
    "whiten_head": [
        (lambda image: (image - image.mean()) / image.std(), "air included"),
        (lambda image: (image - image[image > 0].mean()) / image[image > 0].var(), "square root"),
        (
            lambda image: np.where(
                image > 0, (image - image[image > 0].mean()) / image[image > 0].std(), 0
            ),
            "same formula",
        ),
        (whiten_in_place, "changes the array"),
        (lambda image: image / image.max(), "asks for 0 and 1"),
        (lambda image: image * np.nan, "NaN"),
    ],
}


@pytest.mark.parametrize(
    ("name", "answer"), [(name, answer) for name, answers in RIGHT.items() for answer in answers]
)
def test_any_right_answer_passes(name, answer, capsys):
    assert said(capsys, getattr(checks, name), answer).startswith("✓ right on")


@pytest.mark.parametrize(
    ("name", "answer", "words"),
    [(name, *case) for name, cases in WRONG.items() for case in cases],
)
def test_a_wrong_answer_is_told_what_is_wrong_with_it(name, answer, words, capsys):
    line = said(capsys, getattr(checks, name), answer)
    assert line.startswith("✗ ")
    assert words in line


@pytest.mark.parametrize("name", [*RIGHT, "volume_dataset"])
def test_an_untouched_stub_is_not_an_error(name, capsys, monkeypatch):
    monkeypatch.delenv("COURSE_CHECKS", raising=False)
    line = said(capsys, getattr(checks, name), lambda *_: ...)
    assert line.startswith("✎ not attempted yet: replace the ... with your code")


@pytest.mark.parametrize("name", [*RIGHT, "volume_dataset"])
def test_an_answer_that_raises_is_reported_not_raised(name, capsys):
    line = said(capsys, getattr(checks, name), lambda *_: 1 / 0)
    assert line == "✗ your code raises ZeroDivisionError: division by zero"


def test_strict_checks_raise_unless_the_answer_is_right(monkeypatch, capsys):
    monkeypatch.setenv("COURSE_CHECKS", "strict")
    checks.organ_ml(RIGHT["organ_ml"][0])
    for answer in (lambda *_: None, lambda mask, mm: mask.sum()):
        with pytest.raises(AssertionError):
            checks.organ_ml(answer)
    assert capsys.readouterr().out.count("\n") == 3


def read_image(path):
    return dicom.read_series(path.decode()).voxels[..., np.newaxis].astype(np.float32)


def mapped(read, state_shape=True, windowed=True):
    def answer(folders, shape):
        import tensorflow as tf

        def element(path):
            hu = tf.numpy_function(read, [path], tf.float32)
            hu = tf.ensure_shape(hu, (*shape, 1)) if state_shape else hu
            return {"image": intensity.window(hu, 40, 400) if windowed else hu}

        return tf.data.Dataset.from_tensor_slices(folders).map(element)

    return answer


def generated(endless=True, key="image", dtype="float32"):
    def answer(folders, shape):
        import tensorflow as tf

        left = list(folders)

        def elements():
            for path in folders if endless else [left.pop() for _ in range(len(left))]:
                hu = dicom.read_series(path).voxels[..., np.newaxis]
                yield {key: intensity.window(hu, 40, 400).astype(dtype)}

        spec = {key: tf.TensorSpec((*shape, 1), dtype)}
        return tf.data.Dataset.from_generator(elements, output_signature=spec)

    return answer


def stored_in_order(path):
    series = dicom.scan(path.decode()).series[0]
    stack = np.stack([pydicom.dcmread(file).pixel_array for file in series.files])
    return stack[..., np.newaxis].astype(np.float32)


def by_name(path):
    files = sorted(Path(path.decode()).iterdir())
    stack = np.stack([pydicom.dcmread(file).pixel_array - 1024.0 for file in files])
    return stack[..., np.newaxis].astype(np.float32)


def unreadable(path):
    raise OSError("the disk is on fire")


@pytest.mark.parametrize("answer", [mapped(read_image), generated()])
def test_both_ways_to_make_a_dataset_pass(answer, capsys):
    assert said(capsys, checks.volume_dataset, answer).startswith("✓ right on 3 series")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (mapped(read_image, state_shape=False), "static shape"),
        (mapped(by_name), "sort by position"),
        (mapped(stored_in_order), "not Hounsfield units"),
        (mapped(read_image, windowed=False), "these are Hounsfield units"),
        (mapped(lambda path: read_image(path).astype(np.float64)), "returns double"),
        (mapped(lambda path: read_image(path) / 255, windowed=False), "the window gives others"),
        (mapped(lambda path: read_image(str(path).encode())), "decode()"),
        (mapped(unreadable), "the disk is on fire"),
        (generated(endless=False), "second time through"),
        (generated(key="volume"), 'key "image"'),
        (generated(dtype="int16"), "asked for is float32"),
        (lambda folders, shape: [read_image(folder.encode()) for folder in folders], "dict"),
    ],
)
def test_a_wrong_dataset_is_told_what_is_wrong_with_it(answer, words, capsys):
    line = said(capsys, checks.volume_dataset, answer)
    assert line.startswith("✗ ")
    assert words in line
