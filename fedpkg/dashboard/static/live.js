// Live updates: the server sends the regions of this page that have changed.
let source = null;
let put = null;

const words = document.querySelector("[data-live-state]");

function tell(text, isOff) {
  if (!words) return;
  words.hidden = false;
  if (words.textContent !== text) words.textContent = text;
  words.classList.toggle("off", isOff);
}

function open() {
  close();
  const address = new URL(location.href);
  address.hash = "";
  address.searchParams.set("since", document.body.dataset.stamp ?? "");
  source = new EventSource(address);
  source.onopen = () => tell("live", false);
  source.onerror = () => tell(source.readyState === EventSource.CLOSED ? "not live: reload the page" : "reconnecting", true);
  source.onmessage = (event) => {
    document.body.dataset.stamp = event.lastEventId;
    for (const [name, html] of Object.entries(JSON.parse(event.data))) {
      const region = document.querySelector(`[data-live="${CSS.escape(name)}"]`);
      if (region) put(region, html);
      if (region?.tagName === "H1") document.title = `${region.textContent} – fedpkg`;
    }
  };
}

function close() {
  if (source) source.close();
  source = null;
}

// A hidden page needs no updates, and a browser opens only six connections to one server.
document.addEventListener("visibilitychange", () => {
  if (!put || !document.querySelector("[data-live]")) return;
  if (document.visibilityState === "visible") open();
  else close();
});
window.addEventListener("pagehide", close);
window.addEventListener("pageshow", (event) => { if (event.persisted && put) open(); });

export function connect(replace) {
  put = replace;
  if (document.querySelector("[data-live]") && document.visibilityState === "visible") open();
}
