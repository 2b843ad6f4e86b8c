// Draws the curves, and fetches the page anew after an event of its project. What did not change stays as it
// is: focus, scrolling, open details, and the text that somebody is typing.
"use strict";

const AGAIN_MS = 1000;
const LIVE_MS = 3000;
const CONNECT_AGAIN_MS = 5000;

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
  const [ink, line, strokes] = [resolved("--soft"), resolved("--line"), ["--fill", "--bad", "--good", "--wait", "--ink", "--soft"].map(resolved)];
  probe.remove();
  const axis = { stroke: ink, grid: { stroke: line, width: 1 }, ticks: { stroke: line } };
  new uPlot({
    width: element.clientWidth, height: 250, scales: { x: { time: false } },
    axes: [
      { ...axis, label: element.dataset.x, labelSize: 18, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 50000, 1e5, 1e6] },
      { ...axis, size: 60, values: (_, splits) => splits.map((one) => one.toLocaleString("en", { maximumSignificantDigits: 3 })) },
    ],
    legend: { show: curves.length > 1 },
    series: [{ label: element.dataset.x, value: (_, one) => one ?? "" }, ...curves.map((one, n) => ({
      label: one.name, value: (_, at) => at ?? "", stroke: strokes[n % strokes.length], width: 2, spanGaps: true, points: { show: one.points.length < 40 },
    }))],
  }, [places, ...columns], element);
}

// On a narrow page each row of a table with many columns, or one that is too wide, is a block of its own, with the columns' names in it.
const MANY = 5;

function nameCells(table) {
  const names = [...table.querySelectorAll("thead th")].map((one) => one.innerText);
  const fits = names.length < MANY && table.offsetWidth <= table.parentElement.clientWidth;
  if (fits || table.matches(".confusion")) return;
  table.classList.add("many");
  for (const cell of table.querySelectorAll("tbody td")) cell.dataset.name = names[cell.cellIndex];
}

function drawPictures() {
  document.querySelectorAll(".chart").forEach(drawChart);
  document.querySelectorAll(".scroll table").forEach(nameCells);
}

// What the fields say; those whose name ends with [] are lists.
function filled(form) {
  const data = new FormData(form);
  return Object.fromEntries([...new Set(data.keys())].map((name) => name.endsWith("[]")
    ? [name.slice(0, -2), data.getAll(name).flatMap((text) => text.split(/[\s,]+/)).filter(Boolean)]
    : [name, data.get(name)]));
}

function isConfirmed(form) {
  return [...form.querySelectorAll("[data-typed], [data-repeats]")].every((field) =>
    field.value === (field.dataset.typed ?? form.elements[field.dataset.repeats].value));
}

// Sends a request of a form to the API.
function call(form, path, method, body, more = {}) {
  const headers = { "content-type": "application/json", ...more };
  if (form.dataset.csrf) headers["x-csrf-token"] = form.dataset.csrf;
  return fetch(path, { method, headers, body });
}

// Checks a spec and shows what it would change; then puts in force the very text that was checked.
async function declare(event) {
  const form = event.target;
  if (!form.dataset.declare) return;
  event.preventDefault();
  const [said, list, confirm] = ["output", "ul", "[name=confirm]"].map((one) => form.querySelector(one));
  const isMeant = event.submitter === confirm;
  const path = form.dataset.declare.replace("{}", encodeURIComponent(form.project?.value ?? ""));
  confirm.hidden = true;
  try {
    const body = isMeant ? form.checked : await form.spec.files[0].text();
    const answer = await call(form, `${path}?power=false&${isMeant ? `replaces=${form.replaces}` : "check=true"}`, "PUT", body, { "content-type": "application/yaml" });
    const told = await answer.json();
    if (!answer.ok) throw new Error(told.error.message);
    if (isMeant) return location.assign(`${path.replace("/v1/", "/").replace(/^v1\//, "")}`);
    form.checked = body;
    form.replaces = told.replaces;
    const shown = (value) => value === null ? "nothing" : JSON.stringify(value);
    const lines = Object.entries(told.changes).map(([name, [before, after]]) => `${name}: ${shown(before)} → ${shown(after)}`);
    list.replaceChildren(...[...lines, ...told.cautions, ...told.notes].map((text) => {
      const line = document.createElement("li");
      line.textContent = text;
      return line;
    }));
    said.textContent = lines.length ? "" : "it changes nothing";
    confirm.hidden = !lines.length;
  } catch (error) {
    said.textContent = error.message;
  }
}

async function send(event) {
  const form = event.target;
  if (!form.dataset.order) return;
  event.preventDefault();
  const button = form.querySelector("button");
  const said = form.querySelector("output");
  if (!isConfirmed(form)) return said.textContent = "what is typed to confirm is not the same";
  button.disabled = true;
  const listed = (form.dataset.many ?? "").split(" ").filter(Boolean);
  const many = Object.fromEntries(listed.map((name) => [name, new FormData(form).getAll(name)]));
  const body = JSON.stringify({ ...JSON.parse(form.dataset.body), ...filled(form), ...many });
  const method = form.dataset.method ?? "POST";
  if (form.body !== body) {  // without an answer nobody knows whether it arrived: sent again it is the same command
    form.body = body;
    form.key = [...crypto.getRandomValues(new Uint32Array(4))].map((part) => part.toString(36)).join("");
  }
  try {
    const answer = await call(form, form.dataset.order, method, method === "DELETE" ? undefined : body, { "idempotency-key": form.key });
    if (answer.headers.get("content-type")?.startsWith("text/html")) {  // a page with answers
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      return document.querySelector("main").replaceWith(fresh.querySelector("main"));
    }
    const told = answer.status === 204 ? {} : await answer.json();
    said.textContent = !answer.ok ? told.error.message : told.key ? `copy it now, it is not shown again: ${told.key}` : "sent";
    form.body = null;
    if (answer.ok && form.dataset.then) return location.assign(form.dataset.then);
    if (answer.ok) {
      form.reset();
      soon();
    }
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
    const { name, kind } = field.dataset;
    if (kind === "json" && name === "" && field.tagName === "TEXTAREA") return field.value;
    try {
      answer[name] = kind === "json" ? JSON.parse(field.value) : field.value;
    } catch {
      throw new Error(`${name} is not ${field.rows === 1 ? "a number" : "JSON"}; correct it`);
    }
    if (Number.isInteger(answer[name]) && !Number.isSafeInteger(answer[name])) {
      throw new Error(`${name} has more digits than a browser keeps; send it by the API`);
    }
  }
  const plain = form.querySelector('[data-kind][data-name=""]');
  return plain ? String(answer[""] ?? "") : answer;
}

function labelOf(form, submitter) {
  const body = form.dataset.seen ? { seen: form.dataset.seen } : {};
  if (submitter?.value === "also") body.also = new FormData(form).getAll("also").map(Number);
  if (submitter?.name === "out_of_scope") return { ...body, out_of_scope: true };
  return { ...body, output: submitter?.name === "accept" ? submitter.value : output(form) };
}

// What somebody types or chooses stays in the tab until it is saved: neither the end of a session nor another page loses it.
const draftOf = (form) => `draft ${form.dataset.draft}`;

function keepDraft(event) {
  const form = event.target.closest("form[data-draft]");
  if (form) sessionStorage.setItem(draftOf(form), JSON.stringify([...new FormData(form)]));
}

function restoreDraft(form) {
  form.before = JSON.stringify([...new FormData(form)]);
  form.querySelector("output").textContent = sessionStorage.getItem("say") ?? "";
  sessionStorage.removeItem("say");
  const kept = JSON.parse(sessionStorage.getItem(draftOf(form)));
  if (!kept) return;
  for (const field of form.elements) {
    const values = kept.filter(([name]) => name === field.name).map(([, value]) => value);
    if (field.type === "checkbox") field.checked = values.includes(field.value);
    else if (field.type === "radio") field.checked = values.length ? values.includes(field.value) : field.checked;
    else if (values[0]) field.value = values[0];
  }
  form.querySelector("output").textContent ||= "not saved yet: what you had typed here before";
}

function logInAgain() {
  sessionStorage.setItem("return", location.href);
  location.reload();
}

function comeBack() {
  const left = sessionStorage.getItem("return");
  sessionStorage.removeItem("return");
  if (left && left !== location.href) location.replace(left);
}

async function answer(event) {
  const form = event.target;
  const path = form.dataset.answer ?? form.dataset.review;
  if (!path) return;
  event.preventDefault();
  if (form.sending) return;  // a key too many is meant for the next item, and would change the answer to this one
  form.sending = true;
  const said = form.querySelector("output");
  try {
    const body = form.dataset.review
      ? { choice: event.submitter.value, reasons: new FormData(form).getAll("reasons"), corrected: form.corrected?.value.trim() || null }
      : labelOf(form, event.submitter);
    const sent = await call(form, path, "PUT", JSON.stringify(body));
    if (sent.status === 401) return logInAgain();
    const told = await sent.json();
    if (told.error?.param === "seen") form.dataset.seen = "";  // they know now: the next time it replaces
    if (!sent.ok) throw new Error(told.error.message);
    sessionStorage.removeItem(draftOf(form));
    if (told.passed_over?.length) sessionStorage.setItem("say", `left out, since others answered them meanwhile: ${told.passed_over.join(", ")}`);
    if (form.then) return location.assign(form.then);
    const of = Number(form.dataset.number);
    const next = form.dataset.review && of < told.items ? of + 1 : told.next ?? "end";
    location.search = form.dataset.next.slice(1) + next;
  } catch (error) {
    form.sending = false;
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

function finish(form) {
  if (form.dataset.order) return form.requestSubmit();
  const button = form.querySelector('[name=publish], [aria-pressed="true"]');
  if (button) form.requestSubmit(button);
}

function press(event) {
  const form = document.querySelector("form.answer");
  const key = event.key === "Enter" && form?.dataset.review ? "ArrowRight" : event.key;
  if (!form || event.repeat || event.isComposing || event.altKey || event.metaKey) return;
  if (event.target.closest("textarea, input:not([type=radio]):not([type=checkbox]), select")) {
    if (event.key === "Escape") event.target.blur();
    if (event.key === "Enter" && event.ctrlKey) finish(form);
    return;
  }
  if (event.key === "Enter" && event.ctrlKey && form.dataset.answer) finish(form);
  if (event.ctrlKey) return;
  if (key === "Enter" && form.dataset.order) return form.requestSubmit();
  const choices = form.dataset.answer ? [...form.querySelectorAll("[type=radio]")] : [];
  const shown = (one) => one.checkVisibility();  // not in what is folded
  const target = [...form.querySelectorAll(`[data-key="${CSS.escape(key)}"]`)].find(shown)
    ?? choices[Number(key) - 1]
    ?? form.querySelector(`[data-toggle="${CSS.escape(key)}"] summary`);
  const field = form.querySelector(`[data-focus="${CSS.escape(key)}"]`);
  if (!target && !field) return;
  event.preventDefault();
  target ? target.click() : field.focus();
}

async function refresh() {
  const part = document.querySelector("#live") ? "#live" : "main";  // a form that somebody fills in stays as it is
  const address = new URL(location.href);
  if (part === "#live") address.searchParams.set("part", "live");
  const answer = await fetch(address, { headers: { accept: "text/html" } });
  if (answer.status === 401) return logInAgain();
  if (!answer.ok) return;
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").querySelector(part);
  Idiomorph.morph(document.querySelector(part), fresh, {
    ignoreActiveValue: true,
    callbacks: {
      beforeNodeMorphed: (old, next) => {
        if (old.tagName === "DETAILS") next.open = old.open;
        if (old.tagName === "OUTPUT" || old.tagName === "TEXTAREA" && old.value !== old.defaultValue) return false;
        if (!old.classList?.contains("chart")) return true;
        old.dataset.curves = next.dataset.curves;
        old.setAttribute("aria-label", next.getAttribute("aria-label"));
        return false;
      },
    },
  });
  drawPictures();
}

let due = false;
let drawing = false;

// Draws the page anew, after a while and one time after the other: the answer to an earlier question never replaces a
// later one.
async function soon() {
  due = true;
  if (drawing) return;
  drawing = true;
  while (due) {
    await new Promise((done) => setTimeout(done, document.querySelector("#live") ? LIVE_MS : AGAIN_MS));
    due = false;
    await refresh().catch(() => {});  // the console is away; the next connection asks again
  }
  drawing = false;
}

// Only a page that somebody sees follows: a browser keeps few connections to a host, and a hidden page would hold one.
function follow(main) {
  if (!main.dataset.events) return;
  let events = null;
  const connect = () => {
    events?.close();
    if (document.hidden) return;
    const opened = events = new EventSource(main.dataset.events);
    for (const type of main.dataset.types.split(" ")) opened.addEventListener(type, soon);
    opened.addEventListener("open", soon);  // what happened before it
    opened.addEventListener("error", () => {
      soon();  // perhaps nobody is logged in any more
      if (opened.readyState === EventSource.CLOSED) setTimeout(() => opened === events && connect(), CONNECT_AGAIN_MS);
    });
  };
  document.addEventListener("visibilitychange", connect);
  connect();
}

addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });  // as it was left, it is stale
document.addEventListener("submit", send);
document.addEventListener("submit", answer);
document.addEventListener("submit", declare);
document.addEventListener("click", leave);
document.addEventListener("keydown", press);
document.addEventListener("input", keepDraft);
document.querySelector("form[action$=logout]")?.addEventListener("submit", () => sessionStorage.clear());
document.querySelectorAll("form[data-draft]").forEach(restoreDraft);
comeBack();
document.querySelectorAll("nav [aria-current]").forEach((one) => one.scrollIntoView({ block: "nearest", inline: "center" }));  // on a narrow page
follow(document.querySelector("main"));
drawPictures();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  document.querySelectorAll(".chart").forEach((one) => { one.drawn = null; });
  drawPictures();
});
