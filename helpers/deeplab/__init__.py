"""DeepLabV3+ as a Keras functional model. What it is trained with are Keras' own calls.

    print(deeplab.check(train, classes=2))                             # bad data is named now
    model = deeplab.model(2, batch_norm_momentum=0.9)
    rate = keras.optimizers.schedules.PolynomialDecay(1e-3, epochs * steps, 0, power=0.9)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=255)
    score = keras.metrics.MeanIoU(2, ignore_class=255, sparse_y_pred=False)
    model.compile(keras.optimizers.Adam(rate), loss, metrics=[score])
    model.fit(train.apply(pipeline.pairs("mask")), epochs=epochs)

Masks hold class ids; 255 is no class and takes no part in anything. Images come in as they are,
from 0 to 255 or in the `value_range` that is given; the model brings them to what its encoder
expects. After `import helpers.deeplab`, Keras loads a saved model.
"""

from helpers.deeplab.checking import check
from helpers.deeplab.encoders import encoder
from helpers.deeplab.layers import Upsampling
from helpers.deeplab.network import masked_loss, model, receptive_field

__all__ = ["Upsampling", "check", "encoder", "masked_loss", "model", "receptive_field"]
