// k6: 100 users wait in a queue and poll as the service asks. No position may rise. The exit code
// shows whether the thresholds were kept. See README.md.
//
// With an admin key the queue is a paused one, so that every user polls until the end of the run.

import http from 'k6/http';
import { check, sleep } from 'k6';
import { randomUuid, target, url } from './k6_setup.js';

const MAX_POLLS = 10;

// 410: admitted, and the claim window has passed.
http.setResponseCallback(http.expectedStatuses(200, 201, 204, 410));

export const options = {
  scenarios: {
    waiting: { executor: 'constant-vus', vus: 100, duration: '10s', gracefulStop: '30s' },
  },
  thresholds: {
    checks: ['rate==1'],
    http_req_failed: ['rate==0'],
    http_req_duration: ['p(95)<500', 'p(99)<1000'],
  },
};

export function setup() {
  const queue = target('queues', __ENV.QUEUE || 'demo', { mode: 'paused' });
  const { mode } = http.get(`${url}/v1/queues/${queue}`).json();
  if (!mode || mode === 'closed') throw new Error(`the queue ${queue} is not open`);
  return queue;
}

export default function (queue) {
  const path = `${url}/v1/queues/${queue}/tokens`;
  const user = { 'Usher-User': randomUuid() };
  let ticket = http.post(path, null, { headers: user, tags: { name: 'join' } }).json();
  const headers = { 'Queue-Token': ticket.token };
  for (let polls = 0; polls < MAX_POLLS && ticket.status === 'waiting'; polls += 1) {
    sleep(ticket.poll_after_ms / 1000);
    const response = http.get(`${path}/me`, { headers, tags: { name: 'poll' } });
    if (response.status !== 200) break;
    const next = response.json();
    const rises = ticket.position !== null && next.position > ticket.position;
    check(null, { 'no position rises': () => !rises });
    ticket = next;
  }
  http.del(`${path}/me`, null, { headers, tags: { name: 'leave' } });
}
