"""Synthetic radiographs, written the way real sets arrive: DICOM files and the tables of CheXpert and EMBED.

They are phantoms in every name, header and table. No patient has anything to do with them.
"""

from cleft_bundle.data.phantoms.boxes import add_boxes
from cleft_bundle.data.phantoms.breast import breast
from cleft_bundle.data.phantoms.chest import chest

__all__ = ["add_boxes", "breast", "chest"]
