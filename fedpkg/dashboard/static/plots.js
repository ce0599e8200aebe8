// Plots. A <figure data-plot> is whole without this module: it has a picture, a table and links. When it comes into
// view, plotly draws the figure of its block of data in place of the picture.
//
// plotly inserts <style> elements and style attributes, which the page's policy forbids. Both are led to the CSS object
// model, which it allows: so it needs neither 'unsafe-inline' nor a hash, only `img-src data:` for heat maps and PNG.
const here = new URL(import.meta.url);
const dark = window.matchMedia("(prefers-color-scheme: dark)");
const states = new WeakMap(); // drawn element → its figure in plotly's terms
let loading = null;

function plotly() {
  loading ??= new Promise((resolve, reject) => {
    leadStylesToObjectModel();
    const script = document.createElement("script");
    script.src = new URL("plotly.js", here).href;
    script.onload = () => {
      window.Plotly.setPlotConfig({ displayModeBar: false, logging: 0, showTips: false });
      resolve(window.Plotly);
    };
    script.onerror = () => reject(new Error("plotly's script was not loaded: the pictures stay"));
    document.head.append(script);
  });
  return loading;
}

function leadStylesToObjectModel() {
  const create = Document.prototype.createElement;
  document.createElement = function (name, ...rest) {
    if (name !== "style") return create.call(this, name, ...rest);
    const sheet = new CSSStyleSheet();
    document.adoptedStyleSheets.push(sheet);
    return Object.assign(create.call(this, "template"), { sheet });
  };
  const set = Element.prototype.setAttribute;
  Element.prototype.setAttribute = function (name, value) {
    if (name === "style") this.style.cssText = value;
    else set.call(this, name, value);
  };
}

const TEXTS = new Set(["text", "name", "hovertext", "ticktext", "x", "y", "z"]); // no colours, whatever they look like

// The figure on a dark page: each colour is replaced by its own.
function darkened(value, colours) {
  if (typeof value === "string") return colours[value] ?? value;
  if (Array.isArray(value)) return value.map((part) => darkened(part, colours));
  if (value === null || typeof value !== "object") return value;
  const isText = (key, part) => TEXTS.has(key) && (typeof part === "string" || Array.isArray(part));
  return Object.fromEntries(
    Object.entries(value).map(([key, part]) => [key, isText(key, part) ? part : darkened(part, colours)]),
  );
}

async function show(figure) {
  const block = figure.querySelector(":scope > script");
  const Plotly = await plotly();
  if (!figure.isConnected || !block) return;
  let plot = figure.querySelector(":scope > .drawn");
  const picture = figure.querySelector(":scope > picture");
  const told = JSON.parse(block.textContent);
  const isNew = !plot;
  if (isNew) {
    plot = document.createElement("div");
    plot.className = "drawn";
    plot.tabIndex = 0;
    plot.setAttribute("role", "img");
    plot.addEventListener("keydown", (event) => move(Plotly, plot, event));
    figure.prepend(plot);
  }
  plot.setAttribute("aria-label", `${block.dataset.about} Arrow keys move, plus and minus zoom, 0 shows everything.`);
  const height = states.get(plot)?.height ?? Math.round(picture?.querySelector("img").getBoundingClientRect().height ?? 0);
  states.set(plot, { told, height, hidden: states.get(plot)?.hidden ?? new Set() });
  picture?.remove();
  await paint(Plotly, plot);
  if (isNew) {
    plot.on("plotly_legendclick", ({ data, curveNumber }) => toggle(Plotly, plot, entryOf(data[curveNumber])));
    plot.on("plotly_legenddoubleclick", () => false);
  }
  listEntries(Plotly, plot);
  const link = figure.querySelector("a[data-form=png]");
  if (link) link.hidden = false;
}

function paint(Plotly, plot) {
  const { told: kept, height, hidden } = states.get(plot);
  const told = structuredClone(kept); // plotly writes ranges into what it is given
  for (const trace of told.data) if (hidden.has(entryOf(trace))) trace.visible = "legendonly";
  const { data, layout } = dark.matches ? darkened({ data: told.data, layout: told.layout }, told.dark) : told;
  const tall = layout.height ?? Math.max(height, 260); // rows have their own height
  const legend = { ...layout.legend, y: -62 / (tall - 120) }; // below the axis, however high the plot is
  return Plotly.react(plot, data, { ...layout, legend, autosize: true, height: tall }, { responsive: true });
}

const entryOf = (trace) => trace.legendgroup || trace.name; // of the legend; several traces may have one

function toggle(Plotly, plot, entry) {
  const { hidden } = states.get(plot);
  if (!hidden.delete(entry)) hidden.add(entry);
  paint(Plotly, plot);
  listEntries(Plotly, plot);
  return false; // plotly does nothing more
}

// The entries of the legend as boxes, as plotly's legend has no keys.
function listEntries(Plotly, plot) {
  const { told, hidden } = states.get(plot);
  const figure = plot.parentElement;
  const traces = told.layout.showlegend ? told.data.filter((trace) => trace.showlegend) : [];
  const names = JSON.stringify(traces.map((trace) => trace.name));
  let list = figure.querySelector(".entries");
  if (list?.dataset.names !== names) {
    const isOpen = Boolean(list?.open);
    list?.remove();
    if (!traces.length) return;
    list = Object.assign(document.createElement("details"), { className: "entries", open: isOpen });
    list.dataset.names = names;
    list.append(Object.assign(document.createElement("summary"), { textContent: "Show and hide", id: `${figure.id}-entries` }));
    traces.forEach((trace, number) => {
      const id = `${figure.id}-entry-${number}`;
      const box = Object.assign(document.createElement("input"), { type: "checkbox", id, value: id });
      box.addEventListener("change", () => toggle(Plotly, plot, entryOf(trace)));
      const label = document.createElement("label");
      label.append(box, ` ${new DOMParser().parseFromString(trace.name, "text/html").body.textContent}`); // it is escaped
      list.append(label);
    });
    figure.querySelector("figcaption").prepend(list);
  }
  list.querySelectorAll("input").forEach((box, number) => { box.checked = !hidden.has(entryOf(traces[number])); });
}

const STEP = 0.2; // of what is visible
const KEYS = {
  ArrowLeft: ["xaxis", -STEP, -STEP], ArrowRight: ["xaxis", STEP, STEP],
  ArrowDown: ["yaxis", -STEP, -STEP], ArrowUp: ["yaxis", STEP, STEP],
  "+": ["xaxis", STEP, -STEP], "=": ["xaxis", STEP, -STEP], "-": ["xaxis", -STEP, STEP],
};

function move(Plotly, plot, event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key in KEYS) {
    const [name, low, high] = KEYS[event.key];
    const [start, end] = plot.layout[name].range;
    Plotly.relayout(plot, { [`${name}.range`]: [start + (end - start) * low, end + (end - start) * high] });
  } else if (event.key === "0") {
    const { layout } = states.get(plot).told;
    const whole = ["xaxis", "yaxis"].map((name) => {
      const { range, autorange } = layout[name];
      return range ? [`${name}.range`, range] : [`${name}.autorange`, autorange ?? true];
    });
    Plotly.relayout(plot, Object.fromEntries(whole));
  } else return;
  event.preventDefault();
}

// A PNG of what is seen, zoomed and in the page's colours; without this module, the server draws one by matplotlib.
document.addEventListener("click", async (event) => {
  const link = event.target.closest("a[data-form=png]");
  const plot = link?.closest("figure")?.querySelector(":scope > .drawn");
  if (!plot || !states.has(plot)) return;
  event.preventDefault();
  const { width, height } = plot.getBoundingClientRect();
  const image = new Image();
  image.src = await (await plotly()).toImage(plot, { format: "svg", width: Math.round(width), height: Math.round(height) });
  await image.decode();
  const canvas = Object.assign(document.createElement("canvas"), { width: 2 * width, height: 2 * height });
  canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
  const data = canvas.toDataURL("image/png");
  Object.assign(document.createElement("a"), { href: data, download: link.download }).click();
});

const seen = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (entry.isIntersecting) {
      seen.unobserve(entry.target);
      show(entry.target).catch((error) => console.error(error));
    }
  }
}, { rootMargin: "300px" });

export function draw(root) {
  for (const figure of root.querySelectorAll("figure[data-plot]")) {
    if (figure.querySelector(":scope > .drawn")) show(figure).catch((error) => console.error(error));
    else seen.observe(figure);
  }
}

dark.addEventListener("change", async () => {
  for (const plot of document.querySelectorAll("figure[data-plot] > .drawn")) if (states.has(plot)) paint(await plotly(), plot);
});
