// What a backend behind the line does with a visitor's pass: checks it by itself, with nothing but the published keys.
// usage: node pass.mjs <queue> <pass> [address]   (USHER_URL, http://127.0.0.1:8080); prints the user

declare const process: { argv: string[]; env: Record<string, string | undefined>; getBuiltinModule(name: "node:crypto"): NodeCrypto };
interface NodeCrypto { createPublicKey(of: { key: JsonWebKey; format: "jwk" }): object; verify(algorithm: null, data: Uint8Array, key: object, signature: Uint8Array): boolean }
interface Keys { keys: (JsonWebKey & { kid: string })[] }
interface Claims { aud: string; sub: string; exp: number }

const { createPublicKey, verify } = process.getBuiltinModule("node:crypto");
const [, , queue = "", pass = "", address] = process.argv;
const base = address ?? process.env["USHER_URL"] ?? "http://127.0.0.1:8080";

const bytes = (text: string) => Uint8Array.from(atob(text.replace(/-/g, "+").replace(/_/g, "/")), (char) => char.charCodeAt(0));
const json = <T,>(text: string) => JSON.parse(new TextDecoder().decode(bytes(text))) as T;

/** The user of a pass for this queue, or null. Keep the keys for as long as their Cache-Control says; an unknown `kid` is a reason to look again. */
export async function admitted(pass: string, queue: string): Promise<string | null> {
  const [head = "", body = "", signature = ""] = pass.split(".");
  const { alg, kid } = json<{ alg: string; kid: string }>(head);
  // Never the algorithm that a token names for itself: it is EdDSA, or it is not ours.
  if (alg !== "EdDSA") return null;
  const { keys } = (await (await fetch(`${base}/.well-known/jwks.json`)).json()) as Keys;
  const key = keys.find((one) => one.kid === kid);
  if (!key || !verify(null, new TextEncoder().encode(`${head}.${body}`), createPublicKey({ key, format: "jwk" }), bytes(signature))) return null;
  const claims = json<Claims>(body);
  return claims.aud === queue && claims.exp * 1000 > Date.now() ? claims.sub : null;
}

const user = await admitted(pass, queue);
if (!user) throw new Error("not admitted");
console.log(user);
