"""MR heads, skin lesions and lung nodules look and lie as the public sets do."""

import csv
import itertools

import nibabel
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage, stats
from sklearn.metrics import roc_auc_score

from helpers.lesson.phantoms import (
    brain,
    mr_brain,
    nodule_patient,
    nodules,
    skin_lesion,
    skin_lesions,
)
from helpers.lesson.phantoms.brain import NOISE_SIGMA
from helpers.lesson.phantoms.head_canvas import TISSUES
from helpers.lesson.phantoms.nodules import HU_OFFSET
from helpers.lesson.phantoms.noise import smooth_noise

COARSE = {"shape": (44, 66, 54), "spacing": (4.0, 3.5, 3.2)}
MATTER = ("grey matter", "white matter", "csf")


@pytest.fixture(scope="module")
def head():
    return brain(3, shape=(84, 140, 112), spacing=(2.0, 1.5, 1.5))


def rows_of(path):
    return list(csv.reader(path.read_text(encoding="utf-8").splitlines()))


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.*")}


def is_a(head, *names):
    return np.isin(head.tissues, [TISSUES[name] for name in names])


def ml(heads, *names):
    return np.array([is_a(one, *names).sum() for one in heads]) * np.prod(COARSE["spacing"]) / 1000


def test_smooth_noise_has_unit_variance_follows_its_scale_and_belongs_to_coordinates():
    field = smooth_noise(np.random.default_rng(1), [np.arange(600.0), np.arange(500.0)], 4)
    assert field.dtype == np.float32 and abs(field.mean()) < 0.03
    assert field.std() == pytest.approx(1, abs=0.03)
    near, far = (np.mean(field[:-lag] * field[lag:]) for lag in (1, 16))
    assert near > 0.9 and abs(far) < 0.1
    grids = [[np.arange(-40, 41, step)] * 3 for step in (1.0, 4.0)]
    fine, coarse = (smooth_noise(np.random.default_rng(2), g, 9, reach=50) for g in grids)
    np.testing.assert_allclose(fine[::4, ::4, ::4], coarse, atol=1e-5)


def test_a_head_is_bright_where_t1_weighting_says_and_lies_in_air_inside_its_field(head):
    image = head.volume.voxels / head.bias
    pure = ndimage.uniform_filter(head.tissues.astype(float), 3) == head.tissues
    order = ("bone", "csf", "soft tissue", "grey matter", "white matter", "fat")
    values = [np.median(image[pure & is_a(head, name)]) for name in order]
    assert min(np.diff(values)) > 2 * NOISE_SIGMA
    assert set(np.unique(head.tissues)) == set(TISSUES.values())
    assert not any(
        edge.any() for edge in (head.tissues[-1], head.tissues[:, -1], *head.tissues.T[[0, -1]])
    )
    upper = is_a(head, *MATTER, "ventricle")[50:]  # above the base of the skull
    shell = head.tissues[50:][ndimage.binary_dilation(upper) & ~upper]
    assert not {TISSUES["air"], TISSUES["fat"]} & set(shell) and TISSUES["bone"] in shell
    row = is_a(head, *MATTER[:2])[60]  # sulci give it several times the rim of its hull
    hull = ndimage.binary_fill_holes(ndimage.binary_closing(row, iterations=8))
    rims = [(one & ~ndimage.binary_erosion(one)).sum() for one in (row, hull)]
    assert rims[0] > 2 * rims[1]
    left, right = np.split(is_a(head, "grey matter"), 2, axis=2)
    assert left.sum() == pytest.approx(right.sum(), rel=0.1)
    assert np.mean(left == right[:, :, ::-1]) < 0.97  # and no mirror image


def test_noise_of_a_head_is_rician_and_the_coils_field_is_smooth(head):
    air = ndimage.binary_erosion(is_a(head, "air"), iterations=3, border_value=1)
    noise = np.sort(head.volume.voxels[air])
    levels = np.arange(0, 40) + 0.5  # the image is rounded to whole numbers
    observed = np.searchsorted(noise, levels) / noise.size
    np.testing.assert_allclose(observed, stats.rayleigh.cdf(levels, scale=NOISE_SIGMA), atol=0.01)
    white = is_a(head, "white matter")
    assert head.bias[white].std() > 0.03
    assert np.corrcoef(head.volume.voxels[white], head.bias[white])[0, 1] > 0.3
    assert max(np.abs(g).max() for g in np.gradient(np.log(head.bias), *head.volume.spacing)) < 0.02


def test_a_seed_is_a_head_whatever_the_grid_and_the_slabs(head, monkeypatch):
    fine, coarse, other = (
        brain(5, (87, 131, 107), (2.0, 1.75, 1.6)),
        brain(5, **COARSE),
        brain(6, **COARSE),
    )
    assert np.mean(fine.tissues[::2, ::2, ::2] == coarse.tissues) > 0.999
    assert np.mean(other.tissues == coarse.tissues) < 0.97
    np.testing.assert_allclose(fine.volume.origin, coarse.volume.origin, atol=1e-4)
    monkeypatch.setattr("helpers.lesson.phantoms.head._SLAB_VOXELS", 200_000)
    again = brain(3, head.volume.shape, head.volume.spacing)
    assert np.array_equal(again.volume.voxels, head.volume.voxels)


def test_age_widens_ventricles_and_men_have_larger_heads_with_much_scatter():
    ages = np.linspace(20, 82, 24)
    heads = [brain(i, **COARSE, sex=1 + i % 2, age=float(a)) for i, a in enumerate(ages)]
    assert 0.6 < np.corrcoef(ages, ml(heads, "ventricle"))[0, 1] < 0.99
    assert np.corrcoef(ages, ml(heads, "grey matter") / ml(heads, "csf"))[0, 1] < -0.6
    assert 900 < ml(heads, *MATTER).mean() < 2000
    heads = [brain(i, **COARSE, sex=1 + i % 2, age=40) for i in range(30)]
    assert 0.75 < roc_auc_score([h.sex == 1 for h in heads], ml(heads, *MATTER)) < 1.0


def test_heads_come_as_ixi_does_with_a_table_that_does_not_quite_agree(tmp_path):
    root = mr_brain(tmp_path, subjects=3)
    header, *people = rows_of(root / "demographic_HH.csv")
    assert (header[0], header[1][:6], header[11], len(header)) == ("IXI_ID", "SEX_ID", "AGE", 12)
    assert {row[1] for row in people} == {"1", "2"}
    assert [bool(row[11]) for row in people] == [True, False, True]
    born, studied = (np.datetime64(people[0][i]) for i in (8, 10))
    assert float(people[0][11]) == pytest.approx((studied - born).astype(int) / 365.25, abs=0.01)
    files = [[root / mm / row[0] / f"T1_{mm}.nii.gz" for mm in ("1mm", "2mm")] for row in people]
    assert [[path.exists() for path in pair] for pair in files] == [
        [True] * 2,
        [True] * 2,
        [False] * 2,
    ]
    fine, coarse = map(nibabel.load, files[0])  # nibabel counts x, y, z
    assert (fine.shape, coarse.shape) == ((168, 216, 160), (84, 108, 80))
    np.testing.assert_allclose(coarse.affine[:, 3], fine.affine @ [0.5, 0.5, 0.5, 1], atol=1e-4)
    eight = np.asarray(fine.dataobj)[80:82, 100:102, 90:92]
    assert abs(np.asarray(coarse.dataobj)[40, 50, 45] - eight.mean()) <= 0.5


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda _: brain(0, (2, 2, 2), sex=3), "sex is 1 or 2"),
        (lambda _: brain(0, (2, 2, 2), age=130.0), "age 18 to 90"),
        (lambda folder: mr_brain(folder, subjects=2), "at least 3"),
        (lambda folder: nodules(folder, patients=1), "both classes"),
    ],
)
def test_what_cannot_be_made_is_refused_before_anything_is_written(tmp_path, call, words):
    with pytest.raises(ValueError, match=words):
        call(tmp_path)
    assert not list(tmp_path.iterdir())


def step_at_the_border(image, mask):
    """How much darker a lesion is than a ring of skin close round it, in grey levels."""
    ring = ndimage.binary_dilation(mask, iterations=20) & ~ndimage.binary_dilation(
        mask, iterations=8
    )
    grey = image.mean(axis=2)
    return np.median(grey[ring]) - np.median(grey[ndimage.binary_erosion(mask, iterations=4)])


@pytest.mark.parametrize("varied", [False, True])
def test_a_lesion_is_one_region_where_the_picture_changes(varied):
    made = [skin_lesion(seed, (200, 260), varied) for seed in range(60)]
    steps, moved, skin = [], [], []
    for image, mask in made:
        assert image.dtype == mask.dtype == np.uint8 and image.shape == (*mask.shape, 3)
        assert ndimage.label(mask)[1] == 1 and 0.005 < mask.mean() < 0.75
        assert np.array_equal(ndimage.binary_fill_holes(mask), mask) and mask.max() == 1
        steps.append(step_at_the_border(image, mask))
        moved.append(step_at_the_border(image, np.roll(mask, (33, 43), axis=(0, 1))))
        skin.append(np.median(image[80:120, 6:20]))
    assert np.mean(np.array(steps) > np.array(moved)) > (0.75 if varied else 0.9)
    assert 0.05 < np.mean(np.array(steps) < 20) < (0.75 if varied else 0.4)  # faint ones
    assert np.ptp(np.percentile(skin, (10, 90))) > 50  # from light to dark
    middles = np.array([ndimage.center_of_mass(mask) for _, mask in made]) / 200
    assert np.all(middles.std(axis=0) > (0.08 if varied else 0.02))
    ink = [np.mean(image[..., 2] > image[..., :2].max(axis=2) + 8.0) > 0.001 for image, _ in made]
    assert (0.1 < np.mean(ink) < 0.6) if varied else np.mean(ink) < 0.1


def otsu(grey):
    """The threshold that parts a histogram into the two classes that differ most."""
    count = np.bincount(grey.ravel(), minlength=256)[:-1].cumsum()
    mass = (np.bincount(grey.ravel(), minlength=256) * np.arange(256))[:-1].cumsum()
    mean_below = mass / np.maximum(count, 1)
    mean_above = (grey.sum() - mass) / np.maximum(grey.size - count, 1)
    return np.argmax(count * (grey.size - count) * (mean_above - mean_below) ** 2)


def test_a_threshold_and_the_largest_central_blob_miss_many_varied_lesions():
    scores = {False: [], True: []}
    for varied, seed in itertools.product(scores, range(60)):
        image, mask = skin_lesion(seed, (144, 192), varied)
        grey = np.rint(image.mean(axis=2)).astype(np.uint8)
        parts, _ = ndimage.label(grey <= otsu(grey))
        sizes = np.bincount(parts[36:-36, 48:-48].ravel(), minlength=2)
        blob = ndimage.binary_fill_holes(parts == 1 + np.argmax(sizes[1:]))
        scores[varied].append(2 * np.sum(blob & (mask > 0)) / (blob.sum() + mask.sum()))
    print(
        "lesions, Dice of Otsu's largest central blob:", {k: np.mean(v) for k, v in scores.items()}
    )
    assert np.mean(scores[True]) <= 0.75 and np.median(scores[False]) > 0.9


def test_skin_lesions_are_named_as_in_isic_2018_and_do_not_depend_on_workers(tmp_path):
    folder, again = (
        skin_lesions(tmp_path / str(n), count=6, workers=n, varied=True) for n in (1, 4)
    )
    assert contents(folder) == contents(again) and len(contents(folder)) == 13
    sizes = set()
    for path in sorted((folder / "images").iterdir()):
        assert len(path.stem) == len("ISIC_0000000") and path.stem[5:].isdigit()
        image = Image.open(path)
        mask = Image.open(folder / "masks" / f"{path.stem}_segmentation.png")
        assert (image.format, image.mode, mask.mode, mask.size) == ("JPEG", "RGB", "L", image.size)
        assert set(np.unique(mask)) == {0, 255}
        sizes.add(image.size)
    assert len(sizes) > 2


def test_a_nodule_is_soft_tissue_in_the_middle_of_lung_and_brightness_does_not_give_it_away():
    patients = [nodule_patient(seed, seed < 60) for seed in range(120)]
    for slices in patients:
        assert slices.dtype == np.int16 and slices.shape[1:] == (64, 64) and 4 <= len(slices) <= 8
        assert slices.min() >= -1024 and -950 < np.median(slices) < -750
        assert slices.max() > -200 and np.percentile(slices, 99.5) < 900
    middles = [p[len(p) // 2, 20:44, 20:44].mean() for p in patients]
    assert 0.65 < roc_auc_score(np.arange(120) < 60, middles) < 0.98
    smooth = [ndimage.gaussian_filter(p.astype(float), (0, 1, 1)) for p in patients[60:80]]
    same = [np.corrcoef(p[1].ravel(), p[2].ravel())[0, 1] for p in smooth]
    other = [np.corrcoef(p[1].ravel(), q[1].ravel())[0, 1] for p, q in itertools.pairwise(smooth)]
    assert np.median(same) > 0.5 and abs(np.median(other)) < 0.2  # why a split by slice leaks


def test_the_nodules_table_names_each_file_once_with_its_patients_label(tmp_path):
    root = nodules(tmp_path, patients=60)
    header, *rows = rows_of(root / "labels.csv")
    assert header == ["file", "patient", "label"]
    assert sorted(row[0] for row in rows) == sorted(
        p.relative_to(root).as_posix() for p in root.rglob("*.png")
    )
    labels = {patient: label for _, patient, label in rows}
    assert len({tuple(row[1:]) for row in rows}) == len(labels) == 60
    positive = [k for k, label in enumerate(labels.values()) if label == "1"]
    assert len(positive) == 3 and np.ptp(positive) > 2  # one in twenty, scattered
    for number in (0, positive[0]):
        own = [root / row[0] for row in rows if row[1] == f"P{number:04d}"]
        stored = np.stack([np.asarray(Image.open(path)) for path in own]).astype(int)
        assert np.array_equal(stored - HU_OFFSET, nodule_patient(number, number in positive))
