from cleft_bundle.checkpoints.patient_roles import Memory, patient_digests, picture_digests
from cleft_bundle.data.pictures import PICTURE
from cleft_bundle.reports.evaluation.same_pictures import picture_lines, same_pictures


def item(patient, picture):
    return {"name": f"{patient}{picture}", "patient_id": patient, "image": "x", PICTURE: picture}


ITEMS = [item("a" * 16, "1" * 16), item("b" * 16, "1" * 16), item("c" * 16, "2" * 16), item("c" * 16, "2" * 16)]


def test_pictures_under_different_patients_are_counted():
    found = same_pictures(ITEMS, "test")
    assert (found["shared"], found["images_sharing"], found["known"]) == (1, 2, 4)
    (line,) = picture_lines(found)
    assert line.startswith("2 images show 1 pictures, pixel by pixel, that occur under different patients")
    assert "a" * 16 not in line


def test_pictures_of_the_training_are_counted_whatever_the_patient():
    trained = [item("d" * 16, "2" * 16)]
    memory = Memory("", {"weights": patient_digests(trained)}).seen(picture_digests(trained), "learnt")
    found = same_pictures(ITEMS, "test", {"trained_on": memory.state_dict()})
    assert found["seen"]["learnt"] == 2
    assert "2 of 4 images show a picture that the classifier was trained on" in picture_lines(found)[1]


def test_nothing_is_said_where_no_picture_is_known():
    plain = [{key: value for key, value in one.items() if key != PICTURE} for one in ITEMS]
    assert same_pictures(plain, "test") is None
    assert picture_lines(None) == []
