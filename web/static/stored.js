// PostgreSQL may fail over just after it has stored the connection, and lose it. Asking for the state again hands in the
// copy in this browser's cookie, where that has happened; the page stays as it is.
"use strict";

const ASK_AGAIN_AFTER_MS = [10000, 30000, 60000, 120000];
const statusUrl = document.currentScript.dataset.status;

for (const delay of ASK_AGAIN_AFTER_MS) {
  setTimeout(() => fetch(statusUrl, { credentials: "same-origin", cache: "no-store" }).catch(() => {}), delay);
}
