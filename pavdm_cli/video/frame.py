"""The type of a video frame."""

import numpy as np
from numpy.typing import NDArray

Frame = NDArray[np.uint8]  # (H, W, 3), RGB, upright
