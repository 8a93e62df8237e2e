"""pydicom: the loops that people write."""

import functools

import numpy as np
from pydicom import dcmread
from pydicom.pixels import apply_rescale

from contenders import loop, read_again, scan_again, scan_loop, tuned_loop


def read(job):
    def pixels(header) -> np.ndarray:
        return apply_rescale(header.pixel_array, header)  # float64

    return read_again(job, lambda folder: loop(folder, dcmread, pixels))


def read_tuned(job):
    def decode(header, out: np.ndarray) -> None:
        np.add(header.pixel_array.view(np.int16), np.int16(header.RescaleIntercept), out=out)

    return read_again(job, lambda folder: tuned_loop(folder, dcmread, decode))


def scan(job, **options):
    open_file = functools.partial(dcmread, stop_before_pixels=True, **options)
    return scan_again(job, lambda folder: scan_loop(folder, open_file))
