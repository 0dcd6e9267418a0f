"""Count the parameters of the network that a config would train, without weights, hub or memory for them.

python scripts/count_parameters.py --config_file "['configs/train.json','configs/net_cleft.json']"
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import fire
from studies.counting import build_on_meta, count_towers, describe

from cleft_bundle.errors import BundleError


def main(config_file: str | Sequence[str] = "configs/train.json") -> None:
    """Print total and trainable parameters by tower, and CLEFT's two headline figures.

    Args:
        config_file: a training config, or a list of one and its overlays.
    """
    try:
        print(describe(count_towers(build_on_meta(config_file))))
    except BundleError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    fire.Fire(main)
