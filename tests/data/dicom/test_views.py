import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from cleft_bundle.data.dicom.views import TRAITS, contradicts, orientation_of, side_of, traits_of, view_of
from tests.data.radiographs import PHI, load, make_dicom


def coded(code, **elements):
    """An item of a code sequence: a code value, or a concept of pydicom's dictionary."""
    ds = Dataset()
    ds.CodeValue = code if isinstance(code, str) else code.value
    ds.CodingSchemeDesignator = "SRT" if isinstance(code, str) else code.scheme_designator
    for name, value in elements.items():
        setattr(ds, name, value)
    return ds


def header(**elements):
    ds = Dataset()
    ds.Modality = elements.pop("Modality", "DX")
    with pydicom.config.disable_value_validation():
        for name, value in elements.items():
            setattr(ds, name, value)
    return ds


@pytest.mark.parametrize(
    ("text", "view"),
    [
        *[(text, "") for text in ("CHEST PA & LAT", "ap/lat chest", "CHEST PA AND LATERAL", "Chest AP/LAT", "L CC")],
        *[
            (text, "")
            for text in ("CHEST PA/L", "Thorax p.a. und seitlich", "TORAX AP Y PERFIL", "PA + Rippen", "PAPER")
        ],
        *[(text, "") for text in ("FRONTAL AND LATERAL", "PA 2 VIEWS", "chest pa 2v", "LATERAL DECUBITUS", "L CC")],
        *[(text, "") for text in ("THORAX 2 EBENEN PA", "PA 2 IMAGES", "CHEST PA x2", "torax AP L", "PA P", "PA+L")],
        *[(text, "PA") for text in ("CHEST PA", "view: PA", "XR Chest, PA (erect)", "thorax p.a.", "Chest PA PA")],
        *[(text, "AP") for text in ("AP/PORTABLE", "CHEST AP FRONTAL", "antero-posterior", "AP lat decub")],
        *[(text, "LATERAL") for text in ("CHEST LATERAL", "Chest L LAT", "LLAT")],
    ],
)
def test_a_description_counts_where_it_names_one_view_alone(text, view):
    assert view_of(header(SeriesDescription=text)) == (view, "description" if view else "")


@pytest.mark.parametrize(
    ("text", "view", "side"),
    [
        *[("R MLO", "MLO", "R"), ("LCC raw", "CC", "L"), ("Left breast, ML view", "ML", "L"), ("L-CC", "CC", "L")],
        *[("R MLO, R CC", "", "R"), ("L and R CC", "CC", ""), ("LIGHT CCC", "", ""), ("CHEST PA", "", "")],
    ],
)
def test_the_description_of_a_mammogram(text, view, side):
    ds = header(Modality="MG", SeriesDescription=text)
    assert view_of(ds) == (view, "description" if view else "")
    assert side_of(ds) == (side, "description" if side else "")


@pytest.mark.parametrize(
    ("text", "view"),
    [
        *[("AP SUPINE", "AP"), ("AP AXIAL", "AP"), ("PA LLD", "PA"), ("XTABLE LATERAL", "LATERAL"), ("LL", "LATERAL")],
        *[("RL", "LATERAL"), ("POSTERO_ANTERIOR", "PA"), ("PA ERECT", "PA"), ("pa ", "PA")],
        *[("AP OBLIQUE", ""), ("LAO", ""), ("LLD", ""), ("SWIMMERS", ""), ("SUPINE", ""), (["AP", "LL"], "")],
        *[("AP-LAT", ""), ("a very long text that is no code: PA", "")],
    ],
)
def test_a_view_position_is_understood_whole_or_not_at_all(text, view):
    ds = header(ViewPosition=text, SeriesDescription="CHEST PA", PatientOrientation=["A", "F"])
    assert view_of(ds) == (view, "tag" if view else "")


@pytest.mark.parametrize(
    ("text", "view", "side"),
    [
        *[("RMLO", "MLO", "R"), ("LCC", "CC", "L"), ("L MLO", "MLO", "L"), ("LML", "ML", "L"), ("RLM", "LM", "R")],
        *[("LM", "LM", ""), ("RXCCL", "XCCL", "R"), ("CC", "CC", "")],
    ],
)
def test_the_view_position_of_a_mammogram_may_name_its_side(text, view, side):
    ds = header(Modality="MG", ViewPosition=text)
    assert view_of(ds) == (view, "tag")
    assert side_of(ds) == (side, "tag" if side else "")
    assert side_of(header(ViewPosition=text)) == ("", "")  # a chest has none


CHEST, BREAST = codes.cid4010, codes.cid4014
# the name in pydicom 3's dictionary, and in pydicom 2's
MLO = getattr(BREAST, "MedioLateralObliqueProjection", None) or BREAST.MedioLateralOblique


@pytest.mark.parametrize(
    ("code", "view"),
    [
        *[
            (CHEST.PosteroAnterior, "PA"),
            (CHEST.AnteroPosterior, "AP"),
            (CHEST.LeftLateral, "LATERAL"),
            ("R-10206", "AP"),
        ],
        *[
            (BREAST.CranioCaudal, "CC"),
            (MLO, "MLO"),
            ("R-10226", "MLO"),
            ("R-40888", "PA"),
        ],
        *[(BREAST.SuperolateralToInferomedialOblique, "SIO"), (BREAST.CranioCaudalExaggeratedLaterally, "XCCL")],
        *[(CHEST.LeftAnteriorOblique, ""), ("999", "")],
    ],
)
def test_codes_of_views(code, view):
    ds = header(ViewCodeSequence=[coded(code)], SeriesDescription="L CC, CHEST AP", PatientOrientation=["A", "F"])
    assert view_of(ds) == (view, "code" if view else "")
    ds.ViewPosition = "LL"
    assert view_of(ds) == ("LATERAL", "tag")
    ds.ViewPosition = "STRANGE"
    assert view_of(ds) == (view, "code" if view else "")


@pytest.mark.parametrize(("columns", "rows"), [("A", "F"), ("P", "F"), ("P", "H"), ("F", "A")])
def test_a_sagittal_plane_is_a_lateral_chest(columns, rows):
    said = {"PatientOrientation": [columns, rows], "SeriesDescription": "CHEST PA"}
    assert view_of(header(**said)) == ("LATERAL", "orientation")
    assert view_of(header(**said, ViewPosition="PA")) == ("PA", "tag")
    assert traits_of(header(**said, ViewPosition="PA")) == ["contradiction"]
    assert view_of(header(Modality="MG", PatientOrientation=[columns, rows])) == ("", "")


@pytest.mark.parametrize("orientation", [["L", "F"], ["R", "F"], ["F", "L"], ["AL", "F"]])
def test_other_planes_name_no_view_and_refute_a_guess(orientation):
    assert view_of(header(PatientOrientation=orientation)) == ("", "")
    assert view_of(header(PatientOrientation=["L", "F"], SeriesDescription="CHEST LATERAL")) == ("", "")
    assert view_of(header(PatientOrientation=["L", "F"], SeriesDescription="CHEST PA")) == ("PA", "description")


@pytest.mark.parametrize(
    ("view", "orientation", "refuted"),
    [
        *[("PA", "L\\F", False), ("PA", "A\\F", True), ("LATERAL", "L\\F", True), ("CC", "P\\L", False)],
        *[("CC", "P\\FL", True), ("MLO", "P\\FL", False), ("MLO", "A\\R", False), ("ML", "A\\R", True)],
        *[("PA", "", False), ("", "A\\F", False), ("PA", "L\\R", False)],
    ],
)
def test_planes_that_contradict_a_view(view, orientation, refuted):
    assert contradicts(view, orientation) == refuted


def test_a_view_in_patient_orientation_as_cbis_ddsm_has_it():
    ds = header(Modality="MG", PatientOrientation="MLO", SeriesDescription="full mammogram images", Laterality="R")
    assert (view_of(ds), side_of(ds), orientation_of(ds)) == (("MLO", "orientation"), ("R", "tag"), "")
    ds = header(Modality="MG", PatientOrientation="LCC")
    assert (view_of(ds), side_of(ds)) == (("CC", "orientation"), ("L", "orientation"))


@pytest.mark.parametrize(
    ("code", "side"), [("G-A100", "R"), ("7771000", "L"), (codes.cid244.Left, "L"), ("51440002", "B"), ("66459002", "")]
)
@pytest.mark.parametrize("nested", [True, False])
def test_sides_of_the_anatomic_region(code, side, nested):
    modifier = {"AnatomicRegionModifierSequence": [coded(code)]}
    ds = header(Modality="MG", **({"AnatomicRegionSequence": [coded("76752008", **modifier)]} if nested else modifier))
    assert side_of(ds) == (side, "code" if side else "")
    ds.ImageLaterality = "R"
    assert side_of(ds) == ("R", "tag")


def test_a_side_that_is_said_to_be_none_is_not_guessed():
    assert side_of(header(Modality="MG", ImageLaterality="U", SeriesDescription="R MLO")) == ("", "")
    assert side_of(header(Modality="MG", ImageLaterality="", SeriesDescription="R MLO")) == ("R", "description")


@pytest.mark.parametrize(
    ("elements", "traits"),
    [
        ({}, []),
        ({"BreastImplantPresent": "YES"}, ["implant"]),
        ({"BreastImplantPresent": "NO", "PartialView": "NO", "ImageType": ["ORIGINAL", "PRIMARY"]}, []),
        ({"PartialView": "YES"}, ["partial"]),
        ({"ImageType": ["DERIVED", "PRIMARY", "TOMOSYNTHESIS", "GENERATED_2D"]}, ["synthesised"]),
        ({"SpecimenDescriptionSequence": [coded("1")]}, ["specimen"]),
        ({"SpecimenDescriptionSequence": []}, []),
        ({"ViewCodeSequence": [coded("G-8310")]}, ["specimen"]),
        ({"SeriesDescription": "Specimen left"}, ["specimen"]),
    ],
)
def test_what_sets_an_image_apart(elements, traits):
    assert traits_of(header(Modality="MG", **elements)) == traits


@pytest.mark.parametrize("nested", [True, False])
def test_modifiers_of_views(nested):
    modifiers = codes.cid4015
    names = [modifiers.Magnification, modifiers.SpotCompression, modifiers.ImplantDisplaced, modifiers.NippleInProfile]
    modified = {"ViewModifierCodeSequence": [coded(name) for name in names]}
    ds = header(**{"ViewCodeSequence": [coded("R-10242", **modified)]} if nested else modified)
    assert traits_of(ds) == ["implant", "magnification", "spot"]
    assert view_of(ds)[0] == ("CC" if nested else "")


def test_metadata_say_where_values_come_from(tmp_path):
    said = {"Modality": "MG", "SeriesDescription": "R MLO", "BreastImplantPresent": "YES", "PartialView": "YES"}
    meta = load(make_dicom(tmp_path / "x", **PHI, **said))[1]
    got = [meta[name] for name in ("view", "view_source", "laterality", "laterality_source", "traits", "decoder")]
    assert got == ["MLO", "description", "R", "description", "implant|partial", "numpy"]
    assert "CANARY" not in str(meta)
    assert TRAITS[0] == "specimen"
