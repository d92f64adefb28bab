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
_REFERENCE = re.compile(r"url\(\s*['\"]?#([^)'\"]*)['\"]?\s*\)")
_FONT = re.compile(r"(?:(bold|italic|oblique|\d{3})\s+)?([\d.]+)px(?:/\S+)?\s+(.+)")
_FOREIGN = re.compile(r"(?i)url\s*\(\s*['\"]?(?!#)|expression|javascript:|[\x00-\x08]")


def inlined(svg: str | bytes, prefix: str, said: str, hover: Mapping[str, str] | None = None) -> Markup | None:
    """The picture as an ``svg`` element of an HTML page; None where it can't be read as one.

    ``prefix`` begins its ids, and is the picture's own; ``said`` is what it shows, for who can't see it; ``hover`` has
    what an element stands for, by its id.
    """
    from markupsafe import Markup

    try:
        root = ElementTree.fromstring(svg)
    except (ElementTree.ParseError, ValueError):
        return None
    if _local(root.tag) != "svg":
        return None
    _prune(root)
    for title in [child for child in root if child.tag == "title"]:
        root.remove(title)  # it would pop up wherever the mouse is
    points = _name_points(root, hover or {})
    _number_ids(root, prefix)
    if not points:  # of an image nobody is told the parts
        root.set("role", "img")
    root.set("aria-label", clean(said))
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _local(name: object) -> str:
    return name.rpartition("}")[2] if isinstance(name, str) else ""


def _prune(element: ElementTree.Element) -> None:
    """Nothing but what is listed stays; the styles that remain are attributes, which a strict page allows."""
    element.tag = _local(element.tag)
    given = {_local(name): value for name, value in element.attrib.items()}
    kept = {name: value for name, value in (given | _styles(given.pop("style", ""))).items() if name in ATTRIBUTES}
    element.attrib.clear()
    element.attrib.update({name: value for name, value in kept.items() if not _FOREIGN.search(value)})
    target = given.get("href", "")
    if target.startswith("#" if element.tag == "use" else "data:image/png;base64,"):
        element.set("href", target)
    for child in list(element):
        if _local(child.tag) in ELEMENTS:
            _prune(child)
        else:
            element.remove(child)


def _styles(text: str) -> dict[str, str]:
    """``fill: red; stroke: none`` as attributes."""
    pairs = (part.partition(":") for part in text.split(";"))
    found = {name.strip(): value.strip() for name, _, value in pairs if value}
    if match := _FONT.fullmatch(found.pop("font", "")):
        how, size, family = match.groups()
        found |= {"font-size": size, "font-family": family}
        found |= {"font-weight" if how == "bold" or how.isdigit() else "font-style": how} if how else {}
    return found


def _name_points(root: ElementTree.Element, hover: Mapping[str, str]) -> int:
    """Each element that stands for something says so: how many there are."""
    found = [element for element in root.iter() if element.get("id", "") in hover]
    for element in found:
        said = clean(hover[element.attrib["id"]])
        title = ElementTree.Element("title")
        title.text = said
        element.insert(0, title)
        element.attrib |= {"class": "point", "role": "img", "aria-label": said}
    return len(found)


def _number_ids(root: ElementTree.Element, prefix: str) -> None:
    """Ids that are referred to, numbered; the others go."""
    used = {
        id
        for element in root.iter()
        for name, value in element.attrib.items()
        for id in ([value[1:]] if name == "href" else _REFERENCE.findall(value))
    }
    own = [element.attrib["id"] for element in root.iter() if element.get("id") in used]
    numbers = {id: f"{prefix}-{number}" for number, id in enumerate(own)}
    for element in root.iter():
        for name, value in list(element.attrib.items()):
            if name == "id":
                if value in numbers:
                    element.set("id", numbers[value])
                else:
                    del element.attrib["id"]
            elif name == "href" and value.startswith("#"):
                element.set("href", f"#{numbers.get(value[1:], '')}")
            elif "url(" in value:
                element.set(name, _REFERENCE.sub(lambda m: f"url(#{numbers.get(m[1], '')})", value))
