"""The segmentation benchmark counts work rightly, and sees what is wrong; nothing is timed."""

import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")
import keras  # noqa: E402

sys.path.append(str(Path(__file__).resolve().parent.parent / "benchmarks"))

import _segmentation_models  # noqa: E402
import _segmentation_pipeline  # noqa: E402
import segmentation  # noqa: E402
from _contest import PEERS, Times, Workers  # noqa: E402
from _segmentation_flops import count  # noqa: E402
from _segmentation_inputs import LESSON, SIZES, make_records  # noqa: E402

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


def test_a_convolution_counts_as_by_hand_and_its_two_gradients_as_much_again():
    conv, depthwise, same = keras.layers.Conv2D, keras.layers.DepthwiseConv2D, {"padding": "same"}
    table = [  # layer, channels; positions of the result, and products at each of them
        (conv(7, 1), 5, H * W, 5 * 7),
        (conv(7, 3, **same), 5, H * W, 9 * 5 * 7),
        (conv(7, 3), 5, (H - 2) * (W - 2), 9 * 5 * 7),
        (conv(7, 7, strides=2, **same), 3, H // 2 * W // 2, 49 * 3 * 7),
        (conv(7, 3, dilation_rate=2, **same), 5, H * W, 9 * 5 * 7),
        (conv(7, 3, dilation_rate=18, **same), 5, H * W, 9 * 5 * 7),  # larger than the map
        (conv(7, 3, dilation_rate=3), 5, (H - 6) * (W - 6), 9 * 5 * 7),
        (depthwise(3, **same), 6, H * W, 9 * 6),
        (depthwise(3, strides=2, depth_multiplier=2, **same), 6, H // 2 * W // 2, 9 * 6 * 2),
        (depthwise(3, dilation_rate=5, **same), 6, H * W, 9 * 6),
        (keras.layers.SeparableConv2D(7, 3, **same), 6, H * W, 9 * 6 + 6 * 7),
        (keras.layers.Dense(7), 5, H * W, 5 * 7),
    ]
    wrong = []
    for number, (layer, channels, positions, products) in enumerate(table):
        by_hand = 2 * B * positions * products
        if forward_and_both(layer, channels) != (by_hand, 3 * by_hand):
            wrong.append(number)
    assert wrong == []


def test_what_results_need_counts_and_nothing_else():
    for left, right, turned in (((4, 3), (3, 5), False), ((3, 4), (3, 5), True)):
        for many in ((), (6,)):
            shapes = ((*many, *left), (*many, *right))
            graph = graph_of(lambda a, b, t=turned: tf.matmul(a, b, transpose_a=t), *shapes)
            assert count(graph) == 2 * 4 * 3 * 5 * (many or (1,))[0]
    layers = keras.Sequential([keras.layers.BatchNormalization(), keras.layers.MaxPooling2D(2)])
    assert count(graph_of(lambda x: layers(x, training=True), (B, H, W, 3))) == 0

    def step(x):
        tf.matmul(x, x)
        return tf.matmul(x, x[:, :1])

    assert count(graph_of(step, (3, 3))) == 2 * 3 * 3
    state = tf.Variable(tf.zeros((3, 3)))

    def change(x):
        state.assign(x @ x)

    assert count(graph_of(change, (3, 3))) == 2 * 27


def test_work_that_would_be_missed_is_refused():
    kernel = tf.ones((3, 3, 3, 2, 4))
    inside = tf.function(lambda x: tf.matmul(x, x), autograph=False)
    for step, shape, words in (
        (lambda x: tf.nn.conv3d(x, kernel, [1] * 5, "SAME"), (1, 4, 4, 4, 2), "Conv3D"),
        (inside, (3, 3), "PartitionedCall"),
        (lambda x: tf.einsum("ij,jk->ik", x, x), (3, 3), "Einsum"),
        (lambda x: tf.matmul(x, tf.ones((3, 2))), (None, 3), "all sizes have to be known"),
    ):
        with pytest.raises(ValueError, match=words):
            count(graph_of(step, shape))


# The workers

JOB = {"backbone": "MobileNetV2", "style": "ours", "size": [64, 96], "batch": 2}


def test_a_step_of_training_learns_and_facts_are_those_of_the_network():
    table = _segmentation_models.contenders(JOB)
    network = {name: prepare() for name, prepare in table.items()}
    losses = [float(loss) for (loss,) in network["training"](6)]
    segmentation.check_learning("ours", losses)
    assert len({*losses}) == 6
    assert all(loss.dtype == np.float64 for (loss,) in network["forward"](1))
    (arrays,) = network["facts"](1)
    facts = segmentation.Facts.of("ours", arrays, JOB)
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
    with pytest.raises(SystemExit, match="logits of shape"):
        segmentation.Facts.of("ours", arrays, JOB | {"size": [96, 128]})


@pytest.mark.skipif(not PEERS.exists(), reason="benchmarks/.venv has the peers")
def test_the_networks_of_keras_hub_have_the_stride_and_the_sizes_that_the_table_gives():
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import _segmentation_models as models\n"
        "builds = {'our encoder': 16, 'its encoder': 16, 'output stride 32': 32}\n"
        "for build, stride in builds.items():\n"
        "    backbone = 'MobileNetV2' if build == 'our encoder' else 'ResNet50'\n"
        "    network, features = models.BUILD[f'keras-hub, {build}'](backbone, (96, 128, 3))\n"
        "    assert network.output_shape == (None, 96, 128, 2), network.output_shape\n"
        "    assert features[1:3] == (96 // stride, 128 // stride), features\n"
    )
    command = [PEERS, "-c", code, str(ROOT / "benchmarks")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "No module named 'keras_hub'" in done.stderr:
        pytest.skip("benchmarks/.venv is older than its requirements.txt")
    assert done.returncode == 0, done.stderr


def test_the_lessons_batches_are_real_and_the_repeated_one_is_another_draw(tmp_path):
    table = _segmentation_pipeline.contenders({"records": str(make_records(20, tmp_path))})
    real, repeated = (list(table[f"{one} alone"]()(2)) for one in ("batches", "repeated"))
    assert len(real) == len(repeated) == 2
    segmentation.check_batches(real, repeated)
    assert not any(np.array_equal(repeated[0][0], images) for images, _ in real)
    assert {LESSON["mask_fill"]} <= {*np.unique(np.stack([masks for _, masks in real])).tolist()}
    assert all(len([*table[name]()(2)]) == 2 for name in ("real batches", "one batch repeated"))


# What ends a run


def test_wrong_batches_and_losses_end_the_run():
    shape = (LESSON["batch"], *LESSON["size"])

    def pair(seed: int) -> tuple[np.ndarray, np.ndarray]:
        random = np.random.default_rng(seed)
        images = random.integers(0, 256, (*shape, 3)).astype(np.float32)
        return images, random.integers(0, 2, (*shape, 1)).astype(np.uint8)

    one, other = pair(1), pair(2)
    segmentation.check_batches([one, other], [one, one])
    wrong = {
        "frozen": ([one, one], [one]),
        "not always": ([one, other], [one, other]),
        "ids {7}": ([(one[0], one[1] * 7)], [one]),
        "from 0 to 255": ([(one[0] * 2, one[1])], [one]),
        "batches of": ([(one[0][:, 1:], one[1][:, 1:])], [one]),
    }
    for words, (real, repeated) in wrong.items():
        with pytest.raises(SystemExit, match=re.escape(words)):
            segmentation.check_batches(real, repeated)
    segmentation.check_learning("x", [0.7, 0.8, 0.6])
    for losses in ([0.7, 0.7], [0.7, float("nan"), 0.5]):
        with pytest.raises(SystemExit, match="x has losses of"):
            segmentation.check_learning("x", losses)


def test_peers_without_keras_hub_take_no_part(tmp_path, monkeypatch):
    assert not segmentation.has_keras_hub(tmp_path / "nowhere")
    monkeypatch.setattr(segmentation, "HAS_KERAS_HUB", "import sys; sys.exit(1)")
    measured = []

    def measure(part, *_):
        measured.extend(part.rows)
        return Times({name: [2.0 if "training" in name else 1.0] for name in part.rows}, {})

    monkeypatch.setattr(segmentation, "measure", measure)
    monkeypatch.setattr(segmentation, "report_networks", lambda part, times, facts: times)
    (part, *_) = segmentation.parts(quick=True)
    times = segmentation.compare_networks(part, Workers({}, Path(sys.executable)), 1)
    assert measured == [f"{segmentation.OURS}: {graph}" for graph in ("forward", "training")]
    assert times["backward"] == {segmentation.OURS: [1.0]}


# The reports


def test_the_report_gives_time_work_and_time_for_work(capsys):
    ours, theirs = segmentation.OURS, segmentation.SAME
    facts = {
        ours: segmentation.Facts({"forward": 1.0, "backward": 2, "both": 3}, 10, 16),
        theirs: segmentation.Facts({"forward": 4.0, "backward": 8, "both": 12}, 20, 16),
    }
    # Theirs takes twice as long for four times the work: behind in images, ahead in work.
    measured = {
        f"{ours}: forward": [80.0, 90, 70], f"{ours}: training": [160.0, 180, 70],
        f"{theirs}: forward": [160.0, 150, 170], f"{theirs}: training": [320.0, 310, 330],
    }  # fmt: skip
    part = next(part for part in segmentation.parts(quick=False) if part.letter == "B")
    part = dataclasses.replace(part, told={"batch": 8, "size": (192, 256)})
    entries = segmentation.report_networks(part, segmentation.by_phase(measured), facts)
    assert [(one["unit"], one["ratio"]) for one in entries] == [
        ("ms", 2.0),
        ("ms a GFLOP", 0.5),
    ] * 3
    assert entries[0]["name"] == "ResNet50, forward"
    assert entries[1]["value"] == 10.0 and entries[1]["against_value"] == 5.0  # 80 ms of 8 GFLOP
    printed = capsys.readouterr().out
    lines = [line.split() for line in printed.splitlines() if line.startswith(f"  {theirs}")]
    assert lines[0][-4:] == ["16", "20", "4.00", "8.00"]
    assert lines[1][-4:] == ["2.00", "x", "0.50", "x"] and "50.0" in lines[1]
    assert printed.count("not installed") == 2
    assert "88.9 to inf" in printed  # a difference of one round may be noise, and bounds no rate
    measured[f"{theirs}: training"] = [160.0, 149, 170]
    with pytest.raises(SystemExit, match=f"{theirs} has a median of .* backward, which is noise"):
        segmentation.by_phase(measured)


def test_the_lessons_report_says_how_much_longer_a_real_step_takes(capsys):
    times = {
        segmentation.REAL: [103.0, 104, 102],
        segmentation.REPEATED: [100.0, 101, 99],
        segmentation.ALONE: [4.0, 5, 4],
    }
    entries = segmentation.report_lesson(times)
    made = [(one["name"], one["ratio"]) for one in entries]
    assert made == [("real batches", 0.971), ("batches alone", 25.0)]
    assert "at most 1.05 x one batch repeated; came out: 1.030 x (round" in capsys.readouterr().out


def test_both_environments_have_the_same_tensorflow_and_keras_and_sizes_fit_them():
    def pins(file: str) -> dict[str, str]:
        found = re.findall(r"^(tensorflow|keras)==(\S+)$", (ROOT / file).read_text("utf-8"), re.M)
        return dict(found)

    course, peers = pins("requirements.txt"), pins("benchmarks/requirements.txt")
    assert course == peers and set(course) == {"tensorflow", "keras"}
    # keras-hub enlarges by whole factors.
    assert all(side % 32 == 0 for told in SIZES.values() for side in told["size"])
