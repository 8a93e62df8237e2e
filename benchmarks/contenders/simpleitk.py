"""SimpleITK: its reader of DICOM series, and a B-spline warp."""

import numpy as np
import SimpleITK as sitk

from contenders import read_again, scan_again
from contenders.scipy import Draw, warps

NAMES = sitk.ImageSeriesReader.GetGDCMSeriesFileNames


def series_of(folder: str) -> sitk.ImageSeriesReader:
    series = sitk.ImageSeriesReader()
    series.SetFileNames(NAMES(folder))
    return series


def read(job):
    return read_again(job, lambda folder: sitk.GetArrayFromImage(series_of(folder).Execute()))


def read_tuned(job):
    """The format named, so that it is not guessed for each file; no copy into a NumPy array."""
    while True:
        series = series_of(job["series"])
        series.SetImageIO("GDCMImageIO")
        image = series.Execute()  # it has to outlive the view on it
        yield (sitk.GetArrayViewFromImage(image),)
        del image


def scan(job):
    return scan_again(job, NAMES)


def elastic(job):
    return warps(job, warped)


def warped(image: np.ndarray, mask: np.ndarray, drawn: Draw) -> tuple[np.ndarray, np.ndarray]:
    """A B-spline and then an affine transform; the way is computed once for image and mask."""
    picture, labels = sitk.GetImageFromArray(image), sitk.GetImageFromArray(mask)
    turn = sitk.AffineTransform(3)
    turn.SetMatrix(drawn.matrix[::-1, ::-1].ravel().tolist())
    turn.SetTranslation(drawn.shift[::-1].tolist())
    turn.SetCenter([(n - 1) / 2 for n in picture.GetSize()])
    cells = [n - 3 for n in drawn.control.shape[:0:-1]]
    spline = sitk.BSplineTransformInitializer(picture, cells)
    spline.SetParameters(drawn.control[::-1].ravel().tolist())
    both = sitk.CompositeTransform([turn, spline])  # the last one is the first to act
    way = sitk.TransformToDisplacementField(both, sitk.sitkVectorFloat64, picture.GetSize())
    once, fill = sitk.DisplacementFieldTransform(way), float(image.min())
    result = sitk.Resample(picture, picture, once, sitk.sitkLinear, fill, sitk.sitkFloat32)
    moved = sitk.Resample(labels, labels, once, sitk.sitkNearestNeighbor, 0)
    return sitk.GetArrayFromImage(result), sitk.GetArrayFromImage(moved)
