import logging

import pytest

from cleft_bundle.files import save_text
from cleft_bundle.secrets import mask_logs, masked, masked_values


@pytest.mark.parametrize(("text", "expected"), [
    ("http://me:word@host:5000/x", "http://me:***@host:5000/x"),
    ("postgresql+psycopg2://me:w@r/d:!@host/db?sslmode=off", "postgresql+psycopg2://me:***@host/db?sslmode=off"),
    ("https://ghp_token@host/x", "https://***@host/x"),
    ("at 'http://a:b@c', then \"https://d:e@f\"", "at 'http://a:***@c', then \"https://d:***@f\""),
    ("https://host/x?a=1&access_token=word&b=2#c", "https://host/x?a=1&access_token=***&b=2#c"),
    ("mssql:///?odbc=UID%3Dme%3BPWD%3Dword", "mssql:///?odbc=UID%3Dme%3BPWD%3D***"),
    ("host=db user=me password=word dbname=x", "host=db user=me password=*** dbname=x"),
    ("sqlite:////data/a:b@c/mlruns.db", "sqlite:////data/a:b@c/mlruns.db"),
    ("http://host:5000/a?max_tokens=5", "http://host:5000/a?max_tokens=5"),
    ("no secret: me@host, 3:4@5", "no secret: me@host, 3:4@5"),
])  # fmt: skip
def test_credentials_are_masked_and_nothing_else(text, expected):
    assert masked(text) == expected
    assert masked(expected) == expected


def test_values_of_secret_variables_are_masked(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "correct horse")
    assert masked("login with correct horse failed") == "login with *** failed"


def test_nested_values_are_masked_and_the_rest_kept():
    content = {
        "uri": ["http://a:b@c", 1, None],
        "password": "x",
        "db_password": "@db#password",
        "max_caption_tokens": 64,
    }
    expected = {"uri": ["http://a:***@c", 1, None], "password": "***", "db_password": "@db#password"}
    assert masked_values(content) == expected | {"max_caption_tokens": 64}


def test_files_hold_no_credentials(tmp_path):
    save_text('{"uri": "http://a:b@c"}', tmp_path / "x.json")
    assert (tmp_path / "x.json").read_text() == '{"uri": "http://a:***@c"}'


def test_logs_of_any_library_hold_no_credentials(caplog, monkeypatch):
    monkeypatch.setattr(logging, "_logRecordFactory", logging.getLogRecordFactory())
    mask_logs()
    mask_logs()  # once is enough
    try:
        raise ValueError("at http://a:b@c")
    except ValueError:
        logging.getLogger("elsewhere").exception("cannot reach %s", "http://a:b@c")
    assert caplog.text.count("http://a:***@c") == 3  # the message, the line of the code, and the exception
    assert "a:b@c" not in caplog.text
