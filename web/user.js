// The generated user of the demo, and calls in their name.

import { clientOptions, newIdempotencyKey, UsherClient } from "./api.js";
import { setCurrency } from "./messages.js";
import { deviceStorage, tabStorage } from "./storage.js";

const USER_KEY = "usher-user";
const TOKEN_KEY = "usher-token";
const CONCERT_KEY = "usher-concert";

if (!deviceStorage.getItem(USER_KEY)) deviceStorage.setItem(USER_KEY, newIdempotencyKey());

export const usher = new UsherClient({ ...clientOptions, user: deviceStorage.getItem(USER_KEY) });

export const readToken = () => tabStorage.getItem(TOKEN_KEY);
export const storeToken = (token) => tabStorage.setItem(TOKEN_KEY, token);
export const forgetToken = () => tabStorage.removeItem(TOKEN_KEY);

export const readConcert = () => tabStorage.getItem(CONCERT_KEY);
export const storeConcert = (concert) => tabStorage.setItem(CONCERT_KEY, concert);

// A call with the queue token, unless `token` is null.
export const callApi = (method, path, { body, key, token = readToken() } = {}) =>
  usher.request({
    method, path: `/v1${path}`, body, idempotencyKey: key, queueToken: token ?? undefined,
  });

// The wallet names the currency of the installation.
export async function readWallet() {
  const wallet = await usher.getWallet();
  setCurrency(wallet.currency);
  return wallet;
}
