"""Look and behaviour of the page: one style sheet for light and dark, and a script without any library."""

STYLE = """
:root {
  color-scheme: light dark;
  --page: #f6f8fa; --card: #ffffff; --ink: #1f2328; --soft: #59636e; --line: #d8dee4; --faint: #e4e8ec;
  --accent: #0b62a8; --good: #1a7f37; --warn: #9a6700; --bad: #c2261d; --bar: #d6e6f5; --code: #f3f5f7;
  --c0: #0072b2; --c1: #d55e00; --c2: #009e73; --c3: #b85c92; --c4: #2f9bd6; --c5: #c98700; --c6: #77808a;
  --c7: #8c564b;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #0f1318; --card: #171c23; --ink: #e3e8ee; --soft: #98a4b1; --line: #2c343e; --faint: #29313a;
    --accent: #6cb2f0; --good: #4cc169; --warn: #dfae3b; --bad: #f4776f; --bar: #1e3d59; --code: #11161c;
    --c0: #5aaff0; --c1: #f0894a; --c2: #3ecfa0; --c3: #e39cc6; --c4: #8fd0f5; --c5: #efb84a; --c6: #a4adb7;
    --c7: #c79a90;
  }
}
* { box-sizing: border-box; }
html { scroll-behavior: smooth; scroll-padding-top: 3.2rem; -webkit-text-size-adjust: 100%; }
body {
  margin: 0; background: var(--page); color: var(--ink); line-height: 1.5; font-size: 15px;
  font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "Apple SD Gothic Neo",
    "Malgun Gothic", "Noto Sans KR", "Noto Sans CJK KR", "NanumGothic", "PingFang SC", "Microsoft YaHei",
    "Noto Sans SC", "Noto Sans CJK SC", sans-serif;
}
main, header, nav > div { max-width: 1240px; margin: 0 auto; padding: 0 24px; }
header { padding-top: 32px; padding-bottom: 12px; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 6px; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 0 0 14px; letter-spacing: -0.005em; }
h3 { font-size: 0.95rem; margin: 26px 0 10px; color: var(--soft); font-weight: 600; }
h2 + h3, h3:first-child { margin-top: 0; }
a { color: var(--accent); text-decoration: none; }
a:hover { text-decoration: underline; }
.about { color: var(--soft); display: flex; flex-wrap: wrap; gap: 2px 0; }
.about > * + *::before { content: "\\00b7"; margin: 0 10px; }
.pill {
  display: inline-block; padding: 1px 10px; border-radius: 999px; font-size: 0.8rem; font-weight: 600;
  border: 1px solid currentColor; vertical-align: 4px; margin-left: 10px; white-space: nowrap;
}
.pill.finished { color: var(--good); } .pill.running { color: var(--accent); }
.pill.failed, .pill.stopped { color: var(--bad); } .pill.preempted, .pill.created { color: var(--warn); }
nav { position: sticky; top: 0; z-index: 5; background: var(--page); border-bottom: 1px solid var(--line); }
nav > div { display: flex; gap: 22px; overflow-x: auto; font-size: 0.9rem; scrollbar-width: none; }
nav a { color: var(--soft); white-space: nowrap; padding: 9px 0; }
section {
  background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 22px 24px 24px; margin: 20px 0;
}
.headline {
  display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px; margin: 20px 0 0;
}
.headline > div {
  background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 12px 14px;
}
.headline .label::first-letter { text-transform: uppercase; }
.headline .label { color: var(--soft); font-size: 0.82rem; }
.headline .value { font-size: 1.35rem; font-weight: 650; line-height: 1.3; white-space: nowrap; }
.headline .value small { font-size: 0.9rem; font-weight: 500; color: var(--soft); }
.headline .note { color: var(--soft); font-size: 0.8rem; min-height: 1.2em; }
.headline > div.first { border-color: var(--accent); box-shadow: inset 0 3px 0 var(--accent); }
.headline .name { display: flex; align-items: baseline; font-weight: 600; overflow-wrap: anywhere; }
.headline .name + .value { white-space: normal; }
.swatch { flex: none; width: 11px; height: 11px; border-radius: 3px; margin-right: 8px; }
.message {
  border-left: 4px solid var(--accent); padding: 9px 14px; margin: 14px 0 0; background: var(--code);
}
h2 + .message { margin-top: 0; }
.message.error { border-color: var(--bad); } .message.warning { border-color: var(--warn); }
.message.ok { border-color: var(--good); }
.message small { display: block; color: var(--soft); font-size: 0.88rem; }
.verdict .message { font-size: 1.12rem; font-weight: 600; background: var(--card); padding: 13px 16px; }
.verdict .message small { font-weight: 400; font-size: 0.9rem; margin-top: 3px; }
.plots { display: grid; grid-template-columns: repeat(auto-fill, minmax(340px, 1fr)); gap: 16px 20px; }
figure { margin: 0; }
figure.plot { position: relative; }
figure.plot svg { width: 100%; height: auto; display: block; overflow: visible; }
figure.plot svg text { font-family: inherit; }
figure.plot svg path { stroke-linejoin: round; stroke-linecap: butt; }
.tip {
  position: absolute; pointer-events: none; background: var(--card); border: 1px solid var(--line);
  border-radius: 6px; padding: 4px 9px; font-size: 0.8rem; width: max-content; max-width: 100%;
  box-shadow: 0 2px 8px #0003;
}
.tip i { display: inline-block; width: 9px; height: 9px; border-radius: 50%; margin-right: 5px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.9rem; min-width: 40%; }
th, td { padding: 5px 14px 5px 10px; text-align: left; border-bottom: 1px solid var(--line); }
th { color: var(--soft); font-weight: 600; cursor: pointer; user-select: none; white-space: nowrap; }
th::after { content: "\\2195"; opacity: 0.35; margin-left: 5px; font-weight: 400; }
th[aria-sort=ascending]::after { content: "\\2191"; opacity: 1; }
th[aria-sort=descending]::after { content: "\\2193"; opacity: 1; }
th.number { text-align: right; }
td.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.scroll > table td:first-child { white-space: nowrap; }
td.share {
  background: linear-gradient(90deg, var(--bar) var(--share), transparent var(--share)); min-width: 110px;
}
tbody tr:hover { background: color-mix(in srgb, var(--accent) 7%, transparent); }
.columns {
  display: grid; grid-template-columns: repeat(auto-fit, minmax(330px, 1fr));
  gap: 10px 36px; margin-top: 26px;
}
.beside { display: flex; flex-wrap: wrap; gap: 20px 40px; }
.beside > .plots { flex: 1 1 420px; align-content: start; }
.beside > div { min-width: 0; }
.beside > .plots { grid-template-columns: repeat(auto-fit, minmax(min(340px, 100%), 620px)); }
.columns > * { min-width: 0; }
.none { color: var(--soft); }
.pictures { columns: 2 460px; column-gap: 18px; }
.pictures figure { break-inside: avoid; margin-bottom: 16px; }
.pictures img {
  width: 100%; height: auto; display: block; background: #fff;
  border: 1px solid var(--line); border-radius: 6px;
}
figcaption { color: var(--soft); font-size: 0.85rem; margin-top: 4px; }
details { margin: 8px 0; }
summary { cursor: pointer; color: var(--accent); padding: 3px 0; }
details[open] > summary { margin-bottom: 10px; }
pre {
  background: var(--code); border: 1px solid var(--line); border-radius: 8px;
  padding: 13px 16px; margin: 8px 0;
  overflow-x: auto; font-size: 0.83rem; line-height: 1.5; tab-size: 2;
  font-family: ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", "D2Coding", monospace;
}
dl {
  display: grid; grid-template-columns: max-content 1fr; gap: 3px 22px; margin: 0 0 12px; font-size: 0.9rem;
}
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
footer { color: var(--soft); font-size: 0.83rem; padding: 4px 0 34px; }
@media (max-width: 560px) {
  main, header, nav > div { padding-left: 14px; padding-right: 14px; }
  section { padding: 16px 14px; }
  .plots { grid-template-columns: 1fr; }
  .pictures { columns: 1; }
}
@media print {
  nav { display: none; }
  section { break-inside: avoid-page; border: 0; padding: 8px 0; }
}
"""

SCRIPT = """
const sortKey = cell => {
  const data = cell.querySelector("data");
  return data ? Number(data.value) : cell.textContent;
};
const compare = (a, b) => typeof a === "number" && typeof b === "number"
  ? a - b : String(a).localeCompare(String(b), undefined, {numeric: true});

for (const table of document.querySelectorAll("table.sortable"))
  table.tHead.addEventListener("click", event => {
    const head = event.target.closest("th"), body = table.tBodies[0];
    if (!head) return;
    const column = head.cellIndex, before = head.ariaSort;
    const first = body.rows[0].cells[column].querySelector("data") ? "descending" : "ascending";
    const order = !before ? first : before === "ascending" ? "descending" : "ascending";
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    head.ariaSort = order;
    const rows = [...body.rows];
    rows.sort((a, b) => compare(sortKey(a.cells[column]), sortKey(b.cells[column])));
    body.append(...(order === "descending" ? rows.reverse() : rows));
  });

const points = JSON.parse(document.getElementById("points").textContent);
const readable = value => String(Number.isInteger(value) ? value : Number(value.toPrecision(4)));

function attachReader(figure, lines) {
  const svg = figure.querySelector("svg"), frame = JSON.parse(svg.dataset.frame);
  const [left, top, right, bottom] = frame.box, scale = frame.log ? Math.log : Number;
  const part = (value, [low, high], f) => (f(value) - f(low)) / (f(high) - f(low));
  const toX = x => left + part(x, frame.x, Number) * (right - left);
  const toY = y => bottom - part(y, frame.y, scale) * (bottom - top);
  const tip = Object.assign(document.createElement("div"), {className: "tip", hidden: true});
  const marks = document.createElementNS(svg.namespaceURI, "g");
  figure.append(tip);
  svg.append(marks);
  const make = (kind, attributes) => {
    const mark = marks.appendChild(document.createElementNS(svg.namespaceURI, kind));
    for (const [name, value] of Object.entries(attributes)) mark.setAttribute(name, value);
  };
  const clear = () => { tip.hidden = true; marks.replaceChildren(); };

  svg.addEventListener("mouseleave", clear);
  svg.addEventListener("mousemove", event => {
    const place = svg.getBoundingClientRect();
    const across = (event.clientX - place.left) / place.width * svg.viewBox.baseVal.width;
    const distance = x => Math.abs(toX(x) - across);
    const near = lines.map(([name, line], index) => {
      const known = line.x.map((x, i) => [x, line.y[i]]).filter(([, y]) => y !== null);
      if (!known.length) return null;
      const [x, y] = known.reduce((a, b) => distance(b[0]) < distance(a[0]) ? b : a);
      return {name, x, y, colour: `var(--c${(line.colour ?? index) % 8})`};
    }).filter(Boolean);
    clear();
    if (!near.length) return;
    const at = near.reduce((a, b) => distance(b.x) < distance(a.x) ? b : a).x, middle = toX(at);
    make("line", {x1: middle, x2: middle, y1: top, y2: bottom, stroke: "currentColor", opacity: 0.35});
    tip.replaceChildren(`${figure.dataset.x} ${readable(at)}`);
    for (const point of near) {
      make("circle", {cx: toX(point.x), cy: toY(point.y), r: 3.2, fill: point.colour});
      const row = document.createElement("div"), dot = document.createElement("i");
      dot.style.background = point.colour;
      const where = point.x === at ? "" : ` (${figure.dataset.x} ${readable(point.x)})`;
      row.append(dot, `${point.name} ${readable(point.y)}${where}`);
      tip.append(row);
    }
    tip.hidden = false;
    const pixels = middle / svg.viewBox.baseVal.width * place.width, room = place.width - tip.offsetWidth;
    const beside = pixels > place.width / 2 ? pixels - tip.offsetWidth - 8 : pixels + 8;
    tip.style.left = `${Math.max(0, Math.min(beside, room))}px`;
    tip.style.top = `${top}px`;
  });
}
for (const figure of document.querySelectorAll("figure.plot"))
  if (points[figure.dataset.plot]) attachReader(figure, Object.entries(points[figure.dataset.plot]));
"""
