"""Synthetic CT as a radiologist and a network meet it, and sets that are whole or absent."""

import json
import multiprocessing
import os
import threading

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage

from helpers.lesson.phantoms import ORGANS, ct_torso, decathlon, fresh_set, torso
from helpers.lesson.phantoms.sets import MARKER
from helpers.lesson.phantoms.shapes import Canvas, coverage, ellipsoid

SMALL = (24, 64, 72)
ML = {  # smallest and largest volume of each organ in adults, as far as the field of view goes
    "liver": (700, 2200), "spleen": (50, 400), "left kidney": (80, 300), "right kidney": (80, 300),
    "lungs": (1800, 6500), "heart": (250, 800), "aorta": (50, 220), "vena cava": (40, 200),
    "stomach": (40, 500), "bowel": (300, 1600), "bone": (300, 1700),
}  # fmt: skip


@pytest.fixture(scope="module")
def patients():
    return [torso(seed, lesions=3) for seed in range(3)]


@pytest.fixture(scope="module")
def clinic():
    return [torso(seed, (32, 80, 96), varied=True) for seed in range(40)]


def organ(patient, name):
    return patient.organs == ORGANS[name]


def core_hu(patient, name):
    """Median well inside an organ, where no edge takes part."""
    inside = ndimage.binary_erosion(organ(patient, name), iterations=1) & (patient.lesions == 0)
    return np.median(patient.volume.voxels[inside])


def ml(patient, mask):
    return mask.sum() * np.prod(patient.volume.spacing) / 1000


def dice(a, b):
    return 2 * np.sum(a & b) / (a.sum() + b.sum())


@pytest.mark.parametrize(
    "contrast, expected",
    [
        (True, {"liver": 110, "spleen": 120, "aorta": 155, "vena cava": 142}),
        (True, {"left kidney": 165, "right kidney": 165, "lungs": -810}),
        (False, {"liver": 60, "spleen": 50, "aorta": 47, "left kidney": 30, "lungs": -810}),
    ],
)
def test_organs_have_their_ct_numbers_with_and_without_contrast_medium(contrast, expected):
    patient = torso(0, contrast=contrast)
    measured = {name: core_hu(patient, name) for name in expected}
    assert measured == pytest.approx(expected, abs=15)
    background = patient.volume.voxels[patient.organs == 0]
    counts = ndimage.uniform_filter1d(np.bincount(background + 1024, minlength=2000), 9)
    peaks = [low + np.argmax(counts[low + 1024 :][:100]) for low in (-1020, -150, 20)]
    np.testing.assert_allclose(peaks, [-1000, -100, 55], atol=8)  # air, fat and muscle
    bone = patient.volume.voxels[organ(patient, "bone")]
    assert np.percentile(bone, 20) < 350 and 650 < np.percentile(bone, 99.5) < 1250


def test_organs_are_of_adult_size_and_lie_as_the_axes_say(patients, clinic):
    for patient in [*patients, *clinic]:
        sizes = {name: ml(patient, organ(patient, name)) for name in ML}
        lost = sizes["spleen"] == 0
        out = {k: v for k, v in sizes.items() if not 0.7 * ML[k][0] <= v <= 1.3 * ML[k][1]}
        assert set(out) <= {"spleen"} and (lost or sizes["spleen"] > 15), out
        centre = {n: np.argwhere(organ(patient, n)).mean(axis=0) for n in ML if sizes[n]}
        z, y, x = ({name: at[d] for name, at in centre.items()} for d in range(3))
        # x grows to the patient's left, y to the back, z to the head.
        assert lost or x["liver"] < x["spleen"]
        assert x["right kidney"] < x["vena cava"] < x["aorta"] < x["left kidney"]
        assert y["heart"] < y["bone"] and z["bowel"] < z["liver"] < z["lungs"]
        assert patient.volume.voxels[:, :3].max() < -850  # clear of the border
        assert patient.volume.voxels.dtype == np.int16 and patient.organs.dtype == np.uint8


def test_lesions_lie_inside_the_liver_and_are_darker(patients, clinic):
    for patient in [p for p in [*patients, *clinic] if p.lesions.sum() > 50]:
        lesions = patient.lesions == 1
        assert np.all(organ(patient, "liver")[lesions]) and patient.lesions.max() == 1
        inside = np.median(patient.volume.voxels[lesions])
        assert core_hu(patient, "liver") - inside > 12
    assert not torso(1, SMALL, lesions=0).lesions.any()
    assert len({ndimage.label(p.lesions)[1] for p in clinic}) >= 3


def test_a_scanner_blurs_edges_and_its_noise_is_grain_without_slow_waves(patients):
    for patient in patients:
        lungs = organ(patient, "lungs")
        rim = ndimage.binary_dilation(lungs) & ~ndimage.binary_erosion(lungs)
        values = patient.volume.voxels[rim]
        assert 0.1 < np.mean((values > -650) & (values < -250)) < 0.7
        air = patient.volume.voxels[:, 2:14, 4:44].astype(float) + 1000
        assert abs(air.mean()) < 1 and 3 <= air.std() <= 8
        beside, above = (
            np.mean(a) / air.var() for a in (air[..., 1:] * air[..., :-1], air[1:] * air[:-1])
        )
        assert beside > 0.25 and 0.2 < above < 0.5
        assert air.reshape(len(air), 12, -1, 8).mean(axis=(1, 3)).std() < 0.5 * air.std()


def test_a_seed_is_a_patient_and_a_finer_grid_shows_the_same_field_of_view():
    first, again, other, varied = (
        torso(seed, SMALL, varied=kind) for seed, kind in ((5, 0), (5, 0), (6, 0), (5, 1))
    )
    for part in ("organs", "lesions"):
        assert np.array_equal(getattr(first, part), getattr(again, part))
    assert np.array_equal(first.volume.voxels, again.volume.voxels)
    assert min(np.mean(first.organs != one.organs) for one in (other, varied)) > 0.03
    for shape in (SMALL, (40, 50, 60)):
        volume = torso(2, shape).volume
        np.testing.assert_allclose(np.multiply(volume.shape, volume.spacing), (320, 320, 384))
        np.testing.assert_allclose(volume.to_patient((np.array(shape) - 1) / 2), 0, atol=1e-9)


def test_varied_patients_differ_in_phase_in_disease_and_in_place(clinic):
    spleens = np.array([ml(p, organ(p, "spleen")) for p in clinic])
    assert 1 <= np.sum(spleens == 0) <= 10 and np.sum(spleens > 200) >= 3
    arteries = np.array([core_hu(p, "aorta") for p in clinic])
    veins = np.array([core_hu(p, "vena cava") for p in clinic])
    arterial = arteries > 230
    assert 0.1 < arterial.mean() < 0.6 and np.all(veins[arterial] < 130)
    assert np.any(arteries < 130) and np.all(np.abs(arteries - veins)[~arterial] < 50)
    places = np.array(
        [np.argwhere(organ(p, "liver")).mean(axis=0) * p.volume.spacing for p in clinic]
    )
    assert np.all(places.std(axis=0) > 6)
    holes = [ndimage.binary_erosion(organ(p, "spleen")) for p in clinic]
    dark = [
        np.percentile(p.volume.voxels[h], 2) < 60
        for p, h in zip(clinic, holes, strict=True)
        if h.sum() > 99
    ]
    assert 0.05 < np.mean(dark) < 0.6  # lesions of the spleen, which still is spleen


def test_the_spleen_is_not_found_without_looking_and_not_by_its_ct_numbers():
    made = [torso(100 + k, (32, 112, 128), varied=True) for k in range(30)]
    masks = np.stack([organ(p, "spleen") for p in made])
    voxels = np.stack([p.volume.voxels for p in made])
    inside = voxels[:20][masks[:20]]
    low, high = np.percentile(inside, (5, 95))
    held_out = [k for k in range(20, 30) if masks[k].any()]  # where it was lost, both score 0
    scores = {"mean mask": [], "with a band": []}
    for threshold in np.arange(0.05, 0.7, 0.05):  # even the threshold that suits them best
        guess = masks[:20].mean(axis=0) > threshold
        bands = {k: guess & (voxels[k] >= low) & (voxels[k] <= high) for k in held_out}
        scores["mean mask"].append(np.mean([dice(guess, masks[k]) for k in held_out]))
        scores["with a band"].append(np.mean([dice(bands[k], masks[k]) for k in held_out]))
    best = {name: max(values) for name, values in scores.items()}
    print("spleen, Dice of the simplest guesses:", {k: round(v, 2) for k, v in best.items()})
    assert best["mean mask"] <= 0.45 and best["with a band"] <= 0.6


def test_shapes_cover_what_geometry_says():
    x = np.indices((5, 6, 9), dtype=np.float32)[2] * 2.0  # voxel 3 spans 5 to 7 mm
    np.testing.assert_allclose(coverage(x - 7.5, (2.0,) * 3)[0, 0, 2:6], [1, 1, 0.25, 0], atol=1e-6)
    canvas = Canvas((20, 50, 60), (5.0, 2.0, 2.0), turn=0.3, scale=(1, 1, 1), shift=(3, -2, 4))
    f = ellipsoid(canvas.x, canvas.y, canvas.z, (0, 0, 0), (30.0, 20.0, 25.0))
    share = canvas.paint(f, 0.0, 1)
    assert share.sum() * 20 == pytest.approx(4 / 3 * np.pi * 15000, rel=0.03)
    box = canvas.box((-30, -20, -25), (30, 20, 25), margin=0)
    assert (f[box] < 0).sum() == (f < 0).sum()
    canvas.tube([(-20, 0, 0), (20, 0, 0)], 10.0, 0.0, 2)  # a cylinder with two half balls
    ml_of_tube = np.pi * (10**2 * 40 + 4 / 3 * 10**3)
    assert (canvas.organs == 2).sum() * 20 == pytest.approx(ml_of_tube, rel=0.05)


def test_ct_torso_holds_a_series_and_two_masks_a_case_in_one_geometry(tmp_path):
    root = ct_torso(tmp_path, cases=2, seed=3, shape=SMALL, varied=True)
    assert sorted(p.name for p in root.iterdir()) == [MARKER, "case_00", "case_01", "masks"]
    for k in range(2):
        files = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(root / f"case_{k:02d}"))
        patient, image = torso(3 + k, SMALL, varied=True), sitk.ReadImage(files)
        assert np.array_equal(sitk.GetArrayFromImage(image), patient.volume.voxels)
        for kind in ("organs", "lesions"):
            mask = sitk.ReadImage(str(root / f"masks/case_{k:02d}_{kind}.nii.gz"))
            assert np.array_equal(sitk.GetArrayFromImage(mask), getattr(patient, kind))
            for of in ("GetOrigin", "GetSpacing", "GetDirection"):
                np.testing.assert_allclose(getattr(mask, of)(), getattr(image, of)(), atol=1e-4)


@pytest.mark.parametrize(
    "labels, names",
    {
        "organs": list(ORGANS),
        "spleen": [*ORGANS][:1] + ["spleen"],
        "liver": ["background", "liver", "tumour"],
    }.items(),
)
def test_decathlon_has_the_layout_and_the_labels_that_its_json_names(tmp_path, labels, names):
    root = decathlon(tmp_path, cases=2, tests=1, labels=labels, seed=4, shape=SMALL)
    content = json.loads((root / "dataset.json").read_text(encoding="utf-8"))
    assert list(content["labels"].values()) == names
    assert (content["numTraining"], content["numTest"]) == (2, 1)
    assert nibabel.load(root / content["test"][0]).shape == SMALL[::-1]
    for k, entry in enumerate(content["training"]):
        image, label = (nibabel.load(root / entry[key]) for key in ("image", "label"))
        np.testing.assert_allclose(image.affine, label.affine)
        ids, patient = np.asarray(label.dataobj).T, torso(4 + k, SMALL)
        for number, name in enumerate(names[1:], start=1):
            expected = patient.lesions == 1 if name == "tumour" else organ(patient, name)
            assert np.array_equal(
                ids == number,
                expected & ~((name == "liver") & ("tumour" in names) & (patient.lesions == 1)),
            )
    with pytest.raises(ValueError, match="organs, spleen, liver"):
        decathlon(tmp_path / "new", labels="kidney")
    assert not (tmp_path / "new").exists()


def make(data_dir, version=1, text="first", **parameters):
    with fresh_set(data_dir, "things", version, parameters) as folder:
        if folder:
            (folder / "thing.txt").write_text(text, encoding="utf-8")
    return (data_dir / "things" / "thing.txt").read_text(encoding="utf-8")


def seen(data_dir):
    return [path.name for path in data_dir.iterdir() if not path.name.endswith(".lock")]


def test_a_set_is_made_again_when_its_version_or_parameters_change_and_only_then(tmp_path):
    assert make(tmp_path, sizes=(1, 2)) == make(tmp_path, text="second", sizes=(1, 2)) == "first"
    (tmp_path / "things" / "old.txt").write_text("left over", encoding="utf-8")
    assert make(tmp_path, version=2, text="second", sizes=(1, 2)) == "second"
    assert not (tmp_path / "things" / "old.txt").exists()
    assert make(tmp_path, version=2, text="third", sizes=(1, 3)) == "third"
    (tmp_path / "things" / MARKER).write_text("{", encoding="utf-8")
    assert make(tmp_path, version=2, text="fourth", sizes=(1, 3)) == "fourth"
    assert seen(tmp_path) == ["things"]


def end_half_way(data_dir, killed=False):
    with fresh_set(data_dir, "things", 2, {}) as folder:
        (folder / "half.txt").write_text("half", encoding="utf-8")
        if killed:
            os._exit(9)
        raise KeyboardInterrupt


def test_a_run_that_fails_or_is_killed_leaves_the_old_set_and_no_half_one(tmp_path):
    make(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        end_half_way(tmp_path)
    assert seen(tmp_path) == ["things"]
    spawn = multiprocessing.get_context("spawn")
    process = spawn.Process(target=end_half_way, args=(tmp_path, True))
    process.start()
    process.join()
    assert process.exitcode == 9 and make(tmp_path, text="second") == "first"
    assert make(tmp_path, version=2, text="second") == "second"
    assert seen(tmp_path) == ["things"] and not (tmp_path / "things" / "half.txt").exists()


def test_of_two_at_once_the_second_waits_and_takes_what_the_first_made(tmp_path):
    with fresh_set(tmp_path, "things", 1, {}) as folder:
        second = threading.Thread(target=make, args=(tmp_path, 1, "second"))
        second.start()
        (folder / "thing.txt").write_text("first", encoding="utf-8")
    second.join()
    assert make(tmp_path) == "first"


def test_a_folder_that_somebody_else_filled_is_never_replaced(tmp_path):
    (tmp_path / "things").mkdir()
    assert make(tmp_path, text="into an empty folder") == "into an empty folder"
    (tmp_path / "things" / MARKER).unlink()
    refused = pytest.raises(FileExistsError, match="Move it elsewhere")
    with refused, fresh_set(tmp_path, "things", 2, {}):
        pytest.fail("the work must not even begin")
    assert (tmp_path / "things" / "thing.txt").exists()
