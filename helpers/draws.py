"""The old names of what `helpers.stage` has."""

import tensorflow as tf  # noqa: F401

from helpers.stage import (  # noqa: F401
    check_indices,
    watched,
)
from helpers.stage import mapped as map_named  # noqa: F401
from helpers.stage import seeded as map_with_seeds  # noqa: F401
