"""One contender of the reading benchmark, in a process of its own; `records.py` starts it.

    python benchmarks/_reading.py CONTENDER DATA_FOLDER RECORDS_FOLDER --batches 20

TensorFlow's allocator keeps what an earlier pipeline has used, so contenders that share a process
are not equal. Prints JSON: mean milliseconds of a batch, processor time, page faults, and the
CRC-32 of each example of the first epoch.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
from _pipelines import (
    NextBatch,
    start_consumer,
    start_float_bytes,
    start_float_list,
    start_floor,
    start_generator,
    start_records,
    start_records_cached,
    start_records_in_step,
    start_records_mapped,
    start_records_repeated,
    start_session,
)
from _workload import Workload, loaded, voxels_of

from helpers import quiet

OURS = "records, mapped"
STREAMED = "records, streamed"
SMALL = (OURS, STREAMED, "float_list, as in 2018")  # for small records
SETTLING = 3  # batches between the checksums and the clock, in which buffers fill again
# glibc: one heap that gives nothing back, so that a batch finds the pages of the one before it.
KEEP_PAGES = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(2**32),
    "MALLOC_TRIM_THRESHOLD_": str(2**35),
}
HUGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}


@dataclasses.dataclass(frozen=True)
class Contender:
    """One way to get batches.

    Args:
        start: takes the workload and a folder of records, gives a function for the next batch.
        kind: "published", "records", "tried" (with records), or "floor".
        shards: files of the folder of records that it reads.
        env: variables of its process.
        slow: a batch takes seconds.
        crops: "stored" crops, "drawn" anew for each example, or "none": no examples at all.
        quick: takes part in a quick run; each process imports TensorFlow, which takes seconds.
    """

    start: Callable[[Workload, Path], NextBatch]
    kind: str
    shards: int = 4
    env: dict[str, str] = dataclasses.field(default_factory=dict)
    slow: bool = False
    crops: str = "stored"
    quick: bool = True


def _with(start: Callable, **options: object) -> Callable[[Workload, Path], NextBatch]:
    return lambda work, folder: start(work, folder, **options)


CONTENDERS = {
    OURS: Contender(start_records_mapped, "records"),
    STREAMED: Contender(_with(start_records), "records"),
    "float_list, as in 2018": Contender(_with(start_float_list, as_in_2018=True), "published"),
    "float_list, today's defaults": Contender(
        _with(start_float_list, as_in_2018=False), "published", quick=False
    ),
    "float_list, TF1 session": Contender(start_session, "published", quick=False),
    "generator": Contender(start_generator, "published", slow=True, crops="drawn"),
    "float32 as raw bytes": Contender(start_float_bytes, "published", quick=False),
    "floor: crop + cast": Contender(_with(start_floor, action="cast"), "floor", crops="none"),
    "floor: crop + cast, 2 threads": Contender(
        _with(start_floor, action="cast", threads=2), "floor", crops="none"
    ),
    "floor: float32 memcpy": Contender(_with(start_floor, action="copy"), "floor", crops="none"),
    "floor: read int16 from the page cache": Contender(
        _with(start_floor, action="read"), "floor", crops="none"
    ),
    "the consumer alone": Contender(start_consumer, "floor", crops="none", quick=False),
    # Tried. Each line changes one thing of `records, streamed`, the last ones of `records, mapped`.
    "1 shard": Contender(_with(start_records), "tried", shards=1),
    "2 shards": Contender(_with(start_records), "tried", shards=2),
    "5 shards": Contender(_with(start_records), "tried", shards=5),
    "cast without XLA": Contender(_with(start_records, xla=False), "tried"),
    "cast in 2 batches at once": Contender(_with(start_records, parallel=2), "tried"),
    "cast not in parallel": Contender(_with(start_records, parallel=None), "tried"),
    "prefetch 2": Contender(_with(start_records, prefetch=2), "tried"),
    "cast in the training step": Contender(start_records_in_step, "tried"),
    "decoded one by one": Contender(_with(start_records, batch_first=False), "tried"),
    "any order": Contender(_with(start_records, options={"deterministic": False}), "tried"),
    "no autotuning": Contender(_with(start_records, options={"autotune__enabled": False}), "tried"),
    "2 threads of its own": Contender(
        _with(start_records, options={"threading__private_threadpool_size": 2}), "tried"
    ),
    "repeat before batch": Contender(start_records_repeated, "tried"),
    "repeat before batch, 2 at once": Contender(_with(start_records_repeated, parallel=2), "tried"),
    "heap keeps its pages": Contender(_with(start_records), "tried", env=KEEP_PAGES),
    "heap keeps its pages, repeat before batch": Contender(
        start_records_repeated, "tried", env=KEEP_PAGES
    ),
    "heap keeps its pages, huge ones": Contender(
        _with(start_records), "tried", env=KEEP_PAGES | HUGE_PAGES
    ),
    "float_list, heap keeps its pages": Contender(
        _with(start_float_list, as_in_2018=True), "tried", env=KEEP_PAGES
    ),
    "int16 in memory (reads nothing)": Contender(start_records_cached, "tried"),
    "mapped, cast in 2 batches at once": Contender(
        _with(start_records_mapped, parallel=2), "tried"
    ),
    "mapped, heap keeps its pages": Contender(start_records_mapped, "tried", env=KEEP_PAGES),
}


def touch(batch: object) -> None:
    """Look at every voxel, by a maximum; a batch that was moved into place was looked at."""
    if isinstance(batch, np.ndarray):
        batch.max()
    elif batch is not None:
        import tensorflow as tf

        float(tf.reduce_max(batch))


def checksums(batch: object) -> list[int]:
    """CRC-32 of each example's bytes."""
    return [zlib.crc32(np.ascontiguousarray(example)) for example in np.asarray(batch)]


def expected_of_drawn(work: Workload, seed: int, count: int) -> list[int]:
    """Checksums of the generator's first examples: all of one subject, at the starts drawn."""
    from _published import random_start

    subject, draws = work.subjects[0], np.random.RandomState(seed)
    shape = voxels_of(subject.path).shape
    starts = [random_start(shape, work.crop, draws.randint) for _ in range(count)]
    return [zlib.crc32(np.ascontiguousarray(work.whitened(subject, s))) for s in starts]


def measure(name: str, work: Workload, folder: Path, batches: int) -> dict[str, object]:
    """Check the first epoch of a contender, then take the time of `batches`.

    Raises:
        SystemExit: if the voxels are not those of the workload, bit for bit.
    """
    contender, seed = CONTENDERS[name], 7
    np.random.seed(seed)  # the published generator draws from the global numbers
    next_batch = contender.start(work, folder)
    crcs: list[int] = []
    if contender.crops == "stored":
        for _ in range(len(work.subjects) // work.batch):
            crcs += checksums(next_batch())
        wrong = sorted(crcs) != sorted(one.crc for one in work.subjects)
    elif contender.crops == "drawn":
        crcs = checksums(next_batch())
        wrong = crcs != expected_of_drawn(work, seed, work.batch)
    else:
        wrong = False
    if wrong:
        raise SystemExit(f"{name}: these are not the voxels of the workload")
    for _ in range(1 if contender.slow else SETTLING):
        touch(next_batch())

    process = psutil.Process()
    before, start = process.cpu_times(), time.perf_counter()
    for _ in range(batches):
        touch(next_batch())
    elapsed = time.perf_counter() - start
    after = process.cpu_times()
    cpu = after.user + after.system - before.user - before.system
    return {"ms": 1000 * elapsed / batches, "cpu_ms": 1000 * cpu / batches, "crcs": sorted(crcs)}


def voxels_in(folder: Path) -> list[int]:
    """CRC-32 of the image bytes of each record, parsed by TensorFlow alone."""
    import tensorflow as tf

    crcs = []
    for file in sorted(folder.glob("*.tfrecord")):
        for serialized in tf.data.TFRecordDataset(str(file)):
            feature = tf.train.Example.FromString(serialized.numpy()).features.feature
            crcs.append(zlib.crc32(feature["image"].bytes_list.value[0]))
    return sorted(crcs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("contender", help="a name, or `voxels`: checksums of a folder's records")
    parser.add_argument("data", type=Path, help="folder of the workload")
    parser.add_argument("records", type=Path, help="folder of the records")
    parser.add_argument("--batches", type=int, default=20)
    options = parser.parse_args()
    quiet.tensorflow_greeting()
    if options.contender == "voxels":
        print(json.dumps(voxels_in(options.records)))
        return
    work = loaded(options.data)
    print(json.dumps(measure(options.contender, work, options.records, options.batches)))


if __name__ == "__main__":
    main()
