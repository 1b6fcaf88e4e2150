// Checks that Usher has admitted the user of a request. express.ts and nestjs.ts use this class.

import type { IncomingMessage } from "node:http";
import { createRemoteJWKSet, errors, jwtVerify } from "jose";

const TIMEOUT_MS = 2_000;
// Usher publishes a new key two minutes before it signs with it.
const KEYS_MAX_AGE_MS = 60_000;

// Errors of jose that the token causes. Any other error means that there are no keys.
const REASONS: Record<string, string> = {
  ERR_JWT_EXPIRED: "The pass has expired.",
  ERR_JOSE_ALG_NOT_ALLOWED: "The pass is not signed with EdDSA.",
  ERR_JWKS_NO_MATCHING_KEY: "The pass is signed with an unknown key.",
  ERR_JWKS_MULTIPLE_MATCHING_KEYS: "The pass does not name its key.",
  ERR_JWS_SIGNATURE_VERIFICATION_FAILED: "The signature of the pass is invalid.",
  ERR_JWT_CLAIM_VALIDATION_FAILED: "The claims of the pass are invalid.",
  ERR_JOSE_NOT_SUPPORTED: "The pass is malformed.",
  ERR_JWS_INVALID: "The pass is malformed.",
  ERR_JWT_INVALID: "The pass is malformed.",
};

export interface AdmissionOptions {
  /** The address of Usher, such as `http://usher:8080`. */
  url: string;
  queue: string;
}

/** The answer to a request that may not pass. `problem` is its body (RFC 9457). */
export class AdmissionError extends Error {
  readonly problem: { status: number; code: string; detail: string };
  readonly headers: Record<string, string>;

  constructor(status: 401 | 503, detail: string, options?: ErrorOptions) {
    super(detail, options);
    const code = status === 401 ? "not_admitted" : "usher_unavailable";
    this.problem = { status, code, detail };
    this.headers = { "Content-Type": "application/problem+json" };
    if (status === 401) this.headers["WWW-Authenticate"] = "Bearer";
    else this.headers["Retry-After"] = "3";
  }
}

export class Admission {
  readonly #options: AdmissionOptions;
  readonly #keys: ReturnType<typeof createRemoteJWKSet>;

  constructor(options: AdmissionOptions) {
    this.#options = options;
    const keys = new URL(`${options.url}/.well-known/jwks.json`);
    const limits = { cacheMaxAge: KEYS_MAX_AGE_MS, timeoutDuration: TIMEOUT_MS };
    this.#keys = createRemoteJWKSet(keys, limits);
  }

  /** Returns the user of a valid pass in the header `Authorization`. */
  async verifyPass({ headers }: IncomingMessage): Promise<string> {
    const pass = /^Bearer (.+)$/i.exec(headers.authorization ?? "")?.[1];
    if (!pass) throw new AdmissionError(401, "The request has no pass.");
    try {
      const { payload } = await jwtVerify(pass, this.#keys, {
        // Never accept an algorithm that the token chooses.
        algorithms: ["EdDSA"],
        audience: this.#options.queue,
        requiredClaims: ["exp", "sub"],
      });
      return payload.sub as string;
    } catch (cause) {
      if (cause instanceof errors.JWTClaimValidationFailed && cause.claim === "aud") {
        throw new AdmissionError(401, "The pass is for a different queue.", { cause });
      }
      const reason = cause instanceof errors.JOSEError && REASONS[cause.code];
      if (reason) throw new AdmissionError(401, reason, { cause });
      throw new AdmissionError(503, "The keys of Usher are not available.", { cause });
    }
  }

  /**
   * Asks Usher whether the user of a queue token is active now, and returns the user. The token is
   * in the header `Queue-Token` or in the cookie of the waiting page.
   */
  async checkToken({ headers }: IncomingMessage): Promise<string> {
    const { url, queue } = this.#options;
    const cookies = headers.cookie?.split("; ") ?? [];
    const cookie = cookies.find((text) => text.startsWith(`usher-${queue}=`));
    const token = headers["queue-token"]?.toString() ?? cookie?.slice(`usher-${queue}=`.length);
    if (!token) throw new AdmissionError(401, "The request has no queue token.");
    const request = {
      headers: { "Queue-Token": token },
      signal: AbortSignal.timeout(TIMEOUT_MS),
    };
    const response = await fetch(`${url}/v1/queues/${queue}/check`, request).catch(() => null);
    const user = response?.headers.get("Usher-User");
    if (response?.status === 204 && user) return user;
    if (response?.status === 401) throw new AdmissionError(401, "The user is not admitted.");
    throw new AdmissionError(503, "Usher did not answer the check.");
  }
}
