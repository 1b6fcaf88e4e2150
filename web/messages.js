// The text of the pages. The service selects the language from Accept-Language and writes it to the
// `lang` attribute of the document.

const messages = {
  en: {
    "queue.title": "You are in the queue",
    "queue.position": "Your position",
    "queue.waiting": "People in the queue",
    "queue.estimate": "Estimated wait",
    "queue.estimate.unknown": "not known yet",
    "queue.keep": "You can close this page. Open it again on this device to keep your position.",
    "queue.progress": "Progress through the queue",
    "queue.leave": "Leave the queue",
    "queue.next": "You are next",
    "queue.admitted": "It is your turn",
    "queue.continue": "Continue",
    "queue.until": "You have access until {time}.",
    "queue.paused.short": "The queue is paused",
    "queue.paused": "The queue is paused. You keep your position.",
    "queue.opens":
      "Sales open at {time}. Positions are drawn at that time. Reloading the page changes nothing.",
    "queue.soldout": "Sold out for now. Cancelled seats go to the people in the queue.",
    "queue.disconnected": "Connection lost. You keep your position. Reconnecting…",
    "queue.expired": "You are no longer in the queue",
    "queue.rejoin": "Join the queue again",
    "queue.closed": "The queue is closed",
    "queue.full": "The queue is full. Trying again automatically…",
    "queue.missing": "This queue does not exist",
    "queue.cookie": "Your browser did not keep your place",
    "queue.cookie.why":
      "It is your turn, but the site can't recognize you without a cookie. Allow cookies for this site and use https, then reload this page.",
    "queue.signin": "Please sign in first",
    "queue.signin.why": "Only signed-in users can join this queue.",
    "time.seconds": "{n} s",
    "time.minutes": "{n} min",
    "time.hours": "{h} h {n} min",
    "money": "₩{n}",
    "booking.concerts": "Choose a concert",
    "booking.intro":
      "Join the queue, choose your seats and pay from a demo wallet. No real money is charged.",
    "booking.queue": "{n} waiting, about {wait}",
    "booking.queue.empty": "No queue. You enter immediately.",
    "booking.join": "Book",
    "booking.date": "Date",
    "booking.seats": "Choose your seats",
    "booking.stage": "Stage",
    "booking.section": "{name}: {price}",
    "booking.seats.help":
      "Choose up to {n} seats. Use the arrow keys and the space bar, or tap a seat.",
    "booking.best": "Choose the {n} best seats",
    "booking.hold.none": "No seats selected",
    "booking.hold": "Hold {n} for {amount}",
    "booking.status.available": "available",
    "booking.status.held": "on hold",
    "booking.status.sold": "sold",
    "booking.status.selected": "selected",
    "booking.seat": "Seat {n}, {section}, {price}, {status}",
    "booking.available": "{n} of {total} seats available",
    "booking.taken": "No longer available: seat {seats}. Please choose another seat.",
    "booking.notenough": "Not enough adjacent seats.",
    "booking.countdown": "Your seats are held for {time}",
    "booking.pay": "Pay {amount}",
    "booking.charge": "Add {amount} to the wallet",
    "booking.balance": "Wallet balance",
    "booking.price": "Price",
    "booking.coupon": "Use a coupon: {amount} off",
    "booking.coupon.get": "Get a coupon ({n} left)",
    "booking.coupon.gone": "All coupons have been issued.",
    "booking.release": "Release the seats",
    "booking.pending": "Your payment is being processed…",
    "booking.lapsed": "Your hold has expired. The seats are available to others again.",
    "booking.insufficient": "The wallet balance is too low.",
    "booking.done": "Booking confirmed",
    "booking.paid": "Paid",
    "booking.another": "Book again",
    "booking.cancel": "Cancel the booking",
    "booking.cancelled": "Booking cancelled. The amount was returned to your wallet.",
    "booking.none": "No concerts are on sale.",
    "booking.header":
      "This demo calls the service as a generated user, which requires USHER_AUTH=header.",
    "error": "Something went wrong: {detail}",
    "error.network": "The service cannot be reached. Check your connection and try again.",
    "error.server":
      "The service cannot process the request at the moment. Please try again shortly.",
    "error.payment": "The payment was not completed. You were not charged.",
  },
  ko: {
    "queue.title": "대기 중입니다",
    "queue.position": "나의 대기 순서",
    "queue.waiting": "대기 인원",
    "queue.estimate": "예상 대기 시간",
    "queue.estimate.unknown": "확인 중",
    "queue.keep": "페이지를 닫아도 대기 순서는 유지됩니다. 같은 기기에서 다시 접속해 주세요.",
    "queue.progress": "대기 진행률",
    "queue.leave": "대기 취소",
    "queue.next": "다음 순서입니다",
    "queue.admitted": "입장할 차례입니다",
    "queue.continue": "입장하기",
    "queue.until": "{time}까지 이용할 수 있습니다.",
    "queue.paused.short": "입장 일시 중지",
    "queue.paused": "입장이 일시 중지되었습니다. 대기 순서는 유지됩니다.",
    "queue.opens": "{time}에 예매가 시작됩니다. 대기 순서는 그때 추첨으로 정해지며, 새로고침해도 달라지지 않습니다.",
    "queue.soldout": "현재 매진입니다. 취소된 좌석은 대기 순서대로 예매할 수 있습니다.",
    "queue.disconnected": "연결이 끊겼습니다. 대기 순서는 유지되며 다시 연결하는 중입니다…",
    "queue.expired": "대기가 종료되었습니다",
    "queue.rejoin": "다시 대기하기",
    "queue.closed": "대기열이 마감되었습니다",
    "queue.full": "대기 인원이 가득 찼습니다. 자동으로 다시 시도합니다…",
    "queue.missing": "존재하지 않는 대기열입니다",
    "queue.cookie": "브라우저에 대기 정보가 저장되지 않았습니다",
    "queue.cookie.why":
      "입장할 차례이지만 쿠키가 없어 확인할 수 없습니다. 이 사이트의 쿠키를 허용하고 https로 접속한 뒤 새로고침해 주세요.",
    "queue.signin": "로그인이 필요합니다",
    "queue.signin.why": "로그인 후 이용할 수 있습니다.",
    "time.seconds": "{n}초",
    "time.minutes": "{n}분",
    "time.hours": "{h}시간 {n}분",
    "money": "{n}원",
    "booking.concerts": "공연을 선택해 주세요",
    "booking.intro": "대기 후 좌석을 선택하고 예치금으로 결제하는 데모입니다. 실제 요금은 청구되지 않습니다.",
    "booking.queue": "{n}명 대기 중, 약 {wait}",
    "booking.queue.empty": "대기 없이 바로 입장할 수 있습니다",
    "booking.join": "예매하기",
    "booking.date": "관람일",
    "booking.seats": "좌석 선택",
    "booking.stage": "무대",
    "booking.section": "{name}: {price}",
    "booking.seats.help": "최대 {n}석까지 선택할 수 있습니다. 화살표 키와 스페이스 바를 사용하거나 좌석을 눌러 주세요.",
    "booking.best": "추천 좌석 {n}석 선택",
    "booking.hold.none": "좌석을 선택해 주세요",
    "booking.hold": "{n}석 예매하기 ({amount})",
    "booking.status.available": "예매 가능",
    "booking.status.held": "예매 진행 중",
    "booking.status.sold": "판매 완료",
    "booking.status.selected": "선택한 좌석",
    "booking.seat": "{n}번 좌석, {section}, {price}, {status}",
    "booking.available": "잔여 {n}석 / 전체 {total}석",
    "booking.taken": "이미 선택된 좌석입니다: {seats}번. 다른 좌석을 선택해 주세요.",
    "booking.notenough": "연속된 좌석이 부족합니다.",
    "booking.countdown": "남은 결제 시간 {time}",
    "booking.pay": "{amount} 결제하기",
    "booking.charge": "예치금 {amount} 충전하기",
    "booking.balance": "예치금 잔액",
    "booking.price": "결제 금액",
    "booking.coupon": "쿠폰 사용: {amount} 할인",
    "booking.coupon.get": "쿠폰 받기 ({n}장 남음)",
    "booking.coupon.gone": "쿠폰이 모두 소진되었습니다.",
    "booking.release": "좌석 선택 취소",
    "booking.pending": "결제를 처리하는 중입니다…",
    "booking.lapsed": "결제 시간이 초과되어 좌석 선택이 취소되었습니다.",
    "booking.insufficient": "예치금 잔액이 부족합니다.",
    "booking.done": "예매가 완료되었습니다",
    "booking.paid": "결제 금액",
    "booking.another": "다시 예매하기",
    "booking.cancel": "예매 취소",
    "booking.cancelled": "예매가 취소되었습니다. 결제 금액은 예치금으로 환불되었습니다.",
    "booking.none": "예매할 수 있는 공연이 없습니다.",
    "booking.header": "이 데모는 임의의 사용자로 서비스를 호출합니다. USHER_AUTH=header 설정이 필요합니다.",
    "error": "오류가 발생했습니다: {detail}",
    "error.network": "서비스에 연결할 수 없습니다. 네트워크 상태를 확인한 후 다시 시도해 주세요.",
    "error.server": "지금은 요청을 처리할 수 없습니다. 잠시 후 다시 시도해 주세요.",
    "error.payment": "결제가 완료되지 않았습니다. 요금은 청구되지 않았습니다.",
  },
};

export const language = document.documentElement.lang === "ko" ? "ko" : "en";

// Returns the text of a key. `values` replace the names in braces.
export function message(key, values = {}) {
  return messages[language][key].replace(/\{(\w+)\}/g, (_, name) => values[name]);
}

// Fills in the elements of the page: `data-message` names the text of an element and `data-label`
// its label for screen readers.
export function localizePage(root = document) {
  for (const element of root.querySelectorAll("[data-message]")) {
    element.textContent = message(element.dataset.message);
  }
  for (const element of root.querySelectorAll("[data-label]")) {
    element.setAttribute("aria-label", message(element.dataset.label));
  }
}

// The visitor's own region formats numbers and times if it uses the language of the page.
const locale = navigator.language.startsWith(language) ? navigator.language : language;

export const formatNumber = (value) => new Intl.NumberFormat(locale).format(value);

export const formatMoney = (value) => message("money", { n: formatNumber(value) });

export const formatTime = (time) =>
  new Date(time).toLocaleTimeString(locale, { hour: "2-digit", minute: "2-digit" });

export const formatDateTime = (time) =>
  new Date(time).toLocaleString(locale, { dateStyle: "medium", timeStyle: "short" });

export function formatDuration(seconds) {
  if (seconds < 60) return message("time.seconds", { n: Math.max(0, Math.ceil(seconds)) });
  const minutes = Math.ceil(seconds / 60);
  if (minutes < 60) return message("time.minutes", { n: minutes });
  return message("time.hours", { h: Math.floor(minutes / 60), n: minutes % 60 });
}
