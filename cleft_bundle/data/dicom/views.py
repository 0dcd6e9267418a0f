"""Projection, side and traits of a radiograph: by tags and codes, else by a marked guess.

A free text often serves every image of a study ("CHEST PA & LAT"), so what is taken from one is never certain. Every
value therefore comes with its source, and a guess gives way to whatever a tag says, even where that is not understood:

- ``tag``: ViewPosition; ImageLaterality, FrameLaterality or Laterality, and the side within a mammogram's ViewPosition;
- ``code``: ViewCodeSequence (PS3.16 CID 4010 and 4014); AnatomicRegionModifierSequence (CID 244);
- ``orientation``: PatientOrientation, where its plane is the sagittal one of a lateral radiograph, or where it holds
  the name of the view (CBIS-DDSM);
- ``description``: exactly one view, or side, that SeriesDescription names, and that PatientOrientation does not refute.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

TAG, CODE, ORIENTATION, DESCRIPTION = ("tag", "code", "orientation", "description")
#: What sets an image apart from a view of the whole organ as it was taken; values of ``traits``, in this order.
TRAITS = ("specimen", "implant", "partial", "magnification", "spot", "synthesised", "contradiction")

_BREAST = ("CC", "MLO", "ML", "LM", "LMO", "XCCL", "XCCM", "SIO", "ISO", "FB")
_OTHERS = {"PA": "PA", "AP": "AP", "LL": "LATERAL", "RL": "LATERAL", "LAT": "LATERAL", "LATERAL": "LATERAL"}
# From a word to its view and side: RMLO, L-CC, LLAT. "LM" and "LL" are views of their own.
_VIEWS = (
    {side + word: (_OTHERS.get(word, word), side) for side in "LR" for word in (*_BREAST, "LAT", "LATERAL")}
    | {view: (view, "") for view in _BREAST}
    | {word: (view, "") for word, view in _OTHERS.items()}
)
# How patient and tube were placed, which leaves the projection what it is: AP SUPINE, PA LLD, AP AXIAL
_PLACEMENTS = frozenset(
    {
        *(
            "SUPINE",
            "PRONE",
            "ERECT",
            "SEMIERECT",
            "SEMI",
            "UPRIGHT",
            "STANDING",
            "SITTING",
            "SEATED",
            "BED",
            "BEDSIDE",
        ),
        *("DECUB", "LLD", "RLD", "AXIAL", "LORDOTIC", "XTABLE", "TABLE", "HORIZONTAL", "VERTICAL", "GRID", "PORTABLE"),
        *("MOBILE", "BED", "INSPIRATION", "EXPIRATION"),
    }
)
_SIDES = {"L": "L", "LEFT": "L", "R": "R", "RIGHT": "R"}
# One spelling for each: of words in tags and in free text
_SPELLINGS = (
    (re.compile(r"\bP\.\s?A\b\.?|\bPOSTERO[ _-]?ANTERIOR\b"), "PA"),
    (re.compile(r"\bA\.\s?P\b\.?|\bANTERO[ _-]?POSTERIOR\b"), "AP"),
    (re.compile(r"\bCRANIO[ _-]?CAUDAL\b"), "CC"),
    (re.compile(r"\bMEDIO[ _-]?LATERAL[ _-]OBLIQUE\b"), "MLO"),
    (re.compile(r"\bMEDIO[ _-]?LATERAL\b"), "ML"),
    (re.compile(r"\bLATERO[ _-]?MEDIAL[ _-]OBLIQUE\b"), "LMO"),
    (re.compile(r"\bLATERO[ _-]?MEDIAL\b"), "LM"),
    (re.compile(r"\b(?:LAT|LATERAL)[ _-]DECUB(?:ITUS)?\b|\bDECUBITUS\b"), "DECUB"),
    (re.compile(r"\b(?:CROSS|X)[ _-]TABLE\b"), "XTABLE"),
)
# PS3.16 CID 4014 (mammography) and CID 4010 (projection radiography), SNOMED RT and SNOMED CT
_VIEW_CODES = {
    **{"R-10242": "CC", "399162004": "CC", "R-10226": "MLO", "399368009": "MLO"},
    **{"R-10224": "ML", "399260004": "ML", "R-10228": "LM", "399352003": "LM", "R-10230": "LMO", "399099002": "LMO"},
    **{"R-1024A": "XCCL", "399192008": "XCCL", "R-1024B": "XCCM", "399101009": "XCCM"},
    **{"R-10244": "FB", "399196006": "FB", "R-102D0": "SIO", "399188001": "SIO", "R-40AAA": "ISO", "441555000": "ISO"},
    **{"R-10206": "AP", "399348003": "AP", "R-10214": "PA", "R-40888": "PA", "272479007": "PA"},
    **dict.fromkeys(("R-102CD", "399067008", "R-10236", "399173006", "R-10232", "399198007"), "LATERAL"),
}
_SPECIMEN_CODES = {"G-8300", "119376003", "G-8310", "127457009"}
# PS3.16 CID 4015, of which these change what is seen; and CID 244
_MODIFIERS = {
    **{"R-102D6": "magnification", "399163009": "magnification", "R-102D7": "spot", "399055006": "spot"},
    **{"R-102D5": "implant", "399209000": "implant"},
}
_SIDE_CODES = {
    **{"G-A100": "R", "24028007": "R", "G-A101": "L", "7771000": "L", "G-A102": "B", "51440002": "B"},
}

_WORD = re.compile(r"[A-Z0-9]+")
_VIEW_WORD = re.compile(rf"(?<![A-Z0-9])({'|'.join(_VIEWS)})(?![A-Z0-9])")
_SIDE_WORD = re.compile(
    rf"(?<![A-Z0-9])(L|R)(?:(?<=L)EFT|(?<=R)IGHT)?(?:{'|'.join((*_BREAST, 'LATERAL', 'LAT'))})?(?![A-Z0-9])"
)
# Other projections, and words of other languages: a text that names one of them beside a view names two images
_OTHER_WORD = re.compile(
    r"\b(FRONTAL|FACE|FRENTE|OBLIQUE|OBL|DECUB|TANGENTIAL|APICAL|SWIMMERS|PERFIL|PROFIL|SEITLICH|SEITL|LAO|RAO|LPO|RPO)\b"
)
_SEVERAL = re.compile(
    r"\b(?:[2-9]|TWO|THREE|FOUR)[ -]?(?:V|VW|VWS|VIEWS?|PROJ\w*|EBENEN|IMAGES?|FILMS?)\b"
    r"|\b(?:BOTH|ALL) VIEWS\b|\bX ?[2-9]\b"
)
_LETTER = re.compile(r"(?<![A-Z0-9])[LP](?![A-Z0-9])")  # lateral, perfil, profil: beside a frontal view, another image
_JOINED = r"\s*(?:[/&+]|\b(?:AND|OR|UND|ET|Y|E)\b)\s*"
_BEHIND, _BEFORE = re.compile(rf"{_JOINED}([A-Z0-9]+)"), re.compile(rf"([A-Z0-9]+){_JOINED}$")
_HARMLESS = _PLACEMENTS | {"CHEST", "THORAX", "TORAX", "LUNG", "BREAST", "XR", "CR", "DX", "DR", "VIEW"}

# The plane that rows and columns span, by the first letters of PatientOrientation (PS3.3 C.7.6.1.1.1), and the views
# in it; oblique views may lean towards any
_PLANES = {"PA": "frontal", "AP": "frontal"} | dict.fromkeys(("LATERAL", "ML", "LM"), "sagittal")
_PLANES |= dict.fromkeys(("CC", "XCCL", "XCCM", "FB"), "transverse")


def known_laterality(meta: Mapping[str, Any]) -> str:
    """The side that an image's header states: "" where it is unknown, or a guess from free text.

    Args:
        meta: metadata of an image that `RadiographReader` read.
    """
    return "" if meta.get("laterality_source") == "description" else str(meta.get("laterality", ""))


def view_of(ds: Any) -> tuple[str, str]:
    """The projection and its source.

    Args:
        ds: a pydicom data set.

    Returns:
        "PA", "AP", "LATERAL", "CC", "MLO", ..., and where it is from: "tag", "code",
        "orientation" or "description"; two empty texts where it is not known.
    """
    tagged, coded = _text(ds, "ViewPosition"), _view_codes(ds)
    if not (tagged or coded):
        return _by_orientation(ds) or _by_description(ds) or ("", "")
    view = _of_words(tagged)[0]
    if view:
        return view, TAG
    known = {_VIEW_CODES[value] for value in coded if value in _VIEW_CODES}
    return (known.pop(), CODE) if len(known) == 1 else ("", "")  # said, but not understood: nothing may overrule it


def _by_orientation(ds: Any) -> tuple[str, str] | None:
    named = _of_words(_text(ds, "PatientOrientation"))[0]
    if named in _BREAST:
        return named, ORIENTATION
    orientation = orientation_of(ds)
    straight = len(orientation) == 3  # one letter a code: an oblique view has more
    lateral = straight and _plane(orientation) == "sagittal" and _text(ds, "Modality") != "MG"
    return ("LATERAL", ORIENTATION) if lateral else None


def _by_description(ds: Any) -> tuple[str, str] | None:
    view = _guess(_text(ds, "SeriesDescription"))
    fits = (view in _BREAST) == (_text(ds, "Modality") == "MG") and not contradicts(view, orientation_of(ds))
    return (view, DESCRIPTION) if view and fits else None


def side_of(ds: Any) -> tuple[str, str]:
    """The side of a paired organ and its source.

    A chest has no side: "L LAT" in its description, and RL in its ViewPosition, name the projection. Those two are
    asked of mammograms alone.

    Args:
        ds: a pydicom data set.

    Returns:
        "L", "R" or "B" (both), and where it is from: "tag", "code",
        "orientation" or "description"; two empty texts where it is not known.
    """
    tagged = [_text(ds, name) for name in ("ImageLaterality", "FrameLaterality", "Laterality")]
    for value in tagged:
        if value in ("L", "R", "B"):
            return value, TAG
    coded = {_SIDE_CODES.get(value, "") for value in _modifiers(ds, "AnatomicRegion")} - {""}
    if len(coded) == 1:
        return coded.pop(), CODE
    if _text(ds, "Modality") != "MG":
        return "", ""
    for name, source in (("ViewPosition", TAG), ("PatientOrientation", ORIENTATION)):
        side = _of_words(_text(ds, name))[1]
        if side:
            return side, source
    words = set(_SIDE_WORD.findall(_spelt(_text(ds, "SeriesDescription"))))
    return (words.pop(), DESCRIPTION) if len(words) == 1 and not any(tagged) else ("", "")


def traits_of(ds: Any) -> list[str]:
    """Traits that set an image apart, as far as its header says.

    Args:
        ds: a pydicom data set.

    Returns:
        Some of :data:`TRAITS`: ``specimen`` (SpecimenDescriptionSequence, the view's code or name, or the word in
        SeriesDescription), ``implant`` (BreastImplantPresent, or the modifier Implant Displaced), ``partial``
        (PartialView), ``magnification`` and ``spot`` (ViewModifierCodeSequence, CID 4015), ``synthesised`` (a value of
        ImageType is GENERATED_2D: a mammogram computed from a tomosynthesis), ``contradiction`` (the view, which tag or
        code name, lies in another plane than PatientOrientation; the view counts).
    """
    words = _WORD.findall(f"{_text(ds, 'ViewPosition')} {_text(ds, 'SeriesDescription')}")
    found = {_MODIFIERS.get(value, "") for value in _modifiers(ds, "View")}
    if "SPECIMEN" in words or _SPECIMEN_CODES & set(_view_codes(ds)) or ds.get("SpecimenDescriptionSequence"):
        found.add("specimen")
    if _text(ds, "BreastImplantPresent") == "YES":
        found.add("implant")
    if _text(ds, "PartialView") == "YES":
        found.add("partial")
    if "GENERATED_2D" in re.split(r"[^A-Z0-9_]+", _text(ds, "ImageType")):
        found.add("synthesised")
    if contradicts(view_of(ds)[0], orientation_of(ds)):
        found.add("contradiction")
    return [trait for trait in TRAITS if trait in found]


def orientation_of(ds: Any) -> str:
    r"""PatientOrientation as its two codes with a backslash between, "" where absent or not two codes."""
    codes = _WORD.findall(_text(ds, "PatientOrientation"))
    return "\\".join(codes) if len(codes) == 2 and all(re.fullmatch("[APRLHF]{1,3}", code) for code in codes) else ""


def contradicts(view: str, orientation: str) -> bool:
    r"""True where an orientation shows another plane than a view lies in.

    Args:
        view: such as "PA"; oblique and unknown views contradict nothing.
        orientation: such as "L\F", or "".
    """
    plane = _plane(orientation)
    return bool(plane) and _PLANES.get(view, plane) != plane


def _plane(orientation: str) -> str:
    axes = {next(axis for axis in ("AP", "LR", "FH") if part[0] in axis) for part in orientation.split("\\") if part}
    planes = {"frontal": {"LR", "FH"}, "sagittal": {"AP", "FH"}, "transverse": {"AP", "LR"}}
    return next((name for name, both in planes.items() if both == axes), "")


def _text(ds: Any, name: str) -> str:
    """A text in upper case, several values with a backslash between; "" where it is absent."""
    value = ds.get(name)
    parts = [value] if isinstance(value, str | bytes) or not hasattr(value, "__iter__") else list(value)
    texts = (part.decode("latin-1") if isinstance(part, bytes) else str(part or "") for part in parts)
    return "\\".join(text.strip(" \0").upper() for text in texts)


def _spelt(text: str) -> str:
    for pattern, spelling in _SPELLINGS:
        text = pattern.sub(spelling, text)
    return text


def _of_words(text: str) -> tuple[str, str]:
    """View and side of a tag every word of which is understood; "" for what it does not name, or names twice."""
    views, sides = set(), set()
    for word in _WORD.findall(_spelt(text)):
        if word in _VIEWS:
            view, side = _VIEWS[word]
            views.add(view)
            sides.add(side)
        elif word in _SIDES:
            sides.add(_SIDES[word])
        elif word not in _PLACEMENTS:
            return "", ""
    sides.discard("")
    return (views.pop() if len(views) == 1 else ""), (sides.pop() if len(sides) == 1 else "")


def _view_codes(ds: Any) -> list[str]:
    return [_text(item, "CodeValue") for item in ds.get("ViewCodeSequence") or []]


def _modifiers(ds: Any, of: str) -> list[str]:
    """Codes of the modifiers of a view or region: within the item that they modify, or beside it."""
    modified = ds.get("ViewCodeSequence" if of == "View" else f"{of}Sequence") or []
    name = "ViewModifierCodeSequence" if of == "View" else f"{of}ModifierSequence"
    return [_text(item, "CodeValue") for place in (ds, *modified) for item in place.get(name) or []]


def _guess(description: str) -> str:
    """The only view that a free text names; "" where it names none, several, or one beside something unknown."""
    text = _spelt(description)
    found = {_VIEWS[match[1]][0] for match in _VIEW_WORD.finditer(text)}
    others = set(_OTHER_WORD.findall(text))
    if found & {"PA", "AP"}:
        others -= {"FRONTAL", "DECUB"}  # which say no more than these
        others |= set(_LETTER.findall(text))
    if len(found) != 1 or others or _SEVERAL.search(text) or any(map(_is_joined, _VIEW_WORD.finditer(text))):
        return ""
    return found.pop()


def _is_joined(match: re.Match[str]) -> bool:
    """Whether a view stands beside a word that may be another one: "PA/L", "AP & more"; not "AP/PORTABLE"."""
    behind, before = _BEHIND.match(match.string, match.end()), _BEFORE.search(match.string[: match.start()])
    return any(found is not None and found[1] not in _HARMLESS for found in (behind, before))
