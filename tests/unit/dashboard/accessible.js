// What a page must have for people who use a keyboard, a screen reader or another look. Returns what is wrong.
() => {
  const wrong = [];
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const told = (element) => `<${element.tagName.toLowerCase()}${element.id ? ` id=${element.id}` : ""} class=${element.getAttribute("class")}> ${(element.textContent || "").trim().slice(0, 60)}`;
  const isShown = (element) => {
    const box = element.getBoundingClientRect();
    const style = getComputedStyle(element);
    return box.width > 0 && box.height > 0 && style.visibility !== "hidden" && style.display !== "none";
  };
  const nameOf = (element) => {
    const ids = (element.getAttribute("aria-labelledby") || "").split(" ").filter(Boolean);
    const labelled = ids.map((id) => document.getElementById(id)?.textContent || "").join(" ").trim();
    const label = element.labels ? [...element.labels].map((one) => one.textContent).join(" ").trim() : "";
    return (element.getAttribute("aria-label") || labelled || label || element.getAttribute("alt") || element.textContent || element.title || "").trim();
  };

  if (!document.documentElement.lang) wrong.push("the document has no language");
  if (!document.title.trim()) wrong.push("the document has no title");
  for (const [what, selector] of [["main", "main"], ["h1", "h1"], ["header", "body > header"], ["footer", "body > footer"]]) {
    if (all(selector).length !== 1) wrong.push(`${all(selector).length} times ${what}`);
  }
  const skip = document.querySelector("a[href='#main']");
  if (!skip || document.querySelector("a") !== skip) wrong.push("the first link does not skip to the content");

  let level = 1;
  for (const heading of all("h1, h2, h3, h4, h5, h6")) {
    const next = Number(heading.tagName[1]);
    if (next > level + 1) wrong.push(`h${next} follows h${level}: ${told(heading)}`);
    if (!heading.textContent.trim()) wrong.push("an empty heading");
    level = next;
  }
  const ids = new Set();
  for (const element of all("[id]")) {
    if (ids.has(element.id)) wrong.push(`two elements have the id ${element.id}`);
    ids.add(element.id);
  }
  const landmarks = new Set();
  for (const nav of all("nav, [role=region]")) {
    const name = `${nav.tagName} ${nameOf(nav).slice(0, 200)}`;
    if (!nav.getAttribute("aria-label")) wrong.push(`a landmark without a label: ${told(nav)}`);
    if (landmarks.has(name)) wrong.push(`two landmarks are called ${name}`);
    landmarks.add(name);
  }
  for (const element of all("a[href], button, input:not([type=hidden]), select, textarea, summary, [role=img], img, progress")) {
    if (isShown(element) && !nameOf(element)) wrong.push(`it has no name: ${told(element)}`);
  }
  for (const field of all("input:not([type=hidden]), select, textarea")) {
    if (!field.labels?.length && !field.getAttribute("aria-label")) wrong.push(`a field has no label: ${field.name}`);
  }
  for (const table of all("table")) {
    if (!table.caption && !table.getAttribute("aria-label")) wrong.push(`a table has no caption: ${told(table)}`);
    for (const head of all("th", table)) if (!head.scope) wrong.push(`a heading of a table has no scope: ${told(head)}`);
  }
  for (const element of all("[tabindex]")) if (element.tabIndex > 0) wrong.push(`it changes the order of keys: ${told(element)}`);
  for (const element of all("[aria-hidden=true] a, [aria-hidden=true] button")) wrong.push(`it is hidden, but has the focus: ${told(element)}`);
  for (const element of all("pre, div.wide")) {
    const scrolls = element.scrollWidth > element.clientWidth + 1 || element.scrollHeight > element.clientHeight + 1;
    if (scrolls && isShown(element) && element.tabIndex < 0) wrong.push(`no key can scroll it: ${told(element)}`);
  }
  if (document.documentElement.scrollWidth > window.innerWidth + 1) {
    const wide = all("main *").find((one) => one.getBoundingClientRect().right > window.innerWidth + 1 && !one.closest(".wide, pre, svg"));
    wrong.push(`the page is wider than the window: ${wide ? told(wide) : "?"}`);
  }

  // Contrast, as in WCAG 2.1: 4.5 to 1, and 3 to 1 for large texts.
  const channels = (colour) => {
    const found = colour.match(/[\d.]+/g)?.map(Number) ?? [0, 0, 0, 0];
    return { rgb: found.slice(0, 3), alpha: found.length > 3 ? found[3] : 1 };
  };
  const over = (top, bottom, alpha) => top.map((value, at) => value * alpha + bottom[at] * (1 - alpha));
  const light = (rgb) => {
    const [r, g, b] = rgb.map((value) => value / 255).map((value) => (value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    const layers = [];
    for (let one = element; one; one = one.parentElement) {
      const { rgb, alpha } = channels(getComputedStyle(one).backgroundColor);
      if (alpha > 0) layers.push([rgb, alpha]);
      if (alpha === 1) break;
    }
    return layers.reverse().reduce((bottom, [rgb, alpha]) => over(rgb, bottom, alpha), [255, 255, 255]);
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const seen = new Set();
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || seen.has(element) || element.closest("svg, script, option") || !isShown(element)) continue;
    seen.add(element);
    if (element.closest(":disabled")) continue;
    const style = getComputedStyle(element);
    const back = behind(element);
    const { rgb, alpha } = channels(style.color);
    const [a, b] = [light(over(rgb, back, alpha)), light(back)];
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    const size = parseFloat(style.fontSize);
    const isLarge = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    if (contrast < (isLarge ? 3 : 4.5)) wrong.push(`contrast ${contrast.toFixed(2)}: ${told(element)}`);
  }
  return wrong;
}
