// The double click on a reward, by k6: each visitor claims four times at once, on four connections. One claim pays, three are refused, the
// wallet holds the points once. The exit code says whether the thresholds were kept. See README.md beside this file.
//
// USHER_URL                     the public listener
// USHER_ADMIN, USHER_ADMIN_KEY  the admin listener and its key: makes a reward for this run

import http from 'k6/http';
import { check } from 'k6';

const CLICKS = 4;
const POINTS = 500;
const JSON_HEADERS = { 'Content-Type': 'application/json' };

// A refused claim is an answer.
http.setResponseCallback(http.expectedStatuses(200, 201, 409));

export const options = {
  scenarios: {
    doubleclick: { executor: 'constant-arrival-rate', rate: 50, timeUnit: '1s', duration: '10s', preAllocatedVUs: 100, maxVUs: 100 },
  },
  batchPerHost: CLICKS,
  thresholds: {
    checks: ['rate==1'],
    http_req_failed: ['rate==0'],
    http_req_duration: ['p(95)<500', 'p(99)<1000'],
    dropped_iterations: ['count==0'],
  },
};

export function setup() {
  const code = `k6-${Date.now()}`;
  const reward = {
    title: 'k6', active: true, conditions: [], reward: { kind: 'points', amount: POINTS },
    starts_at: '2020-01-01T00:00:00Z', ends_at: '2037-01-01T00:00:00Z',
  };
  const headers = Object.assign({ Authorization: `Bearer ${__ENV.USHER_ADMIN_KEY}` }, JSON_HEADERS);
  const made = http.put(`${__ENV.USHER_ADMIN}/admin/rewards/${code}`, JSON.stringify(reward), { headers });
  if (made.status !== 200) {
    throw new Error(`the reward could not be made: ${made.status} ${made.body}`);
  }
  return code;
}

export default function (code) {
  const headers = { 'Usher-User': visitor() };
  const url = `${__ENV.USHER_URL}/v1/rewards/${code}/claims`;
  const click = { method: 'POST', url, params: { headers, tags: { name: 'claim' } } };
  const answers = http.batch(Array(CLICKS).fill(click));
  const count = (status) => answers.filter((answer) => answer.status === status).length;
  const wallet = http.get(`${__ENV.USHER_URL}/v1/wallet`, { headers, tags: { name: 'wallet' } });
  const history = http.get(`${url}/mine`, { headers, tags: { name: 'history' } });
  if (history.json('items').length !== CLICKS) {
    console.error(`of ${headers['Usher-User']} the history tells ${history.body}`);
  }
  check(null, {
    'one claim pays': () => count(201) === 1,
    'the others are refused': () => count(409) === CLICKS - 1,
    'the wallet holds the points once': () => wallet.json('balance') === POINTS,
    'the history tells every click': () => history.json('items').length === CLICKS,
  });
}

// A UUID that nobody has had: k6 has none of its own.
function visitor() {
  const digits = Array.from({ length: 32 }, () => Math.floor(Math.random() * 16).toString(16));
  digits[12] = '4';
  digits[16] = '8';
  const text = digits.join('');
  return [text.slice(0, 8), text.slice(8, 12), text.slice(12, 16), text.slice(16, 20), text.slice(20)].join('-');
}
