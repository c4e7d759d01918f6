// SPDX-License-Identifier: Apache-2.0
// One sealed request by foreign libraries.
//
// Usage: node chunked_client.mjs BASE_URL INNER_URL JSON_BODY
// Prints one JSON object: {status, contentType, body, chunks}.

import { makeSealedFetch } from "./sealed_fetch.mjs";

const [base, innerUrl, body] = process.argv.slice(2);
let chunks = 0;
const sealedFetch = await makeSealedFetch(base, () => chunks++);
const answer = await sealedFetch(innerUrl, {
  method: "POST",
  headers: { "Content-Type": "application/json" },
  body,
});
console.log(
  JSON.stringify({
    status: answer.status,
    contentType: answer.headers.get("content-type"),
    body: await answer.text(),
    chunks,
  }),
);
