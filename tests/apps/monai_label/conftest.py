"""The real MONAI Label server, on the loopback interface, from the environment that CLEFT_BUNDLE_LABEL_VENV names."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT

START_SECONDS = 240  # PyTorch, MONAI and MONAI Label have to be imported, on whatever machine
Answer = tuple[int, Any]


def require_label_venv() -> None:
    """Skip the module that calls this, with one line, where there is no environment to start a server in."""
    if not os.environ.get("CLEFT_BUNDLE_LABEL_VENV"):
        reason = "needs an environment of requirements/monai_label.txt; CLEFT_BUNDLE_LABEL_VENV names its folder"
        pytest.skip(reason, allow_module_level=True)


@pytest.fixture(scope="session")
def label_venv() -> Path:
    """The environment of requirements/monai_label.txt with this package in it."""
    return Path(os.environ["CLEFT_BUNDLE_LABEL_VENV"]).absolute()


class Server:
    """A running server.

    Args:
        process: the server's.
        url: its address.
        log: what it prints.
    """

    def __init__(self, process: subprocess.Popen[bytes], url: str, log: Path) -> None:
        self.process = process
        self.url = url
        self.log = log

    def get(self, path: str) -> Answer:
        """Status and JSON of a GET."""
        return self._ask(urllib.request.Request(self.url + path))  # noqa: S310

    def post(self, path: str, body: Any = None) -> Answer:
        """Status and JSON of a POST of JSON."""
        data = json.dumps({} if body is None else body).encode()
        return self._ask(urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"}))  # noqa: S310

    def infer(self, image: str, model: str = "cleft_classifier", output: str = "json", **params: Any) -> Answer:
        """Status and answer of an inference."""
        query = urllib.parse.urlencode({"image": image, **({"output": output} if output else {})})
        form = urllib.parse.urlencode({"params": json.dumps(params)}).encode()
        return self._ask(urllib.request.Request(f"{self.url}/infer/{model}?{query}", form))  # noqa: S310

    def label(self, image: str, content: Any, tag: str = "", suffix: str = ".json") -> Answer:
        """Status and answer of storing a label, as curl -F label=@FILE sends it."""
        text = content if isinstance(content, str) else json.dumps(content)
        body = (
            f'--edge\r\nContent-Disposition: form-data; name="label"; filename="label{suffix}"\r\n'
            f"Content-Type: application/json\r\n\r\n{text}\r\n--edge--\r\n"
        )
        query = urllib.parse.urlencode({"image": image, **({"tag": tag} if tag else {})})
        request = urllib.request.Request(f"{self.url}/datastore/label?{query}", body.encode(), method="PUT")  # noqa: S310
        request.add_header("Content-Type", "multipart/form-data; boundary=edge")
        return self._ask(request)

    def _ask(self, request: urllib.request.Request) -> Answer:
        try:
            with urllib.request.urlopen(request, timeout=120) as response:  # noqa: S310  # a server of our own
                return response.status, _content(response.headers.get_content_type(), response.read())
        except urllib.error.HTTPError as error:
            return error.code, _content(error.headers.get_content_type(), error.read())


def _content(kind: str, body: bytes) -> Any:
    return json.loads(body) if kind == "application/json" else body


@pytest.fixture(scope="session")
def app_dir(label_venv: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The application, where the console command has put it."""
    folder = tmp_path_factory.mktemp("app") / "cleft"
    command = [label_venv / "bin" / "cleft_monai_label", folder]
    subprocess.run(list(map(str, command)), check=True, env=environment(label_venv), cwd=folder.parent)
    return folder


def environment(label_venv: Path, **more: str) -> dict[str, str]:
    """Where the server finds this checkout, its own python, and nothing to download."""
    path = f"{label_venv / 'bin'}{os.pathsep}{os.environ['PATH']}"
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    return {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **offline, **more}


@pytest.fixture(scope="session")
def start(label_venv: Path, app_dir: Path) -> Callable[..., contextlib.AbstractContextManager[Server]]:
    """Start a server of a folder of images, with values of --conf."""

    @contextlib.contextmanager
    def run(studies: Path | str, work: Path, conf: dict[str, Any], **env: str) -> Iterator[Server]:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        options = [part for key, value in conf.items() for part in ("--conf", key, str(value))]
        command = [
            str(label_venv / "bin" / "monailabel"),
            "start_server",
            "--app",
            str(app_dir),
            "--studies",
            str(studies),
        ]
        log = work / "server.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*command, "--host", "127.0.0.1", "--port", str(port), *options],
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=work,
                env=environment(label_venv, **env),
                start_new_session=True,
            )
        server = Server(process, f"http://127.0.0.1:{port}", log)
        try:
            _wait_for(server)
            yield server
        finally:
            with contextlib.suppress(ProcessLookupError):  # the server and the tasks that it started
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    return run


def _wait_for(server: Server) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if server.process.poll() is not None:
            return  # refused to start: the test looks at the log
        with contextlib.suppress(OSError):
            if server.get("/info/")[0] == 200:
                return
        time.sleep(0.5)
    pytest.fail(f"the server does not answer: {server.log.read_text()[-2000:]}")


@pytest.fixture(scope="session")
def slicer_client(label_venv: Path) -> Any:
    """The module of MONAI Label's client in 3D Slicer, as the wheel brings it."""
    file = label_venv / "monailabel" / "plugins" / "slicer" / "MONAILabel" / "MONAILabelLib" / "client.py"
    spec = importlib.util.spec_from_file_location("slicer_client", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
