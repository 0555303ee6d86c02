// What a rendered text (.prose) can do: copy and wrap code, ask before it leads away, say what image is missing.
//
//   <div class="code"> <button class="code-wrap"> <button class="code-copy"> <pre><code>
//   <a href="https://…">          opens a dialog with the whole address; without this script it opens a new tab
//   <img src="/images/…/">        one that isn't there becomes a line that says so
//   <button data-copy="text">     the same copying, outside of .prose
//
// One listener on the document serves texts that come later too. It listens before the page does and keeps what it
// handles, so no key or click on a text's own controls ranks anything.

import { _, fill } from "i18n";

const KEPT_KEYS = new Set(["Enter", " ", "Spacebar"]);
const SCROLL_KEYS = new Set(["ArrowLeft", "ArrowRight", "Home", "End"]);
const CONTROL = ".prose :is(a[href], .code-tools button)";

document.addEventListener("click", clicked, true);
document.addEventListener("auxclick", (event) => { if (event.button === 1) clicked(event); }, true);
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const target = event.target instanceof Element ? event.target : null;
  const scrolls = target?.matches(".prose :is(pre, .table-box)") && target.scrollWidth > target.clientWidth;
  // What is kept from the page is not prevented: the browser still presses the button or scrolls the box.
  if ((KEPT_KEYS.has(event.key) && target?.matches(CONTROL)) || (SCROLL_KEYS.has(event.key) && scrolls)) event.stopPropagation();
}, true);
document.addEventListener("error", (event) => { if (isOurs(event.target)) sayMissing(event.target); }, true);
for (const image of document.querySelectorAll(".prose img")) {
  if (image.complete && image.naturalWidth === 0 && isOurs(image)) sayMissing(image);
}

function clicked(event) {
  const target = event.target instanceof Element ? event.target : null;
  const control = target?.closest(`${CONTROL}, [data-copy]`);
  if (!control) return;
  event.preventDefault();
  event.stopPropagation();
  if (control.matches("a")) askBeforeLeaving(control);
  else if (control.matches(".code-wrap")) wrap(control);
  else copy(control, control.dataset.copy ?? control.closest(".code").querySelector("pre").textContent);
}

// --- code ---------------------------------------------------------------------------------------
function wrap(button) {
  const wrapped = button.closest(".code").classList.toggle("is-wrapped");
  button.setAttribute("aria-pressed", String(wrapped));
}

async function copy(button, text) {
  const done = await toClipboard(text);
  const before = (button.dataset.says ??= button.textContent);
  button.textContent = done ? _("Copied") : _("Select it and copy");
  announce(button.textContent);
  clearTimeout(Number(button.dataset.timer));
  button.dataset.timer = String(setTimeout(() => { button.textContent = before; }, 2000));
}

/** True once it is there. Sites without HTTPS have no clipboard of their own, so a field is copied from. */
async function toClipboard(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const focused = document.activeElement;
    const field = document.createElement("textarea");
    field.className = "sr-only";
    field.readOnly = true;
    field.value = text;
    (focused?.closest("dialog") ?? document.body).append(field);
    field.select();
    const done = document.execCommand("copy");
    field.remove();
    focused?.focus({ preventScroll: true });
    return done;
  }
}

let line = null;
function announce(words) {
  if (!line) {
    line = document.createElement("p");
    line.className = "sr-only";
    line.setAttribute("aria-live", "polite");
    document.body.append(line);
  }
  line.textContent = "";
  requestAnimationFrame(() => { line.textContent = words; });
}

// --- images -------------------------------------------------------------------------------------
function isOurs(image) {
  return image instanceof HTMLImageElement && image.closest(".prose") !== null;
}

function sayMissing(image) {
  const said = document.createElement("span");
  said.className = "image-missing";
  const what = document.createElement("b");
  what.textContent = _("Image not found");
  said.append(what);
  const alt = image.getAttribute("alt");
  if (alt) said.append(`: ${alt}`);
  image.replaceWith(said);
}

// --- links --------------------------------------------------------------------------------------
function askBeforeLeaving(link) {
  let address;
  try {
    address = new URL(link.href);
  } catch {
    return;
  }
  const dialog = document.createElement("dialog");
  dialog.className = "leave-dialog";
  dialog.setAttribute("aria-labelledby", "leave-title");
  const title = element("h2", _("This link leads away from here"));
  title.id = "leave-title";
  const go = element("a", address.protocol === "mailto:" ? _("Open in the mail program") : _("Open in a new tab"));
  go.className = "button";
  go.href = address.href;
  go.target = "_blank";
  go.rel = "noopener noreferrer nofollow";
  const stay = element("button", _("Stay"));
  stay.type = "button";
  stay.className = "button button-primary";
  stay.autofocus = true;
  const actions = document.createElement("div");
  actions.className = "dialog-actions";
  actions.append(go, stay);
  dialog.append(title, spelled(address), ...warnings(address), actions);
  stay.addEventListener("click", () => dialog.close());
  go.addEventListener("click", () => setTimeout(() => dialog.close()));
  dialog.addEventListener("close", () => { dialog.remove(); link.focus({ preventScroll: true }); });
  // Keys pressed in here are this dialog's alone.
  dialog.addEventListener("keydown", (event) => event.stopPropagation());
  document.body.append(dialog);
  dialog.showModal();
}

function element(name, words) {
  const made = document.createElement(name);
  made.textContent = words;
  return made;
}

/** The whole address in ASCII, as it is sent: the site stands out, a user name before it too. */
function spelled(address) {
  const line = document.createElement("bdi");
  line.className = "leave-address";
  line.dir = "ltr";
  const user = address.username || address.password ? `${address.username}${address.password ? `:${address.password}` : ""}@` : "";
  const rest = `${address.pathname}${address.search}${address.hash}`;
  line.append(address.protocol === "mailto:" ? address.protocol : `${address.protocol}//`);
  if (user) line.append(element("mark", user));
  if (address.host) line.append(element("b", address.host));
  line.append(rest);
  return line;
}

function warnings(address) {
  const found = [];
  if (address.username || address.password) found.push(fill(_("What stands before the @ is a user name. The site is %(site)s."), { site: address.host }));
  if (/(^|\.)xn--/.test(address.hostname)) found.push(_("The name of the site holds letters that only look familiar, perhaps: xn-- spells them in ASCII."));
  if (/^(\d+\.){3}\d+$|^\[/.test(address.hostname)) found.push(_("The site has a number for a name."));
  if (address.protocol === "http:") found.push(_("The connection would not be encrypted."));
  if (!found.length) return [];
  const list = document.createElement("ul");
  list.append(...found.map((words) => element("li", words)));
  return [list];
}
