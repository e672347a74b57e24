"use strict";
// What is known of one trial, in a panel on the right: opened by a click on a point or a name, and by #t003@5.

let returnTo = null;

function listenForDetails() {
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[href^='#']");
    if (!link) return;
    event.preventDefault();  // in a frame, as in MLflow, a fragment may lead elsewhere
    const id = decodeURIComponent(link.getAttribute("href").slice(1));
    if (isKnown(id)) showDetails(id);
    else document.getElementById(id)?.scrollIntoView();
  });
  addEventListener("hashchange", showHash);
  addEventListener("keydown", (event) => { if (event.key === "Escape") hideDetails(); });
}

const own = (table, id) => (Object.hasOwn(table, id) ? table[id] : undefined);
const isKnown = (id) => Boolean(own(report.data.models, id) || own(report.data.trials, id));

function showHash() {
  const id = decodeURIComponent(location.hash.slice(1));
  if (isKnown(id)) showDetails(id);
}

function setHash(id) {
  try {
    history.replaceState(null, "", id ? `#${id}` : location.pathname + location.search);
  } catch { /* a frame without an address */ }
}

function hideDetails() {
  const panel = $("#details");
  if (panel.hidden) return;
  panel.hidden = true;
  panel.replaceChildren();
  setHash("");
  returnTo?.focus();
}

/** The models known of a trial, by epoch. */
function modelsOf(trial) {
  const found = Object.entries(report.data.models).filter(([, model]) => model.trial === trial);
  return found.sort(([, a], [, b]) => a.epoch - b.epoch);
}

/** id: of a model, or of a trial, of which its member of the Pareto set is shown, or its last known epoch. */
function showDetails(id) {
  const panel = $("#details");
  if (panel.hidden) returnTo = document.activeElement;
  let model = own(report.data.models, id), trial = model ? model.trial : id;
  if (!model) {
    const known = modelsOf(id);
    const [best] = [known.find(([, each]) => each.member), known.at(-1), []].find(Boolean);
    [id, model] = [best ?? id, best && report.data.models[best]];
  }
  const about = own(report.data.trials, trial);
  const close = element("button", { type: "button", className: "close", title: "Close (Esc)", textContent: "✕" });
  close.addEventListener("click", hideDetails);
  panel.replaceChildren(close, ...heading(id, trial, model, about));
  panel.hidden = false;
  setHash(id);
  if (model) panel.append(...measurements(model));
  if (about) panel.append(...learning(about));
  if (model) panel.append(...reliabilities(id));
  if (about) panel.append(...configuration(trial, about));
  panel.append(...commands(id, trial, model, about));
  panel.scrollTop = 0;
  panel.focus({ preventScroll: true });
}

function heading(id, trial, model, about) {
  const method = (model ?? about).method, status = about?.status ?? "";
  const told = [element("h2", { textContent: trial ? `${id} ${method}` : "The untrained model" })];
  const parts = [status && `trial ${status}`, about && `seed ${about.seed}`];
  if (model?.member) parts.unshift("in the Pareto set");
  if (model?.probability != null) {
    const share = 100 * model.probability;
    const shown = share > 99.5 ? "> 99\u00a0%" : share < 0.5 ? "< 1\u00a0%" : `${share.toFixed(0)}\u00a0%`;
    parts.push(`P(optimal) ${model.candidate ? "" : "of its best epoch "}${shown}`);
  }
  told.push(element("p", { className: "soft", textContent: parts.filter(Boolean).join(", ") }));
  if (about?.reason) told.push(element("p", { className: "note", textContent: about.reason }));
  const epochs = trial ? modelsOf(trial) : [];
  if (epochs.length > 1) {
    const options = epochs.map(([each, of]) => [each, `${of.epoch}${of.member ? ", in the Pareto set" : ""}`]);
    const label = choice("epoch", "after epoch", options, id);
    $("select", label).addEventListener("change", (event) => showDetails(event.target.value));
    told.push(element("p", { className: "controls" }, label));
  }
  return told;
}

const digits = (value) => (value == null ? "-" : value !== 0 && Math.abs(value) < 1e-3 ? value.toExponential(2) : value.toFixed(4));

const short = (value) => (value !== 0 && Math.abs(value) < 1e-3 ? value.toExponential(1) : value.toFixed(3).replace("0.", "."));

/** A table of metrics, a column for each stage. */
function metricTable(model, names) {
  const stages = Object.keys(report.data.stages).filter((stage) => model.metrics[stage]);
  const head = element("tr", {}, element("th"), ...stages.map((stage) => element("th", { className: "number", textContent: report.data.stages[stage].label })));
  const rows = names.map(([name, label]) => {
    const cells = stages.map((stage) => {
      const cell = element("td", { className: "number", textContent: digits(model.metrics[stage][name]) });
      const ends = model.intervals[stage]?.[name];
      if (ends) cell.append(element("small", { textContent: ends.map(short).join("–") }));
      return cell;
    });
    return element("tr", {}, element("td", { textContent: label }), ...cells);
  });
  return element("div", { className: "wide" }, element("table", {}, element("thead", {}, head), element("tbody", {}, ...rows)));
}

function measurements(model) {
  const { objectives, stages } = report.data;
  const names = [...new Set(Object.values(model.metrics).flatMap((of) => Object.keys(of ?? {})))];
  const told = Object.keys(stages).filter((stage) => model.metrics[stage]).map((stage) => `${stages[stage].label}: ${stages[stage].text}`);
  return [
    metricTable(model, objectives.map((each) => [each.name, each.label])),
    element("p", { className: "soft", textContent: `Below a number: its 95 % interval. ${told.join(". ")}.` }),
    element("details", {}, element("summary", { textContent: `All ${names.length} metrics` }),
      element("div", { className: "scroll" }, metricTable(model, names.map((name) => [name, name])))),
  ];
}

/** A plot that is redrawn with the page's others. panels: {title, traces, x, y}; two beside each other. */
function small(panels, height, name) {
  const node = element("div", { className: "plot" }), data = [], ink = "#1d2125", soft = "#cfd4d9";
  const layout = {
    height: height * Math.ceil(panels.length / 2), margin: { l: 40, r: 8, t: 34, b: 34 }, showlegend: false, barmode: "overlay",
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: ink, size: 11, family: getComputedStyle(document.body).fontFamily }, hovermode: "closest",
    grid: { rows: Math.ceil(panels.length / 2), columns: Math.min(2, panels.length), pattern: "independent", ygap: 0.5, xgap: 0.24 },
    annotations: [],
  };
  panels.forEach((panel, at) => {
    const number = at ? at + 1 : "";
    layout[`xaxis${number}`] = { gridcolor: soft, zeroline: false, linecolor: "#6b7580", ...panel.x };
    layout[`yaxis${number}`] = { gridcolor: soft, zeroline: false, linecolor: "#6b7580", ...panel.y };
    layout.annotations.push({ text: panel.title, showarrow: false, align: "left", x: 0, xref: `x${number} domain`, xanchor: "left",
      y: 1, yref: `y${number} domain`, yanchor: "bottom", yshift: 3, font: { size: 11 } });
    data.push(...panel.traces.map((trace) => ({ ...trace, xaxis: `x${number}`, yaxis: `y${number}` })));
  });
  const show = () => draw(node, { data, layout }, name);
  report.drawn.set(node, show);
  requestAnimationFrame(() => { if (node.isConnected && window.Plotly) show(); });
  return node;
}

function learning(about) {
  const { epoch } = about.curve, colour = report.data.colours[about.method];
  if (!epoch.length) return [];
  const untrained = report.data.models.baseline?.metrics.validation;
  const panels = report.data.objectives.map(({ name, label }) => {
    const traces = [{ x: epoch, y: about.curve[name], mode: "lines+markers", line: { color: colour, width: 2 } }];
    const ends = [Math.min(...epoch), Math.max(...epoch)];
    if (untrained) traces.push({ x: ends, y: [untrained[name], untrained[name]], mode: "lines", line: { color: "#6b7580", dash: "dash", width: 1 }, hoverinfo: "skip" });
    return { title: label, traces, x: { tick0: 0, dtick: Math.ceil((ends[1] - ends[0] + 1) / 8) }, y: {} };
  });
  return [element("h3", { textContent: "Learning curve" }), small(panels, 170, "curve"),
    element("p", { className: "soft", textContent: "By epoch, on the images of the search; broken: the untrained model." })];
}

function reliabilities(id) {
  const of = own(report.data.reliability, id), { stages, models } = report.data;
  if (!of) return [];
  const known = Object.keys(stages).filter((stage) => of[stage]), colour = report.data.colours[models[id].method];
  const place = element("div"), label = choice("images", "images", known.map((stage) => [stage, stages[stage].label]), known.at(-1));
  const show = () => {
    const panels = Object.entries(of[$("select", label).value]).map(([what, [count, confidence, accuracy, error]]) => {
      const bins = count.length, at = count.flatMap((n, bin) => (n ? [bin] : []));
      const middle = at.map((bin) => (bin + 0.5) / bins), images = count.reduce((a, b) => a + b, 0);
      const bar = { type: "bar", x: middle, width: at.map(() => 1 / bins) };
      const text = at.map((bin) => `${count[bin]} images<br>accuracy ${accuracy[bin].toFixed(4)}<br>mean confidence ${confidence[bin].toFixed(4)}`);
      const gap = { color: "rgba(0,0,0,0)", line: { color: "#D55E00", width: 1 }, pattern: { shape: "/", fgcolor: "#D55E00", size: 6, solidity: 0.2 } };
      const traces = [
        { ...bar, y: at.map((bin) => accuracy[bin]), marker: { color: colour, opacity: 0.8 }, hovertext: text, hoverinfo: "text" },
        { ...bar, base: at.map((bin) => accuracy[bin]), y: at.map((bin) => confidence[bin] - accuracy[bin]), marker: gap, hoverinfo: "skip" },
        { x: [0, 1], y: [0, 1], mode: "lines", line: { color: "#1d2125", dash: "dash", width: 1 }, hoverinfo: "skip" },
      ];
      const unit = { range: [0, 1], tickvals: [0, 0.5, 1], showgrid: false };
      return { title: `${what}<br>ECE ${error.toFixed(4)}, n = ${images}`, traces, x: unit, y: unit };
    });
    place.replaceChildren(small(panels, 205, "reliability"));
  };
  label.addEventListener("change", show);
  show();
  return [element("h3", { textContent: "Reliability" }), element("p", { className: "controls" }, label), place,
    element("p", { className: "soft", textContent: "Accuracy by confidence, 15 equal-width bins; hatched: the gap to mean confidence. T: after temperature scaling." })];
}

function configuration(trial, about) {
  const rows = Object.entries(about.drawn).map(([name, value]) => element("tr", {}, element("td", { textContent: name }), element("td", { textContent: value })));
  const file = element("pre", { textContent: about.file, className: "scroll" });
  const copied = element("button", { type: "button", textContent: "Copy" }), saved = element("button", { type: "button", textContent: "Download" });
  copied.addEventListener("click", () => copy(about.file, copied));
  saved.addEventListener("click", () => save(about.file, `${trial}.yaml`));
  return [element("h3", { textContent: "Configuration" }), element("table", {}, element("tbody", {}, ...rows)),
    element("p", { className: "soft", textContent: "Below, a sweep file that trains this trial once more, with the same seed:" }),
    file, element("p", { className: "buttons" }, copied, saved)];
}

/** Only of epochs whose weights were kept is there a model to measure or export. */
function commands(id, trial, model, about) {
  const { place } = report.data, told = [], kept = model && (!trial || about?.kept.includes(model.epoch));
  if (kept) told.push(["measure it once more", `sweeper evaluate ${id} ${place}`], ["is its robustness to be believed?", `sweeper evaluate ${id} ${place} --sanity`]);
  if (kept && trial) told.push(["as a folder that open_clip loads", `sweeper export ${place} --trial ${id}`]);
  if (model) told.push(["its reliability diagrams for a paper", `sweeper report ${place} --figure reliability --trial ${id} --format pdf`]);
  if (trial) told.push(["train it once more, from the file above", `sweeper run ${trial}.yaml`]);
  const lines = told.map(([what, command]) => [
    element("p", { className: "soft", textContent: what }),
    element("div", { className: "line" }, element("code", { textContent: command }), element("button", { type: "button", className: "copy", textContent: "Copy" })),
  ]);
  return [element("h3", { textContent: "Commands" }), ...lines.flat()];
}
