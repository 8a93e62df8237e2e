"""TFRecords that lose nothing: write cases to shards with a manifest, verify them, read them.

    from helpers import dicom, records
    found = dicom.find("path/to/dicom")
    records.write("records", found, "volume", dicom.load, salt="a secret")
    records.verify("records")                             # () where nothing is wrong
    dataset = records.read("records", batch=2, seed=0)    # a tf.data.Dataset of dicts

Writing never imports TensorFlow. It starts worker processes, so a script needs the usual
`if __name__ == "__main__":` around it; notebooks do not, and neither does `workers=1`.
"""

from helpers.cases import Case, Found, Rejection, case_hash
from helpers.records.manifest import Fault, Manifest, Shard, verify
from helpers.records.manifest import load as load_manifest
from helpers.records.read import index, read
from helpers.records.schema import DEFAULTS, SCHEMAS, narrowest
from helpers.records.write import Written, write

__all__ = [
    "DEFAULTS", "SCHEMAS", "Case", "Fault", "Found", "Manifest", "Rejection", "Shard", "Written",
    "case_hash", "index", "load_manifest", "narrowest", "read", "verify", "write",
]  # fmt: skip
