// The bench beside the form that sets it up, drawn anew a moment after each change.
//
//   <aside data-preview="/address/" data-styles="a.css b.css"> [data-preview-said] [data-preview-place] </aside>
//
// The server renders it; it is put into a shadow tree, so that the styles of the bench and of the console don't meet.
// With data-saved the bench is drawn once, as it is saved.

const WAIT_MS = 350;

export function followForm(panel, form) {
  const place = panel.querySelector("[data-preview-place]");
  const line = panel.querySelector("[data-preview-said]");
  const shadow = place.attachShadow({ mode: "open" });
  const canvas = document.createElement("div");
  const styles = panel.dataset.styles.split(" ").map((href) => Object.assign(document.createElement("link"), { rel: "stylesheet", href }));
  const styled = Promise.all(styles.map((link) => new Promise((done) => { link.onload = link.onerror = done; })));
  shadow.append(...styles, canvas);

  let timer = 0;
  let asked = 0;
  async function draw() {
    const mine = ++asked;
    const saved = "saved" in panel.dataset;
    const request = { headers: { "X-Preview": "1" }, credentials: "same-origin" };
    if (!saved) Object.assign(request, { method: "POST", body: new URLSearchParams(new FormData(form)) });
    let answer, html;
    try {
      answer = await fetch(panel.dataset.preview, request);
      html = await answer.text();
      await styled;
    } catch {
      return tell("No connection: the preview waits for it.", true);
    }
    if (mine !== asked) return; // a later one is under way
    if (answer.status === 422) return tell(`Not drawn yet. ${html.trim()}`, true);
    if (!answer.ok || answer.redirected) return tell("The preview can’t be drawn: reload the page.", true);
    canvas.innerHTML = html;
    const drawn = canvas.firstElementChild;
    place.hidden = false;
    tell(`${drawn.dataset.from}. Nothing here is handed out.`, false);
  }

  function tell(words, isStale) {
    line.textContent = words;
    line.classList.toggle("is-bad", isStale);
    place.classList.toggle("is-stale", isStale);
    panel.dataset.drawn = String(asked);
  }

  const soon = () => { clearTimeout(timer); timer = setTimeout(draw, WAIT_MS); };
  form.addEventListener("input", soon);
  form.addEventListener("rows-changed", soon);
  draw();
}
