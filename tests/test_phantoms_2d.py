"""MR heads, skin lesions and lung nodules: do they look and lie as the public sets do?"""

import csv
import itertools
import sys

import nibabel
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage, stats
from sklearn.metrics import roc_auc_score

from helpers.lesson.phantoms.brain import NOISE_SIGMA, brain, mr_brain
from helpers.lesson.phantoms.head import paint_head
from helpers.lesson.phantoms.head_canvas import TISSUES
from helpers.lesson.phantoms.nodules import HU_OFFSET, nodule_patient, nodules
from helpers.lesson.phantoms.noise import smooth_noise, smoothstep
from helpers.lesson.phantoms.skin import single_region, skin_lesion, skin_lesions

COARSE = {"shape": (44, 66, 54), "spacing": (4.0, 3.5, 3.2)}


@pytest.fixture(scope="module")
def head():
    return brain(3, shape=(84, 140, 112), spacing=(2.0, 1.5, 1.5))


def rows_of(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def contents(folder):
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


# Smooth noise


def test_smooth_noise_has_unit_variance_and_no_offset():
    field = smooth_noise(np.random.default_rng(1), [np.arange(600.0), np.arange(500.0)], 4)
    assert field.shape == (600, 500) and field.dtype == np.float32
    assert abs(field.mean()) < 0.03
    assert field.std() == pytest.approx(1, abs=0.03)


def test_smooth_noise_belongs_to_the_coordinates_and_not_to_the_grid():
    fine, coarse = np.arange(-40, 41, 1.0), np.arange(-40, 41, 4.0)
    a = smooth_noise(np.random.default_rng(2), [fine] * 3, 9, reach=50)
    b = smooth_noise(np.random.default_rng(2), [coarse] * 3, 9, reach=50)
    np.testing.assert_allclose(a[::4, ::4, ::4], b, atol=1e-5)


def test_smooth_noise_follows_its_scale():
    def correlation(scale, lag):
        field = smooth_noise(np.random.default_rng(3), [np.arange(4000.0)], scale)
        return np.corrcoef(field[:-lag], field[lag:])[0, 1]

    assert correlation(20, 5) > 0.9
    assert abs(correlation(20, 100)) < 0.2
    assert correlation(2, 5) < correlation(20, 5) - 0.5


def test_a_constant_lattice_would_stay_constant():
    class Ones:
        def standard_normal(self, shape, dtype):
            return np.ones(shape, dtype)

    field = smooth_noise(Ones(), [np.linspace(-3, 11, 57), np.linspace(0, 5, 31)], 1.7)
    assert np.ptp(field) < 1e-5


def test_smoothstep_runs_from_nought_to_one_either_way():
    t = np.linspace(-1, 4, 11, dtype=np.float32)
    np.testing.assert_allclose(smoothstep(t, 0, 3), 1 - smoothstep(t, 3, 0), atol=1e-6)
    assert smoothstep(t, 0, 3)[[0, -1]].tolist() == [0, 1]
    assert smoothstep(np.float32([1.5]), 0, 3) == pytest.approx(0.5)


# MR heads


def test_the_same_seed_gives_the_same_head_and_another_seed_another():
    first, again, other = brain(5, **COARSE), brain(5, **COARSE), brain(6, **COARSE)
    assert np.array_equal(first.volume.voxels, again.volume.voxels)
    assert np.array_equal(first.tissues, again.tissues)
    assert (first.sex, first.age, first.height_cm) == (again.sex, again.age, again.height_cm)
    assert not np.array_equal(first.tissues, other.tissues)


def test_a_finer_scan_shows_the_same_head():
    fine = brain(5, shape=(87, 131, 107), spacing=(2.0, 1.75, 1.6))
    coarse = brain(5, **COARSE)
    assert fine.age == coarse.age
    assert np.mean(fine.tissues[::2, ::2, ::2] == coarse.tissues) > 0.999
    np.testing.assert_allclose(fine.volume.origin, coarse.volume.origin, atol=1e-4)


def test_painting_in_thinner_slabs_changes_nothing(head, monkeypatch):
    monkeypatch.setattr(sys.modules[paint_head.__module__], "_SLAB_VOXELS", 200_000)
    again = brain(3, shape=head.volume.shape, spacing=head.volume.spacing)
    assert np.array_equal(again.tissues, head.tissues)


def test_a_head_is_not_a_cube_and_its_origin_is_the_first_voxel(head):
    assert head.volume.shape == (84, 140, 112) == head.tissues.shape == head.bias.shape
    assert head.volume.voxels.dtype == np.int16
    assert head.volume.spacing == (2.0, 1.5, 1.5)
    # Left and right are centred; the nose, at negative y, leaves room behind the head.
    assert head.volume.origin[0] == pytest.approx(-1.5 * 111 / 2)
    assert brain(0, (2, 3, 5)).volume.shape == (2, 3, 5)


def test_tissues_have_the_order_of_brightness_of_t1_weighting(head):
    image = head.volume.voxels / head.bias
    middle = ndimage.uniform_filter(head.tissues.astype(float), 3)
    pure = middle == head.tissues  # away from edges, where tissues mix

    def brightness(name):
        return np.median(image[pure & (head.tissues == TISSUES[name])])

    order = ("bone", "csf", "soft tissue", "grey matter", "white matter", "fat")
    values = [brightness(name) for name in order]
    assert values == sorted(values)
    assert min(np.diff(values)) > 2 * NOISE_SIGMA
    assert brightness("white matter") > brightness("deep grey matter") > brightness("csf")


def test_every_tissue_is_there(head):
    assert set(np.unique(head.tissues)) == set(TISSUES.values())


def test_noise_in_air_is_rayleigh_distributed(head):
    air = ndimage.binary_erosion(head.tissues == TISSUES["air"], iterations=3, border_value=1)
    noise = head.volume.voxels[air].astype(float)
    # The coils' field multiplies the signal and not the noise, so none of it is seen in air.
    assert noise.mean() == pytest.approx(NOISE_SIGMA * np.sqrt(np.pi / 2), rel=0.01)
    assert noise.std() == pytest.approx(NOISE_SIGMA * np.sqrt(2 - np.pi / 2), rel=0.02)
    levels = np.arange(0, 40) + 0.5  # the image is rounded to whole numbers
    observed = np.searchsorted(np.sort(noise), levels) / noise.size
    np.testing.assert_allclose(observed, stats.rayleigh.cdf(levels, scale=NOISE_SIGMA), atol=0.01)


def test_the_bias_field_is_there_and_smooth(head):
    white = head.tissues == TISSUES["white matter"]
    assert head.bias[white].std() > 0.03
    step_mm = np.array(head.volume.spacing).reshape(3, 1)
    slopes = [np.abs(np.diff(np.log(head.bias), axis=d)).max() / step_mm[d, 0] for d in range(3)]
    assert max(slopes) < 0.02  # per mm
    assert np.corrcoef(head.volume.voxels[white], head.bias[white])[0, 1] > 0.3


def test_air_surrounds_the_head_and_skull_surrounds_the_brain(head):
    inner = np.isin(head.tissues, [TISSUES[n] for n in ("grey matter", "white matter", "csf")])
    upper = slice(50, None)  # above the base of the skull
    shell = ndimage.binary_dilation(inner[upper]) & ~inner[upper]
    shell &= head.tissues[upper] != TISSUES["ventricle"]
    neighbours = set(np.unique(head.tissues[upper][shell]))
    assert TISSUES["air"] not in neighbours and TISSUES["fat"] not in neighbours
    assert TISSUES["bone"] in neighbours
    edges = (head.tissues[-1], head.tissues[:, -1], head.tissues[:, :, 0], head.tissues[:, :, -1])
    assert not any(edge.any() for edge in edges)


def test_left_and_right_half_hold_as_much_cortex_but_are_no_mirror_images(head):
    cortex = head.tissues == TISSUES["grey matter"]
    left, right = cortex[:, :, :56], cortex[:, :, 56:]
    assert left.sum() == pytest.approx(right.sum(), rel=0.1)
    assert np.mean(left == right[:, :, ::-1]) < 0.97


def test_the_cortex_is_folded(head):
    """Sulci give the brain several times the surface of its convex hull."""
    matter = np.isin(head.tissues, [TISSUES[n] for n in ("grey matter", "white matter")])
    row = matter[60]
    smooth = ndimage.binary_fill_holes(ndimage.binary_closing(row, iterations=8))
    edge = (row & ~ndimage.binary_erosion(row)).sum()
    hull = (smooth & ~ndimage.binary_erosion(smooth)).sum()
    assert edge > 2 * hull


def volume_ml(heads, name):
    ml = np.prod(COARSE["spacing"]) / 1000
    return np.array([(h.tissues == TISSUES[name]).sum() * ml for h in heads])


def test_ventricles_grow_with_age_but_do_not_give_it_away():
    ages = np.linspace(20, 82, 24)
    heads = [brain(i, **COARSE, sex=1 + i % 2, age=float(a)) for i, a in enumerate(ages)]
    assert 0.6 < np.corrcoef(ages, volume_ml(heads, "ventricle"))[0, 1] < 0.99
    cortex = volume_ml(heads, "grey matter") / volume_ml(heads, "csf")
    assert np.corrcoef(ages, cortex)[0, 1] < -0.6


def test_men_have_larger_heads_on_average_but_not_each_of_them():
    heads = [brain(i, **COARSE, sex=1 + i % 2, age=40) for i in range(30)]
    size = sum(volume_ml(heads, n) for n in ("grey matter", "white matter", "csf"))
    men = np.array([h.sex == 1 for h in heads])
    assert 0.75 < roc_auc_score(men, size) < 1.0
    assert 900 < size.mean() < 2000


@pytest.mark.parametrize("wrong", [{"sex": 0}, {"sex": 3}, {"age": 5.0}, {"age": 130.0}])
def test_a_person_outside_the_range_is_refused(wrong):
    with pytest.raises(ValueError, match="sex is 1 or 2 and age 18 to 90"):
        brain(0, (2, 2, 2), **wrong)


@pytest.fixture(scope="module")
def ixi(tmp_path_factory):
    return mr_brain(tmp_path_factory.mktemp("data"), subjects=3)


def test_the_table_has_ixis_columns_at_ixis_places(ixi):
    header, *people = rows_of(ixi / "demographic_HH.csv")
    assert header[0] == "IXI_ID" and header[1].startswith("SEX_ID") and header[11] == "AGE"
    assert len(header) == 12 and all(len(row) == 12 for row in people)
    assert all(row[0].startswith("IXI") and row[0][3:].isdigit() for row in people)
    assert {row[1] for row in people} == {"1", "2"}
    known = [row for row in people if row[11]]
    for row in known:
        born, studied = (np.datetime64(row[i]) for i in (8, 10))
        assert float(row[11]) == pytest.approx((studied - born).astype(int) / 365.25, abs=0.01)
        assert 18 < float(row[11]) < 90


def test_one_person_has_no_age_and_another_no_image(ixi):
    _, *people = rows_of(ixi / "demographic_HH.csv")
    assert [bool(row[11]) for row in people] == [True, False, True]
    assert [(ixi / "1mm" / row[0]).exists() for row in people] == [True, True, False]
    assert [(ixi / "2mm" / row[0]).exists() for row in people] == [True, True, False]


def test_an_independent_reader_finds_the_heads_in_both_resolutions(ixi):
    subject = rows_of(ixi / "demographic_HH.csv")[1][0]
    fine = nibabel.load(ixi / "1mm" / subject / "T1_1mm.nii.gz")
    coarse = nibabel.load(ixi / "2mm" / subject / "T1_2mm.nii.gz")
    assert fine.shape == (168, 216, 160)  # nibabel counts x, y, z
    assert coarse.shape == (84, 108, 80)
    np.testing.assert_allclose(fine.header.get_zooms(), 1)
    np.testing.assert_allclose(coarse.header.get_zooms(), 2)
    # The first coarse voxel lies in the middle of the first eight fine ones, and is their mean.
    middle = fine.affine @ [0.5, 0.5, 0.5, 1]
    np.testing.assert_allclose(coarse.affine[:, 3], middle, atol=1e-4)
    eight = np.asarray(fine.dataobj)[80:82, 100:102, 90:92]
    assert abs(np.asarray(coarse.dataobj)[40, 50, 45] - eight.mean()) <= 0.5


def test_too_small_a_set_of_heads_is_refused(tmp_path):
    with pytest.raises(ValueError, match="at least 3"):
        mr_brain(tmp_path, subjects=2)
    assert not list(tmp_path.iterdir())


# Skin lesions


def test_the_same_seed_gives_the_same_lesion_and_another_seed_another():
    first, again, other = skin_lesion(4), skin_lesion(4), skin_lesion(5)
    assert np.array_equal(first[0], again[0]) and np.array_equal(first[1], again[1])
    assert not np.array_equal(first[1], other[1])


def test_a_lesion_is_a_colour_picture_with_a_mask_of_ones():
    image, mask = skin_lesion(0, size=(200, 300))
    assert image.shape == (200, 300, 3) and image.dtype == np.uint8
    assert mask.shape == (200, 300) and mask.dtype == np.uint8
    assert set(np.unique(mask)) == {0, 1}


@pytest.mark.parametrize("seed", range(20))
def test_a_mask_is_one_region_without_holes(seed):
    _, mask = skin_lesion(seed)
    assert ndimage.label(mask)[1] == 1
    assert np.array_equal(ndimage.binary_fill_holes(mask), mask)
    assert 0.01 < mask.mean() < 0.75


def test_of_several_parts_the_largest_stays_and_its_holes_are_filled():
    mask = np.zeros((20, 30), bool)
    mask[2:12, 3:15] = True
    disc = mask.copy()
    mask[5:8, 6:9] = False
    mask[15:18, 20:28] = True
    assert np.array_equal(single_region(mask), disc)
    assert not single_region(np.zeros((4, 4), bool)).any()


def contrast(image, mask):
    """How much darker the lesion is than a ring of skin close round it, in grey levels."""
    inside = ndimage.binary_erosion(mask, iterations=4)
    ring = ndimage.binary_dilation(mask, iterations=28)
    ring &= ~ndimage.binary_dilation(mask, iterations=12)
    grey = image.mean(axis=2)
    return np.median(grey[ring]) - np.median(grey[inside])


def test_lesions_are_darker_than_the_skin_round_them_and_some_are_faint():
    values = np.array([contrast(*skin_lesion(seed)) for seed in range(60)])
    assert np.mean(values > 0) > 0.95
    assert np.mean(values > 20) > 0.6
    assert 0.05 < np.mean(values < 20) < 0.4


def test_a_mask_that_is_moved_agrees_less_with_the_picture():
    """The border of the mask lies where the picture changes."""
    own, moved = [], []
    for seed in range(20):
        image, mask = skin_lesion(seed)
        own.append(contrast(image, mask))
        moved.append(contrast(image, np.roll(mask, (45, 60), axis=(0, 1))))
    assert np.mean(np.array(own) > np.array(moved)) >= 0.95


def test_skin_runs_from_light_to_dark():
    corners = [np.median(skin_lesion(s)[0][110:160, 8:30]) for s in range(60)]
    assert np.percentile(corners, 90) - np.percentile(corners, 10) > 50


def test_larger_pictures_show_larger_details():
    """A hair or a network cell is a share of the picture, not a number of pixels."""
    small, large = (
        np.mean([skin_lesion(s, z)[1].mean() for s in range(12)]) for z in ((135, 180), (270, 360))
    )
    assert small == pytest.approx(large, rel=0.05)


def test_skin_lesions_are_named_as_in_isic_2018_task_1(tmp_path):
    folder = skin_lesions(tmp_path, count=12)
    images = sorted(p.name for p in (folder / "images").iterdir())
    masks = sorted(p.name for p in (folder / "masks").iterdir())
    assert len(images) == 12
    stems = [name.removesuffix(".jpg") for name in images]
    assert [f"{stem}_segmentation.png" for stem in stems] == masks
    assert all(len(stem) == len("ISIC_0000000") and stem[5:].isdigit() for stem in stems)
    sizes = set()
    for image, mask in zip(images, masks, strict=True):
        with Image.open(folder / "images" / image) as picture:
            assert picture.format == "JPEG" and picture.mode == "RGB"
            sizes.add(picture.size)
            with Image.open(folder / "masks" / mask) as outline:
                assert outline.format == "PNG" and outline.mode == "L"
                assert outline.size == picture.size
                assert set(np.unique(outline)) == {0, 255}
    assert len(sizes) > 3


def test_the_number_of_workers_changes_no_byte(tmp_path):
    alone = contents(skin_lesions(tmp_path / "one", count=6, workers=1))
    crowd = contents(skin_lesions(tmp_path / "four", count=6, workers=4))
    assert alone == crowd and len(alone) == 13  # 6 images, 6 masks, the marker


# Lung nodules


def test_the_same_seed_gives_the_same_patient():
    assert np.array_equal(nodule_patient(3, True), nodule_patient(3, True))
    assert not np.array_equal(nodule_patient(3)[0], nodule_patient(4)[0])


def test_patches_are_lung_in_hounsfield_units():
    for seed, positive in itertools.product(range(10), (False, True)):
        slices = nodule_patient(seed, positive)
        assert slices.dtype == np.int16 and slices.shape[1:] == (64, 64)
        assert 4 <= len(slices) <= 8
        assert slices.min() >= -1024
        assert -950 < np.median(slices) < -750
        assert slices.max() > -200 and np.percentile(slices, 99.5) < 900


def test_a_nodule_adds_soft_tissue_in_the_middle():
    def middle(seed, positive):
        patch = nodule_patient(seed, positive)
        return patch[len(patch) // 2, 20:44, 20:44].mean()

    without = np.array([middle(seed, False) for seed in range(60)])
    within = np.array([middle(seed + 1000, True) for seed in range(60)])
    truth = np.repeat([0, 1], 60)
    # Brightness alone tells something and not everything: vessels are as bright.
    assert 0.65 < roc_auc_score(truth, np.r_[without, within]) < 0.98


def test_slices_of_a_patient_look_alike_and_those_of_another_do_not():
    """That is what makes a split by slice leak."""
    patients = [
        ndimage.gaussian_filter(nodule_patient(s).astype(float), (0, 1, 1)) for s in range(12)
    ]
    same = [np.corrcoef(p[1].ravel(), p[2].ravel())[0, 1] for p in patients]
    other = [np.corrcoef(p[1].ravel(), q[1].ravel())[0, 1] for p, q in itertools.pairwise(patients)]
    assert np.median(same) > 0.5
    assert abs(np.median(other)) < 0.2


@pytest.fixture(scope="module")
def nodule_set(tmp_path_factory):
    return nodules(tmp_path_factory.mktemp("data"), patients=60)


def test_the_table_names_every_file_once_and_groups_it_by_patient(nodule_set):
    header, *rows = rows_of(nodule_set / "labels.csv")
    assert header == ["file", "patient", "label"]
    files = [row[0] for row in rows]
    on_disk = sorted(p.relative_to(nodule_set).as_posix() for p in nodule_set.rglob("*.png"))
    assert sorted(files) == on_disk and len(set(files)) == len(files)
    for _, group in itertools.groupby(rows, key=lambda row: row[1]):
        group = list(group)
        assert 4 <= len(group) <= 8
        assert len({row[2] for row in group}) == 1  # the label is the patient's
    assert len({row[1] for row in rows}) == 60


def test_one_patient_in_twenty_is_positive(nodule_set):
    _, *rows = rows_of(nodule_set / "labels.csv")
    labels = {patient: label for _, patient, label in rows}
    assert sorted(labels.values()) == ["0"] * 57 + ["1"] * 3
    positive = [i for i, label in enumerate(labels.values()) if label == "1"]
    assert np.ptp(positive) > 2  # scattered, not in a row


def test_the_png_holds_hounsfield_units_without_loss(nodule_set):
    _, *rows = rows_of(nodule_set / "labels.csv")
    for number in (0, 17):
        own = [row for row in rows if row[1] == f"P{number:04d}"]
        expected = nodule_patient(number, own[0][2] == "1")
        for row, pixels in zip(own, expected, strict=True):
            with Image.open(nodule_set / row[0]) as png:
                assert png.mode == "I;16"
                stored = np.asarray(png)
            assert np.array_equal(stored.astype(int) - HU_OFFSET, pixels)


def test_a_set_without_both_classes_is_refused(tmp_path):
    with pytest.raises(ValueError, match="both classes"):
        nodules(tmp_path, patients=1)


# Sets are written once


@pytest.mark.parametrize(
    "write, arguments, changed",
    [
        (skin_lesions, {"count": 3}, {"count": 4}),
        (skin_lesions, {"count": 3}, {"count": 3, "seed": 1}),
        (skin_lesions, {"count": 3}, {"count": 3, "size": (135, 180)}),
        (nodules, {"patients": 3}, {"patients": 4}),
        (nodules, {"patients": 3}, {"patients": 3, "seed": 1}),
    ],
)
def test_a_set_is_kept_until_its_parameters_change(tmp_path, write, arguments, changed):
    folder = write(tmp_path, **arguments)
    before = contents(folder)
    times = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert write(tmp_path, **arguments) == folder
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == times
    write(tmp_path, **changed)
    assert contents(folder) != before
    write(tmp_path, **arguments)
    assert contents(folder) == before  # back to the first, byte for byte
