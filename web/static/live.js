// Keeps an operator's page up to date: while the page is visible, fetches it again and updates the elements that are
// marked data-live. Without JavaScript the page is complete but has to be reloaded by hand.
"use strict";

const UPDATE_MS = 5000;
const MAX_RETRY_MS = 60000;
const indicator = document.getElementById("live");
let waitMs = UPDATE_MS;
let timer;
let isFetching = false;
let isStopped = false;

// The result of an action is shown once: a reload must not show it again.
const pageUrl = new URL(location.href);
if (pageUrl.searchParams.has("notice")) {
  pageUrl.searchParams.delete("notice");
  history.replaceState(null, "", pageUrl);
}

// Changes only the nodes that differ, so that focus, selection and open <details> stay as they are.
function updateNode(current, fetched) {
  if (current.isEqualNode(fetched)) {
    return;
  }
  if (current.nodeName !== fetched.nodeName) {
    current.replaceWith(document.importNode(fetched, true));
    return;
  }
  if (current.nodeType !== Node.ELEMENT_NODE) {
    current.data = fetched.data;
    return;
  }
  for (const { name } of [...current.attributes]) {
    if (!fetched.hasAttribute(name) && name !== "open") {
      current.removeAttribute(name);
    }
  }
  for (const { name, value } of fetched.attributes) {
    if (current.getAttribute(name) !== value) {
      current.setAttribute(name, value);
    }
  }
  const currentChildren = [...current.childNodes];
  const fetchedChildren = [...fetched.childNodes];
  fetchedChildren.forEach((child, index) => {
    if (currentChildren[index]) {
      updateNode(currentChildren[index], child);
    } else {
      current.append(document.importNode(child, true));
    }
  });
  currentChildren.slice(fetchedChildren.length).forEach((child) => child.remove());
}

function updatePage(html) {
  const stateBefore = readState();
  const fetchedPage = new DOMParser().parseFromString(html, "text/html");
  for (const element of document.querySelectorAll("[data-live]")) {
    const fetched = fetchedPage.getElementById(element.id);
    if (fetched) {
      updateNode(element, fetched);
    }
  }
  // The result of an action describes the state right after it.
  if (readState() !== stateBefore) {
    document.querySelector(".notice")?.remove();
  }
}

// The text that is kept up to date, without times: those differ at every update.
function readState() {
  return [...document.querySelectorAll("[data-live]")].map((element) => {
    const copy = element.cloneNode(true);
    copy.querySelectorAll("time, .ago").forEach((time) => time.remove());
    return copy.textContent;
  }).join();
}

function showIndicator(text) {
  if (indicator.textContent !== text) {
    indicator.textContent = text;
  }
}

async function fetchAndUpdate() {
  if (isFetching || isStopped || document.visibilityState !== "visible") {
    return;
  }
  isFetching = true;
  try {
    const response = await fetch(pageUrl, { credentials: "same-origin", cache: "no-store" });
    if (response.ok) {
      updatePage(await response.text());
      waitMs = UPDATE_MS;
      showIndicator("Live.");
    } else if (response.status < 500) {
      // For example, the password was changed. A reload asks for the new one.
      isStopped = true;
      showIndicator("Not live any more: reload the page.");
    } else {
      increaseWait();
    }
  } catch {
    increaseWait();
  }
  isFetching = false;
  scheduleNext();
}

function increaseWait() {
  waitMs = Math.min(MAX_RETRY_MS, waitMs * 2);
  showIndicator(`Not live: no answer at the moment. Trying again in ${waitMs / 1000} s.`);
}

function scheduleNext() {
  clearTimeout(timer);
  timer = setTimeout(fetchAndUpdate, waitMs);
}

if (document.querySelector("[data-live]")) {
  document.addEventListener("visibilitychange", fetchAndUpdate);
  showIndicator("Live.");
  scheduleNext();
}
