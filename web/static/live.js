// Keeps the page true: fetches it again while somebody looks, and changes what is marked data-live, if it changed.
"use strict";

const EVERY = 5000;
const SLOWEST = 60000;
const note = document.getElementById("live");
let wait = EVERY;
let timer;
let asking = false;
let over = false;

// One-time: a reload must not tell of an order a second time.
const here = new URL(location.href);
if (here.searchParams.has("notice")) {
  here.searchParams.delete("notice");
  history.replaceState(null, "", here);
}

// Only what differs is touched, so that focus, selection and what is folded out stay as they are.
function renew(old, fresh) {
  if (old.isEqualNode(fresh)) {
    return;
  }
  if (old.nodeName !== fresh.nodeName) {
    old.replaceWith(document.importNode(fresh, true));
    return;
  }
  if (old.nodeType !== Node.ELEMENT_NODE) {
    old.data = fresh.data;
    return;
  }
  for (const { name } of [...old.attributes]) {
    if (!fresh.hasAttribute(name) && name !== "open") {
      old.removeAttribute(name);
    }
  }
  for (const { name, value } of fresh.attributes) {
    if (old.getAttribute(name) !== value) {
      old.setAttribute(name, value);
    }
  }
  const had = [...old.childNodes];
  const has = [...fresh.childNodes];
  has.forEach((child, place) => {
    if (had[place]) {
      renew(had[place], child);
    } else {
      old.append(document.importNode(child, true));
    }
  });
  had.slice(has.length).forEach((child) => child.remove());
}

function show(text) {
  const fresh = new DOMParser().parseFromString(text, "text/html");
  for (const old of document.querySelectorAll("[data-live]")) {
    const found = fresh.getElementById(old.id);
    if (found) {
      renew(old, found);
    }
  }
}

function say(text) {
  if (note.textContent !== text) {
    note.textContent = text;
  }
}

async function look() {
  if (asking || over || document.visibilityState !== "visible") {
    return;
  }
  asking = true;
  try {
    const answer = await fetch(here, { credentials: "same-origin", cache: "no-store" });
    if (answer.ok) {
      show(await answer.text());
      wait = EVERY;
      say("Live.");
    } else if (answer.status < 500) {
      over = true;
      say("Not live any more: reload the page.");
    } else {
      later();
    }
  } catch {
    later();
  }
  asking = false;
  next();
}

function later() {
  wait = Math.min(SLOWEST, wait * 2);
  say(`Not live: no answer at the moment. Trying again in ${wait / 1000} s.`);
}

function next() {
  clearTimeout(timer);
  timer = setTimeout(look, wait);
}

if (document.querySelector("[data-live]")) {
  document.addEventListener("visibilitychange", look);
  say("Live.");
  next();
}
