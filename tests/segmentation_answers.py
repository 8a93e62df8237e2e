"""Right and wrong answers to the exercises of notebook 06, for `test_checks.py`."""

import dataclasses
import math

import numpy as np
import SimpleITK as sitk
from scipy import ndimage
from sklearn.metrics import accuracy_score, f1_score, jaccard_score

from helpers import deeplab, evaluation, quiet
from helpers.augment import warp

quiet.tensorflow_greeting()
import keras  # noqa: E402
import tensorflow as tf  # noqa: E402

# --- receptive fields ---


def forwards(adds=lambda k, s, d: (k - 1) * d, grows=lambda k, s, d: s, start=1):
    def answer(layers):
        side, step = start, 1
        for layer in layers:
            side += adds(*layer) * step
            step *= grows(*layer)
        return side

    return answer


def own_stride(layers):
    side, step = 1, 1
    for kernel, stride, dilation in layers:
        step *= stride
        side += (kernel - 1) * dilation * step
    return side


def backwards(layers):
    side = 1
    for kernel, stride, dilation in reversed(layers):
        side = (side - 1) * stride + (kernel - 1) * dilation + 1
    return side


def backwards_without_minus(layers):
    side = 1
    for kernel, stride, dilation in reversed(layers):
        side = side * stride + (kernel - 1) * dilation
    return side


def with_sums(layers):
    strides = [stride for _, stride, _ in layers]
    return 1 + sum((k - 1) * d * math.prod(strides[:i]) for i, (k, _, d) in enumerate(layers))


def pixel_by_pixel(layers):
    """Which pixels one value sees, without a formula."""
    seen = {0}
    for kernel, stride, dilation in layers[::-1]:
        seen = {place * stride + tap * dilation for place in seen for tap in range(kernel)}
    return max(seen) - min(seen) + 1


def with_gradient(layers):
    """Ask TensorFlow which pixels change the first value."""
    length = pixel_by_pixel(layers)
    pixels = tf.Variable(tf.zeros([1, length, 1]))
    with tf.GradientTape() as tape:
        values = pixels
        for kernel, stride, dilation in layers:
            spread = np.zeros([(kernel - 1) * dilation + 1, 1, 1], np.float32)
            spread[::dilation] = 1
            values = tf.nn.conv1d(values, spread, stride, "VALID")
        first = values[0, 0, 0]
    touched = np.flatnonzero(tape.gradient(first, pixels))
    return touched[-1] - touched[0] + 1


def with_keras(layers):
    """The same layers as a network, whose receptive field `deeplab` tells."""
    values = pixels = keras.Input([None, None, 1])
    for kernel, stride, dilation in layers:
        # No layer of Keras has both a stride and a dilation.
        values = keras.layers.Conv2D(1, kernel, dilation_rate=dilation)(values)
        values = keras.layers.Conv2D(1, 1, stride)(values)
    network = keras.Model(pixels, values)
    return deeplab.receptive_field(network, network.layers[-1].name)


def strides_added(layers):
    side, step = 1, 1
    for kernel, stride, dilation in layers:
        side += (kernel - 1) * dilation * step
        step += stride
    return side


# --- scaled pairs ---


def size_of(image, factor, whole=tf.round):
    sides = tf.cast(tf.shape(image)[:2], tf.float32)
    return tf.cast(whole(sides * factor), tf.int32)


def fitted(one, height, width, fill):
    """Cut or padded about the centre; TensorFlow pads with 0 only."""
    return tf.image.resize_with_crop_or_pad(one - fill, height, width) + fill


def resized(
    whole=tf.round,
    factor_of=lambda factor: factor,
    image_method="bilinear",
    mask_method="nearest",
    antialias=False,
    fill=127.0,
    mask_fill=255,
    fit=fitted,
    same_size=True,
    mask_scaled=True,
    image_scaled=True,
):
    def answer(image, mask, factor):
        height, width, _ = image.shape
        size = size_of(image, factor_of(factor), whole)
        if image_scaled:
            larger = tf.image.resize(image, size, image_method, antialias=antialias)
            image = tf.cast(larger, tf.float32)
            image = fit(image, height, width, fill) if same_size else image
        image = tf.cast(image, tf.float32)
        if mask_scaled:
            larger = tf.cast(tf.image.resize(mask, size, mask_method), tf.int32)
            mask = fit(larger, height, width, mask_fill) if same_size else larger
        return image, tf.cast(mask, tf.uint8)

    return answer


def at_corner(one, height, width, fill):
    one = tf.pad(one - fill, [[0, height], [0, width], [0, 0]]) + fill
    return one[:height, :width]


def pad_and_cut(image, mask, factor):
    """A margin as wide as the image, then crop, each step with TensorFlow's own arguments."""
    height, width, _ = image.shape
    size = size_of(image, factor)
    margin = [[height, height], [width, width], [0, 0]]
    image = tf.pad(tf.image.resize(image, size), margin, constant_values=127)
    mask = tf.pad(tf.image.resize(mask, size, "nearest"), margin, constant_values=255)
    top = (size[0] + 2 * height - height) // 2
    left = (size[1] + 2 * width - width) // 2
    part = [top, left, 0]
    return tf.slice(image, part, [height, width, 3]), tf.slice(mask, part, [height, width, 1])


def by_branches(image, mask, factor):
    """AutoGraph turns the `if` into one of the graph."""
    height, width, _ = image.shape
    size = size_of(image, factor)
    image, mask = tf.image.resize(image, size), tf.image.resize(mask, size, "nearest")
    if factor >= 1:
        image = tf.image.resize_with_crop_or_pad(image, height, width)
        mask = tf.image.resize_with_crop_or_pad(mask, height, width)
    else:
        top, left = (height - size[0]) // 2, (width - size[1]) // 2
        margin = [
            [top, height - size[0] - top],
            [left, width - size[1] - left],
            [0, 0],
        ]
        image = tf.pad(image, margin, constant_values=127.0)
        mask = tf.pad(mask, margin, constant_values=tf.constant(255, tf.uint8))
    return tf.ensure_shape(image, (height, width, 3)), tf.ensure_shape(mask, (height, width, 1))


def projected(image, mask, factor):
    """TensorFlow's projective transform, about the centre."""
    height, width, _ = image.shape
    back = 1 / factor
    y, x = (1 - back) * (height - 1) / 2, (1 - back) * (width - 1) / 2
    transform = tf.stack([back, 0.0, x, 0.0, back, y, 0.0, 0.0])[None]

    def apply(one, how, fill):
        return tf.raw_ops.ImageProjectiveTransformV3(
            images=tf.cast(one, tf.float32)[None],
            transforms=transform,
            output_shape=[height, width],
            fill_value=fill,
            interpolation=how,
            fill_mode="CONSTANT",
        )[0]

    return apply(image, "BILINEAR", 127.0), tf.cast(apply(mask, "NEAREST", 255.0), tf.uint8)


def with_boxes(image, mask, factor):
    height, width, _ = image.shape
    box = tf.stack([0.5 - 0.5 / factor, 0.5 - 0.5 / factor, 0.5 + 0.5 / factor, 0.5 + 0.5 / factor])

    def cut(one, how, fill):
        one = tf.cast(one, tf.float32)[None]
        return tf.image.crop_and_resize(one, box[None], [0], [height, width], how, fill)[0]

    return cut(image, "bilinear", 127.0), tf.cast(cut(mask, "nearest", 255.0), tf.uint8)


def gathered(image, mask, factor):
    """Looked up by hand: four neighbours for the image, the nearest for the mask."""
    sides = image.shape[:2]
    at = [(tf.range(n, dtype=tf.float32) - (n - 1) / 2) / factor + (n - 1) / 2 for n in sides]
    y, x = tf.meshgrid(*at, indexing="ij")

    def look_up(one, y, x, fill):
        row, column = tf.cast(y, tf.int32), tf.cast(x, tf.int32)
        inside = (y >= 0) & (y < sides[0]) & (x >= 0) & (x < sides[1])
        row, column = (
            tf.clip_by_value(row, 0, sides[0] - 1),
            tf.clip_by_value(column, 0, sides[1] - 1),
        )
        return tf.where(inside[..., None], tf.gather_nd(one, tf.stack([row, column], -1)), fill)

    pixels = tf.cast(image, tf.float32)
    blended = tf.zeros_like(pixels)
    for below, share_y in ((tf.floor(y), 1 - y % 1), (tf.floor(y) + 1, y % 1)):
        for left, share_x in ((tf.floor(x), 1 - x % 1), (tf.floor(x) + 1, x % 1)):
            blended += (share_y * share_x)[..., None] * look_up(pixels, below, left, 127.0)
    nearest = look_up(mask, tf.round(y), tf.round(x), tf.constant(255, tf.uint8))
    return blended, nearest


def with_augment(image, mask, factor, **outside):
    there = warp.Warp(tf.linalg.diag([1 / factor, 1 / factor, 1.0])[None])
    outside = outside or {"fill": 127.0, "mask_fill": 255}
    return tuple(one[0] for one in warp.resample(image[None], mask[None], there, **outside))


def with_borders(fill):
    def answer(image, mask, factor):
        return with_augment(image, mask, factor, fill=fill)

    return answer


def only_larger(image, mask, factor):
    return resized()(image, mask, tf.maximum(factor, 1.0))


def with_keras_ops(image, mask, factor):
    height, width, _ = image.shape
    back = 1 / factor
    y, x = (1 - back) * (height - 1) / 2, (1 - back) * (width - 1) / 2
    matrix = tf.stack([back, 0.0, x, 0.0, back, y, 0.0, 0.0])
    image = keras.ops.image.affine_transform(
        tf.cast(image, tf.float32), matrix, "bilinear", "constant", 127.0
    )
    mask = keras.ops.image.affine_transform(
        tf.cast(mask, tf.float32), matrix, "nearest", "constant", 255.0
    )
    return image, tf.cast(mask, tf.uint8)


def padded_before(image, mask, factor):
    """The margin is there before all is resized, the mask with the image."""
    height, width, _ = image.shape
    margin = [[height, height], [width, width], [0, 0]]
    image = tf.pad(tf.cast(image, tf.float32), margin, constant_values=127)
    mask = tf.pad(tf.cast(mask, tf.float32), margin, constant_values=255)
    size = size_of(image, factor)
    both = tf.image.resize(tf.concat([image, mask], -1), size)
    both = tf.image.resize_with_crop_or_pad(both, height, width)
    return both[..., :3], tf.cast(both[..., 3:], tf.uint8)


def source_first(whole):
    """Cut or padded to what will be seen, then resized to the size that it had."""

    def answer(image, mask, factor):
        height, width, _ = image.shape
        seen = size_of(image, 1 / factor, whole)
        image = fitted(tf.cast(image, tf.float32), *tf.unstack(seen), 127.0)
        mask = fitted(tf.cast(mask, tf.int32), *tf.unstack(seen), 255)
        mask = tf.image.resize(mask, (height, width), "nearest")
        return tf.image.resize(image, (height, width)), tf.cast(mask, tf.uint8)

    return answer


def with_one_field_per_id(image, mask, factor):
    """The id whose field, scaled bilinearly, is the strongest."""
    height, width, _ = image.shape
    ids = tf.constant([0, 2, 5, 255])
    fields = tf.cast(tf.equal(tf.cast(mask, tf.int32), ids), tf.float32)
    fields = tf.image.resize(fields, size_of(image, factor))
    strongest = tf.gather(ids, tf.argmax(fields, -1))[..., None]
    strongest = fitted(strongest, height, width, 255)
    return resized()(image, mask, factor)[0], tf.cast(strongest, tf.uint8)


def with_numpy_function(image, mask, factor):
    def pair(image, mask, factor):
        made = resized()(tf.constant(image), tf.constant(mask), tf.constant(factor))
        return [one.numpy() for one in made]

    shapes = image.shape, mask.shape
    made = tf.numpy_function(pair, [image, mask, factor], [tf.float32, tf.uint8])
    return tuple(tf.ensure_shape(one, shape) for one, shape in zip(made, shapes, strict=True))


def with_other_ids(*changes):
    """A right pair of a mask in which one id after the other is replaced."""

    def answer(image, mask, factor):
        for old, new in changes:
            mask = tf.where(mask == old, tf.constant(new, tf.uint8), mask)
        return resized()(image, mask, factor)

    return answer


def mask_by(answer):
    """A right image, and the mask that another answer gives."""
    return lambda *given: (resized()(*given)[0], answer(*given)[1])


def shifted(image_by=0, mask_by=0):
    """A right pair, of which one is moved up."""

    def up(one, pixels, fill):
        return tf.pad(one[pixels:] - fill, [[0, pixels], [0, 0], [0, 0]]) + fill

    def answer(image, mask, factor):
        image, mask = resized()(image, mask, factor)
        mask = tf.cast(up(tf.cast(mask, tf.int32), mask_by, 255), tf.uint8)
        return up(image, image_by, 127.0), mask

    return answer


def otherwise_in_the_graph(change):
    """Right alone, and of another structure in `Dataset.map`."""

    def answer(image, mask, factor):
        pair = resized()(image, mask, factor)
        return change(*pair, factor) if tf.inside_function() else pair

    return answer


def draws_its_own(image, mask, factor):
    # By the clock: with a global seed, every pass would draw the same.
    drawn = 0.5 + tf.math.floormod(tf.timestamp() * 997, 1.5)
    return resized()(image, mask, tf.cast(drawn, tf.float32))


def draws_while_tracing(image, mask, factor):
    return resized()(image, mask, tf.constant(1.37 if tf.inside_function() else factor))


def with_numpy(image, mask, factor):
    by = np.float32(factor)
    return resized()(image, mask, tf.constant(by))


def draws_a_flip(image, mask, factor):
    image, mask = resized()(image, mask, factor)
    return (image[:, ::-1], mask[:, ::-1]) if factor < 1 else (image, mask)


def floats_for_sizes(image, mask, factor):
    height, width, _ = image.shape
    size = [height * factor, width * factor]
    image, mask = tf.image.resize(image, size), tf.image.resize(mask, size, "nearest")
    return fitted(image, height, width, 127.0), 255 - fitted(255 - mask, height, width, 0)


def one_axis(axis):
    def answer(image, mask, factor):
        height, width, _ = image.shape
        size = tf.where([axis == 0, axis == 1], size_of(image, factor), [height, width])
        image, mask = tf.image.resize(image, size), tf.image.resize(mask, size, "nearest")
        mask = fitted(tf.cast(mask, tf.int32), height, width, 255)
        return fitted(image, height, width, 127.0), tf.cast(mask, tf.uint8)

    return answer


def after(change):
    """A right pair, changed in the end."""
    return lambda image, mask, factor: change(*resized()(image, mask, factor))


# --- Dice ---


def dice_by(both_of, true_of, found_of, rule=lambda both, true, found: 2 * both / (true + found)):
    def answer(truth, predicted):
        with np.errstate(all="ignore"):
            sums = [
                of(truth, predicted).sum((1, 2), dtype=float) for of in (both_of, true_of, found_of)
            ]
            return rule(*sums)

    return answer


def kept(truth, predicted):
    return predicted * (truth != 255)


def lesion(truth, predicted):
    return truth == 1


def both(truth, predicted):
    return (truth == 1) * predicted


def by_rule(rule):
    return dice_by(both, lesion, kept, rule)


def in_a_loop(empty=np.nan, ignored=255, measure=None):
    def of_one(true, found):
        if measure is not None:
            return measure(true, found)
        sizes = np.count_nonzero(true) + np.count_nonzero(found)
        return 2 * np.count_nonzero(true & found) / sizes if sizes else empty

    def answer(truth, predicted):
        return [
            of_one(true[true != ignored] == 1, found[true != ignored] == 1)
            for true, found in zip(truth, predicted, strict=True)
        ]

    return answer


def matrices(truth, predicted):
    pairs = zip(truth, predicted, strict=True)
    return np.stack([evaluation.confusion(*pair, 2) for pair in pairs])


def with_deeplab(truth, predicted):
    return evaluation.dice(matrices(truth, predicted))[:, 1]


def with_deeplab_of(classes):
    return lambda truth, predicted: evaluation.dice(matrices(truth, predicted))[
        :, classes
    ].squeeze()


def mean_with_background(truth, predicted):
    return np.nanmean(with_deeplab_of([0, 1])(truth, predicted), axis=1)


def with_where(truth, predicted):
    count = truth != 255
    both = ((truth == 1) & (predicted == 1)).sum(axis=(1, 2))
    sizes = (truth == 1).sum(axis=(1, 2)) + ((predicted == 1) & count).sum(axis=(1, 2))
    return np.where(sizes > 0, 2 * both / sizes, np.nan)


def with_masked_arrays(truth, predicted):
    ignored = truth == 255
    true = np.ma.masked_array(truth, ignored)
    found = np.ma.masked_array(predicted, ignored)
    sizes = true.sum((1, 2), dtype=float) + found.sum((1, 2), dtype=float)
    return np.ma.filled(2 * (true * found).sum((1, 2)) / sizes, np.nan)


def with_tensorflow(truth, predicted):
    count = truth != 255
    true = tf.cast((truth == 1) & count, tf.float32)
    found = tf.cast((predicted == 1) & count, tf.float32)
    both = tf.reduce_sum(true * found, axis=[1, 2])
    return 2 * both / (tf.reduce_sum(true, axis=[1, 2]) + tf.reduce_sum(found, axis=[1, 2]))


def with_sums_in_uint8(truth, predicted):
    """TensorFlow adds up in the dtype of what is added."""
    counts = tf.cast(truth != 255, tf.uint8)
    true, found = tf.cast(truth == 1, tf.uint8), predicted * counts
    both = tf.reduce_sum(true * found, axis=[1, 2])
    return 2 * both / (tf.reduce_sum(true, axis=[1, 2]) + tf.reduce_sum(found, axis=[1, 2]))


def with_sums_of_python(truth, predicted):
    """Python's `sum` adds NumPy's scalars, which keep their dtype."""
    values = []
    for true, found in zip(truth, predicted, strict=True):
        found = found * (true != 255)
        true = (true == 1).astype(np.uint8)
        size = sum(map(sum, true)) + sum(map(sum, found))
        values.append(2 * sum(map(sum, true * found)) / size if size else np.nan)
    return values


def empty_before_ignoring(truth, predicted):
    """Whether there is anything is asked while the ignored pixels are still there."""
    anything = (truth == 1).any((1, 2)) | (predicted == 1).any((1, 2))
    return np.where(anything, np.nan_to_num(with_where(truth, predicted)), np.nan)


def setting_in_place(truth, predicted):
    predicted[truth == 255] = 0
    return with_where(truth, predicted)


def dropping_empty(truth, predicted):
    values = with_where(truth, predicted)
    return values[~np.isnan(values)]


# --- predictions in their scan ---


def with_resample_like(ids, grid, scan):
    return grid.with_voxels(ids).resample_like(scan, is_mask=True)


def with_sitk(how=sitk.sitkNearestNeighbor, axes=(0, 1, 2), origin=None, spacing=None, turn=True):
    def answer(ids, grid, scan):
        image = sitk.GetImageFromArray(np.flip(ids, [a for a in range(3) if a not in axes]))
        image.SetSpacing((spacing or grid.spacing)[::-1])
        image.SetOrigin(grid.origin if origin is None else origin(scan))
        if turn:
            image.SetDirection(grid.direction.ravel().tolist())
        image = sitk.Resample(image, scan.to_sitk(), sitk.Transform(), how, 0)
        return scan.with_voxels(sitk.GetArrayFromImage(image))

    return answer


def indices(grid, scan):
    corner = grid.to_index(scan.to_patient((0, 0, 0)))
    matrix = np.stack([grid.to_index(scan.to_patient(one)) - corner for one in np.eye(3)], -1)
    return matrix, corner


def with_scipy(mode="grid-constant", order=0):
    def answer(ids, grid, scan):
        matrix, corner = indices(grid, scan)
        given = {"order": order, "mode": mode, "cval": 0, "output_shape": scan.shape}
        return scan.with_voxels(ndimage.affine_transform(ids, matrix, corner, **given))

    return answer


def with_loops(ids, grid, scan):
    """One voxel after the other."""
    found = np.zeros(scan.shape, ids.dtype)
    matrix, corner = indices(grid, scan)
    for place in np.ndindex(*scan.shape):
        at = np.floor(matrix @ place + corner + 0.5).astype(int)
        if (at >= 0).all() and (at < ids.shape).all():
            found[place] = ids[tuple(at)]
    return dataclasses.replace(scan, voxels=found)


def zoomed(**options):
    def answer(ids, grid, scan):
        by = np.divide(scan.shape, ids.shape)
        return scan.with_voxels(ndimage.zoom(ids, by, order=0, **options))

    return answer


def zoomed_by_spacing(ids, grid, scan):
    """In the right size, but laid into the scan's first corner."""
    by = np.divide(grid.spacing, scan.spacing)
    return laid_at(lambda scan, grid: (0, 0, 0))(ndimage.zoom(ids, by, order=0), grid, scan)


def from_the_corner(ids, grid, scan):
    """Right for a grid of the whole scan, whose first corner is the scan's."""
    corner = scan.to_patient((np.divide(grid.spacing, scan.spacing) - 1) / 2)
    moved = dataclasses.replace(grid, voxels=ids, origin=tuple(corner))
    return moved.resample_like(scan, is_mask=True)


def laid_at(start_of):
    def answer(ids, grid, scan):
        found = np.zeros(scan.shape, ids.dtype)
        start = np.maximum(np.rint(start_of(scan, grid)).astype(int), 0)
        room = np.minimum(ids.shape, np.subtract(scan.shape, start))
        part = tuple(slice(a, a + n) for a, n in zip(start, room, strict=True))
        found[part] = ids[tuple(map(slice, room))]
        return scan.with_voxels(found)

    return answer


def rounded(ids, grid, scan):
    linear = grid.with_voxels(ids.astype(np.float32)).resample_like(scan)
    return linear.with_voxels(np.rint(linear.voxels).astype(ids.dtype))


def strongest_field(ids, grid, scan):
    """Linear, but each id by itself; the strongest is taken."""
    known = np.union1d(ids, 0)
    fields = [
        sitk.Resample(
            grid.with_voxels((ids == one).astype(np.float32)).to_sitk(),
            scan.to_sitk(),
            sitk.Transform(),
            sitk.sitkLinear,
            float(one == 0),
        )
        for one in known
    ]
    strongest = np.argmax([sitk.GetArrayFromImage(field) for field in fields], axis=0)
    return scan.with_voxels(known[strongest].astype(ids.dtype))


def rounded_down(ids, grid, scan):
    """As `with_loops`, but an index is the whole number below."""
    matrix, corner = indices(grid, scan)
    places = np.indices(scan.shape).reshape(3, -1)
    at = np.floor(matrix @ places + corner[:, None]).astype(int)
    ends = np.reshape(ids.shape, (3, 1))
    inside = ((at >= 0) & (at < ends)).all(0)
    found = np.where(inside, ids[tuple(np.clip(at, 0, ends - 1))], 0)
    return scan.with_voxels(found.astype(ids.dtype).reshape(scan.shape))


def turned(*axes):
    return lambda ids, grid, scan: with_resample_like(np.flip(ids, axes), grid, scan)


def turned_after(*axes):
    return lambda ids, grid, scan: scan.with_voxels(
        np.flip(with_resample_like(ids, grid, scan).voxels, axes)
    )


def in_geometry(**of_scan):
    """The right voxels, but with some of the geometry left as it is by default."""

    def answer(ids, grid, scan):
        right = with_resample_like(ids, grid, scan)
        return dataclasses.replace(right, **of_scan)

    return answer


RIGHT = {
    "receptive_field": [
        forwards(),
        backwards,
        with_sums,
        pixel_by_pixel,
        with_gradient,
        with_keras,
        lambda layers: np.int64(forwards()(layers)),
    ],
    "scaled": [
        resized(),
        resized(antialias=True),
        floats_for_sizes,
        resized(whole=tf.floor),
        resized(whole=tf.math.ceil),
        pad_and_cut,
        by_branches,
        projected,
        with_boxes,
        gathered,
        with_augment,
        with_keras_ops,
        source_first(tf.round),
        source_first(tf.math.ceil),
        with_one_field_per_id,
        with_numpy_function,
    ],
    "dice_of_cases": [
        with_deeplab,
        with_where,
        with_masked_arrays,
        with_tensorflow,
        by_rule(lambda both, true, found: 2 * both / (true + found)),
        by_rule(lambda both, true, found: 1 / (1 + (true + found - 2 * both) / (2 * both))),
        in_a_loop(),
        in_a_loop(measure=lambda true, found: f1_score(true, found, zero_division=np.nan)),
    ],
    "in_scan": [
        with_resample_like,
        with_sitk(),
        with_scipy(),
        with_scipy("constant"),
        with_loops,
        lambda *given: dataclasses.replace(with_resample_like(*given), notes=("by the network",)),
    ],
}

WRONG = {
    "receptive_field": [
        (forwards(lambda k, s, d: k - 1), "the dilation is missing"),
        (forwards(grows=lambda *_: 1), "the strides are missing"),
        (forwards(lambda k, s, d: k - 1, lambda *_: 1), "strides and dilation are missing"),
        (own_stride, "a layer's own stride counts for the layers behind it"),
        (forwards(lambda k, s, d: k * d - 1), "you took k d for the size of a dilated kernel"),
        (forwards(lambda k, s, d: k * d), "not the k - 1 gaps between them"),
        (forwards(lambda k, s, d: (k - 1) * d + 1), "adds the whole of its kernel"),
        (forwards(lambda k, s, d: (k - 1) * d + 1, start=0), "added up from 0 on"),
        (forwards(grows=lambda k, s, d: s * d), "does not lengthen the steps of later layers"),
        (lambda layers: forwards()(layers[::-1]), "the layers are in reverse"),
        (backwards_without_minus, "from the last layer back"),
        (strides_added, "strides multiply, they do not add up"),
        (lambda layers: math.prod(k for k, _, _ in layers), "kernels do not multiply"),
        (lambda layers: sum(k for k, _, _ in layers), "kernels are added up"),
        (lambda layers: math.prod(s for _, s, _ in layers), "the step from one value to the next"),
        (forwards(start=0), "for [(3, 1, 1)] you returned 2, it is 3: one too few"),
        (forwards(start=2), "one too many"),
        (lambda layers: forwards()(layers) ** 2, "that is the area"),
        (lambda layers: forwards()(layers) // 2, "how far it sees to one side"),
        (lambda layers: forwards()(layers[-1:]), "the last layer alone"),
        (forwards(lambda k, s, d: (k - 1) * (d + 1)), "for [(3, 1, 1)] you returned 5, it is 3"),
        (
            lambda layers: forwards()(layers) if layers else 0,
            "for [] you returned 0, it is 1: without any layer",
        ),
        (
            lambda layers: layers[0][0] and forwards()(layers),
            "IndexError: list index out of range, for []: without any layer",
        ),
        (lambda layers: forwards()(layers) if layers else None, "for [] you returned None"),
        (lambda layers: (3, 3), "has shape (2,)"),
        (lambda layers: 3 if len(layers) == 1 else None, "is a branch without return?"),
        (lambda layers: "the whole image", "an array of numbers"),
    ],
    "scaled": [
        (resized(mask_method="bilinear"), "interpolated between ids"),
        (padded_before, "interpolated between ids"),
        (resized(mask_fill=0), "asked for is 255, which is no class; 0 is the background"),
        (resized(mask_fill=127), "the mask holds 127 where nothing is known; asked for is 255"),
        (resized(mask_fill=5), "the mask holds 5 where nothing is known; asked for is 255"),
        (resized(fill=0.0), "the image holds 0 where nothing is known; asked for is 127"),
        (resized(fill=255.0), "the image holds 255 where nothing is known; asked for is 127"),
        (resized(fill=128.0), "the image holds 128 where nothing is known; asked for is 127"),
        (resized(fill=126.5), "the image holds 126.5 where nothing is known; asked for is 127"),
        (resized(fill=255.0, mask_fill=0), "the image holds 255 where"),
        (resized(factor_of=lambda factor: 1 / factor), "is the factor inverted?"),
        (resized(factor_of=tf.sqrt), "not of the area"),
        (resized(factor_of=tf.square), "is scaled twice"),
        (resized(factor_of=tf.ones_like), "the image comes back as it was"),
        (resized(mask_scaled=False), "the mask comes back as it was"),
        (resized(image_scaled=False), "the image comes back as it was"),
        (resized(same_size=False), "the image had shape (46, 60, 3), yours has (74, 96, 3)"),
        (resized(fit=at_corner), "keeps its upper left corner"),
        (
            resized(fit=lambda one, height, width, _: one[:height, :width]),
            "factor 0.6: the image had shape (46, 60, 3), yours has (28, 36, 3)",
        ),
        (only_larger, "factor 0.6: the image comes back as it was"),
        (with_borders("edge"), "the image holds 20 to 200 where nothing is known"),
        (with_borders("reflect"), "where nothing is known; asked for is 127"),
        (one_axis(0), "is scaled along y alone"),
        (one_axis(1), "is scaled along x alone"),
        (resized(image_method="nearest"), "nearest neighbour is for the mask, here bilinear"),
        (resized(image_method="bicubic"), "bilinear never leaves these"),
        (draws_its_own, "the factor is given, draw none of your own"),
        (draws_while_tracing, "is scaled by about 1.3: what has become of the factor?"),
        (draws_a_flip, "other values in"),
        (
            resized(factor_of=lambda factor: tf.round(factor * 5) / 5),
            "factor 0.5: the image has other",
        ),
        (with_other_ids((255, 0)), "factor 1.6: the mask lost the id 255"),
        (with_other_ids((5, 0)), "factor 1.6: the mask lost the id 5"),
        (with_other_ids((2, 5)), "factor 1.6: the mask lost the id 2"),
        (with_other_ids((2, 0), (5, 0), (255, 0)), "factor 1.6: the mask lost the ids 2, 5, 255"),
        (
            with_other_ids((2, 1), (5, 1)),
            "the mask lost the ids 2, 5, and has the ids 1, which were not in it",
        ),
        (
            after(lambda image, mask: (image, tf.cast(mask > 0, tf.uint8))),
            "the mask lost the ids 2, 5, 255, and has the ids 1",
        ),
        *[(shifted(mask_by=pixels), "the mask has other values in") for pixels in (1, 2, 3, 4)],
        *[(shifted(image_by=pixels), "the image has other values in") for pixels in (1, 2)],
        (mask_by(resized(fit=at_corner)), "the mask keeps its upper left corner"),
        (mask_by(one_axis(0)), "the mask is scaled along y alone"),
        (mask_by(one_axis(1)), "the mask is scaled along x alone"),
        (
            mask_by(resized(factor_of=lambda factor: 1 / factor)),
            "the mask is shrunk where it should grow",
        ),
        *[
            (mask_by(resized(factor_of=of)), words)
            for of, words in (
                (tf.sqrt, "the mask is scaled by the factor's root"),
                (tf.square, "the mask is scaled twice"),
            )
        ],
        (
            otherwise_in_the_graph(lambda image, mask, factor: (image, mask, factor)),
            "in Dataset.map it returns a tuple of 3 (a tensor, a tensor, a tensor); asked for",
        ),
        (
            otherwise_in_the_graph(lambda image, mask, factor: {"image": image, "mask": mask}),
            "in Dataset.map it returns a dict; asked for is a tuple of two",
        ),
        (
            otherwise_in_the_graph(lambda image, mask, factor: ({"image": image}, mask)),
            "in Dataset.map it returns a tuple of 2 (a dict, a tensor)",
        ),
        (otherwise_in_the_graph(lambda image, mask, factor: image), "it returns a tensor; asked"),
        (with_numpy, "it works on one pair, but Dataset.map raises"),
        (lambda image, mask, factor: (image - 127.0, mask), "your code raises"),
        (after(lambda image, mask: (image / 255, mask)), "keep those from 0 to 255"),
        (after(lambda image, mask: (tf.cast(image, tf.uint8), mask)), "is to be float32"),
        (after(lambda image, mask: (image, tf.cast(mask, tf.float32))), "class ids stay whole"),
        (after(lambda image, mask: (image[::-1], mask)), "the image has other values in"),
        (after(lambda image, mask: (image, mask[:, ::-1])), "the mask has other values in"),
        (after(lambda image, mask: (mask, image)), "the image had shape"),
        (after(lambda image, mask: (image, mask[..., 0])), "the mask had shape"),
        (after(lambda image, mask: (image, None)), "the mask comes back as None"),
        (after(lambda image, mask: [image, mask]), "Dataset.map packs a list"),
        (after(lambda image, mask: image), "a tuple of two is asked for"),
        (after(lambda image, mask: (image * np.nan, mask)), "holds NaN"),
    ],
    "dice_of_cases": [
        (dice_by(lambda t, p: (t > 0) * p, lambda t, p: t > 0, lambda t, p: p), "255 counts as"),
        (dice_by(lambda t, p: (t > 0) * kept(t, p), lambda t, p: t > 0, kept), "to ignore in both"),
        (dice_by(lambda t, p: t * p, lambda t, p: t, lambda t, p: p), "255 among them"),
        (dice_by(both, lesion, lambda t, p: p), "ignored pixels of the prediction are counted"),
        (by_rule(lambda both, true, found: both / (true + found - both)), "that is IoU"),
        (by_rule(lambda both, true, found: 2 * both / (true + found - both)), "by the union"),
        (by_rule(lambda both, true, found: both / (true + found)), "the 2 is missing"),
        (by_rule(lambda both, true, found: both / found), "that is precision"),
        (by_rule(lambda both, true, found: both / true), "that is sensitivity"),
        (by_rule(lambda both, true, found: (2 * both + 1) / (true + found + 1)), "smoothing"),
        (
            by_rule(lambda both, true, found: (2 * both + 1e-7) / (true + found + 1e-7)),
            "there is 1, which lifts the mean",
        ),
        (
            by_rule(lambda both, true, found: 2 * both / (true + found + 1e-7)),
            "there is 0, as if all were missed",
        ),
        (
            by_rule(lambda both, true, found: np.nan_to_num(2 * both / (true + found))),
            "there is 0, as if all were missed",
        ),
        (by_rule(lambda both, true, found: 2 * both.sum() / (true + found).sum()), "one number"),
        (
            by_rule(lambda both, true, found: [2 * both.sum() / (true + found).sum()] * len(both)),
            "the value of all pixels pooled",
        ),
        (in_a_loop(empty=0.0), "there is 0, as if all were missed"),
        (in_a_loop(empty=1.0), "there is 1, which lifts the mean"),
        (in_a_loop(ignored=None), "ignored pixels of the prediction are counted"),
        (
            in_a_loop(ignored=None, empty=1.0),
            "leave them out of both; and where neither mask has class 1 there is 1",
        ),
        (
            in_a_loop(measure=lambda true, found: accuracy_score(true, found)),
            "that is accuracy",
        ),
        (
            in_a_loop(measure=lambda true, found: jaccard_score(true, found, zero_division=0)),
            "that is IoU, both / union; Dice is 2 both / (truth + prediction); and where neither",
        ),
        (
            in_a_loop(ignored=None, measure=lambda true, found: np.mean(true == found)),
            "leave them out of both; and that is accuracy",
        ),
        (
            in_a_loop(measure=lambda t, f: 2 * int((t & f).sum()) / int(t.sum() + f.sum())),
            "ZeroDivisionError: division by zero: where neither mask",
        ),
        (with_deeplab_of(slice(None)), "of class 1 alone, not of the background, too"),
        (with_deeplab_of([0]), "that is Dice of the background"),
        (
            by_rule(
                lambda both, true, found: np.where(true > 0, 2 * both / (true + found), np.nan)
            ),
            "where only the truth is, Dice is 0",
        ),
        (
            by_rule(
                lambda both, true, found: np.where(found > 0, 2 * both / (true + found), np.nan)
            ),
            "where only the prediction is, Dice is 0",
        ),
        (
            by_rule(
                lambda both, true, found: np.where(both > 0, 2 * both / (true + found), np.nan)
            ),
            "where only one of them is, Dice is 0",
        ),
        (with_sums_in_uint8, "counts above 255 do not fit in uint8"),
        (with_sums_of_python, "counts above 255 do not fit in uint8"),
        (mean_with_background, "the mean with the background's Dice"),
        (empty_before_ignoring, "ignored you returned 0, it is nan"),
        (lambda truth, predicted: np.round(with_where(truth, predicted), 1), "you returned"),
        (setting_in_place, "changes the array"),
        (dropping_empty, "keeps its place, as NaN"),
        (lambda truth, predicted: (truth == 1) * predicted, "axis=(1, 2)"),
        (lambda truth, predicted: with_where(predicted, truth), "you returned"),
        (lambda truth, predicted: 1 - with_where(truth, predicted), "you returned"),
        (lambda truth, predicted: "quite good", "is asked for, you returned 'quite good'"),
    ],
    "in_scan": [
        (rounded, "takes the id of the nearest voxel alone"),
        (with_sitk(sitk.sitkLabelLinear), "takes the id of the nearest voxel alone"),
        (with_sitk(sitk.sitkLabelGaussian), "takes the id of the nearest voxel alone"),
        (strongest_field, "takes the id of the nearest voxel alone"),
        (rounded_down, "half a voxel of the grid beside its place"),
        (
            lambda ids, grid, scan: dataclasses.replace(
                grid, voxels=ids, origin=tuple(grid.to_patient((0.5, 0.5, 0.5)))
            ).resample_like(scan, is_mask=True),
            "half a voxel of the grid beside its place",
        ),
        (
            lambda ids, grid, scan: grid.with_voxels(ids).resample_like(scan),
            "interpolated between ids",
        ),
        (with_sitk(sitk.sitkLinear), "interpolated linearly, then cut to whole numbers"),
        (zoomed(), "stretched to the scan's shape"),
        (zoomed(grid_mode=True, mode="nearest"), "stretched to the scan's shape"),
        (zoomed_by_spacing, "stretched to the scan's shape"),
        (laid_at(lambda scan, grid: (0, 0, 0)), "voxel by voxel, but the two spacings differ"),
        (laid_at(lambda scan, grid: scan.to_index(grid.origin)), "voxel by voxel"),
        (with_scipy("nearest"), "beyond the grid its border goes on"),
        (turned(0), "in reverse along z"),
        (turned_after(1), "in reverse along y"),
        (turned(1, 2), "in reverse along y and x"),
        (with_sitk(origin=lambda scan: scan.origin), "origin is lost"),
        (with_sitk(origin=lambda scan: (0, 0, 0)), "all voxels are 0"),
        (from_the_corner, "it is a part, and begins further inside"),
        (with_sitk(turn=False), "direction"),
        (lambda ids, grid, scan: grid.with_voxels(ids), "the result still lies on the grid"),
        (
            lambda ids, grid, scan: grid.with_voxels(ids).resample(scan.spacing, is_mask=True),
            "the scan is",
        ),
        (in_geometry(origin=(0, 0, 0)), "its geometry is not: origin"),
        (in_geometry(direction=np.diag([1, -1, -1])), "its geometry is not: direction"),
        (in_geometry(spacing=(1, 1, 1)), "its geometry is not: spacing"),
        (lambda ids, grid, scan: with_resample_like(ids, grid, scan).voxels, "scan.with_voxels"),
        (lambda ids, grid, scan: ids, "grid.with_voxels"),
        (
            lambda ids, grid, scan: with_resample_like(ids, grid, scan).to_sitk(),
            "Volume.from_sitk",
        ),
        (lambda ids, grid, scan: scan, "the scan's own voxels"),
        (lambda ids, grid, scan: scan.with_voxels(ids), "your code raises CourseDataError"),
        (
            lambda *given: (lambda right: right.with_voxels(right.voxels.astype(np.float32)))(
                with_resample_like(*given)
            ),
            "keep the dtype",
        ),
        (
            lambda *given: (lambda right: right.with_voxels(right.voxels > 0))(
                with_resample_like(*given)
            ),
            "keep the dtype",
        ),
        (
            lambda *given: (lambda right: right.with_voxels(0 * right.voxels))(
                with_resample_like(*given)
            ),
            "all voxels are 0",
        ),
    ],
}
