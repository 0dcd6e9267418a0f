"""Makers of X-ray equipment: a header's free text becomes one of a few known names.

Free text may say anything, such as the name of a site or of a person; a name of this list says the maker only.
"""

from __future__ import annotations

import re

OTHER = "other"
#: From a maker's name here to the words that headers have for it, in lower case
MAKERS = {
    **{"Agfa": ("agfa",), "Canon": ("canon",), "Carestream": ("carestream",), "DRTECH": ("drtech",)},
    **{"Delft": ("delft", "oldelft"), "Fischer": ("fischer",), "Fujifilm": ("fuji", "fujifilm")},
    **{"GE": ("ge", "g.e."), "Hitachi": ("hitachi",), "Hologic": ("hologic", "lorad")},
    **{"Howtek": ("howtek",), "IMS Giotto": ("ims", "giotto"), "Kodak": ("kodak", "eastman kodak")},
    **{"Konica Minolta": ("konica", "minolta"), "Lumisys": ("lumisys",), "Metaltronica": ("metaltronica",)},
    **{"Mindray": ("mindray",), "Philips": ("philips",), "Planmed": ("planmed",), "Rayence": ("rayence",)},
    **{"Samsung": ("samsung",), "Sectra": ("sectra",), "Shimadzu": ("shimadzu",), "Siemens": ("siemens",)},
    **{"Swissray": ("swissray",), "Toshiba": ("toshiba",), "Trex": ("trex",)},
    **{"United Imaging": ("united imaging", "uih"), "Varian": ("varian",), "Vidar": ("vidar",)},
    **{"Vieworks": ("vieworks",), "cleft_bundle phantom": ("cleft_bundle phantom",)},
}


def maker(text: str) -> str:
    """The maker whom a Manufacturer element names.

    Args:
        text: the element's value.

    Returns:
        a name of :data:`MAKERS`, :data:`OTHER`, or "" where the text is empty.
    """
    plain = " ".join(text.lower().strip(" \0").split())
    if not plain:
        return ""
    for name, words in MAKERS.items():
        if any(re.search(rf"(?<![a-z]){re.escape(word)}(?![a-z])", plain) for word in words):
            return name
    return OTHER
