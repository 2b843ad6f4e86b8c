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

// The answer of a form as the API wants it: an object by field, or the whole answer where the field has no name.
function output(form) {
  const answer = {};
  for (const field of form.querySelectorAll("[data-kind]")) {
    if (field.type === "radio" && !field.checked) continue;
    if (!field.value.trim()) continue;
    if (field.dataset.kind === "json" && field.name === "" && field.tagName === "TEXTAREA") return field.value;
    try {
      answer[field.name] = field.dataset.kind === "json" ? JSON.parse(field.value) : field.value;
    } catch {
      throw new Error(`${field.name} is not ${field.rows === 1 ? "a number" : "JSON"}; correct it`);
    }
  }
  const plain = form.querySelector('[data-kind][name=""]');
  return plain ? String(answer[""] ?? "") : answer;
}

async function answer(event) {
  const form = event.target;
  const path = form.dataset.answer ?? form.dataset.review;
  if (!path) return;
  event.preventDefault();
  const said = form.querySelector("output");
  const headers = { "content-type": "application/json" };
  if (form.dataset.csrf) headers["x-csrf-token"] = form.dataset.csrf;
  try {
    const body = form.dataset.review
      ? { choice: event.submitter.value, reasons: new FormData(form).getAll("reasons"), corrected: form.corrected?.value.trim() || null }
      : event.submitter?.name === "out_of_scope" ? { out_of_scope: true } : { output: output(form) };
    const sent = await fetch(path, { method: "PUT", headers, body: JSON.stringify(body) });
    if (sent.status === 401) return location.reload();
    const told = await sent.json();
    if (!sent.ok) throw new Error(told.error.message);
    if (form.then) return location.assign(form.then);
    const of = Number(form.dataset.number);
    const next = form.dataset.review && of < told.items ? of + 1 : told.next ?? "end";
    location.search = form.dataset.next.slice(1) + next;
  } catch (error) {
    said.textContent = `not saved: ${error.message}`;
  }
}

// What somebody changed of an answer that was given before is sent before the next item is shown.
async function leave(event) {
  const link = event.target.closest("form[data-review] a[data-key]");
  if (!link) return;
  const form = link.closest("form");
  const given = form.querySelector('[aria-pressed="true"]');
  if (JSON.stringify([...new FormData(form)]) === form.before) return;
  event.preventDefault();
  if (!given) {
    form.querySelector("output").textContent = "choose 1, 2 or 3 first: reasons and correction are kept with it";
    return;
  }
  form.then = link.href;
  form.requestSubmit(given);
}

function press(event) {
  const form = document.querySelector("form.answer");
  const key = event.key === "Enter" && form?.dataset.review ? "ArrowRight" : event.key;
  if (!form || event.repeat || event.isComposing || event.altKey || event.metaKey) return;
  if (event.target.closest("textarea, input:not([type=radio]):not([type=checkbox]), select")) {
    if (event.key === "Escape") event.target.blur();
    if (event.key === "Enter" && event.ctrlKey) form.requestSubmit(form.querySelector("[name=publish]"));
    return;
  }
  if (event.key === "Enter" && event.ctrlKey && form.dataset.answer) form.requestSubmit(form.querySelector("[name=publish]"));
  if (event.ctrlKey) return;
  if (key === "Enter" && form.dataset.order) return form.requestSubmit();
  const choices = form.dataset.answer ? [...form.querySelectorAll("[type=radio]")] : [];
  const target = form.querySelector(`[data-key="${CSS.escape(key)}"]`)
    ?? choices[Number(key) - 1]
    ?? (key === "o" ? form.querySelector("[name=out_of_scope]") : null)
    ?? form.querySelector(`[data-toggle="${CSS.escape(key)}"] summary`);
  const field = form.querySelector(`[data-focus="${CSS.escape(key)}"]`);
  if (!target && !field) return;
  event.preventDefault();
  target ? target.click() : field.focus();
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
  events.addEventListener("error", soon);  // perhaps nobody is logged in any more
}

drawPictures();
document.addEventListener("submit", send);
document.addEventListener("submit", answer);
document.addEventListener("click", leave);
document.addEventListener("keydown", press);
for (const form of document.querySelectorAll("form[data-review]")) form.before = JSON.stringify([...new FormData(form)]);
follow(document.querySelector("main"));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  document.querySelectorAll(".chart").forEach((one) => { one.drawn = null; });
  drawPictures();
});
