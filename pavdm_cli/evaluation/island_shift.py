"""Camera motion over the sea: waves look alike at any pan, so islands on the horizon are registered.

Their color and that of the sky behind them are known, so a pixel of neither color, such as one of the object, is
left out.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pavdm_cli.pocket_world.palette import GROUND
from pavdm_cli.pocket_world.terrain import LANDS
from pavdm_cli.pocket_world.weather import Light

ROWS = (0.53, 0.60)  # heights, from the top, between which islands stand above the water
TOLERANCE = 0.08  # distance in RGB from the line between both colors
MIN_SHARE = 0.25  # of pixels that must be sky or island in both frames
MIN_CONTRAST = 0.1  # standard deviation over a row of how much of the island's color it has: else there is no island

Values = NDArray[np.float64]


def island_shift(clip: NDArray[np.uint8], light: Light, gap: int, reach: int = 10) -> int | None:  # (n, H, W, 3)
    """Pixels by which islands move to the right in `gap` frames; None where none is seen.

    light: of the time of day and weather, which gives the colors.
    """
    cover, is_known = island_cover(clip / 255.0, light)
    if _contrast(cover, is_known) < MIN_CONTRAST:
        return None
    costs = {pixels: _mismatch(cover, is_known, gap, pixels) for pixels in range(-reach, reach + 1)}
    known = {pixels: cost for pixels, cost in costs.items() if cost is not None}
    return min(known, key=lambda pixels: (round(known[pixels], 5), abs(pixels))) if len(known) == len(costs) else None


def island_cover(clip: Values, light: Light) -> tuple[Values, NDArray[np.bool_]]:  # (n, H, W, 3), 0 to 1
    """How much of the island's color each pixel near the horizon has, 0 to 1, and where that can be told."""
    height = clip.shape[1]
    first, last = (round(row * height) for row in ROWS)
    top, low = (np.array(color) for color in (light.zenith, light.horizon))
    fade = np.clip((np.arange(first, last) + 0.5) / height / 0.62, 0, 1)[:, None] ** 1.3
    sky = top + (low - top) * fade  # (rows, 3)
    haze = LANDS["sea"].haze[0]
    island = 1.02 * ((1 - haze) * np.array(GROUND["sea"][0]) * np.array(light.ambient) + haze * low)
    line = island - sky
    offset = clip[:, first:last] - sky[:, None]
    cover = (offset * line[:, None]).sum(-1) / (line**2).sum(-1)[:, None]  # (n, rows, W)
    distance = np.linalg.norm(offset - cover[..., None] * line[:, None], axis=-1)
    return np.clip(cover, 0, 1), (distance < TOLERANCE) & (cover > -1) & (cover < 1.5)


def _contrast(cover: Values, is_known: NDArray[np.bool_]) -> float:
    """Standard deviation along the rows, of pixels that are known, averaged over frames."""
    known = np.where(is_known, cover, np.nan)
    deviations = [float(np.nanstd(row)) for row in known.reshape(-1, cover.shape[-1]) if np.isfinite(row).any()]
    return float(np.mean(deviations)) if deviations else 0.0


def _mismatch(cover: Values, is_known: NDArray[np.bool_], gap: int, right: int) -> float | None:
    """Mean difference between frames `gap` apart, the earlier moved to the right; None where too little is known."""
    width = cover.shape[2]
    before, after = slice(max(0, -right), width - max(0, right)), slice(max(0, right), width - max(0, -right))
    both = is_known[:-gap, :, before] & is_known[gap:, :, after]
    if both.mean() < MIN_SHARE:
        return None
    return float(np.abs(cover[gap:, :, after] - cover[:-gap, :, before])[both].mean())
