// Numbers of tokens on pointing and by arrow keys.
//
//   <p data-explanation tabindex="0"><span class="piece" data-value="+0.12">token</span>...</p>
//   <p data-readout></p>
//
// Listens on the document, since a page that follows its run replaces these parts.

const pieces = (text) => [...text.querySelectorAll(".piece")];

function show(text, piece) {
  const all = pieces(text);
  for (const other of all) other.classList.toggle("is-at", other === piece);
  const readout = text.parentElement.querySelector("[data-readout]");
  if (!readout || !piece) return;
  const value = piece.dataset.value ?? "cut off";
  readout.textContent = `${all.indexOf(piece) + 1} of ${all.length} · “${piece.textContent.replaceAll("\n", "⏎")}” · ${value}`;
}

document.addEventListener("pointerover", (event) => {
  const piece = event.target.closest?.("[data-explanation] .piece");
  if (piece) show(piece.closest("[data-explanation]"), piece);
});

document.addEventListener("keydown", (event) => {
  if (event.altKey || event.ctrlKey || event.metaKey || !event.target.matches?.("[data-explanation]")) return;
  const all = pieces(event.target);
  const at = all.findIndex((piece) => piece.classList.contains("is-at"));
  const to = { ArrowRight: at + 1, ArrowLeft: at < 0 ? 0 : at - 1, Home: 0, End: all.length - 1 }[event.key];
  if (to === undefined) return;
  event.preventDefault();
  show(event.target, all[Math.min(Math.max(to, 0), all.length - 1)]);
});
