// Prints a connect link: node link.mjs CUSTOMER [RETURN_TO]. Any JWT library does the same.

import { createHmac, randomUUID } from "node:crypto";
import process from "node:process";

const { TOKENKEEPER_URL, CONNECT_LINK_KEY } = process.env; // https://connect.example.com, the first of CONNECT_LINK_KEYS
const [customer, return_to] = process.argv.slice(2);

const encode = (part) => Buffer.from(JSON.stringify(part)).toString("base64url");
const claims = { customer, return_to, exp: Math.floor(Date.now() / 1000) + 30 * 60, jti: randomUUID() };
const content = `${encode({ alg: "HS256", typ: "JWT" })}.${encode(claims)}`;
const signature = createHmac("sha256", CONNECT_LINK_KEY).update(content).digest("base64url");
console.log(`${TOKENKEEPER_URL}/connect/${content}.${signature}`);
