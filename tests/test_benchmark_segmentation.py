"""The segmentation benchmark counts work rightly, and sees what is wrong; nothing is timed."""

import json
import re
import subprocess
import sys
import venv
from pathlib import Path

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")
import keras  # noqa: E402

sys.path.append(str(Path(__file__).resolve().parent.parent / "benchmarks"))

import _segmentation_lesson  # noqa: E402
import _segmentation_models  # noqa: E402
import _segmentation_pipeline  # noqa: E402
import segmentation  # noqa: E402
from _segmentation_flops import count  # noqa: E402
from _segmentation_inputs import LESSON, QUICK, Sizes, make_records  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
B, H, W = 2, 12, 10  # a batch, and the sides of its images


def graph_of(step, *shapes) -> tf.Graph:
    specs = [tf.TensorSpec(shape, tf.float32) for shape in shapes]
    return tf.function(step, autograph=False).get_concrete_function(*specs).graph


def forward_and_both(layer, channels: int) -> tuple[int, int]:
    """Operations of a layer, and of it with gradients for its input and its weights."""
    layer.build((B, H, W, channels))

    def both(images):
        with tf.GradientTape() as tape:
            tape.watch(images)
            result = tf.reduce_sum(layer(images) ** 2)
        return tape.gradient(result, [images, *layer.trainable_variables])

    shape = (B, H, W, channels)
    return count(graph_of(layer, shape)), count(graph_of(both, shape))


# What one convolution takes, by hand: two operations for each position of the result, each tap,
# each channel that comes in and each that goes out.
LAYERS = {
    "1x1": (keras.layers.Conv2D(7, 1), 5, 2 * B * H * W * 1 * 5 * 7),
    "3x3": (keras.layers.Conv2D(7, 3, padding="same"), 5, 2 * B * H * W * 9 * 5 * 7),
    "3x3, no padding": (keras.layers.Conv2D(7, 3), 5, 2 * B * (H - 2) * (W - 2) * 9 * 5 * 7),
    "7x7, stride 2": (
        keras.layers.Conv2D(7, 7, strides=2, padding="same"),
        3,
        2 * B * (H // 2) * (W // 2) * 49 * 3 * 7,
    ),
    "3x3, rate 2": (
        keras.layers.Conv2D(7, 3, dilation_rate=2, padding="same"),
        5,
        2 * B * H * W * 9 * 5 * 7,
    ),
    "3x3, rate larger than the map": (
        keras.layers.Conv2D(7, 3, dilation_rate=18, padding="same"),
        5,
        2 * B * H * W * 9 * 5 * 7,
    ),
    "3x3, rate 3, no padding": (
        keras.layers.Conv2D(7, 3, dilation_rate=3),
        5,
        2 * B * (H - 6) * (W - 6) * 9 * 5 * 7,
    ),
    "depthwise": (keras.layers.DepthwiseConv2D(3, padding="same"), 6, 2 * B * H * W * 9 * 6),
    "depthwise, stride 2, twice as many": (
        keras.layers.DepthwiseConv2D(3, strides=2, padding="same", depth_multiplier=2),
        6,
        2 * B * (H // 2) * (W // 2) * 9 * 6 * 2,
    ),
    "depthwise, rate 5": (
        keras.layers.DepthwiseConv2D(3, dilation_rate=5, padding="same"),
        6,
        2 * B * H * W * 9 * 6,
    ),
    "separable": (
        keras.layers.SeparableConv2D(7, 3, padding="same"),
        6,
        2 * B * H * W * (9 * 6 + 6 * 7),
    ),
    "dense": (keras.layers.Dense(7), 5, 2 * B * H * W * 5 * 7),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_convolution_counts_as_by_hand_and_its_two_gradients_as_much_again(name):
    layer, channels, by_hand = LAYERS[name]
    assert forward_and_both(layer, channels) == (by_hand, 3 * by_hand)


def test_products_of_matrices_count_whichever_way_they_lie():
    by_hand = 2 * 4 * 3 * 5
    for left, right, turned in (((4, 3), (3, 5), False), ((3, 4), (3, 5), True)):
        one = graph_of(lambda a, b, t=turned: tf.matmul(a, b, transpose_a=t), left, right)
        assert count(one) == by_hand
        many = graph_of(
            lambda a, b, t=turned: tf.matmul(a, b, transpose_a=t), (6, *left), (6, *right)
        )
        assert count(many) == 6 * by_hand


def test_what_is_no_convolution_and_no_product_does_not_count():
    layers = keras.Sequential(
        [keras.layers.BatchNormalization(), keras.layers.ReLU(), keras.layers.MaxPooling2D(2)]
    )
    assert count(graph_of(lambda x: layers(x, training=True), (B, H, W, 3))) == 0


def test_work_that_would_be_missed_is_refused():
    kernel = tf.ones((3, 3, 3, 2, 4))
    with pytest.raises(ValueError, match="Conv3D"):
        count(graph_of(lambda x: tf.nn.conv3d(x, kernel, [1] * 5, "SAME"), (1, 4, 4, 4, 2)))
    inside = tf.function(lambda x: tf.matmul(x, x), autograph=False)
    with pytest.raises(ValueError, match="PartitionedCall"):
        count(graph_of(inside, (3, 3)))
    with pytest.raises(ValueError, match="Einsum"):
        count(graph_of(lambda x: tf.einsum("ij,jk->ik", x, x), (3, 3)))
    with pytest.raises(ValueError, match="all sizes have to be known"):
        count(graph_of(lambda x: tf.matmul(x, tf.ones((3, 2))), (None, 3)))


def test_only_what_results_need_counts():
    def step(x):
        tf.matmul(x, x)
        return tf.matmul(x, x[:, :1])

    assert count(graph_of(step, (3, 3))) == 2 * 3 * 3
    state = tf.Variable(tf.zeros((3, 3)))

    def change(x):
        state.assign(x @ x)

    assert count(graph_of(change, (3, 3))) == 2 * 27


# The workers

JOB = {"backbone": "MobileNetV2", "build": "ours", "size": [64, 96], "batch": 2}
JOB |= {"steps": 1, "lead": 1}


@pytest.fixture(scope="module")
def network() -> dict:
    table = _segmentation_models.contenders(JOB)
    return {name: prepare() for name, prepare in table.items()}


def test_a_step_of_training_learns_and_each_is_new(network):
    losses = [float(loss) for (loss,) in network["learning"]()]
    segmentation.check_learning("ours", losses)
    assert len({*losses}) == len(losses) == 6
    assert len([*network["training"]()]) == JOB["steps"] + JOB["lead"]
    assert all(loss.dtype == np.float64 for (loss,) in network["forward"]())


def test_facts_are_those_of_the_network(network):
    (arrays,) = network["facts"]()
    facts = segmentation.Facts.of("ours", arrays, JOB["size"], JOB["batch"])
    assert facts.stride == 16
    model = _segmentation_models.ours("MobileNetV2", (64, 96, 3))[0]
    assert facts.parameters == sum(int(np.prod(one.shape)) for one in model.weights)
    # By hand, from the shapes of all layers with a kernel.
    by_hand = 0
    for layer in model.layers:
        if isinstance(layer, keras.layers.DepthwiseConv2D | keras.layers.Conv2D):
            by_hand += 2 * np.prod(layer.output.shape[1:3]) * np.prod(layer.kernel.shape)
    assert facts.gflop["forward"] == pytest.approx(by_hand / 1e9, rel=1e-12)
    # Two gradients for each convolution, and none for the image.
    first = model.get_layer("Conv1")
    to_image = 2 * np.prod(first.output.shape[1:3]) * np.prod(first.kernel.shape) / 1e9
    assert facts.gflop["backward"] == pytest.approx(2 * by_hand / 1e9 - to_image, rel=1e-12)


@pytest.mark.skipif(not segmentation.PEERS.exists(), reason="benchmarks/.venv has the peers")
def test_the_networks_of_keras_hub_have_the_stride_and_the_sizes_that_the_table_gives():
    code = (
        "import sys, json; sys.path.insert(0, sys.argv[1])\n"
        "import _segmentation_models as models\n"
        "said = {}\n"
        "for build in ('same encoder', 'stride 16', 'stride 32'):\n"
        "    backbone = 'MobileNetV2' if build == 'same encoder' else 'ResNet50'\n"
        "    network, features = models.BUILD[build](backbone, (96, 128, 3))\n"
        "    said[build] = [list(network.output_shape), list(features[1:3])]\n"
        "print(json.dumps(said))"
    )
    folder = str(ROOT / "benchmarks")
    done = subprocess.run(
        [segmentation.PEERS, "-c", code, folder], capture_output=True, text=True, check=False
    )
    if "No module named 'keras_hub'" in done.stderr:
        pytest.skip("benchmarks/.venv is older than its requirements.txt")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert all(output == [None, 96, 128, 2] for output, _ in said.values())
    assert said["same encoder"][1] == said["stride 16"][1] == [6, 8]
    assert said["stride 32"][1] == [3, 4]


def test_the_lessons_batches_are_real_and_the_repeated_one_is_another_draw(tmp_path):
    job = {"records": str(make_records(20, tmp_path)), "lesson_steps": 2, "lead": 0, "trail": 0}
    table = _segmentation_pipeline.contenders(job)
    real, repeated = (list(table[f"{one} alone"]()()) for one in ("batches", "repeated"))
    assert len(real) == len(repeated) == 2
    _segmentation_lesson.check_batches(real, repeated)
    assert not any(np.array_equal(repeated[0][0], images) for images, _ in real)
    assert {LESSON["mask_fill"]} <= {*np.unique(np.stack([masks for _, masks in real])).tolist()}
    assert all(len([*table[name]()()]) == 2 for name in ("real batches", "one batch repeated"))


# What ends a run


def pair(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    shape = (LESSON["batch"], *LESSON["size"])
    images = random.integers(0, 256, (*shape, 3)).astype(np.float32)
    return images, random.integers(0, 2, (*shape, 1)).astype(np.uint8)


def test_wrong_batches_end_the_run():
    one, other = pair(1), pair(2)
    _segmentation_lesson.check_batches([one, other], [one, one])
    wrong = {
        "frozen": ([one, one], [one]),
        "not always": ([one, other], [one, other]),
        "ids {7}": ([(one[0], one[1] * 7)], [one]),
        "from 0 to 255": ([(one[0] * 2, one[1])], [one]),
        "batches of": ([(one[0][:, 1:], one[1][:, 1:])], [one]),
    }
    for words, (real, repeated) in wrong.items():
        with pytest.raises(SystemExit, match=re.escape(words)):
            _segmentation_lesson.check_batches(real, repeated)


def test_a_network_that_does_not_learn_or_gives_another_shape_ends_the_run():
    segmentation.check_learning("x", [0.7, 0.8, 0.6])
    for losses in ([0.7, 0.7], [0.7, float("nan"), 0.5]):
        with pytest.raises(SystemExit, match="x: losses of"):
            segmentation.check_learning("x", losses)
    seen: set[int] = set()
    segmentation.check_moving("x", [1, 2], seen)
    for checksums in ([3, 3], [2, 4]):
        with pytest.raises(SystemExit, match="the same loss"):
            segmentation.check_moving("x", checksums, seen)
    arrays = [np.array([10, 30, 5]), np.array([2, 48, 48, 2]), np.array([6, 8])]
    with pytest.raises(SystemExit, match="logits of shape"):
        segmentation.Facts.of("x", arrays, (96, 128), 2)


@pytest.mark.parametrize("backward", [[0.0] * 3, [-1.0, -2, 5]])
@pytest.mark.parametrize("row", [segmentation.OURS, segmentation.SAME])
def test_a_time_that_is_noise_ends_the_run_and_says_to_run_longer(backward, row, capsys):
    one = segmentation.Facts({"forward": 1.0, "backward": 2, "both": 3}, 10, 16)
    rows = (segmentation.OURS, segmentation.SAME)
    times = {phase: {name: [10.0] * 3 for name in rows} for phase in segmentation.PHASES}
    times["backward"][row] = backward
    with pytest.raises(SystemExit, match=f"{row}, backward: a median of .* run longer"):
        segmentation.report_networks("A", times, dict.fromkeys(rows, one), Sizes())
    assert capsys.readouterr().out == ""


def test_one_round_that_is_noise_bounds_no_rate(capsys):
    one = segmentation.Facts({"forward": 1.0, "backward": 2, "both": 3}, 10, 16)
    times = {phase: {segmentation.OURS: [10.0, 20, 0]} for phase in segmentation.PHASES}
    times["backward"] = {segmentation.OURS: [10.0, 20, -1]}
    segmentation.report_networks("A", times, {segmentation.OURS: one}, Sizes(batch=1))
    assert capsys.readouterr().out.count(" 50.0 to inf ") == 3


# Who takes part


class Worker:
    """Answers at once, with what a network of the course could say."""

    def __init__(self, python, _contenders, job) -> None:
        self.job, self.steps = job, 0

    def keep(self, name: str, _count: int) -> list[tuple]:
        size = self.job["size"]
        logits = np.array([self.job["batch"], *size, 2])
        facts = (np.array([10, 30, 5]), logits, np.array(size) // 16)
        return [facts] if name == "facts" else [(0.7,), (0.6,)]

    def run(self, name: str, _lead: int) -> tuple[float, list[int]]:
        self.steps += 1
        return {"forward": 1.0, "training": 3.0}[name], [self.steps]

    def close(self) -> None:
        pass


def test_peers_without_keras_hub_take_no_part(tmp_path, monkeypatch):
    monkeypatch.setattr(segmentation, "Server", Worker)
    venv.create(tmp_path / "peers", symlinks=sys.platform != "win32")
    peers = tmp_path / "peers" / segmentation.PEERS.relative_to(segmentation.PEERS.parents[1])
    for python in (peers, tmp_path / "nowhere"):
        times, facts = segmentation.measure_networks("A", QUICK, python)
        assert {*facts} == {segmentation.OURS}
        assert all({*by_row} == {segmentation.OURS} for by_row in times.values())
    (tmp_path / "keras_hub.py").touch()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    times, facts = segmentation.measure_networks("A", QUICK, peers)
    assert {*facts} == {segmentation.OURS, segmentation.SAME}
    assert times["backward"][segmentation.SAME] == [2000.0] * QUICK.rounds


@pytest.mark.parametrize(
    "parts, networks, batches", [("A", True, False), ("C", False, True), ("AC", True, True)]
)
def test_what_was_checked_is_said_of_the_parts_that_ran(
    parts, networks, batches, monkeypatch, capsys
):
    monkeypatch.setattr(segmentation, "measure_networks", lambda *_: ({}, {}))
    monkeypatch.setattr(segmentation, "report_networks", lambda *_: [])
    monkeypatch.setattr(segmentation, "measure_lesson", lambda *_: {})
    monkeypatch.setattr(segmentation, "report_lesson", lambda *_: [])
    monkeypatch.setattr(sys, "argv", ["segmentation.py", "--parts", parts])
    segmentation.main()
    said = capsys.readouterr().out
    assert ("Networks were checked" in said, "Batches were checked" in said) == (networks, batches)


# The reports


def test_the_report_gives_time_work_and_time_for_work(capsys):
    row = segmentation.SAME
    facts = {
        segmentation.OURS: segmentation.Facts({"forward": 1.0, "backward": 2, "both": 3}, 10, 16),
        row: segmentation.Facts({"forward": 4.0, "backward": 8, "both": 12}, 20, 16),
    }
    # Theirs takes twice as long for four times the work: behind in images, ahead in work.
    ours, theirs = [80.0, 90, 70], [160.0, 150, 170]
    times = {
        phase: {segmentation.OURS: ours, row: theirs} for phase in ("forward", "backward", "both")
    }
    entries = segmentation.report_networks("A", times, facts, Sizes(batch=8))
    assert [(one["unit"], one["ratio"]) for one in entries] == [
        ("ms", 2.0), ("ms a GFLOP", 0.5), ("GFLOP an image", 4.0)
    ] * 3  # fmt: skip
    assert entries[0]["name"] == "MobileNetV2, forward"
    assert entries[1]["value"] == 10.0 and entries[1]["against_value"] == 5.0  # 80 ms of 8 GFLOP
    printed = capsys.readouterr().out
    lines = [line for line in printed.splitlines() if line.startswith(f"  {row}")]
    assert lines[0].split()[-4:] == ["16", "20", "4.00", "8.00"]
    assert lines[1].split()[-4:] == ["2.00", "x", "0.50", "x"] and " 50.0 " in lines[1]
    assert (
        f"the work a second of {row}; came out: forward 0.50 x, backward 0.50 x, forward and "
        "backward 0.50 x" in printed
    )


def test_peers_that_are_not_there_are_said_to_be_missing(capsys):
    one = segmentation.Facts({"forward": 1.0, "backward": 2, "both": 3}, 10, 16)
    times = {phase: {segmentation.OURS: [10.0]} for phase in ("forward", "backward", "both")}
    facts = {segmentation.OURS: one}
    assert segmentation.report_networks("B", times, facts, Sizes()) == []
    assert capsys.readouterr().out.count("not installed") == 3


def test_the_lessons_report_says_how_much_longer_a_real_step_takes(capsys):
    times = {
        _segmentation_lesson.REAL: [103.0, 104, 102],
        _segmentation_lesson.REPEATED: [100.0, 101, 99],
        _segmentation_lesson.ALONE: [4.0, 5, 4],
    }
    entries = _segmentation_lesson.report_lesson(times)
    assert [(one["name"], one["ratio"]) for one in entries] == [
        ("real batches", 0.971), ("batches alone", 25.0)
    ]  # fmt: skip
    assert "at most 1.05 x one batch repeated; came out: 1.030 x (round" in capsys.readouterr().out


def test_sizes_fit_keras_hub_which_enlarges_by_whole_factors():
    for sizes in (Sizes(), QUICK):
        assert all(side % 32 == 0 for side in sizes.size)
        assert set(sizes.steps) <= {backbone for backbone, _ in segmentation.PARTS.values()}
    assert Sizes().rounds >= 5 and Sizes().lesson_rounds >= 5
    assert set(Sizes().steps) == {backbone for backbone, _ in segmentation.PARTS.values()}


def test_both_environments_have_the_same_tensorflow_and_keras():
    def pins(file: str) -> dict[str, str]:
        found = re.findall(r"^(tensorflow|keras)==(\S+)$", (ROOT / file).read_text("utf-8"), re.M)
        return dict(found)

    course, peers = pins("requirements.txt"), pins("benchmarks/requirements.txt")
    assert course == peers and set(course) == {"tensorflow", "keras"}
