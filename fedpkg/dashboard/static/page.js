// What pages do beyond plain HTML: local times, links that change a part of a page, live updates, plots.
import { connect } from "./live.js";

const plots = () => import("./plots.js");

export function enhance(root) {
  for (const time of root.querySelectorAll("time[datetime]")) {
    const at = new Date(time.dateTime);
    if (!Number.isNaN(at.valueOf()) && time.title === "") {
      time.title = time.textContent;
      time.textContent = at.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "medium" });
    }
  }
  if (root.querySelector("figure[data-plot] > script")) plots().then((module) => module.draw(root));
}

// Replace a region's content, but keep what the reader has open, focused, scrolled or drawn there.
export function replace(region, html) {
  const open = [...region.querySelectorAll("details[open]")].map((one) => one.id).filter(Boolean);
  const focused = region.contains(document.activeElement) ? document.activeElement : null;
  const key = focused && (focused.id || focused.getAttribute("href") || focused.getAttribute("name"));
  const checked = new Set([...region.querySelectorAll("input:checked")].map((one) => one.value));
  const scrolled = [...region.querySelectorAll(".wide")].map((one) => one.scrollLeft);
  const drawn = new Map([...region.querySelectorAll("figure[data-plot]")].map((one) => [one.id, one]));
  const next = new DOMParser().parseFromString(html, "text/html").body; // runs no script
  for (const figure of next.querySelectorAll("figure[data-plot]")) {
    const old = drawn.get(figure.id);
    const plot = old && old.querySelector(":scope > .drawn");
    if (plot) {
      figure.prepend(plot);
      figure.querySelector("figcaption").prepend(...old.querySelectorAll(".entries"));
    } else if (old && !figure.querySelector("picture")) figure.prepend(...old.querySelectorAll(":scope > picture"));
  }
  region.replaceChildren(...next.childNodes);
  for (const id of open) {
    const details = document.getElementById(id);
    if (details) details.open = true;
  }
  for (const box of region.querySelectorAll("input[type=checkbox]")) box.checked = checked.has(box.value);
  region.querySelectorAll(".wide").forEach((one, at) => { one.scrollLeft = scrolled[at] ?? 0; });
  enhance(region);
  if (key) {
    const same = [...region.querySelectorAll("a, button, input, select, summary, [tabindex]")];
    const found = same.find((one) => [one.id, one.getAttribute("href"), one.getAttribute("name")].includes(key));
    if (found) found.focus({ preventScroll: true });
  }
}

const regions = (root) => [...root.querySelectorAll("[data-live]")];

// Links that sort or turn a page's tables: the page is fetched, and its regions are replaced.
async function swap(address, isBack) {
  const answer = await fetch(address, { headers: { Accept: "text/html" } });
  if (!answer.ok) { location.assign(address); return; }
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  if (!isBack) history.pushState(null, "", address);
  document.title = page.title;
  document.body.dataset.stamp = page.body.dataset.stamp;
  for (const region of regions(page)) {
    const here = document.querySelector(`[data-live="${CSS.escape(region.dataset.live)}"]`);
    if (here) replace(here, region.innerHTML);
  }
  connect(replace);
}

document.addEventListener("click", (event) => {
  const link = event.target.closest("a[data-swap]");
  const isPlain = event.button === 0 && !event.ctrlKey && !event.metaKey && !event.shiftKey && !event.altKey;
  if (link && isPlain && link.closest("[data-live]")) {
    event.preventDefault();
    swap(link.href, false).catch(() => location.assign(link.href));
  }
});
window.addEventListener("popstate", () => location.reload());

// A form of filters leaves out what is not chosen, so that the address stays short.
document.addEventListener("submit", (event) => {
  if (event.target.matches("form.filter")) {
    for (const field of event.target.elements) if (field.name && field.value === "") field.disabled = true;
  }
  const words = event.submitter?.dataset.confirm;
  if (words && !window.confirm(words)) event.preventDefault();
});
window.addEventListener("pageshow", () => {
  for (const field of document.querySelectorAll("form.filter :disabled")) field.disabled = false;
});

enhance(document);
connect(replace);
