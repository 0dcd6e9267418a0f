"""Radiology reports: sections, sentences, and what de-identification has left of them.

Two kinds of files are read: the XML of Open-i (Demner-Fushman et al., "Preparing a collection of radiology
examinations for distribution and retrieval", JAMIA 2016), and plain text with headings in capitals as MIMIC-CXR has it
(Johnson et al., "MIMIC-CXR", Scientific Data 2019).

Both sets put marks in place of words: ``XXXX``, ``___``; Open-i in 2,906 of the 23,163 sentences of its findings and
impressions. What becomes of a sentence with marks, by rules each of which changes ten of these or more:

- ``x-XXXX`` is written ``x-ray``, which it always was.
- A word that hangs on a mark by a hyphen, an apostrophe or without a gap ("dual-XXXX", "XXXX-year-old") goes with it; a
  slash or a comma keeps the other word.
- A preposition, conjunction or article that is left without what it led to goes too: "unchanged since XXXX." becomes
  "unchanged.".
- A sentence whose subject is gone ("The XXXX are intact."), or what is said of it ("Lungs are XXXX."), or that has no
  other word than such ("XXXX at XXXX."), is dropped: nobody can tell what it says.

All other words stay as they are, negations among them. A mark may itself stand for any word, so some sentences remain
odd ("calcified lymph."), and "XXXX change" may have been no change.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from cleft_bundle.errors import BundleError
from cleft_bundle.names import plain_name

#: The section of what stands in a text file before or without a heading.
BODY = "report"


class WordlessError(BundleError):
    """A report without words."""


@dataclass(frozen=True)
class Report:
    """A report without marks of de-identification.

    Args:
        sections: text by heading in lower case, such as ``findings``, in the report's order; none is blank. A line
            break divides paragraphs and the items of a list, whose numbers are left out.
        mesh: the MeSH terms that people gave it, such as ``Cardiomegaly/mild``; empty for text files.
        images: ids of its images, which are their file names without suffix; empty for text files.
        uid: the set's id of the report; empty for text files.
    """

    sections: dict[str, str]
    mesh: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    uid: str = ""


def read_openi(path: str | Path) -> Report:
    """Read a report of Open-i.

    Args:
        path: one of ``ecgen-radiology/*.xml``.

    Returns:
        The report.

    Raises:
        BundleError: the file is missing or no such report; names it.
    """
    path = Path(path)
    return parse_openi(_read(path), str(path))


def parse_openi(content: bytes, source: str) -> Report:
    """Parse the XML of :func:`read_openi`.

    Args:
        content: the file's bytes.
        source: its name, for errors.

    Returns:
        The report.

    Raises:
        BundleError: it is no such report; names the source.
    """
    try:
        root = ElementTree.fromstring(content)  # noqa: S314 - expat itself stops entities that multiply
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise BundleError(f"{source}: not valid XML ({error})") from error
    sections: dict[str, str] = {}
    for element in root.iter("AbstractText"):
        label = element.get("Label", "").strip().lower() or BODY
        _add(sections, label, " ".join("".join(element.itertext()).split()))
    if not sections and root.find(".//AbstractText") is None:
        raise BundleError(f"{source}: has no element AbstractText, so it is no report of Open-i")
    uid = root.find("pmcId")
    return Report(
        sections,
        mesh=_texts(root, "MeSH/major"),
        images=tuple(image for element in root.iter("parentImage") if (image := element.get("id", ""))),
        uid="" if uid is None else uid.get("id", ""),
    )


def read_text(path: str | Path) -> Report:
    """Read a report in plain text.

    A heading is a line's beginning in capitals with a colon (``FINDINGS:``), or one of the usual headings in any case.
    The title ("FINAL REPORT") and ruled lines are dropped, wrapped lines joined. Where a heading comes twice, the texts
    are put together.

    Args:
        path: a UTF-8 file.

    Returns:
        The report, with the section :data:`BODY` for what has no heading.

    Raises:
        BundleError: the file is missing, or no UTF-8 text; names it.
        WordlessError: it holds no words.
    """
    path = Path(path)
    try:
        text = _read(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BundleError(f"{path}: expected UTF-8 text, found another encoding at byte {error.start}") from error
    entries: list[tuple[str, list[str]]] = [(BODY, [])]
    for line in text.splitlines():
        found = _HEADING.match(line)
        if found:
            entries.append((plain_name(found[1]), []))
        rest = line[found.end() :] if found else line
        if not _TITLE.fullmatch(rest) and not _RULE.fullmatch(rest):
            entries[-1][1].append(rest)
    sections: dict[str, str] = {}
    for heading, lines in entries:
        _add(sections, heading, _unwrap(lines))
    if not sections:
        raise WordlessError(f"{path}: holds no words of a report")
    return Report(sections)


def sentences(text: str) -> list[str]:
    """Divide a text into sentences.

    Numbers ("1.5 cm"), titles ("Dr. Smith") and abbreviations ("8 a.m.") do not end a sentence, a line break does. The
    numbers of a list are left out.

    Args:
        text: of a section.

    Returns:
        The sentences in their order, with single spaces; none is blank.
    """
    return [" ".join(sentence.split()) for line in text.splitlines() for sentence in _divide(line)]


def without_marks(sentence: str) -> str:
    """Take the marks of de-identification out of a sentence, as told at the head of this module.

    Args:
        sentence: with or without marks.

    Returns:
        The sentence, beginning as it did with a capital; empty where it says nothing any more.
    """
    text = _MARK.sub(_GAP, _RAY.sub(r"\1ray", sentence))
    if _GAP not in text:
        return text
    for pattern, replacement in _WIDEN:
        text = pattern.sub(replacement, text)
    if _NO_SUBJECT.match(text) or _NO_PREDICATE.fullmatch(text):
        return ""
    text = _LED_TO_NOTHING.sub(" ", text).replace(_GAP, " ")
    for pattern, replacement in _TIDY:
        text = pattern.sub(replacement, text)
    text = text.strip(" ,;:/-")
    if all(word in _SAYS_NOTHING for word in re.findall(r"[^\W\d_]{2,}", text.lower())):
        return ""
    return text[0].upper() + text[1:]


_GAP = "\0"
_MARK = re.compile(r"X{4,}|_{2,}|\[\*\*.*?\*\*\]")
_RAY = re.compile(r"\b(x-)X{4,}", re.IGNORECASE)
_PREPOSITION = r"(?:of|on|in|at|by|to|from|with|without|since|for|as|than|between|dated|during|per|via)"
_ARTICLE = r"(?:a|an|the|this|these|those)"
_COPULA = r"(?:is|are|was|were|appears?|remains?|seems?)\b"
_VERB = rf"(?:{_COPULA}|(?:has|have|had|demonstrates?|shows?)\b)"
#: What goes with a mark: the gap grows over it.
_WIDEN = (
    (re.compile(rf"[\w'-]*{_GAP}[\w'{_GAP}-]*"), _GAP),
    (re.compile(rf"\s*/\s*(?={_GAP})|(?<={_GAP})\s*/\s*"), " "),
    (re.compile(rf"\b(no|without)\s+{_GAP}\s+of\b", re.IGNORECASE), r"\1"),  # no evidence of
    (re.compile(rf"\b({_PREPOSITION})\s+{_GAP}\s*(?:and|or)\b(?=\s*\w)", re.IGNORECASE), r"\1"),
)
_NO_SUBJECT = re.compile(
    rf"\W*(?:(?:{_ARTICLE}|visualized|visible|remaining|other)\s+)*{_GAP}(?:\s*{_GAP})*\s+(?:(?:also|both|all)\s+)?{_COPULA}",
    re.IGNORECASE,
)
_NO_PREDICATE = re.compile(
    rf"(?!.*\b(?:no|not|without)\b)[^,;:]*\b{_COPULA}\s+(?:(?:{_PREPOSITION}|{_ARTICLE})\s+)*{_GAP}(?:\s*{_GAP})*\W*",
    re.IGNORECASE,
)
_LEADING = rf"(?:{_PREPOSITION}|{_ARTICLE}|and|or|prior|previous)"
_LED_TO_NOTHING = re.compile(
    rf"(?:(?:\s|^){_LEADING})+\s+{_GAP}(?:(?:\s|,|and|or|at|on|{_ARTICLE})*{_GAP})*"
    rf"(?=\s*(?:[.,;:)?!]|$|{_VERB}|{_PREPOSITION}\b))",
    re.IGNORECASE,
)
_TIDY = (
    (re.compile(r"\(\W*\)"), " "),
    (re.compile(r"\s+"), " "),
    (re.compile(r"\s+([.,;:?!)])"), r"\1"),
    (re.compile(r"([,;:])(?:\s*[,;:])+"), r"\1"),
    (re.compile(r"[,;:]+(?=\.)"), ""),
    (re.compile(r"(?<=\.)\.+"), ""),
    (re.compile(r"^(?:[\s.,;:?!)/-]|(?:and|or)\b)+"), ""),
)
_SAYS_NOTHING = frozenset(
    "an the of on in at by to from with without since for as and or is are was were be than this that these those "  # noqa: SIM905
    "between dated during per via versus vs no not comparison compared".split()
)

_HEADING = re.compile(
    r"\s*([A-Z][A-Z0-9 /&,()'-]*[A-Z)]"
    r"|(?i:findings|impression|indication|comparison|technique|history|examination|conclusion)):"
)
_TITLE = re.compile(r"\s*(?:FINAL|PRELIMINARY|WET)\s+(?:REPORT|READ|ADDENDUM)\s*:?\s*", re.IGNORECASE)
_RULE = re.compile(r"[\s_=*-]*(?<=[_=*-]{3})\s*")
_ITEM = re.compile(r"^\s*(?:\d{1,2}[.)]|[-*\u2022])\s+")

_END = re.compile(r"[.?!]+[\"')\]]*(?:\s+|$)|(?<=[a-zX)])\.(?=[A-Z][a-z])")
_NUMBER = re.compile(r"\(?(\d{1,2})[.)]+")
_NEVER_LAST = frozenset(["dr", "drs", "mr", "mrs", "ms", "prof", "st", "vs", "approx", "e.g", "i.e", "cf"])
_SELDOM_LAST = frozenset(["a.m", "p.m", "etc", "cm", "mm", "lat"])


def _divide(line: str) -> Iterator[str]:
    start, number = 0, 0
    for end in [*_END.finditer(line), None]:
        piece = line[start : end.end() if end else None].strip()
        if end is not None and not _ends(line, end):
            continue
        start = end.end() if end else len(line)
        if found := _NUMBER.fullmatch(piece):
            number = int(found[1])
            continue
        text, _, last = piece.rpartition(" ")
        if number and text and (found := _NUMBER.fullmatch(last)) and int(found[1]) == number + 1:
            piece, number = text, number + 1
        if piece := _ITEM.sub("", piece):
            yield piece


def _ends(line: str, end: re.Match[str]) -> bool:
    """Whether a stop ends a sentence."""
    words = line[: end.start()].split()
    word = words[-1].lower().lstrip("(") if words else ""
    if end[0].startswith(("?", "!")):
        return True
    if len(word) == 1 and len(words) > 1 and words[-2].lower().rstrip(".") in _NEVER_LAST:
        return False  # the initial of a name
    if word in _SELDOM_LAST or re.fullmatch(r"\w(\.\w)+", word):
        return not line[end.end() : end.end() + 1].islower() and word not in _NEVER_LAST
    return word not in _NEVER_LAST


def _unwrap(wrapped: Iterable[str]) -> str:
    """Join wrapped lines; a paragraph and an item of a list begin a new one."""
    lines: list[str] = []
    broken = True
    for line in wrapped:
        if not line.strip():
            broken = True
        elif broken or _ITEM.match(line):
            lines.append(" ".join(line.split()))
            broken = False
        else:
            lines[-1] = f"{lines[-1]} {' '.join(line.split())}"
    return "\n".join(lines)


def _add(sections: dict[str, str], name: str, text: str) -> None:
    """Add the sentences of a text to a section, without marks; nothing where no word is left."""
    clean = [sections[name]] if name in sections else []
    for line in text.splitlines():
        kept = ""
        for sentence in filter(re.compile(r"\w").search, map(without_marks, _divide(line))):
            # what has no full stop, such as an item of a list, keeps a line of its own
            kept += (" " if kept.endswith((".", "?", "!", ")")) else "\n") + sentence
        clean.append(kept.strip())
    if text := "\n".join(filter(None, clean)):
        sections[name] = text


def _texts(root: ElementTree.Element, path: str) -> tuple[str, ...]:
    return tuple(text for element in root.findall(path) if (text := (element.text or "").strip()))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BundleError(f"{path}: cannot be read ({error.strerror})") from error
