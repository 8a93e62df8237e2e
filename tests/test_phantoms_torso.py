"""The synthetic CT: its tissues, edges, variety and masks, and the sets made of it."""

import json
import multiprocessing
import os
import time

import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from scipy import ndimage

from helpers.lesson.phantoms import sets
from helpers.lesson.phantoms.sets import MARKER, ct_torso, decathlon, fresh_set
from helpers.lesson.phantoms.shapes import Canvas, chain, coverage, ellipsoid
from helpers.lesson.phantoms.torso import FIELD_MM, ORGANS, torso

SMALL = (24, 64, 72)


@pytest.fixture(scope="module")
def patients():
    return [torso(seed, lesions=3) for seed in range(3)]


@pytest.fixture(scope="module")
def plain():
    return torso(0, lesions=3, contrast=False)


def core(patient, name, voxels=2):
    """HU well inside an organ, where no edge takes part."""
    inside = ndimage.binary_erosion(patient.organs == ORGANS[name], iterations=voxels)
    return patient.volume.voxels[inside & (patient.lesions == 0)]


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("lungs", -850, -700),
        ("liver", 105, 118),
        ("spleen", 115, 125),
        ("left kidney", 135, 170),
        ("right kidney", 135, 170),
        ("aorta", 145, 165),
        ("vena cava", 130, 150),
    ],
)
def test_organs_have_their_ct_numbers_in_the_portal_venous_phase(patients, name, low, high):
    for patient in patients:
        assert low <= np.median(core(patient, name)) <= high


@pytest.mark.parametrize(
    ("name", "hu"), [("liver", 60), ("spleen", 50), ("left kidney", 30), ("right kidney", 30)]
)
def test_without_contrast_organs_have_their_own_ct_numbers(plain, name, hu):
    assert np.median(core(plain, name)) == pytest.approx(hu, abs=5)


def test_bone_is_spongy_inside_and_compact_outside(patients):
    for patient in patients:
        bone = patient.volume.voxels[patient.organs == ORGANS["bone"]]
        assert 150 <= np.percentile(core(patient, "bone"), 20) <= 350
        assert 650 <= np.percentile(bone, 99.5) <= 1250


def test_air_fat_and_muscle_are_the_peaks_of_the_histogram(patients):
    for patient in patients:
        background = patient.volume.voxels[patient.organs == 0]
        counts = np.bincount(background + 1024, minlength=2000)
        smooth = ndimage.uniform_filter1d(counts, 9)

        def peak(low, high, smooth=smooth):
            return low + int(np.argmax(smooth[low + 1024 : high + 1024]))

        assert peak(-1020, -900) == pytest.approx(-1000, abs=6)
        assert peak(-150, -50) == pytest.approx(-100, abs=8)
        assert peak(20, 100) == pytest.approx(55, abs=8)


def test_air_outside_is_at_minus_1000_and_the_body_lies_clear_of_the_border(patients):
    for patient in patients:
        corner = patient.volume.voxels[:, :20, :20]
        assert corner.mean() == pytest.approx(-1000, abs=1)
        assert patient.volume.voxels[:, :5].max() < -900


def test_every_organ_is_there_and_of_a_plausible_size(patients):
    litres = {
        "liver": (0.7, 2.2), "spleen": (0.06, 0.4), "left kidney": (0.08, 0.3),
        "right kidney": (0.08, 0.3), "lungs": (1.8, 5.0), "heart": (0.25, 0.8),
        "aorta": (0.05, 0.2), "vena cava": (0.04, 0.2), "stomach": (0.05, 0.5),
        "bowel": (0.3, 1.6), "bone": (0.3, 1.5),
    }  # fmt: skip
    assert set(litres) | {"background"} == set(ORGANS)
    for patient in patients:
        voxel = np.prod(patient.volume.spacing) * 1e-6
        for name, (low, high) in litres.items():
            assert low <= np.sum(patient.organs == ORGANS[name]) * voxel <= high, name


def test_the_patient_lies_as_the_axes_say(patients):
    for patient in patients:
        centre = {
            name: np.mean(np.argwhere(patient.organs == number), axis=0)
            for name, number in ORGANS.items()
        }
        # x grows to the patient's left, y to the back, z to the head.
        assert centre["liver"][2] < centre["spleen"][2]
        assert centre["right kidney"][2] < centre["aorta"][2] < centre["left kidney"][2]
        assert centre["vena cava"][2] < centre["aorta"][2]
        assert centre["heart"][1] < centre["bone"][1]
        assert centre["bowel"][0] < centre["liver"][0] < centre["lungs"][0]


def test_a_ring_of_bone_surrounds_a_canal_of_soft_tissue(patients):
    for patient in patients:
        middle = patient.organs.shape[2] // 2
        spine = np.s_[:, :, middle - 25 : middle + 25]
        bone = patient.organs[spine] == ORGANS["bone"]
        holes = np.stack([ndimage.binary_fill_holes(s) & ~s for s in bone])
        assert np.sum(holes.sum(axis=(1, 2)) > 12) >= 5  # at the height of each arch
        inside = ndimage.binary_erosion(holes, np.ones((1, 3, 3)))
        assert np.median(patient.volume.voxels[spine][inside]) == pytest.approx(22, abs=8)


def test_edges_pass_through_intermediate_values(patients):
    for patient in patients:
        lungs = patient.organs == ORGANS["lungs"]
        rim = ndimage.binary_dilation(lungs) & ~ndimage.binary_erosion(lungs)
        values = patient.volume.voxels[rim]
        share = np.mean((values > -650) & (values < -250))
        assert 0.1 < share < 0.7  # with hard edges there would be next to nothing between


def test_lesions_lie_inside_the_liver_and_are_darker(patients, plain):
    for patient, expected in [(p, 62) for p in patients] + [(plain, 35)]:
        lesions = patient.lesions == 1
        assert set(np.unique(patient.lesions)) == {0, 1}
        assert np.all(patient.organs[lesions] == ORGANS["liver"])
        inside = patient.volume.voxels[ndimage.binary_erosion(lesions)]
        assert np.median(inside) == pytest.approx(expected, abs=10)
        assert 1 <= ndimage.label(lesions)[1] <= 3


def test_lesions_can_be_left_out_and_differ_between_patients():
    assert not torso(1, SMALL, lesions=0).lesions.any()
    counts = {ndimage.label(torso(seed, SMALL).lesions)[1] for seed in range(8)}
    assert len(counts) >= 3 and 0 in counts


def test_a_seed_gives_the_same_patient_voxel_for_voxel_and_another_seed_another():
    first, again, other = torso(5, SMALL), torso(5, SMALL), torso(6, SMALL)
    np.testing.assert_array_equal(first.volume.voxels, again.volume.voxels)
    np.testing.assert_array_equal(first.organs, again.organs)
    np.testing.assert_array_equal(first.lesions, again.lesions)
    assert np.mean(first.organs != other.organs) > 0.03


def test_voxels_are_int16_and_masks_uint8_on_a_grid_that_is_not_cubic(patients):
    for patient in patients:
        assert patient.volume.voxels.dtype == np.int16
        assert patient.organs.dtype == patient.lesions.dtype == np.uint8
        assert patient.volume.shape == patient.organs.shape == patient.lesions.shape
        assert len(set(patient.volume.shape)) == 3
        assert patient.volume.spacing == (5.0, 2.0, 2.0)


def test_other_shapes_show_the_same_field_of_view():
    for shape in (SMALL, (40, 50, 60)):
        volume = torso(2, shape).volume
        assert volume.shape == shape
        np.testing.assert_allclose(np.multiply(shape, volume.spacing), FIELD_MM)
        middle = volume.to_patient((np.array(shape) - 1) / 2)
        np.testing.assert_allclose(middle, 0, atol=1e-9)


def test_noise_is_correlated_between_neighbours_but_has_no_slow_waves(patients):
    for patient in patients:
        air = patient.volume.voxels[:, 2:14, 4:44].astype(float) + 1000
        sigma = air.std()
        assert 3 <= sigma <= 8
        beside = np.mean(air[:, :, 1:] * air[:, :, :-1]) / sigma**2
        assert beside > 0.25
        above = np.mean(air[1:] * air[:-1]) / sigma**2
        assert 0.2 < above < 0.5
        blocks = air.reshape(air.shape[0], 12, -1, 8).mean(axis=(1, 3))
        assert blocks.std() < 0.5 * sigma


def test_coverage_of_a_plane_is_the_share_of_the_voxel_that_it_cuts_off():
    x = np.indices((5, 6, 9), dtype=np.float32)[2] * 2.0
    share = coverage(x - 7.5, (2.0, 2.0, 2.0))  # voxel 3 spans 5 to 7 mm, voxel 4 7 to 9 mm
    np.testing.assert_allclose(share[0, 0], [1, 1, 1, 1, 0.25, 0, 0, 0, 0], atol=1e-6)


def test_the_volume_of_a_painted_ellipsoid_is_that_of_the_formula():
    canvas = Canvas((20, 50, 60), (5.0, 2.0, 2.0), turn=0.3, scale=(1, 1, 1), shift=(3, -2))
    radii = (30.0, 20.0, 25.0)
    f = ellipsoid(canvas.x, canvas.y, canvas.z, (0, 0, 0), radii)
    share = canvas.paint(f, 0.0, 1)
    assert share.sum() * 20 == pytest.approx(4 / 3 * np.pi * np.prod(radii), rel=0.03)
    assert (canvas.organs == 1).sum() * 20 == pytest.approx(share.sum() * 20, rel=0.03)


def test_a_box_of_the_canvas_holds_the_whole_shape():
    canvas = Canvas((30, 50, 60), (5.0, 2.0, 2.0), turn=0.3, scale=(1.04, 0.9, 1), shift=(5, 5))
    centre = (20.0, -10.0, 15.0)
    everywhere = ellipsoid(canvas.x, canvas.y, canvas.z, centre, (15, 15, 15)) < 0
    box = canvas.box(np.subtract(centre, 15), np.add(centre, 15), margin=0)
    assert everywhere[box].sum() == everywhere.sum() > 100


def test_a_chain_is_as_far_as_its_nearest_capsule():
    points, radii = [(0, 0, 0), (10, 0, 0), (10, 10, 0)], [2, 2, 1]
    for place, mm in (((5, 3, 0), 1.0), ((-4, 0, 3), 3.0), ((10, 14, 0), 3.0), ((12.5, 5, 0), 1.0)):
        x, y, z = (np.float32(v) for v in place)
        assert chain(x, y, z, points, radii) == pytest.approx(mm, abs=1e-5)


# Sets on disk


def test_ct_torso_holds_a_series_and_two_masks_a_case_in_one_geometry(tmp_path):
    root = ct_torso(tmp_path, cases=2, seed=3, shape=SMALL)
    assert root == tmp_path / "ct_torso"
    names = sorted(p.name for p in root.iterdir())
    assert names == [MARKER, "case_00", "case_01", "masks"]
    for k in range(2):
        folder = root / f"case_{k:02d}"
        files = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder))
        assert len(files) == SMALL[0]
        image = sitk.ReadImage(files)
        patient = torso(3 + k, SMALL)
        np.testing.assert_array_equal(sitk.GetArrayFromImage(image), patient.volume.voxels)
        for kind, mask in (("organs", patient.organs), ("lesions", patient.lesions)):
            found = sitk.ReadImage(str(root / f"masks/case_{k:02d}_{kind}.nii.gz"))
            np.testing.assert_array_equal(sitk.GetArrayFromImage(found), mask)
            assert found.GetPixelID() == sitk.sitkUInt8
            np.testing.assert_allclose(found.GetOrigin(), image.GetOrigin(), atol=1e-4)
            np.testing.assert_allclose(found.GetSpacing(), image.GetSpacing(), atol=1e-5)
            np.testing.assert_allclose(found.GetDirection(), image.GetDirection(), atol=1e-6)


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        ("organs", list(ORGANS)),
        ("spleen", ["background", "spleen"]),
        ("liver", ["background", "liver", "tumour"]),
    ],
)
def test_decathlon_has_the_layout_and_labels_that_its_json_names(tmp_path, labels, names):
    root = decathlon(tmp_path, cases=2, tests=1, labels=labels, seed=4, shape=SMALL)
    content = json.loads((root / "dataset.json").read_text(encoding="utf-8"))
    assert list(content["labels"].values()) == names
    assert [int(number) for number in content["labels"]] == list(range(len(names)))
    assert content["numTraining"] == len(content["training"]) == 2
    assert content["numTest"] == len(content["test"]) == 1
    for entry in content["training"]:
        image, label = (nibabel.load(root / entry[key]) for key in ("image", "label"))
        assert image.shape == label.shape == SMALL[::-1]
        np.testing.assert_allclose(image.affine, label.affine)
        assert set(np.unique(label.dataobj)) <= set(range(len(names)))
        assert 1 in np.unique(label.dataobj)
    assert nibabel.load(root / content["test"][0]).shape == SMALL[::-1]
    assert len(list((root / "labelsTr").iterdir())) == 2


def test_decathlon_marks_tumours_where_the_torso_has_lesions(tmp_path):
    root = decathlon(tmp_path, cases=1, tests=0, labels="liver", seed=4, shape=SMALL)
    label = sitk.GetArrayFromImage(sitk.ReadImage(str(root / "labelsTr/torso_000.nii.gz")))
    patient = torso(4, SMALL)
    np.testing.assert_array_equal(label == 2, patient.lesions == 1)
    np.testing.assert_array_equal(label > 0, patient.organs == ORGANS["liver"])


def test_decathlon_refuses_labels_that_it_does_not_know(tmp_path):
    with pytest.raises(ValueError, match="organs, spleen, liver"):
        decathlon(tmp_path, labels="kidney")
    assert not list(tmp_path.iterdir())


def make(data_dir, version=1, text="first", **parameters):
    with fresh_set(data_dir, "things", version, parameters) as folder:
        if folder:
            (folder / "thing.txt").write_text(text, encoding="utf-8")
    return (data_dir / "things" / "thing.txt").read_text(encoding="utf-8")


def test_a_complete_set_is_used_again(tmp_path):
    assert make(tmp_path, sizes=(1, 2)) == "first"
    assert make(tmp_path, text="second", sizes=(1, 2)) == "first"


def test_another_version_or_other_parameters_make_the_set_anew(tmp_path):
    make(tmp_path, sizes=(1, 2))
    (tmp_path / "things" / "old.txt").write_text("left over", encoding="utf-8")
    assert make(tmp_path, version=2, text="second", sizes=(1, 2)) == "second"
    assert not (tmp_path / "things" / "old.txt").exists()
    assert make(tmp_path, version=2, text="third", sizes=(1, 3)) == "third"
    assert [p.name for p in tmp_path.iterdir()] == ["things"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_interrupted_run_leaves_nothing_or_the_old_set(tmp_path, error):
    def broken(version):
        with fresh_set(tmp_path, "things", version, {}) as folder:
            (folder / "half.txt").write_text("half", encoding="utf-8")
            raise error

    with pytest.raises(error):
        broken(1)
    assert not list(tmp_path.iterdir())
    make(tmp_path)
    with pytest.raises(error):
        broken(2)
    assert make(tmp_path, text="second") == "first"
    assert [p.name for p in tmp_path.iterdir()] == ["things"]


def test_a_killed_run_is_not_taken_for_complete_and_is_swept_up_later(tmp_path):
    process = multiprocessing.get_context("spawn").Process(target=_die_half_way, args=(tmp_path,))
    process.start()
    process.join(300)
    assert process.exitcode == 9
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".things") and not (left / MARKER).exists()
    assert make(tmp_path) == "first"
    assert left.exists()  # it might belong to a process that still works on it
    os.utime(left, (time.time() - 7200,) * 2)
    assert make(tmp_path, version=2, text="second") == "second"
    assert [p.name for p in tmp_path.iterdir()] == ["things"]


def _die_half_way(data_dir):
    with fresh_set(data_dir, "things", 1, {}) as folder:
        (folder / "half.txt").write_text("half", encoding="utf-8")
        os._exit(9)


def test_two_at_once_leave_one_whole_set(tmp_path):
    with fresh_set(tmp_path, "things", 1, {}) as mine:
        with fresh_set(tmp_path, "things", 1, {}) as theirs:
            assert mine != theirs
            (theirs / "thing.txt").write_text("theirs", encoding="utf-8")
        (mine / "thing.txt").write_text("mine", encoding="utf-8")
    assert make(tmp_path) == "theirs"
    assert [p.name for p in tmp_path.iterdir()] == ["things"]


def test_a_folder_that_somebody_else_filled_is_never_replaced(tmp_path):
    (tmp_path / "things").mkdir()
    assert make(tmp_path, text="into an empty folder") == "into an empty folder"
    (tmp_path / "things" / MARKER).unlink()
    refused = pytest.raises(FileExistsError, match="Move it elsewhere")
    with refused, fresh_set(tmp_path, "things", 2, {}):
        pytest.fail("the work must not even begin")
    assert (tmp_path / "things" / "thing.txt").exists()


def test_a_broken_marker_counts_as_unfinished(tmp_path):
    make(tmp_path)
    (tmp_path / "things" / MARKER).write_text("{", encoding="utf-8")
    assert make(tmp_path, text="second") == "second"


def test_the_version_of_a_set_decides_whether_it_is_made_anew(tmp_path, monkeypatch):
    ct_torso(tmp_path, cases=1, shape=SMALL)
    path = next((tmp_path / "ct_torso" / "case_00").iterdir())
    path.unlink()
    ct_torso(tmp_path, cases=1, shape=SMALL)
    assert not path.exists()
    monkeypatch.setattr(sets, "VERSION", sets.VERSION + 1)
    ct_torso(tmp_path, cases=1, shape=SMALL)
    assert path.exists() and pydicom.dcmread(path).Modality == "CT"
