// Prints an account's contacts: node contacts.js HUB
//
// The connection is configured by libpq's variables: PGHOST, PGDATABASE, PGUSER, PGPASSWORD.

import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import pg from "pg";

if (!/^[0-9]+$/.test(process.argv[2] ?? "")) {
  console.error("usage: node contacts.js HUB");
  process.exit(2);
}

const API = process.env.HUBSPOT_API_URL ?? "https://api.hubapi.com";
const TIMEOUT_MS = 30_000; // for a new token: a sweep, a call to HubSpot and a retry
const POLL_MS = 250;

const pool = new pg.Pool();
pool.on("error", (error) => console.error(`PostgreSQL: ${error.message}`)); // an idle connection was lost; without a handler the process exits

/** A token for one call to HubSpot; read again for the next call. */
async function readToken(hub) {
  const { rows } = await pool.query("SELECT access_token FROM hubspot.tokens WHERE hub_id = $1", [hub]);
  if (rows.length > 0) return rows[0].access_token;
  const { rows: found } = await pool.query("SELECT status FROM hubspot.connections WHERE hub_id = $1", [hub]);
  throw new Error(`account ${hub} has no token that works now: ${found[0]?.status ?? "never installed"}`);
}

/** Request a refresh and wait for another token than the refused one. */
async function requestToken(hub, refused) {
  await pool.query("SELECT hubspot.request_refresh($1, $2)", [hub, refused]);
  for (const deadline = Date.now() + TIMEOUT_MS; Date.now() < deadline; await sleep(POLL_MS)) {
    const token = await readToken(hub);
    if (token !== refused) return token;
  }
  throw new Error(`account ${hub}: HubSpot refuses the token, and no other one came`);
}

async function get(hub, path) {
  const send = (token) =>
    fetch(API + path, { headers: { authorization: `Bearer ${token}` }, signal: AbortSignal.timeout(30_000) });
  const token = await readToken(hub);
  let reply = await send(token);
  if (reply.status === 401) reply = await send(await requestToken(hub, token));
  if (!reply.ok) throw new Error(`HubSpot answered ${reply.status}`);
  return reply.json();
}

try {
  // hub_id is a bigint: in JavaScript a string, as pg has it, never a number
  const { results } = await get(process.argv[2], "/crm/objects/2026-09/contacts");
  for (const { id, properties } of results) console.log(id, properties.email);
} catch (error) {
  console.error(error.message);
  process.exitCode = 1;
} finally {
  await pool.end();
}
