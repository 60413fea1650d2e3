// What plain HTML cannot do: drop, paste and preview a picture, and link a frame to its entry.
// Everything works without this file; then the picture is chosen and sent with the button.
"use strict";

const ask = document.getElementById("ask");

if (ask) {
  document.documentElement.classList.add("scripted");
  const inputs = [...ask.querySelectorAll('input[type="file"]')];
  const place = document.querySelector("[data-drop]");
  const chosen = () => inputs.find((input) => input.files.length);

  const answer = document.getElementById("place");
  const errors = document.getElementById("errors");
  let before = []; // what to go back to when the picture is refused

  const show = (file) => {
    ask.querySelector("[data-chosen]").textContent = file.name;
    errors.replaceChildren();
    const looking = document.getElementById("looking").content.cloneNode(true);
    const picture = looking.querySelector("img");
    picture.onload = () => URL.revokeObjectURL(picture.src);
    picture.onerror = () => picture.remove(); // the server will say what is wrong with it
    picture.src = URL.createObjectURL(file);
    if (!answer.querySelector("[data-sending]")) before = [...answer.childNodes];
    answer.replaceChildren(looking);
  };

  const take = (file) => {
    const files = new DataTransfer();
    files.items.add(file);
    inputs[1].value = "";
    inputs[0].files = files.files;
    ask.requestSubmit();
  };

  for (const input of inputs) {
    input.addEventListener("change", () => {
      if (!input.files.length) return;
      for (const other of inputs) if (other !== input) other.value = "";
      ask.requestSubmit();
    });
  }
  ask.addEventListener("submit", () => {
    const input = chosen();
    if (input) show(input.files[0]);
  });

  ask.addEventListener("htmx:finally:request", (event) => {
    const { response, status } = event.detail.ctx;
    if (status.includes("AbortError")) return; // another picture was sent meanwhile
    if (!response || response.status >= 500) {
      const reason = document.createElement("p");
      reason.className = "error";
      reason.textContent = ask.dataset.failed;
      errors.replaceChildren(reason);
    }
    if (answer.querySelector("[data-sending]")) answer.replaceChildren(...before);
  });

  // A closed list changes at every press of an arrow key, so then nothing is sent and no page left:
  // the button does that. What told of the catalogue before tells of the new one, or nothing.
  const catalogue = ask.elements.catalogue;
  let byKey = false;
  catalogue.addEventListener("keydown", () => (byKey = true));
  catalogue.addEventListener("pointerdown", () => (byKey = false));
  catalogue.addEventListener("change", () => {
    const { page, gallery } = catalogue.selectedOptions[0].dataset;
    if (byKey) {
      document.querySelector("#gallery").href = gallery;
      for (const input of ask.querySelectorAll("[placeholder]")) input.placeholder = "";
    } else if (chosen()) ask.requestSubmit();
    else location.href = page;
  });

  const pictureIn = (transfer) => [...transfer.files].find((file) => file.type.startsWith("image/"));
  for (const name of ["dragenter", "dragover"]) {
    document.addEventListener(name, (event) => {
      if (![...event.dataTransfer.types].includes("Files")) return;
      event.preventDefault();
      place.classList.add("over");
    });
  }
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) place.classList.remove("over");
  });
  document.addEventListener("drop", (event) => {
    place.classList.remove("over");
    if (!event.dataTransfer.files.length) return;
    event.preventDefault();
    take(pictureIn(event.dataTransfer) ?? event.dataTransfer.files[0]);
  });
  document.addEventListener("paste", (event) => {
    const file = pictureIn(event.clipboardData);
    if (file) take(file);
  });
}

// The frame, its plate and its entry in the list light up together.
const light = (event) => {
  const number = event.target.closest?.("[data-region]")?.dataset.region;
  for (const element of document.querySelectorAll("[data-region]")) {
    element.classList.toggle("lit", element.dataset.region === number);
  }
};
document.addEventListener("pointerover", light);
document.addEventListener("focusin", light);
