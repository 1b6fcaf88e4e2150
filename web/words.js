// What the pages say, in the language that the service chose by Accept-Language.

const words = {
  en: {
    "line.title": "You are in line",
    "line.ahead": "Your place",
    "line.waiting": "In line",
    "line.wait": "Estimated wait",
    "line.unknown": "not known yet",
    "line.keep": "You can close this page: your place is kept, and you come back to it on this device.",
    "line.progress": "Progress through the line",
    "line.leave": "Give up my place",
    "line.next": "You're next",
    "line.in": "It's your turn",
    "line.go": "Go in now",
    "line.until": "Your turn is kept until {time}.",
    "line.paused.short": "The line stands still",
    "line.paused": "The line stands still for a moment. Your place is kept.",
    "line.before": "The sale opens at {time}. Places are dealt then; reloading changes nothing.",
    "line.soldout": "Everything is sold out at the moment. Seats that are given back go to those in line.",
    "line.lost": "Connection lost. Your place is kept; trying again…",
    "line.expired": "Your place has been given up or has lapsed",
    "line.again": "Get in line again",
    "line.closed": "The line is closed",
    "line.full": "The line is full. Trying again by itself…",
    "line.missing": "There is no such line",
    "line.signin": "Sign in first",
    "line.signin.why": "This line knows its visitors by their account.",
    "time.seconds": "{n} s",
    "time.minutes": "{n} min",
    "time.hours": "{h} h {n} min",
    "money": "₩{n}",
    "book.pick": "What would you like to see?",
    "book.how": "Get in line, choose seats, pay from a wallet that you fill yourself: nothing here costs money.",
    "book.inline": "{n} in line, about {wait}",
    "book.noline": "No line: you go straight in",
    "book.join": "Get in line",
    "book.date": "Date",
    "book.seats": "Choose your seats",
    "book.stage": "Stage",
    "book.section": "{name}: {price}",
    "book.seats.how": "Up to {n}. Use the arrow keys and the space bar, or press a seat.",
    "book.best": "Choose the best {n} for me",
    "book.hold.none": "No seats chosen yet",
    "book.hold": "Hold {n} for {amount}",
    "book.free": "free", "book.held": "held", "book.sold": "sold", "book.mine": "chosen",
    "book.seat": "Seat {n}, {section}, {price}, {status}",
    "book.left": "{n} of {total} free",
    "book.taken": "Seat {seats} has just been taken. Choose another.",
    "book.notenough": "There are not so many seats side by side.",
    "book.heldfor": "Your seats are held for {time}",
    "book.pay": "Pay {amount}",
    "book.charge": "Put {amount} into the wallet",
    "book.balance": "In your wallet",
    "book.price": "Price",
    "book.coupon": "Use a coupon: {amount} off",
    "book.coupon.get": "Ask for a coupon ({n} left)",
    "book.coupon.gone": "The coupons are gone.",
    "book.release": "Give the seats back",
    "book.pending": "The payment is under way…",
    "book.lapsed": "The time for these seats is over. They are free again.",
    "book.poor": "There isn't enough in the wallet.",
    "book.done": "The seats are yours",
    "book.paid": "Paid",
    "book.another": "Book again",
    "book.cancel": "Cancel the booking",
    "book.cancelled": "Cancelled. The money is back in the wallet.",
    "book.nothing": "Nothing is on sale.",
    "book.header": "This demo calls the service as a made-up user. That needs USHER_AUTH=header.",
    "error": "Something went wrong: {detail}",
  },
  ko: {
    "line.title": "줄을 서 있습니다",
    "line.ahead": "내 순서",
    "line.waiting": "대기 인원",
    "line.wait": "예상 대기 시간",
    "line.unknown": "아직 알 수 없음",
    "line.keep": "이 페이지를 닫아도 순서는 유지되며, 이 기기에서 다시 열면 이어집니다.",
    "line.progress": "대기 진행 상황",
    "line.leave": "순서 포기하기",
    "line.next": "다음 차례입니다",
    "line.in": "입장할 차례입니다",
    "line.go": "지금 입장하기",
    "line.until": "{time}까지 입장할 수 있습니다.",
    "line.paused.short": "입장이 잠시 멈췄습니다",
    "line.paused": "잠시 입장이 멈췄습니다. 순서는 유지됩니다.",
    "line.before": "{time}에 판매가 시작됩니다. 순서는 그때 정해지며, 새로 고침해도 달라지지 않습니다.",
    "line.soldout": "지금은 매진입니다. 취소된 좌석은 줄을 선 분께 돌아갑니다.",
    "line.lost": "연결이 끊겼습니다. 순서는 유지되며 다시 연결하고 있습니다…",
    "line.expired": "순서를 포기했거나 입장 시간이 지났습니다",
    "line.again": "다시 줄 서기",
    "line.closed": "지금은 줄을 설 수 없습니다",
    "line.full": "대기열이 가득 찼습니다. 자동으로 다시 시도합니다…",
    "line.missing": "없는 대기열입니다",
    "line.signin": "먼저 로그인해 주세요",
    "line.signin.why": "이 대기열은 로그인한 사용자만 이용할 수 있습니다.",
    "time.seconds": "{n}초",
    "time.minutes": "{n}분",
    "time.hours": "{h}시간 {n}분",
    "money": "{n}원",
    "book.pick": "어떤 공연을 보시겠어요?",
    "book.how": "줄을 서고, 좌석을 고르고, 직접 채운 지갑으로 결제합니다. 실제 돈은 들지 않습니다.",
    "book.inline": "{n}명 대기 중, 약 {wait}",
    "book.noline": "대기 없이 바로 입장합니다",
    "book.join": "줄 서기",
    "book.date": "날짜",
    "book.seats": "좌석을 고르세요",
    "book.stage": "무대",
    "book.section": "{name}: {price}",
    "book.seats.how": "최대 {n}석. 화살표 키와 스페이스 바를 쓰거나 좌석을 누르세요.",
    "book.best": "가장 좋은 {n}석 고르기",
    "book.hold.none": "좌석을 먼저 골라 주세요",
    "book.hold": "{n}석 선점하기 ({amount})",
    "book.free": "선택 가능", "book.held": "선점됨", "book.sold": "판매됨", "book.mine": "선택함",
    "book.seat": "{n}번 좌석, {section}, {price}, {status}",
    "book.left": "{total}석 중 {n}석 남음",
    "book.taken": "{seats}번 좌석이 방금 선점되었습니다. 다른 좌석을 골라 주세요.",
    "book.notenough": "나란히 앉을 수 있는 좌석이 부족합니다.",
    "book.heldfor": "{time} 동안 좌석을 잡아 두었습니다",
    "book.pay": "{amount} 결제하기",
    "book.charge": "지갑에 {amount} 충전하기",
    "book.balance": "지갑 잔액",
    "book.price": "금액",
    "book.coupon": "쿠폰 쓰기: {amount} 할인",
    "book.coupon.get": "쿠폰 받기 ({n}장 남음)",
    "book.coupon.gone": "쿠폰이 모두 소진되었습니다.",
    "book.release": "좌석 돌려주기",
    "book.pending": "결제를 처리하고 있습니다…",
    "book.lapsed": "선점 시간이 끝나 좌석이 풀렸습니다.",
    "book.poor": "지갑 잔액이 부족합니다.",
    "book.done": "예매가 끝났습니다",
    "book.paid": "결제 금액",
    "book.another": "다시 예매하기",
    "book.cancel": "예매 취소하기",
    "book.cancelled": "취소되었습니다. 금액은 지갑으로 돌아갔습니다.",
    "book.nothing": "판매 중인 공연이 없습니다.",
    "book.header": "이 데모는 가상의 사용자로 호출합니다. USHER_AUTH=header가 필요합니다.",
    "error": "문제가 생겼습니다: {detail}",
  },
};

export const language = document.documentElement.lang === "ko" ? "ko" : "en";

export function word(key, values = {}) {
  return words[language][key].replace(/\{(\w+)\}/g, (_, name) => values[name]);
}

// Fills every element that names its words: `data-word` its text, `data-label` its label for screen readers.
export function fill(root = document) {
  for (const element of root.querySelectorAll("[data-word]")) element.textContent = word(element.dataset.word);
  for (const element of root.querySelectorAll("[data-label]")) element.setAttribute("aria-label", word(element.dataset.label));
}

// Numbers and times as the visitor's own region writes them, where it speaks the page's language.
const region = navigator.language.startsWith(language) ? navigator.language : language;

export const number = (value) => new Intl.NumberFormat(region).format(value);

export const money = (value) => word("money", { n: number(value) });

export const clock = (time) => new Date(time).toLocaleTimeString(region, { hour: "2-digit", minute: "2-digit" });

export const moment = (time) => new Date(time).toLocaleString(region, { dateStyle: "medium", timeStyle: "short" });

export function duration(seconds) {
  if (seconds < 60) return word("time.seconds", { n: Math.max(0, Math.ceil(seconds)) });
  const minutes = Math.ceil(seconds / 60);
  if (minutes < 60) return word("time.minutes", { n: minutes });
  return word("time.hours", { h: Math.floor(minutes / 60), n: minutes % 60 });
}
