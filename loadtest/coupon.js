// k6: 100 new users a second request a coupon of which there are 500. At the end exactly 500 are
// issued. The exit code shows whether the thresholds were kept. See README.md.

import http from 'k6/http';
import { check, sleep } from 'k6';
import { randomUuid, target, url } from './k6_setup.js';

const COUPONS = 500;

// 409: the coupon is sold out.
http.setResponseCallback(http.expectedStatuses(200, 201, 409));

export const options = {
  scenarios: {
    rush: {
      executor: 'constant-arrival-rate',
      rate: 100,
      timeUnit: '1s',
      duration: '10s',
      preAllocatedVUs: 100,
      maxVUs: 200,
    },
  },
  thresholds: {
    checks: ['rate==1'],
    http_req_failed: ['rate==0'],
    http_req_duration: ['p(95)<500', 'p(99)<1000'],
    dropped_iterations: ['count==0'],
  },
};

export function setup() {
  const coupon = target('coupons', __ENV.COUPON || 'demo-coupon', {
    title: 'k6',
    total_quantity: COUPONS,
    discount_amount: 1000,
    issue_starts_at: '2020-01-01T00:00:00Z',
    issue_ends_at: '2037-01-01T00:00:00Z',
  });
  const { status } = http.get(`${url}/v1/coupons/${coupon}`).json();
  if (status !== 'open') throw new Error(`the coupon ${coupon} is not open: ${status}`);
  return coupon;
}

export default function (coupon) {
  const headers = { 'Usher-User': randomUuid() };
  const path = `${url}/v1/coupons/${coupon}/issues`;
  const first = http.post(path, null, { headers, tags: { name: 'request' } });
  const second = http.post(path, null, { headers, tags: { name: 'request again' } });
  check(null, {
    'a coupon is issued or sold out': () =>
      first.status === 201 || first.json('code') === 'sold_out',
    'the second request has the result of the first': () =>
      first.status === 201
        ? second.status === 200 && second.json('id') === first.json('id')
        : second.status === 409,
  });
}

export function teardown(coupon) {
  // The answer may be a second old.
  sleep(1.1);
  const state = http.get(`${url}/v1/coupons/${coupon}`).json();
  const { issued_quantity: issued, total_quantity: total } = state;
  console.log(`coupon ${coupon}: ${issued} of ${total} issued`);
  check(null, { 'every coupon is issued, and not one more': () => issued === total });
}
