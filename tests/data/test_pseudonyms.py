import hashlib

import pytest

from cleft_bundle.data.pseudonyms import DEFAULT_SALT, SALT_VARIABLE, pseudonym
from cleft_bundle.errors import BundleError


@pytest.fixture(autouse=True)
def _default_salt(monkeypatch):
    monkeypatch.delenv(SALT_VARIABLE, raising=False)


def test_is_short_hex_stable_and_without_the_identifier():
    first = pseudonym("PAT-0001")
    assert first == pseudonym(" PAT-0001 ")
    assert len(first) == 16
    assert int(first, 16) >= 0
    assert "0001" not in first


def test_differs_between_identifiers():
    assert len({pseudonym(str(number)) for number in range(2000)}) == 2000


def test_salt_from_the_environment_changes_it(monkeypatch):
    plain = pseudonym("PAT-0001")
    monkeypatch.setenv(SALT_VARIABLE, "a hospital's own secret, longer than the 64 bytes that a BLAKE2b key may have")
    assert pseudonym("PAT-0001") != plain
    monkeypatch.setenv(SALT_VARIABLE, DEFAULT_SALT)
    assert pseudonym("PAT-0001") == plain


def test_is_keyed_not_merely_hashed():
    assert pseudonym("PAT-0001") != hashlib.blake2b(b"PAT-0001", digest_size=8).hexdigest()


@pytest.mark.parametrize("empty", ["", "  "])
def test_empty_identifier_is_an_error(empty):
    with pytest.raises(BundleError, match="empty identifier"):
        pseudonym(empty)
