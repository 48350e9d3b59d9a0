// Asks for the state of the install and reloads the page once it has changed. Without scripts the page reloads itself.
"use strict";

const SLOW_AFTER_MS = 10000;
const waiting = document.getElementById("waiting");
const message = document.getElementById("message");
const startedAt = Date.now();

async function poll() {
  const isSlow = Date.now() - startedAt > SLOW_AFTER_MS;
  try {
    const response = await fetch(waiting.dataset.status, { credentials: "same-origin", cache: "no-store" });
    const { state } = await response.json();
    if (state !== "storing") {
      location.reload();
      return;
    }
    if (isSlow) {
      message.textContent =
        "This takes longer than usual. HubSpot allowed it, and your browser holds a safe copy of the connection meanwhile.";
    }
  } catch {
    message.textContent = "This site does not answer just now. Trying again…";
  }
  setTimeout(poll, isSlow ? 1000 : 250);
}

setTimeout(poll, 100);
