# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The page's look, light and dark."""

from __future__ import annotations

CSS = """
:root {
  color-scheme:light dark; --bg:#f5f6f8; --card:#fff; --sunk:#f0f2f5; --line:#dfe3e8;
  --text:#1b2430; --soft:#5c6878; --faint:#8b96a5; --link:#2a62c9; --ok:#16794a; --okbg:#e3f3ea;
  --bad:#c02f2a; --badbg:#fce8e6; --warn:#8f5a00; --warnbg:#fdf1dc; --e0:#2a62c9; --e1:#7a4fbf;
  --e2:#c2571a; --e3:#0e7f86; --e4:#a33b72; --e5:#5b7a12; --e6:#6b5b45;
}
@media (prefers-color-scheme:dark) {
  :root {
    --bg:#12161c; --card:#1a2029; --sunk:#222a35; --line:#303a47; --text:#e4e9ef; --soft:#a2aebd;
    --faint:#76838f; --link:#7ea8ff; --ok:#57c98c; --okbg:#17372a; --bad:#ff8078;
    --badbg:#43201f; --warn:#f0b357; --warnbg:#3d2e14; --e0:#7ea8ff; --e1:#b79af2; --e2:#f09a64;
    --e3:#55c4cb; --e4:#ec8abb; --e5:#a9cb5e; --e6:#c2b096;
  }
}
* { box-sizing:border-box }
html { scroll-behavior:smooth; scroll-padding-top:3.4rem }
body {
  margin:0; background:var(--bg); color:var(--text);
  font:15px/1.5 system-ui,-apple-system,"Segoe UI", Roboto,"DejaVu Sans",sans-serif;
  font-variant-numeric:tabular-nums;
}
main { max-width:1360px; margin:0 auto; padding:0 20px 64px }
a { color:var(--link); text-decoration:none }
a:hover { text-decoration:underline }
header {
  max-width:1360px; margin:0 auto; padding:26px 20px 14px; display:flex; gap:16px 24px;
  flex-wrap:wrap; align-items:center; justify-content:space-between;
}
h1 { font-size:27px; line-height:1.2; margin:0; font-weight:650; letter-spacing:-.01em }
h1 span { color:var(--soft); font-weight:450 }
h2 { font-size:18px; margin:0 0 2px; font-weight:620 }
header p,.note { margin:2px 0 0; color:var(--soft); font-size:14px }
.note { margin:0 0 12px }
.verdict { font-size:16px; font-weight:600; padding:8px 16px; border-radius:999px }
.ok { color:var(--ok) }
.bad { color:var(--bad) }
.warn { color:var(--warn) }
.soft { color:var(--soft) }
.verdict.ok { background:var(--okbg) }
.verdict.bad { background:var(--badbg) }
nav {
  position:sticky; top:0; z-index:2; background:var(--bg); border-bottom:1px solid var(--line);
  margin:0 0 20px;
}
nav ul {
  max-width:1360px; margin:0 auto; padding:9px 20px; list-style:none; display:flex;
  flex-wrap:wrap; gap:4px 22px; font-size:14px;
}
section {
  background:var(--card); border:1px solid var(--line); border-radius:12px;
  padding:18px 20px 20px; margin:0 0 20px;
}
.tiles {
  display:grid; grid-template-columns:repeat(auto-fit,minmax(170px,1fr)); gap:12px;
  margin:0 0 20px;
}
.tile {
  background:var(--card); border:1px solid var(--line); border-radius:12px; padding:12px 16px;
}
.tile b { display:block; font-size:23px; line-height:1.25; font-weight:640 }
.tile span { color:var(--soft); font-size:13px; display:block; overflow-wrap:anywhere }
.attention { border-color:var(--bad) }
.attention ul { margin:10px 0 0; padding:0; list-style:none }
.attention li {
  padding:8px 0; border-top:1px solid var(--line); display:grid; gap:0 16px;
  grid-template-columns:minmax(90px,auto) 1fr; overflow-wrap:anywhere;
}
.attention li code { grid-column:2 }
code,.mono {
  font:13px/1.5 ui-monospace,"SF Mono",Menlo,"DejaVu Sans Mono",monospace; color:var(--soft);
}
.scroll { overflow-x:auto }
table { border-collapse:collapse; width:100%; font-size:14px }
th { font-weight:560; color:var(--soft); text-align:left; font-size:13px; white-space:nowrap }
th,td { padding:5px 14px 5px 0; border-bottom:1px solid var(--line); vertical-align:top }
tr:last-child td { border-bottom:0 }
td.num,th.num { text-align:right; white-space:nowrap }
td.wide { overflow-wrap:anywhere; min-width:14rem }
td.tight { white-space:nowrap }
.dot {
  display:inline-block; width:9px; height:9px; border-radius:50%; background:var(--faint);
  margin-right:8px;
}
.dot.ok { background:var(--ok) }
.dot.bad { background:var(--bad) }
.dot.bad { border-radius:2px; transform:rotate(45deg) }
details { border-top:1px solid var(--line) }
details:first-of-type { border-top:0 }
summary {
  cursor:pointer; padding:8px 0; display:flex; gap:6px 14px; align-items:baseline;
  flex-wrap:wrap;
}
summary::before { content:"▸"; color:var(--faint); width:.8em; flex:none }
details[open]>summary::before { content:"▾" }
summary::-webkit-details-marker { display:none }
summary b { font-weight:600 }
details>.scroll { padding:0 0 12px 1.4em }
.bar {
  display:inline-block; height:7px; border-radius:4px; background:var(--e0); opacity:.45;
  margin-right:8px; min-width:2px;
}
.chips { display:flex; flex-wrap:wrap; gap:5px }
.chip {
  border:1px solid var(--line); background:var(--sunk); border-radius:7px; padding:0 8px;
  font-size:13px; white-space:nowrap;
}
.chip b { font-weight:600 }
.chip.world { border-color:var(--e0); color:var(--e0) }
.chip.some { border-color:var(--e3); color:var(--e3) }
.chip.standby { border-style:dashed; color:var(--soft) }
.chip.foreign { opacity:.65; font-style:italic }
.matrix td,.matrix th {
  padding:5px 10px; border:1px solid var(--line); text-align:center; white-space:nowrap;
}
.matrix th[scope=row],.matrix td:first-child { text-align:left }
.matrix tr:last-child td { border-bottom: 1px solid var(--line) }
.matrix td.self { background:var(--sunk) }
.matrix td i { font-style:normal; display:block }
.matrix.many th[scope=col]:not(:first-child) {
  writing-mode:vertical-rl; transform:rotate(180deg); padding:10px 4px; text-align:left;
}
.matrix.many td { padding:4px 6px; font-size:12.5px }
svg {
  display:block; width:100%; height:auto;
  font:12.5px system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans", sans-serif;
}
svg text { fill:var(--text) }
svg .box { fill:var(--sunk); stroke:var(--line) }
svg .box.bad { stroke:var(--bad) }
svg .host { font-weight:620; font-size:13px }
svg .soft { fill:var(--soft); font-size:11.5px }
svg .node rect { fill:var(--card); stroke:var(--line) }
svg .node.bad rect { stroke:var(--bad) }
svg .node .st { fill:var(--faint) }
svg .node.ok .st { fill:var(--ok) }
svg .node.bad .st { fill:var(--bad) }
svg .node:hover rect { stroke:var(--text) }
svg .edge { fill:none; stroke-width:1.5; opacity:.5 }
svg .bundle { fill: none; opacity: .45 }
svg .bundle:hover { opacity: 1 }
svg.dense .edge { display: none }
svg.dense .out .edge { display: inline }
svg .edge:hover { opacity:1; stroke-width:2.5 }
svg:has(.node:hover) :is(.edge, .bundle) { opacity:.08 }
svg .out rect { fill:none; stroke:var(--faint); stroke-dasharray:4 3 }
.legend {
  display:flex; flex-wrap:wrap; gap:4px 20px; margin:12px 0 0; font-size:13px; color:var(--soft);
}
footer {
  color:var(--faint); font-size:13px; max-width:1360px; margin:0 auto; padding:0 20px 32px;
}
@media (max-width:700px) {
  section { padding:14px }
  .attention li { grid-template-columns:1fr }
  .attention li code { grid-column:1 }
  .topology { min-width:760px }
}
@media print {
  nav { display:none }
  body { background:#fff }
  section { break-inside:avoid-page }
  details>* { display:block }
}
"""


def edge_colours(count: int) -> str:
    """Strokes and arrow heads, by kind."""
    return "".join(
        f"svg .k{kind}{{stroke:var(--e{kind})}}svg .h{kind}{{fill:var(--e{kind})}}"
        for kind in range(count)
    )
