"""Every check passes right answers of several kinds and says what is wrong with wrong ones."""

import hashlib
import inspect
import itertools
import math
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import pytest
from scipy import ndimage
from scipy.special import expit, logit
from sklearn.metrics import f1_score
from sklearn.model_selection import train_test_split
from sklearn.utils.class_weight import compute_class_weight

from helpers import dicom, evaluation, intensity, quiet
from helpers.lesson import checks
from helpers.lesson.checks import answers, shards, speed

quiet.tensorflow_greeting()
import tensorflow as tf  # noqa: E402

NAMES = checks.__all__


@pytest.fixture(autouse=True)
def _the_slow_files_are_copied(tmp_path_factory, monkeypatch):
    # Those of the exercise `faster` take longer to write than it takes to judge most answers.
    def copied(folder, kept=[]):  # noqa: B006
        if not kept:
            files, volumes = written(tmp_path_factory.mktemp("slow"))
            kept.append(([Path(file).read_bytes() for file in files], volumes))
        contents, volumes = kept[0]
        files = [str(Path(folder, f"{n}.tfrecord")) for n in range(len(contents))]
        for file, content in zip(files, contents, strict=True):
            Path(file).write_bytes(content)
        return files, volumes

    written = KEEP.setdefault("written", speed.write_slow)
    monkeypatch.setattr(speed, "write_slow", KEEP.setdefault("copied", copied))


KEEP = {}


def said(capsys, name, answer) -> str:
    capsys.readouterr()
    getattr(checks, name)(answer)
    return capsys.readouterr().out.strip()


# --- right answers ---


def height_mm(header) -> float:
    row, column = np.reshape(header.ImageOrientationPatient, (2, 3)).astype(float)
    return float(np.dot(np.cross(row, column), np.array(header.ImagePositionPatient, float)))


def by_gaps(headers, usual=np.median, ordered=sorted):
    heights = ordered([height_mm(header) for header in headers])
    step = usual(np.diff(heights))
    return [
        low + step * k
        for low, high in itertools.pairwise(heights)
        for k in range(1, round((high - low) / step))
    ]


def generated(key="image", dtype="float32", endless=True, window=(40, 400)):
    def answer(folders, shape):
        left = list(folders)

        def elements():
            for path in folders if endless else [left.pop() for _ in range(len(left))]:
                hu = dicom.read_series(path).voxels[..., np.newaxis]
                yield {key: intensity.window(hu, *window).astype(dtype)}

        spec = {key: tf.TensorSpec((*shape, 1), dtype)}
        return tf.data.Dataset.from_generator(elements, output_signature=spec)

    return answer


def flip_with_an_if(image, mask, seed):
    if tf.random.stateless_uniform([], seed) > 0.5:
        image, mask = image[..., ::-1, :], mask[..., ::-1, :]
    return image, mask


def flip_with_python(image, mask, seed):
    def flip(image, mask, seed):
        step = int(np.random.default_rng(seed).choice([-1, 1]))
        return np.ascontiguousarray(image[..., ::step, :]), mask[..., ::step, :].copy()

    made = tf.numpy_function(flip, [image, mask, seed], (tf.float32, tf.uint8))
    return tf.ensure_shape(made[0], image.shape), tf.ensure_shape(made[1], mask.shape)


def cached_and_shuffled(paths, read, augment):
    dataset = tf.data.Dataset.from_tensor_slices(paths).shuffle(6, seed=1).map(read).cache()
    return dataset.shuffle(6, seed=1).repeat().map(augment)


def in_memory(paths, read, augment):
    images = tf.stack([read(tf.constant(path))["image"] for path in paths])
    return tf.data.Dataset.from_tensor_slices({"image": images}).map(augment).prefetch(2)


def start_by_loop(centre, size, shape):
    triples = zip(centre, size, shape, strict=True)
    return tuple(int(min(max(c - s // 2, 0), n - s)) for c, s, n in triples)


def parse_with_python(serialized):
    def read(serialized):
        feature = tf.train.Example.FromString(np.asarray(serialized).item()).features.feature
        shape = [*feature["shape"].int64_list.value, 1]
        image = np.frombuffer(feature["image"].bytes_list.value[0], "<i2").reshape(shape)
        spacing = feature["spacing"].float_list.value or [0, 0, 0]
        return image.astype(np.int16), np.array(spacing, np.float32)

    image, spacing = tf.numpy_function(read, [serialized], (tf.int16, tf.float32))
    return {"image": tf.ensure_shape(image, (None, None, None, 1)), "spacing": spacing}


def sizes_first(folder, manifest):
    def wrong(path, entry):
        if not path.is_file() or path.stat().st_size != entry["bytes"]:
            return True
        return hashlib.sha256(path.read_bytes()).hexdigest() != entry["sha256"]

    return {Path(folder, name) for name in manifest if wrong(Path(folder, name), manifest[name])}


def narrow_by_hand(array):
    whole = array.dtype.kind in "biu" or bool((array == np.floor(array)).all())
    for name in ("u1", "u2", "i2", "i4") if whole else ():
        limits = np.iinfo(name)
        if limits.min <= array.min() and array.max() <= limits.max:
            return array.astype(name)
    return array.astype("f4")


def fast_from_memory(files, shape, crop):
    elements = list(speed.steps("standardise")(files, shape, crop).as_numpy_iterator())
    images = tf.constant(np.stack([one["image"] for one in elements]))
    cases = tf.constant([one["case"] for one in elements])

    def element(n):
        return {"image": tf.image.random_crop(images[n], [*crop, 1]), "case": cases[n]}

    return tf.data.Dataset.range(8).shuffle(8, seed=3).repeat().map(element).batch(4)


def stratified(patients, labels, share, seed):
    names, person = np.unique(patients, return_inverse=True)
    positive = np.bincount(person, labels) > 0
    test = train_test_split(names, test_size=share, random_state=seed, stratify=positive)[1]
    return np.isin(patients, test)


def with_pandas(patients, labels, share, seed):
    positive = pd.Series(labels).groupby(patients).max()
    chosen = positive.groupby(positive).sample(frac=share, random_state=seed).index
    return pd.Series(patients).isin(chosen)


def weights_of_sklearn(labels, classes):
    there = np.unique(labels)
    weights = np.zeros(classes, np.float32)
    weights[there] = compute_class_weight("balanced", classes=there, y=labels)
    return weights


def weights_of_python(labels, classes):
    counts = [sum(int(label) == one for label in labels) for one in range(classes)]
    known = sum(count > 0 for count in counts)
    return [len(labels) / (known * count) if count else 0 for count in counts]


def just_above(labels, scores, specificity):
    negatives = np.sort(scores[labels == 0])
    return np.nextafter(negatives[math.ceil(specificity * len(negatives) - 1e-9) - 1], 1)


def by_logits(probability, trained, real):
    return expit(logit(probability) + logit(real) - logit(trained))


def by_odds(p, trained, real):
    odds = p / (1 - p) * real / (1 - real) * (1 - trained) / trained
    return odds / (1 + odds)


def pixel_by_pixel(layers):
    """Which pixels one value sees, without a formula."""
    seen = {0}
    for kernel, stride, dilation in layers[::-1]:
        seen = {place * stride + tap * dilation for place in seen for tap in range(kernel)}
    return np.int64(max(seen) - min(seen) + 1)


def fitted(one, height, width, fill):
    return tf.image.resize_with_crop_or_pad(one - fill, height, width) + fill


def scaled_by(whole=tf.round, image_method="bilinear", antialias=False, image_by=0, mask_by=0):
    """Resized, then cut or padded; what is wrong may be a method, or a shift of some pixels."""

    def up(one, pixels, fill):
        return tf.pad(one[pixels:] - fill, [[0, pixels], [0, 0], [0, 0]]) + fill

    def answer(image, mask, factor):
        height, width, _ = image.shape
        size = tf.cast(whole(tf.cast(tf.shape(image)[:2], tf.float32) * factor), tf.int32)
        image = tf.image.resize(image, size, image_method, antialias=antialias)
        image = fitted(tf.cast(image, tf.float32), height, width, 127.0)
        mask = tf.cast(tf.image.resize(mask, size, "nearest"), tf.int32)
        mask = up(fitted(mask, height, width, 255), mask_by, 255)
        return up(image, image_by, 127.0), tf.cast(mask, tf.uint8)

    return answer


def with_boxes(image, mask, factor):
    height, width, _ = image.shape
    low, high = 0.5 - 0.5 / factor, 0.5 + 0.5 / factor
    box = tf.stack([low, low, high, high])[None]

    def cut(one, how, fill):
        one = tf.cast(one, tf.float32)[None]
        return tf.image.crop_and_resize(one, box, [0], [height, width], how, fill)[0]

    return cut(image, "bilinear", 127.0), tf.cast(cut(mask, "nearest", 255.0), tf.uint8)


def dice_of_masked_arrays(truth, predicted):
    true = np.ma.masked_array(truth, truth == 255)
    found = np.ma.masked_array(predicted, truth == 255)
    sizes = true.sum((1, 2), dtype=float) + found.sum((1, 2), dtype=float)
    return np.ma.filled(2 * (true * found).sum((1, 2)) / sizes, np.nan)


def dice_in_tensorflow(truth, predicted, dtype=tf.float32):
    count = truth != 255
    true, found = (tf.cast((one == 1) & count, dtype) for one in (truth, predicted))
    both, true, found = (tf.reduce_sum(one, axis=[1, 2]) for one in (true * found, true, found))
    return 2 * both / (true + found)


def dice_in_a_loop(truth, predicted):
    pairs = zip(truth, predicted, strict=True)
    return [f1_score(t[t != 255] == 1, p[t != 255] == 1, zero_division=np.nan) for t, p in pairs]


def dice_of_evaluation(truth, predicted):
    pairs = zip(truth, predicted, strict=True)
    return evaluation.dice(np.stack([evaluation.confusion(*pair, 2) for pair in pairs]))[:, 1]


def with_resample_like(ids, grid, scan):
    return grid.with_voxels(ids).resample_like(scan, is_mask=True)


def with_scipy(mode):
    def answer(ids, grid, scan):
        corner = grid.to_index(scan.to_patient((0, 0, 0)))
        steps = [grid.to_index(scan.to_patient(one)) - corner for one in np.eye(3)]
        given = {"order": 0, "mode": mode, "cval": 0, "output_shape": scan.shape}
        made = ndimage.affine_transform(ids, np.stack(steps, -1), corner, **given)
        return scan.with_voxels(made)

    return answer


RIGHT = {
    "organ_ml": [
        lambda mask, mm: float((mask > 0).sum() * (mm[0] * mm[1] * mm[2]) * 1e-3),
        lambda mask, mm: np.float32(np.count_nonzero(mask) * np.prod(mm) / 1000),
    ],
    "activity": [
        lambda slices: np.stack([pydicom.pixels.apply_rescale(s.pixel_array, s) for s in slices]),
        lambda slices: [
            (s.pixel_array * float(s.RescaleSlope) + float(s.RescaleIntercept)).astype("f4")
            for s in slices
        ],
    ],
    "missing_heights": [
        by_gaps,
        lambda headers: by_gaps(headers, np.min),
        lambda headers: np.array(by_gaps(headers))[::-1],
    ],
    "whiten_head": [
        lambda image: intensity.whiten(image, image > 0),
        lambda image: ((image - image[image > 0].mean()) / image[image > 0].std()).astype("f4"),
    ],
    "volume_dataset": [generated()],
    "flip_pair": [flip_with_an_if, flip_with_python],
    "cached_then_augmented": [cached_and_shuffled, in_memory],
    "crop_start": [
        start_by_loop,
        lambda centre, size, shape: tf.clip_by_value(centre - size // 2, 0, shape - size),
        lambda centre, size, shape: list(np.clip(centre - size // 2, 0, shape - size)),
    ],
    "parse": [parse_with_python],
    "narrowest": [narrow_by_hand],
    "find_faulty": [sizes_first],
    "waiting": [
        lambda starts, stops: float((starts[1:] - stops[:-1]).sum() / (stops[-1] - starts[0]))
    ],
    "epochs_to_see_all": [
        lambda total, n, rate: len(range(n, total, math.ceil(n * rate))) + 1,
        lambda total, n, rate: 1.0 + math.ceil((total - n) / math.ceil(n * rate)),
    ],
    "faster": [fast_from_memory],
    "patient_split": [stratified, with_pandas],
    "class_weights": [weights_of_sklearn, weights_of_python],
    "threshold": [
        just_above,
        lambda labels, scores, share: evaluation.threshold_at(labels, scores, specificity=share),
    ],
    "corrected": [by_logits, lambda p, t, r: [float(checks.corrected.right(x, t, r)) for x in p]],
    "receptive_field": [pixel_by_pixel],
    "scaled": [
        scaled_by(),
        scaled_by(tf.floor),
        scaled_by(tf.math.ceil, antialias=True),
        with_boxes,
    ],
    "dice_of_cases": [
        dice_of_masked_arrays,
        dice_in_tensorflow,
        dice_in_a_loop,
        dice_of_evaluation,
    ],
    "in_scan": [with_resample_like, with_scipy("constant"), with_scipy("grid-constant")],
}


@pytest.mark.parametrize("name", NAMES)
def test_any_right_answer_passes_and_comes_back(name, capsys):
    for answer in (*RIGHT[name], getattr(checks, name).right):
        assert said(capsys, name, answer).startswith("✓ "), answer
        assert getattr(checks, name)(answer) is answer


# --- wrong answers ---

# Beside the named mistakes of the checks themselves: other ways to write them, and other ones.
WRONG = {
    "organ_ml": [
        (lambda mask, mm: mask * mm[0], "has shape (9, 14, 11)"),
        (lambda mask, mm: "12 ml", "a number is asked for, you returned a str"),
        (lambda mask, mm: np.count_nonzero(mask) * sum(mm) / 1000, "it is"),
    ],
    "activity": [(lambda slices: slices[0].pixel_array, "shape")],
    "missing_heights": [
        (lambda headers: by_gaps(headers, ordered=list), "in any order: sort the slices"),
        (lambda headers: by_gaps(headers, np.min, ordered=list), "in any order: sort the slices"),
        (lambda headers: 12.5, "a list of heights is asked for"),
    ],
    "whiten_head": [
        (lambda image: np.subtract(image, image.mean(), out=image), "changes the array"),
        (lambda image: image * np.nan, "NaN"),
    ],
    "volume_dataset": [
        (generated(endless=False), "second time through"),
        (generated(key="volume"), 'key "image"'),
        (generated(dtype="int16"), "asked for is float32"),
        (generated(window=(400, 40)), "centre and width of the window are swapped"),
        (lambda folders, shape: [*folders], "dict"),
    ],
    "flip_pair": [
        (lambda image, mask, seed: (image + 1, mask), "other values than went in"),
        (lambda image, mask, seed: (image, tf.cast(mask, tf.float32)), "class ids stay whole"),
        (lambda image, mask, seed: (image[..., 0], mask), "the image had shape (3, 4, 5, 2)"),
        (lambda image, mask, seed: (image, ...), "the mask comes back as Ellipsis"),
        (lambda image, mask, seed: {"image": image, "mask": mask}, "found dict"),
        (lambda *given: list(flip_with_an_if(*given)), "packs a list into one tensor"),
        (
            lambda image, mask, seed: flip_with_an_if(image, mask, seed.numpy()),
            "Dataset.map raises AttributeError",
        ),
    ],
    "cached_then_augmented": [
        (lambda paths, read, augment: [augment(read(path)) for path in paths], "a tf.data.Dataset")
    ],
    "crop_start": [
        (lambda centre, size, shape: centre[0], "has shape ()"),
        (lambda centre, size, shape: centre * np.nan, "NaN"),
        (
            lambda centre, size, shape: None if (centre < size // 2).any() else centre - size // 2,
            "branch without return",
        ),
        (lambda centre, size, shape: np.subtract(centre, size // 2, out=centre), "changes the"),
    ],
    "narrowest": [
        (lambda array: narrow_by_hand(array).dtype, "asked for is the array, converted"),
        (lambda array: narrow_by_hand(array).ravel(), "shape"),
        (lambda array: array.astype(np.int8), "not one of uint8"),
    ],
    "parse": [
        (lambda serialized: serialized, "a dict with the keys"),
        (lambda serialized: {"image": serialized, "spacing": 0}, "the image is string"),
    ],
    "find_faulty": [
        (lambda folder, manifest: "train", "a list of names"),
        (lambda folder, manifest: [*manifest][:1], "for a set in which"),
    ],
    "waiting": [(lambda a, b: a[1:] - b[:-1], "has shape")],
    "epochs_to_see_all": [
        (lambda t, n, r: 1 + math.ceil((t - n) / min(math.ceil(n * r), t - n)), "seen in epoch 1")
    ],
    "faster": [
        (lambda files, shape, crop: files, "a tf.data.Dataset is asked for"),
        (lambda files, shape, crop: tf.data.TFRecordDataset(files), "are dicts"),
    ],
    "patient_split": [
        (lambda *given: np.flatnonzero(stratified(*given)), "as indices have it"),
        (lambda *given: stratified(*given).astype(int), "would take slices 0 and 1"),
        (lambda patients, *_: set(patients), "these are names"),
        (lambda *_: 7, "you returned 7"),
    ],
    "class_weights": [
        (
            lambda labels, classes: len(labels) / (len(set(labels)) * np.bincount(labels)),
            "may have no case; their weight is 0.0",
        ),
        (lambda labels, classes: 1.0 * labels, "one for each class, not for each case"),
        (
            lambda *given: dict(enumerate(weights_of_sklearn(*given).astype(float))),
            "a dict is what fit(class_weight=)",
        ),
        (lambda labels, classes: 1 / np.log(1.2 + np.bincount(labels, minlength=classes)), "it is"),
    ],
    "threshold": [
        (lambda labels, scores, share: scores >= 0.5, "shape"),
        (lambda labels, scores, share: np.nan, "one threshold is asked for"),
        (lambda labels, scores, share: "0.5 or so", "a number is asked for"),
        (
            lambda labels, scores, share: min(
                t for t in scores if np.mean(scores[labels == 0] < t) >= share - 1e-9
            ),
            "no score will do: return np.inf",
        ),
    ],
    "corrected": [
        (by_odds, "a network may say 1: do not divide by 1 - p"),
        (lambda p, t, r: [by_odds(float(x), t, r) for x in p], "do not divide by 1 - p"),
        (lambda p, t, r: by_logits(p, t, r).mean(), "has shape"),
    ],
    "receptive_field": [
        (lambda layers: layers[0][0] and pixel_by_pixel(layers), "for []: without any layer"),
        (lambda layers: (3, 3), "has shape (2,)"),
    ],
    "scaled": [
        (scaled_by(image_method="bicubic"), "bilinear never leaves these"),
        *[(scaled_by(mask_by=n), "the mask has other values in") for n in (1, 4)],
        *[(scaled_by(image_by=n), "the image has other values in") for n in (1, 2)],
        (
            lambda image, mask, factor: scaled_by()(image, tf.minimum(mask, 5), factor),
            "the mask lost the id 255",
        ),
        (lambda image, mask, factor: (image / 255, mask), "what has become of the factor"),
        (lambda image, mask, factor: [image, mask], "Dataset.map packs a list"),
    ],
    "dice_of_cases": [
        (lambda t, p: dice_in_tensorflow(t, p, tf.uint8), "counts above 255 do not fit"),
        (lambda t, p: np.nanmean(dice_of_masked_arrays(t, p)), "sum over y and x alone"),
        (lambda t, p: pd.Series(dice_of_masked_arrays(t, p)).dropna(), "keeps its place, as NaN"),
        (lambda t, p: np.stack([dice_in_a_loop(t, p)] * 2), "of class 1 alone"),
        (
            lambda t, p: [
                2 * int((a * (b == 1)).sum()) / int((a + (b == 1)).sum())
                for a, b in zip(p * (t != 255), t, strict=True)
            ],
            "where neither mask has a pixel of class 1",
        ),
    ],
    "in_scan": [
        (lambda ids, grid, scan: grid.with_voxels(ids), "still lies on the grid"),
        (lambda ids, grid, scan: ids, "grid.with_voxels"),
        (lambda *given: with_resample_like(*given).voxels, "scan.with_voxels"),
        (lambda *given: with_resample_like(*given).to_sitk(), "Volume.from_sitk"),
        (lambda ids, grid, scan: scan, "the scan's own voxels"),
        (
            lambda ids, *both: with_resample_like(ids.astype(np.int32), *both),
            "keep the dtype",
        ),
        (lambda ids, grid, scan: scan.with_voxels(ids), "your code raises CourseDataError"),
        (lambda ids, grid, scan: grid.with_voxels(ids).resample_like(scan), "between ids"),
        (lambda ids, grid, scan: scan.with_voxels(0 * scan.voxels), "all voxels are 0"),
        (
            lambda ids, grid, scan: scan.with_voxels(
                ndimage.zoom(ids, np.divide(scan.shape, ids.shape), order=0)
            ),
            "stretched to the scan's shape",
        ),
    ],
}


@pytest.mark.parametrize("name", NAMES)
def test_a_wrong_answer_is_told_what_is_wrong_with_it(name, capsys):
    lines = [(said(capsys, name, answer), words) for answer, words in WRONG[name]]
    assert [pair for pair in lines if not (pair[0].startswith("✗ ") and pair[1] in pair[0])] == []


@pytest.mark.parametrize("name", NAMES)
def test_each_named_mistake_is_called_by_its_name(name, capsys):
    check = getattr(checks, name)
    lines = {what: said(capsys, name, one) for what, one in check.mistakes.items() if callable(one)}
    assert len(lines) > 4
    missed = {k: v for k, v in lines.items() if not (v.startswith("✗ ") and k in v)}
    assert missed == {}


@pytest.mark.parametrize("name", NAMES)
def test_a_stub_and_an_answer_that_fails_get_the_course_s_own(name, capsys, monkeypatch):
    monkeypatch.delenv("COURSE_CHECKS", raising=False)
    check = getattr(checks, name)
    for stub in (lambda *_: ..., lambda *_: None, inspect.cleandoc):
        if stub is not inspect.cleandoc:
            assert said(capsys, name, stub) == f"✎ {answers.STUB}"
        assert check(stub) is check.right
    line = said(capsys, name, lambda *_: 1 / 0)
    # No mistake is named that fails otherwise.
    assert re.match("✗ (your code|Dataset.map) raises ZeroDivisionError: division by zero", line)


def test_strict_checks_raise_unless_the_answer_is_right(monkeypatch, capsys):
    monkeypatch.setenv("COURSE_CHECKS", "strict")
    checks.organ_ml(RIGHT["organ_ml"][0])
    for answer in (lambda *_: None, lambda mask, mm: mask.sum()):
        with pytest.raises(AssertionError):
            checks.organ_ml(answer)
    assert capsys.readouterr().out.count("\n") == 3


def test_a_mistake_is_named_only_where_it_explains_every_wrong_result(capsys):
    def answer(mask, mm):  # voxels at times, and at others something else
        return np.count_nonzero(mask) if mask.dtype == bool else 7.0

    assert said(capsys, "organ_ml", answer).startswith("✗ for ")


# --- hints that once misled ---


def test_an_answer_that_prints_its_result_is_told_to_return_it(capsys):
    def answer(mask, mm):
        print(np.count_nonzero(mask) * np.prod(mm) / 1000)

    line = said(capsys, "organ_ml", answer)
    assert line.endswith("✗ your code prints its result, and returns None: return it")


def test_an_answer_without_return_is_not_called_a_stub(capsys):
    def answer(mask, mm):
        np.count_nonzero(mask)

    assert "returns None" in said(capsys, "organ_ml", answer)


def test_a_fixed_shape_is_not_taken_for_a_sum_of_tensors(capsys):
    fixed = checks.parse.mistakes["each record has its own shape, and holds it"]
    added = checks.parse.mistakes[
        "on a tensor, + adds to every number: tf.concat puts lists together"
    ]
    assert "adds to every number" not in said(capsys, "parse", fixed)
    assert "its own shape" not in said(capsys, "parse", added)


def test_each_fault_of_a_shard_is_one_that_its_sha256_tells():
    for faults, seed in shards.damages(None):
        assert len(shards.found_in_set(checks.find_faulty.right, faults, seed)) == len(faults)


def test_what_is_asked_of_a_fast_pipeline_does_not_depend_on_the_clock(capsys, monkeypatch):
    monkeypatch.setattr(speed, "measured", lambda *_: 0.5)
    assert said(capsys, "faster", checks.faster.right).startswith("✓ ")
    monkeypatch.setattr(speed, "measured", lambda *_: 50.0)
    assert "read again in every epoch" in said(capsys, "faster", speed.slow)


def test_the_checks_load_without_tensorflow():
    code = "import sys; from helpers.lesson import checks; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
