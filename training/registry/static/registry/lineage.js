// Scrolls a drawing that is wider or taller than its frame to the node it is about.
// Expects: .lineage-scroll around an svg with one a.is-here.

for (const frame of document.querySelectorAll(".lineage-scroll")) {
  const here = frame.querySelector("a.is-here rect")?.getBoundingClientRect();
  if (!here) continue;
  const around = frame.getBoundingClientRect();
  frame.scrollLeft += (here.left + here.right - around.left - around.right) / 2;
  frame.scrollTop += (here.top + here.bottom - around.top - around.bottom) / 2;
}
