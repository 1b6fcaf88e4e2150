// What the k6 scripts share. They call the API directly: clients/typescript needs `fetch`, which k6
// does not have.

import http from 'k6/http';

export const url = __ENV.USHER_URL || 'http://127.0.0.1:8080';

const admin = __ENV.USHER_ADMIN || 'http://127.0.0.1:8081';
const adminKey = __ENV.USHER_ADMIN_KEY;

// Returns the name of something that already exists, or with an admin key, of what this creates for
// the run. `kind` is queues, coupons or rewards.
export function target(kind, existing, definition) {
  if (!adminKey) {
    if (!existing) throw new Error('set USHER_ADMIN_KEY, so that the run can create what it needs');
    return existing;
  }
  const name = `k6-${Date.now()}`;
  const headers = { Authorization: `Bearer ${adminKey}`, 'Content-Type': 'application/json' };
  const path = `${admin}/admin/${kind}/${name}`;
  const response = http.put(path, JSON.stringify(definition), { headers });
  if (response.status !== 200) {
    throw new Error(`cannot create ${kind}/${name}: ${response.status} ${response.body}`);
  }
  return name;
}

export function randomUuid() {
  const digits = Array.from({ length: 32 }, () => Math.floor(Math.random() * 16).toString(16));
  digits[12] = '4';
  digits[16] = '8';
  const text = digits.join('');
  const lengths = [8, 4, 4, 4, 12];
  let start = 0;
  return lengths.map((length) => text.slice(start, (start += length))).join('-');
}
