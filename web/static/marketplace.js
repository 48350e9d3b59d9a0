// Hands in the grant that the page holds, again and again: the page is left only once the answer leads back to HubSpot,
// because it may hold the only copy.
"use strict";

const INTERVAL_MS = 2000;
const form = document.getElementById("grant");

async function handIn() {
  try {
    const body = new URLSearchParams(new FormData(form));
    const response = await fetch(form.action, { method: "POST", body, redirect: "manual", cache: "no-store" });
    if (response.type === "opaqueredirect") {
      form.submit(); // the same again: a script cannot read where the answer leads
      return;
    }
  } catch {
    // This site does not answer just now.
  }
  setTimeout(handIn, INTERVAL_MS);
}

setTimeout(handIn, INTERVAL_MS);
