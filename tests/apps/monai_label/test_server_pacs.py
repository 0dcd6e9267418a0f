"""A PACS behind the real server: a DICOMweb service of three series, spoken to over HTTP."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlparse

import pytest

from cleft_bundle.apps.monai_label.lib.model import ServedModel
from tests.apps.monai_label.conftest import require_label_venv
from tests.data.radiographs import make_dicom

require_label_venv()

pytestmark = pytest.mark.slow

SERIES = {"1.2.1": "CR", "1.2.2": "MG", "1.2.3": "CT"}
INSTANCES = {"1.2.1": 1, "1.2.2": 2, "1.2.3": 1}


class Pacs(BaseHTTPRequestHandler):
    """QIDO-RS search for series and WADO-RS retrieval of one."""

    folder = None

    def do_GET(self):
        address = urlparse(self.path)
        if address.path.endswith("/series") and "/studies/" not in address.path:
            asked = {key: values[0] for key, values in parse_qs(address.query).items()}
            rows = [self.row(uid, modality) for uid, modality in SERIES.items() if matches(uid, modality, asked)]
            self.answer("application/dicom+json", json.dumps(rows).encode())
        else:
            uid = address.path.rsplit("/", 1)[-1]
            parts = b"".join(
                b"--edge\r\nContent-Type: application/dicom\r\n\r\n" + file.read_bytes() + b"\r\n"
                for file in sorted(self.folder.glob(f"{uid}-*.dcm"))
            )
            self.answer('multipart/related; type="application/dicom"; boundary=edge', parts + b"--edge--\r\n")

    def row(self, uid, modality):
        return {
            "0020000D": {"vr": "UI", "Value": [f"{uid}.9"]},
            "0020000E": {"vr": "UI", "Value": [uid]},
            "00080060": {"vr": "CS", "Value": [modality]},
        }

    def answer(self, kind, body):
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Say nothing."""


def matches(uid, modality, asked):
    return asked.get("Modality", modality) == modality and asked.get("SeriesInstanceUID", uid) == uid


@pytest.fixture(scope="module")
def pacs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pacs")
    for uid, modality in SERIES.items():
        for number in range(INSTANCES[uid]):
            file = folder / f"{uid}-{number}.dcm"
            make_dicom(file, Modality=modality, SeriesInstanceUID=uid, SOPInstanceUID=f"{uid}.9.{number}")
    service = ThreadingHTTPServer(("127.0.0.1", 0), type("Service", (Pacs,), {"folder": folder}))
    threading.Thread(target=service.serve_forever, daemon=True).start()
    yield folder, f"http://127.0.0.1:{service.server_address[1]}/dicom-web"
    service.shutdown()


def test_series_of_radiographs_are_read_as_dicom_and_labelled(start, pacs, model_pt, tmp_path):
    folder, address = pacs
    env = {"MONAI_LABEL_DICOMWEB_CACHE_PATH": str(tmp_path / "cache"), "MONAI_LABEL_AUTO_UPDATE_SCORING": "false"}
    with start(address, tmp_path, {"model": model_pt}, **env) as server:
        status, info = server.get("/info/")
        assert (status, info["datastore"]["total"]) == (200, 2), "CT is no radiograph"
        status, answer = server.infer("1.2.1")
        assert status == 200, answer
        expected = ServedModel(model_pt, "cpu").score([folder / "1.2.1-0.dcm"]).probabilities[0].tolist()
        assert [row["score"] for row in answer["prediction"]] == pytest.approx(expected, abs=1e-4)
        status, answer = server.infer("1.2.2")
        assert status == 400
        assert "the series holds 2 images" in answer["detail"]
        assert server.infer("1.2.99")[0] == 404
        assert server.label("1.2.1", {"classification": "edema"})[0] == 200
        assert server.label("1.2.1", {"classification": "oedema"})[0] == 400
        assert server.get("/info/")[1]["datastore"]["completed"] == 1
        status, answer = server.post("/activelearning/random")
        assert (status, answer["id"]) == (200, "1.2.2")
