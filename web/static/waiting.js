// Asks how the install stands and shows the page anew once that has changed. Without it the page reloads itself.
"use strict";

const waiting = document.getElementById("waiting");
const message = document.getElementById("message");
const began = Date.now();

async function look() {
  try {
    const answer = await fetch(waiting.dataset.status, { credentials: "same-origin", cache: "no-store" });
    const { state } = await answer.json();
    if (state !== "storing") {
      location.reload();
      return;
    }
    if (Date.now() - began > 10000) {
      message.textContent =
        "This takes longer than usual. HubSpot said yes, and your browser keeps the connection safe meanwhile.";
    }
  } catch {
    message.textContent = "We do not reach our own server just now. Trying again…";
  }
  // Quick while somebody is watching for it, gentle once it has become a wait.
  setTimeout(look, Date.now() - began > 10000 ? 1000 : 250);
}

setTimeout(look, 100);
