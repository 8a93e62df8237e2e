"""The small shared package of the course, along the way of an image, each module read in a sitting.

    from helpers import dicom
    volume = dicom.read_series("data/ct_torso/case_00")
    volume.voxels.shape, volume.spacing      # [z, y, x] and millimetres in the same order

errors       bad data, named: one table of what is wrong and what to do
quiet        TensorFlow's greeting, held back
volume       voxels with their place in the patient; files, resampling
intensity    windows and whitening
dicom        from a folder of DICOM files to volumes
nifti        NIfTI files that are what they claim to be
pictures     JPEG and PNG, with masks or labels
lists        the data list of a set, and its volumes
splits       patients in train, validation and test
leaks        who, and which image, stands on both sides
cases        what is to become a record
records      TFRecords with a manifest: written, verified, read
augment, crops, sampling, labels            stages of a dataset
memory, smart_cache, pipeline               elements in memory, and batches
deeplab, predict, evaluation                a network, what it says, honest scores
timing                                      how fast, and what holds it up
lesson       what only the course needs: show, checks, phantoms, doctor
commands     `python -m helpers ...`

Importing this package is quick: TensorFlow is loaded where it is first needed, not here.
"""

from helpers import quiet

quiet.tensorflow_greeting()
