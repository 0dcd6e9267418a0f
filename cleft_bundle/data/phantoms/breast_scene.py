"""Drawing of one mammography phantom view.

Body coordinates: x from -1 (the chest wall's edge of the picture) to 1 (air in front of the nipple), y from -1 (top) to
1. A left breast is drawn as it is, a right one is mirrored at the end. Lesions live in breast coordinates (depth from
the chest wall 0 to 1, height -1 to 1), so that both views of a breast show them at places that belong together.
"""

from dataclasses import dataclass, field

import numpy as np

from cleft_bundle.data.phantoms.shapes import Array, Pose, blob, ellipse, inside, radius, stroke, texture

GLANDULAR_SHARE = {1: 0.03, 2: 0.28, 3: 0.58, 4: 0.93}
"""Share of the breast that fibroglandular tissue covers, for density 1 to 4."""


@dataclass(frozen=True)
class Lesion:
    """One mass, asymmetry or group of calcifications.

    Args:
        shape: EMBED's massshape code: R round, O oval, X irregular, F focal asymmetry; empty without a mass.
        margin: EMBED's massmargin code: D circumscribed, I indistinct, S spiculated; empty without a mass.
        calcification: EMBED's calcfind code: C coarse popcorn-like, P punctate, A amorphous, I fine pleomorphic,
            F fine linear; empty without calcifications.
        size: radius in body units.
        depth: from the chest wall (0) to the nipple (1).
        height: from top (-1) to bottom (1) of the breast.
        clip: a biopsy marker lies in it.
        seed: shapes what is irregular, alike in both views.
    """

    shape: str
    margin: str
    calcification: str
    size: float
    depth: float
    height: float
    clip: bool
    seed: int


@dataclass(frozen=True)
class Breast:
    """Anatomy that both views of one breast share."""

    laterality: str
    density: int
    reach: float  # x of the nipple
    half_height: float
    lesions: list[Lesion] = field(default_factory=list)


def draw(rng: np.random.Generator, breast: Breast, view: str, pose: Pose) -> tuple[Array, Array]:
    """Draw one view.

    Args:
        rng: draws all that varies from image to image.
        breast: what to draw.
        view: CC or MLO.
        pose: size of the picture and place of the breast in it.

    Returns:
        Density [H, W] and the mask of the breast [H, W]; a right breast comes from the right edge.
    """
    x, y = pose.grid()
    middle = 0.12 if view == "MLO" else 0.0
    x0, length = -1.0, breast.reach + 1.0
    along, across = (x - np.float32(x0)) / np.float32(length), (y - np.float32(middle)) / np.float32(breast.half_height)
    rim = (radius(along, across, (0, 0), (1, 1), power=2.2) - 1) * np.float32(0.7)
    mask = inside(rim, 0.02)
    skin = inside(np.abs(rim + np.float32(0.012)) - np.float32(0.012), 0.01)
    muscle = np.zeros_like(x)
    if view == "MLO":
        upper = inside(x + np.float32(0.55) - np.float32(0.5) * (-y - np.float32(0.55)), 0.05) * inside(y, 0.1)
        mask, skin = np.maximum(mask, upper), skin * (1 - upper)
        muscle = inside((x + np.float32(0.42)) * np.float32(1.5) + (y + np.float32(0.85)), 0.05)
    share = GLANDULAR_SHARE[breast.density] + rng.uniform(-0.02, 0.02)
    gland = _gland(rng, along, across, mask * (1 - muscle), share)
    density = 0.3 + 0.02 * texture(rng, x.shape, 12) + 0.015 * texture(rng, x.shape, 2.5)
    density = np.maximum(density, 0.55 * muscle + 0.02 * texture(rng, x.shape, 3))
    density += gland * (0.28 + 0.06 * texture(rng, x.shape, 2)) * (1 - muscle)
    density += 0.12 * skin
    density += 0.12 * ellipse(x, y, (breast.reach, middle), (0.035, 0.04))  # nipple
    for lesion in breast.lesions:
        centre = x0 + length * lesion.depth, middle + breast.half_height * lesion.height
        density += _lesion(x, y, centre, lesion)
    density = density * mask + rng.uniform(0.01, 0.018) * rng.standard_normal(x.shape, np.float32)
    density, mask = density.astype(np.float32), mask.astype(np.float32)
    return (density[:, ::-1], mask[:, ::-1]) if breast.laterality == "R" else (density, mask)


def _gland(rng: np.random.Generator, along: Array, across: Array, where: Array, share: float) -> Array:
    """Fibroglandular tissue: a cone behind the nipple with ragged edges that covers `share` of the breast."""
    cone = 1 - np.hypot((along - np.float32(0.55)) / np.float32(0.8), across / np.float32(0.9))
    level = cone + np.float32(0.16) * texture(rng, along.shape, 9) + np.float32(0.1) * texture(rng, along.shape, 3.5)
    bound = np.quantile(level[where > 0.5], 1 - share)
    return inside(np.float32(bound) - level, 0.15) * where


def _lesion(x: Array, y: Array, centre: tuple[float, float], lesion: Lesion) -> Array:
    rng = np.random.default_rng(lesion.seed)
    added = np.zeros_like(x)
    if lesion.shape in ("R", "O"):
        axes = (lesion.size, lesion.size * 0.75) if lesion.shape == "R" else (lesion.size * 1.25, lesion.size * 0.6)
        soft = 0.02 if lesion.margin == "D" else 0.1
        added = np.float32(0.5) * ellipse(x, y, centre, axes, rng.uniform(-20, 20), edge=soft)
    elif lesion.shape == "F":
        added = np.float32(0.4) * blob(x, y, centre, (lesion.size, lesion.size))
    elif lesion.shape == "X":
        angle = np.arctan2(y - np.float32(centre[1]), x - np.float32(centre[0]))
        wobble = sum(0.12 * np.cos(k * angle + np.float32(rng.uniform(0, 6.28))) for k in (2, 3, 5))
        core = radius(x, y, centre, (lesion.size, lesion.size * 0.75)) * (1 + wobble)
        added = np.float32(0.6) * inside(core - 1, 0.15 if lesion.margin == "S" else 0.5)
        if lesion.margin == "S":
            for turn in np.arange(0, 2 * np.pi, np.pi / 6) + rng.uniform(0, 0.5):
                far = rng.uniform(2.0, 2.6) * lesion.size
                tip = centre[0] + far * np.cos(turn), centre[1] + 0.75 * far * np.sin(turn)
                added = np.maximum(added, np.float32(0.45) * _near(x, y, [centre, tip], 0.02))
    if lesion.calcification:
        added = np.maximum(added, _calcifications(rng, x, y, centre, lesion))
    if lesion.clip:
        tips = [(centre[0] + dx, centre[1] + dy) for dx, dy in ((-0.04, -0.03), (0.0, 0.03), (0.04, -0.03))]
        added = np.maximum(added, np.float32(1.0) * _near(x, y, tips, 0.022))
    return added


def _calcifications(rng: np.random.Generator, x: Array, y: Array, centre: tuple[float, float], lesion: Lesion) -> Array:
    """Bright specks around the centre; number, size and shape follow from their kind."""
    number, low, high, bright = {
        "C": (2, 0.05, 0.065, 0.75),
        "P": (7, 0.018, 0.02, 0.6),
        "A": (22, 0.016, 0.03, 0.35),
        "I": (18, 0.014, 0.03, 0.75),
        "F": (14, 0.014, 0.016, 0.8),
    }[lesion.calcification]
    specks = np.zeros_like(x)
    spread = lesion.size * (0.5 if lesion.calcification == "C" else 0.9)
    for _ in range(number):
        place = centre[0] + rng.normal(0, spread), centre[1] + 0.75 * rng.normal(0, spread)
        size = rng.uniform(low, high)
        if lesion.calcification == "F":
            turn = rng.uniform(0.4, 0.9)
            points = [place, (place[0] + 0.07 * np.cos(turn), place[1] + 0.07 * np.sin(turn))]
        else:
            points = [place, (place[0] + 1e-3, place[1])]
        specks = np.maximum(specks, np.float32(bright) * _near(x, y, points, size * 1.5))
    return specks


def _near(x: Array, y: Array, points: list[tuple[float, float]], width: float) -> Array:
    """A short stroke, computed in its own neighbourhood only: there are many of them."""
    out = np.zeros_like(x)
    places = np.asarray(points)
    low, high = places.min(0) - 2 * width - 0.02, places.max(0) + 2 * width + 0.02
    rows = np.flatnonzero(((y >= low[1]) & (y <= high[1])).any(1))
    columns = np.flatnonzero(((x >= low[0]) & (x <= high[0])).any(0))
    if rows.size and columns.size:
        window = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        out[window] = stroke(x[window], y[window], points, width, 0.015)
    return out
