// Keeps a console page true while it is open.
//
// <div data-live-path="projects/support/">      the socket to watch; an event has the page's parts fetched again
//   <div id="queue" data-live-part>...</div>    replaced when the server draws it differently
//   <p data-live-state hidden>...</p>           shown while there is no socket (the page then polls)
// <button data-confirm="Really?">               asks before it sends its form
//
// A part is left alone while someone types in it; open <details> with an id stay open, and what is ticked stays ticked.

const GATHER_MS = 300;

document.documentElement.classList.add("has-script"); // hides what is for pages without one

async function fetchParts() {
  const response = await fetch(location.href, { headers: { Accept: "text/html" }, credentials: "same-origin" });
  if (!response.ok || response.redirected) return;
  const fresh = new DOMParser().parseFromString(await response.text(), "text/html");
  for (const part of document.querySelectorAll("[data-live-part]")) {
    const next = fresh.getElementById(part.id);
    if (!next || next.innerHTML === part.innerHTML) continue;
    const focused = document.activeElement;
    if (part.contains(focused) && focused.matches("input, select, textarea")) continue;
    const key = part.contains(focused) ? focusKey(focused) : "";
    const open = new Set([...part.querySelectorAll("details[open][id]")].map((details) => details.id));
    const ticked = [...part.querySelectorAll("input[type=checkbox]:checked")].map((box) => [box.name, box.value]);
    part.replaceChildren(...next.childNodes);
    for (const [name, value] of ticked) {
      const box = part.querySelector(`input[type=checkbox][name="${CSS.escape(name)}"][value="${CSS.escape(value)}"]`);
      if (box) box.checked = true;
    }
    for (const id of open) part.querySelector(`#${CSS.escape(id)}`)?.setAttribute("open", "");
    window.htmx?.process(part);
    if (key) part.querySelector(key)?.focus();
  }
  document.dispatchEvent(new CustomEvent("parts-fetched"));
}

function focusKey(element) {
  if (element.id) return `#${CSS.escape(element.id)}`;
  const href = element.getAttribute("href");
  return href ? `a[href="${CSS.escape(href)}"]` : "";
}

function gathered(act) {
  let timer = 0;
  let running = false;
  let again = false;
  const go = async () => {
    timer = 0;
    if (running) return void (again = true);
    running = true;
    try { await act(); } catch { /* offline: the next event or poll tries again */ }
    running = false;
    if (again) { again = false; later(); }
  };
  const later = () => { timer ||= setTimeout(go, GATHER_MS); };
  return later;
}

async function follow(path) {
  const fetchSoon = gathered(fetchParts);
  const news = () => {
    document.dispatchEvent(new CustomEvent("live-news"));
    if (document.visibilityState === "visible") fetchSoon();
  };
  document.addEventListener("visibilitychange", () => { if (document.visibilityState === "visible") news(); });
  const line = document.querySelector("[data-live-state]");
  try {
    const { watch } = await import("live");
    watch(path, {
      onEvent: news,
      onPoll: news,
      onState: (state) => { if (line) line.hidden = state === "open"; },
    });
  } catch {
    setInterval(news, 15_000);
  }
}

document.addEventListener("submit", (event) => {
  const question = event.submitter?.dataset.confirm;
  if (question && !confirm(question)) event.preventDefault();
});

// On a phone the menu is a row that scrolls: the place one is at should be in it.
const here = document.querySelector(".console-nav [aria-current]");
const menu = here?.closest(".console-nav");
if (menu && menu.scrollWidth > menu.clientWidth) menu.scrollLeft = here.offsetLeft - (menu.clientWidth - here.offsetWidth) / 2;

const page = document.querySelector("[data-live-path]");
if (page) follow(page.dataset.livePath);
