// Verifies a visitor's pass in a backend behind the queue, using only the published keys.
// Usage: node pass.mjs QUEUE PASS [address] (default: USHER_URL, then http://127.0.0.1:8080)
// Prints the user of a valid pass.

declare const process: {
  argv: string[];
  env: Record<string, string | undefined>;
  getBuiltinModule(name: "node:crypto"): NodeCrypto;
};

interface NodeCrypto {
  createPublicKey(options: { key: JsonWebKey; format: "jwk" }): object;
  verify(algorithm: null, data: Uint8Array, key: object, signature: Uint8Array): boolean;
}

interface KeySet {
  keys: (JsonWebKey & { kid: string })[];
}

interface Header {
  alg: string;
  kid: string;
}

interface Claims {
  aud: string;
  sub: string;
  exp: number;
}

const { createPublicKey, verify } = process.getBuiltinModule("node:crypto");
const [, , queue = "", pass = "", address] = process.argv;
const BASE_URL = address ?? process.env["USHER_URL"] ?? "http://127.0.0.1:8080";

function decodeBase64Url(text: string): Uint8Array {
  const binary = atob(text.replace(/-/g, "+").replace(/_/g, "/"));
  return Uint8Array.from(binary, (char) => char.charCodeAt(0));
}

function decodeJson<T>(text: string): T {
  return JSON.parse(new TextDecoder().decode(decodeBase64Url(text))) as T;
}

/**
 * Returns the user of a valid pass for the queue, or null. A backend caches the keys as long as
 * their Cache-Control header allows, and fetches them again when it sees an unknown `kid`.
 */
export async function verifyPass(pass: string, queue: string): Promise<string | null> {
  const [header = "", body = "", signature = ""] = pass.split(".");
  const { alg, kid } = decodeJson<Header>(header);
  // Accept only the expected algorithm, never one that the token chooses.
  if (alg !== "EdDSA") return null;
  const response = await fetch(`${BASE_URL}/.well-known/jwks.json`);
  const { keys } = (await response.json()) as KeySet;
  const jwk = keys.find((key) => key.kid === kid);
  if (!jwk) return null;
  const key = createPublicKey({ key: jwk, format: "jwk" });
  const signed = new TextEncoder().encode(`${header}.${body}`);
  if (!verify(null, signed, key, decodeBase64Url(signature))) return null;
  const claims = decodeJson<Claims>(body);
  return claims.aud === queue && claims.exp * 1000 > Date.now() ? claims.sub : null;
}

const user = await verifyPass(pass, queue);
if (!user) throw new Error("not admitted");
console.log(user);
