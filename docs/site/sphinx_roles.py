"""Sphinx's references in docstrings, as the site's Markdown."""

from __future__ import annotations

import re
from typing import Any

import griffe

_ROLE = re.compile(r":(?:attr|class|data|exc|func|meth|mod|obj):`(~?)([\w.]+)`")


class SphinxRoles(griffe.Extension):
    """Turn ``:class:`Name``` in docstrings into a link to Name, or into plain code where Name has no page."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of an object."""
        if obj.docstring is not None:
            obj.docstring.value = _ROLE.sub(lambda role: _link(obj, *role.groups()), obj.docstring.value)


def _link(obj: griffe.Object, short: str, name: str) -> str:
    try:
        path = name if name.startswith("cleft_bundle.") else obj.resolve(name)
    except griffe.NameResolutionError:
        path = name
    shown = name.rpartition(".")[2] if short else name
    return f'<autoref optional identifier="{path}"><code>{shown}</code></autoref>'
