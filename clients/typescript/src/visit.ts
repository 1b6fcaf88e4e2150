import { NetworkError, ProblemError, UsherError } from "./errors.js";
import type {
  Payment, Reservation, Schedules, SeatMap, SeatStatus, Schedule, Ticket,
} from "./schema.js";
import { EventParser } from "./sse.js";
import { newIdempotencyKey, problemFrom, type ApiRequest, type Transport } from "./transport.js";

/** Options of a call that changes something. */
export interface ChangeOptions {
  /**
   * Identifies the change. A call with the key of an earlier one returns the result of that one.
   * The default is a new key for each call, which all retries of the call share. Store your own
   * key before the call to repeat it after a reload.
   */
  idempotencyKey?: string;
  signal?: AbortSignal;
}

export interface WaitOptions {
  /** Receives every ticket, for example to show the position. */
  onTicket?: (ticket: Ticket) => void;
  /** Receives updates by server-sent events instead of polling. Polling is the fallback. */
  stream?: boolean;
  /** How long the service may be unreachable before waiting fails. Default 300,000. */
  maxOutageMs?: number;
  /** Receives the error when the connection is lost, and null when it is back. */
  onOutage?: (error: UsherError | null) => void;
  signal?: AbortSignal;
}

export interface PaymentOptions extends ChangeOptions {
  couponIssueId?: string;
  /** The payment fails with `amount_changed` if the amount due differs. */
  expectedAmount?: number;
}

export interface CreatePaymentOptions extends PaymentOptions {
  /** Who takes the money. `external` leaves the payment `pending` until the backend confirms it. */
  method?: "wallet" | "external";
  /** The part that the wallet pays of an external payment. */
  walletAmount?: number;
}

const DEFAULT_MAX_OUTAGE_MS = 300_000;
/** Consecutive failed streams before polling replaces streaming. */
const MAX_STREAM_FAILURES = 3;
/** The service sends a comment every 15 seconds. A longer silence is a dead connection. */
const STREAM_IDLE_MS = 45_000;
/**
 * A hidden tab polls this much later. The service asks for a poll after at most half of the time in
 * which a turn or a place is lost, so this is safe.
 */
const HIDDEN_POLL_FACTOR = 1.5;
const PAYMENT_POLL_MS = 500;
const PAYMENT_WAIT_MS = 60_000;

/** A user's visit: the place in a queue and, once active, access to the seats. */
export class QueueVisit {
  #transport: Transport;
  #token: string;
  #ticket: Ticket | null;

  /** Use `UsherClient.joinQueue` or `UsherClient.resumeQueue`. */
  constructor(transport: Transport, readonly queueId: string, start: Ticket | string) {
    this.#transport = transport;
    this.#ticket = typeof start === "string" ? null : start;
    this.#token = typeof start === "string" ? start : start.token;
  }

  /** Proves the place in the queue. Store it to resume the visit after a reload. */
  get token(): string {
    return this.#token;
  }

  /** The last ticket that arrived, or null before the first one of a resumed visit. */
  get ticket(): Ticket | null {
    return this.#ticket;
  }

  /** Fetches the ticket. Fails with `queue_token_expired` if the visit has ended. */
  async refresh(options: { signal?: AbortSignal } = {}): Promise<Ticket> {
    const path = `${this.#path()}/tokens/me`;
    return this.#accept(await this.#send<Ticket>({ method: "GET", path, ...options }));
  }

  /**
   * Waits for admission and returns the active ticket. Fails with a ProblemError with the code
   * `queue_token_expired` if the place is lost.
   */
  async waitUntilActive(options: WaitOptions = {}): Promise<Ticket> {
    let last: Ticket | undefined;
    for await (const ticket of this.tickets(options)) {
      options.onTicket?.(ticket);
      last = ticket;
    }
    if (!last) throw new UsherError("The stream of tickets ended without a ticket.");
    return last;
  }

  /**
   * Yields tickets until the user is active. Polls no sooner than the service asks for. In a
   * browser, a hidden tab has no stream and polls less often.
   */
  async *tickets(options: WaitOptions = {}): AsyncGenerator<Ticket, void, undefined> {
    const { clock } = this.#transport;
    const { signal, maxOutageMs = DEFAULT_MAX_OUTAGE_MS, onOutage } = options;
    let ticket = this.#ticket ?? (await this.refresh(signal ? { signal } : {}));
    yield ticket;
    let streamFailures = 0;
    let lastContact = clock.now();
    let retryAfterMs = 0;
    while (ticket.status === "waiting") {
      const wasHidden = isHidden();
      if (options.stream && !wasHidden && streamFailures < MAX_STREAM_FAILURES) {
        let hasTicket = false;
        const stream = this.#openStream(options);
        try {
          let step = await stream.next();
          for (; !step.done; step = await stream.next()) {
            hasTicket = true;
            ticket = step.value;
            lastContact = clock.now();
            onOutage?.(null);
            yield ticket;
          }
          if (isHidden()) continue;
          streamFailures = hasTicket ? 0 : streamFailures + 1;
          if (ticket.status === "waiting") await clock.sleep(step.value, signal);
        } finally {
          // Closes the connection also when the caller stops early.
          await stream.return(0);
        }
        continue;
      }
      const pace = ticket.poll_after_ms * (wasHidden ? HIDDEN_POLL_FACTOR : 1);
      await clock.sleep(Math.max(pace, retryAfterMs) * (1 + clock.random() / 10), signal);
      retryAfterMs = 0;
      try {
        ticket = await this.refresh(signal ? { signal } : {});
        lastContact = clock.now();
        onOutage?.(null);
      } catch (error) {
        // A short outage must not end a long wait. The place is safe at the service.
        const isOver = clock.now() - lastContact > maxOutageMs;
        if (isOver || !(error instanceof UsherError) || !this.#isTemporary(error)) throw error;
        if (error instanceof ProblemError) retryAfterMs = (error.retryAfter ?? 0) * 1000;
        onOutage?.(error);
        continue;
      }
      if (wasHidden && !isHidden()) streamFailures = 0;
      yield ticket;
    }
  }

  /** Gives up the place or ends the visit. */
  async leave(options: { signal?: AbortSignal } = {}): Promise<void> {
    try {
      await this.#send({ method: "DELETE", path: `${this.#path()}/tokens/me`, ...options });
    } catch (error) {
      // The visit was over, or an earlier attempt whose response was lost has ended it.
      if (!(error instanceof ProblemError && error.code === "queue_token_expired")) throw error;
    }
  }

  /** The bookable schedules (dates) of a concert. */
  async listSchedules(concertId: string): Promise<Schedule[]> {
    const path = `/v1/concerts/${encodeURIComponent(concertId)}/schedules`;
    return (await this.#send<Schedules>({ method: "GET", path })).items;
  }

  /** The seats of a schedule, in the order of their numbers. */
  async listSeats(scheduleId: string, options: { status?: SeatStatus } = {}): Promise<SeatMap> {
    const path = `/v1/schedules/${encodeURIComponent(scheduleId)}/seats`;
    return this.#send<SeatMap>({ method: "GET", path, query: { status: options.status } });
  }

  /** Holds all of these seats, or none of them. */
  async holdSeats(
    scheduleId: string,
    seats: number[],
    options: ChangeOptions = {},
  ): Promise<Reservation> {
    const body = { schedule_id: scheduleId, seats };
    return this.#change<Reservation>("/v1/reservations", body, options);
  }

  /** Holds the best adjacent seats. */
  async holdBestSeats(
    scheduleId: string,
    quantity: number,
    options: ChangeOptions & { section?: string } = {},
  ): Promise<Reservation> {
    const { section } = options;
    const body = { schedule_id: scheduleId, quantity, ...(section !== undefined && { section }) };
    return this.#change<Reservation>("/v1/reservations/best", body, options);
  }

  /** Starts the payment of a held reservation. The payment can be `pending`. */
  async createPayment(
    reservationId: string,
    options: CreatePaymentOptions = {},
  ): Promise<Payment> {
    const { couponIssueId, expectedAmount, method, walletAmount } = options;
    const body = {
      reservation_id: reservationId,
      ...(couponIssueId !== undefined && { coupon_issue_id: couponIssueId }),
      ...(expectedAmount !== undefined && { expected_amount: expectedAmount }),
      ...(method !== undefined && { method }),
      ...(walletAmount !== undefined && { wallet_amount: walletAmount }),
    };
    return this.#change<Payment>("/v1/payments", body, options);
  }

  /**
   * Pays for a held reservation and waits up to a minute for the result. Check `status`: only
   * `confirmed` means that the seats are sold to the user.
   */
  async pay(reservationId: string, options: PaymentOptions = {}): Promise<Payment> {
    const { clock } = this.#transport;
    let payment = await this.createPayment(reservationId, options);
    const deadline = clock.now() + PAYMENT_WAIT_MS;
    while (payment.status === "pending" && clock.now() < deadline) {
      await clock.sleep(PAYMENT_POLL_MS * (1 + clock.random() / 4), options.signal);
      const path = `/v1/payments/${encodeURIComponent(payment.id)}`;
      try {
        payment = await this.#send<Payment>({ method: "GET", path, signal: options.signal });
      } catch (error) {
        // The payment goes on without this client. An outage must not hide its result.
        if (!this.#isTemporary(error)) throw error;
      }
    }
    return payment;
  }

  #isTemporary(error: unknown): boolean {
    return error instanceof UsherError && this.#transport.retryDelay(error, 1) !== null;
  }

  #path(): string {
    return `/v1/queues/${encodeURIComponent(this.queueId)}`;
  }

  #send<T>(request: ApiRequest): Promise<T> {
    return this.#transport.send<T>({ ...request, queueToken: this.#token });
  }

  #change<T>(path: string, body: unknown, options: ChangeOptions): Promise<T> {
    const { idempotencyKey = newIdempotencyKey(), signal } = options;
    return this.#send<T>({ method: "POST", path, body, idempotencyKey, signal });
  }

  #accept(ticket: Ticket): Ticket {
    this.#ticket = ticket;
    this.#token = ticket.token;
    if (ticket.status !== "expired") return ticket;
    const detail = "The place in the queue has expired.";
    throw new ProblemError(410, { code: "queue_token_expired", status: 410, detail });
  }

  /**
   * Yields the tickets of one connection. Returns the delay before the next connection in
   * milliseconds. Fails if the visit is over.
   */
  async *#openStream(options: WaitOptions): AsyncGenerator<Ticket, number, undefined> {
    const { signal, onOutage } = options;
    const { clock } = this.#transport;
    const parser = new EventParser();
    const path = `${this.#path()}/tokens/me/events`;
    const request: ApiRequest = { method: "GET", path, queueToken: this.#token, signal };
    const prepared = await this.#transport.prepare(request);
    const stopListening = onceHidden(prepared.abort);
    let timer = setTimeout(prepared.abort, STREAM_IDLE_MS);
    let reader: ReadableStreamDefaultReader<Uint8Array> | undefined;
    try {
      const response = await prepared.fetch();
      if (!response.ok) throw problemFrom(response, await response.text());
      reader = response.body?.getReader();
      const decoder = new TextDecoder();
      while (reader) {
        const chunk = await reader.read();
        if (chunk.done) break;
        clearTimeout(timer);
        timer = setTimeout(prepared.abort, STREAM_IDLE_MS);
        for (const event of parser.push(decoder.decode(chunk.value, { stream: true }))) {
          if (event.event !== "ticket") continue;
          const ticket = this.#accept(JSON.parse(event.data) as Ticket);
          yield ticket;
          if (ticket.status === "active") return 0;
        }
      }
    } catch (error) {
      signal?.throwIfAborted();
      if (isHidden()) return 0;
      const known = error instanceof UsherError ? error : new NetworkError(error);
      const delay = this.#transport.retryDelay(known, 1);
      if (delay === null) throw error;
      if (known instanceof NetworkError) onOutage?.(known);
      return Math.max(delay, parser.retryMs ?? 1000);
    } finally {
      stopListening();
      clearTimeout(timer);
      await reader?.cancel().catch(() => {});
      prepared.close();
    }
    return (parser.retryMs ?? 1000) * (1 + clock.random() / 4);
  }
}

/** Whether this is a browser's tab that the user does not see. */
function isHidden(): boolean {
  return "document" in globalThis && document.hidden;
}

/** Calls `action` when the tab is hidden. Returns what ends the listening. */
function onceHidden(action: () => void): () => void {
  if (!("document" in globalThis)) return () => {};
  const listener = () => document.hidden && action();
  document.addEventListener("visibilitychange", listener);
  return () => document.removeEventListener("visibilitychange", listener);
}
