# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report as one HTML file: no script, nothing from elsewhere, everything escaped."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

from ansible_collections.berth.platform.plugins.module_utils.probe_text import duration
from ansible_collections.berth.platform.plugins.module_utils.report.markup import (
    Markup,
    tag,
)
from ansible_collections.berth.platform.plugins.module_utils.report.model import (
    Backup,
    Host,
    Port,
    Probe,
    Report,
    Rule,
    everyone,
)
from ansible_collections.berth.platform.plugins.module_utils.report.style import CSS, edge_colours
from ansible_collections.berth.platform.plugins.module_utils.report.topology import (
    HEAD,
    KINDS,
    MARGIN,
    NODE_HEIGHT,
    OUTSIDE_WIDTH,
    PAD,
    Box,
    Node,
    Topology,
    bezier,
    lay_out,
    open_edges,
)

# Even a page that somebody managed to write into loads nothing and runs nothing.
POLICY = "default-src 'none'; style-src 'unsafe-inline'"
# Hosts whose probes are shown unfolded, when all is well.
UNFOLDED = 3
# Certificates that expire in fewer days are coloured.
SOON_DAYS = 14
MANY_HOSTS = 6
# What is to be seen to is unfolded up to this many lines.
MOST_LINES = 10


def page(report: Report) -> str:
    """The whole file."""
    title = f"{report.name} {report.env}: status"
    parts: list[tuple[str, str, Markup | None]] = [
        ("topology", "Topology", _topology(report)),
        ("probes", "Probes", _probes(report)),
        ("certificates", "Certificates", _certificates(report)),
        ("backups", "Backups", _backups(report)),
        ("reachability", "Reachability", _reachability(report)),
        ("ports", "Ports", _ports(report)),
    ]
    shown = [(name, label, body) for name, label, body in parts if body is not None]
    links = [tag("li", tag("a", label, href=f"#{name}")) for name, label, _body in shown]
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name_="viewport", content="width=device-width, initial-scale=1"),
        Markup(f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'),
        tag("title", title),
        tag("style", Markup(CSS + edge_colours(KINDS) + _hover(report))),
    )
    body = tag(
        "body",
        _header(report),
        tag("nav", tag("ul", links), aria_label="Sections"),
        tag(
            "main",
            _attention(report),
            _tiles(report),
            [tag("section", body, id=name) for name, _label, body in shown],
        ),
        tag("footer", "berth.platform"),
    )
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"


def _header(report: Report) -> Markup:
    made = report.made_at.strftime("%Y-%m-%d %H:%M UTC")
    services = len({service.name for host in report.hosts for service in host.services})
    counts = [
        _count(len(report.hosts), "host"),
        _count(services, "service"),
        _count(len(report.probes), "probe"),
    ]
    if not report.probes:
        verdict, tone = "not probed", "soft"
    elif report.well:
        verdict, tone = "All is well", "ok"
    else:
        verdict = _count(len(list(report.attention())), "thing") + " to see to"
        tone = "bad"
    return tag(
        "header",
        tag(
            "div",
            tag("h1", report.name, " ", tag("span", report.env)),
            tag("p", " · ".join(counts), " · looked at ", tag("time", made)),
        ),
        tag("div", verdict, class_=f"verdict {tone}"),
    )


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


def _attention(report: Report) -> Markup | None:
    lines = [
        tag("li", tag("b", where), tag("span", what), tag("code", hint) if hint else None)
        for where, what, hint in report.attention()
    ]
    if not lines:
        return None
    rest = lines[MOST_LINES:]
    more = tag("details", tag("summary", f"{len(rest)} more"), tag("ul", rest)) if rest else None
    shown = tag("ul", lines[:MOST_LINES])
    return tag("section", tag("h2", "To see to"), shown, more, class_="attention")


def _tiles(report: Report) -> Markup | None:
    tiles = []
    if report.probes:
        good = len(report.probes) - len(report.unhealthy)
        tone = "ok" if good == len(report.probes) else "bad"
        tiles.append((f"{good} of {len(report.probes)}", "probes healthy", tone))
        slowest = max(report.probes, key=lambda probe: probe.latency or 0)
        if slowest.latency is not None:
            label = f"slowest answer: {slowest.name} on {slowest.host}"
            tiles.append((duration(slowest.latency), label, ""))
    if report.certificates:
        first = report.certificates[0]
        tiles.append(
            (f"{first.days:.0f} days", f"until {first.names[0]} expires", _urgency(first.days))
        )
    if report.backups:
        tiles.append(_backup_tile(report.backups))
    world = sorted({rule.port for rule in report.rules if any(map(everyone, rule.sources))})
    if report.rules:
        label = f"open to everyone: {_list(world)}" if world else "open to everyone"
        tiles.append((_count(len(world), "port"), label, ""))
    if not tiles:
        return None
    return tag(
        "div",
        [
            tag("div", tag("b", value, class_=tone or None), tag("span", label), class_="tile")
            for value, label, tone in tiles
        ],
        class_="tiles",
    )


def _backup_tile(backups: Sequence[Backup]) -> tuple[str, str, str]:
    """The worst of the latest backups."""
    for each in backups:
        if not each.ok or each.age_hours is None:
            return "no backup", f"that is usable in {each.repository}", "bad"
    oldest = max(backups, key=lambda each: each.age_hours or 0)
    return _hours(oldest.age_hours or 0), f"since the last backup in {oldest.repository}", "ok"


def _list(numbers: Sequence[int], most: int = 6) -> str:
    shown = ", ".join(map(str, numbers[:most]))
    return shown if len(numbers) <= most else f"{shown} and {len(numbers) - most} more"


def _hours(hours: float) -> str:
    if hours < 2:
        return f"{hours * 60:.0f} min"
    return f"{hours:.0f} h" if hours < 48 else f"{hours / 24:.0f} days"


def _urgency(days: float) -> str:
    return "bad" if days < 0 else "warn" if days < SOON_DAYS else "ok"


# Topology


def _hover(report: Report) -> str:
    """A node under the pointer brings out its arrows: one rule each, since there is no script."""
    numbers = range(sum(len(host.components) + len(host.services) for host in report.hosts))
    return "".join(
        f"svg:has(.n{n}:hover) .t{n}{{display:inline;opacity:1;stroke-width:2}}" for n in numbers
    )


def _fit(text: str, width: float, size: float = 6.9) -> str:
    room = max(int(width / size), 4)
    return text if len(text) <= room else text[: room - 1] + "…"


def _topology(report: Report) -> Markup | None:
    if not report.hosts:
        return None
    found = lay_out(report)
    dense = " dense" if found.bundles else ""
    heads = [
        tag(
            "marker",
            tag("path", d="M0 0L8 4L0 8z", class_=f"h{kind}"),
            Markup(""),
            id=f"head{kind}",
            viewBox="0 0 8 8",
            refX=7,
            refY=4,
            markerWidth=7,
            markerHeight=7,
            markerUnits="userSpaceOnUse",
            orient="auto",
        )
        for kind in range(KINDS)
    ]
    arrows = [
        tag(
            "path",
            tag("title", arrow.title),
            d=arrow.path,
            class_=f"edge k{arrow.kind} t{arrow.source} t{arrow.target}",
            marker_end=f"url(#head{arrow.kind})",
        )
        for arrow in found.arrows
    ]
    bundles = [
        tag(
            "path",
            tag("title", bundle.title),
            d=bundle.path,
            class_=f"bundle k{bundle.kind}",
            stroke_width=round(1 + bundle.count**0.5 / 2, 1),
            marker_end=f"url(#head{bundle.kind})",
        )
        for bundle in found.bundles
    ]
    drawing = tag(
        "svg",
        tag("defs", heads),
        [_box(box) for box in found.boxes],
        _outside(report, found),
        bundles,
        arrows,
        [_node(number, node) for number, node in enumerate(found.nodes)],
        viewBox=f"0 0 {found.width:.0f} {found.height:.0f}",
        class_=f"topology{dense}",
        role="img",
        style=f"max-width:{found.width * 1.25:.0f}px",
        aria_label=f"Topology of {report.name}: hosts, what runs on them, and who needs what",
    )
    legend = [
        tag("span", tag("span", class_="dot ok"), "healthy"),
        tag("span", tag("span", class_="dot bad"), "unhealthy"),
        tag("span", tag("span", class_="dot"), "not probed"),
        tag("span", "Arrows lead to what is needed; point at a box to bring out its own."),
    ]
    return tag(
        "div",
        tag("h2", "Topology"),
        tag("p", "What runs where, and who needs what.", class_="note"),
        tag("div", drawing, class_="scroll"),
        tag("div", legend, class_="legend"),
    )


def _box(box: Box) -> Markup:
    host = box.host
    words = _fit(host.name, box.width - 2 * PAD, 7.5)
    room = box.width - 2 * PAD - 7.5 * len(words) - 10
    address = host.address if room > 6.4 * len(host.address) else ""
    return tag(
        "g",
        tag("title", f"{host.name} {host.address}" + (f": {host.error}" if host.error else "")),
        tag(
            "rect",
            x=box.x,
            y=box.y,
            width=box.width,
            height=box.height,
            rx=10,
            class_="box bad" if host.error else "box",
        ),
        tag("text", words, x=box.x + PAD, y=box.y + 20, class_="host"),
        tag(
            "text",
            address,
            x=box.x + box.width - PAD,
            y=box.y + 20,
            text_anchor="end",
            class_="soft",
        )
        if address
        else None,
    )


def _node(number: int, node: Node) -> Markup:
    state = {True: "ok", False: "bad", None: "unknown"}[node.healthy]
    ports = [str(port) for port in node.ports[: 2 if node.tier == 0 else 1]]
    port = " ".join(f":{each}" for each in ports)
    room = node.width - 24 - 6 - 6.2 * len(port)
    words = {True: "healthy", False: "unhealthy", None: "not probed"}[node.healthy]
    title = f"{node.label} on {node.host}, {words}"
    if node.ports:
        title += f", ports {_list(node.ports)}"
    title = "\n".join([title, *node.remarks])
    y = node.y + NODE_HEIGHT / 2
    mark = (
        tag("rect", x=node.x + 8.5, y=y - 4, width=8, height=8, class_="st", stroke="none",
            transform=f"rotate(45 {node.x + 12.5:.1f} {y:.1f})")
        if node.healthy is False
        else tag("circle", cx=node.x + 12.5, cy=y, r=4.5, class_="st")
    )  # fmt: skip
    return tag(
        "g",
        tag("title", title),
        tag("rect", x=node.x, y=node.y, width=node.width, height=NODE_HEIGHT, rx=6),
        mark,
        tag("text", _fit(node.label, room), x=node.x + 24, y=y + 4.5),
        tag(
            "text",
            port,
            x=node.x + node.width - 8,
            y=y + 4.5,
            text_anchor="end",
            class_="soft",
        ),
        class_=f"node {state} n{number}",
    )


def _outside(report: Report, found: Topology) -> Markup | None:
    """The world, and its way in."""
    edges = [found.nodes[number] for number in open_edges(report, found.nodes)]
    if not edges:
        return None
    middle = sum(node.y for node in edges) / len(edges) + NODE_HEIGHT / 2
    top = max(MARGIN, middle - HEAD / 2)
    right = MARGIN + OUTSIDE_WIDTH
    lines = []
    for node in edges:
        between = (right + node.x) / 2
        lines.append(
            tag(
                "path",
                d=bezier(
                    right,
                    top + HEAD / 2,
                    between,
                    between,
                    node.x,
                    node.y + NODE_HEIGHT / 2,
                ),
                class_="edge k0",
                marker_end="url(#head0)",
            )
        )
    return tag(
        "g",
        tag("rect", x=MARGIN, y=top, width=OUTSIDE_WIDTH, height=HEAD, rx=15),
        tag("text", "everyone", x=MARGIN + OUTSIDE_WIDTH / 2, y=top + 19.5, text_anchor="middle"),
        lines,
        class_="out",
    )


# Tables


def _table(head: Iterable[tuple[str, str]], rows: Iterable[Markup], class_: str = "") -> Markup:
    cells = [tag("th", label, scope="col", class_=kind or None) for label, kind in head]
    return tag(
        "div",
        tag("table", tag("thead", tag("tr", cells)), tag("tbody", rows), class_=class_ or None),
        class_="scroll",
    )


def _dot(healthy: bool) -> Markup:
    words = "healthy" if healthy else "unhealthy"
    return tag("span", class_=f"dot {'ok' if healthy else 'bad'}", role="img", aria_label=words)


def _probes(report: Report) -> Markup | None:
    if not report.probes:
        return None
    slowest = max((probe.latency or 0 for probe in report.probes), default=0)
    groups = []
    for host in report.hosts:
        own = [probe for probe in report.probes if probe.host == host.name]
        if own:
            groups.append(_probe_group(host, own, slowest, len(report.hosts) <= UNFOLDED))
    return tag(
        "div",
        tag("h2", "Probes"),
        tag("p", "What answered, looked at from the host itself.", class_="note"),
        groups,
    )


def _probe_group(host: Host, own: list[Probe], slowest: float, unfold: bool) -> Markup:
    bad = [probe for probe in own if not probe.healthy]
    state = tag("span", f"{len(bad)} unhealthy", class_="bad") if bad else None
    ordered = [*bad, *(probe for probe in own if probe.healthy)]
    head = [("Probe", ""), ("Target", ""), ("Latency", ""), ("Says", "")]
    return tag(
        "details",
        tag(
            "summary",
            _dot(not bad),
            tag("b", host.name),
            tag("span", _count(len(own), "probe"), class_="soft"),
            state,
        ),
        _table(head, [_probe_row(probe, slowest) for probe in ordered]),
        open=bool(bad) or unfold,
    )


def _probe_row(probe: Probe, slowest: float) -> Markup:
    latency: object = "–"
    if probe.latency is not None:
        share = 46 * probe.latency / slowest if slowest else 0
        latency = [
            tag("span", class_="bar", style=f"width:{share:.0f}px"),
            duration(probe.latency),
        ]
    says: object = tag("span", probe.says, class_="bad" if not probe.healthy else "soft")
    return tag(
        "tr",
        tag("td", _dot(probe.healthy), probe.name, class_="tight"),
        tag("td", tag("span", probe.target, class_="mono"), class_="tight"),
        tag("td", latency, class_="tight"),
        tag("td", says, class_="wide"),
    )


def _certificates(report: Report) -> Markup | None:
    if not report.certificates:
        return None
    rows = [
        tag(
            "tr",
            tag("td", tag("span", f"{each.days:.1f}", class_=_urgency(each.days)), class_="num"),
            tag("td", each.not_after.replace("T", " ").replace("Z", " UTC"), class_="tight"),
            tag("td", ", ".join(each.names), class_="wide"),
            tag("td", each.issuer),
            tag("td", each.host, class_="tight"),
        )
        for each in report.certificates
    ]
    head = [("Days left", "num"), ("Expires", ""), ("Names", ""), ("Issuer", ""), ("Host", "")]
    return tag("div", tag("h2", "Certificates"), _table(head, rows))


def _backups(report: Report) -> Markup | None:
    if not report.backups:
        return None

    def row(each: Backup) -> Markup:
        age = "–" if each.age_hours is None else _hours(each.age_hours)
        return tag(
            "tr",
            tag("td", _dot(each.ok), each.repository, class_="tight"),
            tag("td", age, class_="num"),
            tag("td", str(each.count), class_="num"),
            tag("td", _size(each.size) if each.size else "–", class_="num"),
            tag("td", tag("span", each.label or "–", class_="mono"), class_="tight"),
            tag("td", tag("span", each.note, class_="soft" if each.ok else "bad"), class_="wide"),
            tag("td", f"{each.stanza} on {each.host}", class_="tight"),
        )

    head = [
        ("Repository", ""),
        ("Age", "num"),
        ("Kept", "num"),
        ("Size", "num"),
        ("Latest", ""),
        ("Says", ""),
        ("Of", ""),
    ]
    return tag("div", tag("h2", "Backups"), _table(head, [row(each) for each in report.backups]))


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


# Who may reach what


def sources(report: Report) -> list[str]:
    """Who the rules speak of: everyone first, then networks, then hosts in their order."""
    named = {source for rule in report.rules for source in map(naming(report), rule.sources)}
    hosts = [host.name for host in report.hosts if host.name in named]
    networks = sorted(named - set(hosts) - {"everyone"})
    return (["everyone"] if "everyone" in named else []) + networks + hosts


def naming(report: Report) -> Callable[[str], str]:
    """A rule's source for people: an address that is a host's is the host."""
    hosts = {host.address: host.name for host in report.hosts if host.address}

    def name(source: str) -> str:
        if everyone(source):
            return "everyone"
        return hosts.get(re.sub(r"/(32|128)$", "", source), source)

    return name


def _reachability(report: Report) -> Markup | None:
    if not report.rules:
        return None
    name = naming(report)
    grid: dict[tuple[str, str], list[Rule]] = {}
    for rule in report.rules:
        for source in dict.fromkeys(map(name, rule.sources)):
            grid.setdefault((source, rule.host), []).append(rule)
    targets = [host.name for host in report.hosts if any(host.name == key[1] for key in grid)]
    rows = []
    for source in sources(report):
        cells = [tag("th", source, scope="row")]
        for target in targets:
            rules = sorted(grid.get((source, target), ()), key=lambda rule: rule.port)
            why = "; ".join(f"{rule.port}: {', '.join(rule.why)}" for rule in rules)
            words = [tag("i", _port(rule)) for rule in rules]
            cells.append(
                tag("td", words, title=why or None, class_="self" if source == target else None)
            )
        rows.append(tag("tr", cells))
    head = [("from ↓ to →", ""), *((target, "") for target in targets)]
    many = "matrix many" if len(targets) > MANY_HOSTS else "matrix"
    note = "Ports that may be opened from elsewhere. What is not here is denied."
    return tag(
        "div",
        tag("h2", "Reachability"),
        tag("p", note, class_="note"),
        _table(head, rows, many),
    )


def _port(rule: Rule) -> str:
    return str(rule.port) if rule.protocol == "tcp" else f"{rule.port}/{rule.protocol}"


def _ports(report: Report) -> Markup | None:
    if not report.ports:
        return None
    name = naming(report)
    reach: dict[tuple[str, int], list[str]] = {}
    for rule in report.rules:
        reach.setdefault((rule.host, rule.port), []).extend(map(name, rule.sources))

    def chip(port: Port) -> Markup:
        who = list(dict.fromkeys(reach.get((port.host, port.port), [])))
        classes = ["chip"]
        if "everyone" in who:
            classes.append("world")
        elif who:
            classes.append("some")
        if port.kind == "standby":
            classes.append("standby")
        elif port.kind == "another environment":
            classes.append("foreign")
        words = port.owner.replace("_", " ")
        if port.kind == "standby":
            words += " next"
        title = f"{port.owner}, {port.kind}; reachable from {', '.join(who) or 'this host alone'}"
        return tag(
            "span", tag("b", str(port.port)), f" {words}", class_=" ".join(classes), title=title
        )

    rows = []
    for host in report.hosts:
        own = sorted((each for each in report.ports if each.host == host.name), key=_by_port)
        if own:
            chips = tag("div", [chip(each) for each in own], class_="chips")
            rows.append(tag("tr", tag("td", tag("b", host.name), class_="tight"), tag("td", chips)))
    legend = [
        tag("span", tag("span", "443", class_="chip world"), " open to everyone"),
        tag("span", tag("span", "5432", class_="chip some"), " to some"),
        tag("span", tag("span", "5001", class_="chip"), " to its host alone"),
        tag("span", tag("span", "5007", class_="chip standby"), " kept for the next release"),
    ]
    return tag(
        "div",
        tag("h2", "Ports"),
        tag("p", "Who holds which, and from where it can be reached.", class_="note"),
        _table([("Host", ""), ("Ports", "")], rows),
        tag("div", legend, class_="legend"),
    )


def _by_port(port: Port) -> int:
    return port.port
