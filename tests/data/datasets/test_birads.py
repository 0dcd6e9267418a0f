import pytest

from cleft_bundle.data.datasets import birads


@pytest.mark.parametrize(
    ("code", "spoken"),
    [
        ("irregular", "irregular"),
        ("oval with macrolobulations", "oval with macrolobulations"),
        ("focal asymmetry", None),
        ("architectural distortion", None),
        ("intramammary lymph node", None),
        (None, None),
    ],
)
def test_captions_say_of_a_mass_only_shapes_that_a_mass_can_have(code, spoken):
    assert birads.words_of({"mass_shape": code, "view": "CC"}).get("mass_shape") == spoken
