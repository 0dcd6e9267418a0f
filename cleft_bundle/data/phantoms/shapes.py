"""Soft shapes, textures and the exposure that all phantoms share.

A scene is a float32 array [H, W] of arbitrary density: bright means dense. Shapes are masks in [0, 1] on the same grid.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter  # type: ignore[import-untyped]  # scipy ships no type information

Array = NDArray[np.float32]
SATURATION = 1.06


@dataclass(frozen=True)
class Pose:
    """Position of the body in the picture.

    Args:
        height: rows of the picture.
        width: columns of the picture.
        shift: of the body's centre along x and y, in half pictures.
        scale: 1.0 lets the body fill the picture.
        angle: clockwise rotation in degrees.
    """

    height: int
    width: int
    shift: tuple[float, float] = (0.0, 0.0)
    scale: float = 1.0
    angle: float = 0.0

    def grid(self) -> tuple[Array, Array]:
        """Body coordinates of each pixel: x to the right and y downwards, both [H, W] and -1 to 1 at the borders."""
        y, x = np.meshgrid(
            np.linspace(-1, 1, self.height, dtype=np.float32),
            np.linspace(-1, 1, self.width, dtype=np.float32),
            indexing="ij",
        )
        x, y = x - np.float32(self.shift[0]), y - np.float32(self.shift[1])
        sine, cosine = np.sin(np.radians(self.angle)), np.cos(np.radians(self.angle))
        return (
            ((cosine * x + sine * y) / self.scale).astype(np.float32),
            ((cosine * y - sine * x) / self.scale).astype(np.float32),
        )


def inside(distance: Array, edge: float = 0.02) -> Array:
    """1 where a signed distance is negative, 0 where it is positive, linear over `edge` between them."""
    return np.clip(0.5 - distance / np.float32(edge), 0, 1)


def radius(
    x: Array, y: Array, centre: Sequence[float], axes: Sequence[float], angle: float = 0.0, power: float = 2.0
) -> Array:
    """Superelliptic radius [H, W]: below 1 inside the figure. `angle` is in degrees, clockwise."""
    dx, dy = x - np.float32(centre[0]), y - np.float32(centre[1])
    if angle:
        sine, cosine = np.float32(np.sin(np.radians(angle))), np.float32(np.cos(np.radians(angle)))
        dx, dy = cosine * dx + sine * dy, cosine * dy - sine * dx
    u, v = dx / np.float32(axes[0]), dy / np.float32(axes[1])
    if power == 2.0:
        return np.sqrt(u * u + v * v)
    return (np.abs(u) ** np.float32(power) + np.abs(v) ** np.float32(power)) ** np.float32(1 / power)


def ellipse(
    x: Array,
    y: Array,
    centre: Sequence[float],
    axes: Sequence[float],
    angle: float = 0.0,
    power: float = 2.0,
    edge: float = 0.02,
) -> Array:
    """Filled superellipse with a soft edge; power 2 is an ellipse, larger powers approach a rectangle."""
    return inside((radius(x, y, centre, axes, angle, power) - 1) * np.float32(min(axes)), edge)


def blob(x: Array, y: Array, centre: Sequence[float], axes: Sequence[float], angle: float = 0.0) -> Array:
    """Gaussian of height 1 whose standard deviations are `axes`."""
    r = radius(x, y, centre, axes, angle)
    return np.exp(np.float32(-0.5) * r * r)


def stroke(x: Array, y: Array, points: Sequence[Sequence[float]], width: float, edge: float = 0.012) -> Array:
    """Line of a given width through a list of (x, y) points."""
    nearest = np.full(x.shape, np.inf, np.float32)
    for (ax, ay), (bx, by) in pairwise(points):
        dx, dy = bx - ax, by - ay
        along = np.clip(((x - np.float32(ax)) * dx + (y - np.float32(ay)) * dy) / max(dx * dx + dy * dy, 1e-9), 0, 1)
        distance = np.hypot(x - np.float32(ax) - along * dx, y - np.float32(ay) - along * dy)
        nearest = np.minimum(nearest, distance.astype(np.float32))
    return inside(nearest - np.float32(width / 2), edge)


def texture(rng: np.random.Generator, shape: tuple[int, ...], sigma: float) -> Array:
    """Smooth noise [H, W] of mean 0 and standard deviation 1; `sigma` is its grain in pixels."""
    noise = gaussian_filter(rng.standard_normal(shape, np.float32), sigma, mode="reflect", truncate=2.5)
    return (noise - noise.mean()) / (noise.std() + np.float32(1e-6))


def box(mask: Array, threshold: float = 0.5) -> tuple[int, int, int, int] | None:
    """Smallest (x, y, width, height) in pixels that holds what of a mask lies above the threshold; None if nothing."""
    rows, columns = np.flatnonzero((mask > threshold).any(1)), np.flatnonzero((mask > threshold).any(0))
    if rows.size == 0:
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1] - columns[0] + 1), int(rows[-1] - rows[0] + 1)


def expose(scene: Array, mean: float) -> Array:
    """Bring a scene to a given mean grey with a gamma curve, so that the mean says nothing about what is in the scene.

    The scene's 1st and 99th percentiles become 0 and 1 first, and what is brighter (metal, calcium) saturates soon, as
    a detector does: else a few bright pixels would change any later scaling of the picture. A power curve leaves 0 and
    1 where they are, hence the mean is still the wanted one after a percentile scaling of the stored picture, and an
    offset and gain chosen at random afterwards make the stored mean arbitrary too.

    Args:
        scene: density [H, W].
        mean: wanted mean grey, between 0 and 1.

    Returns:
        Grey values [H, W] from 0 to a little above 1.
    """
    low, high = np.percentile(scene, (1, 99))
    grey = np.clip((scene - low) / max(high - low, 1e-6), 0, SATURATION).astype(np.float32)
    counts, edges = np.histogram(grey, 1024, (0, SATURATION))
    values = (edges[1:] + edges[:-1]) / 2
    smallest, largest = 0.1, 10.0
    for _ in range(40):
        gamma = np.sqrt(smallest * largest)
        if (counts * values**gamma).sum() > mean * grey.size:
            smallest = gamma
        else:
            largest = gamma
    return grey ** np.float32(gamma)
