// Dragging cards between tiers, by mouse, pen and finger.
//
//   <section data-card="a"><header data-handle>…</header></section>
//   <li data-tier="1">…</li>   <div data-tray>…</div>
//
//   enableDrag(root, { isOn, onPick(key), onDrop(key, { tier, place }) })   place: "in", "before", "after"; tier 0: the tray

const FAR_ENOUGH = 6; // pixels before a press becomes a drag
const EDGE = 0.24; // share of a filled tier, above and below, that means "between"
const SCROLL_EDGE = 72;

export function enableDrag(root, { isOn = () => true, ties = () => true, onPick, onDrop }) {
  let drag = null;

  root.addEventListener("pointerdown", (event) => {
    const handle = event.target.closest("[data-handle]");
    if (!handle || event.button !== 0 || event.target.closest("button, a, input, label, select") || !isOn()) return;
    const card = handle.closest("[data-card]");
    drag = { card, key: card.dataset.card, x: event.clientX, y: event.clientY, id: event.pointerId, chip: null, goal: null };
    handle.setPointerCapture(event.pointerId);
    onPick(drag.key);
  });

  root.addEventListener("pointermove", (event) => {
    if (!drag || event.pointerId !== drag.id) return;
    if (!drag.chip) {
      if (Math.hypot(event.clientX - drag.x, event.clientY - drag.y) < FAR_ENOUGH) return;
      begin();
    }
    event.preventDefault();
    drag.chip.style.transform = `translate(${event.clientX + 12}px, ${event.clientY + 12}px)`;
    aim(event.clientX, event.clientY);
    scrollNear(event.clientY);
  });

  root.addEventListener("pointerup", (event) => end(event, true));
  root.addEventListener("pointercancel", (event) => end(event, false));
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && drag?.chip) {
      event.preventDefault();
      end({ pointerId: drag.id }, false);
    }
  });

  function begin() {
    drag.chip = document.createElement("div");
    drag.chip.className = "drag-chip";
    drag.chip.setAttribute("aria-hidden", "true");
    const key = document.createElement("b");
    key.textContent = drag.key;
    const words = document.createElement("span");
    words.textContent = drag.card.querySelector("[data-card-text]").textContent.trim().slice(0, 60);
    drag.chip.append(key, words);
    document.body.append(drag.chip);
    drag.card.classList.add("is-dragged");
    root.classList.add("is-dragging");
  }

  function aim(x, y) {
    const under = document.elementFromPoint(x, y);
    const tier = under?.closest("[data-tier]");
    const tray = under?.closest("[data-tray]");
    let goal = null;
    if (tier && root.contains(tier)) {
      const box = tier.getBoundingClientRect();
      const share = (y - box.top) / box.height;
      const others = [...tier.querySelectorAll("[data-card]")].some((card) => card !== drag.card);
      const half = ties() ? EDGE : 0.5;
      const place = !others ? "in" : share < half ? "before" : share > 1 - half ? "after" : "in";
      goal = { element: tier, tier: Number(tier.dataset.tier), place };
    } else if (tray && root.contains(tray)) {
      goal = { element: tray, tier: 0, place: "in" };
    }
    clear();
    drag.goal = goal;
    goal?.element.classList.add(`drop-${goal.place}`);
  }

  function clear() {
    for (const element of root.querySelectorAll(".drop-in, .drop-before, .drop-after")) {
      element.classList.remove("drop-in", "drop-before", "drop-after");
    }
  }

  function scrollNear(y) {
    if (y < SCROLL_EDGE) window.scrollBy(0, -12);
    else if (y > window.innerHeight - SCROLL_EDGE) window.scrollBy(0, 12);
  }

  function end(event, drops) {
    if (!drag || event.pointerId !== drag.id) return;
    const { card, key, chip, goal } = drag;
    drag = null;
    clear();
    chip?.remove();
    card.classList.remove("is-dragged");
    root.classList.remove("is-dragging");
    if (chip && drops && goal) onDrop(key, { tier: goal.tier, place: goal.place });
  }
}
