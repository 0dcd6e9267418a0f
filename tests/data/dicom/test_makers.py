import pytest

from cleft_bundle.data.dicom.makers import MAKERS, maker


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("GE MEDICAL SYSTEMS", "GE"),
        ('"GE Healthcare"', "GE"),
        ("G.E. Medical Systems", "GE"),
        ("HOLOGIC, Inc.", "Hologic"),
        ("LORAD, A Hologic Company\0", "Hologic"),
        ("FUJIFILM Corporation", "Fujifilm"),
        ("Fuji Photo Film Co.,Ltd.", "Fujifilm"),
        ("SIEMENS", "Siemens"),
        ("KONICA  MINOLTA", "Konica Minolta"),
        ("TOSHIBA_MEC", "Toshiba"),
        ("Philips Medical Systems", "Philips"),
        ("cleft_bundle phantom", "cleft_bundle phantom"),
        ("Imaging Dynamics of Dr. George Gessner", "other"),
        ("Acme", "other"),
        ("", ""),
        (" \0", ""),
    ],
)
def test_free_text_becomes_a_known_name_or_other(text, name):
    assert maker(text) == name
    assert name in ("", "other", *MAKERS)
