// Asks the browser for passkeys. The pages work without it; only passkeys do not.
"use strict";
(() => {
  const supported = window.PublicKeyCredential !== undefined && navigator.credentials !== undefined;

  // After these there is nothing more to answer.
  const OVER = ["approval_over", "wrong_number"];

  const toBytes = (text) => {
    const base64 = text.replace(/-/g, "+").replace(/_/g, "/");
    return Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
  };
  const toText = (buffer) => {
    const binary = Array.from(new Uint8Array(buffer), (byte) => String.fromCharCode(byte)).join("");
    return btoa(binary).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
  };
  const descriptors = (list) => (list || []).map((one) => ({ ...one, id: toBytes(one.id) }));

  // An error whose text is meant for people.
  class Told extends Error {
    constructor(text, code) {
      super(text);
      this.code = code;
    }
  }

  const send = async (url, body) => {
    let response;
    try {
      response = await fetch(url, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify(body === undefined ? {} : body),
      });
    } catch {
      throw new Told("The portal cannot be reached. Is the tunnel up?");
    }
    const answer = await response.json().catch(() => ({}));
    if (!response.ok) {
      const text = answer.error || "the portal refused it";
      throw new Told(text.charAt(0).toUpperCase() + text.slice(1) + ".", answer.code);
    }
    return answer;
  };

  const inWords = (error, none) => {
    if (error instanceof Told) return error.message;
    switch (error.name) {
      case "NotAllowedError":
        return none || "That was cancelled, took too long, or no fitting passkey is at hand.";
      case "InvalidStateError":
        return "This authenticator has a passkey for your account already.";
      case "SecurityError":
        return "This browser offers no passkeys on this page. Open the portal by its name.";
      default:
        return "The passkey could not be used: " + error.message;
    }
  };

  // What both calls are told beside the passkey: what it is for, where no device says so.
  const prove = async (begin, finish, bound, details, leftMs) => {
    const begun = await send(begin, bound);
    const publicKey = begun.publicKey;
    publicKey.challenge = toBytes(publicKey.challenge);
    publicKey.allowCredentials = descriptors(publicKey.allowCredentials);
    if (leftMs) publicKey.timeout = leftMs;
    const made = await navigator.credentials.get({ publicKey });
    const { authenticatorData, clientDataJSON, signature, userHandle } = made.response;
    return send(finish, {
      ...bound,
      ...details,
      ceremony: begun.ceremony,
      credential: {
        id: made.id,
        rawId: toText(made.rawId),
        type: made.type,
        extensions: made.getClientExtensionResults(),
        response: {
          authenticatorData: toText(authenticatorData),
          clientDataJSON: toText(clientDataJSON),
          signature: toText(signature),
          userHandle: userHandle ? toText(userHandle) : null,
        },
      },
    });
  };

  // What both calls are told beside the passkey: whose it is, where no device says so.
  const register = async (begin, finish, bound, details) => {
    const begun = await send(begin, bound);
    const publicKey = begun.publicKey;
    publicKey.challenge = toBytes(publicKey.challenge);
    publicKey.user.id = toBytes(publicKey.user.id);
    publicKey.excludeCredentials = descriptors(publicKey.excludeCredentials);
    const made = await navigator.credentials.create({ publicKey });
    const { attestationObject, clientDataJSON } = made.response;
    const transports = made.response.getTransports ? made.response.getTransports() : [];
    await send(finish, {
      ...bound,
      ...details,
      ceremony: begun.ceremony,
      credential: {
        id: made.id,
        rawId: toText(made.rawId),
        type: made.type,
        extensions: made.getClientExtensionResults(),
        response: {
          attestationObject: toText(attestationObject),
          clientDataJSON: toText(clientDataJSON),
          transports,
        },
      },
    });
  };

  // One at a time: the button is off until the browser is done.
  const run = async (box, button, work, then) => {
    const said = box.querySelector("[data-passkey-said]");
    said.textContent = "";
    said.hidden = true;
    button.disabled = true;
    try {
      const answer = await work();
      const next = then || (answer && answer.then);
      if (next) {
        window.location.assign(next);
        return;
      }
      (box.closest("[data-passkey-whole]") || box).hidden = true;
      const done = document.querySelector("[data-passkey-done]");
      done.hidden = false;
      done.focus();
    } catch (error) {
      const over = document.querySelector("[data-passkey-over]");
      if (over && OVER.includes(error.code)) {
        box.closest("[data-passkey-whole]").hidden = true;
        over.textContent = error.message;
        over.hidden = false;
        over.focus();
        return;
      }
      said.textContent = inWords(error, box.dataset.none);
      said.hidden = false;
      button.disabled = false;
      button.focus();
    }
  };

  for (const box of document.querySelectorAll("[data-passkey]")) {
    const button = box.querySelector("button");
    const { begin, finish, then } = box.dataset;
    if (!supported) {
      const said = box.querySelector("[data-passkey-said]");
      said.textContent = "This browser has no passkeys.";
      said.hidden = false;
      button.disabled = true;
    }
    box.hidden = false;
    if (box.dataset.passkey === "login") {
      button.addEventListener("click", () => run(box, button, () => prove(begin, finish), then));
    } else if (box.dataset.passkey === "approve") {
      box.addEventListener("submit", (event) => {
        event.preventDefault();
        const value = (name) => box.elements.namedItem(name).value;
        const [bound, details] = [{ token: value("token") }, { number: Number(value("number")) }];
        run(box, button, () => prove(begin, finish, bound, details, Number(box.dataset.leftMs)));
      });
    } else {
      box.addEventListener("submit", (event) => {
        event.preventDefault();
        const field = (name) => box.elements.namedItem(name);
        const details = { name: field("name").value };
        if (field("end_other_sessions")) details.end_other_sessions = field("end_other_sessions").checked;
        const bound = field("enrolment") ? { enrolment: field("enrolment").value } : {};
        run(box, button, () => register(begin, finish, bound, details), then);
      });
    }
  }
})();
