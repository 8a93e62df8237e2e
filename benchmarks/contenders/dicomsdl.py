"""dicomsdl: the same loops, with headers and pixels read in C++."""

import dicomsdl
import numpy as np

from contenders import loop, read_again, scan_again, scan_loop, tuned_loop

LAST_TAG = 0x7FDFFFFF  # before the pixels


def open_file(path, **options):
    return dicomsdl.open(str(path), **options)


def read(job):
    return read_again(job, lambda folder: loop(folder, open_file, lambda one: one.pixelData()))


def read_tuned(job):
    def decode(header, out: np.ndarray) -> None:
        header.copyFrameData(0, out.view(np.uint16))
        out += np.int16(header.RescaleIntercept)

    return read_again(job, lambda folder: tuned_loop(folder, open_file, decode))


def scan(job):
    def open_header(path):
        return open_file(path, load_until=LAST_TAG)

    return scan_again(job, lambda folder: scan_loop(folder, open_header))
