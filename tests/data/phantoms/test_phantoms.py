import csv
import hashlib
from pathlib import Path

import numpy as np
import pydicom
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from cleft_bundle.data.datasets.chexpert import FINDINGS
from cleft_bundle.data.phantoms import breast, chest, folder
from cleft_bundle.data.phantoms.chest import COLUMNS
from cleft_bundle.data.phantoms.chest_scene import DRAWN
from cleft_bundle.errors import BundleError
from tests import processes

CHESTS, BREASTS = 210, 105  # over 400 images each
CONTEXT = processes.forked()  # imported like a spawned process, and sooner


@pytest.fixture(scope="module")
def chests(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patched:  # workers of pytest keep the cores busy
        patched.setattr(folder, "WORTH_A_POOL", CHESTS + 1)
        return Path(chest(str(tmp_path_factory.mktemp("chest")), CHESTS, 3))


@pytest.fixture(scope="module")
def breasts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(breast(str(tmp_path_factory.mktemp("breast")), BREASTS, 3))


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def rows_of(chests: Path) -> list[dict[str, str]]:
    return table(chests / "train.csv") + table(chests / "valid.csv")


def dense_is_bright(path: Path) -> np.ndarray:
    data = pydicom.dcmread(path)
    pixels = data.pixel_array.astype(np.float64) / (2**data.BitsStored - 1)
    return 1 - pixels if data.PhotometricInterpretation == "MONOCHROME1" else pixels


def means(paths: list[Path]) -> dict[str, list[float]]:
    """Mean grey as stored (polarity corrected) and after a percentile scaling."""
    found: dict[str, list[float]] = {"stored": [], "scaled": []}
    for path in paths:
        picture = dense_is_bright(path)
        low, high = np.percentile(picture, (1, 99))
        found["stored"].append(float(picture.mean()))
        found["scaled"].append(float(np.clip((picture - low) / (high - low), 0, 1).mean()))
    return found


def digests(path: Path) -> dict[str, str]:
    return {
        file.relative_to(path).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(path.rglob("*"))
        if file.is_file()
    }


@pytest.mark.parametrize("draw", [chest, breast])
def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not(draw, tmp_path):
    one, two = (Path(draw(str(tmp_path / place), 5, 7)) for place in "ab")
    other = Path(draw(str(tmp_path / "a"), 5, 8))
    assert one.name == two.name != other.name
    assert digests(one) == digests(two)
    pictures = {k: v for k, v in digests(one).items() if k.endswith(".dcm")}
    assert pictures
    assert not set(pictures.values()) & set(digests(other).values())


def test_a_patient_does_not_depend_on_how_many_there_are(tmp_path):
    small, large = (digests(Path(chest(str(tmp_path), number, 0))) for number in (5, 7))
    pictures = [name for name in small if name.endswith(".dcm")]
    assert pictures
    assert all(small[name] == large[name] for name in pictures)


def test_processes_draw_what_one_draws(tmp_path, monkeypatch):
    one = digests(Path(chest(str(tmp_path / "one"), 9, 0)))
    asked = []
    monkeypatch.setattr(folder, "WORTH_A_POOL", 9)
    monkeypatch.setattr(folder.multiprocessing, "get_context", lambda kind: asked.append(kind) or CONTEXT)
    assert digests(Path(chest(str(tmp_path / "several"), 9, 0))) == one
    assert asked == ["spawn"]


def test_a_complete_set_is_not_written_again(tmp_path):
    path = Path(chest(str(tmp_path), 5, 0))
    (path / "train.csv").write_text("touched")
    assert chest(str(tmp_path), 5, 0) == str(path)
    assert (path / "train.csv").read_text() == "touched"


def test_a_set_that_was_interrupted_is_never_taken_for_whole(tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("cleft_bundle.data.phantoms.dicom._voi", stop)
        with pytest.raises(KeyboardInterrupt):
            chest(str(tmp_path), 5, 0)
    assert list(tmp_path.iterdir()) == []
    assert len(rows_of(Path(chest(str(tmp_path), 5, 0)))) >= 5


def test_of_two_processes_that_draw_the_same_set_both_get_it(tmp_path):
    def beaten(partial: Path) -> None:
        (partial / "mine").touch()
        winner = tmp_path / "phantom_chest_v1_n5_s0"
        winner.mkdir()
        (winner / "theirs").touch()

    path = Path(folder.build("chest", 1, str(tmp_path), 5, 0, beaten))
    assert [file.name for file in path.iterdir()] == ["theirs"]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("patients", "seed"), [(4, 0), (5, -1)])
@pytest.mark.parametrize("draw", [chest, breast])
def test_numbers_out_of_range_are_named(draw, patients, seed, tmp_path):
    with pytest.raises(BundleError, match=f"patients={patients}, seed={seed}"):
        draw(str(tmp_path), patients, seed)


def test_a_root_that_is_a_file_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(BundleError, match=r"cannot write below .*file"):
        chest(str(tmp_path / "file"), 5, 0)


def test_files_are_valid_mixed_and_say_that_they_are_phantoms(chests, breasts):
    seen: dict[str, set] = {"syntax": set(), "bits": set(), "polarity": set(), "function": set(), "lut": set()}
    for path in [*chests.rglob("*.dcm"), *breasts.rglob("*.dcm")]:
        data = pydicom.dcmread(path)  # without force: a proper Part 10 file
        mammogram = path.is_relative_to(breasts)
        assert data.Modality == ("MG" if mammogram else "DX")
        assert data.SOPClassUID.name.endswith("X-Ray Image Storage - For Presentation")
        assert data.file_meta.MediaStorageSOPInstanceUID == data.SOPInstanceUID
        assert str(data.PatientName) == ("PHANTOM^BREAST" if mammogram else "PHANTOM^CHEST")
        assert data.PatientID.startswith("PHANTOM-")
        assert "PHANTOM" in data.StudyDescription
        assert "PHANTOM" in data.SeriesDescription
        assert data.Manufacturer == "cleft_bundle phantom"
        shape = "INVERSE" if data.PhotometricInterpretation == "MONOCHROME1" else "IDENTITY"
        assert data.PresentationLUTShape == shape
        assert ("VOILUTSequence" in data) != ("WindowCenter" in data)
        assert data.pixel_array.max() < 2**data.BitsStored
        seen["syntax"].add(data.file_meta.TransferSyntaxUID)
        seen["bits"].add(data.BitsStored)
        seen["polarity"].add(data.PhotometricInterpretation)
        seen["function"].add(data.get("VOILUTFunction"))
        seen["lut"].add("VOILUTSequence" in data)
    assert len(seen["syntax"]) == 5
    assert seen["bits"] == {12, 13, 14, 15, 16}
    assert seen["polarity"] == {"MONOCHROME1", "MONOCHROME2"}
    assert {"SIGMOID", "LINEAR", None} <= seen["function"]
    assert seen["lut"] == {True, False}
    assert "no patients" in (chests / "README.txt").read_text()


def test_uids_are_unique_and_shared_where_they_should_be(breasts):
    files = [pydicom.dcmread(path, stop_before_pixels=True) for path in breasts.rglob("*.dcm")]
    assert len({data.SOPInstanceUID for data in files}) == len(files)
    assert len({data.StudyInstanceUID for data in files}) == BREASTS


def test_polarity_is_stored_as_it_says(chests):
    """The air beside the neck is the darkest part of a chest once polarity is corrected, whatever is stored."""
    polarities = set()
    for path in sorted(chests.rglob("*.dcm"))[:40]:
        picture = dense_is_bright(path)
        assert picture[:12, :12].mean() < np.median(picture)
        polarities.add(pydicom.dcmread(path, stop_before_pixels=True).PhotometricInterpretation)
    assert len(polarities) == 2


def test_the_chest_table_is_chexperts(chests):
    train, valid = table(chests / "train.csv"), table(chests / "valid.csv")
    patients = [{row["Path"].split("/")[2] for row in rows} for rows in (train, valid)]
    assert not patients[0] & patients[1]
    assert (len(patients[0]), len(patients[1])) == (CHESTS - CHESTS // 5, CHESTS // 5)
    assert tuple(train[0]) == COLUMNS
    assert {row[name] for row in train for name in DRAWN} == {"1.0", "0.0", "-1.0", ""}
    assert {row[name] for row in valid for name in DRAWN} == {"1.0", "0.0"}
    assert {row[name] for row in train for name in set(FINDINGS) - {*DRAWN, "No Finding"}} == {""}
    studies = [row["Path"].rsplit("/", 1)[0] for row in train + valid]
    assert len(set(studies)) == len(studies)
    assert {study.rsplit("/", 1)[1] for study in studies} == {"study1", "study2", "study3"}
    assert all((chests / row["Path"]).is_file() for row in train + valid)
    assert len(list(chests.rglob("*.dcm"))) == len(train + valid)


def test_labels_agree_with_each_other(chests):
    for row in rows_of(chests):
        positive = {name for name in DRAWN if row[name] in ("1.0", "-1.0")}
        assert (row["No Finding"] == "1.0") == (not positive)


def test_chest_prevalences(chests):
    rows = rows_of(chests)
    assert 0.17 < np.mean([row["No Finding"] == "1.0" for row in rows]) < 0.33
    for name in DRAWN:
        assert 0.08 < np.mean([row[name] == "1.0" for row in rows]) < 0.3, name


def test_every_drawn_finding_has_a_box_inside_its_picture(chests):
    boxes = table(chests / "locations.csv")
    boxed = {(box["Path"], box["finding"]) for box in boxes}
    positive = {(row["Path"], name) for row in rows_of(chests) for name in DRAWN if row[name] in ("1.0", "-1.0")}
    assert boxed == positive
    for box in boxes:
        data = pydicom.dcmread(chests / box["Path"], stop_before_pixels=True)
        x, y, width, height = (int(box[name]) for name in ("x", "y", "width", "height"))
        assert x >= 0
        assert y >= 0
        assert width > 0
        assert height > 0
        assert x + width <= data.Columns
        assert y + height <= data.Rows


def test_the_box_of_a_device_is_brighter_than_what_surrounds_it(chests):
    for box in table(chests / "locations.csv"):
        if box["finding"] == "Support Devices":
            picture = dense_is_bright(chests / box["Path"])
            x, y, width, height = (int(box[name]) for name in ("x", "y", "width", "height"))
            ring = np.zeros(picture.shape, bool)
            ring[max(y - height // 2, 0) : y + 3 * height // 2, max(x - width // 2, 0) : x + 3 * width // 2] = True
            ring[y : y + height, x : x + width] = False
            assert np.median(picture[y : y + height, x : x + width]) > np.median(picture[ring])


def test_chest_findings_cannot_be_read_from_the_mean_grey(chests):
    rows = rows_of(chests)
    assert len(rows) >= 400
    for kind, grey in means([chests / row["Path"] for row in rows]).items():
        for name in (*DRAWN, "No Finding"):
            there = [row[name] in ("1.0", "-1.0") for row in rows]
            assert roc_auc_score(there, grey) == pytest.approx(0.5, abs=0.1), (kind, name)


def test_chest_findings_can_be_seen(chests):
    """A linear model on 28 x 28 thumbnails finds each of them on patients that it was not fitted to."""

    def thumbnails(rows: list[dict[str, str]]) -> np.ndarray:
        out = []
        for row in rows:
            picture = dense_is_bright(chests / row["Path"])
            small = [[cell.mean() for cell in np.array_split(band, 28, 1)] for band in np.array_split(picture, 28, 0)]
            flat = np.ravel(small)
            out.append((flat - flat.mean()) / flat.std())
        return np.array(out)

    train, valid = table(chests / "train.csv"), table(chests / "valid.csv")
    seen, unseen = thumbnails(train), thumbnails(valid)
    for name in DRAWN:
        model = LogisticRegression(C=0.01, max_iter=500).fit(seen, [row[name] in ("1.0", "-1.0") for row in train])
        assert roc_auc_score([row[name] == "1.0" for row in valid], model.decision_function(unseen)) > 0.8, name


def embed(breasts: Path) -> list[dict[str, str]]:
    """One row per image with the density and the worst letter of its side."""
    clinical = table(breasts / "tables" / "EMBED_OpenData_clinical_phantom.csv")
    out = []
    for image in table(breasts / "tables" / "EMBED_OpenData_metadata_phantom.csv"):
        sides = ("", "B", image["ImageLateralityFinal"])
        rows = [row for row in clinical if row["acc_anon"] == image["acc_anon"] and row["side"] in sides]
        worst = max((row["asses"] for row in rows), key="NBPASMK".index)
        out.append(image | {"tissueden": rows[0]["tissueden"], "asses": worst})
    return out


def test_the_breast_tables_are_embeds(breasts):
    images = embed(breasts)
    assert len(images) == 4 * BREASTS
    assert {(row["ImageLateralityFinal"], row["ViewPosition"]) for row in images} == {
        (side, view) for side in "LR" for view in ("CC", "MLO")
    }
    assert {row["FinalImageType"] for row in images} == {"2D"}
    assert {row["tissueden"] for row in images} == set("1234")
    assert {row["asses"] for row in images} == set("NBPSMAK")
    for row in images:
        data = pydicom.dcmread(breasts / row["anon_dicom_path"], stop_before_pixels=True)
        assert (data.ImageLaterality, data.ViewPosition) == (row["ImageLateralityFinal"], row["ViewPosition"])
        assert data.Rows > data.Columns


def test_every_code_in_the_clinical_table_stands_in_the_legend(breasts):
    legend = table(breasts / "tables" / "AWS_Open_Data_Clinical_Legend.csv")
    codes = {(row["Header in export"], row["Code"]) for row in legend}
    used = set()
    for row in table(breasts / "tables" / "EMBED_OpenData_clinical_phantom.csv"):
        assert row["RACE_DESC"] == row["ETHNIC_GROUP_DESC"] == "Phantom"
        used |= {(name, row[name]) for name, _ in codes if row[name]}
    assert used <= codes
    assert {name for name, _ in used} == {name for name, _ in codes}


def test_breasts_come_from_the_edge_of_their_side(breasts):
    for row in embed(breasts)[:80]:
        picture = dense_is_bright(breasts / row["anon_dicom_path"])
        left, right = picture[:, :20].mean(), picture[:, -20:].mean()
        assert (left > right) == (row["ImageLateralityFinal"] == "L")


def test_breast_density_and_letter_cannot_be_read_from_the_mean_grey(breasts):
    rows = embed(breasts)
    assert len(rows) >= 400
    for kind, grey in means([breasts / row["anon_dicom_path"] for row in rows]).items():
        for column, values in (("tissueden", "1234"), ("asses", "NBPS")):
            for value in values:
                there = [row[column] == value for row in rows]
                assert roc_auc_score(there, grey) == pytest.approx(0.5, abs=0.1), (kind, column, value)
