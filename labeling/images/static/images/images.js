// Dropping files on the upload form of the console's images page.
//
// <form data-drop-zone> <input type="file" multiple> <span data-drop-said>
//
// Without it the form is an ordinary one. Files dropped beside the form open nothing.

const zone = document.querySelector("[data-drop-zone]");
const input = zone?.querySelector("input[type=file]");
const holdsFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");

if (zone) {
  for (const name of ["dragover", "drop"]) document.addEventListener(name, (event) => { if (holdsFiles(event)) event.preventDefault(); });
  zone.addEventListener("dragover", () => zone.classList.add("is-over"));
  zone.addEventListener("dragleave", (event) => { if (!zone.contains(event.relatedTarget)) zone.classList.remove("is-over"); });
  zone.addEventListener("drop", (event) => {
    zone.classList.remove("is-over");
    if (!event.dataTransfer.files.length) return;
    input.files = event.dataTransfer.files;
    input.dispatchEvent(new Event("change", { bubbles: true }));
    zone.requestSubmit();
  });
  zone.addEventListener("submit", () => {
    const n = input.files.length;
    zone.querySelector("[data-drop-said]").textContent = n === 1 ? "Uploading 1 file…" : `Uploading ${n} files…`;
  });
}
