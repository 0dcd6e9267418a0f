"""Credentials in texts: masked before a text is logged, stored or shown."""

from __future__ import annotations

import logging
import os
import re
import traceback
from collections.abc import Mapping, Sequence
from typing import Any

MASK = "***"
_NAMES = r"(?:pass(?:word|wd|phrase)?|pwd|secret|token|api[_-]?key|signature|sig|credentials?)"
_USERINFO = re.compile(r"(?<=://)(?:([^\s/?#:@'\"<>]*):[^\s'\"<>]*|[^\s/?#:@'\"<>]+)@")  # RFC 3986, section 3.2.1
_PARAMETER = re.compile(rf"(?i)((?:^|[?&;\s'\"]|%3B)(?:[a-z0-9]+[._-])*{_NAMES}\s*(?:=|%3D)\s*)[^\s&;'\"<>]+")
_KEY = re.compile(r"(?i)(?:.*[_-])?(?:password|passwd|secret|api_key|token|credentials)")
_VARIABLE = re.compile(r"(?i).*(?:PASSWORD|SECRET|TOKEN|ACCESS_KEY|API_KEY|SALT)$")
_SHORTEST = 8  # characters of a secret in the environment that is looked for: shorter ones are words of any text


def masked(text: str) -> str:
    """A text without the credentials in it.

    Masked are the password of the user information of every URL (RFC 3986, section 3.2.1), of which a lone name goes
    as well, as it may be a token; the values of parameters of URLs and connection strings that are called ``password``,
    ``token``, ``secret``, ``api_key`` and the like; and the values of the environment's variables that are called so.

    Args:
        text: any text, such as a URL, a message or a JSON document.

    Returns:
        the text with ``***`` in place of each credential; masking it again changes nothing.
    """
    return _masked(text, _of_environment())


def masked_values(content: Any) -> Any:
    """Mappings and sequences with every text in them masked; a text under a key such as ``password`` goes as a whole.

    Args:
        content: nested mappings, lists and tuples; what is neither a text nor one of these stays as it is.
    """
    secrets = _of_environment()  # once: a config has thousands of values

    def mask(value: Any) -> Any:
        if isinstance(value, str):
            return _masked(value, secrets)
        if isinstance(value, Mapping):
            return {
                key: MASK if isinstance(inner, str) and inner and _is_secret(key, inner) else mask(inner)
                for key, inner in value.items()
            }
        return [mask(inner) for inner in value] if isinstance(value, list | tuple) else value

    return mask(content)


def mask_logs() -> None:
    """From now on mask every record that this process logs, whichever library logs it, tracebacks included."""
    make = logging.getLogRecordFactory()
    if getattr(make, "masks", False):
        return

    def masking(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = make(*args, **kwargs)
        try:
            record.msg, record.args = masked(record.getMessage()), None
        except (TypeError, ValueError, KeyError):  # logging itself reports a message that does not fit its arguments
            return record
        if record.exc_info and record.exc_info[1] is not None:
            record.exc_text = masked("".join(traceback.format_exception(record.exc_info[1]))).rstrip()
        return record

    masking.masks = True  # type: ignore[attr-defined]
    logging.setLogRecordFactory(masking)


def _masked(text: str, secrets: Sequence[str]) -> str:
    for secret in secrets:
        text = text.replace(secret, MASK)
    if "://" in text:
        text = _USERINFO.sub(lambda found: f"{found[1]}:{MASK}@" if found[1] is not None else f"{MASK}@", text)
    return _PARAMETER.sub(rf"\1{MASK}", text)


def _is_secret(key: Any, value: str) -> bool:
    return bool(_KEY.fullmatch(str(key))) and not value.startswith(("@", "$"))


def _of_environment() -> list[str]:
    """Values of secret variables, the longest first, so that none is left in part."""
    values = {value for name, value in os.environ.items() if _VARIABLE.fullmatch(name) and len(value) >= _SHORTEST}
    return sorted(values, key=len, reverse=True)
