// The parts of a page that show a reservation or a coupon.

import { serverNow } from "./api.js";
import { createElement } from "./dom.js";
import { formatDateTime, formatMoney } from "./messages.js";

// The title, and the date unless it was removed.
export const describeShow = ({ concert_title: title, starts_at: startsAt }) =>
  startsAt ? `${title} · ${formatDateTime(startsAt)}` : title;

export function seatItems({ seats }) {
  return seats.map(({ number, section, price }) =>
    createElement(
      "li", {},
      createElement("strong", {}, String(number)), ` ${section} · ${formatMoney(price)}`,
    ));
}

// Whether the validity of a coupon issue is over.
export const isExpired = ({ valid_until: until }) =>
  Boolean(until) && Date.parse(until) <= serverNow();
