// Plots by plotly over the static ones: they are drawn when they come into view.
const here = new URL(import.meta.url);
const dark = window.matchMedia("(prefers-color-scheme: dark)");
let loading = null;

function plotly() {
  loading ??= new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = new URL("plotly.js", here).href;
    script.onload = () => resolve(window.Plotly);
    script.onerror = reject;
    document.head.append(script);
  });
  return loading;
}

// The palette is that of the static charts: it is read from their style sheet.
function look() {
  const probe = document.createElement("div");
  probe.hidden = true;
  probe.innerHTML = '<svg class="fp"><rect class="p"/><text class="q"/><path class="g"/></svg>';
  const svg = probe.firstChild;
  for (let number = 0; number < 8; number += 1) {
    const rect = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    rect.setAttribute("class", `f${number}`);
    svg.append(rect);
  }
  document.body.append(probe);
  const of = (selector, name) => getComputedStyle(svg.querySelector(selector))[name];
  const found = {
    paper: of(".p", "fill"), quiet: of("text", "fill"), grid: of(".g", "stroke"),
    colours: Array.from({ length: 8 }, (_, number) => of(`.f${number}`, "fill")),
    ink: getComputedStyle(document.body).color, font: getComputedStyle(document.body).fontFamily,
  };
  probe.remove();
  return found;
}

const faint = (colour, part) => colour.replace(/rgba?\(([^)]+)\)/, (_, parts) => `rgba(${parts.split(",").slice(0, 3)}, ${part})`);

const KINDS = {
  line: (trace, with_) => [{
    type: "scatter", mode: trace.x.length > 60 ? "lines" : "lines+markers", x: trace.x, y: trace.y, name: trace.name,
    legendgroup: String(trace.group), marker: { size: 4 },
    line: { color: with_.colours[trace.colour], width: 2, dash: trace.dash }, connectgaps: false,
  }],
  band: (trace, with_) => {
    const both = { type: "scatter", mode: "lines", x: trace.x, line: { width: 0 }, showlegend: false, hoverinfo: "skip", legendgroup: String(trace.group) };
    return [
      { ...both, y: trace.low, name: trace.name },
      { ...both, y: trace.high, name: trace.name, fill: "tonexty", fillcolor: faint(with_.colours[trace.colour], 0.16) },
    ];
  },
  bar: (trace, with_) => [{ type: "bar", x: trace.x, y: trace.y, width: trace.width, name: trace.name, marker: { color: with_.colours[trace.colour] } }],
  heat: (trace, with_) => [{
    type: "heatmap", x: trace.x, y: trace.y, z: trace.z, hoverongaps: false, xgap: 1, ygap: 1,
    colorscale: [[0, faint(with_.colours[0], 0.04)], [1, with_.colours[0]]],
    colorbar: { title: { text: trace.name }, outlinewidth: 0, thickness: 12 },
  }],
};

function axis(told, with_) {
  return {
    title: { text: told.label, font: { size: 12, color: with_.quiet } }, type: told.log ? "log" : undefined,
    gridcolor: with_.grid, zeroline: false, linecolor: with_.grid, tickfont: { color: with_.quiet },
    ...(told.kind === "bytes" ? { tickformat: ".3s", ticksuffix: "B" } : {}),
    ...(told.kind === "whole" ? { tickformat: ",d" } : {}), automargin: true,
  };
}

function drawn(figure, told, with_) {
  let plot = figure.querySelector(":scope > .drawn");
  if (!plot) {
    plot = document.createElement("div");
    plot.className = "drawn";
  }
  plot.setAttribute("role", "img");
  const about = document.createElement("span");
  about.innerHTML = told.about; // entities only: the server has escaped "<"
  plot.setAttribute("aria-label", `${figure.getAttribute("aria-label")}. ${about.textContent}`);
  const isHeat = told.data.some((trace) => trace.kind === "heat");
  const layout = {
    title: { text: told.title, font: { size: 14, color: with_.ink }, x: 0.02, xanchor: "left", y: 0.97 },
    font: { family: with_.font, size: 12, color: with_.ink }, paper_bgcolor: with_.paper, plot_bgcolor: with_.paper,
    margin: { l: 56, r: 16, t: 44, b: 44 }, height: 340, autosize: true, hovermode: isHeat ? "closest" : "x unified",
    hoverlabel: { bgcolor: with_.paper, bordercolor: with_.grid, font: { color: with_.ink } },
    barmode: told.stacked ? "stack" : "group", bargap: 0.2, uirevision: "same",
    legend: { orientation: "h", y: -0.2, x: 0, font: { size: 11 } },
    showlegend: !isHeat && told.data.filter((trace) => trace.kind !== "band").length > 1,
    xaxis: axis(told.x, with_), yaxis: axis(told.y, with_),
  };
  const settings = {
    displaylogo: false, responsive: true, displayModeBar: "hover",
    modeBarButtonsToRemove: ["lasso2d", "select2d", "autoScale2d"],
    toImageButtonOptions: { format: "png", filename: figure.id, scale: 2 },
  };
  const traces = told.data.flatMap((trace) => KINDS[trace.kind](trace, with_));
  if (!plot.isConnected) figure.prepend(plot);
  return { plot, traces, layout, settings };
}

async function show(figure) {
  const data = figure.querySelector(":scope > script");
  const Plotly = await plotly();
  if (!figure.isConnected || !data) return;
  const { plot, traces, layout, settings } = drawn(figure, JSON.parse(data.textContent), look());
  await Plotly.react(plot, traces, layout, settings);
  for (const still of figure.querySelectorAll(":scope > svg.fp")) still.remove();
}

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
    if (figure.querySelector(":scope > .drawn")) show(figure);
    else seen.observe(figure);
  }
}

dark.addEventListener("change", () => draw(document));
