"""Series as scanners write them: good ones read back exactly, each trap has the fault it claims."""

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.errors import InvalidDicomError
from pydicom.pixels import apply_rescale
from pydicom.uid import ExplicitVRLittleEndian

from helpers.lesson.phantoms import ORIENTATIONS, TRAPS, dicom_series, messy_folder, oriented
from helpers.lesson.phantoms.traps import FILE_EDITS, HEADER_EDITS, TRANSFER_SYNTAXES
from helpers.volume import Volume

PLACE = ((4.0, 1.5, 0.75), (-30.0, 12.5, -400.25), [[1, 0, 0], [0, 0.96, -0.28], [0, 0.28, 0.96]])


@pytest.fixture(scope="module")
def volume():
    z, y, x = np.indices((12, 36, 40))
    voxels = np.random.default_rng(1).integers(-300, 300, z.shape) + 60 * z + 10 * y - 5 * x - 300
    return Volume(voxels.astype(np.int16), *PLACE)


def values(paths):
    return np.stack([apply_rescale(f.pixel_array, f) for f in map(pydicom.dcmread, paths)])


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("mirrored", [False, True])
def test_simpleitk_finds_every_voxel_where_it_was(volume, tmp_path, orientation, mirrored):
    if mirrored:
        volume = Volume(volume.voxels, volume.spacing, volume.origin, np.diag([1.0, 1, -1]))
    paths = dicom_series(volume, tmp_path, orientation=orientation)
    files = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(tmp_path))
    assert [str(path) for path in paths] == list(files)  # given along rows x columns
    found, turned = Volume.from_sitk(sitk.ReadImage(files)), oriented(volume, orientation)
    assert np.array_equal(found.voxels, turned.voxels) and found.same_geometry(turned)
    assert np.linalg.det(found.direction) == pytest.approx(1)
    for index in np.random.default_rng(0).integers(0, found.shape, (50, 3)):
        place = np.rint(volume.to_index(found.to_patient(index))).astype(int)
        assert found.voxels[tuple(index)] == volume.voxels[tuple(place)]
    cosines = {"axial": "x y", "feet first": "-x y", "sagittal": "y -z", "coronal": "x -z"}
    file = pydicom.dcmread(paths[0])
    main = np.reshape(file.ImageOrientationPatient, (2, 3)).astype(float)
    axes = [
        ("-" if r[k] < 0 else "") + "xyz"[k]
        for r, k in zip(main, np.abs(main).argmax(1), strict=True)
    ]
    assert " ".join(axes) == cosines[orientation]
    assert file.PatientPosition == ("FFS" if orientation == "feet first" else "HFS")


def test_neither_names_nor_instance_numbers_tell_the_order_and_a_seed_is_a_series(volume, tmp_path):
    orders, uids = set(), []
    for seed, names in ((0, "shuffled"), (1, "hex"), (2, "shuffled"), (2, "shuffled")):
        paths = dicom_series(volume, tmp_path / str(len(uids)), seed=seed, names=names)
        files = [pydicom.dcmread(path) for path in paths]
        assert sorted(paths) != paths and bool(paths[0].suffix) == (names == "shuffled")
        orders.add(tuple(np.sign(np.diff([file.InstanceNumber for file in files]))))
        uids.append(
            {file[k].value for file in files for k in ("SOPInstanceUID", "SeriesInstanceUID")}
        )
        assert len(uids[-1]) == len(paths) + 1
        assert all(f.PatientName == "PHANTOM^TORSO" and "InstitutionName" not in f for f in files)
    assert len(orders) == 3 and uids[2] == uids[3] and not uids[0] & uids[1]
    again = [sorted(p.read_bytes() for p in (tmp_path / n).iterdir()) for n in "23"]
    assert again[0] == again[1]
    ordered = dicom_series(volume, tmp_path / "ordered", names="ordered")
    assert sorted(ordered) == ordered


@pytest.mark.parametrize("rescale", [None, (1, 0), (0.37, -1500), (4, -2000)])
@pytest.mark.parametrize("modality", ["CT", "MR", "PT"])
def test_reading_undoes_any_rescale_up_to_half_a_step(volume, tmp_path, modality, rescale):
    positive = volume.with_voxels(volume.voxels.clip(-1000 if modality == "CT" else 0))
    paths = dicom_series(positive, tmp_path, modality=modality, rescale=rescale)
    assert np.abs(values(paths) - positive.voxels).max() <= (rescale or [1])[0] / 2
    file = pydicom.dcmread(paths[0])
    assert ("RescaleSlope" in file) == (modality == "CT" or rescale is not None)
    assert file.Modality == modality and ("KVP" in file) == (modality == "CT")


@pytest.mark.parametrize("option", ["modality", "orientation", "names", "trap", None])
def test_what_cannot_be_written_is_refused_before_anything_is(volume, tmp_path, option):
    wrong = volume if option else volume.with_voxels(np.where(volume.voxels > 500, np.nan, 0.0))
    with pytest.raises(ValueError, match="is not one of" if option else "do not fit 16 bits"):
        dicom_series(wrong, tmp_path, **({option: "nonsense"} if option else {}))
    assert not list(tmp_path.iterdir())


# What each fault is, in the files, read with pydicom alone: files in the order of the stack, and
# the volume. How the reader ends on each stands in test_dicom_series.
def tops(files):
    return np.array([f.ImagePositionPatient for f in files], float) @ [0, -0.28, 0.96]


def aside(files):
    """How far each slice lies beside the normal through the first, in mm."""
    away = np.array([f.ImagePositionPatient for f in files], float)
    away -= away[0]
    return np.linalg.norm(away - np.outer(away @ [0, -0.28, 0.96], [0, -0.28, 0.96]), axis=1)


def many(files, keyword):
    return len({str(file.get(keyword)) for file in files})


def hu(files):
    return np.stack([file.pixel_array for file in files]) - 1024.0


LEANS = np.arange(12) * 4 * np.tan(np.radians(15))
FAULTS = {
    "missing_slice": lambda f, v: np.allclose(sorted(np.diff(tops(f))), [4] * 9 + [8]),
    "uneven_spacing": lambda f, v: set(np.diff(tops(f)).round(3)) == {4, 5.6},
    "gantry_tilt": lambda f, v: np.allclose(aside(f), LEANS) and f[0].GantryDetectorTilt == 15,
    "gantry_tilt_untagged": lambda f, v: np.allclose(aside(f), LEANS) and not many(f, "Gantry") > 1,
    "gantry_tilt_lie": lambda f, v: np.ptp(aside(f)) < 1e-6 and f[0].GantryDetectorTilt == 15,
    "shifted_slice": lambda f, v: np.allclose(sorted(aside(f)), [0] * 11 + [10]),
    "duplicate_slice": lambda f, v: many(f, "SOPInstanceUID") == many(f, "PixelData") == 12,
    "conflicting_duplicate": lambda f, v: (
        many(f, "SOPInstanceUID") == 12 and len({x.PixelData for x in f}) == 13
    ),
    "two_phases": lambda f, v: many(f, "SOPInstanceUID") == 24 and len(set(tops(f))) == 12,
    "interleaved": lambda f, v: [x.AcquisitionNumber for x in f] == [1, 2] * 6,
    "mixed_size": lambda f, v: sorted(x.Columns for x in f) == [32] + [40] * 11,
    "scout": lambda f, v: np.allclose(hu(f[-1:])[0], v.voxels.mean(axis=1)[::-1], atol=1),
    "two_series": lambda f, v: many(f, "SeriesInstanceUID") == 2 and many(f, "PatientID") == 1,
    "no_position": lambda f, v: not any("ImagePositionPatient" in x for x in f),
    "monochrome1": lambda f, v: np.array_equal(4095 - 2048 - hu(f), v.voxels),
    "per_slice_rescale": lambda f, v: many(f, "RescaleSlope") == 4,
    "no_rescale": lambda f, v: "RescaleSlope" not in f[0] and np.array_equal(hu(f), v.voxels),
    "float_pixels": lambda f, v: np.array_equal(hu(f) + 1024, v.voxels) and "PixelData" not in f[0],
    "palette": lambda f, v: "RedPaletteColorLookupTableData" in f[0],
    "ybr": lambda f, v: f[0].PhotometricInterpretation == "YBR_FULL" and hu(f).shape[-1] == 3,
    "short_pixels": lambda f, v: sorted(len(x.PixelData) for x in f)[:2] == [1440, 2880],
    "terabytes": lambda f, v: sorted(x.Rows for x in f)[-2:] == [36, 65535],
    "multi_frame": lambda f, v: Volume.from_sitk(sitk.ReadImage(f[0].filename)).same_geometry(v),
    "multi_frame_plain": lambda f, v: hu(f)[0].shape == v.shape and many(f, "PixelSpacing") == 1,
    "mosaic": lambda f, v: np.array_equal(hu(f)[0, 36:72, 80:120], v.voxels[6]),
    "unknown_decoder": lambda f, v: "MPEG-4" in f[0].file_meta.TransferSyntaxUID.name,
    "rt_dose": lambda f, v: np.allclose(np.diff(f[-1].GridFrameOffsetVector), 4),
    "stray": lambda f, v: f[-1].Modality == "US" and "SeriesInstanceUID" not in f[-1],
    "capture": lambda f, v: many(f, "SeriesInstanceUID") == 1 and f[-1].SamplesPerPixel == 3,
    "not_images": lambda f, v: (
        {x.get("Modality") for x in f[12:]} == {None, "ECG", "RTSTRUCT", "SR"}
    ),
    "unicode_path": lambda f, v: {*"Ü腹 "} < {*str(f[0].filename)},
}


@pytest.mark.parametrize("trap", TRAPS)
def test_each_trap_has_the_fault_that_it_names(volume, tmp_path, trap):
    paths = dicom_series(volume, tmp_path, trap=trap, seed=1)
    assert 5 < len(TRAPS[trap]) < 100
    if trap in TRANSFER_SYNTAXES:
        assert pydicom.dcmread(paths[0]).file_meta.TransferSyntaxUID == TRANSFER_SYNTAXES[trap]
        assert np.array_equal(values(paths), volume.voxels)
        image = sitk.ReadImage([str(path) for path in paths])  # GDCM: a second decoder
        assert np.array_equal(sitk.GetArrayFromImage(image), volume.voxels)
    elif trap in ("no_preamble", "truncated"):
        strange = [
            p for p in paths if p.read_bytes()[128:132] != b"DICM" or p.stat().st_size < 3000
        ]
        assert len(strange) == (12 if trap == "no_preamble" else 1)
    else:
        files = []
        for path in paths:
            try:
                files.append(pydicom.dcmread(path))
            except (InvalidDicomError, EOFError):
                assert trap == "not_images"
        assert FAULTS[trap](files, volume), trap


def test_every_trap_is_built_once():
    built = [*HEADER_EDITS, *FILE_EDITS, *TRANSFER_SYNTAXES, "unicode_path"]
    assert sorted(built) == sorted(TRAPS)


def test_the_disc_mixes_what_hospitals_mix(tmp_path):
    disc, files, others = messy_folder(tmp_path), [], []
    for path in sorted(p for p in disc.rglob("*") if p.is_file()):
        try:
            files.append(pydicom.dcmread(path))
        except (InvalidDicomError, EOFError):
            others.append(path.name)
    images = [file for file in files if "PixelData" in file]
    assert sorted({f.SeriesInstanceUID: f.Modality for f in images}.values()) == ["CT"] * 4 + [
        "DX",
        "MR",
    ]
    assert others == [".DS_Store", "empty.dcm", "README.TXT"] and (disc / "DICOMDIR").exists()
    assert sum("LOCALIZER" in file.ImageType for file in images) == 1
    assert len(images) - len({file.SOPInstanceUID for file in images}) == 3
    packed = {TRANSFER_SYNTAXES["jpeg_ls"], TRANSFER_SYNTAXES["jpeg_2000"]}
    assert {f.file_meta.TransferSyntaxUID for f in images} == packed | {ExplicitVRLittleEndian}
    assert len({f.RescaleSlope for f in images if f.Modality == "MR"}) > 1
    (radiograph,) = [file for file in images if file.Modality == "DX"]
    pixels = radiograph.pixel_array  # MONOCHROME1: large values are dark
    assert np.median(pixels[:, :4]) > np.median(pixels[:, pixels.shape[1] // 2 - 5 :][:, :10])
