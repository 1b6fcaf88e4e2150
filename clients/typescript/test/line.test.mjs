// Computes the positions of tests/vectors/line.json, which all clients share.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { positionFromLine } from "../dist/index.js";

const file = new URL("../../../tests/vectors/line.json", import.meta.url);
const { cases } = JSON.parse(readFileSync(file, "utf8"));

for (const { name, document, score, lane, position } of cases) {
  test(`position: ${name}`, () => {
    assert.equal(positionFromLine(document, score, lane), position);
  });
}
