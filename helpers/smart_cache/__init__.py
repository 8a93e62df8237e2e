"""A cache for sets larger than memory: some of the items now, a few others after each epoch.

    with SmartCache(paths, load, cache_num=50, replace_rate=0.1) as cache:
        places = tf.data.Dataset.range(50).shuffle(50, seed=1)       # another order each epoch
        dataset = cache.dataset(places).apply(crops.random((96, 96, 96), seed=2)).batch(5)
        model.fit(dataset.map(pair), epochs=20, callbacks=[cache.callback()])

The set's T items lie on a circle. The cache holds N neighbours of it, and at the end of an epoch
the R oldest leave and the next R enter; a thread loads those while the model trains. Once the
window is back where it began, every item was used equally often, or once more than some others.
"""

from helpers.smart_cache.cache import SmartCache, Swap

__all__ = ["SmartCache", "Swap"]
