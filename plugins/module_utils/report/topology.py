# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The topology: hosts as boxes with what runs in them, and arrows for who needs what.

Three columns, from left to right as a request goes: edge, services, engines. A host's box spans the
columns that it takes part in; boxes are stacked as tightly as their columns allow, so that a
platform on one server is one wide box and one on twenty is three stacks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from ansible_collections.berth.platform.plugins.module_utils.report.model import (
    Edge,
    Host,
    Report,
    everyone,
)

EDGE, SERVICES, ENGINES = 0, 1, 2
NODE_HEIGHT = 26.0
NODE_GAP = 6.0
NODE_WIDTH = 172.0
# Beside others.
NARROW_WIDTH = 150.0
CELL_GAP = 8.0
PAD = 12.0
HEAD = 30.0
BOX_GAP = 18.0
COLUMN_GAP = 104.0
OUTSIDE_WIDTH = 84.0
MARGIN = 2.0
# Services stand beside each other, up to this many, where one column would be taller than this.
MOST_BESIDE = 3
TALL = 760.0
# How far an arrow within a column goes out.
ARC = 46.0
# More arrows than this are bundled.
DENSE = 80
# How many colours arrows have.
KINDS = 7

LABELS = {
    "edge": "nginx",
    "postgresql": "PostgreSQL",
    "rabbitmq": "RabbitMQ",
    "object_store": "object store",
    "redis": "Redis",
    "kafka": "Kafka",
    "etcd": "etcd",
    "search": "search",
    "monitoring": "monitoring",
}


@dataclass
class Node:
    """Something that runs on a host, in its place."""

    host: str
    name: str
    label: str
    tier: int
    ports: tuple[int, ...] = ()
    units: tuple[str, ...] = ()
    x: float = 0.0
    y: float = 0.0
    width: float = NODE_WIDTH
    # None where no probe looks at it.
    healthy: bool | None = None
    remarks: list[str] = field(default_factory=list)


@dataclass
class Box:
    """A host."""

    host: Host
    nodes: list[Node]
    x: float = 0.0
    y: float = 0.0
    width: float = 0.0
    height: float = 0.0

    def tier(self, number: int) -> list[Node]:
        return [node for node in self.nodes if node.tier == number]

    @property
    def tiers(self) -> tuple[int, int]:
        """First and last column."""
        found = [node.tier for node in self.nodes] or [SERVICES]
        return min(found), max(found)


@dataclass(frozen=True)
class Arrow:
    """From one node to another; *kind* colours it by what it leads to."""

    source: int
    target: int
    path: str
    kind: int
    title: str


@dataclass(frozen=True)
class Bundle:
    """Arrows between the same two boxes, drawn as one where there are too many to follow."""

    path: str
    kind: int
    title: str
    count: int


@dataclass
class Topology:
    width: float
    height: float
    boxes: list[Box]
    nodes: list[Node]
    arrows: list[Arrow]
    # Empty while every arrow can be drawn by itself.
    bundles: list[Bundle]


def cells(counts: list[int]) -> int:
    """How many services stand beside each other in a box; *counts* are those of the boxes."""

    def height(beside: int) -> float:
        rows = sum(-(-count // beside) for count in counts)
        return rows * (NODE_HEIGHT + NODE_GAP) + len(counts) * (HEAD + PAD + BOX_GAP)

    return next((n for n in range(1, MOST_BESIDE) if height(n) <= TALL), MOST_BESIDE)


def _nodes(report: Report, host: Host) -> list[Node]:
    ports: dict[str, list[int]] = {}
    for each in report.ports:
        if each.host == host.name and each.kind == "component":
            ports.setdefault(each.owner, []).append(each.port)
    found = []
    for name in host.components:
        if name == "edge":
            own = ports.get("http", []) + ports.get("https", [])
        else:
            own = [port for owner, each in ports.items() if _belongs(owner, name) for port in each]
            # The one that it is reached by comes first.
            own.sort(key=lambda port: port not in ports.get(name, []))
        found.append(
            Node(
                host.name,
                name,
                LABELS.get(name, name),
                EDGE if name == "edge" else ENGINES,
                tuple(own),
            )
        )
    for service in host.services:
        own = [port for port in (service.port, service.standby_port) if port is not None]
        units = (service.unit, f"{service.unit}.service") if service.unit else ()
        found.append(Node(host.name, service.name, service.name, SERVICES, tuple(own), units))
    return found


def _belongs(owner: str, component: str) -> bool:
    """Whether a ledger's owner, such as rabbitmq_management, is a port of the component."""
    return owner == component or owner.startswith(f"{component}_")


def _judge(report: Report, nodes: list[Node]) -> None:
    """A node is as healthy as the probes of its units and ports."""
    for probe in report.probes:
        for node in nodes:
            if node.host != probe.host:
                continue
            named = probe.unit and probe.unit in node.units
            if named or (probe.port is not None and probe.port in node.ports):
                node.healthy = probe.healthy and node.healthy is not False
                if not probe.healthy:
                    node.remarks.append(f"{probe.name}: {probe.says}")
    edges = {node.host: node.healthy for node in nodes if node.tier == EDGE}
    for node in nodes:
        if node.tier == SERVICES and not node.ports and not node.units:
            # Files that the edge serves are as healthy as it is.
            node.healthy = edges.get(node.host)


def lay_out(report: Report) -> Topology:
    """Everything in its place."""
    boxes = [Box(host, _nodes(report, host)) for host in report.hosts]
    nodes = [node for box in boxes for node in box.nodes]
    _judge(report, nodes)
    beside = cells([len(box.tier(SERVICES)) for box in boxes if box.tier(SERVICES)])
    across = beside * (NODE_WIDTH if beside == 1 else NARROW_WIDTH) + (beside - 1) * CELL_GAP
    widths = [NODE_WIDTH, across, NODE_WIDTH]
    used = sorted({tier for box in boxes for tier in range(box.tiers[0], box.tiers[1] + 1)})
    starts: dict[int, float] = {}
    x = MARGIN + OUTSIDE_WIDTH + COLUMN_GAP * 0.6 if EDGE in used else MARGIN
    for tier in used:
        starts[tier] = x + PAD
        x += widths[tier] + 2 * PAD + COLUMN_GAP
    width = x - COLUMN_GAP + MARGIN

    # Boxes that span columns go first: they leave the fewest holes at the top.
    below = dict.fromkeys(used, MARGIN)
    for box in sorted(boxes, key=lambda each: each.tiers[0] - each.tiers[1]):
        first, last = box.tiers
        box.x = starts[first] - PAD
        box.width = starts[last] + widths[last] + PAD - box.x
        box.y = max(below[tier] for tier in range(first, last + 1))
        box.height = _place(box, starts, widths, beside)
        for tier in range(first, last + 1):
            below[tier] = box.y + box.height + BOX_GAP
    height = max(below.values(), default=MARGIN) - BOX_GAP + MARGIN
    _centre(boxes, below, height)
    arrows = list(_arrows(report, nodes))
    last = max(used, default=SERVICES)
    if any(nodes[a.source].tier == nodes[a.target].tier == last for a in arrows):
        width += ARC
    bundles = _bundles(boxes, nodes, arrows) if len(arrows) > DENSE else []
    return Topology(width, max(height, 60.0), boxes, nodes, arrows, bundles)


def _place(box: Box, starts: dict[int, float], widths: list[float], beside: int) -> float:
    """Nodes in their box; the box's height."""
    rows = {tier: len(box.tier(tier)) for tier in (EDGE, ENGINES)}
    rows[SERVICES] = -(-len(box.tier(SERVICES)) // beside)
    most = max(*rows.values(), 1)
    for tier in (EDGE, SERVICES, ENGINES):
        across = beside if tier == SERVICES else 1
        own = box.tier(tier)
        node_width = (widths[tier] - (across - 1) * CELL_GAP) / across
        # A short column stands in the middle of a tall box.
        top = box.y + HEAD + (most - rows[tier]) * (NODE_HEIGHT + NODE_GAP) / 2
        for number, node in enumerate(own):
            row, cell = divmod(number, across)
            node.width = node_width
            node.x = starts[tier] + cell * (node_width + CELL_GAP)
            node.y = top + row * (NODE_HEIGHT + NODE_GAP)
    return HEAD + most * (NODE_HEIGHT + NODE_GAP) - NODE_GAP + PAD


def _centre(boxes: list[Box], below: dict[int, float], height: float) -> None:
    """Stacks of unlike heights stand in the middle of the tallest, where no box joins columns."""
    if any(box.tiers[0] != box.tiers[1] for box in boxes):
        return
    for box in boxes:
        shift = max(0.0, (height - (below[box.tiers[0]] - BOX_GAP + MARGIN)) / 2)
        box.y += shift
        for node in box.nodes:
            node.y += shift


def _targets(nodes: list[Node], source: Node, edge: Edge) -> list[int]:
    """Where a need leads: on the same host if it is there, else everywhere."""
    found = [number for number, node in enumerate(nodes) if node.name == edge.target]
    near = [number for number in found if nodes[number].host == source.host]
    return near if near and edge.why != "route" else found


def _arrows(report: Report, nodes: list[Node]) -> Iterator[Arrow]:
    kinds: dict[str, int] = {}
    for edge in sorted(report.edges, key=lambda each: (each.target, each.source)):
        for number, source in enumerate(nodes):
            if source.name != edge.source:
                continue
            for target in _targets(nodes, source, edge):
                if target == number:
                    continue
                kind = _kind(edge, nodes[target], kinds)
                title = f"{source.name} on {source.host} → {edge.target} on {nodes[target].host}"
                yield Arrow(
                    number,
                    target,
                    curve(source, nodes[target]),
                    kind,
                    f"{title}, port {edge.port} ({edge.why})",
                )


def _kind(edge: Edge, target: Node, engines: dict[str, int]) -> int:
    """Routes have one colour, needs of services another, and every engine one of its own."""
    if edge.why == "route":
        return 0
    if target.tier == SERVICES:
        return 1
    return engines.setdefault(edge.target, len(engines) % (KINDS - 2) + 2)


def _bundles(boxes: list[Box], nodes: list[Node], arrows: list[Arrow]) -> list[Bundle]:
    """One line between a host's services and what they lead to, instead of one for each."""
    ends = {box.host.name: _end(box) for box in boxes}
    found: dict[tuple[int, str, str], tuple[Node, Node, list[str]]] = {}
    for arrow in arrows:
        pair = []
        for node in (nodes[arrow.source], nodes[arrow.target]):
            whole = node.tier == SERVICES and node.host in ends
            pair.append(ends[node.host] if whole else node)
        source, target = pair
        if source is target:
            continue
        key = (arrow.kind, f"{source.host}/{source.name}", f"{target.host}/{target.name}")
        found.setdefault(key, (source, target, []))[2].append(arrow.title)
    return [
        Bundle(curve(source, target), kind, "\n".join(titles), len(titles))
        for (kind, _from, _to), (source, target, titles) in found.items()
    ]


def _end(box: Box) -> Node:
    """A box as one end of a line, at the middle of its services."""
    own = box.tier(SERVICES) or box.nodes
    left = min((node.x for node in own), default=box.x + PAD) - PAD
    right = max((node.x + node.width for node in own), default=box.x + PAD) + PAD
    middle = (min((n.y for n in own), default=box.y) + max((n.y for n in own), default=box.y)) / 2
    return Node(box.host.name, "", "", SERVICES, x=left, y=middle, width=right - left)


def curve(source: Node, target: Node) -> str:
    """From the side that faces the target; in one column an arc on the right."""
    if target.x > source.x + source.width:
        sx, tx = source.x + source.width, target.x
        first = second = (sx + tx) / 2
    elif target.x + target.width < source.x:
        sx, tx = source.x, target.x + target.width
        first = second = (sx + tx) / 2
    else:
        sx, tx = source.x + source.width, target.x + target.width
        first = second = max(sx, tx) + min(18 + abs(target.y - source.y) * 0.12, ARC)
    return bezier(sx, source.y + NODE_HEIGHT / 2, first, second, tx, target.y + NODE_HEIGHT / 2)


def bezier(sx: float, sy: float, first: float, second: float, tx: float, ty: float) -> str:
    """A curve that leaves and arrives level."""
    return f"M{sx:.1f} {sy:.1f}C{first:.1f} {sy:.1f} {second:.1f} {ty:.1f} {tx:.1f} {ty:.1f}"


def open_edges(report: Report, nodes: list[Node]) -> list[int]:
    """The edge nodes that everyone can reach, and so the outside leads to."""
    hosts = {rule.host for rule in report.rules if any(map(everyone, rule.sources))}
    return [n for n, node in enumerate(nodes) if node.tier == EDGE and node.host in hosts]
