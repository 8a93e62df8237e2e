"""The small shared package of the course: one idea a module, each read in one sitting.

    from helpers import dicom
    volume = dicom.read_series("data/ct_torso/case_00")
    volume.voxels.shape, volume.spacing      # [z, y, x] and millimetres in the same order

Importing this package is quick: TensorFlow is loaded where it is first needed, not here.
"""
