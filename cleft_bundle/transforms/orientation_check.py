"""The orientation of a radiograph by its pixels alone: reported where the header is silent, never applied.

Rules on a few cells, no network. docs/transforms.md says how often they are right: a chest that is turned is nearly
always seen; one that is mirrored is told by the heart alone, and often missed.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from scipy import stats  # type: ignore[import-untyped]  # scipy ships no type information

from cleft_bundle.data.images.turns import TURNS, Turn
from cleft_bundle.errors import RadiographError
from cleft_bundle.transforms.checks import about, as_image, extremes
from cleft_bundle.transforms.tissue import find_tissue

RANKED, CELLS = 32, 8  # a side of the picture whose values are ranked, and of the one that the tables are laid on
_EDGE = 0.02  # of the breast's box: a chest wall fills its border, a nipple touches it
# Weights of the cells of an upright chest, of their mean over both sides (UPRIGHT), and of the left half minus the
# right one (SIDES: the heart makes the lower right denser). From logistic regression on a half of the patients of NIH's
# sample and Kermany's training images, rounded: python scripts/check_orientation.py fit
UPRIGHT = np.array(
    [
        *([2, -6, -7, 0], [1, 2, -3, -3], [1, 6, -2, -1], [-2, 1, -5, -1]),
        *([-4, -5, -2, 1], [-3, -6, 2, 9], [-3, -2, 4, 9], [-2, 7, 8, 7]),
    ]
)
SIDES = np.array(
    [
        *([-1, -1, 1, 1], [-1, 1, 1, 4], [0, 1, 3, 2], [2, 1, -1, -5]),
        *([2, 0, -9, -8], [1, 2, -9, -7], [1, 5, 2, 0], [2, 4, 6, 2]),
    ]
)


def seen_turn(img: torch.Tensor, breast: bool = False, from_above: bool = False) -> str:
    """Tell how an image would have to be turned to be upright, by what it shows.

    A chest: the turn under which lungs, spine and belly lie where they should, then whether the heart does. A
    mammogram: the chest wall is where tissue fills a border and leaves the one across free; the head, where there is
    less of it, for a breast hangs down.

    Args:
        img: [C, H, W], bright = dense; only the order of its values counts for a chest.
        breast: whether it is a mammogram.
        from_above: whether it is one in a view such as CC, which has no head to look for.

    Returns:
        a name of `cleft_bundle.data.images.turns.TURNS`, "none" where the image seems upright.

    Raises:
        RadiographError: naming the file if the image holds one value only, or one that is not finite.
    """
    img = as_image(img)
    with about(img):
        turn = _breast(img, from_above) if breast else _chest(chest_cells(img))
    return next(name for name, known in TURNS.items() if known == turn)


def chest_cells(img: torch.Tensor) -> np.ndarray:
    """An image [C, H, W] as the ranks of its values, float64 [8, 8] of mean 0; its turns give the turned cells."""
    low, high = extremes(img)
    if low == high:
        raise RadiographError(f"holds one value only, {low:g}: it cannot be told how it lies")
    grey = torch.as_tensor(img).to(torch.float32).mean(0)[None, None]
    small = F.interpolate(grey, (RANKED, RANKED), mode="area")[0, 0].numpy(force=True)
    ranks = stats.rankdata(small).reshape(small.shape) / small.size
    size = RANKED // CELLS
    cells: np.ndarray = (ranks - ranks.mean()).reshape(CELLS, size, CELLS, size).mean((1, 3))
    return cells


def halves(cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and half difference of the left half of cells and the mirrored right one, each [..., 8, 4]."""
    left, right = cells[..., : CELLS // 2], cells[..., ::-1][..., : CELLS // 2]
    return (left + right) / 2, (left - right) / 2


def _chest(cells: np.ndarray) -> Turn:
    turned = [np.rot90(cells, quarters) for quarters in range(4)]
    quarters = int(np.argmax([(halves(one)[0] * UPRIGHT).sum() for one in turned]))
    return Turn(quarters, bool((halves(turned[quarters])[1] * SIDES).sum() < 0))


def _breast(img: torch.Tensor, from_above: bool) -> Turn:
    mask = find_tissue(img).mask
    mask = mask[np.ix_(mask.any(1), mask.any(0))]
    left = [np.rot90(mask, quarters) for quarters in range(4)]  # each of the four borders as the left one
    filled = [turned[:, : max(1, int(turned.shape[1] * _EDGE))].mean() for turned in left]
    quarters = int(np.argmax([filled[side] - filled[(side + 2) % 4] for side in range(4)]))
    upper, lower = np.array_split(left[quarters], 2)
    if from_above or upper.mean() <= lower.mean():
        return Turn(quarters, False)
    return Turn((quarters + 2) % 4, True)  # the rows change their order, the chest wall stays left
