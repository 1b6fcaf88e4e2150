// Checks the messages of tests/vectors/webhooks.json, which all clients share.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { verifyWebhook, WebhookError } from "../dist/index.js";

const file = new URL("../../../tests/vectors/webhooks.json", import.meta.url);
const { cases } = JSON.parse(readFileSync(file, "utf8"));

for (const { name, key, headers, body, now, event } of cases) {
  test(`webhook: ${name}`, async () => {
    const verified = verifyWebhook(body, headers, key, { now: now * 1000 });
    if (event) assert.deepEqual(await verified, event);
    else await assert.rejects(verified, WebhookError);
  });
}
