// Plots by plotly in place of the static ones, when they come into view. Their figures are in the page as JSON.
//
// plotly inserts <style> elements and style attributes, which the policy of the page forbids. Both are led to the
// CSS object model, which it allows.
const dark = window.matchMedia("(prefers-color-scheme: dark)");
let loading = null;

function plotly() {
  loading ??= new Promise((resolve, reject) => {
    leadStylesToObjectModel();
    const script = document.createElement("script");
    script.src = new URL("plotly.js", import.meta.url).href;
    script.onload = () => resolve(window.Plotly);
    script.onerror = () => reject(new Error("plotly's script was not loaded"));
    document.head.append(script);
  });
  return loading;
}

function leadStylesToObjectModel() {
  const create = Document.prototype.createElement;
  document.createElement = function createElement(name, ...rest) {
    if (name !== "style") return create.call(this, name, ...rest);
    const sheet = new CSSStyleSheet();
    document.adoptedStyleSheets.push(sheet);
    return Object.assign(create.call(this, "template"), { sheet });
  };
  const set = Element.prototype.setAttribute;
  Element.prototype.setAttribute = function setAttribute(name, value) {
    if (name === "style") this.style.cssText = value;
    else set.call(this, name, value);
  };
}

const TEXTS = new Set(["text", "name", "hovertext", "ticktext", "x", "y", "z"]); // where a colour is a client's text

// The figure in the colours of a dark page.
function coloured(value, colours) {
  if (typeof value === "string") return colours[value] ?? value;
  if (Array.isArray(value)) return typeof value[1] === "number" ? value : value.map((one) => coloured(one, colours));
  if (value === null || typeof value !== "object") return value;
  const parts = Object.entries(value);
  return Object.fromEntries(parts.map(([key, part]) => [key, TEXTS.has(key) ? part : coloured(part, colours)]));
}

async function show(figure) {
  const data = figure.querySelector(":scope > script");
  const Plotly = await plotly();
  if (!figure.isConnected || !data) return;
  const told = JSON.parse(data.textContent);
  const { data: traces, layout } = dark.matches ? coloured(told, told.dark) : told;
  let plot = figure.querySelector(":scope > .drawn");
  if (!plot) {
    plot = document.createElement("div");
    plot.className = "drawn";
    plot.setAttribute("role", "img");
    figure.prepend(plot);
  }
  plot.setAttribute("aria-label", figure.dataset.about);
  const height = Math.max(340, layout.height ?? 0);
  await Plotly.react(plot, traces, { ...layout, autosize: true, height }, { displayModeBar: false, responsive: true });
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
