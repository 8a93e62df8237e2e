"""From a folder of DICOM files to volumes: `scan` says what is there, `read_series` reads it.

    found = dicom.scan("data/messy_folder")
    found.series, found.rejected          # every file stands in exactly one of the two
    volume = dicom.read_series(found.series[0])

Read in this order: `header` (one file), `stack` (their order), `pixels` (their values), `series`
(the two calls above), `conversion` (`find` and `load`: what the converter asks for).
"""

from helpers.dicom.conversion import find, load
from helpers.dicom.header import Header
from helpers.dicom.series import Rejected, Scan, Series, read_series, scan

__all__ = ["Header", "Rejected", "Scan", "Series", "find", "load", "read_series", "scan"]
