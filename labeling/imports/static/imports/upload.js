// Sending a file with its progress, and dropping one on the form.
//
// <form data-import-drop>
//   <input type="file"> <div data-import-errors></div> <button data-import-stop hidden>
//   <div data-import-upload hidden><progress></progress><p data-import-said></p></div>
// </form>
//
// Without it the form is an ordinary one. A file dropped beside the form opens nothing.

const form = document.querySelector("[data-import-drop]");
const holdsFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
const megabytes = (bytes) => (bytes / 1e6).toLocaleString("en", { maximumFractionDigits: bytes < 1e8 ? 1 : 0 });

function send(form) {
  const place = form.querySelector("[data-import-upload]");
  const bar = place.querySelector("progress");
  const said = place.querySelector("[data-import-said]");
  const errors = form.querySelector("[data-import-errors]");
  const stop = form.querySelector("[data-import-stop]");
  const button = form.querySelector("button:not([type=button])");
  const request = new XMLHttpRequest();
  const began = performance.now();

  const over = (problem) => {
    place.hidden = stop.hidden = true;
    button.disabled = false;
    errors.textContent = problem;
  };
  errors.textContent = "";
  place.hidden = stop.hidden = false;
  button.disabled = true;
  bar.value = 0;
  said.textContent = "Uploading…";
  stop.onclick = () => request.abort();

  request.upload.addEventListener("progress", (event) => {
    if (!event.lengthComputable) return;
    bar.value = event.loaded / event.total;
    const seconds = (performance.now() - began) / 1000;
    const left = event.loaded ? (seconds * (event.total - event.loaded)) / event.loaded : 0;
    const wait = seconds > 3 && left > 2 ? `, about ${Math.ceil(left)} s left` : "";
    said.textContent = event.loaded < event.total
      ? `${megabytes(event.loaded)} of ${megabytes(event.total)} MB${wait}`
      : "Looking at it…";
  });
  request.addEventListener("load", () => {
    if (request.status === 200) return void location.assign(request.responseURL);
    if (request.getResponseHeader("Content-Type")?.startsWith("text/plain")) return over(request.responseText);
    const answer = new DOMParser().parseFromString(request.responseText, "text/html");
    over(answer.querySelector("[data-import-errors]")?.textContent.trim() || `The server answered ${request.status}: try again in a moment.`);
  });
  request.addEventListener("error", () => over("The connection broke off. Nothing was taken: send the file again."));
  request.addEventListener("abort", () => over("Stopped. Nothing was taken."));
  request.open("POST", form.action || location.href);
  request.send(new FormData(form));
}

if (form) {
  const input = form.querySelector("input[type=file]");
  for (const name of ["dragover", "drop"]) document.addEventListener(name, (event) => { if (holdsFiles(event)) event.preventDefault(); });
  form.addEventListener("dragover", () => form.classList.add("is-over"));
  form.addEventListener("dragleave", (event) => { if (!form.contains(event.relatedTarget)) form.classList.remove("is-over"); });
  form.addEventListener("drop", (event) => {
    form.classList.remove("is-over");
    if (!event.dataTransfer.files.length) return;
    const one = new DataTransfer();
    one.items.add(event.dataTransfer.files[0]);
    input.files = one.files;
    form.requestSubmit();
  });
  form.addEventListener("submit", (event) => {
    if (!input.files.length) return; // the server says what is missing
    event.preventDefault();
    send(form);
  });
}
