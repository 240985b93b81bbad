// Asks whether the phone has approved, and goes on once it has. The page works without it; then it reloads itself,
// and a button goes on.
"use strict";
(() => {
  const box = document.querySelector("[data-phone]");
  if (!box) return;
  const { finish, then, page } = box.dataset;
  const EVERY_MS = 2000;

  const look = async () => {
    let response;
    try {
      response = await fetch(finish, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: "{}",
      });
    } catch {
      setTimeout(look, EVERY_MS);
      return;
    }
    if (response.status === 429) {
      const seconds = Number(response.headers.get("retry-after")) || 5;
      setTimeout(look, seconds * 1000);
      return;
    }
    const answer = await response.json().catch(() => ({}));
    if (!response.ok) {
      // It says what is wrong.
      window.location.assign(page);
    } else if (answer.state === "waiting") {
      setTimeout(look, EVERY_MS);
    } else {
      window.location.assign(then);
    }
  };
  look();
})();
