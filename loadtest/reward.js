// k6: each user claims a reward four times concurrently, on four connections. One claim must be
// paid and three refused. The exit code shows whether the thresholds were kept. See README.md.

import http from 'k6/http';
import { check } from 'k6';
import { randomUuid, target, url } from './k6_setup.js';

const CLAIMS_PER_USER = 4;
const POINTS = 500;

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
  return target('rewards', null, {
    title: 'k6',
    active: true,
    conditions: [],
    reward: { kind: 'points', amount: POINTS },
    starts_at: '2020-01-01T00:00:00Z',
    ends_at: '2037-01-01T00:00:00Z',
  });
}

export default function (code) {
  const headers = { 'Usher-User': randomUuid() };
  const claims = `${url}/v1/rewards/${code}/claims`;
  const claim = { method: 'POST', url: claims, params: { headers, tags: { name: 'claim' } } };
  const responses = http.batch(Array(CLAIMS_PER_USER).fill(claim));
  const count = (status) => responses.filter((response) => response.status === status).length;
  const wallet = http.get(`${url}/v1/wallet`, { headers, tags: { name: 'wallet' } });
  const history = http.get(`${claims}/mine`, { headers, tags: { name: 'history' } });
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
