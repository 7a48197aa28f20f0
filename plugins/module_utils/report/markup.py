# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""HTML and SVG built from values: what is not markup already is escaped, wherever it stands."""

from __future__ import annotations

import html
from collections.abc import Iterable

VOID = {"meta", "br", "hr", "link", "col"}


class Markup(str):
    """Text that is markup already; only this module and constants make it."""

    __slots__ = ()


def escape(child: object) -> Markup:
    """A child as markup: text, a number, an iterable of children, or None for nothing."""
    if child is None:
        return Markup("")
    if isinstance(child, Markup):
        return child
    if isinstance(child, Iterable) and not isinstance(child, str):
        return Markup("".join(escape(each) for each in child))
    return Markup(html.escape(str(child)))


def tag(name: str, *children: object, **attributes: str | int | float | bool | None) -> Markup:
    """An element. ``class_`` is class, ``aria_label`` is aria-label; None and False leave out."""
    parts = [name]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        written = key.rstrip("_").replace("_", "-")
        if value is True:
            parts.append(written)
        else:
            shown = f"{value:g}" if isinstance(value, float) else str(value)
            parts.append(f'{written}="{html.escape(shown)}"')
    opening = " ".join(parts)
    if name in VOID:
        return Markup(f"<{opening}>")
    return Markup(f"<{opening}>{escape(children)}</{name}>")
