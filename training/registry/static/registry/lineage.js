// Scrolls a drawing that is wider or taller than its frame to the node it is about, and lets the arrow keys walk it.
//
// <div class="lineage-scroll"><svg>
//   <a data-node="model:2" data-before='["run:1"]' data-here="address" data-more="address" class="is-here"><rect/></a>
// </svg></div><p id="lineage-keys" hidden></p>
//
// One node takes the tabulator; the others are reached from it. Without this each is an ordinary link.

const frame = document.querySelector(".lineage-scroll");
const nodes = [...(frame?.querySelectorAll("a[data-node]") ?? [])];

if (nodes.length) {
  const here = frame.querySelector("a.is-here") ?? nodes[0];
  const boxes = new Map(nodes.map((node) => [node, node.querySelector("rect")]));
  const x = (node) => boxes.get(node).x.baseVal.value;
  const y = (node) => boxes.get(node).y.baseVal.value;
  const before = new Map(nodes.map((node) => [node.dataset.node, JSON.parse(node.dataset.before)]));

  const nearest = (found, from) =>
    found.reduce((best, node) => (!best || Math.abs(y(node) - y(from)) < Math.abs(y(best) - y(from)) ? node : best), null);
  // Up and down go through all that the last step could have led to, wherever they stand; else through the column.
  let beside = [];
  const aside = (from, by) => {
    const found = beside.length > 1 && beside.includes(from) ? beside : nodes.filter((node) => x(node) === x(from));
    const ordered = found.toSorted((one, other) => y(one) - y(other) || x(one) - x(other));
    return ordered[ordered.indexOf(from) + by];
  };
  const along = (from, found) => {
    if (found.length) beside = found;
    return nearest(found, from);
  };
  const steps = {
    ArrowLeft: (from) => along(from, nodes.filter((node) => before.get(from.dataset.node).includes(node.dataset.node))),
    ArrowRight: (from) => along(from, nodes.filter((node) => before.get(node.dataset.node).includes(from.dataset.node))),
    ArrowUp: (from) => aside(from, -1),
    ArrowDown: (from) => aside(from, 1),
    Home: () => here,
  };

  const show = (node) => {
    const box = boxes.get(node).getBoundingClientRect();
    const around = frame.getBoundingClientRect();
    frame.scrollLeft += (box.left + box.right - around.left - around.right) / 2;
    frame.scrollTop += (box.top + box.bottom - around.top - around.bottom) / 2;
  };
  const hold = (node) => {
    for (const other of nodes) other.setAttribute("tabindex", other === node ? "0" : "-1");
  };

  frame.addEventListener("focusin", (event) => {
    if (boxes.has(event.target)) hold(event.target);
  });
  frame.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !boxes.has(event.target)) return;
    const from = event.target;
    const address = { l: from.dataset.here, m: from.dataset.more }[event.key.toLowerCase()];
    if (!address && !(event.key in steps)) return;
    event.preventDefault();
    event.stopPropagation();
    if (address) return void location.assign(address);
    const to = steps[event.key](from);
    if (!to) return;
    to.focus({ preventScroll: true });
    show(to);
  });
  hold(here);
  show(here);
  document.getElementById("lineage-keys").hidden = false;
}
