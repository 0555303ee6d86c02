// Plots: small multiples with a shared x, drawn by Chart.js (a classic script that the page loads before).
//
// <div data-plots="curves" data-source="ID" data-url="..." data-name="run-7">   ID: json_script of {rows, last}
//     rows: [{n, step, metrics: {name: number}}]; on news what came after `last` is fetched from data-url
// <div data-plots="panels" data-source="ID" data-name="throughput">             ID: json_script of {x, panels}
//     panels: [{key, title, unit, kind: "line" | "bar", series: [{label, points: [[x, y]], colour, isBound}]}]; a bound is a thin dotted line
//     or kind: "dots", of: "annotators", points: [{name, x, y, low, high, n}]: dots with their intervals
//     x: {unit, kind: "time" | "names" | "number"}
//
// Each plot gets a title, its unit, keys, a sentence for those who don't see it, a table and a CSV file.

const KNOWN = [
  { key: "loss", title: "Loss", unit: "nats", names: ["loss"] },
  { key: "accuracy", title: "Chosen ranked above rejected", unit: "share", names: ["accuracy", "rewards/accuracies"], low: 0, high: 1 },
  { key: "margin", title: "Margin of chosen over rejected", unit: "logits", names: ["margin", "rewards/margins"] },
  { key: "rewards", title: "Reward", unit: "logits", names: ["rewards/chosen", "rewards/rejected", "mean_reward", "min_reward", "max_reward", "reward"] },
  { key: "logps", title: "Log probability of the completion", unit: "nats", names: ["logps/chosen", "logps/rejected"] },
  { key: "kl", title: "KL from the reference", unit: "nats", names: ["kl", "objective/kl"] },
  { key: "entropy", title: "Entropy of the policy", unit: "nats", names: ["entropy", "objective/entropy"] },
  { key: "token_accuracy", title: "Tokens predicted", unit: "share", names: ["mean_token_accuracy"], low: 0, high: 1 },
  { key: "learning_rate", title: "Learning rate", unit: "", names: ["learning_rate"] },
  { key: "grad_norm", title: "Gradient norm", unit: "", names: ["grad_norm"] },
];
const PALETTE = ["--plot-1", "--plot-2", "--plot-3", "--plot-4", "--plot-5", "--plot-6"];
const TABLE_ROWS = 300;
const MOST_NAMED = 8; // dots
const LEAST_WIDTH_FOR_NAMES = 480;
const drawn = new Set();

const probe = document.createElement("span");
probe.hidden = true;
document.body.append(probe);
/** A token's colour in the present theme; light-dark() is only resolved on a real property. */
function colour(name) {
  probe.style.color = `var(${name})`;
  return getComputedStyle(probe).color;
}

export function readable(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  if (Number.isInteger(value) && size < 1e6) return String(value).replace("-", "−");
  const text = size !== 0 && (size < 1e-3 || size >= 1e5) ? value.toExponential(2) : value.toPrecision(3);
  return text.replaceAll("-", "−");
}

/** An axis label: without the zeros that say nothing. */
function tick(value) {
  const short = Number(Number(value).toPrecision(4));
  const text = short !== 0 && Math.abs(short) < 1e-3 ? short.toExponential() : String(short);
  return text.replaceAll("-", "−");
}

/** Metric rows as panels; for one step the last row counts, since a resumed run repeats steps. */
export function panelsOf(rows) {
  const values = new Map();
  for (const row of rows) {
    for (const [name, value] of Object.entries(row.metrics)) {
      if (!values.has(name)) values.set(name, new Map());
      values.get(name).set(row.step, value);
    }
  }
  const bare = new Set([...values.keys()].map((name) => name.replace(/^eval_/, "")));
  const panels = [];
  const add = (known) => {
    const names = known.names.filter((name) => bare.has(name));
    if (!names.length) return;
    const series = [];
    names.forEach((name, index) => {
      for (const [full, part] of [[name, "train"], [`eval_${name}`, "eval"]]) {
        if (!values.has(full)) continue;
        const points = [...values.get(full)].sort((a, b) => a[0] - b[0]);
        const label = names.length > 1 ? `${name.split("/").at(-1).replace("_", " ")}${part === "eval" ? ", held out" : ""}` : part === "eval" ? "held out" : "training";
        series.push({ label, points, colour: names.length > 1 ? index : part === "eval" ? 1 : 0, isEval: part === "eval" });
      }
      bare.delete(name);
    });
    panels.push({ ...known, kind: "line", series });
  };
  KNOWN.forEach(add);
  [...bare].sort().forEach((name) => add({ key: name, title: name, unit: "", names: [name] }));
  return panels;
}

/** The plot in a sentence. */
export function sentence(panel, xUnit) {
  if (panel.kind === "dots") {
    const range = (key) => { const all = panel.points.map((point) => point[key]); return `${readable(Math.min(...all))} to ${readable(Math.max(...all))}`; };
    return `${panel.title}: ${panel.points.length} ${panel.of}, from ${range("y")} at ${range("x")} ${xUnit}.`;
  }
  const parts = panel.series.filter((series) => series.points.length).map((series) => {
    const [first, last] = [series.points[0], series.points.at(-1)];
    if (panel.kind === "bar") {
      const total = series.points.reduce((sum, point) => sum + point[1], 0);
      return `${panel.series.length > 1 ? `${series.label}: ` : ""}${total} in all over ${series.points.length} ${xUnit}s, at most ${Math.max(...series.points.map((point) => point[1]))}`;
    }
    if (series.points.length === 1) return `${series.label} ${readable(last[1])} at ${xUnit} ${last[0]}`;
    const way = last[1] > first[1] ? "rises" : last[1] < first[1] ? "falls" : "stays";
    return `${series.label} ${way} from ${readable(first[1])} to ${readable(last[1])} over ${series.points.length} points up to ${xUnit} ${last[0]}`;
  });
  return `${panel.title}${panel.unit ? ` in ${panel.unit}` : ""}: ${parts.join("; ")}.`;
}

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

/** Draws the intervals of dots, and their names where there is room. */
const intervals = {
  id: "intervals",
  afterDatasetsDraw(chart) {
    const points = chart.dots;
    if (!points) return;
    const { ctx, scales: { x, y }, chartArea } = chart;
    ctx.save();
    ctx.strokeStyle = chart.data.datasets[0].borderColor;
    ctx.lineWidth = 1.5;
    ctx.fillStyle = x.options.ticks.color;
    ctx.font = "11px system-ui, sans-serif";
    for (const point of points) {
      const at = x.getPixelForValue(point.x);
      ctx.beginPath();
      ctx.moveTo(at, y.getPixelForValue(point.low ?? point.y));
      ctx.lineTo(at, y.getPixelForValue(point.high ?? point.y));
      ctx.stroke();
      if (points.length > MOST_NAMED || chartArea.width < LEAST_WIDTH_FOR_NAMES) continue;
      const wide = ctx.measureText(point.name).width;
      const isLeft = at + 8 + wide > chartArea.right;
      ctx.fillText(point.name, isLeft ? at - 8 - wide : at + 8, y.getPixelForValue(point.y) + 4);
    }
    ctx.restore();
  },
};

class Plot {
  constructor(host, panel, x, name) {
    this.x = x;
    this.name = name;
    this.figure = element("figure", "plot");
    const caption = element("figcaption");
    const title = element("span", "", panel.title);
    if (panel.unit) title.append(" ", element("span", "plot-unit", panel.unit));
    this.now = element("span", "plot-now");
    caption.append(title, this.now);
    const box = element("div", "plot-canvas");
    this.canvas = element("canvas");
    this.canvas.setAttribute("role", "img");
    box.append(this.canvas);
    this.keys = element("ul", "plot-keys");
    this.details = element("details");
    this.details.append(element("summary", "", "Table and CSV"));
    this.table = element("div", "plot-table");
    this.table.tabIndex = 0;
    this.details.append(this.table);
    this.details.addEventListener("toggle", () => this.fillTable());
    this.figure.append(caption, box, this.keys, this.details);
    host.append(this.figure);
    this.panel = panel;
    this.chart = new window.Chart(this.canvas, this.config());
    drawn.add(this);
    this.show(panel);
  }

  get isNamed() {
    return this.x.kind === "time" || this.x.kind === "names";
  }

  config() {
    const { isNamed } = this;
    const isDots = this.panel.kind === "dots";
    const label = (item) => (isDots ? this.dotLabel(this.panel.points[item.dataIndex]) : ` ${item.dataset.label}: ${readable(item.parsed.y)}`);
    return {
      type: isDots ? "scatter" : this.panel.kind === "bar" ? "bar" : "line",
      plugins: isDots ? [intervals] : [],
      data: { labels: [], datasets: [] },
      options: {
        animation: false,
        responsive: true,
        maintainAspectRatio: false,
        parsing: false,
        normalized: true,
        interaction: isDots ? { mode: "nearest", intersect: true } : { mode: "index", intersect: false, axis: "x" },
        scales: {
          x: {
            type: isNamed ? "category" : "linear",
            title: { display: true, text: this.x.kind === "time" ? `${this.x.unit}, UTC` : this.x.unit },
            ticks: { maxRotation: 0, autoSkipPadding: 16, precision: 0 },
          },
          y: { beginAtZero: this.panel.kind === "bar", min: this.panel.low, max: this.panel.high, ticks: { maxTicksLimit: 5, callback: tick } },
        },
        plugins: { legend: { display: false }, tooltip: { animation: false, callbacks: { title: (items) => (isDots ? this.panel.points[items[0].dataIndex].name : `${this.x.unit} ${items[0].label}`), label } } },
      },
    };
  }

  /** Draw the panel as it is now; `high` is the end of the x that all panels share. */
  show(panel, high) {
    this.panel = panel;
    const { isNamed } = this;
    const label = (x) => (this.x.kind === "names" ? x : this.x.unit === "day" ? x.slice(5, 10) : x.slice(11, 16));
    const { data, options } = this.chart;
    if (panel.kind === "dots") this.chart.dots = panel.points;
    data.labels = isNamed ? panel.series[0].points.map((point) => label(point[0])) : [];
    this.series.forEach((series, index) => {
      const ink = colour(PALETTE[(series.colour ?? index) % PALETTE.length]);
      const dataset = (data.datasets[index] ??= {});
      Object.assign(dataset, {
        label: series.label,
        data: isNamed ? series.points.map((point, at) => ({ x: data.labels[at], y: point[1] })) : series.points.map(([x, y]) => ({ x, y })),
        borderColor: ink,
        backgroundColor: ink,
        borderWidth: panel.kind === "bar" ? 0 : series.isBound ? 1 : series.isEval ? 2 : 1.5,
        borderDash: series.isBound ? [2, 3] : series.isEval ? [5, 3] : [],
        pointRadius: panel.kind === "dots" ? 3.5 : !series.isBound && (series.isEval || series.points.length < 3) ? 2.5 : 0,
        pointHitRadius: 8,
        maxBarThickness: 26,
      });
      if (isNamed) dataset.data = series.points.map((point, at) => ({ x: at, y: point[1] }));
    });
    data.datasets.length = this.series.length;
    const [grid, axis] = [colour("--plot-grid"), colour("--plot-axis")];
    for (const scale of [options.scales.x, options.scales.y]) {
      Object.assign(scale, { grid: { color: grid, drawTicks: false }, border: { display: false } });
      scale.ticks.color = axis;
      scale.ticks.font = { size: 11 };
    }
    options.scales.x.grid.display = false;
    Object.assign(options.scales.x.title, { color: axis, font: { size: 11 } });
    if (high && !isNamed) Object.assign(options.scales.x, { min: 0, max: high });
    this.chart.update("none");
    const said = sentence(panel, this.x.unit);
    this.canvas.setAttribute("aria-label", said);
    this.canvas.textContent = said;
    const heldOut = panel.series.find((series) => series.isEval);
    const isOne = panel.kind !== "bar" && (panel.series.length === 1 || (panel.series.length === 2 && heldOut));
    this.now.textContent = isOne ? readable((heldOut ?? panel.series[0]).points.at(-1)?.[1]) : "";
    this.figure.dataset.points = String(Math.max(0, ...this.series.map((series) => series.points.length)));
    this.showKeys();
    this.fillTable();
  }

  /** What is drawn: dots are one series. */
  get series() {
    if (this.panel.kind !== "dots") return this.panel.series;
    return [{ label: this.panel.of, colour: 0, points: this.panel.points.map(({ x, y }) => [x, y]) }];
  }

  dotLabel({ x, y, low, high, n }) {
    return ` ${readable(y)} (${readable(low)} to ${readable(high)}, n ${n}) at ${readable(x)} ${this.x.unit}`;
  }

  showKeys() {
    if (this.panel.series.length < 2) return this.keys.replaceChildren();
    this.keys.replaceChildren(...this.panel.series.map((series, index) => {
      const key = element("li", "plot-key");
      const line = document.createElementNS("http://www.w3.org/2000/svg", "svg");
      line.setAttribute("viewBox", "0 0 18 8");
      line.setAttribute("aria-hidden", "true");
      line.style.color = colour(PALETTE[(series.colour ?? index) % PALETTE.length]);
      const stroke = document.createElementNS("http://www.w3.org/2000/svg", "path");
      stroke.setAttribute("d", "M0 4H18");
      if (series.isEval || series.isBound) stroke.setAttribute("stroke-dasharray", series.isBound ? "2 3" : "5 3");
      line.append(stroke);
      key.append(line, series.label);
      return key;
    }));
  }

  rows() {
    const xs = [...new Set(this.panel.series.flatMap((series) => series.points.map((point) => point[0])))];
    const found = this.panel.series.map((series) => new Map(series.points));
    if (!this.isNamed) xs.sort((a, b) => a - b);
    return xs.map((x) => [x, ...found.map((points) => points.get(x) ?? null)]);
  }

  /** The table behind the plot: its head and its rows. */
  cells() {
    if (this.panel.kind !== "dots") return [[this.x.unit, ...this.panel.series.map((series) => series.label)], this.rows()];
    const rows = this.panel.points.map(({ name, x, y, low, high, n }) => [name, x, y, low, high, n]);
    return [[this.panel.of, this.x.unit, this.panel.unit, "95 % interval, low", "high", "n"], rows.reverse()];
  }

  fillTable() {
    if (!this.details.open) return;
    const [head, rows] = this.cells();
    const table = element("table");
    const headRow = table.createTHead().insertRow();
    head.forEach((text) => headRow.append(element("th", "", text)));
    const body = table.createTBody();
    rows.slice(-TABLE_ROWS).reverse().forEach((row) => {
      const line = body.insertRow();
      row.forEach((value, index) => { line.insertCell().textContent = index ? readable(value) : String(value); });
    });
    const link = element("a", "", "CSV");
    link.download = `${this.name}-${this.panel.key.replaceAll("/", "-")}.csv`;
    const quote = (value) => (value === null ? "" : /[",\n]/.test(String(value)) ? `"${String(value).replaceAll('"', '""')}"` : String(value));
    const text = [head, ...rows].map((row) => row.map(quote).join(",")).join("\n");
    if (this.file) URL.revokeObjectURL(this.file);
    this.file = URL.createObjectURL(new Blob([text + "\n"], { type: "text/csv" }));
    link.href = this.file;
    this.table.replaceChildren(link, table);
  }
}

function showAll(host, plots, panels, x) {
  const ends = (panel) => (panel.kind === "dots" ? panel.points.map((point) => 10 * Math.ceil(1.05 * point.x / 10)) : panel.series.flatMap((series) => series.points.map((point) => point[0])));
  const high = x.kind === "number" ? Math.max(1, ...panels.flatMap(ends)) : 0;
  for (const panel of panels) {
    if (!plots.has(panel.key)) plots.set(panel.key, new Plot(host, panel, x, host.dataset.name));
    plots.get(panel.key).show(panel, high);
  }
}

function curves(host, given) {
  const x = { unit: "step", kind: "number" };
  const plots = new Map();
  const rows = given.rows;
  let last = given.last;
  const draw = () => {
    showAll(host, plots, panelsOf(rows), x);
    const empty = document.getElementById("curves-empty");
    if (empty) empty.hidden = rows.length > 0;
  };
  let busy = false;
  let over = false;
  const fetchMore = async () => {
    if (busy || over) return;
    busy = true;
    try {
      const response = await fetch(`${host.dataset.url}?after=${last}`, { credentials: "same-origin" });
      if (!response.ok) return;
      const more = await response.json();
      over = more.is_over && !more.rows.length;
      if (more.rows.length) {
        rows.push(...more.rows);
        last = more.last;
        draw();
      }
    } catch { /* offline: the next news tries again */ } finally { busy = false; }
  };
  draw();
  document.addEventListener("live-news", () => { over = false; fetchMore(); });
  // Steps come faster than anything else on the site and are not announced one by one.
  setInterval(() => { if (document.visibilityState === "visible") fetchMore(); }, 3000);
}

function panels(host) {
  const plots = new Map();
  const draw = () => {
    const given = JSON.parse(document.getElementById(host.dataset.source)?.textContent || "null");
    if (given) showAll(host, plots, given.panels, given.x);
  };
  draw();
  document.addEventListener("parts-fetched", draw);
}

for (const host of document.querySelectorAll("[data-plots]")) {
  const given = JSON.parse(document.getElementById(host.dataset.source).textContent);
  host.dataset.plots === "curves" ? curves(host, given) : panels(host);
}

const redraw = () => drawn.forEach((plot) => plot.show(plot.panel, plot.chart.options.scales.x.max));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
new MutationObserver(redraw).observe(document.documentElement, { attributes: true, attributeFilter: ["data-theme"] });
