"""``cleft download``, with the network replaced: the packages that fetch are stand-ins which write a file."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from cleft_bundle.commands.download import SOURCES, download
from cleft_bundle.errors import BundleError, UsageError
from tests.conftest import ROOT


@pytest.fixture
def no_token(monkeypatch, tmp_path):
    for name in ("KAGGLE_API_TOKEN", "KAGGLE_USERNAME", "KAGGLE_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


@pytest.fixture
def fetched(monkeypatch, no_token):
    """What the stand-ins were asked for; they write a file, as the packages do."""
    asked = []

    class Client:
        def download_from_selection(self, downloadDir, **selection):  # noqa: N803 - its own name
            asked.append(selection)
            (Path(downloadDir) / "1-1.dcm").touch()

    def competition_download(handle, *, output_dir):
        asked.append(handle)
        (Path(output_dir) / "train.csv").touch()

    monkeypatch.setitem(sys.modules, "idc_index", SimpleNamespace(IDCClient=Client))
    monkeypatch.setitem(sys.modules, "kagglehub", SimpleNamespace(competition_download=competition_download))
    return asked


def test_every_overlay_of_a_public_set_has_a_source():
    own = {"folder", "dicom_dir", "datalist", "phantom_breast"}
    overlays = {path.stem.removeprefix("data_") for path in (ROOT / "configs").glob("data_*.json")}
    assert overlays - own == set(SOURCES)


@pytest.mark.parametrize(("name", "collection"), [("cbis", "cbis_ddsm"), ("cmmd", "cmmd")])
def test_collections_of_the_imaging_data_commons(name, collection, fetched, tmp_path):
    said = download(name, str(tmp_path))
    template = "%PatientID/%StudyInstanceUID/%SeriesInstanceUID"
    assert fetched == [{"collection_id": collection, "dirTemplate": template}]
    assert (tmp_path / name / "1-1.dcm").is_file()
    assert f"the images of {name} are in {tmp_path / name}; its tables are on its page" in said
    assert SOURCES[name].page in said


def test_challenges_by_a_token_alone(fetched, tmp_path, monkeypatch):
    said = download("rsna_breast", str(tmp_path))
    assert fetched == []
    assert "comes with a token of Kaggle" in said
    assert not (tmp_path / "rsna_breast").exists()
    monkeypatch.setenv("KAGGLE_API_TOKEN", "canary-token")
    said = download("rsna_breast", str(tmp_path))
    assert fetched == ["rsna-breast-cancer-detection"]
    assert said.startswith(f"rsna_breast is in {tmp_path / 'rsna_breast'}.")
    assert "canary" not in said


@pytest.mark.parametrize("name", [name for name, source in SOURCES.items() if not source.idc and not source.kaggle])
def test_other_sets_are_told_of_and_not_fetched(name, fetched, tmp_path):
    said = download(name, str(tmp_path))
    assert fetched == []
    assert list(tmp_path.iterdir()) == []
    assert f"page: {SOURCES[name].page}" in said
    assert all(f"\n  {line}" in said for line in SOURCES[name].tree)
    assert f"configs/data_{name}.json" in said


def test_failures_are_one_line(fetched, tmp_path, monkeypatch):
    def fails(**_):
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(sys.modules["idc_index"].IDCClient, "download_from_selection", lambda self, **_: fails())
    with pytest.raises(BundleError, match=r"^download: cmmd could not be fetched: ConnectionError: no route to host"):
        download("cmmd", str(tmp_path))
    monkeypatch.setattr(sys.modules["idc_index"].IDCClient, "download_from_selection", lambda self, **_: None)
    with pytest.raises(BundleError, match=r"was fetched, and .* holds no file"):
        download("cmmd", str(tmp_path))
    monkeypatch.setitem(sys.modules, "idc_index", None)
    with pytest.raises(BundleError, match=r"idc_index.*pip install 'cleft_bundle\[download\]'"):
        download("cmmd", str(tmp_path))
    with pytest.raises(UsageError, match=r"there is no set 'chexprt' \(did you mean 'chexpert'\?\)"):
        download("chexprt")
