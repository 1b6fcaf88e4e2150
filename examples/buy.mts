// Buys two seats with `fetch` alone.
// Usage: node buy.mjs [address] (default: USHER_URL, then http://127.0.0.1:8080)
//
// clients/typescript is the typed client. This file shows the HTTP calls behind it.

declare const process: { argv: string[]; env: Record<string, string | undefined> };

const address = process.argv[2] ?? process.env["USHER_URL"] ?? "http://127.0.0.1:8080";
const BASE_URL = `${address}/v1`;
const MAX_ATTEMPTS = 8;
const RETRIED_STATUSES = [429, 500, 502, 503, 504];

interface Ticket {
  token: string;
  status: "waiting" | "active" | "expired";
  position: number | null;
  estimated_wait_seconds: number | null;
  poll_after_ms: number;
}

interface ScheduleList {
  items: { id: string; available_seats: number }[];
}

interface Reservation {
  id: string;
  seats: { number: number; section: string; price: number }[];
  amount: number;
  held_until: string;
}

interface Payment {
  id: string;
  status: "pending" | "confirmed" | "declined" | "voided" | "refunded";
  paid: number;
}

interface Problem {
  code?: string;
  detail?: string;
}

interface CallOptions {
  body?: unknown;
  key?: string;
}

/** A response with an error status (RFC 9457). `problem.code` is stable. */
class ProblemError extends Error {
  constructor(readonly status: number, readonly problem: Problem) {
    super(`${status} ${problem.code}: ${problem.detail}`);
  }
}

const sleep = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));

/** Calls the API as one user. */
class UsherClient {
  #token: string | null = null;

  constructor(readonly user: string) {}

  /**
   * Sends a request and retries it after a lost response or a temporary error. Every retry sends
   * the same idempotency key, so that the service runs the request once.
   */
  async call<T>(method: string, path: string, { body, key }: CallOptions = {}): Promise<T> {
    const headers: Record<string, string> = {
      "Usher-User": this.user,
      "Content-Type": "application/json",
    };
    if (this.#token) headers["Queue-Token"] = this.#token;
    if (key) headers["Idempotency-Key"] = key;
    const request: RequestInit = { method, headers };
    if (body !== undefined) request.body = JSON.stringify(body);
    for (let attempt = 1; ; attempt += 1) {
      const isLast = attempt === MAX_ATTEMPTS;
      let seconds = 1;
      try {
        const response = await fetch(BASE_URL + path, request);
        if (response.ok) return (await response.json()) as T;
        if (isLast || !RETRIED_STATUSES.includes(response.status)) {
          // A proxy can answer with a page that is not JSON.
          const problem = (await response.json().catch(() => ({}))) as Problem;
          throw new ProblemError(response.status, problem);
        }
        seconds = Number(response.headers.get("Retry-After") ?? 1);
      } catch (error) {
        if (isLast || error instanceof ProblemError) throw error;
      }
      // Jitter prevents simultaneous retries of many clients.
      await sleep(seconds * 1000 * (1 + Math.random() * 0.3));
    }
  }

  /** Sends a POST with a new idempotency key. */
  post<T>(path: string, body: unknown): Promise<T> {
    return this.call<T>("POST", path, { body, key: crypto.randomUUID() });
  }

  /** Joins the queue, or finds the existing ticket, and waits for admission. */
  async enter(queue: string): Promise<void> {
    let ticket = await this.call<Ticket>("POST", `/queues/${queue}/tokens`);
    this.#token = ticket.token;
    while (ticket.status === "waiting") {
      const { position, estimated_wait_seconds: wait } = ticket;
      console.error(`position ${position}, estimated wait ${wait} s`);
      await sleep(ticket.poll_after_ms);
      ticket = await this.call<Ticket>("GET", `/queues/${queue}/tokens/me`);
    }
  }

  /** Pays for a reservation from the wallet and waits for the result. */
  async pay(reservation: Reservation): Promise<Payment> {
    let payment = await this.post<Payment>("/payments", { reservation_id: reservation.id });
    while (payment.status === "pending") {
      await sleep(500);
      payment = await this.call<Payment>("GET", `/payments/${payment.id}`);
    }
    return payment;
  }
}

const usher = new UsherClient(crypto.randomUUID());
await usher.enter("demo");
const [schedule] = (await usher.call<ScheduleList>("GET", "/concerts/demo/schedules")).items;
if (!schedule) throw new Error("no schedule is on sale");
const best = { schedule_id: schedule.id, quantity: 2 };
const held = await usher.post<Reservation>("/reservations/best", best);
await usher.post("/wallet/charges", { amount: 50_000 });
const payment = await usher.pay(held);
if (payment.status !== "confirmed") throw new Error(`not paid: ${JSON.stringify(payment)}`);
console.log(`bought: ${held.seats.map((seat) => seat.number).join(",")} for ${payment.paid}`);

export {};
