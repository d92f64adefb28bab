"""Pictures made part of the page: only shapes and text are taken over, and no two of them share an id.

A study's folder may come from a stranger, so that nothing is taken over for being in a picture: elements and attributes
that are not listed here are left out, and with them scripts, links, styles and fonts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from ablate.labels import clean

if TYPE_CHECKING:
    from markupsafe import Markup

ELEMENTS = frozenset(
    [
        "svg",
        "g",
        "defs",
        "path",
        "rect",
        "circle",
        "ellipse",
        "line",
        "polyline",
        "polygon",
        "text",
        "tspan",
        "title",
        "marker",
        "use",
        "clipPath",
        "pattern",
        "image",
    ]
)
ATTRIBUTES = frozenset(
    [
        "clip-path",
        "clip-rule",
        "cx",
        "cy",
        "d",
        "dx",
        "dy",
        "fill",
        "fill-opacity",
        "fill-rule",
        "font-family",
        "font-size",
        "font-style",
        "font-weight",
        "height",
        "id",
        "marker-end",
        "marker-mid",
        "marker-start",
        "markerHeight",
        "markerUnits",
        "markerWidth",
        "opacity",
        "orient",
        "patternTransform",
        "patternUnits",
        "points",
        "preserveAspectRatio",
        "r",
        "refX",
        "refY",
        "rotate",
        "rx",
        "ry",
        "stroke",
        "stroke-dasharray",
        "stroke-dashoffset",
        "stroke-linecap",
        "stroke-linejoin",
        "stroke-miterlimit",
        "stroke-opacity",
        "stroke-width",
        "text-anchor",
        "transform",
        "viewBox",
        "width",
        "x",
        "x1",
        "x2",
        "y",
        "y1",
        "y2",
    ]
)
CONTAINERS = frozenset(["svg", "g", "defs", "marker", "pattern", "clipPath", "text"])
"""What may hold other elements. No title: to an HTML parser what is in it is HTML, and its end may be missed."""
MOST_ELEMENTS, DEEPEST = 50_000, 40
_REFERENCE = re.compile(r"url\(\s*['\"]?#([^()'\"\\]*)['\"]?\s*\)")
_REFERRING = frozenset(["clip-path", "fill", "stroke", "marker-end", "marker-mid", "marker-start"])
"""Attributes that may name another element of the picture."""
_FONT = re.compile(r"(?:(bold|italic|oblique|\d{3})\s+)?([\d.]+)px(?:/\S+)?\s+(.+)")
_PLAIN = re.compile(r"[^\\<>&@:]*")
"""No escape of CSS, which could spell what is refused here, and no scheme of an address."""


def inlined(svg: str | bytes, prefix: str, said: str, hover: Mapping[str, str] | None = None) -> Markup | None:
    """The picture as an ``svg`` element of an HTML page; None where it can't be read as one.

    ``prefix`` begins its ids, and is the picture's own; ``said`` is what it shows, for who can't see it; ``hover`` has
    what an element stands for, by its id.
    """
    from markupsafe import Markup

    try:
        root = ElementTree.fromstring(svg)
    except (ElementTree.ParseError, LookupError, ValueError):  # LookupError: an encoding that there is none of
        return None
    if _local(root.tag) != "svg" or _is_too_large(root):
        return None
    _prune(root)
    for title in [child for child in root if child.tag == "title"]:
        root.remove(title)  # it would pop up wherever the mouse is
    points = _name_points(hover or {}, _number_ids(root, prefix))
    if not points:  # of an image nobody is told the parts
        root.set("role", "img")
    root.set("aria-label", clean(said))
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _local(name: object) -> str:
    return name.rpartition("}")[2] if isinstance(name, str) else ""


def _is_too_large(root: ElementTree.Element) -> bool:
    """Deeper or larger than any picture of ours. What ``use`` repeats counts, and may repeat nothing itself."""
    level, count = [root], 0
    for _ in range(DEEPEST):
        count += len(level)
        level = [child for element in level for child in element]
        if not level:
            break
    uses = [_target(element) for element in root.iter() if _local(element.tag) == "use"]
    by_id = {element.get("id"): element for element in root.iter()}
    names = {id: [_local(each.tag) for each in by_id[id].iter()] for id in {*uses} & by_id.keys()}
    count += sum(len(names[id]) for id in uses if id in names)
    return bool(level) or count > MOST_ELEMENTS or any("use" in own for own in names.values())


def _target(element: ElementTree.Element) -> str:
    href = next((value for name, value in element.attrib.items() if _local(name) == "href"), "")
    return href[1:] if href.startswith("#") else ""


def _prune(element: ElementTree.Element) -> None:
    """Nothing but what is listed stays; the styles that remain are attributes, which a strict page allows."""
    element.tag = _local(element.tag)
    given = {_local(name): value for name, value in element.attrib.items()}
    kept = {name: value for name, value in (given | _styles(given.pop("style", ""))).items() if name in ATTRIBUTES}
    element.attrib.clear()
    element.attrib.update({name: clean(value) for name, value in kept.items() if _is_plain(name, value)})
    target = given.get("href", "")
    if target.startswith("#" if element.tag == "use" else "data:image/png;base64,"):
        element.set("href", target)
    element.text, element.tail = clean(element.text or ""), clean(element.tail or "")
    for child in list(element):
        if _local(child.tag) in ELEMENTS and element.tag in CONTAINERS:
            _prune(child)
        else:
            element.remove(child)


def _is_plain(name: str, value: str) -> bool:
    """Whether a value is a number, a name, a path: a reference alone, and only where one may be, is one as well."""
    if "url" in value.lower():
        return name in _REFERRING and _REFERENCE.fullmatch(value) is not None
    return name == "id" or _PLAIN.fullmatch(value) is not None  # ids are numbered anew


def _styles(text: str) -> dict[str, str]:
    """``fill: red; stroke: none`` as attributes."""
    pairs = (part.partition(":") for part in text.split(";"))
    found = {name.strip(): value.strip() for name, _, value in pairs if value}
    if match := _FONT.fullmatch(found.pop("font", "")):
        how, size, family = match.groups()
        found |= {"font-size": size, "font-family": family}
        found |= {"font-weight" if how == "bold" or how.isdigit() else "font-style": how} if how else {}
    return found


def _number_ids(root: ElementTree.Element, prefix: str) -> dict[str, ElementTree.Element]:
    """Number the ids that are referred to, drop the others. Elements by the ids that they had, of equals the first."""
    had: dict[str, ElementTree.Element] = {}
    for element in root.iter():
        had.setdefault(element.attrib.pop("id", ""), element)
    had.pop("", None)
    references = [
        match for element in root.iter() for match in map(_REFERENCE.fullmatch, element.attrib.values()) if match
    ]
    used = {match[1] for match in references} | {_target(element) for element in root.iter()}
    numbers = {id: f"{prefix}-{number}" for number, id in enumerate(id for id in had if id in used)}
    for id, number in numbers.items():
        had[id].set("id", number)
    for element in root.iter():
        if target := _target(element):
            element.set("href", f"#{numbers.get(target, '')}")
        for name in _REFERRING.intersection(element.attrib):
            if match := _REFERENCE.fullmatch(element.attrib[name]):
                element.set(name, f"url(#{numbers.get(match[1], '')})")
    return had


def _name_points(hover: Mapping[str, str], had: Mapping[str, ElementTree.Element]) -> int:
    """Each element that stands for something says so, by the id that it ``had``: how many there are."""
    found = {id: element for id, element in had.items() if id in hover}
    for id, element in found.items():
        said = clean(hover[id])
        title = ElementTree.Element("title")
        title.text = said
        element.insert(0, title)
        element.attrib |= {"class": "point", "role": "img", "aria-label": said}
    return len(found)
