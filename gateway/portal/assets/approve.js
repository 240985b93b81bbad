// Shows what a phone is asked to approve. The token is behind the #, which no browser sends anywhere; it is taken
// out of the address, and sent in bodies alone.
"use strict";
(() => {
  const whole = document.querySelector("[data-approve]");
  const over = document.querySelector("[data-passkey-over]");
  const form = whole.querySelector("[data-passkey]");
  const denied = document.querySelector("[data-approve-denied]");
  const token = window.location.hash.slice(1);
  window.history.replaceState(null, "", window.location.pathname);
  // A code that is scanned while the page is open is another request.
  window.addEventListener("hashchange", () => window.location.reload());

  const send = (call) =>
    fetch("/api/v1/approve" + call, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ token }),
    });
  const end = async (response) => {
    if (response && response.status !== 404) {
      const answer = await response.json().catch(() => ({}));
      const text = answer.error || "the portal refused it";
      over.textContent = text.charAt(0).toUpperCase() + text.slice(1) + ".";
    }
    whole.hidden = true;
    over.hidden = false;
    over.focus();
  };
  const say = (name, text) => {
    whole.querySelector(`[data-approve-${name}]`).textContent = text;
  };

  const show = async () => {
    if (!token) {
      end();
      return;
    }
    const response = await send("").catch(() => undefined);
    if (!response) {
      over.textContent = "The portal cannot be reached.";
      end();
      return;
    }
    if (!response.ok) {
      end(response);
      return;
    }
    const asked = await response.json();
    say("user", asked.user);
    say("location", asked.locations.join(", "));
    say("device", asked.device === null ? "one of yours, chosen after this" : asked.device);
    say("network", asked.network + (asked.in_tunnel ? " (inside the tunnel)" : ""));
    say("time", new Date(asked.asked_at).toLocaleTimeString());
    whole.querySelector("[data-approve-elsewhere]").hidden =
      asked.here || asked.same_network !== false;
    if (asked.here) {
      document.querySelector("h1").textContent = "Connect this computer";
      const number = form.querySelector("[data-approve-number]");
      number.hidden = true;
      number.querySelector("input").disabled = true;
      form.querySelector("button").textContent = "Connect with a passkey";
      form.dataset.none = "That was cancelled, took too long, or no passkey of yours for this portal is at hand.";
      denied.textContent = "Denied. Nothing is connected. If you have not begun this, tell your administrator.";
      say("why", "A command on this computer asks for this. Go on only if you have begun it yourself just now.");
    }
    form.elements.namedItem("token").value = token;
    form.dataset.leftMs = String(asked.expires_in_s * 1000);
    whole.hidden = false;
    (asked.here ? form.querySelector("button") : form.elements.namedItem("number")).focus();
  };

  whole.querySelector("[data-approve-deny]").addEventListener("submit", async (event) => {
    event.preventDefault();
    const response = await send("/deny").catch(() => undefined);
    if (!response || !response.ok) {
      end(response);
      return;
    }
    whole.hidden = true;
    denied.hidden = false;
    denied.focus();
  });
  show();
})();
