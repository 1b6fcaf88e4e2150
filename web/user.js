// The generated user of the demo, and calls in their name.

import { call, randomUuid } from "./api.js";
import { setCurrency } from "./messages.js";
import { deviceStorage, tabStorage } from "./storage.js";

const USER_KEY = "usher-user";
const TOKEN_KEY = "usher-token";
const CONCERT_KEY = "usher-concert";

if (!deviceStorage.getItem(USER_KEY)) deviceStorage.setItem(USER_KEY, randomUuid());
const user = deviceStorage.getItem(USER_KEY);

export const readToken = () => tabStorage.getItem(TOKEN_KEY);
export const storeToken = (token) => tabStorage.setItem(TOKEN_KEY, token);
export const forgetToken = () => tabStorage.removeItem(TOKEN_KEY);

export const readConcert = () => tabStorage.getItem(CONCERT_KEY);
export const storeConcert = (concert) => tabStorage.setItem(CONCERT_KEY, concert);

// Calls the API as the user: with the queue token, unless `token` is null.
export async function callApi(method, path, { body, key, token = readToken() } = {}) {
  const headers = { "Usher-User": user };
  if (token) headers["Queue-Token"] = token;
  if (key) headers["Idempotency-Key"] = key;
  const value = await call(method, `/v1${path}`, { headers, body });
  if (value?.currency) setCurrency(value.currency);
  return value;
}
