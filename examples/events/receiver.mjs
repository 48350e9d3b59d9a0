// Receives tokenkeeper's events, verifies their signature, and prints each once: node receiver.mjs PORT
//
// EVENTS_WEBHOOK_SECRET is tokenkeeper's: whsec_…, or several separated by commas while one is replaced. Node's own modules
// alone; with a framework, copy `verify` and give it the raw body (in Express: express.raw({ type: "application/json" })).

import { createHmac, timingSafeEqual } from "node:crypto";
import { createServer } from "node:http";
import process from "node:process";

const KEYS = process.env.EVENTS_WEBHOOK_SECRET.split(",").map((secret) =>
  Buffer.from(secret.trim().replace(/^whsec_/, ""), "base64"),
);
const MAX_AGE_SECONDS = 300;
const MAX_BODY_BYTES = 100_000;
// Keep these in your database, in the transaction that handles the event: tokenkeeper sends each at least once.
const handled = new Set();

/** body: the bytes as they came, before anything has parsed them. */
function verify(headers, body) {
  const signed = `${headers["webhook-id"]}.${headers["webhook-timestamp"]}.`;
  const given = (headers["webhook-signature"] ?? "").split(" ").map((each) => Buffer.from(each));
  const isSigned = KEYS.some((key) => {
    const expected = Buffer.from(`v1,${createHmac("sha256", key).update(signed).update(body).digest("base64")}`);
    return given.some((each) => each.length === expected.length && timingSafeEqual(each, expected));
  });
  return isSigned && Math.abs(Date.now() / 1000 - Number(headers["webhook-timestamp"])) <= MAX_AGE_SECONDS;
}

function handle({ type, data }) {
  console.log(data.id, type, data.hub_id, data.customer);
}

async function readBody(request) {
  const chunks = [];
  let length = 0;
  for await (const chunk of request) {
    length += chunk.length;
    if (length > MAX_BODY_BYTES) throw new Error("too large");
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

const server = createServer(async (request, response) => {
  try {
    const body = await readBody(request);
    if (!verify(request.headers, body)) return response.writeHead(401).end();
    const messageId = request.headers["webhook-id"];
    if (!handled.has(messageId)) {
      handle(JSON.parse(body));
      handled.add(messageId); // after it, so that an event whose handling fails is sent again
    }
    response.writeHead(204).end();
  } catch (error) {
    console.error(error.message);
    response.writeHead(500).end();
  }
});
server.listen(Number(process.argv[2]), "127.0.0.1", () => console.log(`listening on port ${server.address().port}`));
