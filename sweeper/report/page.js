"use strict";
// The page: unpacks what it embeds, draws figures when they come into sight, sorts and saves tables.
// details.js shows a trial. Nothing is fetched, and text from the run only ever becomes text.

const report = { data: null, plotly: null, drawn: new Map() };
const $ = (selector, within = document) => within.querySelector(selector);
const all = (selector, within = document) => [...within.querySelectorAll(selector)];

/** An element: element("td", {className: "number"}, "text", child, ...). */
function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

async function unpacked(id) {
  const text = atob($(id).textContent.trim());
  const bytes = Uint8Array.from(text, (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).text();
}

function complain(error) {
  const note = $("#trouble");
  note.hidden = false;
  note.textContent = `The figures can't be drawn by this browser (${error}); the tables are complete.`;
}

// figures

const darkness = matchMedia("(prefers-color-scheme: dark)");
let printing = false;

/** A figure in the colours of the page: those that stand for ink and paper are exchanged in the dark. */
function themed(value) {
  if (printing || !darkness.matches) return structuredClone(value);
  const exchange = (each) => {
    if (typeof each === "string") return report.data.dark[each] ?? each;
    if (Array.isArray(each)) return each.map(exchange);
    if (each && typeof each === "object") return Object.fromEntries(Object.entries(each).map(([k, v]) => [k, exchange(v)]));
    return each;
  };
  return exchange(value);
}

const settings = (name) => ({
  responsive: true,
  displaylogo: false,
  modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"],
  toImageButtonOptions: { format: "svg", filename: `${report.data.run}-${name}` },
});

/** Draws {data, layout} into a node; a click on what is a model shows it. */
function draw(node, figure, name) {
  const { data, layout } = themed(figure);
  const known = node.classList.contains("js-plotly-plot");
  const done = Plotly.react(node, data, { ...layout, autosize: true }, settings(name));
  if (!known) {
    node.on("plotly_click", (event) => {
      const model = event.points.map((point) => point.customdata).find(Boolean);
      if (model) showDetails(model);
    });
  }
  return done;
}

/** One of the page's figures, at its stage and with what its controls say. */
function drawFigure(block) {
  const name = block.dataset.figure;
  const stages = report.data.figures[name];
  const stage = $("select[name=stage]", block)?.value ?? "validation";
  const shown = stages[stage] ?? stages.validation;
  const figure = name === "front" ? steered(stages.validation, block, stage) : shown;
  const node = $(".plot", block);
  node.style.minWidth = `${Math.min(900, 330 * Math.min(3, block.dataset.columns)) * (block.dataset.columns > 1)}px`;
  $(".caption", block).textContent = shown.caption;
  $(".command code", block).textContent = shown.command;
  report.drawn.set(node, () => drawFigure(block));
  return draw(node, figure, name);
}

function redraw() {
  for (const [node, again] of report.drawn) node.isConnected ? again() : report.drawn.delete(node);
}

function choice(name, label, options, chosen) {
  const list = element("select", { name });
  for (const [value, text] of options) list.append(element("option", { value, textContent: text, selected: value === chosen }));
  return element("label", {}, `${label} `, list);
}

function controls(block) {
  const name = block.dataset.figure, place = $(".controls", block), { objectives, stages } = report.data;
  const known = Object.keys(report.data.figures[name]);
  if (name === "front") {
    const names = objectives.map((each) => [each.name, each.label]);
    const [first, second, third] = objectives.map((each) => each.name);
    if (second) {
      place.append(choice("x", "right", names, second), choice("y", "up", names, first));
      place.append(choice("colour", "colour", [["", "method"], ...names], third ?? ""));
    }
    const box = element("input", { type: "checkbox", name: "intervals" });
    place.append(element("label", {}, box, " intervals of all"));
  }
  if (known.length > 1) place.append(choice("stage", "images", known.map((stage) => [stage, stages[stage].label]), "validation"));
  place.addEventListener("change", () => drawFigure(block));
}

/** The front with other objectives on its axes: of each point the numbers are looked up anew. */
function steered(figure, block, stage) {
  const get = (name) => $(`[name=${name}]`, block);
  if (!get("x")) return figure;
  const [x, y, colour] = ["x", "y", "colour"].map((name) => get(name).value);
  const { models, objectives, colours } = report.data;
  const label = (name) => objectives.find((each) => each.name === name)?.label ?? "";
  const value = (id, name) => models[id].metrics[stage]?.[name] ?? null;
  const own = x === objectives[1].name && y === objectives[0].name;  // as drawn
  const shades = [];
  const data = figure.data.map((trace) => {
    if (!trace.customdata) return trace.line ? { ...trace, visible: own } : trace;
    const ids = trace.customdata, wanted = get("intervals").checked || trace.error_y;
    const whiskers = (name) => {
      const ends = ids.map((id) => models[id].intervals[stage]?.[name]);
      const reach = (side, sign) => ids.map((id, at) => (ends[at] ? sign * (ends[at][side] - value(id, name)) : 0));
      return { type: "data", symmetric: false, array: reach(1, 1), arrayminus: reach(0, -1), thickness: 1, width: 0, color: "#6b7580" };
    };
    const marker = { ...trace.marker, color: colours[models[ids[0]].method] };
    delete marker.coloraxis;
    if (colour) {
      Object.assign(marker, { color: ids.map((id) => value(id, colour)), coloraxis: "coloraxis" });
      shades.push(...marker.color.filter((shade) => shade !== null));
    }
    const whole = { ...trace, marker, x: ids.map((id) => value(id, x)), y: ids.map((id) => value(id, y)) };
    if (!own && trace.textposition) whole.textposition = "top center";
    return wanted ? { ...whole, error_x: whiskers(x), error_y: whiskers(y) } : whole;
  });
  const layout = structuredClone(figure.layout);
  layout.xaxis.title.text = label(x);
  layout.yaxis.title.text = label(y);
  if (colour && shades.length) {
    const bar = layout.coloraxis?.colorbar ?? { thickness: 12, outlinewidth: 0, title: { side: "right" } };
    const ends = { cmin: Math.min(...shades), cmax: Math.max(...shades) };
    layout.coloraxis = { colorscale: "Viridis", ...ends, colorbar: { ...bar, title: { ...bar.title, text: label(colour) } } };
  }
  return { data, layout };
}

function drawWhenSeen() {
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      seen.unobserve(entry.target);
      drawFigure(entry.target);
    }
  }, { rootMargin: "400px" });
  for (const block of all("[data-figure]")) {
    $(".plot", block).style.minHeight = `${report.data.figures[block.dataset.figure].validation.layout.height}px`;
    controls(block);
    seen.observe(block);
  }
}

// tables

function sortable(table) {
  const heads = all("thead tr:last-child th", table);
  heads.forEach((head, column) => {
    const button = element("button", { type: "button" }, ...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((each) => each.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const rows = all("tbody tr", table);
      const keys = new Map(rows.map((row) => [row, key(row.cells[column])]));
      rows.sort((a, b) => compare(keys.get(a), keys.get(b), down ? -1 : 1));
      $("tbody", table).append(...rows);
    });
  });
}

/** A number, also as 8/255 or 93 %; else the text; null where there is nothing. */
function key(cell) {
  const text = cell.dataset.value ?? cell.textContent.trim();
  const [whole, part] = text.split("/").map(Number);
  const number = part === undefined ? whole : whole / part;
  return text === "" ? null : Number.isNaN(number) ? text : number;
}

/** What is missing comes last, in either direction. */
function compare(a, b, sign) {
  if (a === null || b === null) return (a === null) - (b === null);
  if (typeof a === "number" && typeof b === "number") return sign * (a - b);
  return sign * String(a).localeCompare(String(b), "en", { numeric: true });
}

function content(table, kind) {
  const names = all("thead tr:last-child th", table).map((head) => head.dataset.name ?? head.textContent.trim());
  const rows = all("tbody tr", table).filter((row) => !row.hidden);
  const values = rows.map((row) => [...row.cells].map((cell) => cell.dataset.value ?? cell.textContent.trim()));
  if (kind === "json") {
    const typed = (text) => (text === "" ? null : Number.isNaN(Number(text)) ? text : Number(text));
    return JSON.stringify(values.map((row) => Object.fromEntries(row.map((text, at) => [names[at], typed(text)]))), null, 1);
  }
  const quoted = (text) => (/[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  return [names, ...values].map((row) => row.map(quoted).join(",") + "\n").join("");
}

function save(text, name) {
  const link = element("a", { href: URL.createObjectURL(new Blob([text])), download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

async function copy(text, button) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {  // in a frame, as in MLflow
    const area = element("textarea", { value: text });
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  const before = button.textContent;
  button.textContent = "Copied";
  setTimeout(() => { button.textContent = before; }, 1200);
}

function deliver(text, name, button) {
  button.dataset.how === "copy" ? copy(text, button) : save(text, name);
}

function buttons() {
  const { run, files } = report.data;
  document.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    const { file, rows, kind } = button.dataset;
    if (file) deliver(files[file], `${run}-pareto.${file}`, button);
    if (rows) deliver(content($(`#${rows}`), kind), `${run}-${rows}.${kind}`, button);
    if (button.dataset.copy) copy($(button.dataset.copy).textContent, button);
    if (button.classList.contains("copy")) copy(button.previousElementSibling.textContent, button);
  });
  for (const field of all("[data-filter]")) {
    field.addEventListener("input", () => {
      const wanted = field.value.toLowerCase().split(/[\s,]+/);
      for (const row of all("tbody tr", $(`#${field.dataset.filter}`))) {
        const text = row.textContent.toLowerCase();
        row.hidden = !wanted.every((word) => text.includes(word));
      }
    });
  }
}

// all together

async function start() {
  report.data = JSON.parse(await unpacked("#data"));
  all("table.sortable").forEach(sortable);
  buttons();
  listenForDetails();
  document.head.append(element("script", { textContent: await unpacked("#plotly") }));
  drawWhenSeen();
  darkness.addEventListener("change", redraw);
  addEventListener("beforeprint", () => {
    printing = true;
    all("[data-figure]").forEach(drawFigure);
  });
  addEventListener("afterprint", () => {
    printing = false;
    redraw();
  });
  showHash();
  document.body.dataset.ready = "true";
}

addEventListener("DOMContentLoaded", () => start().catch(complain));
