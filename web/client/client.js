import { ProblemError } from "./errors.js";
import { newIdempotencyKey, systemClock, Transport, } from "./transport.js";
import { QueueVisit } from "./visit.js";
const DEFAULT_TIMEOUT_MS = 15_000;
const DEFAULT_RETRY = {
    maxAttempts: 5,
    maxElapsedMs: 60_000,
    baseDelayMs: 200,
    maxDelayMs: 10_000,
};
export class UsherClient {
    #transport;
    constructor(options) {
        this.#transport = new Transport({
            url: options.url,
            user: options.user,
            bearer: options.bearer,
            timeoutMs: options.timeoutMs ?? DEFAULT_TIMEOUT_MS,
            retry: { ...DEFAULT_RETRY, ...options.retry },
            fetch: options.fetch ?? ((input, init) => globalThis.fetch(input, init)),
            clock: options.clock ?? systemClock,
        });
    }
    request(request) {
        return this.#transport.send(request);
    }
    async getQueue(queueId, options = {}) {
        return this.#get(`/v1/queues/${encodeURIComponent(queueId)}`, options);
    }
    async joinQueue(queueId, options = {}) {
        const path = `/v1/queues/${encodeURIComponent(queueId)}/tokens`;
        const ticket = await this.#transport.send({ method: "POST", path, ...options });
        return new QueueVisit(this.#transport, queueId, ticket);
    }
    resumeQueue(queueId, start) {
        return new QueueVisit(this.#transport, queueId, start);
    }
    async listConcerts(options = {}) {
        return (await this.#get("/v1/concerts", options)).items;
    }
    async getConcert(concertId, options = {}) {
        return this.#get(`/v1/concerts/${encodeURIComponent(concertId)}`, options);
    }
    async listReservations(options = {}) {
        return this.#list("/v1/reservations/mine", options);
    }
    async getReservation(reservationId, options = {}) {
        return this.#get(reservationPath(reservationId), options);
    }
    async releaseReservation(reservationId, options = {}) {
        const path = reservationPath(reservationId);
        let isUncertain = false;
        const onUncertain = () => (isUncertain = true);
        try {
            await this.#transport.send({ method: "DELETE", path, onUncertain, ...options });
        }
        catch (error) {
            const isRefused = error instanceof ProblemError && error.code === "not_releasable";
            if (!isRefused || !isUncertain)
                throw error;
            const { status } = await this.getReservation(reservationId, options);
            if (status !== "released")
                throw error;
        }
    }
    async cancelReservation(reservationId, options = {}) {
        const path = `${reservationPath(reservationId)}/cancel`;
        const body = options.seats && { seats: options.seats };
        return this.#change(path, body, options);
    }
    async listPayments(options = {}) {
        return this.#list("/v1/payments", options);
    }
    async getPayment(paymentId, options = {}) {
        return this.#get(`/v1/payments/${encodeURIComponent(paymentId)}`, options);
    }
    async confirmPayment(paymentId, confirmation, options = {}) {
        return this.#report(paymentId, "confirm", confirmation, options);
    }
    async voidPayment(paymentId, options = {}) {
        const { reason, ...rest } = options;
        return this.#report(paymentId, "void", reason === undefined ? {} : { reason }, rest);
    }
    async reportRefund(paymentId, refund, options = {}) {
        return this.#report(paymentId, "refunded", refund, options);
    }
    async getWallet(options = {}) {
        return this.#get("/v1/wallet", options);
    }
    async listWalletEntries(options = {}) {
        return this.#list("/v1/wallet/entries", options);
    }
    async chargeWallet(amount, options = {}) {
        return this.#change("/v1/wallet/charges", { amount }, options);
    }
    async useWallet(amount, options = {}) {
        return this.#change("/v1/wallet/uses", { amount }, options);
    }
    async getCoupon(couponId, options = {}) {
        return this.#get(`/v1/coupons/${encodeURIComponent(couponId)}`, options);
    }
    async issueCoupon(couponId, options = {}) {
        const path = `/v1/coupons/${encodeURIComponent(couponId)}/issues`;
        return this.#transport.send({ method: "POST", path, ...options });
    }
    async listCouponIssues(options = {}) {
        return this.#list("/v1/coupons/issues/mine", options);
    }
    async getReward(code, options = {}) {
        return this.#get(`/v1/rewards/${encodeURIComponent(code)}`, options);
    }
    async claimReward(code, options = {}) {
        const path = `/v1/rewards/${encodeURIComponent(code)}/claims`;
        let isUncertain = false;
        const onUncertain = () => (isUncertain = true);
        try {
            return await this.#transport.send({ method: "POST", path, onUncertain, ...options });
        }
        catch (error) {
            const isClaimed = error instanceof ProblemError && error.code === "already_claimed";
            const claim = isClaimed && isUncertain ? await this.#findClaim(code, options) : null;
            if (!claim)
                throw error;
            return claim;
        }
    }
    async listRewardClaims(code, options = {}) {
        const path = `/v1/rewards/${encodeURIComponent(code)}/claims/mine`;
        return this.#list(path, options);
    }
    async #findClaim(code, options) {
        for await (const attempt of paginate((before) => this.listRewardClaims(code, { ...options, ...(before !== undefined && { before }) }))) {
            if (attempt.status !== "success")
                continue;
            const { reward } = await this.getReward(code, options);
            const { user_id } = await this.getWallet(options);
            const { id, claimed_at } = attempt;
            return { id, code, user_id, status: "success", reward, claimed_at };
        }
        return null;
    }
    #report(paymentId, verb, body, options) {
        const path = `/v1/payments/${encodeURIComponent(paymentId)}/${verb}`;
        return this.#transport.send({ method: "POST", path, body, ...options });
    }
    #get(path, options) {
        return this.#transport.send({ method: "GET", path, ...options });
    }
    #list(path, { limit, before, signal }) {
        const query = { limit, before };
        return this.#transport.send({ method: "GET", path, query, signal });
    }
    #change(path, body, options) {
        const { idempotencyKey = newIdempotencyKey(), signal } = options;
        const request = { method: "POST", path, body, idempotencyKey, signal };
        return this.#transport.send(request);
    }
}
export async function* paginate(fetchPage) {
    let before;
    do {
        const page = await fetchPage(before);
        yield* page.items;
        before = page.next ?? undefined;
    } while (before !== undefined);
}
function reservationPath(reservationId) {
    return `/v1/reservations/${encodeURIComponent(reservationId)}`;
}
