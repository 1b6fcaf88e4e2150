// Buys a seat with a client that openapi-typescript generated from the document of the service.

import createClient from "openapi-fetch";
import type { paths } from "./generated/public.js";

declare const process: { env: Record<string, string | undefined> };

const user = crypto.randomUUID();
const usher = createClient<paths>({
  baseUrl: process.env["USHER_URL"] ?? "http://127.0.0.1:8080",
  headers: { "usher-user": user },
});

function data<T>(answer: { data?: T; error?: unknown }): T {
  if (answer.data === undefined) throw new Error(JSON.stringify(answer.error));
  return answer.data;
}

let ticket = data(
  await usher.POST("/v1/queues/{queue}/tokens", { params: { path: { queue: "demo" } } }),
);
const headers = { "queue-token": ticket.token };
while (ticket.status === "waiting") {
  await new Promise((resolve) => setTimeout(resolve, ticket.poll_after_ms));
  const path = { queue: "demo" };
  ticket = data(await usher.GET("/v1/queues/{queue}/tokens/me", { params: { path }, headers }));
}
const held = data(
  await usher.POST("/v1/reservations/best", {
    body: { schedule_id: "demo-1", quantity: 1 },
    headers,
  }),
);
data(
  await usher.POST("/v1/wallet/charges", {
    params: { header: { "Idempotency-Key": crypto.randomUUID() } },
    body: { amount: held.amount },
  }),
);
const payment = data(
  await usher.POST("/v1/payments", {
    params: { header: { "Idempotency-Key": crypto.randomUUID() } },
    body: { reservation_id: held.id },
    headers,
  }),
);
if (payment.status !== "confirmed") throw new Error(`not paid: ${payment.status}`);
console.log(`generated TypeScript client: bought seat ${payment.seats[0]?.number}`);
