"""The eight ways in which an image can lie, by the names that `orientation_applied` gives them."""

from __future__ import annotations

from typing import NamedTuple

from cleft_bundle.data.images.geometry import opposite_sides


class Turn(NamedTuple):
    """One of the eight ways in which an image can lie: turn it counterclockwise, then mirror it or not.

    Attributes:
        quarters: turns by 90 degrees counterclockwise, 0..3.
        mirror: whether the order of the columns is reversed after that.
    """

    quarters: int
    mirror: bool

    def directions(self, downwards: str, rightwards: str) -> tuple[str, str]:
        """Directions of columns and rows after it, if they ran `downwards` and `rightwards` before."""
        for _ in range(self.quarters):  # what was at the right border comes to the top
            downwards, rightwards = opposite_sides(rightwards), downwards
        return downwards, opposite_sides(rightwards) if self.mirror else rightwards


#: What stands in place of a turn: the header is silent, or no rule is known for what it says.
NOT_GIVEN, UNKNOWN = "not given", "unknown"
#: Angles are counterclockwise.
TURNS = {
    **{"none": Turn(0, False), "rotate 90": Turn(1, False), "rotate 180": Turn(2, False)},
    **{"rotate 270": Turn(3, False), "flip columns": Turn(0, True), "flip rows": Turn(2, True)},
    **{"transpose": Turn(3, True), "anti-transpose": Turn(1, True)},
}
