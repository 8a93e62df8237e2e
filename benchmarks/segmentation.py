"""Segmentation: how fast does DeepLab train, and does it ever wait for its input?

A  MobileNetV2: steps of training, forward and backward, beside keras-hub's DeepLabV3+
B  the same with ResNet50; not in a quick run
C  the lesson's training with real batches, beside one batch that is repeated

README.md says how it is kept fair.
"""

import contextlib

import harness
import numpy as np
from harness import Part, Row, Workers, entry, row
from worker import ContenderFailedError
from workloads import LESSON, NETWORK, lesions

OURS = "helpers.deeplab"
NETWORKS = {
    OURS: ("networks", {}),
    "keras-hub, its encoder": ("keras_hub", {"encoder": "its encoder"}),
    "keras-hub, our encoder": ("keras_hub", {"encoder": "our encoder"}),
    "keras-hub, output stride 32": ("keras_hub", {"encoder": "output stride 32"}),
}
BACKBONES = {"MobileNetV2": (OURS, "keras-hub, our encoder"), "ResNet50": tuple(NETWORKS)}
PHASES = ("forward", "backward", "forward and backward")
FACTS = ("stride", "parameters", *PHASES)
REPEATED = "one batch repeated"
PASS_S = 0.8  # backward is a difference, which needs longer passes


def of(name: str, contender: str, **how: object) -> Row:
    """A contender of a network, which has a process of its own."""
    module, settings = NETWORKS[name]
    return row(f"{module}.{contender}", process=name, **settings, **how)


def parts(options) -> list[Part]:
    made = []
    for letter, (backbone, names) in zip("AB", BACKBONES.items(), strict=True):
        rows = {}
        for name in names:
            rows[f"{name}: forward"] = of(name, "step", graph="forward", kind="")
            rows[f"{name}: training"] = of(name, "step", graph="training", kind="new")
        sizes = {size: {**told, "backbone": backbone} for size, told in NETWORK.items()}
        part = Part(letter, backbone, rows, lambda data_dir, told: {}, "a step")
        if letter == "A" or not options.short:  # its networks take half a minute to build
            made += harness.at_sizes(part, sizes, options)
    how = {"process": "lesson", "items": 16, "units": 16, "ends": 3}
    how |= {"items": 3, "units": 3, "ends": 1} if options.short else {}
    repeated, real = {"batches": "repeated", **how}, {"batches": "real", **how}
    rows = {
        REPEATED: row("networks.lesson_training", kind="new", **repeated),
        "real batches": row("networks.lesson_training", kind="new", **real),
        "batches alone": row("networks.lesson_batches", kind="lesson", **real),
    }
    part = Part("C", "the lesson", rows, lesions, "a step", unit="ms a step")
    return made + harness.at_sizes(part, LESSON, options)


def by_phase(turns: dict) -> dict[str, dict[str, list]]:
    """Phase -> network -> turns; of backward, the difference of both in the same round.

    The optimizer's update belongs to it.

    Raises:
        ContenderFailedError: for a median that is not above 0: the difference is less than noise.
    """
    found = {phase: {} for phase in PHASES}
    for name in dict.fromkeys(one.rpartition(":")[0] for one in turns):
        forward, both = (np.array(turns[f"{name}: {one}"]) for one in ("forward", "training"))
        for phase, several in zip(PHASES, (forward, both - forward, both), strict=True):
            if np.median(several[:, 0]) <= 0:
                raise ContenderFailedError(f"{name}, {phase}: lost in noise; run longer")
            found[phase][name] = several.tolist()
    return found


def facts(part: Part, workers: Workers, job: dict) -> dict[str, dict[str, float]]:
    """What is known of the networks beside their speed; they have logits, and they learn.

    Raises:
        ContenderFailedError: if one has not.
    """
    found = {}
    for name in dict.fromkeys(one.rpartition(":")[0] for one in part.rows):
        with contextlib.suppress(harness.NotInstalledError):
            told = workers.ask(of(name, "told"), "tell", job)["told"]
            (forward, backward, parameters), logits, features, losses = told
            if logits != [job["batch"], *job["size"], 2] or not losses[-1] < losses[0]:
                raise ContenderFailedError(f"{name}: logits {logits}, losses {losses}")
            found[name] = {"stride": job["size"][0] / features[0], "parameters": parameters}
            for phase, n in zip(PHASES, (forward, backward, forward + backward), strict=True):
                found[name][phase] = n / job["batch"] / 1e9  # GFLOP an image
    return found


def report(part: Part, phases: dict, known: dict, job: dict) -> list[dict]:
    """Print the tables of a backbone and give its entries: time, and time for work."""
    columns = {key: {who: one[key] for who, one in known.items()} for key in FACTS}
    harness.show(f"{part.letter}. {part.name}; GFLOP an image", columns, BACKBONES[part.name])
    entries = []
    for phase, turns in phases.items():
        ms = {who: float(np.median([one for one, _ in v])) for who, v in turns.items()}
        work = {who: ms[who] / job["batch"] / known[who][phase] for who in ms}  # ms a GFLOP
        more = {
            "images/s": {who: 1000 * job["batch"] / one for who, one in ms.items()},
            "GFLOP/s": {who: 1000 / one for who, one in work.items()},
            "ahead in work": {who: one / work[OURS] for who, one in work.items()},
        }
        rows = dict.fromkeys(BACKBONES[part.name])
        one = part.but(name=f"{part.name}, {phase}", rows=rows, elements=job["batch"])
        entries += harness.report(one, turns, job, more)
        ours = work.pop(OURS)
        entries += [entry(one.name, ours, "ms a GFLOP", who, v) for who, v in work.items()]
    return entries


def compare(part: Part, workers: Workers, options) -> list[dict]:
    job = part.job(options.data_dir)
    if part.letter == "C":
        options.rounds *= 2  # less of a difference matters here than elsewhere
        turns = harness.measure(part, job, workers, options)
        harness.report(part, turns, job)
        ms = {name: float(np.median([one for one, _ in v])) for name, v in turns.items()}
        repeated = ms.pop(REPEATED)
        return [entry(name, one, "ms a step", REPEATED, repeated) for name, one in ms.items()]
    options.pass_s = 0.02 if options.smoke else PASS_S
    known = facts(part, workers, job)
    return report(part, by_phase(harness.measure(part, job, workers, options)), known, job)


if __name__ == "__main__":
    options = harness.parsed(harness.arguments(__doc__, "ABC"))
    harness.run(options, parts(options), compare)
