// Makes a device's key pair in the page. The server is told the public key alone: the private key goes into the
// configuration that is shown here once, and nowhere else.
"use strict";
(() => {
  // What is not asked for does not get in the way: hidden fields are not checked.
  for (const box of document.querySelectorAll("input[name=temporary]")) {
    const hours = box.form.elements.namedItem("hours");
    const follow = () => { hours.disabled = !box.checked; };
    box.addEventListener("change", follow);
    follow();
  }

  // What wg-quick takes as an interface's name: 15 letters, digits and a few signs.
  const fileName = (name) => {
    const plain = name.toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(/^-|-$/g, "");
    return (plain.slice(0, 15).replace(/-$/, "") || "portcullis") + ".conf";
  };

  const offerFile = (link, name, text) => {
    link.download = fileName(name);
    link.href = URL.createObjectURL(new Blob([text], { type: "application/octet-stream" }));
  };

  // The page after a pasted key: its configuration is whole but for the private key.
  const added = document.querySelector("[data-added]");
  if (added) {
    const text = document.querySelector("[data-added-text]").textContent;
    offerFile(added.querySelector("[data-added-file]"), added.dataset.added, text);
    const copied = added.querySelector("[data-added-said]");
    added.querySelector("[data-added-copy]").addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(text);
        copied.textContent = "It is copied.";
      } catch {
        copied.textContent = "This browser does not let the page copy it: select the text.";
      }
    });
    added.hidden = false;
  }

  const form = document.querySelector("[data-device-add]");
  const result = document.querySelector("[data-device-made]");
  if (!form || !result) return;
  const said = form.querySelector("[data-device-said]");
  const button = form.querySelector("button");
  const paste = document.querySelector("[data-device-paste]");

  // An error whose text is meant for people.
  class Told extends Error {}

  const base64 = (bytes) => btoa(String.fromCharCode(...bytes));

  const makePair = async () => {
    const pair = await crypto.subtle.generateKey({ name: "X25519" }, true, ["deriveBits"]);
    const secret = new Uint8Array(await crypto.subtle.exportKey("pkcs8", pair.privateKey)).slice(-32);
    const open = new Uint8Array(await crypto.subtle.exportKey("raw", pair.publicKey));
    // Clamped as wg(8) writes keys (RFC 7748, 5); the public key is the same.
    secret[0] &= 248;
    secret[31] = (secret[31] & 127) | 64;
    return { secret: base64(secret), open: base64(open) };
  };

  const add = async (body) => {
    let response;
    try {
      response = await fetch(form.dataset.call || "/api/v1/devices", {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify(body),
      });
    } catch {
      throw new Told("The portal cannot be reached. Is the tunnel up?");
    }
    const answer = await response.json().catch(() => ({}));
    if (!response.ok) {
      const text = answer.error || "the portal refused it";
      throw new Told(text.charAt(0).toUpperCase() + text.slice(1) + ".");
    }
    return answer;
  };

  const configuration = (secret, tunnel) => {
    const lines = ["[Interface]", "PrivateKey = " + secret, "Address = " + tunnel.addresses.join(", ")];
    if (tunnel.portal_url) lines.unshift("# Sign in at " + tunnel.portal_url);
    if (tunnel.dns.length) lines.push("DNS = " + tunnel.dns.join(", "));
    if (tunnel.mtu) lines.push("MTU = " + tunnel.mtu);
    lines.push("", "[Peer]", "PublicKey = " + tunnel.server_public_key, "Endpoint = " + tunnel.endpoint);
    lines.push("AllowedIPs = " + tunnel.allowed_ips.join(", "));
    if (tunnel.persistent_keepalive_s) lines.push("PersistentKeepalive = " + tunnel.persistent_keepalive_s);
    return lines.join("\n") + "\n";
  };

  const drawQr = (text) => {
    const rows = qrCode(text);
    if (!rows) return null;
    const space = "http://www.w3.org/2000/svg";
    const side = rows.length + 8; // a quiet zone of four modules
    const picture = document.createElementNS(space, "svg");
    picture.setAttribute("viewBox", `0 0 ${side} ${side}`);
    picture.setAttribute("role", "img");
    picture.setAttribute("aria-label", "QR code of the configuration");
    picture.setAttribute("shape-rendering", "crispEdges");
    const path = document.createElementNS(space, "path");
    const dark = rows.flatMap((row, y) => row.map((on, x) => (on ? `M${x + 4} ${y + 4}h1v1h-1z` : "")));
    path.setAttribute("d", dark.join(""));
    picture.append(path);
    return picture;
  };

  const show = (device, text) => {
    const part = (name) => result.querySelector(`[data-made-${name}]`);
    part("name").textContent = device.name;
    part("text").textContent = text;
    offerFile(part("file"), device.name, text);
    const picture = drawQr(text);
    if (picture) part("qr").append(picture);
    else part("qr").hidden = true;
    document.querySelector("[data-devices]").hidden = true;
    result.hidden = false;
    const title = result.querySelector("h1, h2");
    title.tabIndex = -1;
    title.focus();
    title.scrollIntoView();
  };

  const refuse = (text) => {
    said.textContent = text;
    said.hidden = false;
  };

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    said.textContent = "";
    said.hidden = true;
    button.disabled = true;
    try {
      let pair;
      try {
        pair = await makePair();
      } catch {
        if (paste) paste.open = true;
        throw new Told("This browser cannot make WireGuard keys. " + (paste
          ? "Make one with your WireGuard app, and paste its public key below."
          : "Your administrator can add your device."));
      }
      const field = (name) => form.elements.namedItem(name);
      const body = { name: field("name").value, public_key: pair.open };
      if (field("temporary").checked) body.hours = Number(field("hours").value);
      if (field("enrolment")) body.enrolment = field("enrolment").value;
      const { device, tunnel } = await add(body);
      show(device, configuration(pair.secret, tunnel));
    } catch (error) {
      refuse(error instanceof Told ? error.message : "The key could not be made: " + error.message);
      button.disabled = false;
    }
  });
  form.hidden = false;
})();
