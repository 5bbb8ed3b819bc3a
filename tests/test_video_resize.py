"""Scaling to the model's size and back, without distortion, shift or aliasing."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from pavdm_cli.video import scale_to_cover

SIZES = [(64, 96), (48, 64), (360, 640), (641, 361), (1, 1), (1080, 20)]


def disc(height: int, width: int, radius: float, aspect: float = 1) -> np.ndarray:
    """A white disc in the middle, round where pixels are `aspect` times as wide as high."""
    y, x = np.mgrid[:height, :width] + 0.5
    inside = (y - height / 2) ** 2 + ((x - width / 2) * aspect) ** 2 < radius**2
    return np.repeat(255 * inside[..., None].astype(np.uint8), 3, -1)


def extent(frame: np.ndarray) -> tuple[float, float]:
    """Height and width of the disc."""
    light = frame[..., 0].astype(float) / 255
    return light[:, light.shape[1] // 2].sum(), light[light.shape[0] // 2].sum()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("out", SIZES)
@pytest.mark.parametrize("aspect", [Fraction(1), Fraction(4, 3), Fraction(8, 9)])
def test_scaling_keeps_a_solid_color(size: tuple[int, int], out: tuple[int, int], aspect: Fraction) -> None:
    frame = np.full((*size, 3), (201, 0, 255), np.uint8)
    for scaled in (scale_to_cover(frame, out, aspect), scale_to_cover(frame, out, 1 / aspect)):
        assert scaled.shape == (*out, 3)
        assert np.all(scaled == (201, 0, 255))


def test_a_frame_of_the_target_size_is_unchanged() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    assert np.array_equal(scale_to_cover(frame, (64, 96)), frame)
    assert np.array_equal(scale_to_cover(frame, (64, 96)), frame)


@pytest.mark.parametrize(("height", "width", "aspect"), [(360, 640, 1), (640, 360, 1), (240, 180, 4 / 3), (99, 501, 1)])
def test_a_centered_disc_stays_round_and_centered(height: int, width: int, aspect: float) -> None:
    sample_aspect = Fraction(aspect).limit_denominator(9)
    seen = scale_to_cover(disc(height, width, 40, aspect), (64, 96), sample_aspect)
    tall, wide = extent(seen)
    assert tall == pytest.approx(wide, rel=0.05)
    assert tall == pytest.approx(80 * max(64 / height, 96 / (width * aspect)), rel=0.05)
    assert np.abs(seen.astype(int) - seen[::-1, ::-1]).max() <= 2


@pytest.mark.parametrize(("height", "width", "aspect"), [(360, 640, 1), (640, 360, 1), (480, 360, 4 / 3), (99, 501, 1)])
def test_non_square_pixels_display_a_round_disc(height: int, width: int, aspect: float) -> None:
    frame = scale_to_cover(disc(64, 96, 20), (height, width), 1 / Fraction(aspect).limit_denominator(9))
    tall, wide = extent(frame)
    scale = max(height / 64, width * aspect / 96)
    assert tall == pytest.approx(min(height, 40 * scale), rel=0.05)
    assert wide * aspect == pytest.approx(min(width * aspect, 40 * scale), rel=0.05)


def test_scaling_down_and_up_recovers_a_smooth_image() -> None:
    y, x = np.mgrid[:96, :144] / 20
    smooth = np.stack([127 + 100 * np.sin(x), 127 + 100 * np.cos(y), 127 + 90 * np.sin(x + y)], -1).astype(np.uint8)
    back = scale_to_cover(scale_to_cover(smooth, (64, 96)), (96, 144))
    assert np.abs(back.astype(int) - smooth)[4:-4, 4:-4].max() <= 4


def test_shrinking_does_not_alias() -> None:
    stripes = np.zeros((64, 960, 3), np.uint8)
    stripes[:, ::2] = 255
    assert np.abs(scale_to_cover(stripes, (6, 90)).astype(int) - 128)[:, 2:-2].max() <= 5


@pytest.mark.parametrize(("height", "width"), [(64, 96), (101, 333), (720, 1280)])
@pytest.mark.parametrize("out", [(63, 96), (211, 120), (90, 161)])
def test_scaling_does_not_shift_the_image(height: int, width: int, out: tuple[int, int]) -> None:
    rise = np.repeat(np.linspace(0, 250, height * 2)[height // 2 :][:height, None], width, 1)
    slope = np.repeat(np.linspace(0, 250, width * 2)[None, width // 2 :][:, :width], height, 0)
    scaled = scale_to_cover(np.stack([rise, slope, rise], -1).round().astype(np.uint8), out)
    assert np.abs(scaled.astype(float).mean((0, 1)) - (125, 125, 125)).max() <= 1


@pytest.mark.parametrize("size", [(4320, 8), (2, 8192), (2000, 2000)])
def test_extreme_sizes_can_be_scaled(size: tuple[int, int]) -> None:
    for out in ((8, 8), (64, 96)):
        assert (scale_to_cover(np.full((*size, 3), (9, 99, 199), np.uint8), out) == (9, 99, 199)).all()
