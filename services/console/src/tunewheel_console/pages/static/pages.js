// Draws the curves, and fetches the page anew after an event of its project. What did not change stays as it
// is: focus, scrolling, open details, and the text that somebody is typing.
"use strict";

const AGAIN_MS = 1000;

function drawChart(element) {
  if (element.drawn === element.dataset.curves) return;
  element.drawn = element.dataset.curves;
  const curves = JSON.parse(element.dataset.curves);
  const places = [...new Set(curves.flatMap((one) => one.points.map(([x]) => x)))].sort((a, b) => a - b);
  const columns = curves.map((one) => {
    const of = new Map(one.points);
    return places.map((x) => of.get(x) ?? null);
  });
  const probe = document.createElement("span");
  element.replaceChildren(probe);
  const resolved = (name) => { probe.style.color = `var(${name})`; return getComputedStyle(probe).color; };
  const [ink, line, strokes] = [resolved("--soft"), resolved("--line"), ["--fill", "--bad", "--good", "--wait"].map(resolved)];
  probe.remove();
  const axis = { stroke: ink, grid: { stroke: line, width: 1 }, ticks: { stroke: line } };
  new uPlot({
    width: element.clientWidth, height: 250, scales: { x: { time: false } },
    axes: [{ ...axis, label: element.dataset.x, labelSize: 18 }, axis],
    series: [{ label: element.dataset.x }, ...curves.map((one, n) => ({
      label: one.name, stroke: strokes[n % strokes.length], width: 2, spanGaps: true, points: { show: one.points.length < 40 },
    }))],
  }, [places, ...columns], element);
}

function drawEdges(graph) {
  const from = graph.getBoundingClientRect();
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("width", graph.scrollWidth);
  svg.setAttribute("height", graph.scrollHeight);
  svg.setAttribute("aria-hidden", "true");
  const boxes = new Map([...graph.querySelectorAll("[data-node]")].map((one) => [one.dataset.node, one.getBoundingClientRect()]));
  for (const { source, target } of JSON.parse(graph.dataset.edges)) {
    const ends = [boxes.get(source), boxes.get(target)];
    if (ends.includes(undefined)) continue;
    const [left, right] = ends.sort((a, b) => a.left - b.left);
    const [x1, y1] = [left.right - from.left, left.top + left.height / 2 - from.top];
    const [x2, y2] = [right.left - from.left, right.top + right.height / 2 - from.top];
    const path = document.createElementNS(svg.namespaceURI, "path");
    path.setAttribute("d", `M${x1} ${y1} C${x1 + 28} ${y1} ${x2 - 28} ${y2} ${x2} ${y2}`);
    svg.append(path);
  }
  graph.querySelector("svg")?.remove();
  graph.prepend(svg);
}

function drawPictures() {
  document.querySelectorAll(".chart").forEach(drawChart);
  document.querySelectorAll(".graph").forEach(drawEdges);
}

async function send(event) {
  const form = event.target;
  if (!form.dataset.order) return;
  event.preventDefault();
  const button = form.querySelector("button");
  const said = form.querySelector("output");
  button.disabled = true;
  const headers = { "content-type": "application/json" };
  if (form.dataset.csrf) headers["x-csrf-token"] = form.dataset.csrf;
  const body = { ...JSON.parse(form.dataset.body), ...Object.fromEntries(new FormData(form)) };
  try {
    const answer = await fetch(form.dataset.order, { method: "POST", headers, body: JSON.stringify(body) });
    said.textContent = answer.ok ? "sent" : (await answer.json()).error.message;
    if (answer.ok) refresh();
  } catch (error) {
    said.textContent = `not sent: ${error.message}`;
  }
  button.disabled = false;
}

async function refresh() {
  const answer = await fetch(location.href, { headers: { accept: "text/html" } });
  if (answer.status === 401) return location.reload();
  if (!answer.ok) return;
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").querySelector("main");
  Idiomorph.morph(document.querySelector("main"), fresh, {
    ignoreActiveValue: true,
    callbacks: {
      beforeNodeMorphed: (old, next) => {
        if (old.tagName === "DETAILS") next.open = old.open;
        if (!old.classList?.contains("chart")) return true;
        old.dataset.curves = next.dataset.curves;
        return false;
      },
    },
  });
  drawPictures();
}

function follow(main) {
  if (!main.dataset.events) return;
  let waiting = null;
  const soon = () => { waiting ??= setTimeout(() => { waiting = null; refresh(); }, AGAIN_MS); };
  const events = new EventSource(main.dataset.events);
  for (const type of main.dataset.types.split(" ")) events.addEventListener(type, soon);
}

drawPictures();
document.addEventListener("submit", send);
follow(document.querySelector("main"));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  document.querySelectorAll(".chart").forEach((one) => { one.drawn = null; });
  drawPictures();
});
