"""DeepLabV3+ as a Keras functional model, with what it is trained and judged with.

    deeplab.check(train, classes=2)                                    # bad data is named now
    model = deeplab.model(2, batch_norm_momentum=0.9)
    rate = deeplab.poly_decay(1e-3, steps=epochs * steps)
    model.compile(keras.optimizers.Adam(rate), deeplab.loss(), metrics=[deeplab.mean_iou(2)])
    model.fit(train.apply(pipeline.pairs("mask")), epochs=epochs)

Masks hold class ids; 255 is no class and takes no part in anything. Images come in as they are,
from 0 to 255 or in the `value_range` that is given; the model brings them to what its encoder
expects. After `import helpers.deeplab`, Keras loads a saved model.
"""

from helpers.deeplab.checking import Checked, check
from helpers.deeplab.encoders import BACKBONES, encoder
from helpers.deeplab.heads import aspp, decoder
from helpers.deeplab.layers import (
    CentredMaxPooling2D,
    ChannelNormalization,
    FusedBatchNormalization,
    Spread,
    Upsampling,
)
from helpers.deeplab.limits import IGNORE
from helpers.deeplab.metrics import MeanDice, mean_dice, mean_iou
from helpers.deeplab.network import model
from helpers.deeplab.overlap import confusion, dice, iou
from helpers.deeplab.receptive import receptive_field
from helpers.deeplab.training import loss, poly_decay

__all__ = [
    "BACKBONES",
    "IGNORE",
    "CentredMaxPooling2D",
    "ChannelNormalization",
    "Checked",
    "FusedBatchNormalization",
    "MeanDice",
    "Spread",
    "Upsampling",
    "aspp",
    "check",
    "confusion",
    "decoder",
    "dice",
    "encoder",
    "iou",
    "loss",
    "mean_dice",
    "mean_iou",
    "model",
    "poly_decay",
    "receptive_field",
]
