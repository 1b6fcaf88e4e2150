import { ProblemError } from "./errors.js";
import type {
  Claim, ClaimAttempt, ClaimAttempts, Concert, Concerts, Coupon, CouponIssue, CouponIssues,
  Payment, Queue, Reservation, Reservations, Reward, Ticket, Wallet, WalletEntries, WalletEntry,
} from "./schema.js";
import {
  newIdempotencyKey, systemClock, Transport,
  type ApiRequest, type Clock, type RetryPolicy,
} from "./transport.js";
import { QueueVisit, type ChangeOptions } from "./visit.js";

export interface ClientOptions {
  /** The address of the service, such as `https://tickets.example`. */
  url: string;
  /** The user of the calls, for services that identify users by the `Usher-User` header. */
  user?: string;
  /** A JWT of the user, or a service key. A function is called for each request. */
  bearer?: string | (() => string | Promise<string>);
  /** How long one attempt may take. Default 15,000. */
  timeoutMs?: number;
  retry?: Partial<RetryPolicy>;
  /** Replaces the global `fetch`. */
  fetch?: typeof globalThis.fetch;
  /** Replaces time and chance in tests. */
  clock?: Clock;
}

/** A page of a list, newest first. */
export interface Page<T> {
  items: T[];
  /** Pass it as `before` to get the next page. Absent on the last page. */
  next?: string | null;
}

export interface PageOptions {
  /** Items per page, 1 to 500. Default 50. */
  limit?: number;
  /** `next` of the previous page. */
  before?: string;
  signal?: AbortSignal;
}

export interface CallOptions {
  signal?: AbortSignal;
}

const DEFAULT_TIMEOUT_MS = 15_000;
const DEFAULT_RETRY: RetryPolicy = {
  maxAttempts: 5,
  maxElapsedMs: 60_000,
  baseDelayMs: 200,
  maxDelayMs: 10_000,
};

/**
 * Calls the public API of Usher for one user.
 *
 * Every call is retried after a lost response, 5xx, and 429 with Retry-After, within the bounds of
 * the RetryPolicy. The retries are safe: each change has an idempotency key that is made before the
 * first attempt.
 */
export class UsherClient {
  #transport: Transport;

  constructor(options: ClientOptions) {
    this.#transport = new Transport({
      url: options.url,
      user: options.user,
      bearer: options.bearer,
      timeoutMs: options.timeoutMs ?? DEFAULT_TIMEOUT_MS,
      retry: { ...DEFAULT_RETRY, ...options.retry },
      // An unbound `fetch` fails in browsers.
      fetch: options.fetch ?? ((input, init) => globalThis.fetch(input, init)),
      clock: options.clock ?? systemClock,
    });
  }

  /** Sends a call that has no method here. Give a POST that is to run once an idempotency key. */
  request<T>(request: ApiRequest): Promise<T> {
    return this.#transport.send<T>(request);
  }

  // Queues

  async getQueue(queueId: string, options: CallOptions = {}): Promise<Queue> {
    return this.#get<Queue>(`/v1/queues/${encodeURIComponent(queueId)}`, options);
  }

  /** Joins a queue. A user who is in the queue already keeps the place. */
  async joinQueue(
    queueId: string,
    options: CallOptions & { challenge?: string } = {},
  ): Promise<QueueVisit> {
    const path = `/v1/queues/${encodeURIComponent(queueId)}/tokens`;
    const ticket = await this.#transport.send<Ticket>({ method: "POST", path, ...options });
    return new QueueVisit(this.#transport, queueId, ticket);
  }

  /** Resumes a visit with a stored token or ticket. The first call of the visit checks it. */
  resumeQueue(queueId: string, start: string | Ticket): QueueVisit {
    return new QueueVisit(this.#transport, queueId, start);
  }

  // Concerts

  async listConcerts(options: CallOptions = {}): Promise<Concert[]> {
    return (await this.#get<Concerts>("/v1/concerts", options)).items;
  }

  async getConcert(concertId: string, options: CallOptions = {}): Promise<Concert> {
    return this.#get<Concert>(`/v1/concerts/${encodeURIComponent(concertId)}`, options);
  }

  // Reservations and payments

  async listReservations(options: PageOptions = {}): Promise<Page<Reservation>> {
    return this.#list<Reservations>("/v1/reservations/mine", options);
  }

  async getReservation(reservationId: string, options: CallOptions = {}): Promise<Reservation> {
    return this.#get<Reservation>(reservationPath(reservationId), options);
  }

  /** Releases a hold. */
  async releaseReservation(reservationId: string, options: CallOptions = {}): Promise<void> {
    const path = reservationPath(reservationId);
    let isUncertain = false;
    const onUncertain = () => (isUncertain = true);
    try {
      await this.#transport.send({ method: "DELETE", path, onUncertain, ...options });
    } catch (error) {
      // An earlier attempt whose response was lost may have released the hold.
      const isRefused = error instanceof ProblemError && error.code === "not_releasable";
      if (!isRefused || !isUncertain) throw error;
      const { status } = await this.getReservation(reservationId, options);
      if (status !== "released") throw error;
    }
  }

  /** Cancels a confirmed reservation and refunds it. `seats` limits it to some of the seats. */
  async cancelReservation(
    reservationId: string,
    options: ChangeOptions & { seats?: number[] } = {},
  ): Promise<Reservation> {
    const path = `${reservationPath(reservationId)}/cancel`;
    const body = options.seats && { seats: options.seats };
    return this.#change<Reservation>(path, body, options);
  }

  async listPayments(options: PageOptions = {}): Promise<Page<Payment>> {
    return this.#list<Page<Payment>>("/v1/payments", options);
  }

  async getPayment(paymentId: string, options: CallOptions = {}): Promise<Payment> {
    return this.#get<Payment>(`/v1/payments/${encodeURIComponent(paymentId)}`, options);
  }

  /**
   * Confirms that the provider has taken the money of an external payment. Needs a service key as
   * `bearer`. The same call again gets the same payment.
   */
  async confirmPayment(
    paymentId: string,
    confirmation: { provider: string; reference: string; amount: number },
    options: CallOptions = {},
  ): Promise<Payment> {
    return this.#report(paymentId, "confirm", confirmation, options);
  }

  /** Voids an external payment that waits for its provider. */
  async voidPayment(
    paymentId: string,
    options: CallOptions & { reason?: string } = {},
  ): Promise<Payment> {
    const { reason, ...rest } = options;
    return this.#report(paymentId, "void", reason === undefined ? {} : { reason }, rest);
  }

  /** Reports that the provider has paid money back. Needs a service key as `bearer`. */
  async reportRefund(
    paymentId: string,
    refund: { reference: string; amount: number },
    options: CallOptions = {},
  ): Promise<Payment> {
    return this.#report(paymentId, "refunded", refund, options);
  }

  // Wallet

  async getWallet(options: CallOptions = {}): Promise<Wallet> {
    return this.#get<Wallet>("/v1/wallet", options);
  }

  async listWalletEntries(options: PageOptions = {}): Promise<Page<WalletEntry>> {
    return this.#list<WalletEntries>("/v1/wallet/entries", options);
  }

  /** Adds an amount, in the minor unit of the currency. */
  async chargeWallet(amount: number, options: ChangeOptions = {}): Promise<WalletEntry> {
    return this.#change<WalletEntry>("/v1/wallet/charges", { amount }, options);
  }

  /** Takes an amount. */
  async useWallet(amount: number, options: ChangeOptions = {}): Promise<WalletEntry> {
    return this.#change<WalletEntry>("/v1/wallet/uses", { amount }, options);
  }

  // Coupons

  async getCoupon(couponId: string, options: CallOptions = {}): Promise<Coupon> {
    return this.#get<Coupon>(`/v1/coupons/${encodeURIComponent(couponId)}`, options);
  }

  /** Issues a coupon to the user, or returns the issue that the user has. */
  async issueCoupon(couponId: string, options: CallOptions = {}): Promise<CouponIssue> {
    const path = `/v1/coupons/${encodeURIComponent(couponId)}/issues`;
    return this.#transport.send<CouponIssue>({ method: "POST", path, ...options });
  }

  async listCouponIssues(options: PageOptions = {}): Promise<Page<CouponIssue>> {
    return this.#list<CouponIssues>("/v1/coupons/issues/mine", options);
  }

  // Rewards

  async getReward(code: string, options: CallOptions = {}): Promise<Reward> {
    return this.#get<Reward>(`/v1/rewards/${encodeURIComponent(code)}`, options);
  }

  /** Claims a reward. Each user can claim it once. */
  async claimReward(code: string, options: CallOptions = {}): Promise<Claim> {
    const path = `/v1/rewards/${encodeURIComponent(code)}/claims`;
    let isUncertain = false;
    const onUncertain = () => (isUncertain = true);
    try {
      return await this.#transport.send<Claim>({ method: "POST", path, onUncertain, ...options });
    } catch (error) {
      // An earlier attempt whose response was lost may have made the claim.
      const isClaimed = error instanceof ProblemError && error.code === "already_claimed";
      const claim = isClaimed && isUncertain ? await this.#findClaim(code, options) : null;
      if (!claim) throw error;
      return claim;
    }
  }

  async listRewardClaims(code: string, options: PageOptions = {}): Promise<Page<ClaimAttempt>> {
    const path = `/v1/rewards/${encodeURIComponent(code)}/claims/mine`;
    return this.#list<ClaimAttempts>(path, options);
  }

  async #findClaim(code: string, options: CallOptions): Promise<Claim | null> {
    for await (const attempt of paginate((before) =>
      this.listRewardClaims(code, { ...options, ...(before !== undefined && { before }) }))) {
      if (attempt.status !== "success") continue;
      const { reward } = await this.getReward(code, options);
      const { user_id } = await this.getWallet(options);
      const { id, claimed_at } = attempt;
      return { id, code, user_id, status: "success", reward, claimed_at };
    }
    return null;
  }

  /** The service runs a repeated call once, so it needs no idempotency key. */
  #report(
    paymentId: string,
    verb: string,
    body: unknown,
    options: CallOptions,
  ): Promise<Payment> {
    const path = `/v1/payments/${encodeURIComponent(paymentId)}/${verb}`;
    return this.#transport.send<Payment>({ method: "POST", path, body, ...options });
  }

  #get<T>(path: string, options: CallOptions): Promise<T> {
    return this.#transport.send<T>({ method: "GET", path, ...options });
  }

  #list<T>(path: string, { limit, before, signal }: PageOptions): Promise<T> {
    const query = { limit, before };
    return this.#transport.send<T>({ method: "GET", path, query, signal });
  }

  #change<T>(path: string, body: unknown, options: ChangeOptions): Promise<T> {
    const { idempotencyKey = newIdempotencyKey(), signal } = options;
    const request: ApiRequest = { method: "POST", path, body, idempotencyKey, signal };
    return this.#transport.send<T>(request);
  }
}

/** Yields the items of all pages: `paginate((before) => client.listReservations({ before }))`. */
export async function* paginate<T>(
  fetchPage: (before: string | undefined) => Promise<Page<T>>,
): AsyncGenerator<T, void, undefined> {
  let before: string | undefined;
  do {
    const page = await fetchPage(before);
    yield* page.items;
    before = page.next ?? undefined;
  } while (before !== undefined);
}

function reservationPath(reservationId: string): string {
  return `/v1/reservations/${encodeURIComponent(reservationId)}`;
}
