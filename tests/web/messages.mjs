// The texts of the pages: both languages are complete, and every text is used.

import assert from "node:assert/strict";
import { readdir, readFile } from "node:fs/promises";
import { test } from "node:test";
import { messageTable } from "../../web/message_table.js";

const placeholders = (text) => [...text.matchAll(/\{(\w+)\}/g)].map((match) => match[1]).sort();

test("every text has both languages with the same values", () => {
  for (const [key, texts] of Object.entries(messageTable)) {
    assert.equal(texts.length, 2, key);
    const [english, korean] = texts;
    assert.ok(english.trim() && korean.trim(), key);
    assert.deepEqual(placeholders(english), placeholders(korean), key);
    assert.doesNotMatch(english, /[가-힣]/, key);
    const words = korean.replace(/\{\w+\}/g, "");
    assert.ok(/[가-힣]/.test(korean) || !/[a-z]/i.test(words), `${key}: ${korean}`);
    assert.doesNotMatch(english + korean, /HTTP \d|undefined|null/, key);
  }
});

test("the pages use exactly the texts of the table", async () => {
  const names = (await readdir("../../web")).filter((name) => /\.(js|html)$/.test(name));
  const files = names.filter((name) => name !== "message_table.js");
  const texts = await Promise.all(files.map((name) => readFile(`../../web/${name}`, "utf8")));
  const all = texts.join("\n");
  const keys = Object.keys(messageTable);
  // A key such as `bookings.status.${status}` stands for all keys that begin with the fixed part.
  const prefixes = [...all.matchAll(/[`"]([a-z_]+\.[a-z_.]*\.)\$\{/g)].map((match) => match[1]);
  const named = new Set([...all.matchAll(/"([a-z_]+(?:\.[a-z_]+)*)"/g)].map((match) => match[1]));
  // An end has a title and, below the same key, an explanation.
  const isUsed = (key) =>
    named.has(key)
    || prefixes.some((prefix) => key.startsWith(prefix))
    || (key.endsWith(".why") && named.has(key.slice(0, -4)));
  assert.deepEqual(keys.filter((key) => !isUsed(key)), [], "unused");
  const attributes = /(?:data-(?:message|label)=|message\()"([a-z_.]+)"/g;
  const referenced = [...all.matchAll(attributes)].map((match) => match[1]);
  assert.ok(referenced.length > 50);
  assert.deepEqual(referenced.filter((key) => !(key in messageTable)), [], "missing");
});
