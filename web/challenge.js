// The widget of the bot challenge. Turnstile and hCaptcha have the same interface.

import { language } from "./messages.js";

let loading = null;

// Shows the widget in an element. Resolves with its token, and rejects when it does not work.
export async function solveChallenge({ provider, script_url: url, site_key: sitekey }, element) {
  loading ??= loadScript(url);
  try {
    await loading;
  } catch (error) {
    loading = null;
    throw error;
  }
  element.replaceChildren();
  return new Promise((resolve, reject) => {
    window[provider].render(element, {
      sitekey,
      [provider === "turnstile" ? "language" : "hl"]: language,
      callback: resolve,
      "error-callback": () => reject(new Error("the challenge failed")),
    });
  });
}

function loadScript(url) {
  return new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = url;
    script.addEventListener("load", resolve);
    script.addEventListener("error", () => {
      script.remove();
      reject(new Error("the script of the challenge does not load"));
    });
    document.head.append(script);
  });
}
