// Says times in the browser's own zone, and counts the session down. The pages work without it.
"use strict";
(() => {
  const now = new Date();
  const day = (time) => {
    const year = time.getFullYear() === now.getFullYear() ? undefined : "numeric";
    return time.toLocaleDateString(undefined, { day: "numeric", month: "long", year });
  };
  const clock = (time) => time.toLocaleTimeString(undefined, { hour: "numeric", minute: "2-digit" });
  for (const element of document.querySelectorAll("time[data-local]")) {
    const time = new Date(element.dateTime);
    if (Number.isNaN(time.getTime())) continue;
    const isToday = day(time) === day(now);
    element.textContent = isToday ? "today, " + clock(time) : day(time) + ", " + clock(time);
  }

  const left = document.querySelector("[data-left-s]");
  if (!left) return;
  const live = document.querySelector("[data-session-live]");
  const over = document.querySelector("[data-session-over]");
  const aloud = document.querySelector("[data-session-aloud]");
  // Counted from what the server says is left: the browser's clock may be wrong.
  const end = Date.now() + Number(left.dataset.leftS) * 1000;
  // Said to screen readers, once each; the second by second text is not.
  const said = [600, 300, 60].filter((seconds) => seconds * 1000 < end - Date.now());
  let timer;

  const inWords = (seconds) => {
    const [h, m, s] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, seconds % 60];
    if (h) return `${h} h ${m} min`;
    return m ? `${m} min ${s} s` : `${s} s`;
  };
  const finish = () => {
    clearInterval(timer);
    live.hidden = true;
    over.hidden = false;
    document.title = "Session over · Portcullis";
    over.querySelector("h1").focus();
  };
  const tick = () => {
    const seconds = Math.max(0, Math.round((end - Date.now()) / 1000));
    left.textContent = inWords(seconds);
    if (said.length && seconds <= said[0]) {
      const minutes = said.shift() / 60;
      aloud.textContent = minutes === 1 ? "1 minute left." : `${minutes} minutes left.`;
    }
    if (seconds === 0) finish();
  };
  timer = setInterval(tick, 1000);
  tick();

  // It may have been ended elsewhere. Asked when someone looks, and not all the time: requests are traffic, and
  // traffic keeps a session from being idle.
  document.addEventListener("visibilitychange", async () => {
    if (document.visibilityState !== "visible" || live.hidden) return;
    try {
      const answer = await fetch("/api/v1/session");
      if (answer.status === 404) finish();
    } catch {
      // The tunnel may be down; the countdown goes on.
    }
  });
})();
