// k6: each user claims a reward four times concurrently, on four connections. One claim must be
// paid and three refused. The exit code shows whether the thresholds were kept. See README.md.
//
// USHER_URL                     public listener
// USHER_ADMIN, USHER_ADMIN_KEY  admin listener and its key, to create a reward for this run

import http from 'k6/http';
import { check } from 'k6';

const CLAIMS_PER_USER = 4;
const POINTS = 500;
const JSON_HEADERS = { 'Content-Type': 'application/json' };

// A refused claim (409) is an expected response.
http.setResponseCallback(http.expectedStatuses(200, 201, 409));

export const options = {
  scenarios: {
    repeated_claims: {
      executor: 'constant-arrival-rate',
      rate: 50,
      timeUnit: '1s',
      duration: '10s',
      preAllocatedVUs: 100,
      maxVUs: 100,
    },
  },
  batchPerHost: CLAIMS_PER_USER,
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
    title: 'k6',
    active: true,
    conditions: [],
    reward: { kind: 'points', amount: POINTS },
    starts_at: '2020-01-01T00:00:00Z',
    ends_at: '2037-01-01T00:00:00Z',
  };
  const headers = Object.assign({ Authorization: `Bearer ${__ENV.USHER_ADMIN_KEY}` }, JSON_HEADERS);
  const url = `${__ENV.USHER_ADMIN}/admin/rewards/${code}`;
  const response = http.put(url, JSON.stringify(reward), { headers });
  if (response.status !== 200) {
    throw new Error(`cannot create the reward: ${response.status} ${response.body}`);
  }
  return code;
}

export default function (code) {
  const headers = { 'Usher-User': randomUuid() };
  const url = `${__ENV.USHER_URL}/v1/rewards/${code}/claims`;
  const claim = { method: 'POST', url, params: { headers, tags: { name: 'claim' } } };
  const responses = http.batch(Array(CLAIMS_PER_USER).fill(claim));
  const count = (status) => responses.filter((response) => response.status === status).length;
  const walletUrl = `${__ENV.USHER_URL}/v1/wallet`;
  const wallet = http.get(walletUrl, { headers, tags: { name: 'wallet' } });
  const history = http.get(`${url}/mine`, { headers, tags: { name: 'history' } });
  if (history.json('items').length !== CLAIMS_PER_USER) {
    console.error(`history of ${headers['Usher-User']}: ${history.body}`);
  }
  check(null, {
    'one claim is paid': () => count(201) === 1,
    'the other claims are refused': () => count(409) === CLAIMS_PER_USER - 1,
    'the wallet has the points once': () => wallet.json('balance') === POINTS,
    'the history has every claim': () => history.json('items').length === CLAIMS_PER_USER,
  });
}

function randomUuid() {
  const digits = Array.from({ length: 32 }, () => Math.floor(Math.random() * 16).toString(16));
  digits[12] = '4';
  digits[16] = '8';
  const text = digits.join('');
  const lengths = [8, 4, 4, 4, 12];
  let start = 0;
  return lengths.map((length) => text.slice(start, (start += length))).join('-');
}
